import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.apache.kafka.common.utils.Exit;

/** The cases of Apache Kafka's tools. Each command runs as its script would start it, but in this process. */
final class Tools {
    /** What the console producer is given. */
    private static final int LINES = 50;

    private Tools() {}

    private interface Tool {
        void main(String... arguments) throws Exception;
    }

    /** Thrown where a tool would end the process. */
    private static final class Ended extends Error {
        Ended() {
            super(null, null, false, false);
        }
    }

    private record Outcome(int code, String output) {
        /** What a tool says last, which is where it says why it failed. */
        private String end() {
            return output.substring(Math.max(0, output.length() - 1_500));
        }

        Outcome expect(String... parts) {
            for (String part : parts) {
                Harness.check(code == 0 && output.contains(part), "code " + code + ", no '" + part + "' in: " + end());
            }
            return this;
        }

        void expectWithout(String part) {
            Harness.check(code == 0 && !output.contains(part), "code " + code + ", '" + part + "' in: " + end());
        }

        /** The columns of the line that has all of these words. */
        List<String> columns(String... words) {
            return output.lines().map(line -> List.of(line.trim().split("\\s+")))
                .filter(columns -> columns.containsAll(Arrays.asList(words))).findFirst()
                .orElseThrow(() -> new AssertionError("no line with " + Arrays.toString(words) + " in: " + end()));
        }
    }

