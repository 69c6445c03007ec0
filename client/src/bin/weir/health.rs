//! `weir cluster health`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use weir_client::{ClusterDescription, Error, PartitionInfo, TopicDescription};
use weir_runtime::time;

use crate::output::{self, Columns, note};
use crate::parse;
use crate::{
    Context,
    failure::{Failure, explained},
};

/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Partitions that a person is shown.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir cluster health\n  weir cluster health --wait 30s\n      After a restart, before the next one.\n  weir cluster health --wait 1m --brokers 3\n      After the start of a cluster.\n  \
                  weir -o json cluster health | jq '.partitions[]'"
)]
pub(crate) struct Health {
    /// Wait until all is well, at most so long: 500ms, 30s, 5m; without a time a minute
    #[arg(long, value_name = "TIME", value_parser = parse::duration, num_args = 0..=1, default_missing_value = "1m")]
    pub(crate) wait: Option<Duration>,
    /// Fewer brokers that serve are not well
    #[arg(long, value_name = "N", default_value_t = 1)]
    brokers: usize,
}

/// What is wrong with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ill {
    topic: String,
    partition: i32,
    leader: Option<i32>,
    /// Replicas that are not in sync.
    missing: Vec<i32>,
}

/// How the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    brokers: usize,
    fenced: Vec<i32>,
    partitions: usize,
    ill: Vec<Ill>,
    /// Why nobody is known to lead the metadata quorum: all the rest may be out of date.
    no_quorum: Option<String>,
}

impl State {
    fn of(cluster: &ClusterDescription, topics: &[TopicDescription]) -> State {
        let fenced = cluster.brokers.iter().filter(|broker| broker.is_fenced);
        let all = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |info| (topic, info)));
        let mut ill: Vec<_> = all.filter_map(|(topic, info)| ill(&topic.name, info)).collect();
        ill.sort_by_key(|ill| ill.leader.is_some()); // those without a leader first: not all are shown
        State {
            brokers: cluster.brokers.len(),
            fenced: fenced.map(|broker| broker.info.id).collect(),
            partitions: topics.iter().map(|topic| topic.partitions.len()).sum(),
            ill,
            no_quorum: None,
        }
    }

    /// A broker that is away and holds nothing does no harm, unless so many are wanted.
    fn is_well(&self, wanted: usize) -> bool {
        self.no_quorum.is_none() && self.ill.is_empty() && self.brokers - self.fenced.len() >= wanted
    }

    fn leaderless(&self) -> usize {
        self.ill.iter().filter(|ill| ill.leader.is_none()).count()
    }

    /// In one line.
    fn summary(&self) -> String {
        let fenced: Vec<String> = self.fenced.iter().map(ToString::to_string).collect();
        let fenced =
            if fenced.is_empty() { String::new() } else { format!(" (fenced: {})", fenced.join(", ")) };
        let behind = self.ill.len() - self.leaderless();
        let ills = match (self.leaderless(), behind) {
            (0, 0) => "all led, all replicas in sync".to_owned(),
            (0, behind) => format!("{behind} with replicas out of sync"),
            (leaderless, 0) => format!("{leaderless} without a leader"),
            (leaderless, behind) => {
                format!("{leaderless} without a leader, {behind} with replicas out of sync")
            }
        };
        format!("brokers {}{fenced}, partitions {}: {ills}", self.brokers, self.partitions)
    }

    fn json(&self, wanted: usize) -> Value {
        let ill = self.ill.iter().map(|ill| {
            json!({
                "topic": ill.topic,
                "partition": ill.partition,
                "leader": ill.leader,
                "out_of_sync": ill.missing,
            })
        });
        json!({
            "healthy": self.is_well(wanted),
            "quorum": self.no_quorum.is_none(),
            "brokers": self.brokers,
            "fenced": self.fenced,
            "partition_count": self.partitions,
            "partitions": ill.collect::<Vec<_>>(),
        })
    }

    fn print(&self) -> Result<(), Failure> {
        output::line(&self.summary())?;
        if self.ill.is_empty() {
            return Ok(());
        }
        let mut columns = Columns::new(&["topic", "partition>", "leader>", "out of sync"]);
        for ill in self.ill.iter().take(SHOWN_MAX) {
            let missing: Vec<String> = ill.missing.iter().map(ToString::to_string).collect();
            columns.row(vec![
                ill.topic.clone(),
                ill.partition.to_string(),
                ill.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                missing.join(","),
            ]);
        }
        columns.print()?;
        if self.ill.len() > SHOWN_MAX {
            note(&format!("and {} more; -o json has them all", self.ill.len() - SHOWN_MAX));
        }
        Ok(())
    }
}

/// `None`: it is led, and every replica is in sync.
fn ill(topic: &str, info: &PartitionInfo) -> Option<Ill> {
    let missing: Vec<i32> = info.replicas.iter().copied().filter(|id| !info.isr.contains(id)).collect();
    let is_ill = info.leader.is_none() || !missing.is_empty();
    is_ill.then(|| Ill { topic: topic.to_owned(), partition: info.partition, leader: info.leader, missing })
}

