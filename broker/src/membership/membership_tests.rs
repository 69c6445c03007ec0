use tokio::sync::mpsc;
use weir_protocol::controller::Standing;
use weir_protocol::metadata::{ClusterCommand, Endpoint, FEATURE_LEVEL_MAX, FeatureRange, Image, Record};
use weir_protocol::types::{FolderId, Incarnation};
use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::task::RuntimeOptions;
use weir_storage::{StorageError, StoreConfig};

use super::*;
use crate::metadata::{ImageByHand, LeaderView, Process};
use crate::peer::{Arrivals, Asked, Inboxes, Peers};

const ME: BrokerId = BrokerId(1);

/// A membership whose controller is the test.
struct Town {
    membership: Membership,
    questions: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>,
    image: Image,
    published: ImageByHand,
    next: i64,
    failure: FailureFlag,
    registration: Registration,
    _leader: watch::Sender<LeaderView>,
    _folder: tempfile::TempDir,
}

impl Town {
    async fn new(feature_level: u16) -> Town {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), DiskOptions::default()).await.unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, ..StoreConfig::default() };
        let (store, _) = Store::open(disk, config).await.unwrap();
        let (inboxes, Arrivals { controller: questions, .. }) = Inboxes::new();
        let (leader, followed) = watch::channel(LeaderView { leader: Some(ME), ..LeaderView::default() });
        let process = Process { broker: ME, folder: store.folder_id(), incarnation: store.incarnation() };
        let published = ImageByHand::new(process);
        let failure = FailureFlag::new();
        let registration = Registration {
            broker: ME,
            folder: store.folder_id(),
            incarnation: store.incarnation(),
            endpoints: vec![Endpoint { listener: "PLAINTEXT".to_owned(), host: "a".to_owned(), port: 1 }],
            rack: None,
            features: FeatureRange::KNOWN,
            last_stop: LastStop::Certain,
            flush_os: false,
        };
        let membership = Membership::start(MembershipSetup {
            registration: registration.clone(),
            client: ControllerClient::new(Peers::new(ME, inboxes), followed),
            image: published.reader.clone(),
            store,
            failure: failure.clone(),
            heartbeat: Duration::from_millis(5),
            session: Session::of_cluster(),
            lease: Duration::from_secs(1),
            alone: true,
        });
        let (image, next) = (Image::empty(), 0);
        let mut town = Town {
            membership,
            questions,
            image,
            published,
            next,
            failure,
            registration,
            _leader: leader,
            _folder: folder,
        };
        town.apply(Command::FormCluster { cluster_id: uuid::Uuid::from_u128(9), feature_level });
        town
    }

    fn apply(&mut self, record: impl Into<Record>) -> ControllerReply {
        let index = self.next;
        self.next += 1;
        let outcome = self.image.apply_record(index, &record.into());
        self.published.publish(self.image.clone());
        ControllerReply::Proposed { index, outcome }
    }

    async fn question(&mut self) -> Asked<ControllerQuestion, ControllerReply> {
        self.questions.recv().await.unwrap()
    }

    /// The next registration, answered as the image says.
    async fn register(&mut self) {
        let Asked { question, reply, .. } = self.question().await;
        let ControllerQuestion::Register(registration) = question else { panic!("{question:?}") };
        let command = Record::from(ClusterCommand::RegisterBroker(registration));
        let answer = match self.image.permits(&command) {
            Err(rejected) => Err(Refused::Rejected(rejected)),
            Ok(()) => {
                self.apply(command);
                Ok(self.image.broker(ME).unwrap().epoch)
            }
        };
        reply.send(ControllerReply::Registered(answer)).unwrap();
    }

    /// The next heartbeat, with this answer. Returns what the broker wants.
    async fn heartbeat(&mut self, answer: Result<Standing, Refused>) -> Wants {
        let Asked { question, reply, .. } = self.question().await;
        let ControllerQuestion::Heartbeat { wants, .. } = question else { panic!("{question:?}") };
        // The broker may have changed its mind meanwhile.
        let _ = reply.send(ControllerReply::Heartbeat(answer));
        wants
    }

    fn unfence(&mut self) {
        let broker_epoch = self.image.broker(ME).unwrap().epoch;
        self.apply(ClusterCommand::Unfence { broker: ME, broker_epoch });
    }
}

const SERVES: Result<Standing, Refused> = Ok(Standing { fenced: false, may_go: false, applied: 0 });

fn run(test: impl Future<Output = ()>) {
    weir_runtime::task::block_on(RuntimeOptions::default(), test).unwrap();
}

