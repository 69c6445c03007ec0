//! A town of brokers in one process that replicate over lanes, with a controller that carries out whatever it is asked for.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use weir_protocol::controller::Refused;
use weir_protocol::metadata::{
    Change, ClusterCommand, Command, Endpoint, FEATURE_LEVEL_MAX, FeatureRange, Image, LastStop,
    NewPartition, Record, Registration, Rejected,
};
use weir_protocol::partition::{Acks, Limits};
use weir_protocol::types::{BrokerId, LogId, Offset, TopicId};
use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::net::{Listener, Reader, Stream, Writer};
use weir_runtime::task::{self, RuntimeOptions};
use weir_runtime::{time, watch};
use weir_storage::{ReadError, ReadPlan, Store, StoreConfig};
use weir_wire::codec::Compression;
use weir_wire::records::{self, Batch, BatchBuilder};

use super::mailbox::Mailboxes;
use super::{FetchLimits, Replication, start};
use crate::complaints::Complaints;
use crate::config::Secret;
use crate::controller::{ControllerClient, PartitionChanges};
use crate::metadata::{ImageByHand, LeaderView, Process};
use crate::metrics::Metrics;
use crate::node::FailureFlag;
use crate::peer::handshake::Identity;
use crate::peer::message::{ControllerQuestion, ControllerReply};
use crate::peer::{Asked, Inboxes, PeerSetup, PeerTiming, Peers, server};
use crate::server::Stage;
use crate::server::budget::Charge;
use crate::shard::{
    DeleteRecordsCall, FetchCall, FetchPart, Message, ProduceCall, ProducePart, ProducerExpiry, ShardError,
    ShardSetup, Shards,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(0x1000));

pub(super) fn run<F: Future>(test: F) -> F::Output {
    let options = RuntimeOptions { worker_threads: Some(2), ..RuntimeOptions::default() };
    task::block_on(options, test).expect("a runtime")
}

pub(super) type Question = Asked<ControllerQuestion, ControllerReply>;

/// A broker without connections to clients.
pub(super) struct Broker {
    pub(super) image: ImageByHand,
    pub(super) shards: Shards,
    pub(super) peers: Peers,
    pub(super) address: SocketAddr,
    pub(super) store: Store,
    pub(super) disk: Disk,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) owners: Vec<task::JoinHandle<()>>,
}

pub(super) struct Town {
    pub(super) image: Image,
    pub(super) index: i64,
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    pub(super) folders: BTreeMap<BrokerId, tempfile::TempDir>,
    pub(super) questions: mpsc::UnboundedReceiver<Question>,
    pub(super) questions_to: mpsc::UnboundedSender<Question>,
    /// Holds the watch of who leads the quorum, which is always the broker itself.
    pub(super) leaders: Vec<watch::Sender<LeaderView>>,
    pub(super) replica_lag_ms_max: i64,
}

impl Town {
    pub(super) async fn of(count: i32) -> Town {
        Town::with(count, 1_500).await
    }

    pub(super) async fn with(count: i32, replica_lag_ms_max: i64) -> Town {
        let (questions_to, questions) = mpsc::unbounded_channel();
        let mut town = Town {
            image: Image::empty(),
            index: 0,
            brokers: BTreeMap::new(),
            folders: BTreeMap::new(),
            questions,
            questions_to,
            leaders: Vec::new(),
            replica_lag_ms_max,
        };
        let form = Command::FormCluster { cluster_id: Uuid::from_u128(1), feature_level: FEATURE_LEVEL_MAX };
        town.apply(Record::V1(form)).await.unwrap();
        for id in 1..=count {
            town.folders.insert(BrokerId(id), tempfile::tempdir().unwrap());
            town.start(id).await;
        }
        town
    }

