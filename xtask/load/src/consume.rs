//! Reading a topic from its start to its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the broker is.
    #[arg(long)]
    bootstrap: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// Settings of librdkafka: name=value.
    #[arg(long = "setting", short = 'X', value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.bootstrap).set("group.id", "weir-load");
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    for setting in &options.settings {
        let (name, value) =
            setting.split_once('=').with_context(|| format!("'{setting}' is not name=value"))?;
        config.set(name, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(&options.topic), Duration::from_secs(30))?;
    let partitions = metadata.topics().first().context("there is no such topic")?.partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(&options.topic, partition as i32, Offset::Beginning)?;
    }
    let start = Instant::now();
    consumer.assign(&assignment)?;
    let (mut report, mut ended) = (Report::default(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(30)).context("nothing came for 30 s")? {
            Ok(message) => {
                report.records += 1;
                report.bytes += message.payload_len() as u64;
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => return Err(error).context("the broker or librdkafka failed"),
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}
