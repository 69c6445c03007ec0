//! `weir group reset-offsets`

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgGroup, Args};
use serde_json::json;
use weir_client::{CommittedOffset, OffsetSpec, TopicPartition};

use crate::output::{self, Columns, note};
use crate::parse::{self, TopicPart};
use crate::{Context, failure::Failure};

const EXAMPLES: &str = "\
Examples:
  weir group reset-offsets billing --topic orders --to-earliest
      What would change. Nothing does.
  weir group reset-offsets billing --topic orders --to-earliest --execute
      Now it does.
  weir group reset-offsets billing --topic orders:0,1 --by -100 --execute
      Two partitions, each a hundred records back.
  weir group reset-offsets billing --all-topics --to-time -1h --execute
      To the first record of the last hour; also 2026-01-31T08:00Z and milliseconds since 1970.
  weir group reset-offsets billing --topic orders --to-current --execute
      Commits again what is committed, so that it does not expire.

Offsets that are not in the log become the nearest that are. The group must have no members.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("to").required(true).args(["to_earliest", "to_latest", "to_offset", "by", "to_time", "to_current"]))]
#[command(group = ArgGroup::new("what").required(true).args(["topic", "all_topics"]))]
pub(crate) struct ResetOffsets {
    /// The group
    group: String,
    /// A topic, or some of its partitions as TOPIC:0,2,5-7
    #[arg(short, long, value_name = "TOPIC[:N,...]", value_parser = parse::topic_part)]
    topic: Vec<TopicPart>,
    /// Whatever the group has committed
    #[arg(long)]
    all_topics: bool,
    /// To the first record
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// So many records on, or (negative) back
    #[arg(long, alias = "shift-by", value_name = "N", allow_hyphen_values = true)]
    by: Option<i64>,
    /// To the first record with this timestamp or a later one
    #[arg(long, alias = "to-datetime", value_name = "TIME", allow_hyphen_values = true, value_parser = parse::timestamp_ms)]
    to_time: Option<i64>,
    /// To where it is
    #[arg(long)]
    to_current: bool,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Only show what would change, which is what happens without --execute too
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
}

/// A partition's move.
struct Move {
    partition: TopicPartition,
    from: Option<i64>,
    to: i64,
}

pub(crate) async fn run(context: &Context, reset: ResetOffsets) -> Result<(), Failure> {
    let committed = context.admin.list_group_offsets(&reset.group, None).await?;
    let partitions = partitions(context, &reset, &committed).await?;
    let moves = moves(context, &reset, &committed, partitions).await?;
    if reset.execute && !moves.is_empty() {
        execute(context, &reset.group, &moves).await?;
    }
    if context.output.is_json() {
        let told = moves.iter().map(|one| {
            json!({
                "topic": &*one.partition.topic,
                "partition": one.partition.partition,
                "from": one.from,
                "to": one.to,
            })
        });
        let partitions: Vec<_> = told.collect();
        return output::json(
            &json!({ "group": reset.group, "executed": reset.execute, "partitions": partitions }),
        );
    }
    let mut columns = Columns::new(&["topic", "partition>", "from>", "to>"]);
    for one in &moves {
        let from = one.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        let (topic, partition) = (one.partition.topic.to_string(), one.partition.partition.to_string());
        columns.row(vec![topic, partition, from, one.to.to_string()]);
    }
    columns.print_or_note("there is nothing to move")?;
    if !reset.execute && !moves.is_empty() {
        note(match has_members(context, &reset.group).await? {
            true => "nothing was changed; the group has members: stop them, then --execute does it",
            false => "nothing was changed; --execute does it",
        });
    }
    Ok(())
}