    pub(super) async fn start(&mut self, id: i32) {
        let id = BrokerId(id);
        let broker = self.broker(id).await;
        let registration = Registration {
            broker: id,
            folder: broker.store.folder_id(),
            incarnation: broker.store.incarnation(),
            endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 1 }],
            rack: None,
            features: FeatureRange::KNOWN,
            last_stop: LastStop::Certain,
            flush_os: false,
        };
        self.brokers.insert(id, broker);
        let reach = |broker: &Broker| (broker.address.ip().to_string(), broker.address.port());
        let addresses: Vec<_> = self.brokers.iter().map(|(id, broker)| (*id, reach(broker))).collect();
        for broker in self.brokers.values() {
            broker.peers.set_addresses(addresses.clone());
        }
        self.apply(Record::V2(ClusterCommand::RegisterBroker(registration))).await.unwrap();
        let broker_epoch = self.image.broker(id).unwrap().epoch;
        self.apply(Record::V2(ClusterCommand::Unfence { broker: id, broker_epoch })).await.unwrap();
    }

    pub(super) async fn broker(&mut self, id: BrokerId) -> Broker {
        let options = DiskOptions::default();
        let disk = loop {
            match Disk::open(self.folders[&id].path(), options.clone()).await {
                Ok(disk) => break disk,
                Err(_) => time::sleep(Duration::from_millis(1)).await,
            }
        };
        let config = StoreConfig { journal_bytes: 8 << 20, journal_files: 4, ..StoreConfig::default() };
        let (store, _) = Store::open(disk.clone(), config).await.unwrap();
        let (folder, incarnation) = (store.folder_id(), store.incarnation());
        let image = ImageByHand::new(Process { broker: id, folder, incarnation });
        let metrics = Arc::new(Metrics::default());
        let (mailboxes, new_mailboxes) = Mailboxes::new();
        let (inboxes, mut arrivals) = Inboxes::new();
        let me = Identity { node: id, folder, incarnation };
        let secret = Some(Secret::new("secret"));
        let timing = PeerTiming::default();
        let setup = PeerSetup { me, secret, tail_bytes_max: 16 << 20, timing, metrics: Arc::default() };
        let peers = Peers::connecting(setup, inboxes);
        let (leader, leader_reader) =
            watch::channel(LeaderView { leader: Some(id), ..LeaderView::default() });
        self.leaders.push(leader);
        let client = ControllerClient::new(peers.clone(), leader_reader);
        let hour = Duration::from_secs(3600);
        let (shards, owners) = Shards::start(&ShardSetup {
            me: id,
            store: store.clone(),
            image: image.reader.clone(),
            metrics: Arc::clone(&metrics),
            failure: FailureFlag::new(),
            count: 2,
            producer_expiry: ProducerExpiry { idle: hour, check: hour },
            compact_every: None,
            limits: Limits { replica_lag_ms_max: self.replica_lag_ms_max, ..Limits::default() },
            mailboxes,
            changes: PartitionChanges::new(id, client, image.reader.clone()),
        });
        let (stage, stage_reader) = watch::channel(Stage::Running);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (lanes_to, lanes) = mpsc::channel(4);
        task::spawn("peers", server::serve(listener, peers.clone(), lanes_to, stage_reader.clone()));
        let replication = Replication {
            me: id,
            peers: peers.clone(),
            shards: shards.clone(),
            image: image.reader.clone(),
            disk: disk.clone(),
            metrics,
            limits: FetchLimits { partition_bytes: 1 << 20, answer_bytes: 4 << 20, append_bytes: 1 << 20 },
            stage: stage_reader,
            complaints: Complaints::default(),
        };
        start(replication, new_mailboxes, lanes);
        let to = self.questions_to.clone();
        task::spawn("controller", async move {
            while let Some(question) = arrivals.controller.recv().await {
                let _ = to.send(question);
            }
        });
        Broker { image, shards, peers, address, store, disk, stage, owners }
    }

    /// The broker is killed, and its session ends.
    pub(super) async fn kill(&mut self, id: i32) {
        let id = BrokerId(id);
        let broker = self.brokers.remove(&id).unwrap();
        broker.stop();
        let broker_epoch = self.image.broker(id).unwrap().epoch;
        self.apply(Record::V2(ClusterCommand::Fence { broker: id, broker_epoch })).await.unwrap();
    }

    /// The broker stops; what it holds is in its segments then, and nothing in its journal.
    pub(super) async fn stop(&mut self, id: i32) {
        let id = BrokerId(id);
        let broker = self.brokers.remove(&id).unwrap();
        let broker_epoch = self.image.broker(id).unwrap().epoch;
        self.apply(Record::V2(ClusterCommand::Fence { broker: id, broker_epoch })).await.unwrap();
        broker.stage.send_replace(Stage::Cut);
        broker.shards.stop().await;
        for owner in broker.owners {
            owner.await.unwrap();
        }
        broker.store.close().await.unwrap();
    }

    /// Flips bits in a partition's only segment, behind the back of a broker that is not running.
    #[allow(clippy::disallowed_methods, reason = "behind the broker's back")]
    pub(super) fn damage(&self, id: i32, partition: i32, at: usize, len: usize) {
        let folder = self.folders[&BrokerId(id)].path().join(log(partition).to_string());
        let segment = folder.join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&segment, bytes).unwrap();
    }

    pub(super) async fn apply(&mut self, record: Record) -> Result<Change, Rejected> {
        self.index += 1;
        let outcome = self.image.apply_record(self.index, &record);
        let logs: Vec<LogId> =
            self.image.topics().flat_map(|topic| topic.logs().map(|(log, _)| log)).collect();
        for broker in self.brokers.values() {
            broker.image.publish(self.image.clone());
            let shards = &broker.shards;
            for (shard, logs) in shards.group(logs.clone(), |log| *log).into_iter().enumerate() {
                let _ = shards.send(shard, Message::Changed(logs)).await;
            }
        }
        outcome
    }

    pub(super) async fn topic(&mut self, partitions: i32, replicas: &[i32], min_insync: usize) {
        let replicas: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
        let new = || NewPartition { replicas: replicas.clone() };
        let create = Command::CreateTopic {
            name: "topic".into(),
            id: TOPIC,
            partitions: (0..partitions).map(|_| new()).collect(),
            configs: [("min.insync.replicas".to_owned(), min_insync.to_string())].into(),
        };
        self.apply(Record::V1(create)).await.unwrap();
    }

    /// Carries out what leaders ask for, for so long.
    pub(super) async fn govern(&mut self, until: time::Instant) {
        let mut alarm = time::Alarm::new();
        alarm.set(Some(until));
        loop {
            let Asked { question, reply, .. } = weir_runtime::select! {
                question = self.questions.recv() => question.unwrap(),
                () = alarm.wait() => return,
            };
            let ControllerQuestion::ChangePartition(command) = question else { panic!("{question:?}") };
            let outcome = self.apply(Record::V2(command)).await.map_err(Refused::Rejected);
            let _ = reply.send(ControllerReply::Partition(outcome.map(|_| self.index)));
        }
    }

    pub(super) async fn until(&mut self, what: &str, condition: impl Fn(&Town) -> bool) {
        let deadline = time::now() + PATIENCE;
        while !condition(self) {
            assert!(time::now() < deadline, "{what}: {:?}", self.image.partition(log(0)));
            self.govern(time::now() + Duration::from_millis(5)).await;
        }
    }

    pub(super) fn isr(&self, partition: i32) -> Vec<i32> {
        let partition = self.image.partition(log(partition)).unwrap();
        partition.isr.iter().map(|id| id.0).collect()
    }

    /// A replica leads that is in sync, because the others go and come back.
    pub(super) async fn elect(&mut self, id: i32) {
        for other in [1, 2, 3] {
            if self.leader_id(0) != id && other != id {
                self.kill(other).await;
                self.start(other).await;
            }
        }
        assert_eq!(self.leader_id(0), id);
        self.until("all are in sync", |town| town.isr(0) == [1, 2, 3]).await;
    }

    pub(super) fn leader_id(&self, partition: i32) -> i32 {
        self.image.partition(log(partition)).unwrap().leader.unwrap().0
    }

    pub(super) fn leader(&self, partition: i32) -> &Broker {
        &self.brokers[&BrokerId(self.leader_id(partition))]
    }

    /// Produces while the controller works.
    pub(super) async fn produce(&mut self, partition: i32, count: usize) -> Result<Offset, ShardError> {
        let answer = self.leader(partition).produce(log(partition), count).await;
        self.while_governing(answer).await
    }

    pub(super) async fn while_governing<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        weir_runtime::select! {
            done = &mut future => done,
            () = self.govern(time::now() + PATIENCE) => panic!("not in time"),
        }
    }

    pub(super) async fn delete_below(&mut self, offset: Offset) -> Result<Offset, ShardError> {
        let (reply, deleted) = oneshot::channel();
        let call = DeleteRecordsCall { log: log(0), before: Some(offset), reply };
        let shards = &self.leader(0).shards;
        shards.send(shards.owner_of(log(0)), Message::DeleteRecords(Box::new(call))).await.unwrap();
        self.while_governing(deleted).await.unwrap()
    }

    /// The values that a broker serves to clients, from `offset` on, once there are `count`.
    pub(super) async fn read(&mut self, partition: i32, offset: Offset, count: usize) -> Vec<Bytes> {
        let deadline = time::now() + PATIENCE;
        loop {
            let values = self.leader(partition).fetch(log(partition), offset).await.unwrap();
            if values.len() >= count {
                return values;
            }
            assert!(time::now() < deadline, "{} of {count} records", values.len());
            self.govern(time::now() + Duration::from_millis(5)).await;
        }
    }
}

