//! Makes a node's parts and connects them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use weir_protocol::group::Limits as GroupLimits;
use weir_protocol::metadata::{Endpoint, Registration};
use weir_protocol::types::BrokerId;
use weir_protocol::{controller, partition};
use weir_runtime::disk::Disk;
use weir_runtime::net::Listener;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::{random, simulation, watch};
use weir_storage::{RecoveryReport, Store, StoreConfig};

use super::{Failure, FailureFlag, Node, StartError, bind};
use crate::api::{Api, FetchSessions};
use crate::complaints::Complaints;
use crate::config::Config;
use crate::controller::{ControllerClient, Controlling, PartitionChanges};
use crate::group::{GroupSetup, Groups};
use crate::membership::{self, INTERNAL, Membership, MembershipSetup, Session, tails};
use crate::metadata::ImageReader;
use crate::metadata::driver::{Driver, DriverSetup};
use crate::metrics::Metrics;
use crate::peer::handshake::Identity;
use crate::peer::server::ReplicaLane;
use crate::peer::{self, Arrivals, Inboxes, PeerSetup, Peers};
use crate::producer_ids::ProducerIds;
use crate::replica::mailbox::{Mailbox, Mailboxes};
use crate::replica::{self, FetchLimits, Replication};
use crate::server::Stage;
use crate::server::budget::Budget;
use crate::shard::{ProducerExpiry, ShardSetup, Shards};

/// Lanes of followers that may wait until they are served.
const LANES_QUEUE: usize = 64;
/// A setting that is `1` in `sync` topics.
const FLUSH_MESSAGES: &str = "log.flush.interval.messages";

/// What lets clients in, once the node has joined its cluster.
pub(super) struct Entrance {
    pub(super) clients: Option<Listener>,
    pub(super) http: Option<Listener>,
    pub(super) api: Arc<Api>,
}

/// Bound sockets, with the ports that were picked.
struct Sockets {
    clients: Option<(Listener, SocketAddr)>,
    internal: Option<(Listener, SocketAddr)>,
    http: Option<(Listener, SocketAddr)>,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Sockets, StartError> {
        let clients = match config.roles.broker {
            true => Some(bind(&config.listen).await?),
            false => None,
        };
        let internal = match &config.internal_listen {
            Some(listen) if config.is_clustered() => {
                Some(peer::server::bind(listen, config.internal_secret.as_ref()).await?)
            }
            _ => None,
        };
        let http = match &config.http {
            Some(listen) => Some(bind(listen).await?),
            None => None,
        };
        Ok(Sockets { clients, internal, http })
    }

    fn address(&self) -> SocketAddr {
        let first = self.clients.as_ref().or(self.internal.as_ref());
        first.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |(_, address)| *address)
    }

    /// What is registered for other brokers: never a wildcard (K5). Clients are told the address that they have reached.
    fn endpoints(&self, config: &Config) -> Vec<Endpoint> {
        let of = |name: &str, socket: &Option<(Listener, SocketAddr)>, advertised: &Option<(String, u16)>| {
            let address = socket.as_ref().map(|(_, address)| *address)?;
            let (host, port) = match advertised {
                Some((host, port)) => (host.clone(), *port),
                None if address.ip().is_unspecified() => ("localhost".to_owned(), address.port()),
                None => (address.ip().to_string(), address.port()),
            };
            Some(Endpoint { listener: name.to_owned(), host, port })
        };
        let clients = of("PLAINTEXT", &self.clients, &config.advertised);
        let internal = of(INTERNAL, &self.internal, &config.internal_advertised);
        clients.into_iter().chain(internal).collect()
    }
}

/// What all parts share.
struct Ground {
    config: Arc<Config>,
    me: BrokerId,
    disk: Disk,
    store: Store,
    metrics: Arc<Metrics>,
    failure: FailureFlag,
    stage: watch::Sender<Stage>,
    peers: Peers,
}

impl Node {
    /// Makes all parts and starts their tasks. Clients are not let in yet.
    pub(super) async fn assemble(config: Arc<Config>, disk: Disk) -> Result<(Node, Entrance), StartError> {
        let sockets = Sockets::bind(&config).await?;
        let (store, recovery) = Store::open(disk.clone(), store_config(&config)).await?;
        let (folder, incarnation) = (store.folder_id(), store.incarnation());
        tracing::info!(%folder, %incarnation, is_new = recovery.is_new, "data folder opened");
        tracing::debug!(?recovery);
        note_situations(&recovery);
        let (inboxes, arrivals) = Inboxes::new();
        let metrics = Arc::new(Metrics::default());
        let ground = Ground {
            me: BrokerId(config.node_id),
            peers: connect(&config, &store, inboxes, &metrics),
            disk,
            store,
            metrics,
            failure: FailureFlag::new(),
            stage: watch::Sender::new(Stage::Running),
            config,
        };
        let endpoints = sockets.endpoints(&ground.config);
        let internal = endpoints.iter().find(|endpoint| endpoint.listener == INTERNAL);
        let own = internal.map(|endpoint| (ground.me, (endpoint.host.clone(), endpoint.port)));
        ground.peers.set_addresses(own);
        let registration = ground.registration(endpoints, &recovery);
        ground.run(sockets, arrivals, registration).await
    }
}

