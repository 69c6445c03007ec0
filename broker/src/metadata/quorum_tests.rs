//! Nodes that form a metadata quorum, without brokers, in the world of this build.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_protocol::controller;
use weir_protocol::metadata::{Command, Record};
use weir_protocol::raft::{Index, VoterChange};
use weir_protocol::types::{BrokerId, LogId, VoterId};
use weir_runtime::disk::{Disk, DiskOptions, OpenMode};
use weir_runtime::net::Listener;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::{time, watch};
use weir_storage::{Store, StoreConfig};

use super::driver::{Driver, DriverSetup};
use super::error::MetadataError;
use super::{ImageReader, LeaderView};
use crate::both_worlds::{Site, scenarios};
use crate::config::{Config, QuorumVoter, Roles, Secret};
use crate::controller::Controlling;
use crate::metrics::Metrics;
use crate::node::FailureFlag;
use crate::peer::handshake::Identity;
use crate::peer::message::{ControllerQuestion, ControllerReply, NotDone};
use crate::peer::{Inboxes, PeerSetup, Peers, server};
use crate::server::Stage;
use crate::shard::Shards;

scenarios!(
    three_empty_folders_form_a_cluster_once_all_are_there,
    a_leader_that_stops_is_replaced_and_catches_up,
    a_folder_that_was_wiped_follows_without_a_vote_until_it_is_admitted,
    a_node_without_a_vote_gets_the_log,
    who_is_far_behind_gets_a_snapshot,
    a_node_alone_starts_from_its_snapshot,
    lost_entries_come_back_from_the_other_voters,
    a_lost_snapshot_comes_back_from_the_other_voters,
    a_lost_vote_silences_its_voter_for_good,
    lost_first_voters_are_asked_for_again,
    a_node_alone_refuses_what_nobody_can_repair,
    a_read_sees_what_was_committed_before_it,
);

/// Nodes, running or not.
struct Town {
    site: Site,
    addresses: BTreeMap<i32, SocketAddr>,
    voters: Vec<i32>,
    snapshot_bytes: u64,
    running: BTreeMap<i32, Running>,
    /// Counts what was proposed.
    proposed: AtomicU64,
}

/// A node that runs.
struct Running {
    voter: VoterId,
    peers: Peers,
    reader: ImageReader,
    leader: watch::Receiver<LeaderView>,
    store: Store,
    stage: watch::Sender<Stage>,
    stop: mpsc::Sender<()>,
    driver: JoinHandle<()>,
    failure: FailureFlag,
}

impl Town {
    /// A town whose voters have these numbers.
    async fn new(site: Site, voters: &[i32], observers: &[i32]) -> Town {
        let mut addresses = BTreeMap::new();
        let mut listeners = Vec::new();
        for number in voters.iter().chain(observers) {
            let listener = Listener::bind(SocketAddr::new(site.ip, 0)).await.unwrap();
            addresses.insert(*number, listener.local_addr().unwrap());
            listeners.push(listener);
        }
        let (running, proposed) = (BTreeMap::new(), AtomicU64::new(0));
        Town { site, addresses, voters: voters.to_vec(), snapshot_bytes: 20 << 20, running, proposed }
    }

    fn folder(&self, number: i32) -> PathBuf {
        self.site.root.join(format!("node-{number}"))
    }

    fn config(&self, number: i32) -> Config {
        let votes = self.voters.contains(&number);
        let voter = |id: &i32| {
            let address = self.addresses[id];
            QuorumVoter { node_id: *id, host: address.ip().to_string(), port: address.port() }
        };
        let alone = self.voters == [number];
        Config {
            node_id: number,
            roles: Roles { broker: true, controller: votes },
            quorum_voters: if alone { Vec::new() } else { self.voters.iter().map(voter).collect() },
            internal_secret: Some(Secret::new("secret")),
            metadata_snapshot_bytes: self.snapshot_bytes,
            metadata_entries_retained: 0,
            metadata_segment_bytes: 4096,
            journal_bytes: 4 << 20,
            ..Config::default()
        }
    }

    async fn disk(&self, number: i32) -> Disk {
        loop {
            match Disk::open(&self.folder(number), DiskOptions { pool_threads: 2 }).await {
                Ok(disk) => return disk,
                // Its last owner is about to let it go.
                Err(_) => task::yield_now().await,
            }
        }
    }

    /// Starts a node.
    async fn start(&mut self, number: i32) {
        self.try_start(number).await.unwrap();
    }

