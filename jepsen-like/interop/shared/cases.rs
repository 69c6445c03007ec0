use anyhow::{Result, bail, ensure};

use crate::{CODECS, Client, Pair, Reader, Record, Sender, Skip, Suite, TopicExists, bytes, now, wait_for};

pub(crate) const NAMES: [&str; 15] = [
    "create",
    "produce-consume-none",
    "produce-consume-gzip",
    "produce-consume-snappy",
    "produce-consume-lz4",
    "produce-consume-zstd",
    "idempotence",
    "headers",
    "timestamps",
    "nulls",
    "seek",
    "offsets-by-time",
    "group",
    "commit-resume",
    "admin",
];

/// Records of one request: not every client divides what it is given.
const CHUNK: usize = 1_000;

impl<C: Client> Suite<C> {
    pub(crate) async fn case(&self, name: &str) -> Result<()> {
        if let Some(codec) = CODECS.iter().find(|codec| name == format!("produce-consume-{codec}")) {
            return self.codec(codec).await;
        }
        match name {
            "create" => self.create().await,
            "idempotence" => self.idempotence().await,
            "headers" => self.headers().await,
            "timestamps" => self.timestamps().await,
            "nulls" => self.nulls().await,
            "seek" => self.seek().await,
            "offsets-by-time" => self.offsets_by_time().await,
            "group" | "commit-resume" | "admin" if !self.abilities.groups => {
                Err(Skip("this client has no groups").into())
            }
            "group" => self.group().await,
            "commit-resume" => self.commit_resume().await,
            "admin" => self.admin().await,
            _ => bail!("there is no such case"),
        }
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}-{name}-{}", self.abilities.name, self.run)
    }

    /// Creates a topic, sends the records to it and reads as many back.
    async fn send_and_read(
        &self,
        topic: &str,
        config: &[(&str, &str)],
        records: &[Record],
    ) -> Result<Vec<Record>> {
        self.client.create(topic, 1, config).await?;
        self.client.sender("none", false).await?.send(topic, records.to_vec()).await?;
        self.client.reader(topic, 0).await?.read(records.len()).await
    }

    /// A topic of 100 records, a second apart, each with its offset as value.
    pub(crate) async fn numbered(&self, name: &str, start: i64) -> Result<String> {
        let record = |number: i64| Record { timestamp: Some(start + number * 1000), ..Record::of(number) };
        let topic = self.topic(name);
        self.send_and_read(&topic, &[], &(0..100).map(record).collect::<Vec<_>>()).await?;
        Ok(topic)
    }

    async fn create(&self) -> Result<()> {
        let topic = self.topic("create");
        self.client.create(&topic, 3, &[]).await?;
        self.has_partitions(&topic, 3).await?;
        match self.client.create(&topic, 3, &[]).await {
            Ok(()) => bail!("the same topic was created twice"),
            Err(error) if error.is::<TopicExists>() => {}
            Err(error) => return Err(error),
        }
        self.client.delete(&topic).await?;
        self.has_partitions(&topic, 0).await
    }

    async fn has_partitions(&self, topic: &str, expected: usize) -> Result<()> {
        let look = async || Ok(self.client.partitions(topic).await? == expected);
        wait_for(|| format!("{expected} partitions"), look).await
    }

    async fn codec(&self, codec: &str) -> Result<()> {
        let sent: Vec<_> = (0..self.records)
            .map(|number| Record::of(format!("{number} of a codec, of a codec, of a codec")))
            .collect();
        self.send_and_compare(&self.topic(codec), codec, false, sent).await
    }

    async fn send_and_compare(
        &self,
        topic: &str,
        codec: &str,
        idempotent: bool,
        sent: Vec<Record>,
    ) -> Result<()> {
        self.client.create(topic, 1, &[]).await?;
        let mut sender = self.client.sender(codec, idempotent).await?;
        for chunk in sent.chunks(CHUNK) {
            sender.send(topic, chunk.to_vec()).await?;
        }
        let found = self.client.reader(topic, 0).await?.read(sent.len()).await?;
        for (index, (sent, found)) in sent.iter().zip(&found).enumerate() {
            ensure!(sent.value == found.value, "record {index} is {}", found.text());
        }
        Ok(())
    }

    async fn idempotence(&self) -> Result<()> {
        if !self.abilities.idempotence {
            return Err(Skip("this client has none").into());
        }
        let topic = self.topic("idempotence");
        self.send_and_compare(&topic, "none", true, (0..self.records).map(Record::of).collect()).await?;
        let bounds = self.client.bounds(&topic).await?;
        ensure!(bounds == (0, self.records as i64), "the partition has offsets {bounds:?}");
        Ok(())
    }

    async fn headers(&self) -> Result<()> {
        let some = Record { headers: self.abilities.headers.clone(), ..Record::of("some") };
        let found =
            self.send_and_read(&self.topic("headers"), &[], &[some.clone(), Record::of("none")]).await?;
        ensure!(found[0].headers == some.headers, "read {:?}", found[0].headers);
        ensure!(found[1].headers.is_empty(), "read {:?}", found[1].headers);
        Ok(())
    }

    async fn timestamps(&self) -> Result<()> {
        let start = now() - 5_000;
        let sent = [start, start + 2_000, start + 1_000]
            .map(|time| Record { timestamp: Some(time), ..Record::of("x") });
        let found = self.send_and_read(&self.topic("timestamps"), &[], &sent).await?;
        for (sent, found) in sent.iter().zip(&found) {
            ensure!(
                sent.timestamp == found.timestamp,
                "sent {:?}, read {:?}",
                sent.timestamp,
                found.timestamp
            );
        }
        if self.abilities.append_time {
            let config = [("message.timestamp.type", "LogAppendTime")];
            let found = self.send_and_read(&self.topic("timestamps-append"), &config, &sent[..1]).await?;
            ensure!(
                found[0].timestamp > Some(start + 4_000),
                "LogAppendTime, but the producer's timestamp is read"
            );
        }
        Ok(())
    }

    async fn nulls(&self) -> Result<()> {
        let (key, value) = (Some(bytes("key")), Some(bytes("value")));
        let pairs: [Pair; 5] = [
            (None, value.clone()),
            (key.clone(), None),
            (None, None),
            (Some(vec![]), Some(vec![])),
            (key, value),
        ];
        let sent = pairs.clone().map(|(key, value)| Record { key, value, ..Record::default() });
        let found = self.send_and_read(&self.topic("nulls"), &[], &sent).await?;
        for (pair, found) in pairs.into_iter().zip(found) {
            ensure!(pair == (found.key.clone(), found.value.clone()), "sent {pair:?}, read {found:?}");
        }
        Ok(())
    }

    async fn seek(&self) -> Result<()> {
        let topic = self.numbered("seek", now() - 1_000_000).await?;
        let mut reader = self.client.reader(&topic, 10).await?;
        for offset in [10, 40, 0, 99] {
            if offset != 10 {
                reader.seek(offset).await?;
            }
            let found = &reader.read(1).await?[0];
            ensure!(
                found.offset == offset && found.text() == offset.to_string(),
                "offset {offset} is {found:?}"
            );
        }
        let bounds = self.client.bounds(&topic).await?;
        ensure!(bounds == (0, 100), "the partition has offsets {bounds:?}");
        Ok(())
    }

    async fn offsets_by_time(&self) -> Result<()> {
        let start = now() - 1_000_000;
        let topic = self.numbered("offsets-by-time", start).await?;
        for (after, expected) in [(49_500, Some(50)), (50_000, Some(50)), (-1, Some(0)), (100_000, None)] {
            let found = self.client.offset_for_time(&topic, start + after).await?;
            ensure!(found == expected, "{after} ms after the first: {found:?}, not {expected:?}");
        }
        Ok(())
    }
}
