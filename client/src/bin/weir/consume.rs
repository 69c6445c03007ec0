//! `weir consume`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use weir_client::{
    Assignor, Consumer, ConsumerConfig, ConsumerRecord, GroupConfig, GroupConsumer, IsolationLevel,
    OffsetSpec, Polled, Rebalance, Start, TopicPartition,
};
use weir_runtime::task;

use crate::format::Format;
use crate::output::written;
use crate::parse::{self, From};
use crate::{Context, Failure};

/// How long one poll waits. What ends the command is looked at in between.
const POLL: Duration = Duration::from_millis(200);
const RECORDS_PER_POLL_MAX: usize = 500;
const AUTO_COMMIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  weir consume greetings
      What comes from now on, a line each, until you interrupt it.
  weir consume greetings --from beginning -e
      Everything that is there.
  weir consume greetings --from -10 -e
      The last ten of each partition.
  weir consume greetings --from @-15m
      From 15 minutes ago on; @2026-01-31T08:00Z and milliseconds since 1970 work too.
  weir consume greetings -f '%t %p %o %T %k %s\\n'
      In a format of your own, which is kcat's:
        %t topic   %p partition   %o offset   %T timestamp in ms   %h headers   %% a percent sign
        %k key     %K its length  %s value    %S its length        \\n \\r \\t \\0 \\\\ \\xHH
  weir consume orders -p 0 --from 42 -c 1 -o json
      One record, with all that belongs to it.
  weir consume orders -g billing
      As a member of a group: it shares the partitions with the other members and goes on where the group has been.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Consume {
    /// What to read
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only these partitions
    #[arg(short, long, value_name = "N", conflicts_with = "group", value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Read as a member of this group, and commit what was printed
    #[arg(short, long)]
    group: Option<String>,
    /// This member's name for good (KIP-345)
    #[arg(long, requires = "group", value_name = "NAME")]
    instance: Option<String>,
    /// How the group may divide partitions, best first; all its members have one in common
    #[arg(long, requires = "group", value_name = "NAME", value_delimiter = ',', value_parser = assignor,
        default_value = "range,cooperative-sticky")]
    assignor: Vec<Assignor>,
    /// Where to begin: beginning, end, an offset, -N before the end, @TIME; a group begins there only where it has
    /// committed nothing
    #[arg(long, value_name = "PLACE", value_parser = parse::from, allow_hyphen_values = true, default_value = "end")]
    from: From,
    /// End when everything is read that was there at the start
    #[arg(short = 'e', long)]
    exit: bool,
    /// End after so many records
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// How to print a record
    #[arg(short, long, value_parser = Format::parse, default_value = "%s\\n")]
    format: Format,
    /// What to print for a key or value that is none
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,
    /// Whether records of transactions that are open or were aborted are read
    #[arg(long, value_enum, default_value_t = Isolation::Committed)]
    isolation: Isolation,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Isolation {
    Committed,
    Uncommitted,
}

impl Consume {
    fn consumer_config(&self) -> ConsumerConfig {
        let most = self.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(RECORDS_PER_POLL_MAX);
        ConsumerConfig {
            poll_records_max: most.clamp(1, RECORDS_PER_POLL_MAX),
            isolation: match self.isolation {
                Isolation::Committed => IsolationLevel::ReadCommitted,
                Isolation::Uncommitted => IsolationLevel::ReadUncommitted,
            },
            ..ConsumerConfig::default()
        }
    }
}

pub(crate) async fn run(context: &Context, consume: Consume) -> Result<(), Failure> {
    if consume.count == Some(0) {
        return Ok(());
    }
    let mut printer = Printer::new(context, &consume);
    match &consume.group {
        Some(group) => in_group(context, &consume, group, &mut printer).await,
        None => alone(context, &consume, &mut printer).await,
    }
}

