//! Brokers for the tests of this crate: they keep records in memory, speak enough of the protocol, and do what a test
//! tells them to do wrong.

mod group;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use uuid::Uuid;
use weir_runtime::net::{Listener, Stream};
use weir_runtime::{task, time};
use weir_wire::frame::{self, FRAME_BYTES_MAX, Progress, RequestHeader};
use weir_wire::kafka::messages::api_versions_response::ApiVersion;
use weir_wire::kafka::messages::create_topics_response::CreatableTopicResult;
use weir_wire::kafka::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use weir_wire::kafka::messages::delete_topics_response::DeletableTopicResult;
use weir_wire::kafka::messages::describe_cluster_response::DescribeClusterBroker;
use weir_wire::kafka::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use weir_wire::kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use weir_wire::kafka::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use weir_wire::kafka::messages::{
    ApiKey, ApiVersionsResponse, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsResponse, DescribeClusterResponse, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use weir_wire::kafka::{
    self, FetchResponse, FetchedPartition, FetchedTopic, LeaderHint, Request, Response, StrBytes,
};
use weir_wire::records::{assign, batches};

use crate::{Client, ClientConfig};

/// What a broker does wrong with one request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It answers each partition or topic with this error, and does nothing.
    Error(ResponseError),
    /// It does nothing and answers nothing.
    Silence,
    /// It closes the connection and does nothing.
    CloseBefore,
    /// It does what was asked and closes the connection in place of an answer.
    CloseAfter,
    /// It does what was asked and answers with this error.
    ErrorAfter(ResponseError),
    /// It answers with another correlation id.
    WrongCorrelation,
    /// It sends these bytes in place of an answer.
    Raw(Vec<u8>),
    /// It sends its answer byte by byte.
    ByteByByte,
}

/// Base sequence, next sequence and base offset of a batch.
type Numbered = (i32, i32, i64);

#[derive(Debug, Default)]
pub(crate) struct FakePartition {
    pub(crate) leader: usize,
    pub(crate) epoch: i32,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) cut_at: Option<(i32, i64)>,
    /// Base offset, next offset, bytes.
    pub(crate) batches: Vec<(i64, i64, Bytes)>,
    /// By producer id: the epoch, and its last five batches.
    pub(crate) producers: BTreeMap<i64, (i16, VecDeque<Numbered>)>,
}

/// What all brokers of a cluster share.
#[derive(Debug, Default)]
pub(crate) struct State {
    addresses: Vec<SocketAddr>,
    pub(crate) topics: BTreeMap<String, Vec<FakePartition>>,
    faults: BTreeMap<i16, VecDeque<Fault>>,
    /// Node, API key and version of each request.
    pub(crate) seen: Vec<(usize, ApiKey, i16)>,
    /// Nodes that close each connection at once.
    pub(crate) down: BTreeSet<usize>,
    /// Nodes that take requests and never answer.
    pub(crate) frozen: BTreeSet<usize>,
    /// Whether a node that does not lead names the one that does (KIP-951).
    pub(crate) hints: bool,
    /// How many producer ids were given.
    pub(crate) producer_ids: i64,
    /// The node that coordinates all groups.
    pub(crate) coordinator: usize,
    groups: BTreeMap<String, group::FakeGroup>,
    /// The last version of ApiVersions that the brokers know.
    pub(crate) api_versions_max: i16,
}

/// A cluster of fake brokers.
#[derive(Clone)]
pub(crate) struct FakeCluster(Arc<Mutex<State>>);