/// The way to the other nodes, if there are any.
fn connect(config: &Config, store: &Store, inboxes: Inboxes, metrics: &Arc<Metrics>) -> Peers {
    let node = BrokerId(config.node_id);
    if !config.is_clustered() {
        return Peers::new(node, inboxes);
    }
    let me = Identity { node, folder: store.folder_id(), incarnation: store.incarnation() };
    let setup = PeerSetup { metrics: Arc::clone(metrics), ..PeerSetup::new(config, me) };
    let peers = Peers::connecting(setup, inboxes);
    let voters = config.quorum_voters.iter();
    peers.set_addresses(voters.map(|voter| (BrokerId(voter.node_id), (voter.host.clone(), voter.port))));
    peers
}

impl Ground {
    fn registration(&self, endpoints: Vec<Endpoint>, recovery: &RecoveryReport) -> Registration {
        let flush = self.config.topic_defaults.get(FLUSH_MESSAGES);
        Registration {
            broker: self.me,
            folder: self.store.folder_id(),
            incarnation: self.store.incarnation(),
            endpoints,
            rack: self.config.rack.clone(),
            features: self.config.feature_levels,
            last_stop: membership::last_stop(recovery),
            flush_os: flush.is_some_and(|messages| messages != "1"),
        }
    }

    async fn run(
        self,
        sockets: Sockets,
        arrivals: Arrivals,
        registration: Registration,
    ) -> Result<(Node, Entrance), StartError> {
        let Arrivals { raft, quorum, controller, broker, lost } = arrivals;
        let (timing, limits) = (self.timing(), controller::Limits::default());
        let driver = Driver::start(DriverSetup {
            me: self.me,
            config: Arc::clone(&self.config),
            store: self.store.clone(),
            disk: self.disk.clone(),
            peers: self.peers.clone(),
            raft,
            questions: quorum,
            controlling: Controlling::new(self.peers.clone(), controller, lost, timing, limits)
                .with_feature_levels(self.config.feature_levels),
            metrics: Arc::clone(&self.metrics),
            failure: self.failure.clone(),
        })
        .await?;
        let (image, leader, resolver) = (driver.reader(), driver.leader(), driver.resolver());
        let metadata = driver.handle();
        let voters = self.config.quorum_voters.iter().map(|voter| BrokerId(voter.node_id));
        let client = ControllerClient::new(self.peers.clone(), leader.clone()).with_voters(voters);
        let (mailboxes, followed) = Mailboxes::new();
        let changes = PartitionChanges::new(self.me, client.clone(), image.clone());
        let (shards, owners) = Shards::start(&self.shard_setup(image.clone(), mailboxes, changes));
        let is_clustered = self.config.is_clustered();
        let session = if is_clustered { Session::of_cluster() } else { Session::default() };
        let (groups, coordinators) = Groups::start(&GroupSetup {
            me: self.me,
            image: image.clone(),
            shards: shards.clone(),
            disk: self.disk.clone(),
            limits: group_limits(&self.config),
            session: session.clone(),
        });
        let (driver_stop, stop) = mpsc::channel(1);
        let driver = task::spawn("metadata", driver.run(shards.clone(), stop));
        task::spawn("tails", tails::answer(broker, image.clone(), shards.clone()));
        let address = sockets.address();
        let Sockets { clients, internal, http } = sockets;
        if let Some((listener, _)) = internal {
            self.replicate(listener, &shards, &image, followed);
        }
        let membership = self.config.roles.broker.then(|| self.join(registration, client, &image, session));
        let api = Arc::new(Api {
            budget: Budget::new(
                self.config.queued_request_bytes_max,
                self.config.queued_reply_bytes_max,
                Arc::clone(&self.metrics),
            ),
            metrics: Arc::clone(&self.metrics),
            me: self.me,
            producer_ids: ProducerIds::new(self.me, image.clone(), metadata.clone()),
            image,
            metadata,
            fetch_sessions: FetchSessions::new(self.config.fetch_sessions_max),
            resolver,
            shards: shards.clone(),
            groups: groups.clone(),
            disk: self.disk.clone(),
            store: self.store.clone(),
            stage: self.stage.subscribe(),
            failure: self.failure.clone(),
            alterations: Mutex::new(()),
            config: Arc::clone(&self.config),
        });
        let http_address = http.as_ref().map(|(_, address)| *address);
        let entrance = Entrance {
            clients: clients.map(|(listener, _)| listener),
            http: http.map(|(listener, _)| listener),
            api,
        };
        let watch = |owner, what| watched(owner, what, &self.failure, &self.stage);
        let owners = owners.into_iter().map(|owner| watch(owner, "a shard")).collect();
        let coordinators = coordinators.into_iter().map(|task| watch(task, "a group coordinator")).collect();
        let driver = watch(driver, "the metadata driver");
        let others = self.config.quorum_voters.iter().map(|voter| BrokerId(voter.node_id));
        let node = Node {
            address,
            http_address,
            metrics: self.metrics,
            stage: self.stage,
            failure: self.failure,
            store: self.store,
            shards,
            groups,
            accepting: None,
            coordinators,
            owners,
            driver_stop,
            driver,
            leader,
            peers: self.peers,
            other_voters: others.filter(|id| *id != self.me).collect(),
            membership,
            leave_max: if is_clustered { self.config.controlled_shutdown_max } else { Duration::ZERO },
        };
        Ok((node, entrance))
    }