    /** Runs a tool with --bootstrap-server and these arguments; its output is both streams. */
    private static Outcome run(Tool tool, String... arguments) throws Exception {
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream output = new ByteArrayOutputStream();
        PrintStream both = new PrintStream(output, true, StandardCharsets.UTF_8);
        // Some tools catch what is thrown and end once more; the first code is the one that a shell would see.
        List<Integer> codes = new ArrayList<>();
        Exit.Procedure end = (code, message) -> {
            codes.add(code);
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        System.setOut(both);
        System.setErr(both);
        try {
            tool.main(Stream.concat(Stream.of("--bootstrap-server", Cases.broker), Arrays.stream(arguments)).toArray(String[]::new));
        } catch (Ended ended) {
            // Its code is in the list.
        } finally {
            System.setOut(out);
            System.setErr(err);
            Exit.resetExitProcedure();
            Exit.resetHaltProcedure();
        }
        return new Outcome(codes.isEmpty() ? 0 : codes.get(0), output.toString(StandardCharsets.UTF_8));
    }

    private static Outcome topics(String... arguments) throws Exception {
        return run(org.apache.kafka.tools.TopicCommand::main, arguments);
    }

    private static Outcome groups(String... arguments) throws Exception {
        return run(org.apache.kafka.tools.consumer.group.ConsumerGroupCommand::main, arguments);
    }

    private static Outcome configs(String... arguments) throws Exception {
        return run(kafka.admin.ConfigCommand::main, arguments);
    }

    static void topicCommand() throws Exception {
        String topic = Harness.topic("topic-command");
        topics("--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=3600000").expect("Created topic");
        Harness.check(topics("--create", "--topic", topic).code != 0, "the same topic was created twice");
        topics("--create", "--topic", topic, "--if-not-exists").expect("");
        topics("--describe", "--topic", topic).expect("PartitionCount: 2", "retention.ms=3600000", "Partition: 1");
        topics("--alter", "--topic", topic, "--partitions", "5").expect("");
        topics("--describe", "--topic", topic).expect("PartitionCount: 5", "Partition: 4");
        topics("--list").expect(topic);
        topics("--describe", "--topic", topic, "--unavailable-partitions").expectWithout("Partition: 0");
        topics("--delete", "--topic", topic).expect("");
        topics("--list").expectWithout(topic);
    }

    static void consumerGroupCommand() throws Exception {
        String topic = Cases.numbered("consumer-group-command", 100, System.currentTimeMillis() - 1_000_000);
        String group = topic + "-group";
        boolean[] seen = {false};
        Cases.Member member = new Cases.Member(topic, java.util.Map.of(), record -> {
            seen[0] |= record.offset() == 99;
            return record.offset() < 40;
        });
        Harness.waitFor(() -> "all records", () -> seen[0]);
        List<String> columns = groups("--describe", "--group", group).expect("CONSUMER-ID").columns(group, topic);
        Harness.check(columns.contains("100"), "no log end offset in " + columns);
        groups("--describe", "--group", group, "--members").expect(group, "#PARTITIONS");
        groups("--describe", "--group", group, "--state").columns(group, "range", "Stable");
        Harness.check(!groups("--delete", "--group", group).output.contains("successful"), "a group with a member was deleted");
        member.end();
        Harness.check(groups("--describe", "--group", group).columns(group, topic).containsAll(List.of("40", "100", "60")),
            "not the offsets 40 and 100, lag 60");
        groups("--list").expect(group);
        groups("--list", "--state").columns(group, "Empty");
        resetOffsets(topic, group);
        groups("--delete-offsets", "--group", group, "--topic", topic).columns(topic, "Successful");
        groups("--describe", "--group", group).expectWithout(topic + " ");
        groups("--delete", "--group", group).expect("was successful");
        groups("--list").expectWithout(group);
    }

    private static void resetOffsets(String topic, String group) throws Exception {
        String[] reset = {"--reset-offsets", "--group", group, "--topic", topic};
        groups(with(reset, "--to-offset", "25", "--dry-run")).columns(group, topic, "25");
        groups("--describe", "--group", group).columns(group, topic, "40");
        groups(with(reset, "--to-offset", "25", "--execute")).columns(group, topic, "25");
        groups("--describe", "--group", group).columns(group, topic, "25", "75");
        groups(with(reset, "--shift-by", "5", "--execute")).columns(group, topic, "30");
        groups(with(reset, "--to-latest", "--execute")).columns(group, topic, "100");
        groups(with(reset, "--to-earliest", "--execute")).columns(group, topic, "0");
        groups(with(reset, "--by-duration", "PT0S", "--execute")).columns(group, topic, "100");
    }

    private static String[] with(String[] first, String... more) {
        return Stream.concat(Arrays.stream(first), Arrays.stream(more)).toArray(String[]::new);
    }

    /** The smaller tools of Kafka's bin folder. */
    static void otherTools() throws Exception {
        String topic = Harness.topic("other-tools");
        topics("--create", "--topic", topic, "--partitions", "2").expect("Created topic");
        java.io.InputStream in = System.in;
        System.setIn(new java.io.ByteArrayInputStream("line\n".repeat(LINES).getBytes(StandardCharsets.UTF_8)));
        run(org.apache.kafka.tools.ConsoleProducer::main, "--topic", topic, "--sync", "--timeout", "1").expect("");
        System.setIn(in);
        run(org.apache.kafka.tools.GetOffsetShell::main, "--topic", topic, "--time", "earliest").expect(topic + ":0:0", topic + ":1:0");
        long end = run(org.apache.kafka.tools.GetOffsetShell::main, "--topic", topic).output.lines()
            .filter(line -> line.startsWith(topic)).mapToLong(line -> Long.parseLong(line.split(":")[2])).sum();
        Harness.check(end == LINES, "offsets up to " + end);
        run(org.apache.kafka.tools.consumer.ConsoleConsumer::main, "--topic", topic, "--from-beginning", "--max-messages", "" + LINES)
            .expect("line", "Processed a total of " + LINES + " messages");
        run(org.apache.kafka.tools.ConsumerPerformance::main, "--topic", topic, "--messages", "" + LINES).expect(", " + LINES);
        run(org.apache.kafka.tools.BrokerApiVersionsCommand::main).expect("Produce(0)", "Fetch(1)", "OffsetCommit(8)");
        run(org.apache.kafka.tools.LogDirsCommand::main, "--describe", "--topic-list", topic).expect("\"" + topic + "-1\"");
        run(org.apache.kafka.tools.GroupsCommand::main, "--list").expect("GROUP");
        run(org.apache.kafka.tools.FeatureCommand::main, "describe").expect("");
        transactions("describe-producers", "--topic", topic, "--partition", "0").expect("ProducerId");
        deleteRecords(topic);
    }

    private static Outcome transactions(String... arguments) throws Exception {
        return run(org.apache.kafka.tools.TransactionsCommand::main, arguments);
    }

    private static void deleteRecords(String topic) throws Exception {
        java.nio.file.Path file = java.nio.file.Files.createTempFile("delete-records", ".json");
        java.nio.file.Files.writeString(file, "{\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0,\"offset\":-1}],\"version\":1}");
        run(org.apache.kafka.tools.DeleteRecordsCommand::main, "--offset-json-file", file.toString()).expect("partition: " + topic + "-0\tlow_watermark: ");
        java.nio.file.Files.delete(file);
    }

    /** What Kafka's own system tests run against brokers of other releases. */
    static void clientCompatibility() throws Exception {
        String topic = Cases.create("compatibility", 1, java.util.Map.of());
        boolean acls = true;
        try {
            Cases.admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get();
        } catch (java.util.concurrent.ExecutionException error) {
            // A broker with access control switched off says so.
            acls = !(error.getCause() instanceof org.apache.kafka.common.errors.UnsupportedVersionException);
        }
        try {
            run(org.apache.kafka.tools.ClientCompatibilityTest::main, "--num-cluster-nodes", "" + Cases.broker.split(",").length, "--topic", topic,
                "--offsets-for-times-supported", "true", "--cluster-id-supported", "true", "--expect-record-too-large-exception", "false",
                "--create-topics-supported", "true", "--describe-acls-supported", "" + acls, "--describe-configs-supported", "true",
                "--idempotent-producer-supported", "true").expect("SUCCESS");
        } finally {
            Cases.admin.deleteTopics(List.of("newtopic")).all().get(); // it has always this name
        }
    }

    static void configCommand() throws Exception {
        String topic = Cases.create("config-command", 1, java.util.Map.of());
        String[] entity = {"--entity-type", "topics", "--entity-name", topic};
        configs(with(entity, "--describe")).expectWithout("retention.ms=");
        configs(with(entity, "--alter", "--add-config", "retention.ms=7200000,max.message.bytes=4000")).expect("Completed");
        configs(with(entity, "--describe")).expect("retention.ms=7200000", "max.message.bytes=4000", "DYNAMIC_TOPIC_CONFIG");
        configs(with(entity, "--alter", "--delete-config", "retention.ms")).expect("Completed");
        configs(with(entity, "--describe")).expectWithout("retention.ms=7200000");
        configs(with(entity, "--describe", "--all")).expect("retention.ms=", "DEFAULT_CONFIG", "sensitive=false");
        Harness.check(configs(with(entity, "--alter", "--add-config", "retention.ms=soon")).code != 0, "retention.ms=soon was taken");
        configs("--entity-type", "brokers", "--entity-default", "--describe").expect("");
        configs("--entity-type", "brokers", "--all", "--describe").expect("log.retention");
    }
}
