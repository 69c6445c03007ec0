//! `weir cluster quorum` and `weir cluster voters`

use clap::Subcommand;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_client::{QuorumDescription, QuorumMember};
use weir_runtime::time;

use crate::output::{self, Columns};
use crate::{Context, failure::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Voters {
    /// Let a node vote that follows the quorum's log
    #[command(
        after_help = "Examples:\n  weir cluster voters add 4\n  weir cluster quorum\n      Shows which nodes follow."
    )]
    Add {
        /// Its id
        node: i32,
    },
    /// Let a node vote no longer
    #[command(
        after_help = "Examples:\n  weir cluster voters remove 2\n  weir cluster voters remove 2 --directory 5b9f4f6c-1c55-4c0f-9a3c-0e3c2a9d1f10\n      \
                      Of a node whose data folder is lost, and which is back with another."
    )]
    Remove {
        /// Its id
        node: i32,
        /// Its data folder, where that is not the one that 'weir cluster quorum' shows
        #[arg(long, value_name = "UUID")]
        directory: Option<Uuid>,
    },
}

/// A node of the quorum, as it is shown.
fn member_json(quorum: &QuorumDescription, member: &QuorumMember) -> Value {
    json!({
        "id": member.id,
        "directory": member.directory.map(|id| id.to_string()),
        "log_end": member.log_end,
        "lag": lag(quorum, member),
        "heard_ms": member.heard_ms,
        "caught_up_ms": member.caught_up_ms,
    })
}

/// How many entries of those that the leader has are missing.
fn lag(quorum: &QuorumDescription, member: &QuorumMember) -> Option<i64> {
    let leader = quorum.voters.iter().find(|voter| voter.id == quorum.leader)?;
    Some((leader.log_end? - member.log_end?).max(0))
}

pub(crate) async fn describe(context: &Context) -> Result<(), Failure> {
    let quorum = context.admin.describe_quorum().await?;
    if context.output.is_json() {
        let members = |members: &[QuorumMember]| -> Vec<Value> {
            members.iter().map(|member| member_json(&quorum, member)).collect()
        };
        return output::json(&json!({
            "leader": quorum.leader,
            "epoch": quorum.epoch,
            "high_watermark": quorum.high_watermark,
            "voters": members(&quorum.voters),
            "observers": members(&quorum.observers),
        }));
    }
    let QuorumDescription { leader, epoch, high_watermark, .. } = quorum;
    output::line(&format!("leader {leader}  epoch {epoch}  high watermark {high_watermark}"))?;
    table(&quorum, time::wall_ms()).print()
}

fn table(quorum: &QuorumDescription, now_ms: i64) -> Columns {
    let mut columns = Columns::new(&["node>", "role", "log end>", "lag>", "heard", "directory?"]);
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let voters = quorum.voters.iter().map(|member| (member, "voter"));
    for (member, role) in voters.chain(quorum.observers.iter().map(|member| (member, "observer"))) {
        let role = if member.id == quorum.leader { "leader" } else { role };
        let heard = match member.heard_ms {
            _ if role == "leader" => "now".to_owned(),
            Some(at) => format!("{} ms ago", (now_ms - at).max(0)),
            None => "never".to_owned(),
        };
        let directory = member.directory.map(|id| id.to_string()).unwrap_or_default();
        columns.row(vec![
            member.id.to_string(),
            role.to_owned(),
            number(member.log_end),
            number(lag(quorum, member)),
            heard,
            directory,
        ]);
    }
    columns
}

/// The data folder that a node has, as the quorum's leader knows it.
fn directory(members: &[QuorumMember], node: i32) -> Option<Uuid> {
    members.iter().find(|member| member.id == node)?.directory
}

pub(crate) async fn change(context: &Context, voters: Voters) -> Result<(), Failure> {
    let quorum = context.admin.describe_quorum().await?;
    let (node, done) = match voters {
        Voters::Add { node } => {
            if let Some(voter) = quorum.voters.iter().find(|voter| voter.id == node)
                && quorum.observers.iter().any(|observer| observer.id == node)
            {
                let directory = voter.directory.map(|id| format!(" {id}")).unwrap_or_default();
                return Err(Failure::failed(format!(
                    "node {node} votes with another data folder{directory}: 'weir cluster voters remove {node}' first"
                )));
            }
            let Some(directory) = directory(&quorum.observers, node) else {
                return Err(Failure::failed(if quorum.voters.iter().any(|voter| voter.id == node) {
                    format!("node {node} votes already")
                } else {
                    format!(
                        "node {node} does not follow the quorum; start it first, 'weir cluster quorum' shows who does"
                    )
                }));
            };
            context.admin.add_voter(node, directory).await?;
            (node, "votes")
        }
        Voters::Remove { node, directory: named } => {
            let Some(directory) = named.or_else(|| directory(&quorum.voters, node)) else {
                return Err(Failure::failed(format!(
                    "node {node} does not vote; 'weir cluster quorum' shows who does"
                )));
            };
            context.admin.remove_voter(node, directory).await?;
            (node, "votes no longer")
        }
    };
    if context.output.is_json() {
        return output::json(&json!({ "node": node, "votes": done == "votes" }));
    }
    output::line(&format!("node {node} {done}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: i32, log_end: Option<i64>, heard_ms: Option<i64>) -> QuorumMember {
        QuorumMember { id, directory: None, log_end, heard_ms, caught_up_ms: None }
    }

    #[test]
    fn a_quorum_is_shown_with_how_far_everybody_is() {
        let quorum = QuorumDescription {
            leader: 2,
            epoch: 7,
            high_watermark: 50,
            voters: vec![member(1, Some(40), Some(900)), member(2, Some(52), None)],
            observers: vec![member(4, None, None)],
        };
        let text = table(&quorum, 1_000).text();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "voter", "40", "12", "100", "ms", "ago"]);
        assert_eq!(lines[2], ["2", "leader", "52", "0", "now"]);
        assert_eq!(lines[3], ["4", "observer", "?", "?", "never"]);
    }
}