impl FakeCluster {
    pub(crate) async fn start(nodes: usize) -> Self {
        let cluster = Self(Arc::new(Mutex::new(State { api_versions_max: 4, ..State::default() })));
        for node in 0..nodes {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            cluster.state().addresses.push(listener.local_addr().unwrap());
            let serving = cluster.clone();
            task::spawn("fake broker", async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let serving = serving.clone();
                    task::spawn("fake connection", async move { serving.serve(node, stream).await });
                }
            });
        }
        cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A topic whose partitions are led by node 0.
    pub(crate) fn topic(&self, name: &str, partitions: usize) {
        let partitions = (0..partitions).map(|_| FakePartition::default()).collect();
        self.state().topics.insert(name.to_owned(), partitions);
    }

    /// Another node leads a partition from now on.
    pub(crate) fn elect(&self, topic: &str, partition: usize, leader: usize) {
        let mut state = self.state();
        let partition = &mut state.topics.get_mut(topic).unwrap()[partition];
        partition.leader = leader;
        partition.epoch += 1;
    }

    pub(crate) fn fault(&self, api: ApiKey, fault: Fault) {
        self.state().faults.entry(api as i16).or_default().push_back(fault);
    }

    pub(crate) fn bootstrap(&self, node: usize) -> String {
        self.state().addresses[node].to_string()
    }

    /// A configuration with short waits.
    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            bootstrap: vec![self.bootstrap(0)],
            request_timeout: Duration::from_millis(300),
            operation_timeout: Duration::from_secs(5),
            retry_backoff: Duration::from_millis(5),
            retry_backoff_max: Duration::from_millis(20),
            ..ClientConfig::default()
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    pub(crate) fn requests(&self, api: ApiKey) -> usize {
        self.state().seen.iter().filter(|(_, seen, _)| *seen == api).count()
    }

    /// The values in a partition's log, by a decoder of its own.
    pub(crate) fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let state = self.state();
        let mut values = Vec::new();
        for (_, _, bytes) in &state.topics[topic][partition].batches {
            for batch in batches(bytes.clone()) {
                let records = batch.unwrap().records(1 << 20).unwrap();
                let texts =
                    records.iter().map(|r| String::from_utf8_lossy(r.unwrap().value.unwrap()).into_owned());
                values.extend(texts);
            }
        }
        values
    }

    async fn serve(&self, node: usize, stream: Stream) {
        let (mut reader, mut writer) = stream.into_split();
        let mut received = BytesMut::new();
        loop {
            if self.state().down.contains(&node) {
                return;
            }
            let Progress::Frame(mut request) = frame::take_frame(&mut received, FRAME_BYTES_MAX).unwrap()
            else {
                match reader.read(&mut received, 1 << 16).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            };
            let header = frame::take_request_header(&mut request).unwrap();
            let api = ApiKey::try_from(header.api_key).unwrap();
            let fault = {
                let mut state = self.state();
                state.seen.push((node, api, header.version));
                state.faults.get_mut(&header.api_key).and_then(VecDeque::pop_front)
            };
            if self.state().frozen.contains(&node) {
                std::future::pending::<()>().await;
            }
            let Some(answer) = self.answer(node, &header, request, fault.as_ref()).await else { return };
            let mut chunks: VecDeque<Bytes> = answer.into();
            if matches!(fault, Some(Fault::ByteByByte)) {
                for byte in chunks.drain(..).flatten().collect::<Vec<u8>>() {
                    let mut one = VecDeque::from([Bytes::copy_from_slice(&[byte])]);
                    writer.write_all(&mut one).await.unwrap();
                    task::yield_now().await;
                }
            } else if writer.write_all(&mut chunks).await.is_err() {
                return;
            }
        }
    }

    /// The frames to send; `None` closes the connection.
    async fn answer(
        &self,
        node: usize,
        header: &RequestHeader,
        body: Bytes,
        fault: Option<&Fault>,
    ) -> Option<Vec<Bytes>> {
        let mut correlation_id = header.correlation_id;
        let mut error = None;
        match fault {
            Some(Fault::Silence) => return Some(Vec::new()),
            Some(Fault::CloseBefore) => return None,
            Some(Fault::Raw(bytes)) => return Some(vec![Bytes::copy_from_slice(bytes)]),
            Some(Fault::WrongCorrelation) => correlation_id += 1000,
            Some(Fault::Error(code)) => error = Some(*code),
            Some(Fault::CloseAfter | Fault::ErrorAfter(_) | Fault::ByteByByte) | None => {}
        }
        let mut version = header.version;
        let response = if header.api_key == ApiKey::ApiVersions as i16 {
            let max = self.state().api_versions_max;
            let code = if version > max { 35 } else { 0 };
            version = if version > max { 0 } else { version };
            api_versions(code, max).into()
        } else {
            let request = kafka::decode_request(header.api_key, version, body).unwrap();
            let silent = matches!(&request, Request::Produce(produce) if produce.acks == 0);
            let mut response = self.handle(node, version, request, error).await;
            if let (Some(Fault::ErrorAfter(code)), Response::Produce(produce)) = (fault, &mut response) {
                let topics = produce.responses.iter_mut();
                topics
                    .flat_map(|topic| &mut topic.partition_responses)
                    .for_each(|p| p.error_code = code.code());
            }
            if silent {
                return Some(Vec::new());
            }
            response
        };
        if matches!(fault, Some(Fault::CloseAfter)) {
            return None;
        }
        Some(kafka::encode_response(version, correlation_id, &response).unwrap())
    }

    async fn handle(
        &self,
        node: usize,
        version: i16,
        request: Request,
        error: Option<ResponseError>,
    ) -> Response {
        let code = error.map_or(0, |error| error.code());
        match request {
            Request::Metadata(request) => self.state().metadata(&request, version, code).into(),
            Request::Produce(request) => self.state().produce(node, &request, code).into(),
            Request::ListOffsets(request) => self.state().list_offsets(&request, code).into(),
            Request::Fetch(request) => {
                let deadline =
                    time::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap());
                loop {
                    let (response, empty) = self.state().fetch(node, &request, code);
                    if !empty || time::now() >= deadline {
                        return response.into();
                    }
                    time::sleep(Duration::from_millis(2)).await;
                }
            }
            Request::DeleteRecords(request) => self.state().delete_records(node, &request, code).into(),
            Request::CreateTopics(request) => {
                let mut state = self.state();
                let created = request.topics.iter().map(|topic| {
                    let exists = state.topics.contains_key(&**topic.name);
                    let code = if code == 0 && exists { 36 } else { code };
                    if code == 0 {
                        let count = usize::try_from(topic.num_partitions).unwrap();
                        let partitions = (0..count).map(|_| FakePartition::default()).collect();
                        state.topics.insert(topic.name.to_string(), partitions);
                    }
                    let result = CreatableTopicResult::default().with_name(topic.name.clone());
                    result.with_error_code(code).with_topic_id(topic_id(&topic.name))
                });
                CreateTopicsResponse::default().with_topics(created.collect()).into()
            }
            Request::DeleteTopics(request) => {
                let mut state = self.state();
                let deleted = request.topic_names.iter().map(|name| {
                    let exists = code != 0 || state.topics.remove(&***name).is_some();
                    let code = if exists { code } else { 3 };
                    DeletableTopicResult::default().with_name(Some(name.clone())).with_error_code(code)
                });
                DeleteTopicsResponse::default().with_responses(deleted.collect()).into()
            }
            Request::DescribeCluster(_) => {
                let brokers = self
                    .state()
                    .addresses
                    .iter()
                    .zip(0..)
                    .map(|(address, id)| {
                        DescribeClusterBroker::default()
                            .with_broker_id(id.into())
                            .with_host(StrBytes::from_string(address.ip().to_string()))
                            .with_port(address.port().into())
                    })
                    .collect();
                let id = StrBytes::from_static_str("fake");
                DescribeClusterResponse::default().with_cluster_id(id).with_brokers(brokers).into()
            }
            Request::InitProducerId(_) => {
                let mut state = self.state();
                state.producer_ids += 1;
                let id = state.producer_ids.into();
                let response = InitProducerIdResponse::default().with_producer_id(id).with_producer_epoch(0);
                response.with_error_code(code).into()
            }
            other => self.state().group_request(node, other, code),
        }
    }
}

