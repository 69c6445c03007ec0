import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** More cases of groups: static members, patterns, what Java's Admin asks about them. */
final class Groups {
    private Groups() {}

    private static KafkaConsumer<byte[], byte[]> member(String topic, String instance) {
        Map<String, Object> settings = new HashMap<>(Map.of("group.id", topic + "-group", "session.timeout.ms", 20_000));
        if (instance != null) {
            settings.put("group.instance.id", instance);
        }
        KafkaConsumer<byte[], byte[]> consumer = Cases.consumer(settings);
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    /** Polls all of them until each has this many partitions. */
    private static void share(int each, List<KafkaConsumer<byte[], byte[]>> members) throws InterruptedException {
        Harness.waitFor(() -> each + " partitions for each of " + members.size(), () -> {
            members.forEach(member -> member.poll(Duration.ofMillis(20)));
            return members.stream().allMatch(member -> member.assignment().size() == each);
        });
    }

    /** A static member that comes back has its partitions again, without a rebalance; a second one of its name fences the first. */
    static void staticMembers() throws Exception {
        String topic = Cases.create("static", 4, Map.of());
        KafkaConsumer<byte[], byte[]> one = member(topic, "one");
        KafkaConsumer<byte[], byte[]> two = member(topic, "two");
        share(2, List.of(one, two));
        Set<TopicPartition> before = two.assignment();
        int generation = one.groupMetadata().generationId();
        two.close();
        KafkaConsumer<byte[], byte[]> again = member(topic, "two");
        share(2, List.of(one, again));
        Harness.check(again.assignment().equals(before), "had " + before + ", has " + again.assignment());
        Harness.check(one.groupMetadata().generationId() == generation && again.groupMetadata().generationId() == generation,
            "generation " + generation + " became " + one.groupMetadata().generationId());
        KafkaConsumer<byte[], byte[]> other = member(topic, "two");
        share(2, List.of(one, other));
        try {
            Harness.waitFor(() -> "the first of the name to be fenced", () -> {
                again.poll(Duration.ofMillis(100));
                again.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(0)));
                return false;
            });
        } catch (FencedInstanceIdException fenced) {
            // As it should be.
        }
        List.of(one, again, other).forEach(KafkaConsumer::close);
    }

    /** A group that follows a pattern takes up a topic that comes later. */
    static void pattern() throws Exception {
        String first = Cases.numbered("pattern-1", 10, System.currentTimeMillis());
        Map<String, Object> settings = Map.of("group.id", first + "-group", "metadata.max.age.ms", 500);
        try (KafkaConsumer<byte[], byte[]> consumer = Cases.consumer(settings)) {
            consumer.subscribe(Pattern.compile("java-pattern-[12]-" + Harness.RUN));
            Set<String> topics = new TreeSet<>();
            Harness.check(Cases.read(consumer, 10).stream().allMatch(record -> record.topic().equals(first)), "not the first topic");
            consumer.commitSync();
            String second = Cases.numbered("pattern-2", 10, System.currentTimeMillis());
            Cases.read(consumer, 10).forEach(record -> topics.add(record.topic()));
            Harness.check(topics.equals(Set.of(second)), "read from " + topics);
        }
    }

    static void administration() throws Exception {
        String topic = Cases.create("groups", 3, Map.of());
        String group = topic + "-group";
        TopicPartition partition = new TopicPartition(topic, 1);
        KafkaConsumer<byte[], byte[]> one = member(topic, null);
        share(3, List.of(one));
        ConsumerGroupDescription found = Cases.admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        Harness.check(found.groupState() == GroupState.STABLE && found.partitionAssignor().equals("range") && found.members().size() == 1
            && found.members().iterator().next().assignment().topicPartitions().size() == 3
            && found.coordinator().port() > 0, "found " + found);
        Administration.fails(UnknownMemberIdException.class, () -> Cases.admin.alterConsumerGroupOffsets(group,
            Map.of(partition, new OffsetAndMetadata(7))).all().get());
        Administration.fails(GroupNotEmptyException.class, () -> Cases.admin.deleteConsumerGroups(List.of(group)).all().get());
        one.close();
        Cases.admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(7, "x".repeat(100)))).all().get();
        Map<TopicPartition, OffsetAndMetadata> offsets = Cases.admin.listConsumerGroupOffsets(
            Map.of(group, new ListConsumerGroupOffsetsSpec())).all().get().get(group);
        Harness.check(offsets.equals(Map.of(partition, new OffsetAndMetadata(7, "x".repeat(100)))), "found " + offsets);
        List<String> listed = new ArrayList<>();
        Cases.admin.listGroups().all().get().forEach(each -> listed.add(each.groupId()));
        Harness.check(listed.contains(group), "listed " + listed);
        Cases.admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        Cases.admin.deleteConsumerGroups(List.of(group)).all().get();
        Administration.fails(GroupIdNotFoundException.class, () -> Cases.admin.describeConsumerGroups(List.of(group)).all().get());
    }
}
