import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.MessageFormatter;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter;
import org.apache.kafka.tools.consumer.OffsetsMessageFormatter;

/** Reads {@code __consumer_offsets} as a lag monitor does, with the formatters of Kafka's console consumer. */
final class Offsets implements AutoCloseable {
    private static final String TOPIC = "__consumer_offsets";
    private final KafkaConsumer<byte[], byte[]> consumer = Cases.consumer(Map.of());
    private final ObjectMapper json = new ObjectMapper();
    private final String group;
    private final List<JsonNode> commits = new ArrayList<>();
    private final List<JsonNode> states = new ArrayList<>();

    private Offsets(String group) {
        this.group = group;
        List<TopicPartition> partitions = consumer.partitionsFor(TOPIC).stream()
            .map(found -> new TopicPartition(TOPIC, found.partition())).toList();
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
    }

    @Override
    public void close() {
        consumer.close();
    }

    /** A record as its formatter prints it; empty when the formatter is not for this kind of record. */
    private Optional<JsonNode> format(MessageFormatter formatter, ConsumerRecord<byte[], byte[]> record) throws Exception {
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        try (PrintStream out = new PrintStream(text, true, StandardCharsets.UTF_8)) {
            formatter.writeTo(record, out);
        }
        return text.size() == 0 ? Optional.empty() : Optional.of(json.readTree(text.toByteArray()))
            .filter(found -> found.at("/key/data/group").asText().equals(group));
    }

    private static boolean has(List<JsonNode> list, Predicate<JsonNode> wanted) {
        return list.stream().anyMatch(wanted);
    }

    /** Reads on until the group has such a commit and such a state, in whatever order. */
    private void waitFor(String what, Predicate<JsonNode> commit, Predicate<JsonNode> state) throws InterruptedException {
        Harness.waitFor(() -> what + "; commits: " + commits + ", states: " + states, () -> {
            try {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    format(new OffsetsMessageFormatter(), record).ifPresent(commits::add);
                    format(new GroupMetadataMessageFormatter(), record).ifPresent(states::add);
                }
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
            return has(commits, commit) && has(states, state);
        });
    }

    /** What is committed and who is in the group can be read from the topic, in Kafka's own record format. */
    static void offsetsTopic() throws Exception {
        String topic = Cases.create("offsets-topic", 1, Map.of());
        String group = topic + "-group";
        TopicPartition partition = new TopicPartition(topic, 0);
        Map<String, Object> settings = Map.of("group.id", group, "group.instance.id", "one", "client.id", "monitored",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RoundRobinAssignor");
        long before = System.currentTimeMillis();
        try (KafkaConsumer<byte[], byte[]> member = Cases.consumer(settings)) {
            member.subscribe(List.of(topic));
            Harness.waitFor(() -> "the assignment", () -> {
                member.poll(Duration.ofMillis(100));
                return member.assignment().contains(partition);
            });
            member.commitSync(Map.of(partition, new OffsetAndMetadata(40, Optional.of(0), "a remark")));
            try (Offsets offsets = new Offsets(group)) {
                String id = member.groupMetadata().memberId();
                int generation = member.groupMetadata().generationId();
                offsets.waitFor("a commit of 40 and the member " + id, commit -> commit.at("/key/data/topic").asText().equals(topic)
                    && commit.at("/key/type").asInt() == 1 && commit.at("/key/data/partition").asInt(-1) == 0
                    && commit.at("/value/data/offset").asLong() == 40 && commit.at("/value/data/leaderEpoch").asInt(-1) == 0
                    && commit.at("/value/data/metadata").asText().equals("a remark")
                    && commit.at("/value/data/commitTimestamp").asLong() >= before, state -> isAlone(state, id, generation, topic));
                member.unsubscribe(); // a static member stays in the group
                removeMember(group);
                offsets.waitFor("a group without members", commit -> true, state -> state.at("/value/data/members").isArray()
                    && state.at("/value/data/members").isEmpty() && state.at("/value/data/leader").isNull());
                Cases.admin.deleteConsumerGroups(List.of(group)).all().get();
                offsets.waitFor("tombstones of the commit and of the group", commit -> commit.at("/value").isNull(),
                    state -> state.at("/value").isNull());
            }
        }
    }

    /** Is this the state of the group with this member alone, and the assignment of partition 0 of the topic? */
    private static boolean isAlone(JsonNode state, String memberId, int generation, String topic) {
        JsonNode data = state.at("/value/data");
        JsonNode member = data.at("/members/0");
        try {
            return state.at("/key/type").asInt() == 2 && data.at("/members").size() == 1
                && data.at("/protocolType").asText().equals("consumer") && data.at("/protocol").asText().equals("roundrobin")
                && data.at("/generation").asInt() == generation && data.at("/leader").asText().equals(memberId)
                && member.at("/memberId").asText().equals(memberId) && member.at("/groupInstanceId").asText().equals("one")
                && member.at("/clientId").asText().equals("monitored") && member.at("/clientHost").asText().contains("127.0.0.1")
                && member.at("/sessionTimeout").asInt() == 6000 && member.at("/rebalanceTimeout").asInt() == 300_000
                && ConsumerProtocol.deserializeSubscription(ByteBuffer.wrap(member.at("/subscription").binaryValue())).topics()
                    .equals(List.of(topic))
                && ConsumerProtocol.deserializeAssignment(ByteBuffer.wrap(member.at("/assignment").binaryValue())).partitions()
                    .equals(List.of(new TopicPartition(topic, 0)));
        } catch (java.io.IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void removeMember(String group) throws Exception {
        Cases.admin.removeMembersFromConsumerGroup(group, new org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions(
            List.of(new org.apache.kafka.clients.admin.MemberToRemove("one")))).all().get();
    }
}