impl Broker {
    /// Ends at once, as when the process is killed.
    pub(super) fn stop(&self) {
        self.stage.send_replace(Stage::Cut);
        for owner in &self.owners {
            owner.abort();
        }
    }

    pub(super) async fn produce(
        &self,
        log: LogId,
        count: usize,
    ) -> impl Future<Output = Result<Offset, ShardError>> + use<> {
        let (reply, answer) = oneshot::channel();
        let part = ProducePart { log, index: 0, batch: batch(count), log_append_time: false, epoch: None };
        let call = ProduceCall {
            acks: Acks::All,
            deadline: time::now() + PATIENCE,
            parts: vec![part],
            charge: Arc::new(Charge::free()),
            reply: Some(reply),
        };
        let shards = &self.shards;
        shards.send(shards.owner_of(log), Message::Produce(Box::new(call))).await.unwrap();
        async move { answer.await.unwrap().remove(0).result.map(|appended| appended.base_offset) }
    }

    /// The broker's own reader has met damage.
    pub(super) async fn tell(&self, log: LogId, from: Offset) {
        let shard = self.shards.owner_of(log);
        self.shards.send(shard, Message::Damaged { log, from }).await.unwrap();
    }

    pub(super) async fn fetch(&self, log: LogId, offset: Offset) -> Result<Vec<Bytes>, ShardError> {
        let Some(plan) = self.plan(log, offset).await? else { return Ok(Vec::new()) };
        let mut values = Vec::new();
        for chunk in plan.run(&self.disk).await.unwrap() {
            for batch in records::batches(chunk) {
                for record in &batch.unwrap().records(1 << 20).unwrap() {
                    values.push(Bytes::copy_from_slice(record.unwrap().value.unwrap()));
                }
            }
        }
        Ok(values)
    }

