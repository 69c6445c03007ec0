//! `weir group`

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use serde_json::json;
use weir_client::{GroupDescription, GroupMember};

use crate::output::{self, Columns};
use crate::parse;
use crate::{Context, failure::Failure, lag, reset};

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// All groups
    #[command(
        after_help = "Examples:\n  weir group list\n  weir group list --state Stable --state Empty\n  \
                            weir -o json group list | jq -r '.[].group'"
    )]
    List {
        /// Only groups in this state: Stable, Empty, PreparingRebalance, CompletingRebalance, Dead
        #[arg(long, value_name = "STATE")]
        state: Vec<String>,
    },
    /// A group's state and its members with what they read
    #[command(
        after_help = "Examples:\n  weir group describe billing\n  weir -o json group describe billing | jq '.[0].members | length'"
    )]
    Describe {
        /// Their names
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// How far behind a group is, partition by partition
    Lag(lag::Lag),
    /// Move a group that has no members to other places; without --execute it only says what would change
    ResetOffsets(reset::ResetOffsets),
    /// Delete groups with their offsets; they must have no members
    #[command(after_help = "Example:\n  weir group delete billing old-billing")]
    Delete {
        /// Their names
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

pub(crate) async fn run(context: &Context, group: Group) -> Result<(), Failure> {
    match group {
        Group::List { state } => list(context, &state).await,
        Group::Describe { groups } => describe(context, &groups).await,
        Group::Lag(lag) => lag::run(context, lag).await,
        Group::ResetOffsets(reset) => reset::run(context, reset).await,
        Group::Delete { groups } => delete(context, &groups).await,
    }
}

async fn list(context: &Context, states: &[String]) -> Result<(), Failure> {
    let groups = context.admin.list_groups().await?;
    let asked_for =
        |state: &str| states.is_empty() || states.iter().any(|one| one.eq_ignore_ascii_case(state));
    let groups = groups.into_iter().filter(|group| asked_for(&group.state));
    if context.output.is_json() {
        let told = groups.map(|group| {
            json!({
                "group": group.id,
                "state": group.state,
                "type": if group.kind.is_empty() { None } else { Some(group.kind) },
                "protocol_type": group.protocol_type,
            })
        });
        return output::json(&told.collect());
    }
    let mut columns = Columns::new(&["group", "state", "type?", "protocol"]);
    for group in groups {
        columns.row(vec![group.id, group.state, group.kind, group.protocol_type]);
    }
    columns.print_or_note("no groups")
}

async fn describe(context: &Context, groups: &[String]) -> Result<(), Failure> {
    let mut told = Vec::new();
    for group in groups {
        let group = context.admin.describe_group(group).await?;
        if context.output.is_json() {
            told.push(as_json(&group));
            continue;
        }
        print(&group)?;
    }
    if context.output.is_json() { output::json(&told.into()) } else { Ok(()) }
}

fn print(group: &GroupDescription) -> Result<(), Failure> {
    let assignor = if group.assignor.is_empty() { "none" } else { &group.assignor };
    output::line(&format!(
        "group {}  state {}  coordinator {}  assignor {assignor}  members {}",
        group.id,
        group.state,
        group.coordinator,
        group.members.len()
    ))?;
    if group.members.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::new(&["member", "instance?", "client", "host", "partitions"]);
    for member in &group.members {
        let instance = member.instance.clone().unwrap_or_default();
        // Brokers in Java put a slash there.
        let host = member.host.trim_start_matches('/').to_owned();
        columns.row(vec![member.id.clone(), instance, member.client_id.clone(), host, reads(member)]);
    }
    columns.print()
}

/// What a member reads, as `orders:0-3 greetings:1`.
fn reads(member: &GroupMember) -> String {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for partition in &member.partitions {
        topics.entry(&partition.topic).or_default().insert(partition.partition);
    }
    let topics = topics.iter().map(|(topic, numbers)| format!("{topic}:{}", parse::partitions_text(numbers)));
    topics.collect::<Vec<_>>().join(" ")
}

fn as_json(group: &GroupDescription) -> serde_json::Value {
    let members = group.members.iter().map(|member| {
        let partitions = member
            .partitions
            .iter()
            .map(|partition| json!({ "topic": &*partition.topic, "partition": partition.partition }));
        json!({
            "id": member.id,
            "instance": member.instance,
            "client_id": member.client_id,
            "host": member.host,
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    json!({
        "group": group.id,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "members": members.collect::<Vec<_>>(),
    })
}

async fn delete(context: &Context, groups: &[String]) -> Result<(), Failure> {
    for group in groups {
        context.admin.delete_group(group).await?;
        if !context.output.is_json() {
            output::line(&format!("group {group} deleted"))?;
        }
    }
    if context.output.is_json() { output::json(&json!({ "deleted": groups })) } else { Ok(()) }
}
