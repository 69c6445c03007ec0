//! `weir group lag`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::json;
use weir_client::{GroupDescription, OffsetSpec, TopicPartition};

use crate::output::{self, Columns};
use crate::{Context, failure::Failure};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir group lag billing\n  weir group lag billing --topic orders\n  \
                        weir -o json group lag billing | jq '[.partitions[].lag] | add'\n  \
                        weir group lag billing --fail-above 10000\n      For monitoring: exit code 1 where it is more.")]
pub(crate) struct Lag {
    /// The group
    group: String,
    /// Only these topics
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Fail where the sum over the partitions is larger
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    fail_above: Option<i64>,
}

/// A partition's line.
struct Line {
    partition: TopicPartition,
    committed: Option<i64>,
    end: Result<i64, String>,
    member: Option<String>,
}

impl Line {
    fn lag(&self) -> Option<i64> {
        let end = self.end.as_ref().ok()?;
        self.committed.map(|committed| (end - committed).max(0))
    }
}

pub(crate) async fn run(context: &Context, lag: Lag) -> Result<(), Failure> {
    let group = context.admin.describe_group(&lag.group).await?;
    let lines = lines(context, &lag, &group).await?;
    let total: i64 = lines.iter().filter_map(Line::lag).sum();
    if context.output.is_json() {
        let told = lines.iter().map(|line| {
            json!({
                "topic": &*line.partition.topic,
                "partition": line.partition.partition,
                "committed": line.committed,
                "end": line.end.as_ref().ok(),
                "lag": line.lag(),
                "member": line.member,
                "error": line.end.as_ref().err(),
            })
        });
        let partitions: Vec<_> = told.collect();
        output::json(&json!({ "group": lag.group, "lag": total, "partitions": partitions }))?;
    } else {
        let (id, state) = (&group.id, &group.state);
        output::line(&format!("group {id}  state {state}  members {}  lag {total}", group.members.len()))?;
        print(&lines, &lag)?;
    }
    match lag.fail_above {
        Some(limit) if total > limit => {
            Err(Failure::failed(format!("group {} is {total} records behind, more than {limit}", lag.group)))
        }
        _ => Ok(()),
    }
}

fn print(lines: &[Line], lag: &Lag) -> Result<(), Failure> {
    let text = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    let mut columns = Columns::new(&["topic", "partition>", "committed>", "end>", "lag>", "member?"]);
    for line in lines {
        columns.row(vec![
            line.partition.topic.to_string(),
            line.partition.partition.to_string(),
            text(line.committed),
            line.end.as_ref().map_or_else(Clone::clone, ToString::to_string),
            text(line.lag()),
            line.member.clone().unwrap_or_default(),
        ]);
    }
    let of = if lag.topic.is_empty() { "" } else { " of these topics" };
    columns.print_or_note(&format!("group {} has committed nothing{of} and reads nothing", lag.group))
}

/// What the group has committed or reads.
async fn lines(context: &Context, lag: &Lag, group: &GroupDescription) -> Result<Vec<Line>, Failure> {
    let committed = context.admin.list_group_offsets(&lag.group, None).await?;
    let mut members: BTreeMap<TopicPartition, Option<String>> =
        committed.keys().map(|partition| (partition.clone(), None)).collect();
    for member in &group.members {
        let name = member.instance.as_ref().unwrap_or(&member.id);
        members.extend(member.partitions.iter().map(|partition| (partition.clone(), Some(name.clone()))));
    }
    members.retain(|partition, _| {
        lag.topic.is_empty() || lag.topic.iter().any(|topic| **topic == *partition.topic)
    });
    // Nobody waits for the end of a topic that was deleted.
    let topics: BTreeSet<String> =
        context.admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
    let there = members.keys().filter(|partition| topics.contains(&*partition.topic));
    let questions: Vec<_> = there.map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
    let answers = context.admin.list_offsets(&questions).await;
    let mut ends: BTreeMap<TopicPartition, _> =
        questions.into_iter().map(|(partition, _)| partition).zip(answers).collect();
    let lines = members.into_iter().map(|(partition, member)| {
        let end = match ends.remove(&partition) {
            None => Err("UNKNOWN_TOPIC_OR_PARTITION".to_owned()),
            Some(Ok(at)) => Ok(at.map_or(0, |at| at.offset)),
            Some(Err(error)) => Err(error.kafka().map_or_else(|| error.to_string(), |kafka| kafka.name())),
        };
        Line { committed: committed.get(&partition).map(|offset| offset.offset), partition, end, member }
    });
    Ok(lines.collect())
}