    async fn try_start(&mut self, number: i32) -> Result<(), MetadataError> {
        let config = Arc::new(self.config(number));
        let listener = loop {
            match Listener::bind(self.addresses[&number]).await {
                Ok(listener) => break listener,
                Err(_) => task::yield_now().await,
            }
        };
        let disk = self.disk(number).await;
        let store_config = StoreConfig { journal_bytes: 4 << 20, ..StoreConfig::default() };
        let (store, _) = Store::open(disk.clone(), store_config).await?;
        let me = BrokerId(number);
        let identity = Identity { node: me, folder: store.folder_id(), incarnation: store.incarnation() };
        let (inboxes, arrivals) = Inboxes::new();
        let peers = Peers::connecting(PeerSetup::new(&config, identity), inboxes);
        let named = |(id, at): (&i32, &SocketAddr)| (BrokerId(*id), (at.ip().to_string(), at.port()));
        peers.set_addresses(self.addresses.iter().map(named));
        let (stage, stage_reader) = watch::channel(Stage::Running);
        let (lanes, _) = mpsc::channel(1);
        task::spawn("server", server::serve(listener, peers.clone(), lanes, stage_reader));
        let failure = FailureFlag::new();
        let started = Driver::start(DriverSetup {
            me,
            config,
            store: store.clone(),
            disk,
            peers: peers.clone(),
            raft: arrivals.raft,
            questions: arrivals.quorum,
            controlling: Controlling::new(
                peers.clone(),
                arrivals.controller,
                arrivals.lost,
                controller::Timing::default(),
                controller::Limits::default(),
            ),
            metrics: Arc::new(Metrics::default()),
            failure: failure.clone(),
        })
        .await;
        let driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                stage.send_replace(Stage::Cut);
                peers.close();
                return Err(error);
            }
        };
        let voter = VoterId { broker: me, folder: store.folder_id() };
        let (reader, leader) = (driver.reader(), driver.leader());
        let (stop, stopped) = mpsc::channel(1);
        let driver = task::spawn("driver", driver.run(Shards::none(), stopped));
        let node = Running { voter, peers, reader, leader, store, stage, stop, driver, failure };
        self.running.insert(number, node);
        Ok(())
    }

    /// Stops a node in order.
    async fn stop(&mut self, number: i32) {
        let node = self.running.remove(&number).unwrap();
        assert!(node.failure.get().is_none(), "{:?}", node.failure.get());
        node.stop.send(()).await.unwrap();
        node.driver.await.unwrap();
        node.stage.send_replace(Stage::Cut);
        node.peers.close();
        node.store.close().await.unwrap();
    }

    /// The folder is gone.
    async fn wipe(&self, number: i32) {
        let disk = self.disk(number).await;
        for entry in disk.list("").await.unwrap() {
            let path = PathBuf::from(&entry.name);
            if entry.is_dir { disk.remove_dir(path).await.unwrap() } else { disk.remove(path).await.unwrap() }
        }
    }

    /// Changes a byte in the middle of a file.
    async fn damage(&self, number: i32, file: &str) {
        let disk = self.disk(number).await;
        let (file, len) = disk.open_file(file, OpenMode::ReadWrite).await.unwrap();
        let at = len / 2;
        let byte = disk.read(&file, at, 1).await.unwrap()[0];
        disk.write(&file, at, vec![Bytes::from(vec![byte ^ 0x55])]).await.unwrap();
        disk.sync(&file).await.unwrap();
    }

    /// The files of the metadata log, oldest first.
    async fn log_files(&self, number: i32) -> Vec<String> {
        let disk = self.disk(number).await;
        let folder = LogId::METADATA.to_string();
        let listed = disk.list(folder.as_str()).await.unwrap();
        let names = listed.iter().map(|entry| entry.name.clone());
        names.filter(|name| name.ends_with(".log")).map(|name| format!("{folder}/{name}")).collect()
    }

    /// Waits until one of the running nodes leads and is up to date.
    async fn leader(&self) -> i32 {
        loop {
            let newest = self.running.iter().map(|(number, node)| (*node.leader.borrow(), *number));
            if let Some((view, number)) = newest.max_by_key(|(view, _)| (view.term, view.is_me))
                && view.is_me
            {
                return number;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ask(&self, question: ControllerQuestion) -> ControllerReply {
        loop {
            let leader = self.leader().await;
            match self.running[&leader].peers.ask(BrokerId(leader), question.clone()).await {
                Ok(ControllerReply::NotDone(NotDone::NotController(_)) | ControllerReply::Unknown)
                | Err(_) => {
                    time::sleep(Duration::from_millis(10)).await;
                }
                Ok(reply) => return reply,
            }
        }
    }

    /// Commits a command; returns its index.
    async fn commit(&self) -> Index {
        let number = 1_000 + self.proposed.fetch_add(1, Ordering::Relaxed);
        let changes = BTreeMap::from([("log.retention.ms".to_owned(), Some(number.to_string()))]);
        let command = Command::SetBrokerConfig { broker: None, changes };
        match self.ask(ControllerQuestion::Propose(Record::from(command))).await {
            ControllerReply::Proposed { index, outcome } => {
                outcome.unwrap();
                index
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until all running nodes have the same image, which has this entry.
    async fn agree(&self, index: Index) {
        for node in self.running.values() {
            node.reader.wait_applied(index).await.unwrap();
        }
        let last = self.commit().await;
        let mut images = Vec::new();
        for node in self.running.values() {
            node.reader.wait_applied(last).await.unwrap();
            images.push(node.reader.current().image.clone());
        }
        assert!(images.windows(2).all(|pair| pair[0] == pair[1]), "{images:?}");
    }

    async fn change_voters(&self, change: VoterChange) {
        loop {
            match self.ask(ControllerQuestion::ChangeVoters(change)).await {
                ControllerReply::Voters(Ok(_)) => return,
                // It has not caught up yet, or the change before is under way.
                ControllerReply::Voters(Err(_)) => time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Which nodes vote, as the leader says.
    async fn voting(&self) -> Vec<VoterId> {
        match self.ask(ControllerQuestion::DescribeQuorum).await {
            ControllerReply::Quorum(state) => {
                state.nodes.iter().filter(|node| node.votes).map(|node| node.id).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn three(site: Site) -> Town {
    let mut town = Town::new(site, &[1, 2, 3], &[]).await;
    for number in 1..=3 {
        town.start(number).await;
    }
    let index = town.commit().await;
    town.agree(index).await;
    town
}

async fn three_empty_folders_form_a_cluster_once_all_are_there(site: Site) {
    let mut town = Town::new(site, &[1, 2, 3], &[]).await;
    town.start(1).await;
    town.start(2).await;
    time::sleep(Duration::from_secs(2)).await;
    let nobody = |node: &Running| *node.leader.borrow() == LeaderView::default();
    assert!(town.running.values().all(nobody), "two of three form nothing");
    town.start(3).await;
    let index = town.commit().await;
    town.agree(index).await;
    let cluster = |node: &Running| node.reader.current().image.cluster_id();
    assert!(town.running.values().all(|node| cluster(node).is_some()));
}

async fn a_leader_that_stops_is_replaced_and_catches_up(site: Site) {
    let mut town = three(site).await;
    for _ in 0..3 {
        let leader = town.leader().await;
        town.stop(leader).await;
        let index = town.commit().await;
        town.agree(index).await;
        town.start(leader).await;
        town.agree(index).await;
    }
}

async fn a_folder_that_was_wiped_follows_without_a_vote_until_it_is_admitted(site: Site) {
    let mut town = three(site).await;
    let before = town.running[&2].voter;
    town.stop(2).await;
    town.wipe(2).await;
    town.start(2).await;
    let after = town.running[&2].voter;
    assert_ne!(before, after);
    let index = town.commit().await;
    town.agree(index).await;
    assert!(town.voting().await.contains(&before));
    town.change_voters(VoterChange::Remove(before)).await;
    town.change_voters(VoterChange::Add(after)).await;
    assert!(town.voting().await.contains(&after));
    // Now its vote is needed.
    let other = if town.leader().await == 1 { 1 } else { 3 };
    town.stop(other).await;
    let index = town.commit().await;
    town.agree(index).await;
}

async fn a_node_without_a_vote_gets_the_log(site: Site) {
    let mut town = Town::new(site, &[1, 2, 3], &[4]).await;
    for number in 1..=4 {
        town.start(number).await;
    }
    let index = town.commit().await;
    town.agree(index).await;
    assert_eq!(town.voting().await.len(), 3);
}

async fn who_is_far_behind_gets_a_snapshot(site: Site) {
    let mut town = Town::new(site, &[1, 2, 3], &[]).await;
    town.snapshot_bytes = 1000;
    for number in 1..=3 {
        town.start(number).await;
    }
    let index = town.commit().await;
    town.agree(index).await;
    let behind = if town.leader().await == 1 { 2 } else { 1 };
    town.stop(behind).await;
    for _ in 0..60 {
        town.commit().await;
    }
    town.start(behind).await;
    let index = town.commit().await;
    town.agree(index).await;
    town.stop(behind).await;
    assert!(
        town.disk(behind).await.list("").await.unwrap().iter().any(|entry| entry.name == "quorum-snapshot")
    );
    // It starts from that snapshot.
    town.start(behind).await;
    town.agree(index).await;
}

async fn a_node_alone_starts_from_its_snapshot(site: Site) {
    let mut town = Town::new(site, &[1], &[]).await;
    town.snapshot_bytes = 1000;
    town.start(1).await;
    for _ in 0..3 {
        for _ in 0..60 {
            town.commit().await;
        }
        let index = town.commit().await;
        town.running[&1].reader.wait_applied(index).await.unwrap();
        let before = town.running[&1].reader.current();
        town.stop(1).await;
        let files = town.log_files(1).await;
        assert_ne!(
            Path::new(&files[0]).file_stem().unwrap(),
            "00000000000000000000",
            "the log was compacted"
        );
        town.start(1).await;
        town.running[&1].reader.wait_applied(index).await.unwrap();
        let after = town.running[&1].reader.current();
        assert_eq!(before.image.broker_defaults(), after.image.broker_defaults());
        assert_eq!(before.image.cluster_id(), after.image.cluster_id());
    }
}

async fn lost_entries_come_back_from_the_other_voters(site: Site) {
    let mut town = three(site).await;
    for _ in 0..100 {
        town.commit().await;
    }
    let leader = town.leader().await;
    town.stop(leader).await;
    let files = town.log_files(leader).await;
    town.damage(leader, &files[files.len() / 2]).await;
    town.start(leader).await;
    let index = town.commit().await;
    town.agree(index).await;
    // Its vote counts again.
    let other = (1..=3).find(|number| *number != leader).unwrap();
    town.stop(other).await;
    let index = town.commit().await;
    town.agree(index).await;
}

async fn a_lost_snapshot_comes_back_from_the_other_voters(site: Site) {
    let mut town = Town::new(site, &[1, 2, 3], &[]).await;
    town.snapshot_bytes = 1000;
    for number in 1..=3 {
        town.start(number).await;
    }
    for _ in 0..60 {
        town.commit().await;
    }
    let index = town.commit().await;
    town.agree(index).await;
    town.stop(2).await;
    town.damage(2, "quorum-snapshot").await;
    town.start(2).await;
    town.agree(index).await;
    let other = if town.leader().await == 1 { 3 } else { 1 };
    town.stop(other).await;
    let index = town.commit().await;
    town.agree(index).await;
}

async fn a_lost_vote_silences_its_voter_for_good(site: Site) {
    let mut town = three(site).await;
    town.stop(2).await;
    town.damage(2, "quorum-state").await;
    town.start(2).await;
    let index = town.commit().await;
    town.agree(index).await;
    let leader = town.leader().await;
    assert_ne!(leader, 2);
    town.stop(leader).await;
    time::sleep(Duration::from_secs(2)).await;
    assert!(
        town.running.values().all(|node| !node.leader.borrow().is_me),
        "one voice of three elects nobody"
    );
    town.start(leader).await;
    let index = town.commit().await;
    town.agree(index).await;
}

async fn lost_first_voters_are_asked_for_again(site: Site) {
    let mut town = three(site).await;
    town.stop(3).await;
    town.damage(3, "quorum-voters").await;
    town.start(3).await;
    let index = town.commit().await;
    town.agree(index).await;
    assert_eq!(town.voting().await.len(), 3);
    let other = if town.leader().await == 1 { 1 } else { 2 };
    town.stop(other).await;
    let index = town.commit().await;
    town.agree(index).await;
}

async fn a_node_alone_refuses_what_nobody_can_repair(site: Site) {
    let mut town = Town::new(site, &[1], &[]).await;
    town.start(1).await;
    town.commit().await;
    town.stop(1).await;
    town.damage(1, "quorum-state").await;
    assert!(matches!(town.try_start(1).await, Err(MetadataError::Damaged { .. })));
}

async fn a_read_sees_what_was_committed_before_it(site: Site) {
    let town = three(site).await;
    for _ in 0..5 {
        let index = town.commit().await;
        match town.ask(ControllerQuestion::Read).await {
            ControllerReply::Read(commit) => assert!(index < commit, "{index} {commit}"),
            other => panic!("{other:?}"),
        }
    }
}