async fn has_members(context: &Context, group: &str) -> Result<bool, Failure> {
    match context.admin.describe_group(group).await {
        Ok(group) => Ok(!group.members.is_empty()),
        Err(error) if error.kafka().is_some_and(|kafka| kafka.is_group_not_found()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The partitions that are meant.
async fn partitions(
    context: &Context,
    reset: &ResetOffsets,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeSet<TopicPartition>, Failure> {
    if reset.all_topics {
        if committed.is_empty() {
            let group = &reset.group;
            return Err(Failure::failed(format!(
                "group {group} has committed nothing; name topics with --topic"
            )));
        }
        let topics = context.admin.list_topics().await?;
        let topics: BTreeSet<String> = topics.into_iter().map(|topic| topic.name).collect();
        let (there, gone): (Vec<_>, Vec<_>) =
            committed.keys().cloned().partition(|partition| topics.contains(&*partition.topic));
        for partition in gone {
            note(&format!("{partition} is passed over: the topic does not exist any more"));
        }
        return Ok(there.into_iter().collect());
    }
    let mut chosen = BTreeSet::new();
    for (topic, numbers) in &reset.topic {
        let described = context.admin.describe_topic(topic).await?;
        let there: BTreeSet<i32> = described.partitions.iter().map(|info| info.partition).collect();
        let numbers = numbers.as_ref().unwrap_or(&there);
        if let Some(missing) = numbers.difference(&there).next() {
            let has = parse::partitions_text(&there);
            return Err(Failure::failed(format!("topic {topic} has no partition {missing}; it has {has}")));
        }
        chosen.extend(numbers.iter().map(|&partition| TopicPartition::new(topic.as_str(), partition)));
    }
    Ok(chosen)
}

async fn moves(
    context: &Context,
    reset: &ResetOffsets,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
    partitions: BTreeSet<TopicPartition>,
) -> Result<Vec<Move>, Failure> {
    let mut questions = Vec::new();
    for partition in &partitions {
        let specs =
            [Some(OffsetSpec::Earliest), Some(OffsetSpec::Latest), reset.to_time.map(OffsetSpec::Time)];
        questions.extend(specs.into_iter().flatten().map(|spec| (partition.clone(), spec)));
    }
    let mut answers = context.admin.list_offsets(&questions).await.into_iter();
    let mut next = || -> Result<Option<i64>, Failure> {
        let answer = answers.next().unwrap_or(Err(weir_client::Error::Closed));
        Ok(answer?.map(|at| at.offset))
    };
    let mut moves = Vec::new();
    for partition in partitions {
        let first = next()?.unwrap_or_default();
        let end = next()?.unwrap_or_default();
        let at_time = if reset.to_time.is_some() { next()? } else { None };
        let from = committed.get(&partition).map(|offset| offset.offset);
        let to = match (reset.to_offset, reset.by) {
            (Some(offset), _) => Some(offset),
            (_, Some(by)) => from.map(|from| from.saturating_add(by)),
            _ if reset.to_earliest => Some(first),
            _ if reset.to_latest => Some(end),
            _ if reset.to_current => from,
            _ => Some(at_time.unwrap_or(end)),
        };
        let Some(to) = to else {
            note(&format!("{partition} is passed over: group {} has committed nothing there", reset.group));
            continue;
        };
        moves.push(Move { partition, from, to: to.clamp(first, end) });
    }
    Ok(moves)
}

async fn execute(context: &Context, group: &str, moves: &[Move]) -> Result<(), Failure> {
    let offsets = moves.iter().map(|one| (one.partition.clone(), CommittedOffset::at(one.to)));
    let answers = context.admin.alter_group_offsets(group, &offsets.collect()).await?;
    for (partition, answer) in answers {
        answer.map_err(|error| match error.kafka().map(|kafka| kafka.name()).as_deref() {
            Some("UNKNOWN_MEMBER_ID") => Failure::failed(format!(
                "group {group} has members, which would go on where they are; stop them first: 'weir group describe' names them"
            )),
            _ => Failure::failed(format!("{partition}: {error}")),
        })?;
    }
    Ok(())
}
