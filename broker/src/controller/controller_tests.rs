use weir_protocol::controller::{Standing, Wants};
use weir_protocol::metadata::{Endpoint, FeatureRange, IsrMember, LastStop, NewPartition, Registration};
use weir_protocol::types::{FolderId, Incarnation, LogId, TopicId};
use weir_runtime::task::RuntimeOptions;

use super::*;
use crate::peer::{Arrivals, Inboxes};

/// A controller with the log that it writes to, which commits at once.
struct Town {
    controlling: Controlling,
    image: Image,
    peers: Peers,
    broker: mpsc::Receiver<Asked<BrokerQuestion, BrokerReply>>,
    next: Index,
}

const ME: BrokerId = BrokerId(1);

impl Town {
    fn new() -> Town {
        let (inboxes, arrivals) = Inboxes::new();
        let Arrivals { controller, lost, broker, .. } = arrivals;
        let peers = Peers::new(ME, inboxes);
        let controlling =
            Controlling::new(peers.clone(), controller, lost, Timing::default(), Limits::default());
        Town { controlling, image: Image::empty(), peers, broker, next: 0 }
    }

    fn begin(&mut self) {
        let todos = self.controlling.begin(&self.image);
        self.commit(todos);
    }

    /// Commits what is proposed, and what follows from it.
    fn commit(&mut self, todos: Vec<Todo>) {
        let mut todos = std::collections::VecDeque::from(todos);
        while let Some(todo) = todos.pop_front() {
            if let Todo::Propose { ticket, record } = todo {
                let index = self.next;
                self.next += 1;
                let outcome = self.image.apply_record(index, &record);
                todos.extend(self.controlling.on_applied(index, Some(ticket), &outcome, &self.image));
            }
        }
    }

    async fn turn(&mut self) -> Vec<Todo> {
        let event = self.controlling.event().await;
        self.controlling.on_event(event, &self.image)
    }

    fn ask(&self, question: ControllerQuestion) -> task::JoinHandle<Option<ControllerReply>> {
        let peers = self.peers.clone();
        task::spawn("asker", async move { peers.ask(ME, question).await.ok() })
    }

    /// Asks, and lets everything be done that follows at once.
    async fn answer(&mut self, question: ControllerQuestion) -> Option<ControllerReply> {
        let asked = self.ask(question);
        let todos = self.turn().await;
        self.commit(todos);
        asked.await.unwrap()
    }

    fn heartbeat(&self, wants: Wants) -> ControllerQuestion {
        let broker_epoch = self.image.broker(ME).unwrap().epoch;
        let applied = self.image.applied().unwrap();
        ControllerQuestion::Heartbeat { broker: ME, broker_epoch, applied, wants }
    }

    /// Registers this node and has it unfenced.
    async fn serve(&mut self) {
        self.answer(registration(1, LastStop::Clean)).await;
        self.answer(self.heartbeat(Wants::Serve)).await;
    }
}

fn registration(incarnation: u64, last_stop: LastStop) -> ControllerQuestion {
    registration_of(7, incarnation, last_stop)
}

fn registration_of(folder: u128, incarnation: u64, last_stop: LastStop) -> ControllerQuestion {
    ControllerQuestion::Register(Registration {
        broker: ME,
        folder: FolderId(Uuid::from_u128(folder)),
        incarnation: Incarnation(incarnation),
        endpoints: vec![Endpoint { listener: "PLAINTEXT".to_owned(), host: "a".to_owned(), port: 1 }],
        rack: None,
        features: FeatureRange::KNOWN,
        last_stop,
        flush_os: false,
    })
}

fn topic() -> (LogId, Record) {
    let id = TopicId(Uuid::from_u128(99));
    let command = Command::CreateTopic {
        name: "t".to_owned(),
        id,
        partitions: vec![NewPartition { replicas: vec![ME] }],
        configs: BTreeMap::new(),
    };
    (LogId::new(id, 0), command.into())
}

fn run(test: impl Future<Output = ()>) {
    task::block_on(RuntimeOptions::default(), test).unwrap();
}

#[test]
fn a_broker_registers_is_unfenced_by_its_heartbeat_and_may_go() {
    run(async {
        let mut town = Town::new();
        town.begin();
        assert!(town.image.cluster_id().is_some(), "the first leader forms the cluster");
        let registered = town.answer(registration(1, LastStop::Clean)).await;
        assert_eq!(registered, Some(ControllerReply::Registered(Ok(1))));
        assert!(town.image.broker(ME).unwrap().fenced);
        let standing = town.answer(town.heartbeat(Wants::Serve)).await;
        let applied = 1;
        assert_eq!(
            standing,
            Some(ControllerReply::Heartbeat(Ok(Standing { fenced: true, may_go: false, applied })))
        );
        assert!(!town.image.broker(ME).unwrap().fenced, "what follows is committed");
        town.answer(town.heartbeat(Wants::Leave)).await;
        let standing = town.answer(town.heartbeat(Wants::Leave)).await;
        let Some(ControllerReply::Heartbeat(Ok(standing))) = standing else { panic!("{standing:?}") };
        assert!(!standing.fenced && standing.may_go);
    });
}

#[test]
fn a_node_that_does_not_lead_names_who_does() {
    run(async {
        let mut town = Town::new();
        let nobody = ControllerReply::NotDone(NotDone::NotController(None));
        assert_eq!(town.answer(ControllerQuestion::Read).await, Some(nobody));
        town.controlling.set_leader(Some(BrokerId(2)));
        let other = ControllerReply::NotDone(NotDone::NotController(Some(BrokerId(2))));
        assert_eq!(town.answer(ControllerQuestion::DescribeQuorum).await, Some(other));
    });
}