fn topic_id(name: &str) -> Uuid {
    Uuid::from_u128(name.bytes().fold(1, |id, byte| id * 257 + u128::from(byte)))
}

fn api_versions(code: i16, api_versions_max: i16) -> ApiVersionsResponse {
    let ranges =
        [(0, 3, 11), (1, 4, 12), (2, 1, 7), (3, 0, 12), (18, 0, api_versions_max), (19, 2, 7), (20, 1, 5)];
    let groups = [(8, 2, 9), (9, 1, 9), (10, 0, 6), (11, 0, 9), (12, 0, 4), (13, 0, 5), (14, 0, 5)];
    let ranges = ranges.into_iter().chain([(60, 0, 1), (21, 0, 2), (22, 0, 5)]).chain(groups);
    let api_keys = ranges.map(|(key, min, max)| {
        ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
    });
    ApiVersionsResponse::default().with_error_code(code).with_api_keys(api_keys.collect())
}

impl State {
    fn metadata(&self, request: &MetadataRequest, version: i16, code: i16) -> MetadataResponse {
        let brokers = self.addresses.iter().zip(0..).map(|(address, id)| {
            MetadataResponseBroker::default()
                .with_node_id(id.into())
                .with_host(StrBytes::from_string(address.ip().to_string()))
                .with_port(address.port().into())
        });
        let names: Vec<String> = match &request.topics {
            Some(asked) => asked.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect(),
            None => self.topics.keys().cloned().collect(),
        };
        let topics = names.into_iter().map(|name| {
            let mut topic = MetadataResponseTopic::default()
                .with_name(Some(StrBytes::from_string(name.clone()).into()))
                .with_error_code(if self.topics.contains_key(&name) { code } else { 3 });
            if version >= 10 {
                topic.topic_id = topic_id(&name);
            }
            if code == 0
                && let Some(partitions) = self.topics.get(&name)
            {
                topic.partitions = partitions
                    .iter()
                    .zip(0..)
                    .map(|(partition, index)| {
                        let leader = i32::try_from(partition.leader).unwrap();
                        MetadataResponsePartition::default()
                            .with_partition_index(index)
                            .with_leader_id(leader.into())
                            .with_leader_epoch(partition.epoch)
                            .with_isr_nodes(vec![leader.into()])
                            .with_replica_nodes(vec![leader.into()])
                    })
                    .collect();
            }
            topic
        });
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_controller_id(0.into())
            .with_cluster_id(Some(StrBytes::from_static_str("fake")))
            .with_topics(topics.collect())
    }

