//! The command `weir`, as a process: what it prints, and its exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::fresh;

fn weir(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    if let Ok(bootstrap) = std::env::var("WEIR_TEST_BOOTSTRAP") {
        command.env("WEIR_BOOTSTRAP", bootstrap);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a command that succeeds prints.
fn out(arguments: &[&str], input: &str) -> String {
    let output = weir(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&out(&[&["-o", "json"], arguments].concat(), "")).unwrap()
}

/// Exit code and lines on standard error of a command that does not.
fn fails(arguments: &[&str]) -> (i32, usize) {
    let output = weir(arguments, "");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).lines().count())
}

#[test]
fn exit_codes_tell_wrong_usage_from_failure_and_an_error_is_one_line() {
    assert!(out(&["--help"], "").contains("Examples:"));
    assert!(out(&["completion", "zsh"], "").starts_with("#compdef weir"));
    assert_eq!(fails(&["topic"]).0, 2);
    assert_eq!(fails(&["consume", "t", "--from", "nowhere"]).0, 2);
    assert_eq!(fails(&["config", "set", "topic", "t", "novalue"]).0, 2);
    assert_eq!(fails(&["-b", "127.0.0.1:1", "--timeout", "1", "topic", "list"]), (1, 1));
}

#[test]
fn a_day_with_the_command() {
    if std::env::var_os("WEIR_TEST_BOOTSTRAP").is_none() {
        println!("the command: skipped, WEIR_TEST_BOOTSTRAP names no broker");
        return;
    }
    let (topic, group) = (fresh("command"), fresh("readers"));
    let (topic, group) = (topic.as_str(), group.as_str());
    assert_eq!(out(&["topic", "create", topic, "-p", "2"], ""), format!("topic {topic} created\n"));
    assert_eq!(fails(&["topic", "create", topic]), (1, 1));
    out(&["topic", "create", topic, "--if-not-exists"], "");
    out(&["produce", topic, "-p", "1", "-K", ":", "-Z", "-H", "h=1", "-z", "lz4"], "a:1\nb:2\nc:\n");
    let format = ["-f", r"%t/%p/%o/%k/%s/%S/%h\n", "--null", "-"];
    let read = out(&[&["consume", topic, "--from", "beginning", "-e"], &format[..]].concat(), "");
    assert_eq!(read, format!("{topic}/1/0/a/1/1/h=1\n{topic}/1/1/b/2/1/h=1\n{topic}/1/2/c/-/-1/h=1\n"));
    assert_eq!(out(&["consume", topic, "--from", "-2", "-c", "1", "-f", "%k"], ""), "b");
    let record = json(&["consume", topic, "-p", "1", "--from", "2", "-c", "1"]);
    assert_eq!((&record["key"], &record["value"]), (&"c".into(), &Value::Null));

    assert_eq!(out(&["consume", topic, "-g", group, "--from", "beginning", "-c", "2"], ""), "1\n2\n");
    let lag = json(&["group", "lag", group]);
    assert_eq!((&lag["lag"], &lag["partitions"][1]["committed"]), (&1.into(), &2.into()));
    assert_eq!(fails(&["group", "lag", group, "--fail-above", "0"]).0, 1);
    let reset = ["group", "reset-offsets", group, "--topic", topic, "--to-earliest"];
    out(&reset, "");
    assert_eq!(json(&["group", "lag", group])["lag"], 1, "that was a dry run");
    out(&[&reset[..], &["--execute"]].concat(), "");
    assert_eq!(json(&["group", "lag", group])["lag"], 3);
    assert_eq!(out(&["consume", topic, "-g", group, "-e", "-f", "%k"], ""), "abc");

    out(&["config", "set", "topic", topic, "retention.ms=5000"], "");
    assert_eq!(json(&["config", "describe", "topic", topic])[0]["value"], "5000");
    out(&["topic", "alter", topic, "--partitions", "3", "--delete-config", "retention.ms"], "");
    let described = json(&["topic", "describe", topic]);
    assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(described[0]["configs"], serde_json::json!({}));
    assert!(json(&["cluster", "describe"])["brokers"].as_array().is_some_and(|brokers| !brokers.is_empty()));
    out(&["group", "delete", group], "");
    out(&["topic", "delete", topic], "");
    assert_eq!(fails(&["topic", "describe", topic]), (1, 1));
}
