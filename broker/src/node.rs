//! A broker, wired from its parts, in a process and in the simulator alike.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use weir_protocol::group::Limits;
use weir_protocol::metadata::{Command, Endpoint, FEATURE_LEVEL_MAX, FeatureRange};
use weir_protocol::partition;
use weir_protocol::types::BrokerId;
use weir_runtime::disk::Disk;
use weir_runtime::net::Listener;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::watch;
use weir_runtime::{random, simulation, time};
use weir_storage::{RecoveryReport, StorageError, Store, StoreConfig};

use crate::api::{Api, FetchSessions};
use crate::complaints::Complaints;
use crate::config::Config;
use crate::controller::{ControllerClient, PartitionChanges};
use crate::group::{GroupSetup, Groups};
use crate::membership::MembershipError;
use crate::metadata::Metadata;
use crate::metadata::driver::{Driver, DriverSetup, MetadataError};
use crate::metadata::proposing::Controlling;
use crate::metrics::Metrics;
use crate::peer::{Inboxes, Peers};
use crate::producer_ids::ProducerIds;
use crate::replica::mailbox::Mailboxes;
use crate::replica::{self, FetchLimits, Replication};
use crate::server::budget::Budget;
use crate::server::{Stage, http, listener};
use crate::shard::{ProducerExpiry, ShardSetup, Shards};

/// How long a clean stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The exit code of a node that its cluster refuses.
const EXIT_REFUSED: u8 = 7;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use.
    #[error("cannot listen on {address}: the port is in use")]
    PortInUse {
        /// As configured.
        address: String,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Other machines reach the listener for other nodes, and nodes prove nothing to each other.
    #[error(
        "the internal listener {address} can be reached from other machines: set weir.internal.secret or \
         weir.internal.secret.file to the same value on all nodes, or listen on a loopback address"
    )]
    NoSecret {
        /// What it listens on.
        address: SocketAddr,
    },
    /// The data folder's content cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The metadata quorum's log or state cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl StartError {
    /// The process's exit code, as documented for `weir-broker`.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::PortInUse { .. } => 3,
            StartError::Listen { .. } | StartError::NoSecret { .. } => 2,
            StartError::Storage(error) => storage_exit_code(error),
            StartError::Metadata(error) => match error {
                MetadataError::Storage(error) => storage_exit_code(error),
                MetadataError::Damaged { .. } | MetadataError::NewerFormat(_) => 5,
                MetadataError::Disk(_) | MetadataError::Refused(_) => 1,
            },
        }
    }
}

fn storage_exit_code(error: &StorageError) -> u8 {
    match error {
        StorageError::NewerFormat { .. } | StorageError::Damaged { .. } => 5,
        StorageError::FolderFailed(_) => 6,
        _ => 1,
    }
}

/// Why a running broker cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// A sync or a journal write failed: final until the next start (contract 8).
    #[error("the data folder has failed: {0}")]
    Folder(Arc<StorageError>),
    /// A task ended that the broker cannot do without.
    #[error("{0}")]
    Task(String),
    /// It is no member of the cluster any more.
    #[error(transparent)]
    Membership(MembershipError),
}

impl Failure {
    /// The process's exit code, as documented for `weir-broker`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Folder(_) => 6,
            Failure::Task(_) => 1,
            Failure::Membership(_) => EXIT_REFUSED,
        }
    }
}

/// Says once that the broker cannot go on. The first report counts.
#[derive(Debug, Clone)]
pub(crate) struct FailureFlag(Arc<watch::Sender<Option<Failure>>>);

impl FailureFlag {
    pub(crate) fn new() -> FailureFlag {
        FailureFlag(Arc::new(watch::Sender::new(None)))
    }

    pub(crate) fn report(&self, failure: Failure) {
        self.0.send_if_modified(|reported| {
            if reported.is_some() {
                return false;
            }
            tracing::error!(%failure, "the broker cannot go on");
            *reported = Some(failure);
            true
        });
    }

    /// Waits until the broker cannot go on.
    pub(crate) async fn wait(&self) -> Failure {
        let mut reported = self.0.subscribe();
        match reported.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_else(|| Failure::Task("unknown".to_owned())),
            // The flag lives as long as its holders.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn get(&self) -> Option<Failure> {
        self.0.borrow().clone()
    }

