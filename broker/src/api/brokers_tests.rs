use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::metadata::{
    ClusterCommand, Command, Endpoint, FeatureRange, LastStop, NewPartition, Record, Registration,
};
use weir_protocol::types::{FolderId, Incarnation};

use super::*;

const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

/// An image of brokers 1 to 3 with a topic on all of them that 1 leads.
pub(in crate::api) struct Three {
    pub(in crate::api) image: Image,
    next: i64,
}

impl Three {
    pub(in crate::api) fn new() -> Three {
        let mut three = Three { image: Image::empty(), next: 0 };
        three.apply(Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 2 });
        (1..=3).for_each(|id| three.register(id));
        (1..=3).for_each(|id| three.unfence(id));
        let replicas = (1..=3).map(BrokerId).collect();
        let partitions = vec![NewPartition { replicas }];
        let (name, configs) = ("t".to_owned(), BTreeMap::new());
        three.apply(Command::CreateTopic { name, id: TOPIC, partitions, configs });
        three
    }

    pub(in crate::api) fn apply(&mut self, record: impl Into<Record>) {
        self.image.apply_record(self.next, &record.into()).expect("it fits");
        self.next += 1;
    }

    fn register(&mut self, id: i32) {
        let endpoint = |listener: &str, port: u16| Endpoint {
            listener: listener.to_owned(),
            host: format!("host-{id}"),
            port,
        };
        self.apply(ClusterCommand::RegisterBroker(Registration {
            broker: BrokerId(id),
            folder: FolderId(Uuid::from_u128(id as u128)),
            incarnation: Incarnation(1),
            endpoints: vec![endpoint(INTERNAL_LISTENER, 9093), endpoint("PLAINTEXT", 9092)],
            rack: (id > 1).then(|| format!("rack-{id}")),
            features: FeatureRange { min: 1, max: 2 },
            last_stop: LastStop::Clean,
            flush_os: false,
        }));
    }

    fn epoch(&self, id: i32) -> i64 {
        self.image.broker(BrokerId(id)).expect("registered").epoch
    }

    pub(in crate::api) fn fence(&mut self, id: i32) {
        let broker_epoch = self.epoch(id);
        self.apply(ClusterCommand::Fence { broker: BrokerId(id), broker_epoch });
    }

    fn unfence(&mut self, id: i32) {
        let broker_epoch = self.epoch(id);
        self.apply(ClusterCommand::Unfence { broker: BrokerId(id), broker_epoch });
    }

    fn state(&self) -> PartitionState {
        self.image.topic(TOPIC).expect("a topic").partitions[0].clone()
    }

    /// As broker `me` shows it to a client that has reached it at `reached`.
    fn brokers(&self, me: i32) -> Brokers<'_> {
        Brokers::new(&self.image, BrokerId(me), (StrBytes::from_static_str("reached"), 1))
    }
}

fn told(brokers: &Brokers<'_>, fenced_too: bool) -> Vec<String> {
    let line = |shown: Shown| {
        let rack = shown.rack.map(|rack| format!(" {}", rack.as_str())).unwrap_or_default();
        let fenced = if shown.fenced { " fenced" } else { "" };
        format!("{} {}:{}{rack}{fenced}", shown.id, shown.host.as_str(), shown.port)
    };
    brokers.all(fenced_too).map(line).collect()
}

fn kafka(ids: &[i32]) -> Vec<KafkaBrokerId> {
    ids.iter().map(|id| KafkaBrokerId(*id)).collect()
}

#[test]
fn k5_every_live_broker_is_shown_with_its_rack_and_never_where_only_nodes_meet() {
    let three = Three::new();
    let brokers = three.brokers(2);
    assert_eq!(told(&brokers, false), ["1 host-1:9092", "2 reached:1 rack-2", "3 host-3:9092 rack-3"]);
    assert_eq!(brokers.controller(), KafkaBrokerId(2), "whoever is asked takes what the controller must do");
}

#[test]
fn k5_a_fenced_broker_is_shown_to_who_asks_for_it_and_is_not_the_controller() {
    let mut three = Three::new();
    three.fence(3);
    let brokers = three.brokers(3);
    assert_eq!(told(&brokers, false), ["1 host-1:9092", "2 host-2:9092 rack-2"]);
    assert_eq!(told(&brokers, true)[2], "3 reached:1 rack-3 fenced");
    assert_eq!(brokers.controller(), KafkaBrokerId(1), "a live one");
    assert_eq!(brokers.serving(BrokerId(3)), None);
}

#[test]
fn a_refusal_names_the_leader_and_where_it_is_once() {
    let mut three = Three::new();
    three.fence(1);
    let epoch = three.state().leader_epoch;
    let mut hints = Hints::new(three.brokers(3));
    let hint = Some(LeaderHint { leader_id: 2, leader_epoch: epoch });
    assert_eq!(hints.leader(ResponseError::NotLeaderOrFollower, TopicId::ZERO, "t", 0), hint);
    assert_eq!(hints.leader(ResponseError::FencedLeaderEpoch, TOPIC, "", 0), hint);
    let host = StrBytes::from_static_str("host-2");
    let rack = Some(StrBytes::from_static_str("rack-2"));
    assert_eq!(hints.into_endpoints(), [NodeEndpoint { node_id: 2, host, port: 9092, rack }]);
}

#[test]
fn a_refusal_that_is_about_something_else_names_nobody() {
    let three = Three::new();
    let mut hints = Hints::new(three.brokers(3));
    assert_eq!(hints.leader(ResponseError::NotEnoughReplicas, TOPIC, "", 0), None);
    assert_eq!(hints.leader(ResponseError::NotLeaderOrFollower, TOPIC, "", 5), None);
    assert_eq!(hints.leader(ResponseError::NotLeaderOrFollower, TopicId::ZERO, "absent", 0), None);
    assert_eq!(hints.into_endpoints(), []);
}

#[test]
fn a_refusal_names_nobody_while_nobody_leads() {
    let mut three = Three::new();
    (1..=3).for_each(|id| three.fence(id));
    assert_eq!(partition_error(&three.state()), ResponseError::LeaderNotAvailable.code());
    assert_eq!(leader_id(&three.state()), KafkaBrokerId(-1));
    let mut hints = Hints::new(three.brokers(3));
    assert_eq!(hints.leader(ResponseError::NotLeaderOrFollower, TOPIC, "", 0), None);
}

#[test]
fn replicas_of_brokers_that_do_not_serve_are_offline_and_stay_eligible() {
    let mut three = Three::new();
    three.fence(1);
    assert_eq!(offline(&three.image, &three.state()), kafka(&[1]));
    assert_eq!(ids(&three.state().isr), kafka(&[2, 3]));
    assert_eq!(ids(&three.state().elr), kafka(&[]), "two of three are enough");
    three.fence(2);
    assert_eq!(offline(&three.image, &three.state()), kafka(&[1, 2]));
    assert_eq!(ids(&three.state().elr), kafka(&[2]), "it holds every committed record");
    assert_eq!(ids(&three.state().isr), kafka(&[3]));
}