    /// Begins to be a member of the cluster.
    fn join(
        &self,
        registration: Registration,
        client: ControllerClient,
        image: &ImageReader,
        session: Session,
    ) -> Membership {
        let heartbeat = self.config.heartbeat_interval;
        Membership::start(MembershipSetup {
            registration,
            client,
            image: image.clone(),
            store: self.store.clone(),
            failure: self.failure.clone(),
            heartbeat,
            session,
            lease: membership::lease(&self.timing(), self.config.election_timeout, heartbeat),
            alone: !self.config.is_clustered(),
        })
    }

    /// How long the controller waits for what.
    fn timing(&self) -> controller::Timing {
        let default = controller::Timing::default();
        // A heartbeat to a new controller is on its way as soon as the broker hears of that one.
        let first_session = self.config.election_timeout + 2 * self.config.heartbeat_interval;
        controller::Timing {
            session: self.config.session_timeout,
            first_session: default.first_session.max(first_session),
            balance: self.config.leader_balance,
            ..default
        }
    }

    fn shard_setup(&self, image: ImageReader, mailboxes: Mailboxes, changes: PartitionChanges) -> ShardSetup {
        let replica_lag_ms_max = i64::try_from(self.config.replica_lag_max.as_millis()).unwrap_or(i64::MAX);
        ShardSetup {
            me: self.me,
            store: self.store.clone(),
            image,
            metrics: Arc::clone(&self.metrics),
            failure: self.failure.clone(),
            count: shard_count(&self.config),
            producer_expiry: ProducerExpiry {
                idle: self.config.producer_id_expiration,
                check: self.config.producer_id_expiration_check,
            },
            compact_every: self.config.log_cleaner_enable.then_some(self.config.log_cleaner_backoff),
            limits: partition::Limits { replica_lag_ms_max, ..partition::Limits::default() },
            mailboxes,
            changes,
        }
    }

    /// Serves the other nodes, follows leaders, and is followed.
    fn replicate(
        &self,
        listener: Listener,
        shards: &Shards,
        image: &ImageReader,
        followed: mpsc::UnboundedReceiver<Arc<Mailbox>>,
    ) {
        let (lanes_to, lanes) = mpsc::channel::<ReplicaLane>(LANES_QUEUE);
        let stage = self.stage.subscribe();
        task::spawn("peers", peer::server::serve(listener, self.peers.clone(), lanes_to, stage.clone()));
        let replication = Replication {
            me: self.me,
            peers: self.peers.clone(),
            shards: shards.clone(),
            image: image.clone(),
            disk: self.disk.clone(),
            metrics: Arc::clone(&self.metrics),
            limits: FetchLimits {
                partition_bytes: self.config.replica_fetch_bytes_max,
                answer_bytes: self.config.replica_fetch_response_bytes_max,
                append_bytes: self.store.append_bytes_max(),
            },
            stage,
            complaints: Complaints::default(),
        };
        replica::start(replication, followed, lanes);
    }
}

/// What a group appends at once must fit into a file of the journal, with what else it holds.
fn group_limits(config: &Config) -> GroupLimits {
    let file_bytes = config.journal_bytes / u64::from(config.journal_files.max(1));
    let append_bytes_max = usize::try_from(file_bytes / 2).unwrap_or(usize::MAX);
    GroupLimits { append_bytes_max: append_bytes_max.min(config.groups.append_bytes_max), ..config.groups }
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

/// Reports the end of a task that must not end while the node runs.
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

/// Twice the cores. A simulation sets the number: it must not depend on the machine.
fn shard_count(config: &Config) -> usize {
    config.shards.unwrap_or_else(|| match std::thread::available_parallelism() {
        Ok(cores) => 2 * cores.get(),
        Err(_) => 1 + random::below(8) as usize,
    })
}