async fn alone(context: &Context, consume: &Consume, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let partitions = chosen(context, consume).await?;
    let ends = ends(context, &partitions).await?;
    let mut consumer = Consumer::new(&context.client, consume.consumer_config());
    consumer.assign(starts(context, consume.from, &ends).await?);
    let mut interrupted = Box::pin(task::interrupted());
    loop {
        let Some(polled) = until(&mut interrupted, consumer.poll(POLL)).await else { return printer.end() };
        if printer.print(&polled)?.is_some() {
            return printer.end();
        }
        let read = |(partition, end): (&TopicPartition, &i64)| {
            consumer.position(partition).is_some_and(|position| position >= *end)
        };
        if consume.exit && ends.iter().all(read) {
            return printer.end();
        }
    }
}

async fn in_group(
    context: &Context,
    consume: &Consume,
    group: &str,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let From::Place(start) = consume.from else {
        return Err(Failure::Usage(
            "a group begins at the beginning, the end, an offset or a time".to_owned(),
        ));
    };
    let config = GroupConfig {
        instance: consume.instance.clone(),
        assignors: consume.assignor.clone(),
        start: Some(start),
        auto_commit: Some(AUTO_COMMIT),
        consumer: consume.consumer_config(),
        ..GroupConfig::new(group)
    };
    let topics = consume.topics.iter().map(String::as_str);
    let mut member = GroupConsumer::new(&context.client, config, topics)?;
    let mut interrupted = Box::pin(task::interrupted());
    let mut unread: Option<BTreeMap<TopicPartition, i64>> = None;
    while let Some(polled) = until(&mut interrupted, member.poll(POLL)).await {
        let polled = polled?;
        for rebalance in &polled.rebalances {
            follow(context, consume, rebalance, &mut unread).await?;
        }
        if let Some(not_printed) = printer.print(&polled.polled)? {
            // What was not printed is not committed.
            for (partition, offset) in not_printed {
                member.seek(&partition, Start::Offset(offset))?;
            }
            break;
        }
        if let Some(unread) = &mut unread {
            unread.retain(|partition, end| member.position(partition).is_none_or(|position| position < *end));
            if consume.exit && unread.is_empty() {
                break;
            }
        }
    }
    printer.end()?;
    Ok(member.close().await?)
}

fn assignor(name: &str) -> Result<Assignor, String> {
    Assignor::by_name(name).ok_or_else(|| {
        let names = Assignor::ALL.map(Assignor::name);
        format!("there are {}", names.join(", "))
    })
}

/// Keeps what is left to read, where the command ends with it.
async fn follow(
    context: &Context,
    consume: &Consume,
    rebalance: &Rebalance,
    unread: &mut Option<BTreeMap<TopicPartition, i64>>,
) -> Result<(), Failure> {
    match rebalance {
        Rebalance::Assigned { partitions, .. } => {
            let known = unread.get_or_insert_default();
            if consume.exit {
                known.extend(ends(context, &partitions.iter().cloned().collect()).await?);
            }
        }
        Rebalance::Revoked { partitions, .. } | Rebalance::Lost { partitions } => {
            if let Some(unread) = unread {
                unread.retain(|partition, _| !partitions.contains(partition));
            }
        }
    }
    Ok(())
}

/// The next answer, or `None` once the command is interrupted.
async fn until<T>(
    interrupted: &mut Pin<Box<impl Future<Output = ()>>>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    weir_runtime::select! {
        () = interrupted.as_mut() => None,
        answer = answer => Some(answer),
    }
}

/// The partitions to read.
async fn chosen(context: &Context, consume: &Consume) -> Result<BTreeSet<TopicPartition>, Failure> {
    let mut chosen = BTreeSet::new();
    for topic in &consume.topics {
        let described = context.admin.describe_topic(topic).await?;
        let there: BTreeSet<i32> = described.partitions.iter().map(|info| info.partition).collect();
        if let Some(missing) = consume.partitions.iter().find(|partition| !there.contains(partition)) {
            return Err(Failure::Failed(format!("topic {topic} has no partition {missing}")));
        }
        let wanted =
            |partition: &&i32| consume.partitions.is_empty() || consume.partitions.contains(partition);
        let named = |&partition: &i32| TopicPartition::new(topic.as_str(), partition);
        chosen.extend(there.iter().filter(wanted).map(named));
    }
    Ok(chosen)
}