    /// Waits until there is a report.
    pub(crate) async fn reported(&self) {
        // The flag holds the other side itself.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

/// What a group appends at once must fit into a file of the journal, with what else it holds.
fn group_limits(config: &Config) -> Limits {
    let file_bytes = config.journal_bytes / u64::from(config.journal_files.max(1));
    let append_bytes_max = usize::try_from(file_bytes / 2).unwrap_or(usize::MAX);
    Limits { append_bytes_max: append_bytes_max.min(config.groups.append_bytes_max), ..config.groups }
}

fn replica_limits(config: &Config) -> partition::Limits {
    let replica_lag_ms_max = i64::try_from(config.replica_lag_max.as_millis()).unwrap_or(i64::MAX);
    partition::Limits { replica_lag_ms_max, ..partition::Limits::default() }
}

/// A running broker.
pub struct Node {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    stage: watch::Sender<Stage>,
    failure: FailureFlag,
    store: Store,
    shards: Shards,
    groups: Groups,
    accepting: JoinHandle<()>,
    /// The tasks of the group coordinators, guarded as the shards are.
    coordinators: Vec<JoinHandle<()>>,
    /// Shards, each under a guard that reports its end.
    owners: Vec<JoinHandle<()>>,
    driver_stop: mpsc::Sender<()>,
    driver: JoinHandle<()>,
}

impl Node {
    /// Starts a broker on an open data folder: takes its port, recovers the folder, replays and leads the metadata
    /// quorum, registers this incarnation, and serves.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config, disk: Disk) -> Result<Node, StartError> {
        let config = Arc::new(config);
        for key in &config.ignored_keys {
            tracing::info!(key, "this key has no meaning for Weir and is passed over");
        }
        let (listener, address) = bind(&config.listen).await?;
        let http = match &config.http {
            Some(host_port) => Some(bind(host_port).await?),
            None => None,
        };
        let (store, recovery) = Store::open(disk.clone(), store_config(&config)).await?;
        tracing::info!(
            folder = %store.folder_id(), incarnation = %store.incarnation(), ?recovery, "data folder opened"
        );
        note_situations(&recovery);
        let metrics = Arc::new(Metrics::default());
        let failure = FailureFlag::new();
        let me = BrokerId(config.node_id);
        let (inboxes, arrivals) = Inboxes::new();
        let driver = Driver::start(DriverSetup {
            me,
            config: Arc::clone(&config),
            store: store.clone(),
            disk: disk.clone(),
            peers: Peers::new(me, inboxes),
            raft: arrivals.raft,
            questions: arrivals.quorum,
            controlling: Controlling::new(arrivals.controller),
            metrics: Arc::clone(&metrics),
            failure: failure.clone(),
        })
        .await?;
        let (mailboxes, new_mailboxes) = Mailboxes::new();
        let (inboxes, _) = Inboxes::new();
        let (_, quorum_leader) = watch::channel(None);
        let peers = Peers::new(me, inboxes);
        let client = ControllerClient::new(peers.clone(), quorum_leader);
        let changes = PartitionChanges::new(me, client, driver.reader());
        let (shards, owners) = Shards::start(&ShardSetup {
            me,
            store: store.clone(),
            image: driver.reader(),
            metrics: Arc::clone(&metrics),
            failure: failure.clone(),
            count: shard_count(&config),
            producer_expiry: ProducerExpiry {
                idle: config.producer_id_expiration,
                check: config.producer_id_expiration_check,
            },
            limits: replica_limits(&config),
            mailboxes,
            changes,
        });
        let (stage, stage_reader) = watch::channel(Stage::Running);
        let (metadata, image, resolver) = (driver.handle(), driver.reader(), driver.resolver());
        let (driver_stop, stop) = mpsc::channel(1);
        let driver = task::spawn("metadata", driver.run(shards.clone(), stop));
        let driver = watched(driver, "the metadata driver", &failure, &stage);
        register(&metadata, &store, &config, endpoint(&config, address), &failure).await?;
        let (groups, coordinators) = Groups::start(&GroupSetup {
            me,
            image: image.clone(),
            shards: shards.clone(),
            disk: disk.clone(),
            limits: group_limits(&config),
        });
        let (_, lanes) = mpsc::channel(1);
        let replication = Replication {
            me,
            peers,
            shards: shards.clone(),
            image: image.clone(),
            disk: disk.clone(),
            metrics: Arc::clone(&metrics),
            limits: FetchLimits {
                partition_bytes: config.replica_fetch_bytes_max,
                answer_bytes: config.replica_fetch_response_bytes_max,
            },
            stage: stage_reader.clone(),
            complaints: Complaints::default(),
        };
        replica::start(replication, new_mailboxes, lanes);
        let api = Arc::new(Api {
            budget: Budget::new(
                config.queued_request_bytes_max,
                config.queued_reply_bytes_max,
                Arc::clone(&metrics),
            ),
            metrics: Arc::clone(&metrics),
            me,
            producer_ids: ProducerIds::new(me, image.clone(), metadata.clone()),
            image,
            metadata,
            fetch_sessions: FetchSessions::new(config.fetch_sessions_max),
            resolver,
            shards: shards.clone(),
            groups: groups.clone(),
            disk,
            store: store.clone(),
            stage: stage_reader.clone(),
            failure: failure.clone(),
            alterations: Mutex::new(()),
            config,
        });
        if let Some((listener, _)) = &http {
            tracing::info!(address = ?listener.local_addr(), "metrics and health over HTTP");
        }
        let http_address = http.as_ref().map(|(_, address)| *address);
        if let Some((listener, _)) = http {
            task::spawn("http-listener", http::serve(listener, Arc::clone(&api), stage_reader.clone()));
        }
        let accepting = task::spawn("listener", listener::accept(listener, api, stage_reader));
        let watch = |owner, what| watched(owner, what, &failure, &stage);
        let owners = owners.into_iter().map(|owner| watch(owner, "a shard")).collect();
        let coordinators = coordinators.into_iter().map(|task| watch(task, "a group coordinator")).collect();
        Ok(Node {
            address,
            http_address,
            metrics,
            stage,
            failure,
            store,
            shards,
            groups,
            accepting,
            coordinators,
            owners,
            driver_stop,
            driver,
        })
    }

    /// The address that it listens on, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the HTTP endpoint, if there is one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until the broker cannot go on, and says why.
    pub async fn failed(&self) -> Failure {
        self.failure.wait().await
    }

    /// Stops cleanly: requests under way are answered, what is appended becomes durable, and the folder is marked so
    /// that the next start has nothing to recover.
    ///
    /// # Errors
    /// The store's, if the folder cannot be closed; then the next start recovers it.
    pub async fn stop(self) -> Result<(), StorageError> {
        self.stage.send_replace(Stage::Draining);
        let mut accepting = self.accepting;
        if time::timeout(DRAIN_MAX, &mut accepting).await.is_err() {
            tracing::warn!("requests are still under way, their connections are cut");
            self.stage.send_replace(Stage::Cut);
            report_end(accepting.await);
        }
        self.stage.send_replace(Stage::Cut);
        self.groups.stop().await;
        for coordinators in self.coordinators {
            report_end(coordinators.await);
        }
        self.shards.stop().await;
        for owner in self.owners {
            report_end(owner.await);
        }
        // A driver that has ended already needs no telling.
        let _ = self.driver_stop.send(()).await;
        report_end(self.driver.await);
        self.store.close().await
    }
}

/// Registers this start of the broker, with which each partition that it leads takes a new leader epoch (contract 4).
async fn register(
    metadata: &Metadata,
    store: &Store,
    config: &Config,
    endpoint: Endpoint,
    failure: &FailureFlag,
) -> Result<(), StartError> {
    let command = Command::RegisterBroker {
        broker: BrokerId(config.node_id),
        folder: store.folder_id(),
        incarnation: store.incarnation(),
        endpoints: vec![endpoint],
        rack: config.rack.clone(),
        features: FeatureRange { min: 1, max: FEATURE_LEVEL_MAX },
    };
    let registered = async {
        metadata.wait_leading().await.map_err(|_| "it has ended".to_owned())?;
        metadata.propose(command).await.map_err(|error| error.to_string())
    };
    weir_runtime::select! {
        failed = failure.wait() => {
            let error = match failed {
                Failure::Folder(error) => StorageError::FolderFailed(error).into(),
                other => StartError::Metadata(MetadataError::Refused(other.to_string())),
            };
            Err(error)
        }
        registered = registered => match registered {
            Ok(_) => Ok(()),
            Err(reason) => Err(StartError::Metadata(MetadataError::Refused(reason))),
        },
    }
}

/// Tells a simulation what this start has met.
fn note_situations(recovery: &RecoveryReport) {
    if recovery.rounds_replayed > 0 {
        simulation::situation("journal replayed");
    }
    if !recovery.is_certain {
        simulation::situation("uncertain tail");
    }
    if recovery.is_rebuilt || !recovery.damaged.is_empty() {
        simulation::situation("damage reported");
    }
}

fn store_config(config: &Config) -> StoreConfig {
    StoreConfig {
        journal_bytes: config.journal_bytes,
        journal_files: config.journal_files,
        ..StoreConfig::default()
    }
}

fn report_end(ended: Result<(), task::JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "while stopping");
    }
}

