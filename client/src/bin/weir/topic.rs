//! `weir topic`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use weir_client::{Admin, ConfigChange, ConfigResource, ConfigSource, NewTopic, OffsetSpec, TopicPartition};
use weir_runtime::time;

use crate::output::{self, Columns, note};
use crate::parse;
use crate::{Context, failure::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Make a topic
    #[command(
        after_help = "Examples:\n  weir topic create greetings\n      With the cluster's number of partitions and replicas.\n  \
                            weir topic create orders -p 12 -r 3 -c min.insync.replicas=2 -c cleanup.policy=compact\n  \
                            weir topic create greetings --if-not-exists"
    )]
    Create {
        /// Its name
        name: String,
        /// How many partitions
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many replicas of each
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A setting
        #[arg(short, long, value_name = "NAME=VALUE", value_parser = parse::setting)]
        config: Vec<(String, String)>,
        /// Do nothing where there is a topic of this name
        #[arg(long)]
        if_not_exists: bool,
    },
    /// All topics
    #[command(
        after_help = "Examples:\n  weir topic list\n  weir topic list --internal\n  weir -o json topic list | jq -r '.[].name'"
    )]
    List {
        /// Also the cluster's own
        #[arg(long)]
        internal: bool,
    },
    /// Partitions with their leaders, replicas and offsets, and what was set
    #[command(
        after_help = "Examples:\n  weir topic describe greetings\n  weir -o json topic describe greetings orders"
    )]
    Describe {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Give a topic more partitions, or other settings
    #[command(after_help = "Examples:\n  weir topic alter greetings --partitions 6\n  \
                            weir topic alter greetings -c retention.ms=3600000 -d cleanup.policy")]
    Alter {
        /// Its name
        name: String,
        /// How many partitions in all; records with a key may go to other ones from then on
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A setting to set
        #[arg(short, long, value_name = "NAME=VALUE", value_parser = parse::setting)]
        config: Vec<(String, String)>,
        /// A setting that gets its default back
        #[arg(short, long, value_name = "NAME")]
        delete_config: Vec<String>,
    },
    /// Delete topics and all that is in them
    #[command(
        after_help = "Examples:\n  weir topic delete greetings\n  weir topic delete greetings --if-exists"
    )]
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Pass over those that do not exist
        #[arg(long)]
        if_exists: bool,
    },
}

impl Topic {
    /// Refuses what would change nothing.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Topic::Alter { partitions: None, config, delete_config, .. }
                if config.is_empty() && delete_config.is_empty() =>
            {
                Err(Failure::usage("nothing to alter: give --partitions, --config or --delete-config"))
            }
            _ => Ok(()),
        }
    }
}

/// How long to wait for a new topic's leaders.
const NEW_TOPIC_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

pub(crate) async fn run(context: &Context, topic: Topic) -> Result<(), Failure> {
    match topic {
        Topic::Create { name, partitions, replication_factor, config, if_not_exists } => {
            let configs = config.into_iter().collect();
            let topic = NewTopic { name, partitions, replication_factor, configs, ..NewTopic::default() };
            create(context, &topic, if_not_exists).await
        }
        Topic::List { internal } => list(context, internal).await,
        Topic::Describe { names } => describe(context, &names).await,
        Topic::Alter { name, partitions, config, delete_config } => {
            let mut changes: BTreeMap<String, ConfigChange> =
                config.into_iter().map(|(name, value)| (name, ConfigChange::Set(value))).collect();
            changes.extend(delete_config.into_iter().map(|name| (name, ConfigChange::Delete)));
            alter(context, name, partitions, changes).await
        }
        Topic::Delete { names, if_exists } => delete(context, &names, if_exists).await,
    }
}

fn is(error: &weir_client::Error, code: i16) -> bool {
    error.kafka().is_some_and(|kafka| kafka.code() == code)
}

async fn create(context: &Context, topic: &NewTopic, if_not_exists: bool) -> Result<(), Failure> {
    let (created, id) = match context.admin.create_topic(topic).await {
        Ok(id) => {
            wait_until_led(&context.admin, &topic.name).await;
            (true, id)
        }
        Err(error) if if_not_exists && is(&error, TOPIC_ALREADY_EXISTS) => {
            (false, context.admin.describe_topic(&topic.name).await?.id)
        }
        Err(error) => return Err(error.into()),
    };
    if context.output.is_json() {
        return output::json(&json!({ "name": topic.name, "id": id.to_string(), "created": created }));
    }
    output::line(&format!("topic {} {}", topic.name, if created { "created" } else { "exists" }))
}

/// A new topic is known to all brokers a moment after its creation. Whoever creates it wants to use it next; if the moment is
/// long, what comes next waits for it, or says so.
pub(crate) async fn wait_until_led(admin: &Admin, topic: &str) {
    let led = async {
        let is_led =
            |topic: weir_client::TopicDescription| topic.partitions.iter().all(|one| one.leader.is_some());
        while !admin.describe_topic(topic).await.is_ok_and(is_led) {
            time::sleep(LOOK_AGAIN).await;
        }
    };
    if time::timeout(NEW_TOPIC_MAX, led).await.is_err() {
        note(&format!("topic {topic} has no leaders yet"));
    }
}

