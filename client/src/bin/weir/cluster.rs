//! `weir cluster`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use weir_client::{Election, Error, FeatureLevel, TopicDescription, TopicPartition};

use crate::output::{self, Columns};
use crate::{Context, failure::Failure, health, parse, quorum};

/// The cluster.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  weir cluster\n      The same as weir cluster describe.\n  weir cluster health --wait 30s"
)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The cluster's id, its brokers with what they lead and hold, and who is the controller
    #[command(
        after_help = "Examples:\n  weir cluster describe\n  weir -o json cluster describe | jq -r '.brokers[].host'"
    )]
    Describe,
    /// Whether every partition has a leader and all its replicas in sync; exit code 1 where that is not so
    Health(health::Health),
    /// Who votes on the cluster's metadata, who follows, and how far everybody is
    #[command(
        after_help = "Examples:\n  weir cluster quorum\n  weir -o json cluster quorum | jq '.voters[].lag'"
    )]
    Quorum,
    /// Change who votes on the cluster's metadata
    #[command(subcommand)]
    Voters(quorum::Voters),
    /// Which versions of Weir can work together in this cluster; with --raise, give up older ones
    #[command(
        after_help = "Examples:\n  weir cluster features\n  weir cluster features --raise 3\n      After an upgrade, \
                            once no older version needs to come back: a level is never lowered."
    )]
    Features {
        /// The level to work at from now on; every broker and voter must know it
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i16).range(1..))]
        raise: Option<i16>,
    },
    /// Give leadership back to the first replicas; with --unclean, to whoever is there
    #[command(
        after_help = "Examples:\n  weir cluster elect\n      Of all partitions that another replica leads.\n  \
                            weir cluster elect orders:0,2\n  weir cluster elect --unclean orders:3\n      \
                            Acknowledged records may be lost: no replica that has them all is there."
    )]
    Elect {
        /// The topics, or some of their partitions; without any, all
        #[arg(value_name = "TOPIC[:PARTITIONS]", value_parser = parse::topic_part, required_if_eq("unclean", "true"))]
        topics: Vec<parse::TopicPart>,
        /// Where nobody may lead: elect somebody, even if acknowledged records are lost
        #[arg(long)]
        unclean: bool,
    },
    /// Forget a broker that does not come back; it must be stopped, and hold no replicas
    #[command(after_help = "Example:\n  weir cluster unregister 4")]
    Unregister {
        /// Its id
        broker: i32,
    },
}

impl Cluster {
    /// How long the cluster is waited for.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match &self.what {
            Some(What::Health(health)) => health.wait,
            _ => None,
        }
    }
}

pub(crate) async fn run(context: &Context, cluster: Cluster) -> Result<(), Failure> {
    match cluster.what.unwrap_or(What::Describe) {
        What::Describe => describe(context).await,
        What::Health(health) => health::run(context, &health).await,
        What::Quorum => quorum::describe(context).await,
        What::Voters(voters) => quorum::change(context, voters).await,
        What::Features { raise } => features(context, raise).await,
        What::Elect { topics, unclean } => elect(context, topics, unclean).await,
        What::Unregister { broker } => {
            context.admin.unregister_broker(broker).await?;
            if context.output.is_json() {
                return output::json(&json!({ "unregistered": broker }));
            }
            output::line(&format!("broker {broker} is forgotten"))
        }
    }
}

async fn features(context: &Context, raise: Option<i16>) -> Result<(), Failure> {
    if let Some(level) = raise {
        context.admin.raise_feature_level(level).await?;
        if context.output.is_json() {
            return output::json(&json!({ "level": level }));
        }
        return output::line(&format!("the cluster works at feature level {level}"));
    }
    let told = context.admin.feature_level().await?;
    if context.output.is_json() {
        let known = told.map(|features| json!({ "min": features.known.0, "max": features.known.1 }));
        return output::json(&json!({ "level": told.map(|features| features.level), "known": known }));
    }
    match told {
        Some(FeatureLevel { level, known: (min, max) }) => output::line(&format!(
            "the cluster works at feature level {level}; the broker that answered knows levels {min} to {max}"
        )),
        None => output::line("the brokers have no feature level of Weir's"),
    }
}

/// What a broker has to do with partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    leads: usize,
    replicas: usize,
    in_sync: usize,
}

fn shares(topics: &[TopicDescription]) -> BTreeMap<i32, Share> {
    let mut shares: BTreeMap<i32, Share> = BTreeMap::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        if let Some(leader) = &partition.leader {
            shares.entry(*leader).or_default().leads += 1;
        }
        for replica in &partition.replicas {
            shares.entry(*replica).or_default().replicas += 1;
        }
        for member in &partition.isr {
            shares.entry(*member).or_default().in_sync += 1;
        }
    }
    shares
}

