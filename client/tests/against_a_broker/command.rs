//! The command `weir`, as a process: what it prints, and its exit codes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fresh;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.env_remove("WEIR_BOOTSTRAP");
    if let Ok(bootstrap) = std::env::var("WEIR_TEST_BOOTSTRAP") {
        command.env("WEIR_BOOTSTRAP", bootstrap);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn weir(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a command that succeeds prints.
fn out(arguments: &[&str], input: &str) -> String {
    let output = weir(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(arguments: &[&str], input: &str) -> Value {
    serde_json::from_str(&out(&[&["-o", "json"], arguments].concat(), input)).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    json_of(arguments, "")
}

/// Exit code and lines on standard error of a command that does not.
fn fails(arguments: &[&str]) -> (i32, usize) {
    let output = weir(arguments, "");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).lines().count())
}

/// A command fails with one line that names all of these.
fn fails_saying(arguments: &[&str], words: &[&str]) {
    let output = weir(arguments, "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

/// The names of an object's parts, which scripts rely on.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn there_is_a_broker(name: &str) -> bool {
    let there = std::env::var_os("WEIR_TEST_BOOTSTRAP").is_some();
    if !there {
        println!("{name}: skipped, WEIR_TEST_BOOTSTRAP names no broker");
    }
    there
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn topic(partitions: &str) -> String {
    let name = fresh("command");
    assert_eq!(out(&["topic", "create", &name, "-p", partitions], ""), format!("topic {name} created\n"));
    name
}

#[test]
fn exit_codes_tell_wrong_usage_from_failure_and_an_error_is_one_line() {
    assert!(out(&["--help"], "").contains("Examples:"));
    assert!(out(&["completion", "zsh"], "").starts_with("#compdef weir"));
    assert!(out(&["completion", "bash"], "").contains("reset-offsets"));
    assert!(out(&["completion", "fish"], "").contains("reset-offsets"));
    for wrong in [
        &["topic"][..],
        &["consume", "t", "--from", "nowhere"],
        &["consume", "t", "-g", "g", "--from", "-5"],
        &["consume", "t", "-f", "%q"],
        &["config", "set", "topic", "t", "novalue"],
        &["config", "describe", "broker", "first"],
        &["topic", "alter", "t"],
        &["topic", "create", "t", "-p", "0"],
        &["cluster", "health", "--wait", "soon"],
        &["cluster", "elect", "--unclean"],
        &["cluster", "voters", "add"],
        &["group", "reset-offsets", "g", "--to-earliest"],
        &["group", "reset-offsets", "g", "--topic", "t"],
        &["group", "reset-offsets", "g", "--topic", "t", "--to-earliest", "--to-latest"],
        &["group", "reset-offsets", "g", "--topic", "t", "--to-earliest", "--dry-run", "--execute"],
        &["-b", "host:port", "topic", "list"],
        &["--timeout", "0", "topic", "list"],
    ] {
        assert_eq!(fails(wrong).0, 2, "{wrong:?}");
    }
    let output = command(&["topic", "list"]).env("WEIR_BOOTSTRAP", "host:port").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
#[allow(clippy::disallowed_methods)] // the time of a process
fn a_broker_that_does_not_run_is_said_so_quickly() {
    let start = Instant::now();
    fails_saying(
        &["-b", "127.0.0.1:1", "topic", "list"],
        &["127.0.0.1:1", "connection refused", "is it running?"],
    );
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_day_with_the_command() {
    if !there_is_a_broker("a day with the command") {
        return;
    }
    let (topic, group) = (topic("2"), fresh("readers"));
    let (topic, group) = (topic.as_str(), group.as_str());
    fails_saying(&["topic", "create", topic], &[topic, "exists already", "--if-not-exists"]);
    out(&["topic", "create", topic, "--if-not-exists"], "");
    out(&["produce", topic, "-p", "1", "-K", ":", "-Z", "-H", "h=1", "-z", "lz4"], "a:1\nb:2\nc:\n");
    let format = ["-f", r"%t/%p/%o/%k/%s/%S/%h\n", "--null", "-"];
    let read = out(&[&["consume", topic, "-e"], &format[..]].concat(), "");
    assert_eq!(read, format!("{topic}/1/0/a/1/1/h=1\n{topic}/1/1/b/2/1/h=1\n{topic}/1/2/c/-/-1/h=1\n"));
    assert_eq!(out(&["consume", topic, "--from", "-2", "-c", "1", "-f", "%k"], ""), "b");
    let record = json(&["consume", topic, "-p", "1", "--from", "2", "-c", "1"]);
    assert_eq!((&record["key"], &record["value"]), (&"c".into(), &Value::Null));

    assert_eq!(out(&["consume", topic, "-g", group, "--from", "beginning", "-c", "2"], ""), "1\n2\n");
    assert_eq!(fails(&["group", "lag", group, "--fail-above", "0"]), (1, 1));
    out(&["group", "lag", group, "--fail-above", "1"], "");
    out(&["group", "reset-offsets", group, "--topic", topic, "--to-earliest", "--execute"], "");
    assert_eq!(out(&["consume", topic, "-g", group, "-e", "-f", "%k"], ""), "abc");

    out(&["config", "set", "topic", topic, "retention.ms=5000"], "");
    assert_eq!(json(&["config", "describe", "topic", topic])[0]["value"], "5000");
    out(&["config", "set", "topic", topic, "retention.ms=7000", "--dry-run"], "");
    assert_eq!(json(&["config", "describe", "topic", topic])[0]["value"], "5000", "that was a dry run");
    out(&["topic", "alter", topic, "--partitions", "3", "--delete-config", "retention.ms"], "");
    let described = json(&["topic", "describe", topic]);
    assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(described[0]["configs"], json!({}));
    out(&["group", "delete", group], "");
    out(&["topic", "delete", topic], "");
}

#[test]
fn what_is_not_there_is_named_at_once() {
    if !there_is_a_broker("what is not there") {
        return;
    }
    let (name, there) = (fresh("nothing"), topic("1"));
    for missing in [
        &["topic", "describe", &name][..],
        &["topic", "delete", &name],
        &["topic", "alter", &name, "--partitions", "5"],
        &["topic", "alter", &name, "-c", "retention.ms=1000"],
        &["config", "describe", "topic", &name],
        &["consume", &name],
        &["consume", &name, "-g", &name],
        &["produce", &name],
        &["group", "describe", &name],
        &["group", "lag", &name],
        &["group", "delete", &name],
    ] {
        fails_saying(missing, &[&name, "does not exist"]);
    }
    fails_saying(
        &["group", "reset-offsets", &name, "--all-topics", "--to-latest"],
        &[&name, "committed nothing"],
    );
    fails_saying(&["consume", &there, "-p", "0,7"], &["no partition 7", "it has 0"]);
    fails_saying(&["consume", &there, "--from", "5", "-e"], &[&there, "no offset 5"]);
    fails_saying(&["config", "describe", "broker", "4711"], &["no broker 4711"]);
    out(&["topic", "delete", &there], "");
    assert_eq!(
        out(&["topic", "delete", &there, "--if-exists"], ""),
        format!("topic {there} does not exist\n")
    );
}

#[test]
fn a_dry_run_of_a_reset_changes_nothing_and_shows_what_will() {
    if !there_is_a_broker("a dry run of a reset") {
        return;
    }
    let (topic, group) = (topic("2"), fresh("readers"));
    out(&["produce", &topic, "-p", "0"], "a\nb\nc\nd\n");
    out(&["produce", &topic, "-p", "1"], "e\nf\n");
    out(&["consume", &topic, "-g", &group, "-e"], "");
    let committed = |group: &str| {
        let lag = json(&["group", "lag", group]);
        let partitions = lag["partitions"].as_array().unwrap().iter();
        partitions.map(|partition| partition["committed"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(committed(&group), [4, 2]);
    let part = format!("{topic}:0");
    let cases: [(&[&str], &[i64]); 7] = [
        (&["--topic", &topic, "--to-earliest"], &[0, 0]),
        (&["--all-topics", "--to-offset", "3"], &[3, 2]),
        (&["--topic", &topic, "--by", "-1"], &[2, 1]),
        (&["--topic", &part, "--by", "100"], &[4]),
        (&["--topic", &topic, "--to-current"], &[4, 1]),
        (&["--topic", &topic, "--to-time", "-1h"], &[0, 0]),
        (&["--topic", &topic, "--to-latest"], &[4, 2]),
    ];
    for (to, expected) in cases {
        let reset = [&["group", "reset-offsets", &group], to].concat();
        let before = committed(&group);
        let dry = json(&reset);
        assert_eq!(committed(&group), before, "{to:?}");
        let executed = json(&[&reset[..], &["--execute"]].concat());
        assert_eq!((&dry["executed"], &executed["executed"]), (&json!(false), &json!(true)));
        assert_eq!(dry["partitions"], executed["partitions"], "{to:?}");
        assert_eq!(&committed(&group)[..expected.len()], expected, "{to:?}");
    }
    out(&["group", "delete", &group], "");
    out(&["topic", "delete", &topic], "");
}

#[test]
fn lag_is_what_lies_between_the_committed_offset_and_the_end() {
    if !there_is_a_broker("lag") {
        return;
    }
    let (topic, group) = (topic("3"), fresh("readers"));
    out(&["produce", &topic, "-p", "0"], "a\nb\nc\n");
    out(&["produce", &topic, "-p", "1"], "d\n");
    let at = |to: &str, part: &str| {
        out(&["group", "reset-offsets", &group, "--topic", part, "--to-offset", to, "--execute"], "")
    };
    at("1", &format!("{topic}:0-1"));
    let lag = json(&["group", "lag", &group]);
    let line = |partition: i32, committed: i64, end: i64| {
        json!({ "topic": topic, "partition": partition, "committed": committed, "end": end,
                "lag": end - committed, "member": null, "error": null })
    };
    let expected = json!({ "group": group, "lag": 2, "partitions": [line(0, 1, 3), line(1, 1, 1)] });
    assert_eq!(lag, expected, "a partition without a commit and without a member is not the group's");
    out(&["produce", &topic, "-p", "1"], "e\nf\n");
    assert_eq!(json(&["group", "lag", &group])["lag"], 4);
    let table = out(&["group", "lag", &group], "");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["group", &group, "state", "Empty", "members", "0", "lag", "4"]);
    assert_eq!(lines[1], ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]);
    assert_eq!(lines[2..], [[&topic, "0", "1", "3", "2"], [&topic, "1", "1", "3", "2"]]);
    out(&["topic", "delete", &topic], "");
    out(&["group", "delete", &group], "");
}

/// As docs/weir.md has them.
#[test]
fn json_has_the_documented_parts() {
    if !there_is_a_broker("the shapes of JSON") {
        return;
    }
    let (name, group) = (fresh("command"), fresh("readers"));
    assert_eq!(
        keys(&json(&["topic", "create", &name, "-c", "retention.ms=60000000"])),
        ["created", "id", "name"]
    );
    let produced = json_of(&["produce", &name], "a\n");
    assert_eq!(keys(&produced), ["partitions", "records", "topic"]);
    assert_eq!(keys(&produced["partitions"][0]), ["first_offset", "last_offset", "partition", "records"]);
    let record = json(&["consume", &name, "-g", &group, "-e"]);
    assert_eq!(keys(&record), ["headers", "key", "offset", "partition", "timestamp_ms", "topic", "value"]);

    let listed = json(&["topic", "list"]);
    assert_eq!(keys(&listed[0]), ["id", "internal", "name", "partitions", "replicas"]);
    let described = json(&["topic", "describe", &name]);
    assert_eq!(keys(&described[0]), ["configs", "id", "name", "partitions"]);
    let partition = [
        "elr",
        "end_offset",
        "first_offset",
        "isr",
        "leader",
        "leader_epoch",
        "offline",
        "partition",
        "replicas",
    ];
    assert_eq!(keys(&described[0]["partitions"][0]), partition);
    let altered = json(&["topic", "alter", &name, "-p", "9"]);
    assert_eq!(keys(&altered), ["configs", "name", "partitions"]);

    let groups = json(&["group", "list", "--state", "empty"]);
    assert_eq!(keys(&groups[0]), ["group", "protocol_type", "state", "type"]);
    let described = json(&["group", "describe", &group]);
    let parts = ["assignor", "coordinator", "group", "members", "protocol_type", "state"];
    assert_eq!(keys(&described[0]), parts);
    let lag = json(&["group", "lag", &group]);
    assert_eq!(keys(&lag), ["group", "lag", "partitions"]);
    let partition = ["committed", "end", "error", "lag", "member", "partition", "topic"];
    assert_eq!(keys(&lag["partitions"][0]), partition);
    let reset = json(&["group", "reset-offsets", &group, "--topic", &name, "--to-earliest"]);
    assert_eq!(keys(&reset), ["executed", "group", "partitions"]);
    assert_eq!(keys(&reset["partitions"][0]), ["from", "partition", "to", "topic"]);

    let configs = json(&["config", "describe", "topic", &name]);
    assert_eq!(keys(&configs[0]), ["name", "read_only", "sensitive", "source", "value"]);
    assert_eq!(configs[0]["source"], "DYNAMIC_TOPIC_CONFIG");
    let changed = json(&["config", "set", "topic", &name, "retention.ms=70000000"]);
    assert_eq!(keys(&changed), ["changed", "dry_run", "resource"]);
    let cluster = json(&["cluster", "describe"]);
    assert_eq!(keys(&cluster), ["brokers", "controller", "id"]);
    let broker = ["fenced", "host", "id", "in_sync", "leaders", "port", "rack", "replicas"];
    assert_eq!(keys(&cluster["brokers"][0]), broker);
    assert_eq!(json(&["cluster"])["id"], cluster["id"]);
    let health = json(&["cluster", "health", "--wait", "10s"]);
    assert_eq!(keys(&health), ["brokers", "fenced", "healthy", "partition_count", "partitions", "quorum"]);
    assert_eq!((&health["healthy"], &health["partitions"]), (&json!(true), &json!([])));

    assert_eq!(json(&["group", "delete", &group]), json!({ "deleted": [group] }));
    assert_eq!(json(&["topic", "delete", &name]), json!([{ "name": name, "deleted": true }]));
}

#[test]
fn records_survive_the_way_through_json() {
    if !there_is_a_broker("records through JSON") {
        return;
    }
    let (from, to) = (topic("1"), fresh("command"));
    out(&["produce", &from, "-K", ":", "-Z", "-H", "h=1", "-H", "none"], "a:1\nb:\nc\n");
    out(&["produce", &from, "-D", r"\x00", "-k", "binary"], "line\nline\0");
    let all = out(&["-o", "json", "consume", &from, "-e"], "");
    assert_eq!(json_of(&["produce", &to, "--json", "--create"], &all)["records"], 4);
    let copied = out(&["-o", "json", "consume", &to, "-e"], "");
    assert_eq!(copied.replace(&to, &from), all);
    fails_saying(&["produce", &to, "--json", "Cargo.toml"], &["weir consume -o json"]);
    out(&["topic", "delete", &from, &to], "");
}

#[test]
fn timestamps_are_the_producers_or_where_the_topic_says_so_the_brokers() {
    if !there_is_a_broker("timestamps") {
        return;
    }
    let topic = topic("1");
    let produce = ["produce", &topic, "--json"];
    let timestamp = || json(&["consume", &topic, "--from", "-1", "-e"])["timestamp_ms"].as_i64().unwrap();
    out(&produce, r#"{"value":"a","timestamp_ms":1000000000000}"#);
    assert_eq!(timestamp(), 1_000_000_000_000);
    let by_time = |from| out(&["consume", &topic, "--from", from, "-e"], "");
    assert_eq!((by_time("@2001-09-09T01:46:40Z"), by_time("@-1h")), ("a\n".to_owned(), String::new()));
    out(&["config", "set", "topic", &topic, "message.timestamp.type=LogAppendTime"], "");
    out(&produce, r#"{"value":"b","timestamp_ms":1000000000000}"#);
    assert!(timestamp() > 1_700_000_000_000);
    assert_eq!(by_time("@-1h"), "b\n");
    out(&["topic", "delete", &topic], "");
}

#[test]
fn every_codec_and_every_kind_of_acknowledgement_writes_what_is_read() {
    if !there_is_a_broker("codecs") {
        return;
    }
    let topic = topic("1");
    let mut expected = String::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["all", "leader", "none"] {
            let record = format!("{codec} {acks}\n");
            out(&["produce", &topic, "-z", codec, "--acks", acks], &record);
            expected.push_str(&record);
            // What nobody acknowledges may still be on its way.
            let count = expected.lines().count().to_string();
            let read = out(&["consume", &topic, "--from", "beginning", "-c", &count], "");
            assert_eq!(read, expected);
        }
    }
    out(&["produce", &topic, "--no-idempotence"], "no numbers\n");
    assert_eq!(out(&["consume", &topic, "--from", "-1", "-e"], ""), "no numbers\n");
    out(&["topic", "delete", &topic], "");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command() {
    if !there_is_a_broker("a closed pipe") {
        return;
    }
    let topic = topic("1");
    let lines: String = (0..50_000).map(|number| format!("record {number}\n")).collect();
    out(&["produce", &topic], &lines);
    let mut child = command(&["consume", &topic, "--from", "beginning"]).spawn().unwrap();
    let mut first = String::new();
    let mut pipe = BufReader::new(child.stdout.take().unwrap());
    pipe.read_line(&mut first).unwrap();
    drop(pipe);
    assert_eq!(first, "record 0\n");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
    out(&["topic", "delete", &topic], "");
}

#[test]
fn ctrl_c_ends_consuming_and_commits_what_was_printed() {
    if !there_is_a_broker("Ctrl-C while consuming") {
        return;
    }
    let (topic, group) = (topic("1"), fresh("readers"));
    out(&["produce", &topic], "a\nb\n");
    let mut child = command(&["consume", &topic, "-g", &group, "--from", "beginning"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!((lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()), ("a".into(), "b".into()));
    interrupt(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
    assert_eq!(json(&["group", "lag", &group])["lag"], 0);
    out(&["group", "delete", &group], "");
    out(&["topic", "delete", &topic], "");
}

#[test]
fn a_line_is_written_as_it_comes_and_ctrl_c_ends_producing_with_nothing_lost() {
    if !there_is_a_broker("Ctrl-C while producing") {
        return;
    }
    let topic = topic("1");
    let mut child = command(&["-o", "json", "produce", &topic]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\ntwo\nnot whole").unwrap();
    assert_eq!(out(&["consume", &topic, "--from", "beginning", "-c", "2"], ""), "one\ntwo\n");
    interrupt(&child);
    let ended = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(ended.status.code(), Some(0));
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&told["records"], &told["partitions"][0]["last_offset"]), (&2.into(), &1.into()));
    out(&["topic", "delete", &topic], "");
}