async fn list(context: &Context, internal: bool) -> Result<(), Failure> {
    let topics = context.admin.list_topics().await?;
    let topics = topics.into_iter().filter(|topic| internal || !topic.is_internal);
    if context.output.is_json() {
        let told = topics.map(|topic| {
            json!({
                "name": topic.name,
                "id": topic.id.to_string(),
                "partitions": topic.partitions,
                "replicas": topic.replicas,
                "internal": topic.is_internal,
            })
        });
        return output::json(&told.collect());
    }
    let mut columns = Columns::new(&["topic", "partitions>", "replicas>"]);
    for topic in topics {
        columns.row(vec![topic.name, topic.partitions.to_string(), topic.replicas.to_string()]);
    }
    columns.print_or_note("no topics; 'weir topic create' makes one, and --internal shows the cluster's own")
}

/// A partition's line: what the cluster says about it, and its first and last offset.
struct Line {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    elr: Option<Vec<i32>>,
    offline: Vec<i32>,
    first: Option<i64>,
    end: Option<i64>,
}

async fn lines(admin: &Admin, topic: &weir_client::TopicDescription) -> Vec<Line> {
    let questions = topic.partitions.iter().filter(|info| info.leader.is_some()).flat_map(|info| {
        let partition = TopicPartition::new(topic.name.as_str(), info.partition);
        [(partition.clone(), OffsetSpec::Earliest), (partition, OffsetSpec::Latest)]
    });
    let questions: Vec<_> = questions.collect();
    let mut offsets: BTreeMap<i32, Vec<Option<i64>>> = BTreeMap::new();
    for ((partition, _), answer) in questions.iter().zip(admin.list_offsets(&questions).await) {
        let offset = answer.ok().flatten().map(|at| at.offset);
        offsets.entry(partition.partition).or_default().push(offset);
    }
    let line = |info: &weir_client::PartitionInfo| {
        let offsets = offsets.get(&info.partition);
        let at = |place: usize| offsets.and_then(|offsets| offsets.get(place).copied().flatten());
        Line {
            partition: info.partition,
            leader: info.leader,
            leader_epoch: info.leader_epoch,
            replicas: info.replicas.clone(),
            isr: info.isr.clone(),
            elr: info.elr.clone(),
            offline: info.offline.clone(),
            first: at(0),
            end: at(1),
        }
    };
    topic.partitions.iter().map(line).collect()
}

async fn describe(context: &Context, names: &[String]) -> Result<(), Failure> {
    let mut told = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let topic = context.admin.describe_topic(name).await?;
        let lines = lines(&context.admin, &topic).await;
        let settings = set_for(&context.admin, name).await?;
        if context.output.is_json() {
            let partitions = lines.iter().map(|line| {
                json!({
                    "partition": line.partition,
                    "leader": line.leader,
                    "leader_epoch": line.leader_epoch,
                    "replicas": line.replicas,
                    "isr": line.isr,
                    "elr": line.elr,
                    "offline": line.offline,
                    "first_offset": line.first,
                    "end_offset": line.end,
                })
            });
            let (id, partitions) = (topic.id.to_string(), partitions.collect::<Vec<_>>());
            told.push(json!({ "name": name, "id": id, "configs": settings, "partitions": partitions }));
            continue;
        }
        if at > 0 {
            output::line("")?;
        }
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (id, count) = (topic.id, lines.len());
        output::line(
            format!("topic {name}  id {id}  partitions {count}  {}", settings.join(" ")).trim_end(),
        )?;
        print_lines(&lines)?;
    }
    if context.output.is_json() { output::json(&told.into()) } else { Ok(()) }
}

fn print_lines(lines: &[Line]) -> Result<(), Failure> {
    let list = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let text = |offset: Option<i64>| offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
    let titles = ["partition>", "leader>", "epoch>", "replicas", "isr", "elr?", "offline?", "first>", "end>"];
    let mut columns = Columns::new(&titles);
    for line in lines {
        columns.row(vec![
            line.partition.to_string(),
            line.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            line.leader_epoch.to_string(),
            list(&line.replicas),
            list(&line.isr),
            list(line.elr.as_deref().unwrap_or_default()),
            list(&line.offline),
            text(line.first),
            text(line.end),
        ]);
    }
    columns.print()
}

/// What was set for the topic. A broker that does not tell settings tells none.
async fn set_for(admin: &Admin, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    match admin.describe_configs(&ConfigResource::Topic(name.to_owned())).await {
        Ok(entries) => {
            let set = entries.into_iter().filter(|entry| entry.source == ConfigSource::Topic);
            Ok(set.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect())
        }
        Err(weir_client::Error::Version { .. }) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

async fn alter(
    context: &Context,
    name: String,
    partitions: Option<i32>,
    changes: BTreeMap<String, ConfigChange>,
) -> Result<(), Failure> {
    if !changes.is_empty() {
        context.admin.alter_configs(&ConfigResource::Topic(name.clone()), &changes, false).await?;
    }
    if let Some(partitions) = partitions {
        context.admin.create_partitions(&name, partitions).await?;
    }
    if context.output.is_json() {
        let configs: Vec<&String> = changes.keys().collect();
        return output::json(&json!({ "name": name, "partitions": partitions, "configs": configs }));
    }
    output::line(&format!("topic {name} altered"))
}

async fn delete(context: &Context, names: &[String], if_exists: bool) -> Result<(), Failure> {
    let mut told = Vec::new();
    for name in names {
        let deleted = match context.admin.delete_topic(name).await {
            Ok(()) => true,
            Err(error) if if_exists && is(&error, UNKNOWN_TOPIC_OR_PARTITION) => false,
            Err(error) => return Err(error.into()),
        };
        if context.output.is_json() {
            told.push(json!({ "name": name, "deleted": deleted }));
        } else {
            output::line(&format!("topic {name} {}", if deleted { "deleted" } else { "does not exist" }))?;
        }
    }
    if context.output.is_json() { output::json(&told.into()) } else { Ok(()) }
}
