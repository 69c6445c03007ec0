//! A broker in this process, on a temporary folder, and a client that speaks raw frames.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::MetadataResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use kafka_protocol::messages::{CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use weir_broker::{Config, Node};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::net::{Reader, Stream, Writer};
use weir_runtime::task::{self, RuntimeOptions};
use weir_runtime::time;
use weir_wire::codec::Compression;
use weir_wire::kafka;
use weir_wire::records::{self, BatchBuilder};

/// The longest that any step of a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in the real runtime.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let options = RuntimeOptions { worker_threads: Some(2), ..RuntimeOptions::default() };
    task::block_on(options, test).expect("a runtime")
}

/// A broker and its folder.
pub(crate) struct Broker {
    pub(crate) node: Node,
    pub(crate) folder: tempfile::TempDir,
}

/// Settings for tests: a free port, and two shards.
pub(crate) fn config() -> Config {
    Config { listen: "127.0.0.1:0".to_owned(), shards: Some(2), ..Config::default() }
}

pub(crate) async fn node_on(folder: &Path, config: Config) -> Node {
    Node::start(config, open(folder).await).await.expect("a broker")
}

/// Opens a folder, once the tasks of its last owner are gone.
pub(crate) async fn open(folder: &Path) -> Disk {
    let deadline = time::now() + PATIENCE;
    loop {
        match Disk::open(folder, DiskOptions::default()).await {
            Err(OpenError::Locked { .. }) if time::now() < deadline => {
                time::sleep(Duration::from_millis(1)).await
            }
            opened => return opened.expect("a folder"),
        }
    }
}

impl Broker {
    pub(crate) async fn start() -> Broker {
        Broker::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Broker {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node_on(folder.path(), config).await;
        Broker { node, folder }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.node.address()).await
    }

    /// Stops cleanly and starts again on the same folder.
    pub(crate) async fn restart(self) -> Broker {
        let Broker { node, folder } = self;
        node.stop().await.expect("a clean stop");
        let node = node_on(folder.path(), config()).await;
        Broker { node, folder }
    }

    pub(crate) async fn stop(self) {
        self.node.stop().await.expect("a clean stop");
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) received: BytesMut,
    pub(crate) next_correlation_id: i32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream =
            time::timeout(PATIENCE, Stream::connect(address)).await.expect("in time").expect("a connection");
        let (reader, writer) = stream.into_split();
        Client { reader, writer, received: BytesMut::new(), next_correlation_id: 1 }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        let mut chunks = VecDeque::from([bytes.into()]);
        time::timeout(PATIENCE, self.writer.write_all(&mut chunks)).await.expect("in time").expect("written");
    }

    /// Sends a request; returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = kafka::encode_request(version, id, Some(&StrBytes::from_static_str("test")), request);
        self.send_bytes(frame.expect("encodable")).await;
        id
    }

    /// The next frame, without its length; `None` when the broker has closed the connection.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        time::timeout(PATIENCE, self.frame_unbounded()).await.expect("an answer in time")
    }

    async fn frame_unbounded(&mut self) -> Option<Bytes> {
        loop {
            if self.received.len() >= 4 {
                let length = (&self.received[..4]).get_i32() as usize;
                if self.received.len() >= 4 + length {
                    self.received.advance(4);
                    return Some(self.received.split_to(length).freeze());
                }
            }
            match self.reader.read(&mut self.received, 1 << 20).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next answer, which must be one to `R` in this version.
    pub(crate) async fn answer<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame().await.expect("an answer");
        kafka::decode_response::<R>(version, frame).expect("decodable")
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request).await;
        let (id, response) = self.answer::<R>(version).await;
        assert_eq!(id, sent, "the answer belongs to the request");
        response
    }

    /// Creates a topic with settings.
    pub(crate) async fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let response = self.call(5, &create_request(name, partitions, configs)).await;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    /// Creates topics, whatever comes of it.
    pub(crate) async fn try_create(
        &mut self,
        version: i16,
        request: &CreateTopicsRequest,
    ) -> CreateTopicsResponse {
        self.call(version, request).await
    }

    pub(crate) async fn metadata(
        &mut self,
        version: i16,
        topics: Option<&[&str]>,
        create: bool,
    ) -> MetadataResponse {
        self.call(version, &metadata_request(topics, create)).await
    }

    /// Produces one batch; returns the partition's answer.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let response: ProduceResponse = self.call(9, &produce_request(topic, partition, -1, batch)).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// Fetches from one partition.
    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response: FetchResponse = self.call(11, &fetch_request(topic, partition, offset)).await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }

    /// Whether the broker has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.frame().await.is_none()
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(crate) fn create_request(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = configs
        .iter()
        .map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        })
        .collect();
    let topic = CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs);
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

pub(crate) fn metadata_request(topics: Option<&[&str]>, create: bool) -> MetadataRequest {
    let topics = topics.map(|topics| {
        topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic(name)))).collect()
    });
    MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create)
}

pub(crate) fn produce_request(name: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![data])
}

pub(crate) fn fetch_request(name: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1 << 20);
    let data = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![data])
}

/// A batch with one record for each value, of now.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    batch_at(time::wall_ms(), values)
}

/// A batch with one record for each value, each a millisecond after the one before.
pub(crate) fn batch_at(timestamp_ms: i64, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (at, value) in (timestamp_ms..).zip(values) {
        builder.push(at, Some(b"key"), Some(value), &[]).expect("a record");
    }
    builder.finish().expect("a batch")
}

/// Offsets and values of fetched records.
pub(crate) fn values(records: Option<Bytes>) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    for batch in records::batches(records.unwrap_or_default()) {
        let batch = batch.expect("a whole batch");
        batch.verify_crc().expect("intact");
        let records = batch.records(1 << 24).expect("decodable");
        for record in &records {
            let record = record.expect("a record");
            found.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
    }
    found
}

/// A frame with any header and body.
pub(crate) fn raw_frame(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32((8 + 2 + body.len()) as i32);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame.freeze()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = time::now() + PATIENCE;
    while !condition() {
        assert!(time::now() < deadline, "not in time: {what}");
        time::sleep(Duration::from_millis(2)).await;
    }
}
