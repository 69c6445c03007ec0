import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** What Java's Admin asks of a broker, but for groups. */
final class Administration {
    private static final Admin ADMIN = Cases.admin;

    private Administration() {}

    /** Runs what must fail, and with this error. */
    static void fails(Class<? extends Throwable> expected, Harness.Case body) throws Exception {
        try {
            body.run();
        } catch (ExecutionException error) {
            Harness.check(expected.isInstance(error.getCause()), "not a " + expected.getSimpleName() + ": " + error.getCause());
            return;
        }
        throw new AssertionError("no " + expected.getSimpleName());
    }

    static void cluster() throws Exception {
        DescribeClusterResult cluster = ADMIN.describeCluster();
        Collection<Node> nodes = cluster.nodes().get();
        Harness.check(nodes.contains(cluster.controller().get()), "the controller is not among " + nodes);
        Harness.check(!cluster.clusterId().get().isEmpty(), "no cluster id");
        Node node = nodes.iterator().next();
        String topic = Cases.create("cluster", 2, Map.of());
        Harness.waitFor(() -> "a folder with the topic", () -> {
            try {
                return ADMIN.describeLogDirs(List.of(node.id())).allDescriptions().get().get(node.id()).values().stream()
                    .anyMatch(folder -> folder.replicaInfos().containsKey(new TopicPartition(topic, 1)) && folder.totalBytes().orElse(0) > 0);
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        });
    }

    static void topics() throws Exception {
        String name = Harness.topic("topics");
        Collection<Node> nodes = ADMIN.describeCluster().nodes().get();
        Node node = nodes.iterator().next();
        NewTopic placed = new NewTopic(name, Map.of(0, List.of(node.id()), 1, List.of(node.id())));
        ADMIN.createTopics(List.of(placed), new CreateTopicsOptions().validateOnly(true)).all().get();
        fails(UnknownTopicOrPartitionException.class, () -> ADMIN.describeTopics(List.of(name)).allTopicNames().get());
        Uuid id = ADMIN.createTopics(List.of(placed)).topicId(name).get();
        fails(InvalidTopicException.class, () -> ADMIN.createTopics(List.of(new NewTopic("a/b", 1, (short) 1))).all().get());
        fails(InvalidPartitionsException.class, () -> ADMIN.createTopics(List.of(new NewTopic(name + "-0", 0, (short) 1))).all().get());
        fails(InvalidReplicationFactorException.class,
            () -> ADMIN.createTopics(List.of(new NewTopic(name + "-9", 1, (short) 9))).all().get());
        fails(InvalidConfigurationException.class, () -> ADMIN.createTopics(
            List.of(new NewTopic(name + "-c", 1, (short) 1).configs(Map.of("retention.ms", "soon")))).all().get());
        fails(InvalidPartitionsException.class, () -> ADMIN.createPartitions(Map.of(name, NewPartitions.increaseTo(1))).all().get());
        ADMIN.createPartitions(Map.of(name, NewPartitions.increaseTo(4))).all().get();
        TopicDescription[] found = new TopicDescription[1];
        Harness.waitFor(() -> "four partitions: " + found[0], () -> {
            try {
                found[0] = ADMIN.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id);
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
            return found[0].partitions().size() == 4;
        });
        Harness.check(found[0].name().equals(name) && !found[0].isInternal() && nodes.stream().anyMatch(other -> other.id() == found[0].partitions().get(3).leader().id())
            && found[0].partitions().get(3).isr().size() == 1, "found " + found[0]);
        ADMIN.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        fails(UnknownTopicIdException.class, () -> ADMIN.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get());
    }

    static void settings() throws Exception {
        String topic = Cases.create("settings", 1, Map.of("retention.ms", "3600000"));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        ConfigEntry retention = config(resource).get("retention.ms");
        Harness.check(retention.value().equals("3600000") && retention.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG
            && retention.type() == ConfigEntry.ConfigType.LONG && !retention.isReadOnly() && !retention.isSensitive()
            && retention.synonyms().get(0).source() == retention.source() && retention.documentation() != null, "found " + retention);
        Harness.check(config(resource).get("segment.bytes").isDefault(), "not a default: " + config(resource).get("segment.bytes"));
        change(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.SET);
        becomes(resource, "cleanup.policy", found -> found.value().equals("compact"));
        change(resource, "cleanup.policy", "delete", AlterConfigOp.OpType.APPEND);
        becomes(resource, "cleanup.policy", found -> List.of(found.value().split(",")).containsAll(List.of("compact", "delete")));
        change(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
        becomes(resource, "cleanup.policy", found -> found.value().equals("delete"));
        change(resource, "retention.ms", "", AlterConfigOp.OpType.DELETE);
        becomes(resource, "retention.ms", ConfigEntry::isDefault);
        fails(InvalidConfigurationException.class, () -> change(resource, "no.such.setting", "1", AlterConfigOp.OpType.SET));
        fails(UnknownTopicOrPartitionException.class,
            () -> change(new ConfigResource(ConfigResource.Type.TOPIC, topic + "-none"), "retention.ms", "1", AlterConfigOp.OpType.SET));
        Harness.check(ADMIN.listConfigResources().all().get().contains(resource), "the topic is not listed");
    }

    private static Config config(ConfigResource resource) throws Exception {
        DescribeConfigsOptions options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        return ADMIN.describeConfigs(List.of(resource), options).all().get().get(resource);
    }

    /** Waits for a setting: a broker may learn of a change a moment later. */
    private static void becomes(ConfigResource resource, String name, Predicate<ConfigEntry> wanted) throws InterruptedException {
        Harness.waitFor(() -> "another value of " + name, () -> {
            try {
                return wanted.test(config(resource).get(name));
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        });
    }

    private static void change(ConfigResource resource, String name, String value, AlterConfigOp.OpType how) throws Exception {
        ADMIN.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), how)))).all().get();
    }

    static void offsets() throws Exception {
        long start = System.currentTimeMillis() - 1_000_000;
        String topic = Cases.create("offsets", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        Harness.check(list(partition, OffsetSpec.maxTimestamp()) == -1, "the newest of no records is not -1");
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 100; number++) {
            long time = start + (number == 70 ? 500_000 : number * 1000L); // the newest is in the middle
            records.add(Cases.record(topic, time, null, Harness.bytes(number)));
        }
        Cases.send(records, Map.of("enable.idempotence", true, "batch.size", 1000));
        Harness.check(list(partition, OffsetSpec.maxTimestamp()) == 70, "the newest is " + list(partition, OffsetSpec.maxTimestamp()));
        Harness.check(list(partition, OffsetSpec.latest()) == 100, "the end is " + list(partition, OffsetSpec.latest()));
        Harness.check(list(partition, OffsetSpec.forTimestamp(start + 99_001)) == 70, "later than all but one");
        long low = ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(30))).lowWatermarks().get(partition).get().lowWatermark();
        Harness.check(low == 30 && list(partition, OffsetSpec.earliest()) == 30, "low watermark " + low);
        fails(OffsetOutOfRangeException.class,
            () -> ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(101))).all().get());
        List<ProducerState> producers = ADMIN.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
        Harness.check(producers.size() == 1 && producers.get(0).lastSequence() == 99 && producers.get(0).producerEpoch() == 0,
            "producers " + producers);
        ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1))).all().get();
        Harness.check(list(partition, OffsetSpec.earliest()) == 100, "not all records are deleted");
    }

    private static long list(TopicPartition partition, OffsetSpec spec) throws Exception {
        return ADMIN.listOffsets(Map.of(partition, spec)).partitionResult(partition).get().offset();
    }

    /** A batch of max.message.bytes is taken, one of a byte more is not. */
    static void limits() throws Exception {
        int limit = 5_000;
        String topic = Cases.create("limits", 1, Map.of("max.message.bytes", String.valueOf(limit)));
        // A batch of one record: a header of 61 bytes; the record's length in 2; attributes, deltas of time and offset, no key: 1
        // each; the value's length in 2 and the value; the number of headers in 1.
        int overhead = 61 + 2 + 4 + 2 + 1;
        int largest = -1;
        for (int size = limit - overhead - 3; size <= limit - overhead + 3; size++) {
            try {
                Cases.send(List.of(Cases.record(topic, null, null, new byte[size])), Map.of("retries", 0));
                largest = size;
            } catch (ExecutionException error) {
                Harness.check(error.getCause() instanceof RecordTooLargeException, "refused with " + error.getCause());
            }
        }
        Harness.check(largest == limit - overhead, "the largest value has " + largest + " bytes, not " + (limit - overhead));
        int count = (int) list(new TopicPartition(topic, 0), OffsetSpec.latest());
        Harness.check(count == 4 && Cases.read(topic, count).get(3).value().length == largest, count + " records are there");
    }
}