#[test]
fn what_is_under_way_when_the_lead_is_lost_has_an_unknown_outcome() {
    run(async {
        let mut town = Town::new();
        town.begin();
        town.serve().await;
        let (log, record) = topic();
        town.answer(ControllerQuestion::Propose(record)).await;
        let leader = IsrMember { broker: ME, broker_epoch: town.image.broker(ME).unwrap().epoch };
        let leader_epoch = town.image.partition(log).unwrap().leader_epoch;
        let renewal = ClusterCommand::RenewEpoch { log, leader, leader_epoch };
        let asked = town.ask(ControllerQuestion::ChangePartition(renewal.clone()));
        let lost = town.turn().await;
        assert!(matches!(&lost[..], [Todo::Propose { ticket: Ticket::Command(_), .. }]), "{lost:?}");
        town.controlling.set_leader(None);
        assert_eq!(asked.await.unwrap(), Some(ControllerReply::Unknown));

        // It leads again: what becomes of the former command is not taken for the outcome of a new one.
        town.begin();
        let asked = town.ask(ControllerQuestion::ChangePartition(renewal));
        let todos = town.turn().await;
        let [Todo::Propose { ticket: former, .. }] = lost[..] else { panic!("{lost:?}") };
        let none = town.controlling.on_not_done(former, NotDone::Overloaded, &town.image);
        assert!(none.is_empty());
        let index = town.next;
        town.commit(todos);
        assert_eq!(asked.await.unwrap(), Some(ControllerReply::Partition(Ok(index))));
    });
}

#[test]
fn a_proposal_that_is_not_taken_is_said_to_be_not_done() {
    run(async {
        let mut town = Town::new();
        town.begin();
        town.serve().await;
        let asked = town.ask(ControllerQuestion::Propose(topic().1));
        let todos = town.turn().await;
        let [Todo::Propose { ticket, .. }] = todos[..] else { panic!("{todos:?}") };
        town.controlling.on_not_done(ticket, NotDone::TooLarge, &town.image);
        assert_eq!(asked.await.unwrap(), Some(ControllerReply::NotDone(NotDone::TooLarge)));
    });
}

#[test]
fn nobody_asks_for_another_broker_or_fences_one() {
    run(async {
        let mut town = Town::new();
        town.begin();
        town.serve().await;
        let other = ControllerQuestion::Heartbeat {
            broker: BrokerId(2),
            broker_epoch: 0,
            applied: 0,
            wants: Wants::Serve,
        };
        assert_eq!(town.answer(other).await, None);
        let epoch = town.image.broker(ME).unwrap().epoch;
        let fence = Command::SetFenced { broker: ME, broker_epoch: epoch, fenced: true };
        assert_eq!(town.answer(ControllerQuestion::Propose(fence.into())).await, None);
    });
}

#[test]
fn a_broker_with_another_disk_is_asked_how_far_it_reaches_and_leads_again() {
    run(async {
        let mut town = Town::new();
        town.begin();
        town.serve().await;
        let (log, record) = topic();
        town.answer(ControllerQuestion::Propose(record)).await;
        town.answer(town.heartbeat(Wants::Fenced)).await;
        town.answer(registration_of(8, 1, LastStop::Clean)).await;
        assert_eq!(town.image.partition(log).unwrap().leader, None);
        town.answer(town.heartbeat(Wants::Serve)).await;
        let Asked { question, reply, .. } = town.broker.recv().await.unwrap();
        let BrokerQuestion::Tails { broker_epoch, questions } = question;
        assert_eq!(questions.len(), 1);
        let tail = weir_protocol::controller::Tail { epoch: 0, end: 5 };
        let tails = questions.into_iter().map(|question| (question, tail)).collect();
        reply.send(BrokerReply::Tails { broker_epoch, tails }).unwrap();
        while town.image.partition(log).unwrap().leader.is_none() {
            let todos = town.turn().await;
            town.commit(todos);
        }
        assert_eq!(town.image.partition(log).unwrap().leader, Some(ME));
    });
}

#[test]
fn a_broker_that_was_lost_just_before_this_node_led_is_not_waited_for() {
    run(async {
        let (inboxes, arrivals) = Inboxes::new();
        let peers = Peers::new(ME, inboxes.clone());
        let Arrivals { controller, lost, broker, .. } = arrivals;
        // Whoever is not heard is waited for longer than this test has patience.
        let timing = Timing { first_session: std::time::Duration::from_secs(3600), ..Timing::default() };
        let controlling = Controlling::new(peers.clone(), controller, lost, timing, Limits::default());
        let mut town = Town { controlling, image: Image::empty(), peers, broker, next: 0 };
        town.begin();
        town.serve().await;
        town.controlling.set_leader(None);
        let folder = town.image.broker(ME).unwrap().folder;
        inboxes.lost(VoterId { broker: ME, folder: FolderId(uuid::Uuid::nil()) });
        inboxes.lost(VoterId { broker: ME, folder });
        assert!(town.turn().await.is_empty(), "a node that claims its number");
        assert!(town.turn().await.is_empty());
        town.begin();
        while !town.image.broker(ME).unwrap().fenced {
            let todos = town.turn().await;
            town.commit(todos);
        }
    });
}