/// Where the partitions end now.
async fn ends(
    context: &Context,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    offsets(context, partitions.iter(), OffsetSpec::Latest).await
}

async fn offsets(
    context: &Context,
    partitions: impl Iterator<Item = &TopicPartition>,
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let questions: Vec<_> = partitions.map(|partition| (partition.clone(), spec)).collect();
    let mut offsets = BTreeMap::new();
    for ((partition, _), answer) in questions.iter().zip(context.admin.list_offsets(&questions).await) {
        offsets.insert(partition.clone(), answer?.map_or(0, |at| at.offset));
    }
    Ok(offsets)
}

async fn starts(
    context: &Context,
    from: From,
    ends: &BTreeMap<TopicPartition, i64>,
) -> Result<Vec<(TopicPartition, Start)>, Failure> {
    match from {
        From::Place(start) => Ok(ends.keys().map(|partition| (partition.clone(), start)).collect()),
        From::BeforeEnd(count) => {
            let first = offsets(context, ends.keys(), OffsetSpec::Earliest).await?;
            let start = |(partition, end): (&TopicPartition, &i64)| {
                let first = first.get(partition).copied().unwrap_or_default();
                (partition.clone(), Start::Offset(end.saturating_sub(count).max(first)))
            };
            Ok(ends.iter().map(start).collect())
        }
    }
}

/// Prints records.
struct Printer<'a> {
    consume: &'a Consume,
    json: bool,
    out: BufWriter<io::StdoutLock<'static>>,
    /// How many more are asked for.
    left: u64,
}

impl<'a> Printer<'a> {
    fn new(context: &Context, consume: &'a Consume) -> Self {
        let out = BufWriter::new(io::stdout().lock());
        Self { consume, json: context.output.is_json(), out, left: consume.count.unwrap_or(u64::MAX) }
    }

    /// Prints what was read, as far as it is asked for. When that is all: where each partition goes on, of which something
    /// was not printed.
    fn print(&mut self, polled: &Polled) -> Result<Option<BTreeMap<TopicPartition, i64>>, Failure> {
        let mut not_printed = BTreeMap::new();
        for (partition, record) in polled.records() {
            if self.left == 0 {
                not_printed.entry(partition.clone()).or_insert(record.offset);
                continue;
            }
            self.left -= 1;
            let printed = if self.json {
                writeln!(self.out, "{}", as_json(partition, record))
            } else {
                self.consume.format.write(&mut self.out, partition, record, self.consume.null.as_bytes())
            };
            written(printed)?;
        }
        written(self.out.flush())?;
        for failure in &polled.failures {
            if failure.stopped {
                return Err(Failure::Failed(failure.error.to_string()));
            }
            eprintln!("weir: {}", failure.error);
        }
        Ok((self.left == 0).then_some(not_printed))
    }

    fn end(&mut self) -> Result<(), Failure> {
        written(self.out.flush())
    }
}

/// Text stays text; other bytes become `{"hex": "..."}`.
fn text(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

fn as_json(partition: &TopicPartition, record: &ConsumerRecord) -> Value {
    let headers = record.headers.iter().map(|(key, value)| json!([text(Some(key)), text(value.as_ref())]));
    json!({
        "topic": &*partition.topic,
        "partition": partition.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": text(record.key.as_ref()),
        "value": text(record.value.as_ref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_printed_as_hex() {
        assert_eq!(text(Some(&Bytes::from_static(b"a\xc3\xa9"))), json!("a\u{e9}"));
        assert_eq!(text(Some(&Bytes::from_static(b"\xff\x00"))), json!({ "hex": "ff00" }));
        assert_eq!(text(None), Value::Null);
    }
}
