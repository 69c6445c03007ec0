//! `weir produce`

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use weir_client::{Acks, Compression, Delivery, Producer, ProducerConfig, ProducerRecord};

use crate::output;
use crate::parse;
use crate::{Context, Failure};

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
    #[arg(short, long, value_name = "N")]
    partition: Option<i32>,
    /// What separates key and value
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = Bytes_::parse)]
    key_delimiter: Option<Bytes_>,
    /// The key of all records
    #[arg(short, long, conflicts_with = "key_delimiter")]
    key: Option<String>,
    /// A header of all records
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse::setting)]
    headers: Vec<(String, String)>,
    /// What separates records
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n", value_parser = Bytes_::parse)]
    delimiter: Bytes_,
    /// An empty key or value is none
    #[arg(short = 'Z', long)]
    null: bool,
    /// How batches are compressed
    #[arg(short = 'z', long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
    /// Who must have a record before it counts as written
    #[arg(long, value_enum, default_value_t = AcksOf::All)]
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
    /// All replicas in sync
    All,
    /// The leader
    Leader,
    /// Nobody
    None,
}

impl Produce {
    fn config(&self) -> ProducerConfig {
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
            ..ProducerConfig::default()
        }
    }

    /// A record from what stands between two delimiters.
    fn record(&self, mut text: Bytes) -> ProducerRecord {
        let mut key = self.key.clone().map(Bytes::from);
        if let Some(delimiter) = &self.key_delimiter
            && let Some(at) = find(&text, &delimiter.0)
        {
            key = Some(text.split_to(at));
            text = text.split_off(delimiter.0.len());
        }
        let given = |bytes: &Bytes| !(self.null && bytes.is_empty());
        let headers =
            self.headers.iter().map(|(name, value)| (name.clone(), Some(Bytes::from(value.clone()))));
        ProducerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            key: key.filter(given),
            value: Some(text).filter(given),
            headers: headers.collect(),
            timestamp_ms: None,
        }
    }
}

fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    text.windows(delimiter.len()).position(|window| window == delimiter)
}

pub(crate) async fn run(context: &Context, produce: Produce) -> Result<(), Failure> {
    let producer = Producer::new(&context.client, produce.config());
    let mut sending = Sending { producer, deliveries: VecDeque::new(), written: 0 };
    if produce.files.is_empty() {
        sending.all_of(&produce, io::stdin().lock()).await?;
    }
    for file in &produce.files {
        let open = File::open(file);
        let open =
            open.map_err(|error| Failure::Failed(format!("cannot open {}: {error}", file.display())))?;
        sending.all_of(&produce, BufReader::new(open)).await?;
    }
    sending.producer.flush().await?;
    sending.settle(0).await?;
    if context.output.is_json() {
        return output::json(&json!({ "topic": produce.topic, "records": sending.written }));
    }
    Ok(())
}

struct Sending {
    producer: Producer,
    deliveries: VecDeque<Delivery>,
    written: u64,
}

impl Sending {
    /// Sends everything that the input has, record by record.
    async fn all_of(&mut self, produce: &Produce, mut input: impl BufRead) -> Result<(), Failure> {
        while let Some(text) = next(&mut input, &produce.delimiter.0)? {
            self.deliveries.push_back(self.producer.send(produce.record(text)).await?);
            self.settle(DELIVERIES_MAX).await?;
        }
        Ok(())
    }

    /// Waits until at most so many are not settled.
    async fn settle(&mut self, at_most: usize) -> Result<(), Failure> {
        while self.deliveries.len() > at_most {
            let Some(delivery) = self.deliveries.pop_front() else { break };
            if let Err(error) = delivery.await {
                let before = self.written;
                return Err(Failure::Failed(format!("{error} ({before} records before it were written)")));
            }
            self.written += 1;
        }
        Ok(())
    }
}

/// What stands before the next delimiter; `None` at the end. An empty rest is no record.
fn next(input: &mut impl BufRead, delimiter: &[u8]) -> Result<Option<Bytes>, Failure> {
    let Some(&last) = delimiter.last() else { return Ok(None) };
    let mut text = Vec::new();
    loop {
        let read = input.read_until(last, &mut text);
        let read = read.map_err(|error| Failure::Failed(format!("cannot read the records: {error}")))?;
        if text.ends_with(delimiter) {
            text.truncate(text.len() - delimiter.len());
            return Ok(Some(text.into()));
        }
        if read == 0 {
            return Ok((!text.is_empty()).then(|| text.into()));
        }
    }
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
            headers: vec![("h".to_owned(), "1".to_owned())],
            delimiter: Bytes_(b"\n".to_vec()),
            null,
            compression: Codec::None,
            acks: AcksOf::All,
            no_idempotence: false,
        }
    }

    fn key_and_value(produce: &Produce, text: &'static str) -> (Option<Bytes>, Option<Bytes>) {
        let record = produce.record(Bytes::from_static(text.as_bytes()));
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

    #[test]
    fn records_end_with_the_delimiter_or_the_input() {
        let all = |text: &str, delimiter: &str| {
            let mut input = text.as_bytes();
            let mut records = Vec::new();
            while let Ok(Some(record)) = next(&mut input, delimiter.as_bytes()) {
                records.push(String::from_utf8(record.to_vec()).unwrap());
            }
            records
        };
        assert_eq!(all("a\n\nb", "\n"), ["a", "", "b"]);
        assert_eq!(all("a\nb\n", "\n"), ["a", "b"]);
        assert_eq!(all("a-b--c", "--"), ["a-b", "c"]);
    }
}