/// Who leads the metadata quorum. Where the cluster does not tell, the broker that takes the administration's requests.
async fn controller(context: &Context, named: Option<i32>) -> Result<Option<i32>, Error> {
    match context.admin.describe_quorum().await {
        Ok(quorum) => Ok(Some(quorum.leader)),
        Err(Error::Version { .. }) => Ok(named),
        Err(error) => Err(error),
    }
}

async fn describe(context: &Context) -> Result<(), Failure> {
    let told = context.admin.describe_cluster().await?;
    let (controller, lost) = match controller(context, told.controller).await {
        Ok(controller) => (controller, Ok(())),
        Err(error) => (None, Err(health::no_quorum(&error))),
    };
    let shares = shares(&context.admin.describe_topics().await?);
    let share = |id: i32| shares.get(&id).copied().unwrap_or_default();
    if context.output.is_json() {
        let brokers = told.brokers.iter().map(|broker| {
            let (info, share) = (&broker.info, share(broker.info.id));
            json!({
                "id": info.id,
                "host": info.host,
                "port": info.port,
                "rack": info.rack,
                "fenced": broker.is_fenced,
                "leaders": share.leads,
                "replicas": share.replicas,
                "in_sync": share.in_sync,
            })
        });
        let brokers: Vec<_> = brokers.collect();
        output::json(&json!({ "id": told.id, "controller": controller, "brokers": brokers }))?;
        return lost;
    }
    output::line(&format!("cluster {}", told.id))?;
    let titles = ["broker>", "address", "rack?", "state", "leaders>", "replicas>", "in sync>", "controller"];
    let mut columns = Columns::new(&titles);
    for broker in &told.brokers {
        let share = share(broker.info.id);
        let is_controller = Some(broker.info.id) == controller;
        columns.row(vec![
            broker.info.id.to_string(),
            broker.info.address(),
            broker.info.rack.clone().unwrap_or_default(),
            if broker.is_fenced { "fenced" } else { "serves" }.to_owned(),
            share.leads.to_string(),
            share.replicas.to_string(),
            share.in_sync.to_string(),
            if is_controller { "yes" } else { "" }.to_owned(),
        ]);
    }
    columns.print()?;
    lost
}

/// Why a partition's leader is not the one that was asked for.
fn refused(election: Election, partition: &TopicPartition, name: &str) -> String {
    match election {
        Election::Preferred => {
            format!(
                "the first replica of {partition} does not lead ({name}): 'weir topic describe' shows where it is in sync"
            )
        }
        Election::Unclean => format!("{partition} gets no leader ({name})"),
    }
}

async fn elect(context: &Context, topics: Vec<parse::TopicPart>, unclean: bool) -> Result<(), Failure> {
    let election = if unclean { Election::Unclean } else { Election::Preferred };
    let mut wanted: BTreeSet<TopicPartition> = BTreeSet::new();
    for (topic, numbers) in &topics {
        let numbers = match numbers {
            Some(numbers) => numbers.clone(),
            None => {
                let topic = context.admin.describe_topic(topic).await?;
                topic.partitions.iter().map(|partition| partition.partition).collect()
            }
        };
        wanted.extend(numbers.into_iter().map(|number| TopicPartition::new(topic.as_str(), number)));
    }
    let wanted: Vec<TopicPartition> = wanted.into_iter().collect();
    let named = (!topics.is_empty()).then_some(wanted.as_slice());
    let elected = context.admin.elect_leaders(election, named).await?;
    let (mut told, mut failed) = (Vec::new(), None);
    let mut columns = Columns::new(&["topic", "partition>", "election"]);
    for (partition, outcome) in &elected {
        let (done, said) = match outcome {
            Ok(()) => ("done".to_owned(), None),
            Err(error) => {
                let name = error.kafka().map_or_else(|| error.to_string(), |error| error.name());
                (name.clone(), Some(name))
            }
        };
        // Who has the leader that was asked for is as it should be.
        if let Some(name) = said.as_ref().filter(|name| *name != "ELECTION_NOT_NEEDED") {
            failed.get_or_insert_with(|| refused(election, partition, name));
        }
        let (topic, number) = (partition.topic.to_string(), partition.partition);
        told.push(json!({ "topic": topic, "partition": number, "error": said }));
        columns.row(vec![topic, number.to_string(), done]);
    }
    if context.output.is_json() {
        output::json(&told.into())?;
    } else {
        columns.print_or_note("no partition needs an election")?;
    }
    failed.map_or(Ok(()), |reason| Err(Failure::failed(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::topic;

    #[test]
    fn what_a_broker_leads_and_holds_is_counted() {
        let topics = [
            topic("a", &[(Some(1), &[1, 2], &[1, 2])]),
            topic("b", &[(None, &[2, 3], &[]), (Some(3), &[3, 1], &[3])]),
        ];
        let shares = shares(&topics);
        let share = |leads, replicas, in_sync| Share { leads, replicas, in_sync };
        assert_eq!(shares[&1], share(1, 2, 1));
        assert_eq!(shares[&2], share(0, 2, 1));
        assert_eq!(shares[&3], share(1, 2, 1));
    }
}