    fn led_by(&mut self, node: usize, topic: &str, partition: i32) -> Result<&mut FakePartition, i16> {
        let partitions = self.topics.get_mut(topic).ok_or(3i16)?;
        let partition = partitions.get_mut(usize::try_from(partition).unwrap()).ok_or(3i16)?;
        if partition.leader == node { Ok(partition) } else { Err(6) }
    }

    /// Who leads, if nodes tell.
    fn hint(&self, topic: &str, partition: i32) -> Option<LeaderHint> {
        let partition = self.topics.get(topic)?.get(usize::try_from(partition).ok()?)?;
        let leader_id = i32::try_from(partition.leader).ok()?;
        self.hints.then_some(LeaderHint { leader_id, leader_epoch: partition.epoch })
    }

    fn produce(&mut self, node: usize, request: &ProduceRequest, code: i16) -> ProduceResponse {
        let topics = request.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|data| {
                let answer = PartitionProduceResponse::default().with_index(data.index).with_base_offset(-1);
                if code != 0 {
                    return answer.with_error_code(code);
                }
                let hint = self.hint(&topic.name, data.index);
                match self.led_by(node, &topic.name, data.index) {
                    Err(6) if let Some(hint) = hint => {
                        let leader = LeaderIdAndEpoch::default().with_leader_id(hint.leader_id.into());
                        let leader = leader.with_leader_epoch(hint.leader_epoch);
                        answer.with_error_code(6).with_current_leader(leader)
                    }
                    Err(code) => answer.with_error_code(code),
                    Ok(partition) => match partition.produce(data.records.clone().unwrap()) {
                        Ok(base) => answer.with_base_offset(base),
                        Err(code) => answer.with_error_code(code),
                    },
                }
            });
            let partitions = partitions.collect();
            TopicProduceResponse::default().with_name(topic.name.clone()).with_partition_responses(partitions)
        });
        let response = ProduceResponse::default().with_responses(topics.collect());
        let endpoints = self.addresses.iter().zip(0..).map(|(address, id)| {
            NodeEndpoint::default()
                .with_node_id(id.into())
                .with_host(StrBytes::from_string(address.ip().to_string()))
                .with_port(address.port().into())
        });
        response.with_node_endpoints(if self.hints { endpoints.collect() } else { Vec::new() })
    }

    fn fetch(
        &mut self,
        node: usize,
        request: &kafka::messages::FetchRequest,
        code: i16,
    ) -> (FetchResponse, bool) {
        let mut empty = true;
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let mut answer =
                    FetchedPartition { index: asked.partition, error_code: code, ..Default::default() };
                let hint = self.hint(&topic.topic, asked.partition);
                match self.led_by(node, &topic.topic, asked.partition) {
                    _ if code != 0 => {}
                    Err(code) => (answer.error_code, answer.current_leader) = (code, hint),
                    Ok(log) if !(log.start..=log.end).contains(&asked.fetch_offset) => answer.error_code = 1,
                    Ok(log) => {
                        answer.high_watermark = log.end;
                        answer.diverging_epoch = log.cut_at.filter(|cut| cut.0 == asked.last_fetched_epoch);
                        let wanted = log.batches.iter().filter(|(_, next, _)| *next > asked.fetch_offset);
                        answer.records = wanted.map(|(_, _, bytes)| bytes.clone()).collect();
                    }
                }
                empty &=
                    answer.error_code == 0 && answer.records.is_empty() && answer.diverging_epoch.is_none();
                answer
            });
            let partitions = partitions.collect();
            FetchedTopic { name: topic.topic.0.clone(), partitions, ..Default::default() }
        });
        (FetchResponse { topics: topics.collect(), ..Default::default() }, empty)
    }

    fn delete_records(
        &mut self,
        node: usize,
        request: &DeleteRecordsRequest,
        code: i16,
    ) -> DeleteRecordsResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer =
                    DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
                match self.led_by(node, &topic.name, asked.partition_index) {
                    _ if code != 0 => answer.with_error_code(code),
                    Err(code) => answer.with_error_code(code),
                    Ok(log) if asked.offset > log.end => answer.with_error_code(1),
                    Ok(log) => {
                        log.start = log.start.max(if asked.offset < 0 { log.end } else { asked.offset });
                        answer.with_low_watermark(log.start)
                    }
                }
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    }

    fn list_offsets(&mut self, request: &ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer =
                    ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
                let log = &self.topics[&**topic.name][usize::try_from(asked.partition_index).unwrap()];
                let offset = match asked.timestamp {
                    -2 => log.start,
                    -1 => log.end,
                    time => log.first_at(time),
                };
                answer.with_error_code(code).with_offset(offset).with_leader_epoch(log.epoch)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

impl FakePartition {
    /// Appends what comes in the order of its numbers, if it has any, and knows what it has appended before.
    fn produce(&mut self, bytes: Bytes) -> Result<i64, i16> {
        let header = batches(bytes.clone()).next().unwrap().unwrap().header;
        if header.producer_id < 0 {
            return Ok(self.append(bytes));
        }
        // As Apache Kafka does: what an unknown producer sends first may have any number (KAFKA-14359).
        let is_known = self.producers.contains_key(&header.producer_id);
        let (epoch, last) = self.producers.entry(header.producer_id).or_default();
        if header.producer_epoch < *epoch {
            return Err(47);
        }
        if header.producer_epoch > *epoch {
            *epoch = header.producer_epoch;
            last.clear();
        }
        if let Some((_, _, base)) = last.iter().find(|(first, _, _)| *first == header.base_sequence) {
            return Ok(*base);
        }
        let expected = last.back().map_or(0, |(_, next, _)| *next);
        if is_known && header.base_sequence != expected {
            return Err(if header.base_sequence < expected { 46 } else { 45 });
        }
        let next = header.base_sequence.wrapping_add(header.count) & i32::MAX;
        let base = self.end;
        last.push_back((header.base_sequence, next, base));
        if last.len() > 5 {
            last.pop_front();
        }
        Ok(self.append(bytes))
    }

    pub(crate) fn append(&mut self, bytes: Bytes) -> i64 {
        let base = self.end;
        for batch in batches(bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let assigned = assign(&batch, self.end, self.epoch, None);
            let bytes: Vec<u8> = assigned.chunks.iter().flatten().copied().collect();
            self.batches.push((self.end, assigned.header.next_offset(), bytes.into()));
            self.end = assigned.header.next_offset();
        }
        base
    }

    fn first_at(&self, time: i64) -> i64 {
        for (_, _, bytes) in &self.batches {
            for batch in batches(bytes.clone()) {
                let records = batch.unwrap().records(1 << 20).unwrap();
                for record in &records {
                    let record = record.unwrap();
                    if record.timestamp_ms >= time {
                        return record.offset;
                    }
                }
            }
        }
        -1
    }
}

/// Runs a test that waits for nothing longer than it should.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let options = task::RuntimeOptions { worker_threads: Some(1), ..Default::default() };
    let ended = task::block_on(options, time::timeout(Duration::from_secs(30), test)).unwrap();
    ended.expect("the test takes too long");
}
