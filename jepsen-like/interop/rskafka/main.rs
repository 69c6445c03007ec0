//! The cases of rskafka, which has neither groups nor idempotence.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client as Rskafka, ClientBuilder};
use weir_interop::{Abilities, Client, Header, Reader, Record, Sender, TopicExists, broker, bytes};

struct Adapter(Arc<Rskafka>);

impl Adapter {
    async fn partition(&self, topic: &str, partition: i32) -> Result<PartitionClient> {
        Ok(self.0.partition_client(topic, partition, UnknownTopicHandling::Retry).await?)
    }
}

impl Client for Adapter {
    type Sender = Producer;
    type Reader = Consumer;

    fn abilities(&self) -> Abilities {
        // It keeps headers in a map, sorted and without nulls.
        let headers: Vec<Header> = [("a", "1"), ("b", "2"), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), Some(bytes(value))))
            .into();
        let notes = &[
            ("headers", "without repeated names and nulls, as it keeps headers in a map"),
            ("admin", "it creates and deletes topics, and nothing more"),
            ("timestamps", "without LogAppendTime: it cannot create a topic with settings"),
        ];
        Abilities { name: "rskafka", idempotence: false, groups: false, append_time: false, notes, headers }
    }

    async fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        if !config.is_empty() {
            bail!("this client creates topics without settings only");
        }
        match self.0.controller_client()?.create_topic(topic, partitions, 1, 30_000).await {
            Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => {
                Err(TopicExists.into())
            }
            other => Ok(other?),
        }
    }

    async fn delete(&self, topic: &str) -> Result<()> {
        Ok(self.0.controller_client()?.delete_topic(topic, 30_000).await?)
    }

    async fn partitions(&self, topic: &str) -> Result<usize> {
        let topics = self.0.list_topics().await?;
        Ok(topics.iter().find(|found| found.name == topic).map_or(0, |found| found.partitions.len()))
    }

    async fn sender(&self, codec: &str, _: bool) -> Result<Producer> {
        let compression = match codec {
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::NoCompression,
        };
        Ok(Producer { client: Adapter(Arc::clone(&self.0)), compression, partitions: BTreeMap::new() })
    }

    async fn reader(&self, topic: &str, start: i64) -> Result<Consumer> {
        Ok(Consumer { partition: self.partition(topic, 0).await?, next: start, fetched: VecDeque::new() })
    }

    async fn bounds(&self, topic: &str) -> Result<(i64, i64)> {
        let partition = self.partition(topic, 0).await?;
        Ok((partition.get_offset(OffsetAt::Earliest).await?, partition.get_offset(OffsetAt::Latest).await?))
    }

    async fn offset_for_time(&self, topic: &str, timestamp: i64) -> Result<Option<i64>> {
        let at = DateTime::<Utc>::from_timestamp_millis(timestamp).context("no such time")?;
        let found = self.partition(topic, 0).await?.get_offset(OffsetAt::Timestamp(at)).await?;
        Ok((found >= 0).then_some(found))
    }

    async fn administer(&self, _: &str, _: &str) -> Result<()> {
        bail!("this client has no groups")
    }

    async fn consume(
        &self,
        _: &str,
        _: &str,
        _: impl FnMut(&Record) -> bool,
        _: Rc<Cell<bool>>,
    ) -> Result<()> {
        bail!("this client has no groups")
    }
}

struct Producer {
    client: Adapter,
    compression: Compression,
    partitions: BTreeMap<(String, i32), PartitionClient>,
}

impl Sender for Producer {
    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()> {
        let mut batches: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for record in records {
            batches.entry(record.partition).or_default().push(rskafka::record::Record {
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name, value.unwrap_or_default()))
                    .collect(),
                timestamp: record
                    .timestamp
                    .map_or_else(|| Some(Utc::now()), DateTime::from_timestamp_millis)
                    .context("no such time")?,
            });
        }
        for (partition, batch) in batches {
            let place = (topic.to_owned(), partition);
            if !self.partitions.contains_key(&place) {
                self.partitions.insert(place.clone(), self.client.partition(topic, partition).await?);
            }
            self.partitions[&place].produce(batch, self.compression).await?;
        }
        Ok(())
    }
}

struct Consumer {
    partition: PartitionClient,
    next: i64,
    fetched: VecDeque<Record>,
}

impl Reader for Consumer {
    async fn read(&mut self, count: usize) -> Result<Vec<Record>> {
        while self.fetched.len() < count {
            let (records, _) = self.partition.fetch_records(self.next, 1..10_000_000, 500).await?;
            for found in records {
                self.next = found.offset + 1;
                self.fetched.push_back(Record {
                    key: found.record.key,
                    value: found.record.value,
                    headers: found
                        .record
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name, Some(value)))
                        .collect(),
                    timestamp: Some(found.record.timestamp.timestamp_millis()),
                    partition: 0,
                    offset: found.offset,
                });
            }
        }
        Ok(self.fetched.drain(..count).collect())
    }

    async fn seek(&mut self, offset: i64) -> Result<()> {
        self.fetched.clear();
        self.next = offset;
        Ok(())
    }
}

fn main() -> ExitCode {
    weir_interop::run(async || Ok(Adapter(Arc::new(ClientBuilder::new(broker().split(',').map(str::to_owned).collect()).build().await?))))
}