    pub(super) async fn read(&self, log: LogId, offset: Offset) -> Result<Vec<Bytes>, ReadError> {
        self.plan(log, offset).await.unwrap().unwrap().run(&self.disk).await
    }

    pub(super) async fn plan(&self, log: LogId, offset: Offset) -> Result<Option<ReadPlan>, ShardError> {
        let (reply, answer) = oneshot::channel();
        let part =
            FetchPart { log, index: 0, offset, bytes_max: 8 << 20, epoch: None, last_fetched_epoch: None };
        let call = FetchCall { parts: vec![part], watch: None, reply };
        let shards = &self.shards;
        shards.send(shards.owner_of(log), Message::Fetch(Box::new(call))).await.unwrap();
        Ok(answer.await.unwrap().remove(0).result?.plan)
    }
}

/// Stands between brokers and passes on what they say.
pub(super) struct Between {
    pub(super) address: SocketAddr,
    /// Connections that were made before this was counted up last end in nothing.
    pub(super) age: Arc<AtomicUsize>,
}

impl Between {
    pub(super) async fn before(to: SocketAddr) -> Between {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let between = Between { address: listener.local_addr().unwrap(), age: Arc::default() };
        let age = Arc::clone(&between.age);
        task::spawn("between", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (from_near, to_near) = stream.into_split();
                let (from_far, to_far) = Stream::connect(to).await.unwrap().into_split();
                task::spawn("there", pass_on(from_near, to_far, Arc::clone(&age)));
                task::spawn("back", pass_on(from_far, to_near, Arc::clone(&age)));
            }
        });
        between
    }

    /// Whoever is connected hears nothing more, not even that the connection ends.
    pub(super) fn swallow(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) async fn pass_on(mut reader: Reader, mut writer: Writer, age: Arc<AtomicUsize>) {
    let born = age.load(Ordering::SeqCst);
    let mut bytes = BytesMut::new();
    while let Ok(1..) = reader.read(&mut bytes, 16 << 10).await {
        let mut chunks = VecDeque::from([bytes.split().freeze()]);
        if age.load(Ordering::SeqCst) == born && writer.write_all(&mut chunks).await.is_err() {
            return;
        }
    }
    if age.load(Ordering::SeqCst) != born {
        std::future::pending::<()>().await;
    }
}

pub(super) fn log(partition: i32) -> LogId {
    LogId::new(TOPIC, partition)
}

pub(super) fn batch(count: usize) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        builder.push(1_000, None, Some(b"a record's value"), &[]).unwrap();
    }
    let mut bytes = builder.finish().unwrap();
    Batch::split_from(&mut bytes).unwrap()
}