/// Reports the end of a task that must not end while the broker runs.
fn watched(
    handle: JoinHandle<()>,
    what: &'static str,
    failure: &FailureFlag,
    stage: &watch::Sender<Stage>,
) -> JoinHandle<()> {
    let (failure, stage) = (failure.clone(), stage.subscribe());
    task::spawn("guard", async move {
        match handle.await {
            Err(error) => failure.report(Failure::Task(format!("{what} has ended: {error}"))),
            Ok(()) if *stage.borrow() == Stage::Running => {
                failure.report(Failure::Task(format!("{what} has ended")));
            }
            Ok(()) => {}
        }
    })
}

pub(crate) async fn bind(host_port: &str) -> Result<(Listener, SocketAddr), StartError> {
    listener::bind(host_port).await.map_err(|source| {
        let address = host_port.to_owned();
        match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortInUse { address },
            _ => StartError::Listen { address, source },
        }
    })
}

/// What is registered for other brokers: never a wildcard (K5). Clients are told the address that they have reached.
fn endpoint(config: &Config, address: SocketAddr) -> Endpoint {
    let (host, port) = match &config.advertised {
        Some((host, port)) => (host.clone(), *port),
        None if address.ip().is_unspecified() => ("localhost".to_owned(), address.port()),
        None => (address.ip().to_string(), address.port()),
    };
    Endpoint { listener: "PLAINTEXT".to_owned(), host, port }
}

/// Twice the cores. A simulation sets the number: it must not depend on the machine.
fn shard_count(config: &Config) -> usize {
    config.shards.unwrap_or_else(|| match std::thread::available_parallelism() {
        Ok(cores) => 2 * cores.get(),
        Err(_) => 1 + random::below(8) as usize,
    })
}
