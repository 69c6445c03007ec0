import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The cases of Apache Kafka's Java client. */
public final class Cases {
    static String broker;
    static Admin admin;
    private static final int PARTITIONS = 6;

    private Cases() {}

    public static void main(String[] arguments) {
        broker = arguments[0];
        admin = Admin.create(Map.of("bootstrap.servers", broker));
        Map<String, Harness.Case> cases = new LinkedHashMap<>();
        cases.put("create", Cases::create);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            cases.put("produce-consume-" + codec, () -> codec(codec));
        }
        cases.put("idempotence", Cases::idempotence);
        cases.put("headers", Cases::headers);
        cases.put("timestamps", Cases::timestamps);
        cases.put("nulls", Cases::nulls);
        cases.put("seek", Cases::seek);
        cases.put("offsets-by-time", Cases::offsetsByTime);
        cases.put("group", () -> group("group", Map.of()));
        cases.put("commit-resume", Cases::commitResume);
        cases.put("admin", Groups::administration);
        cases.put("group-cooperative", () -> group("cooperative", Map.of("partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.CooperativeStickyAssignor")));
        cases.put("group-sticky", () -> group("sticky", Map.of("partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.StickyAssignor", "isolation.level", "read_committed")));
        cases.put("group-static", Groups::staticMembers);
        cases.put("group-pattern", Groups::pattern);
        cases.put("offsets-topic", Offsets::offsetsTopic);
        cases.put("admin-cluster", Administration::cluster);
        cases.put("admin-topics", Administration::topics);
        cases.put("admin-settings", Administration::settings);
        cases.put("admin-offsets", Administration::offsets);
        cases.put("record-limit", Administration::limits);
        cases.put("topic-command", Tools::topicCommand);
        cases.put("consumer-group-command", Tools::consumerGroupCommand);
        cases.put("config-command", Tools::configCommand);
        cases.put("other-tools", Tools::otherTools);
        cases.put("client-compatibility", Tools::clientCompatibility);
        if (arguments.length > 1) { // some of them, by name
            cases.keySet().retainAll(Arrays.asList(arguments));
        }
        Harness.main(cases);
    }

    static String create(String name, int partitions, Map<String, String> config) throws Exception {
        String topic = Harness.topic(name);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) -1).configs(config))).all().get();
        // A broker may know of what the controller has created a moment later.
        Harness.waitFor(() -> "the partitions of " + topic, () -> {
            try {
                return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().stream()
                    .filter(found -> found.leader() != null).count() == partitions;
            } catch (ExecutionException error) {
                return false;
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        });
        return topic;
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", broker, "acks", "all", "linger.ms", 5,
            "enable.idempotence", false));
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", broker, "enable.auto.commit", false,
            "auto.offset.reset", "earliest", "session.timeout.ms", 6000, "heartbeat.interval.ms", 300));
        all.putAll(settings);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Sends the records and waits until all are acknowledged. */
    static void send(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> settings) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (ProducerRecord<byte[], byte[]> each : records) {
                sent.add(producer.send(each));
            }
            producer.flush();
            for (Future<RecordMetadata> each : sent) {
                each.get();
            }
        }
    }

    static ProducerRecord<byte[], byte[]> record(String topic, Long timestamp, byte[] key, byte[] value, Header... headers) {
        return new ProducerRecord<>(topic, 0, timestamp, key, value, Arrays.asList(headers));
    }

    /** Reads this many records from where the consumer stands. */
    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long deadline = System.nanoTime() + Harness.WAIT_SECONDS * 1_000_000_000L;
        while (found.size() < count) {
            Harness.check(System.nanoTime() < deadline, found.size() + " of " + count + " records read");
            consumer.poll(Duration.ofMillis(500)).forEach(found::add);
        }
        return found.subList(0, count);
    }

    static List<ConsumerRecord<byte[], byte[]>> read(String topic, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seek(new TopicPartition(topic, 0), 0);
            return read(consumer, count);
        }
    }

    /** A topic with records a second apart, each with its offset as value. */
    static String numbered(String name, int count, long start) throws Exception {
        String topic = create(name, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            records.add(record(topic, start + number * 1000L, null, Harness.bytes(number)));
        }
        send(records, Map.of());
        return topic;
    }

    static void create() throws Exception {
        String topic = create("create", 3, Map.of());
        Harness.check(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 3,
            "not three partitions");
        try {
            create("create", 3, Map.of());
            throw new AssertionError("the same topic was created twice");
        } catch (ExecutionException error) {
            Harness.check(error.getCause() instanceof TopicExistsException, error.toString());
        }
        admin.deleteTopics(List.of(topic)).all().get();
        Harness.waitFor(() -> "the topic to be gone", () -> {
            try {
                return !admin.listTopics().names().get().contains(topic);
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        });
    }

    static void codec(String codec) throws Exception {
        String topic = create(codec, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < Harness.RECORDS; number++) {
            records.add(record(topic, null, null, Harness.bytes(number + " of a codec, of a codec, of a codec")));
        }
        send(records, Map.of("compression.type", codec));
        expectValues(records, read(topic, records.size()));
    }

    static void expectValues(List<ProducerRecord<byte[], byte[]>> sent, List<ConsumerRecord<byte[], byte[]>> found) {
        for (int index = 0; index < sent.size(); index++) {
            Harness.check(Arrays.equals(sent.get(index).value(), found.get(index).value()),
                "record " + index + " is " + Harness.text(found.get(index).value()));
        }
    }

    static void idempotence() throws Exception {
        String topic = create("idempotence", 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < Harness.RECORDS; number++) {
            records.add(record(topic, null, null, Harness.bytes(number)));
        }
        send(records, Map.of("enable.idempotence", true, "batch.size", 1000));
        expectValues(records, read(topic, records.size()));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            TopicPartition partition = new TopicPartition(topic, 0);
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            Harness.check(end == records.size(), "the partition ends at " + end);
        }
    }

    static void headers() throws Exception {
        String topic = create("headers", 1, Map.of());
        Header[] headers = {
            new RecordHeader("a", Harness.bytes("1")), new RecordHeader("b", Harness.bytes("2")),
            new RecordHeader("a", Harness.bytes("3")), new RecordHeader("empty", new byte[0]),
            new RecordHeader("null", (byte[]) null),
        };
        send(List.of(record(topic, null, null, Harness.bytes("some"), headers), record(topic, null, null, Harness.bytes("none"))),
            Map.of());
        List<ConsumerRecord<byte[], byte[]>> found = read(topic, 2);
        Harness.check(Arrays.equals(headers, found.get(0).headers().toArray()), "read " + found.get(0).headers());
        Harness.check(found.get(1).headers().toArray().length == 0, "read " + found.get(1).headers());
    }

    static void timestamps() throws Exception {
        long start = System.currentTimeMillis() - 5_000;
        String topic = create("timestamps", 1, Map.of());
        List<Long> sent = List.of(start, start + 2_000, start + 1_000);
        send(sent.stream().map(time -> record(topic, time, null, Harness.bytes("x"))).toList(), Map.of());
        List<Long> found = read(topic, 3).stream().map(ConsumerRecord::timestamp).toList();
        Harness.check(found.equals(sent), "read " + found);
        String appended = create("timestamps-append", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        send(List.of(record(appended, start, null, Harness.bytes("x"))), Map.of());
        ConsumerRecord<byte[], byte[]> read = read(appended, 1).get(0);
        Harness.check(read.timestamp() > start + 4_000, "LogAppendTime, but the producer's timestamp is read");
        Harness.check("LogAppendTime".equals(read.timestampType().name), "read " + read.timestampType());
    }

    static void nulls() throws Exception {
        String topic = create("nulls", 1, Map.of());
        byte[] key = Harness.bytes("key");
        byte[] value = Harness.bytes("value");
        byte[][][] sent = {{null, value}, {key, null}, {null, null}, {{}, {}}, {key, value}};
        send(Arrays.stream(sent).map(pair -> record(topic, null, pair[0], pair[1])).toList(), Map.of());
        List<ConsumerRecord<byte[], byte[]>> found = read(topic, sent.length);
        for (int index = 0; index < sent.length; index++) {
            Harness.check(Arrays.equals(sent[index][0], found.get(index).key())
                && Arrays.equals(sent[index][1], found.get(index).value()), "record " + index + " is " + found.get(index));
        }
    }

    static void seek() throws Exception {
        TopicPartition partition = new TopicPartition(numbered("seek", 100, System.currentTimeMillis() - 1_000_000), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            consumer.assign(List.of(partition));
            for (long offset : new long[] {10, 40, 0, 99}) {
                consumer.seek(partition, offset);
                ConsumerRecord<byte[], byte[]> found = read(consumer, 1).get(0);
                Harness.check(found.offset() == offset && Harness.text(found.value()).equals("" + offset), offset + ": " + found);
            }
            consumer.seekToBeginning(List.of(partition));
            Harness.check(consumer.position(partition) == 0, "the beginning is " + consumer.position(partition));
            consumer.seekToEnd(List.of(partition));
            Harness.check(consumer.position(partition) == 100, "the end is " + consumer.position(partition));
        }
    }

    static void offsetsByTime() throws Exception {
        long start = System.currentTimeMillis() - 1_000_000;
        TopicPartition partition = new TopicPartition(numbered("offsets-by-time", 100, start), 0);
        Map<Long, Long> expected = new HashMap<>(Map.of(49_500L, 50L, 50_000L, 50L, -1L, 0L));
        expected.put(100_000L, null);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            for (Map.Entry<Long, Long> each : expected.entrySet()) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, start + each.getKey())).get(partition);
                Long offset = found == null ? null : (Long) found.offset();
                Harness.check(java.util.Objects.equals(offset, each.getValue()),
                    each.getKey() + " ms after the first: " + offset + ", not " + each.getValue());
            }
        }
    }

    /** A member of a group on a thread of its own. It commits up to the last record that {@code handle} accepts. */
    static final class Member extends Thread {
        private final AtomicBoolean stopping = new AtomicBoolean();
        private final AtomicReference<Throwable> failure = new AtomicReference<>();
        private final String topic;
        private final Map<String, Object> settings;
        private final Predicate<ConsumerRecord<byte[], byte[]>> handle;

        Member(String topic, Map<String, Object> settings, Predicate<ConsumerRecord<byte[], byte[]>> handle) {
            this.topic = topic;
            this.settings = new HashMap<>(settings);
            this.settings.put("group.id", topic + "-group");
            this.handle = handle;
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
                consumer.subscribe(List.of(topic));
                while (!stopping.get()) {
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        if (handle.test(record)) {
                            offsets.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                        }
                    }
                    try {
                        consumer.commitSync(offsets);
                    } catch (CommitFailedException | RebalanceInProgressException rebalance) {
                        // The records are read again by whoever has the partition now.
                    }
                }
            } catch (Throwable error) {
                failure.set(error);
            }
        }

        void end() throws InterruptedException {
            stopping.set(true);
            join(Harness.WAIT_SECONDS * 1000L);
            Harness.check(!isAlive(), "a member does not end");
            Harness.check(failure.get() == null, "a member failed: " + failure.get());
        }
    }

    /** A group of three loses a member and gains one while records are produced; each record is consumed. */
    static void group(String name, Map<String, Object> settings) throws Exception {
        String topic = create(name, PARTITIONS, Map.of());
        Set<String> consumed = ConcurrentHashMap.newKeySet();
        Map<String, Set<Integer>> owned = new ConcurrentHashMap<>(); // who read which partition since the last change
        Map<String, Member> members = new TreeMap<>();
        AtomicBoolean ending = new AtomicBoolean();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        List<String> produced = new ArrayList<>();
        Thread producer = new Thread(() -> produceUntil(ending, topic, produced, failure));
        producer.setDaemon(true);
        producer.start();
        try {
            for (String member : List.of("a", "b", "c")) {
                members.put(member, join(topic, settings, member, consumed, owned));
            }
            settled(owned, List.of("a", "b", "c"), failure, members);
            members.remove("b").end();
            settled(owned, List.of("a", "c"), failure, members);
            members.put("d", join(topic, settings, "d", consumed, owned));
            settled(owned, List.of("a", "c", "d"), failure, members);
            ending.set(true);
            producer.join();
            Harness.check(failure.get() == null, "producing failed: " + failure.get());
            Harness.waitFor(() -> consumed.size() + " of " + produced.size() + " records", () -> consumed.containsAll(produced));
        } finally {
            ending.set(true);
            for (Member member : members.values()) {
                member.end();
            }
        }
    }

    private static Member join(String topic, Map<String, Object> settings, String name, Set<String> consumed,
            Map<String, Set<Integer>> owned) {
        return new Member(topic, settings, record -> {
            consumed.add(Harness.text(record.value()));
            owned.computeIfAbsent(name, key -> ConcurrentHashMap.newKeySet()).add(record.partition());
            return true;
        });
    }

    /** Waits until the records since now are read by all of these members, and from all partitions. */
    private static void settled(Map<String, Set<Integer>> owned, Collection<String> names, AtomicReference<Throwable> failure,
            Map<String, Member> members) throws InterruptedException {
        owned.clear();
        Harness.waitFor(() -> names + " to read all partitions; read: " + owned + ", producer: " + failure.get(), () -> {
            members.values().forEach(member -> Harness.check(member.failure.get() == null, "a member failed: " + member.failure.get()));
            Set<Integer> partitions = new TreeSet<>();
            owned.values().forEach(partitions::addAll);
            return owned.keySet().equals(new TreeSet<>(names)) && partitions.size() == PARTITIONS;
        });
    }

    private static void produceUntil(AtomicBoolean ending, String topic, List<String> produced, AtomicReference<Throwable> failure) {
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("linger.ms", 0))) {
            while (!ending.get()) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int partition = 0; partition < PARTITIONS; partition++) {
                    String value = "" + (produced.size() + partition);
                    sent.add(producer.send(new ProducerRecord<>(topic, partition, null, null, Harness.bytes(value))));
                }
                for (Future<RecordMetadata> each : sent) {
                    each.get();
                    produced.add("" + produced.size());
                }
                Thread.sleep(5); // the pace
            }
        } catch (Throwable error) {
            failure.set(error);
        }
    }

    static void commitResume() throws Exception {
        String topic = numbered("commit-resume", 100, System.currentTimeMillis() - 1_000_000);
        int committed = 40;
        for (int[] range : new int[][] {{0, committed}, {committed, 100}}) {
            List<Long> found = java.util.Collections.synchronizedList(new ArrayList<>());
            Member member = new Member(topic, Map.of(), record -> {
                found.add(record.offset());
                return record.offset() < committed;
            });
            Harness.waitFor(() -> found.size() + " records of " + Arrays.toString(range) + ", " + member.failure.get(),
                () -> found.size() >= range[1] - range[0]);
            member.end();
            for (int index = 0; index < range[1] - range[0]; index++) {
                Harness.check(found.get(index) == range[0] + index, "began with " + found.get(0) + ", not with " + range[0]);
            }
        }
    }
}
