//! `weir produce`

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::sync::mpsc;
use weir_client::{
    Acks, Compression, Delivery, NewTopic, ProduceError, Produced, Producer, ProducerConfig, ProducerRecord,
};
use weir_runtime::task;

use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::{Context, input, output, parse, topic};

/// Deliveries that are waited for at a time. What is in memory is bounded by the producer.
const DELIVERIES_MAX: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  echo hello | weir produce greetings
      A record for each line of the standard input.
  weir produce orders orders.txt
      Of a file.
  printf 'eu:1\\nus:2\\n' | weir produce orders -K :
      What stands before the first colon is the key; records with one key stay together, where Java's clients put them.
  echo '{}' | weir produce orders -k eu -H source=cli -H trace=42 -z zstd
      One key for all, headers, compressed.
  tail -F app.log | weir produce logs --create
      As it comes; the topic is created if there is none.
  weir consume orders -e -o json | weir produce copy --json
      Records as 'weir consume -o json' prints them, with keys, headers and timestamps.
  printf 'eu:\\n' | weir produce orders -K : -Z
      An empty value is none at all: a tombstone.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Produce {
    /// Where to
    topic: String,
    /// Files to read; without any, the standard input
    files: Vec<PathBuf>,
    /// The partition of all records, in place of the key's
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What separates key and value
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = Bytes_::parse)]
    key_delimiter: Option<Bytes_>,
    /// The key of all records
    #[arg(short, long, value_name = "TEXT", conflicts_with = "key_delimiter")]
    key: Option<String>,
    /// A header of all records; a name alone has no value
    #[arg(short = 'H', long = "header", value_name = "NAME[=VALUE]", value_parser = parse::header)]
    headers: Vec<(String, Option<String>)>,
    /// What separates records
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n", value_parser = Bytes_::parse)]
    delimiter: Bytes_,
    /// An empty key or value is none
    #[arg(short = 'Z', long)]
    null: bool,
    /// Each record is an object as 'weir consume -o json' prints it; its topic, partition and offset are not looked at
    #[arg(long, conflicts_with_all = ["key_delimiter", "key", "null"])]
    json: bool,
    /// Create the topic if there is none, as the cluster creates topics
    #[arg(long)]
    create: bool,
    /// How batches are compressed
    #[arg(short = 'z', long, value_name = "CODEC", value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Who must have a record before it counts as written: all replicas in sync, the leader, nobody
    #[arg(long, value_name = "WHO", value_enum, default_value_t = AcksOf::All)]
    acks: AcksOf,
    /// Send batches without numbers, to brokers that know no idempotence
    #[arg(long)]
    no_idempotence: bool,
}

/// Bytes as an argument.
#[derive(Clone, Debug)]
struct Bytes_(Vec<u8>);

impl Bytes_ {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = parse::escaped(text)?;
        if bytes.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self(bytes)) }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcksOf {
    #[value(alias = "-1")]
    All,
    #[value(alias = "1")]
    Leader,
    #[value(alias = "0")]
    None,
}

impl Produce {
    fn config(&self, limit: Duration) -> ProducerConfig {
        ProducerConfig {
            acks: match self.acks {
                AcksOf::All => Acks::All,
                AcksOf::Leader => Acks::Leader,
                AcksOf::None => Acks::None,
            },
            compression: match self.compression {
                Codec::None => Compression::None,
                Codec::Gzip => Compression::Gzip,
                Codec::Snappy => Compression::Snappy,
                Codec::Lz4 => Compression::Lz4,
                Codec::Zstd => Compression::Zstd,
            },
            enable_idempotence: !self.no_idempotence,
            // How large a record may be is for the topic to say.
            request_bytes_max: ProducerConfig::default().memory_bytes,
            request_timeout: limit,
            delivery_timeout: limit,
            ..ProducerConfig::default()
        }
    }

    /// A record from what stands between two delimiters.
    fn record(&self, text: Bytes) -> Result<ProducerRecord, Failure> {
        let mut record = if self.json { input::record_of_json(&text)? } else { self.record_of_text(text) };
        record.topic.clone_from(&self.topic);
        record.partition = self.partition;
        let header =
            |(name, value): &(String, Option<String>)| (name.clone(), value.clone().map(Bytes::from));
        record.headers.extend(self.headers.iter().map(header));
        Ok(record)
    }

    fn record_of_text(&self, mut text: Bytes) -> ProducerRecord {
        let mut key = self.key.clone().map(Bytes::from);
        if let Some(delimiter) = &self.key_delimiter
            && let Some(at) = find(&text, &delimiter.0)
        {
            key = Some(text.split_to(at));
            text = text.split_off(delimiter.0.len());
        }
        let given = |bytes: &Bytes| !(self.null && bytes.is_empty());
        ProducerRecord {
            key: key.filter(given),
            value: Some(text).filter(given),
            ..ProducerRecord::default()
        }
    }
}

fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    text.windows(delimiter.len()).position(|window| window == delimiter)
}

pub(crate) async fn run(context: &Context, produce: Produce) -> Result<(), Failure> {
    must_exist(context, &produce).await?;
    let producer = Producer::new(&context.client, produce.config(context.client.config().operation_timeout));
    let shown = !produce.files.is_empty() || progress::input_is_no_terminal();
    let progress = Progress::new("written", shown);
    let mut sending =
        Sending { producer, deliveries: VecDeque::new(), written: 0, partitions: BTreeMap::new(), progress };
    let records = input::records(produce.files.clone(), produce.delimiter.0.clone());
    let sent = sending.all_of(&produce, records).await;
    sending.progress.finish();
    sent?;
    if context.output.is_json() {
        let partitions = sending.partitions.iter().map(|(partition, range)| {
            json!({
                "partition": partition,
                "records": range.records,
                "first_offset": range.first,
                "last_offset": range.last,
            })
        });
        let partitions: Vec<_> = partitions.collect();
        let told = json!({ "topic": produce.topic, "records": sending.written, "partitions": partitions });
        return output::json(&told);
    }
    Ok(())
}