async fn look(context: &Context) -> Result<State, Error> {
    // What brokers tell of the others is what they heard last, however long ago: the quorum's leader knows better.
    let quorum = context.admin.describe_quorum().await;
    let cluster = context.admin.describe_cluster().await?;
    let state = State::of(&cluster, &context.admin.describe_topics().await?);
    let no_quorum = match quorum {
        Ok(_) | Err(Error::Version { .. }) => None,
        Err(error) => Some(explained(&error)),
    };
    Ok(State { no_quorum, ..state })
}

/// Nobody leads the metadata quorum, or it does not answer.
pub(crate) fn no_quorum(error: &Error) -> Failure {
    Failure::failed(stale(&explained(error)))
}

fn stale(reason: &str) -> String {
    format!("the metadata quorum does not answer, all this may be out of date: {reason}")
}

/// Looks until all is well or the time is over; gives what was seen last.
async fn wait(context: &Context, limit: Duration, wanted: usize) -> Result<State, Failure> {
    let deadline = time::now() + limit;
    let mut seen = Err(Failure::failed(format!("nobody answers within {} ms", limit.as_millis())));
    loop {
        let Ok(looked) = time::timeout(deadline - time::now(), look(context)).await else { return seen };
        let is_well = looked.as_ref().is_ok_and(|state| state.is_well(wanted));
        seen = looked.map_err(Failure::from);
        if is_well || time::now() + LOOK_AGAIN >= deadline {
            return seen;
        }
        time::sleep(LOOK_AGAIN).await;
    }
}

pub(crate) async fn run(context: &Context, health: &Health) -> Result<(), Failure> {
    let state = match health.wait {
        Some(limit) => wait(context, limit, health.brokers).await?,
        None => look(context).await?,
    };
    if context.output.is_json() {
        output::json(&state.json(health.brokers))?;
    } else {
        state.print()?;
    }
    let serve = state.brokers - state.fenced.len();
    if let Some(reason) = &state.no_quorum {
        Err(Failure::failed(format!("not well: {}", stale(reason))))
    } else if state.is_well(health.brokers) {
        Ok(())
    } else if serve < health.brokers {
        Err(Failure::failed(format!("not well: {serve} brokers serve, {} are wanted", health.brokers)))
    } else {
        Err(Failure::failed(format!("not well: {}", state.summary())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_client::{BrokerDescription, BrokerInfo};

    use super::*;

    /// A partition's leader, its replicas, and those in sync.
    type Led<'a> = (Option<i32>, &'a [i32], &'a [i32]);

    /// A topic with these partitions.
    pub(crate) fn topic(name: &str, partitions: &[Led<'_>]) -> TopicDescription {
        let partition = |(number, (leader, replicas, isr)): (i32, &Led<'_>)| PartitionInfo {
            partition: number,
            leader: *leader,
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            elr: None,
            offline: Vec::new(),
            error: None,
        };
        TopicDescription {
            name: name.to_owned(),
            id: uuid::Uuid::nil(),
            is_internal: false,
            partitions: (0..).zip(partitions).map(partition).collect(),
        }
    }

    fn cluster(fenced: &[bool]) -> ClusterDescription {
        let broker = |(id, fenced): (i32, &bool)| BrokerDescription {
            info: BrokerInfo { id, host: "h".to_owned(), port: 9092, rack: None },
            is_fenced: *fenced,
        };
        let brokers = (1..).zip(fenced).map(broker).collect();
        ClusterDescription { id: "c".to_owned(), controller: Some(1), brokers }
    }

    #[test]
    fn a_cluster_is_well_when_every_partition_is_led_and_in_sync() {
        let led = topic("a", &[(Some(1), &[1, 2], &[2, 1])]);
        let state = State::of(&cluster(&[false, false]), std::slice::from_ref(&led));
        assert!(state.is_well(2) && !state.is_well(3));
        assert_eq!(state.summary(), "brokers 2, partitions 1: all led, all replicas in sync");
        assert!(
            State::of(&cluster(&[false, true]), std::slice::from_ref(&led)).is_well(1),
            "it holds nothing"
        );
        assert!(!State::of(&cluster(&[true]), &[]).is_well(1), "nobody serves");
        let alone = State { no_quorum: Some("nobody leads".to_owned()), ..state };
        assert!(!alone.is_well(1), "what is known is what was known");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let topics = [topic("a", &[(None, &[1, 2], &[]), (Some(1), &[1, 2], &[1])])];
        let state = State::of(&cluster(&[false, true]), &topics);
        let expected = "brokers 2 (fenced: 2), partitions 2: 1 without a leader, 1 with replicas out of sync";
        assert_eq!(state.summary(), expected);
        assert_eq!(state.ill[1].missing, [2]);
        assert_eq!(state.json(1)["partitions"][0]["out_of_sync"], json!([1, 2]));
        assert!(!state.is_well(1));
    }
}
