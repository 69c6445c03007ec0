//! The broker as a process: its line on standard output, its exit codes, and what is left after SIGKILL.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use weir_runtime::net::Stream;
use weir_runtime::{task, time};

use crate::support::{Client, PATIENCE, batch, produce_request, run, values};

/// A broker's process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
    command.arg("--data-dir").arg(folder).args(["--listen", "127.0.0.1:0"]).env("RUST_LOG", "warn");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn start(folder: &Path) -> Process {
    started(command(folder))
}

/// A process with a file of settings; it has SIGKILL when it is dropped.
pub(crate) fn start_with(folder: &Path, config: &Path) -> Process {
    let mut command = command(folder);
    command.arg("--config").arg(config);
    started(command)
}

fn started(mut command: Command) -> Process {
    let mut child = command.stderr(Stdio::inherit()).spawn().expect("a process");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("ready ").and_then(|address| address.parse().ok());
    Process { child, address: address.unwrap_or_else(|| panic!("no address in {line:?}")) }
}

/// Writes numbered values, several requests at a time, until the connection breaks. Returns what was acknowledged:
/// offset and value.
async fn write_until_killed(address: SocketAddr, partition: i32, round: u32) -> Vec<(i64, Vec<u8>)> {
    let mut acknowledged = Vec::new();
    let Ok(Ok(stream)) = time::timeout(PATIENCE, Stream::connect(address)).await else { return acknowledged };
    let (reader, writer) = stream.into_split();
    let mut client = Client { reader, writer, received: Default::default(), next_correlation_id: 1 };
    let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
    for number in 0.. {
        let value = format!("{partition} {round} {number}").into_bytes();
        let request = produce_request("load", partition, -1, batch(&[&value]));
        let frame = weir_wire::kafka::encode_request(9, number, None, &request).expect("encodable");
        let mut chunks = VecDeque::from([frame]);
        if client.writer.write_all(&mut chunks).await.is_err() {
            break;
        }
        waiting.push_back(value);
        if waiting.len() < 5 {
            continue;
        }
        let Some(frame) = client.frame().await else { break };
        let (_, response) = weir_wire::kafka::decode_response::<ProduceRequest>(9, frame).expect("decodable");
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        acknowledged.extend(waiting.pop_front().map(|value| (answer.base_offset, value)));
    }
    acknowledged
}

async fn read_all(client: &mut Client, partition: i32) -> Vec<(i64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let next = all.last().map_or(0, |(offset, _)| offset + 1);
        let fetched = client.fetch("load", partition, next).await;
        assert_eq!(fetched.error_code, 0);
        let more = values(fetched.records);
        if more.is_empty() {
            assert_eq!(fetched.high_watermark, next, "everything below the high watermark was read");
            return all;
        }
        all.extend(more.into_iter().filter(|(offset, _)| *offset >= next));
    }
}

#[test]
fn what_was_acknowledged_before_sigkill_is_there_after_it() {
    run(async {
        const PARTITIONS: i32 = 4;
        let folder = tempfile::tempdir().expect("a folder");
        let mut acknowledged: Vec<Vec<(i64, Vec<u8>)>> = vec![Vec::new(); PARTITIONS as usize];
        for round in 0..4 {
            let mut process = start(folder.path());
            let mut client = Client::connect(process.address).await;
            if round == 0 {
                client.create("load", PARTITIONS, &[]).await;
            }
            let writers: Vec<_> = (0..PARTITIONS)
                .map(|partition| task::spawn("writer", write_until_killed(process.address, partition, round)))
                .collect();
            time::sleep(Duration::from_millis(400)).await;
            process.child.kill().expect("killed");
            process.child.wait().expect("gone");
            for (partition, writer) in writers.into_iter().enumerate() {
                acknowledged[partition].extend(writer.await.expect("a writer"));
            }
        }
        let process = start(folder.path());
        let mut client = Client::connect(process.address).await;
        let mut total = 0;
        for partition in 0..PARTITIONS {
            let stored = read_all(&mut client, partition).await;
            assert!(stored.iter().map(|(offset, _)| *offset).eq(0..stored.len() as i64), "no gaps");
            for (offset, value) in &acknowledged[partition as usize] {
                let found = stored.get(*offset as usize).map(|(_, value)| value);
                assert_eq!(found, Some(value), "partition {partition} offset {offset} was acknowledged");
                total += 1;
            }
        }
        assert!(total > 100, "there was load: {total}");
    });
}

/// Runs a broker that is expected to fail; returns its exit code and its last line.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.spawn().expect("a process");
    let (mut out, mut error) = (String::new(), String::new());
    child.stderr.take().expect("its errors").read_to_string(&mut error).expect("text");
    child.stdout.take().expect("its output").read_to_string(&mut out).expect("text");
    assert_eq!(out, "", "nothing is said to be ready");
    let status = child.wait().expect("its end");
    (status.code(), error.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn each_way_to_fail_has_its_line_and_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start(folder.path());
    let (code, line) = fails(command(folder.path()));
    assert_eq!(code, Some(4), "{line}");
    assert!(line.starts_with("weir-broker: the data folder") && line.contains("locked"), "{line}");

    let other = tempfile::tempdir().expect("a folder");
    let mut in_use = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
    in_use.arg("--data-dir").arg(other.path()).args(["--listen", &running.address.to_string()]);
    in_use.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (code, line) = fails(in_use);
    assert_eq!(code, Some(3), "{line}");
    assert_eq!(line, format!("weir-broker: cannot listen on {}: the port is in use", running.address));

    let (code, line) = {
        let mut missing = command(other.path());
        missing.args(["--config", "/nonexistent/server.properties"]);
        fails(missing)
    };
    assert_eq!(code, Some(2), "{line}");
    assert!(line.starts_with("weir-broker: cannot read /nonexistent/server.properties"), "{line}");
}

#[test]
fn http_shows_metrics_and_health() {
    run(async {
        let config = weir_broker::Config { http: Some("127.0.0.1:0".to_owned()), ..crate::support::config() };
        let broker = crate::support::Broker::with(config).await;
        broker.client().await.metadata(9, None, false).await;
        let address = broker.node.http_address().expect("an endpoint");
        for (path, status, content) in [
            ("/metrics", "200 OK", "weir_requests_total{api_key=\"3\"} 1"),
            ("/metrics", "200 OK", "weir_journal_rounds_total "),
            ("/health", "200 OK", "ok"),
            ("/", "404 Not Found", "/metrics"),
        ] {
            let mut client = Client::connect(address).await;
            client.send_bytes(Bytes::from(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))).await;
            let mut answer = bytes::BytesMut::new();
            while client.reader.read(&mut answer, 1 << 16).await.is_ok_and(|read| read > 0) {}
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.contains(content), "{answer}");
        }
    });
}