/// A topic that is not there would be waited for.
async fn must_exist(context: &Context, produce: &Produce) -> Result<(), Failure> {
    let Err(error) = context.admin.describe_topic(&produce.topic).await else { return Ok(()) };
    let missing = error.kafka().is_some_and(|kafka| kafka.name() == "UNKNOWN_TOPIC_OR_PARTITION");
    if !missing {
        return Err(error.into());
    }
    if !produce.create {
        let topic = &produce.topic;
        return Err(Failure::failed(format!(
            "topic {topic} does not exist; 'weir topic create {topic}' makes it, or --create here"
        )));
    }
    let new = NewTopic { name: produce.topic.clone(), ..NewTopic::default() };
    match context.admin.create_topic(&new).await {
        Err(error) if error.kafka().is_none_or(|kafka| kafka.name() != "TOPIC_ALREADY_EXISTS") => {
            Err(error.into())
        }
        // Or somebody else has been faster.
        _ => {
            topic::wait_until_led(&context.admin, &produce.topic).await;
            Ok(())
        }
    }
}

/// Where records of one partition went. Offsets are not known where nobody acknowledges.
#[derive(Default)]
struct Range {
    records: u64,
    first: Option<i64>,
    last: Option<i64>,
}

struct Sending {
    producer: Producer,
    deliveries: VecDeque<(Delivery, usize)>,
    written: u64,
    partitions: BTreeMap<i32, Range>,
    progress: Progress,
}

impl Sending {
    /// Sends everything that comes, until there is no more or the command is interrupted, and waits until it is written.
    async fn all_of(
        &mut self,
        produce: &Produce,
        mut records: mpsc::Receiver<input::Chunk>,
    ) -> Result<(), Failure> {
        let mut interrupted = Box::pin(task::interrupted());
        loop {
            let chunk = weir_runtime::select! {
                () = interrupted.as_mut() => break,
                settled = settled(&mut self.deliveries), if !self.deliveries.is_empty() => {
                    self.count(settled)?;
                    continue;
                }
                chunk = records.recv() => chunk,
            };
            let Some(chunk) = chunk else { break };
            for text in chunk? {
                let record = produce.record(text)?;
                let bytes = [&record.key, &record.value].map(|part| part.as_ref().map_or(0, Bytes::len));
                let delivery = self.producer.send(record).await?;
                self.deliveries.push_back((delivery, bytes.iter().sum()));
                if self.deliveries.len() > DELIVERIES_MAX {
                    let settled = settled(&mut self.deliveries).await;
                    self.count(settled)?;
                }
            }
        }
        self.producer.flush().await?;
        while !self.deliveries.is_empty() {
            let settled = settled(&mut self.deliveries).await;
            self.count(settled)?;
        }
        Ok(())
    }

    fn count(&mut self, settled: Option<(Result<Produced, ProduceError>, usize)>) -> Result<(), Failure> {
        let Some((settled, bytes)) = settled else { return Ok(()) };
        let produced = settled.map_err(|error| match (Failure::from(error), self.written) {
            (Failure::Failed(why), 1..) => {
                Failure::failed(format!("{why} (records written before it: {})", self.written))
            }
            (failure, _) => failure,
        })?;
        self.written += 1;
        self.progress.add(bytes);
        let range = self.partitions.entry(produced.partition.partition).or_default();
        range.records += 1;
        range.first = range.first.or(produced.offset);
        range.last = produced.offset.or(range.last);
        Ok(())
    }
}

/// What came of the oldest delivery. To give up waiting for it loses nothing.
async fn settled(
    deliveries: &mut VecDeque<(Delivery, usize)>,
) -> Option<(Result<Produced, ProduceError>, usize)> {
    let (delivery, bytes) = deliveries.front_mut()?;
    let settled = (delivery.await, *bytes);
    deliveries.pop_front();
    Some(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(key_delimiter: Option<&str>, null: bool) -> Produce {
        Produce {
            topic: "t".to_owned(),
            files: Vec::new(),
            partition: None,
            key_delimiter: key_delimiter.map(|text| Bytes_(text.as_bytes().to_vec())),
            key: None,
            headers: vec![("h".to_owned(), Some("1".to_owned()))],
            delimiter: Bytes_(b"\n".to_vec()),
            null,
            json: false,
            create: false,
            compression: Codec::None,
            acks: AcksOf::All,
            no_idempotence: false,
        }
    }

    fn key_and_value(produce: &Produce, text: &'static str) -> (Option<Bytes>, Option<Bytes>) {
        let record = produce.record(Bytes::from_static(text.as_bytes())).unwrap();
        (record.key, record.value)
    }

    #[test]
    fn the_first_delimiter_ends_the_key() {
        let (key, value) = key_and_value(&produce(Some("::"), false), "a::b::c");
        assert_eq!((key.as_deref(), value.as_deref()), (Some(&b"a"[..]), Some(&b"b::c"[..])));
        let (key, value) = key_and_value(&produce(Some("::"), false), "abc");
        assert_eq!((key.as_deref(), value.as_deref()), (None, Some(&b"abc"[..])));
        let (key, value) = key_and_value(&produce(Some(":"), true), "a:");
        assert_eq!((key.as_deref(), value.as_deref()), (Some(&b"a"[..]), None));
        let (key, value) = key_and_value(&produce(Some(":"), false), ":");
        assert_eq!((key.as_deref(), value.as_deref()), (Some(&b""[..]), Some(&b""[..])));
    }
}