#[test]
fn a_broker_has_joined_when_its_own_image_shows_it_serving() {
    run(async {
        let mut town = Town::new(FEATURE_LEVEL_MAX).await;
        town.register().await;
        assert_eq!(town.heartbeat(SERVES).await, Wants::Serve);
        assert!(
            time::timeout(Duration::from_millis(20), town.membership.joined()).await.is_err(),
            "it is fenced"
        );
        town.unfence();
        town.membership.joined().await.unwrap();
    });
}

#[test]
fn a_cluster_of_one_raises_its_feature_level_by_itself() {
    run(async {
        let mut town = Town::new(1).await;
        town.register().await;
        for _ in 0..2 {
            let Asked { question, reply, .. } = town.question().await;
            let ControllerQuestion::Propose(record) = question else { panic!("{question:?}") };
            reply.send(town.apply(record)).unwrap();
        }
        assert_eq!(town.image.feature_level(), FEATURE_LEVEL_MAX);
        town.register().await;
        town.heartbeat(SERVES).await;
        town.membership.joined().await.unwrap();
    });
}

#[test]
fn a_level_that_is_not_known_ends_the_start() {
    run(async {
        let mut town = Town::new(FEATURE_LEVEL_MAX).await;
        let Asked { reply, .. } = town.question().await;
        let refused = Refused::Rejected(Rejected::UnsupportedFeature(9));
        reply.send(ControllerReply::Registered(Err(refused))).unwrap();
        let error = town.membership.joined().await.unwrap_err();
        assert!(error.to_string().starts_with("the cluster works at feature level 9"), "{error}");
        assert!(town.failure.get().is_none(), "whoever starts it says so");
    });
}

#[test]
fn a_broker_whose_number_another_process_has_taken_does_not_go_on() {
    run(async {
        let mut town = Town::new(FEATURE_LEVEL_MAX).await;
        town.register().await;
        town.heartbeat(SERVES).await;
        let given = town.image.broker(ME).unwrap().epoch;
        let other = Registration {
            folder: FolderId(uuid::Uuid::from_u128(1)),
            incarnation: Incarnation(1),
            ..town.registration.clone()
        };
        town.apply(ClusterCommand::RegisterBroker(other));
        // It may see the image before its next heartbeat.
        if let Ok(Some(asked)) = time::timeout(Duration::from_millis(50), town.questions.recv()).await {
            let current = town.image.broker(ME).unwrap().epoch;
            let stale = Rejected::StaleBrokerEpoch { broker: ME, given, current };
            let _ = asked.reply.send(ControllerReply::Heartbeat(Err(Refused::Rejected(stale))));
        }
        let failure = town.failure.wait().await;
        assert!(matches!(failure, Failure::Membership(MembershipError::Superseded(ME))), "{failure}");
        assert_eq!(failure.exit_code(), 7);
    });
}

#[test]
fn a_broker_that_was_removed_registers_anew() {
    run(async {
        let mut town = Town::new(FEATURE_LEVEL_MAX).await;
        town.register().await;
        town.heartbeat(SERVES).await;
        town.apply(Command::UnregisterBroker { broker: ME });
        loop {
            let Asked { question, reply, .. } = town.question().await;
            match question {
                ControllerQuestion::Register(registration) => {
                    town.apply(ClusterCommand::RegisterBroker(registration));
                    let epoch = town.image.broker(ME).unwrap().epoch;
                    reply.send(ControllerReply::Registered(Ok(epoch))).unwrap();
                    break;
                }
                _ => {
                    let refused = Refused::Rejected(Rejected::UnknownBroker(ME));
                    let _ = reply.send(ControllerReply::Heartbeat(Err(refused)));
                }
            }
        }
        town.heartbeat(SERVES).await;
    });
}

#[test]
fn the_controller_is_told_of_a_wish_to_go_and_of_a_failed_folder() {
    run(async {
        let mut town = Town::new(FEATURE_LEVEL_MAX).await;
        town.register().await;
        town.heartbeat(SERVES).await;
        assert!(!town.membership.leave(Duration::ZERO).await);
        while town.heartbeat(Ok(Standing { fenced: false, may_go: false, applied: 0 })).await != Wants::Leave
        {
        }
        town.heartbeat(Ok(Standing { fenced: true, may_go: true, applied: 0 })).await;
        assert!(town.membership.leave(Duration::from_secs(10)).await);
        town.failure.report(Failure::Folder(std::sync::Arc::new(StorageError::Closed)));
        while town.heartbeat(SERVES).await != Wants::Fenced {}
        town.membership.fenced(Duration::from_secs(10)).await;
    });
}
