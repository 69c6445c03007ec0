//! `weir consume`

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use clap::{Args, ValueEnum};
use weir_client::{
    Assignor, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, IsolationLevel, OffsetSpec, Rebalance,
    Start, TopicPartition,
};
use weir_runtime::task;

use crate::Context;
use crate::failure::Failure;
use crate::format::Format;
use crate::parse::{self, From};
use crate::printer::Printer;
use crate::silence::Silence;

/// How long one poll waits. What ends the command is looked at in between.
const POLL: Duration = Duration::from_millis(200);
const RECORDS_PER_POLL_MAX: usize = 500;
const AUTO_COMMIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  weir consume greetings
      What comes from now on, a line each, until you interrupt it.
  weir consume greetings -e
      Everything that is there.
  weir consume greetings --from -10 -e
      The last ten of each partition.
  weir consume greetings --from @-15m
      From 15 minutes ago on; @2026-01-31T08:00Z and milliseconds since 1970 work too.
  weir consume greetings -f '%t %p %o %T %k %s\\n'
      In a format of your own, which is kcat's:
        %t topic   %p partition   %o offset   %T timestamp in ms   %h headers   %% a percent sign
        %k key     %K its length  %s value    %S its length        \\n \\r \\t \\0 \\\\ \\xHH
        %R the value's length as 4 bytes, big-endian; lengths are -1 where there is no key or value
  weir consume orders -p 0 --from 42 -c 1 -o json
      One record, with all that belongs to it.
  weir consume orders -e -o json | weir produce copy --json
      A copy, with keys, headers and timestamps.
  weir consume orders -g billing
      As a member of a group: it shares the partitions with the other members and goes on where the group has been.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Consume {
    /// What to read
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only these partitions: 0,2,5-7
    #[arg(short, long, value_name = "N,...", conflicts_with = "group", value_parser = Partitions::parse)]
    partitions: Option<Partitions>,
    /// Read as a member of this group, and commit what was printed
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// This member's name for good (KIP-345)
    #[arg(long, requires = "group", value_name = "NAME")]
    instance: Option<String>,
    /// How the group may divide partitions, best first; all its members have one in common
    #[arg(long, requires = "group", value_name = "NAME", value_delimiter = ',', value_parser = assignor,
        default_value = "range,cooperative-sticky")]
    assignor: Vec<Assignor>,
    /// Where to begin: beginning, end, an offset, -N before the end, @TIME; a group begins there only where it has
    /// committed nothing [default: end; with --exit beginning]
    #[arg(long, value_name = "PLACE", value_parser = parse::from, allow_hyphen_values = true)]
    from: Option<From>,
    /// End when everything is read that was there at the start
    #[arg(short = 'e', long)]
    exit: bool,
    /// End after so many records
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// How to print a record; see the examples
    #[arg(short, long, value_parser = Format::parse, default_value = "%s\\n")]
    format: Format,
    /// What to print for a key or value that is none
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    null: String,
    /// Whether records of transactions that are open or were aborted are read
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Isolation::Committed)]
    isolation: Isolation,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Isolation {
    Committed,
    Uncommitted,
}

/// Partitions as an argument.
#[derive(Clone, Debug)]
struct Partitions(BTreeSet<i32>);

impl Partitions {
    fn parse(text: &str) -> Result<Self, String> {
        parse::partitions(text).map(Self)
    }
}

impl Consume {
    /// Refuses a place at which a group cannot begin.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match (&self.group, self.from) {
            (Some(_), Some(From::BeforeEnd(_))) => {
                Err(Failure::usage("a group begins at the beginning, the end, an offset or a time"))
            }
            _ => Ok(()),
        }
    }

    fn from(&self) -> From {
        self.from.unwrap_or(From::Place(if self.exit { Start::Beginning } else { Start::End }))
    }

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
    let mut printer = Printer::new(&consume.format, &consume.null, context.output.is_json(), consume.count);
    match &consume.group {
        Some(group) => in_group(context, &consume, group, &mut printer).await,
        None => alone(context, &consume, &mut printer).await,
    }
}

async fn alone(context: &Context, consume: &Consume, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let partitions = chosen(context, consume).await?;
    let ends = ends(context, &partitions).await?;
    let mut consumer = Consumer::new(&context.client, consume.consumer_config());
    consumer.assign(starts(context, consume.from(), &ends).await?);
    let mut interrupted = Box::pin(task::interrupted());
    let mut silence = Silence::new(context, consume.exit);
    loop {
        let Some(polled) = until(&mut interrupted, consumer.poll(POLL)).await else { return printer.end() };
        if polled.is_empty() {
            let Some(looked) = until(&mut interrupted, silence.look()).await else { return printer.end() };
            looked?;
        } else {
            silence.broken();
        }
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
    for topic in &consume.topics {
        context.admin.describe_topic(topic).await?;
    }
    let start = match consume.from() {
        From::Place(start) => start,
        From::BeforeEnd(_) => return consume.check(),
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
    let mut silence = Silence::new(context, consume.exit);
    let mut unread: Option<BTreeMap<TopicPartition, i64>> = None;
    while let Some(polled) = until(&mut interrupted, member.poll(POLL)).await {
        let polled = polled?;
        if polled.is_empty() {
            let Some(looked) = until(&mut interrupted, silence.look()).await else { break };
            looked?;
        } else {
            silence.broken();
        }
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
    // Who interrupts a second time does not wait for the group.
    match until(&mut Box::pin(task::interrupted()), member.close()).await {
        Some(closed) => Ok(closed?),
        None => Err(Failure::failed("interrupted before the group knew what was read")),
    }
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
        let wanted = consume.partitions.as_ref().map_or(&there, |partitions| &partitions.0);
        if let Some(missing) = wanted.difference(&there).next() {
            let has = parse::partitions_text(&there);
            return Err(Failure::failed(format!("topic {topic} has no partition {missing}; it has {has}")));
        }
        chosen.extend(wanted.iter().map(|&partition| TopicPartition::new(topic.as_str(), partition)));
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
