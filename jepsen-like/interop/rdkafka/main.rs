//! The cases of rdkafka, librdkafka's client for Rust.
#![allow(clippy::disallowed_methods)] // real clients against a real broker: never simulated

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use weir_interop::{Abilities, Client, Reader, Record, Sender, TopicExists, WAIT_LIMIT, all_headers, broker};

struct Adapter(AdminClient<DefaultClientContext>);

fn config(settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker());
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis(),
        partition: message.partition(),
        offset: message.offset(),
    }
}

fn at(topic: &str, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset)?;
    Ok(list)
}

impl Client for Adapter {
    type Sender = Producer;
    type Reader = Consumer;

    fn abilities(&self) -> Abilities {
        Abilities {
            name: "rdkafka",
            idempotence: true,
            groups: true,
            append_time: true,
            notes: &[("admin", "without the offsets of a group, which it does not ask for")],
            headers: all_headers(),
        }
    }

    async fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (name, value) in config {
            wanted = wanted.set(name, value);
        }
        match self.0.create_topics([&wanted], &AdminOptions::new()).await?.pop().context("no answer")? {
            Ok(_) => Ok(()),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Err(TopicExists.into()),
            Err((_, code)) => bail!("{code}"),
        }
    }

    async fn delete(&self, topic: &str) -> Result<()> {
        match self.0.delete_topics(&[topic], &AdminOptions::new()).await?.pop().context("no answer")? {
            Ok(_) => Ok(()),
            Err((_, code)) => bail!("{code}"),
        }
    }

    async fn partitions(&self, topic: &str) -> Result<usize> {
        let metadata = self.0.inner().fetch_metadata(None, WAIT_LIMIT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map_or(0, |found| found.partitions().len()))
    }

    async fn sender(&self, codec: &str, idempotent: bool) -> Result<Producer> {
        let idempotence = if idempotent { "true" } else { "false" };
        let settings = [
            ("compression.type", codec),
            ("enable.idempotence", idempotence),
            ("acks", "all"),
            ("linger.ms", "5"),
        ];
        Ok(Producer(config(&settings).create()?))
    }

    async fn reader(&self, topic: &str, start: i64) -> Result<Consumer> {
        let consumer: StreamConsumer =
            config(&[("group.id", "none"), ("enable.auto.commit", "false")]).create()?;
        consumer.assign(&at(topic, Offset::Offset(start))?)?;
        Ok(Consumer { consumer, topic: topic.to_owned() })
    }

    async fn bounds(&self, topic: &str) -> Result<(i64, i64)> {
        Ok(self.0.inner().fetch_watermarks(topic, 0, WAIT_LIMIT)?)
    }

    async fn offset_for_time(&self, topic: &str, timestamp: i64) -> Result<Option<i64>> {
        let consumer: BaseConsumer = config(&[("group.id", "none")]).create()?;
        let found = consumer.offsets_for_times(at(topic, Offset::Offset(timestamp))?, WAIT_LIMIT)?;
        Ok(match found.elements().first().context("no answer")?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    async fn administer(&self, topic: &str, group: &str) -> Result<()> {
        let options = AdminOptions::new();
        let hour = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("retention.ms", "3600000");
        for changed in self.0.alter_configs([&hour], &options).await? {
            changed.map_err(|(_, code)| anyhow!("altering: {code}"))?;
        }
        let retention = async || {
            let described = self.0.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await?;
            let settings =
                described.into_iter().next().context("no answer")?.map_err(|code| anyhow!("{code}"))?;
            Ok::<_, anyhow::Error>(settings.get("retention.ms").and_then(|entry| entry.value.clone()))
        };
        while retention().await?.as_deref() != Some("3600000") {
            tokio::time::sleep(Duration::from_millis(10)).await; // the case has a limit
        }
        for created in self.0.create_partitions([&NewPartitions::new(topic, 4)], &options).await? {
            created.map_err(|(_, code)| anyhow!("creating partitions: {code}"))?;
        }
        while self.partitions(topic).await? != 4 {
            tokio::time::sleep(Duration::from_millis(10)).await; // the case has a limit
        }
        self.0.delete_records(&at(topic, Offset::Offset(10))?, &options).await?;
        ensure!(self.bounds(topic).await? == (10, 100), "bounds {:?}", self.bounds(topic).await?);
        let listed = || Ok::<_, anyhow::Error>(self.0.inner().fetch_group_list(None, WAIT_LIMIT)?);
        let is_listed =
            || Ok::<_, anyhow::Error>(listed()?.groups().iter().any(|found| found.name() == group));
        ensure!(is_listed()?, "the group is not listed");
        for deleted in self.0.delete_groups(&[group], &options).await? {
            deleted.map_err(|(_, code)| anyhow!("deleting the group: {code}"))?;
        }
        ensure!(!is_listed()?, "the group is still listed");
        Ok(())
    }

    async fn consume(
        &self,
        topic: &str,
        group: &str,
        mut handle: impl FnMut(&Record) -> bool,
        stopping: Rc<Cell<bool>>,
    ) -> Result<()> {
        let settings = [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "300"),
        ];
        let member: Arc<StreamConsumer> = Arc::new(config(&settings).create()?);
        member.subscribe(&[topic])?;
        while !stopping.get() {
            let mut accepted = TopicPartitionList::new();
            // What comes within a short time is committed together.
            let pause = tokio::time::sleep(Duration::from_millis(100));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    message = member.recv() => {
                        let found = record(&message?);
                        if handle(&found) {
                            let next = Offset::Offset(found.offset + 1);
                            if accepted.set_partition_offset(topic, found.partition, next).is_err() {
                                accepted.add_partition_offset(topic, found.partition, next)?;
                            }
                        }
                    }
                    () = &mut pause => break,
                }
            }
            if accepted.count() > 0 {
                // On a thread of its own: the other members go on polling, without which a rebalance, and this, would not end.
                let member = Arc::clone(&member);
                tokio::task::spawn_blocking(move || commit(&member, &accepted)).await??;
            }
        }
        member.unsubscribe();
        Ok(())
    }
}

/// Tolerates what a rebalance refuses: the records are read again by whoever has the partition now.
fn commit(member: &StreamConsumer, offsets: &TopicPartitionList) -> Result<()> {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    match member.commit(offsets, CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(IllegalGeneration | RebalanceInProgress | UnknownMemberId)) => Ok(()),
        other => Ok(other?),
    }
}

struct Producer(FutureProducer);

impl Sender for Producer {
    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        let mut sent = Vec::with_capacity(records.len());
        for each in &records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &each.headers {
                headers = headers.insert(Header { key, value: value.as_ref() });
            }
            let mut wanted =
                FutureRecord::<Vec<u8>, Vec<u8>>::to(topic).partition(each.partition).headers(headers);
            wanted.key = each.key.as_ref();
            wanted.payload = each.value.as_ref();
            wanted.timestamp = each.timestamp;
            sent.push(self.0.send_result(wanted).map_err(|(error, _)| error)?);
        }
        for each in sent {
            each.await?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

struct Consumer {
    consumer: StreamConsumer,
    topic: String,
}

impl Reader for Consumer {
    async fn read(&mut self, count: usize) -> Result<Vec<Record>> {
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            found.push(record(&self.consumer.recv().await?));
        }
        Ok(found)
    }

    async fn seek(&mut self, offset: i64) -> Result<()> {
        Ok(self.consumer.seek(&self.topic, 0, Offset::Offset(offset), WAIT_LIMIT)?)
    }
}

fn main() -> ExitCode {
    weir_interop::run(async || Ok(Adapter(config(&[]).create()?)))
}
