//! Scenarios of the cluster's image.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::names::InvalidTopicName;
use super::placement::{PlacementError, default_replication_factor, place};
use super::*;
use crate::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};

const ONE: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);
const THREE: BrokerId = BrokerId(3);

/// A cluster whose laws are checked after each command, and that shows that a rejected command changes nothing.
struct Bench {
    image: Image,
    index: i64,
}

impl Bench {
    /// A formed cluster without brokers.
    fn formed() -> Bench {
        let mut bench = Bench { image: Image::empty(), index: -1 };
        let formed = bench.apply(Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 1 });
        assert_eq!(formed, Ok(Change::ClusterFormed));
        bench
    }

    /// A formed cluster of these brokers, each on its first start.
    fn of(brokers: &[BrokerId]) -> Bench {
        let mut bench = Bench::formed();
        for id in brokers {
            bench.start(*id, 1, 1);
        }
        bench
    }

    fn apply(&mut self, command: Command) -> Result<Change, Rejected> {
        self.index += 1;
        let before = self.image.clone();
        let outcome = self.image.apply(self.index, &command);
        self.image.invariants().expect("the laws hold after each command");
        if outcome.is_err() {
            assert_eq!(Image { applied: before.applied, ..self.image.clone() }, before);
        }
        assert_eq!(self.image.applied(), Some(self.index));
        outcome
    }

    fn start(&mut self, broker: BrokerId, folder: u128, incarnation: u64) -> Vec<LogId> {
        match self.apply(register(broker, folder, incarnation, None)) {
            Ok(Change::BrokerRegistered { broker: registered, epoch, partitions }) => {
                assert_eq!((registered, epoch), (broker, self.image.broker(broker).unwrap().epoch));
                partitions
            }
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, name: &str, id: u128, replicas: &[&[BrokerId]]) -> Result<Change, Rejected> {
        let partitions =
            replicas.iter().map(|replicas| NewPartition { replicas: replicas.to_vec() }).collect();
        self.apply(Command::CreateTopic {
            name: name.to_owned(),
            id: topic(id),
            partitions,
            configs: BTreeMap::new(),
        })
    }

    fn partition(&self, id: u128) -> PartitionState {
        self.image.partition(LogId::new(topic(id), 0)).unwrap().clone()
    }

    fn member(&self, broker: BrokerId) -> IsrMember {
        IsrMember { broker, broker_epoch: self.image.broker(broker).unwrap().epoch }
    }

    fn change(&mut self, leader: Option<BrokerId>, isr: &[IsrMember]) -> Result<Change, Rejected> {
        let partition_epoch = self.partition(7).partition_epoch;
        let log = LogId::new(topic(7), 0);
        self.apply(Command::ChangePartition {
            log,
            partition_epoch,
            leader,
            isr: isr.to_vec(),
            renew_epoch: false,
        })
    }
}

fn topic(id: u128) -> TopicId {
    TopicId(Uuid::from_u128(id))
}

fn register(broker: BrokerId, folder: u128, incarnation: u64, rack: Option<&str>) -> Command {
    Command::RegisterBroker {
        broker,
        folder: FolderId(Uuid::from_u128(folder + 1000 * broker.0 as u128)),
        incarnation: Incarnation(incarnation),
        endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 }],
        rack: rack.map(str::to_owned),
        features: FeatureRange { min: 1, max: 1 },
    }
}

fn configs<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

#[test]
fn a_cluster_is_formed_once_and_before_anything_else() {
    let mut image = Image::empty();
    assert_eq!(image.apply(0, &register(ONE, 1, 1, None)), Err(Rejected::NotFormed));
    let form = Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 1 };
    assert_eq!(image.apply(1, &form), Ok(Change::ClusterFormed));
    assert_eq!(image.apply(2, &form), Err(Rejected::AlreadyFormed));
    assert_eq!(image.cluster_id(), Some(Uuid::from_u128(9)));
    assert_eq!(image.feature_level(), 1);
}

#[test]
fn entries_are_applied_in_order_and_once() {
    let mut bench = Bench::of(&[ONE]);
    let applied = bench.index;
    let again = register(ONE, 1, 2, None);
    let refused = bench.image.apply(applied, &again);
    assert_eq!(refused, Err(Rejected::OutOfOrder { index: applied, applied }));
    assert_eq!(bench.image.pass(applied + 5), Ok(()), "an entry without a command");
    assert_eq!(bench.image.applied(), Some(applied + 5));
}

#[test]
fn every_incarnation_that_leads_takes_new_leader_epochs_on_a_single_node_too() {
    // Contract 4
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE], &[ONE]]).unwrap();
    assert_eq!((bench.partition(7).leader_epoch, bench.partition(7).leader), (0, Some(ONE)));
    let renewed = bench.start(ONE, 1, 2);
    assert_eq!(renewed, [LogId::new(topic(7), 0), LogId::new(topic(7), 1)]);
    assert_eq!((bench.partition(7).leader_epoch, bench.partition(7).partition_epoch), (1, 1));
    assert_eq!(bench.start(ONE, 1, 2), [], "the same start says it again");
    assert_eq!(bench.partition(7).leader_epoch, 1);
    assert_eq!(bench.apply(register(ONE, 1, 1, None)), Err(Rejected::StaleIncarnation(ONE)));
}

#[test]
fn a_follower_that_restarts_leaves_the_leaders_epoch_alone() {
    let mut bench = Bench::of(&[ONE, TWO]);
    bench.create("t", 7, &[&[ONE, TWO]]).unwrap();
    assert_eq!(bench.start(TWO, 1, 2), []);
}

#[test]
fn a_broker_with_another_folder_has_none_of_its_data() {
    // Contract 5: it stays no member of an ISR, and leads nothing.
    let mut bench = Bench::of(&[ONE, TWO]);
    bench.create("t", 7, &[&[ONE, TWO]]).unwrap();
    bench.create("sole", 8, &[&[ONE]]).unwrap();
    bench.start(ONE, 2, 1);
    let partition = bench.partition(7);
    assert_eq!((partition.leader, partition.isr, partition.leader_epoch), (Some(TWO), vec![TWO], 1));
    let sole = bench.partition(8);
    assert_eq!((sole.leader, sole.isr, sole.leader_epoch), (None, vec![], 1));
    bench.start(ONE, 2, 2);
    assert_eq!(bench.partition(8).leader, None, "it does not come back by itself");
}

#[test]
fn topic_names_are_kafkas_and_dots_and_underscores_collide() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("a.b", 7, &[&[ONE]]).unwrap();
    assert_eq!(bench.create("a.b", 8, &[&[ONE]]), Err(Rejected::TopicExists("a.b".into())));
    let collides = Rejected::TopicCollides { name: "a_b".into(), other: "a.b".into() };
    assert_eq!(bench.create("a_b", 8, &[&[ONE]]), Err(collides));
    let bad = Rejected::InvalidTopicName(InvalidTopicName::Character(' '));
    assert_eq!(bench.create("a b", 8, &[&[ONE]]), Err(bad));
    bench.apply(Command::DeleteTopic { id: topic(7) }).unwrap();
    bench.create("a_b", 8, &[&[ONE]]).unwrap();
    assert_eq!(bench.image.topic_named("a_b").unwrap().id, topic(8));
    assert_eq!(bench.image.topic_named("a.b"), None);
    assert_eq!(bench.image.partition_count(), 1);
}

#[test]
fn a_topic_that_cannot_be_is_rejected_whole() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE]]).unwrap();
    for id in [0, 1, 7] {
        assert_eq!(bench.create("u", id, &[&[ONE]]), Err(Rejected::InvalidTopicId(topic(id))));
    }
    assert!(matches!(bench.create("u", 8, &[]), Err(Rejected::InvalidPartitions(_))));
    for replicas in [&[][..], &[TWO], &[ONE, ONE]] {
        assert!(matches!(bench.create("u", 8, &[&[ONE], replicas]), Err(Rejected::InvalidReplicas(_))));
    }
    let outcome = bench.apply(Command::CreateTopic {
        name: "u".into(),
        id: topic(8),
        partitions: vec![NewPartition { replicas: vec![ONE] }],
        configs: configs(&[("retention.ms", "soon".to_owned())]),
    });
    assert!(matches!(outcome, Err(Rejected::InvalidSetting(_))));
    assert_eq!(bench.apply(Command::DeleteTopic { id: topic(9) }), Err(Rejected::UnknownTopic(topic(9))));
}

#[test]
fn partitions_are_added_once_even_when_two_ask_for_it() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE]]).unwrap();
    let partitions = vec![NewPartition { replicas: vec![ONE] }];
    let add = Command::AddPartitions { id: topic(7), partitions_before: 1, partitions };
    assert_eq!(bench.apply(add.clone()), Ok(Change::PartitionsAdded { id: topic(7), first: 1 }));
    assert!(matches!(bench.apply(add), Err(Rejected::InvalidPartitions(_))));
    assert_eq!(bench.image.topic(topic(7)).unwrap().partitions.len(), 2);
}

#[test]
fn settings_change_all_or_none_and_go_back_to_their_defaults() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE]]).unwrap();
    let set =
        |pairs: &[(&str, Option<String>)]| Command::SetTopicConfig { id: topic(7), changes: configs(pairs) };
    let changed = Ok(Change::TopicConfigChanged { id: topic(7) });
    let five = Some("5".to_owned());
    assert_eq!(bench.apply(set(&[("retention.ms", five.clone())])), changed);
    assert_eq!(bench.apply(set(&[("retention.ms", five.clone())])), Ok(Change::Nothing));
    let half_wrong = set(&[("retention.ms", None), ("segment.ms", Some("0".to_owned()))]);
    assert!(matches!(bench.apply(half_wrong), Err(Rejected::InvalidSetting(_))));
    assert_eq!(bench.image.topic(topic(7)).unwrap().configs, configs(&[("retention.ms", "5".to_owned())]));
    assert_eq!(bench.apply(set(&[("retention.ms", None)])), changed);
    assert!(bench.image.topic(topic(7)).unwrap().configs.is_empty());

    let of_broker =
        |broker| Command::SetBrokerConfig { broker, changes: configs(&[("log.retention.ms", five.clone())]) };
    assert_eq!(bench.apply(of_broker(None)), Ok(Change::BrokerConfigChanged { broker: None }));
    assert_eq!(bench.apply(of_broker(Some(TWO))), Err(Rejected::UnknownBroker(TWO)));
    assert_eq!(bench.image.broker_defaults().len(), 1);
}

#[test]
fn producer_ids_are_given_out_once_and_only_to_the_brokers_present_self() {
    let mut bench = Bench::of(&[ONE]);
    let broker_epoch = bench.member(ONE).broker_epoch;
    let ask = Command::AllocateProducerIds { broker: ONE, broker_epoch };
    for first in [0, 1000, 2000] {
        let block = ProducerIdBlock { first, count: 1000 };
        assert_eq!(bench.apply(ask.clone()), Ok(Change::ProducerIdsAllocated { broker: ONE, block }));
    }
    bench.start(ONE, 1, 2);
    assert!(matches!(bench.apply(ask), Err(Rejected::StaleBrokerEpoch { .. })));
}

#[test]
fn an_isr_change_is_refused_when_the_partition_or_a_member_has_changed_since() {
    let mut bench = Bench::of(&[ONE, TWO, THREE]);
    bench.create("t", 7, &[&[THREE, ONE, TWO]]).unwrap();
    let (one, two, three) = (bench.member(ONE), bench.member(TWO), bench.member(THREE));
    bench.change(Some(THREE), &[one, three]).unwrap();
    let partition = bench.partition(7);
    assert_eq!((partition.isr, partition.leader_epoch, partition.partition_epoch), (vec![THREE, ONE], 0, 1));

    // Z11: the addition meant the broker's former self.
    bench.start(TWO, 2, 1);
    assert!(matches!(bench.change(Some(THREE), &[one, two, three]), Err(Rejected::StaleBrokerEpoch { .. })));
    // Z12: the broker is fenced.
    let two = bench.member(TWO);
    bench.apply(Command::SetFenced { broker: TWO, broker_epoch: two.broker_epoch, fenced: true }).unwrap();
    assert!(matches!(bench.change(Some(THREE), &[one, two, three]), Err(Rejected::InvalidIsr(_))));

    for (leader, isr) in
        [(Some(TWO), &[one, three][..]), (Some(THREE), &[three, three]), (Some(BrokerId(4)), &[one, three])]
    {
        assert!(matches!(bench.change(leader, isr), Err(Rejected::InvalidIsr(_))));
    }
    let stale = Command::ChangePartition {
        log: LogId::new(topic(7), 0),
        partition_epoch: 0,
        leader: Some(THREE),
        isr: vec![three],
        renew_epoch: false,
    };
    assert!(matches!(bench.apply(stale), Err(Rejected::StalePartitionEpoch { given: 0, current: 1, .. })));

    bench.change(Some(ONE), &[one]).unwrap();
    assert_eq!((bench.partition(7).leader, bench.partition(7).leader_epoch), (Some(ONE), 1));
}

#[test]
fn a_leader_that_had_to_cut_shipped_records_gets_a_new_epoch() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE]]).unwrap();
    let isr = vec![bench.member(ONE)];
    let log = LogId::new(topic(7), 0);
    let renew =
        Command::ChangePartition { log, partition_epoch: 0, leader: Some(ONE), isr, renew_epoch: true };
    assert_eq!(bench.apply(renew), Ok(Change::PartitionChanged { log }));
    assert_eq!((bench.partition(7).leader, bench.partition(7).leader_epoch), (Some(ONE), 1));
}

#[test]
fn a_broker_is_forgotten_only_when_it_holds_nothing() {
    let mut bench = Bench::of(&[ONE]);
    bench.create("t", 7, &[&[ONE]]).unwrap();
    assert_eq!(bench.apply(Command::UnregisterBroker { broker: ONE }), Err(Rejected::BrokerInUse(ONE)));
    bench.apply(Command::DeleteTopic { id: topic(7) }).unwrap();
    let gone = bench.apply(Command::UnregisterBroker { broker: ONE });
    assert_eq!(gone, Ok(Change::BrokerUnregistered { broker: ONE }));
    assert_eq!(bench.image.broker(ONE), None);
}

#[test]
fn feature_levels_that_a_broker_does_not_know_are_refused() {
    let mut bench = Bench::of(&[ONE]);
    for level in [0, 2] {
        let refused = bench.apply(Command::SetFeatureLevel { level });
        assert_eq!(refused, Err(Rejected::UnsupportedFeature(level)), "broker 1 knows level 1 only");
    }
    assert_eq!(bench.apply(Command::SetFeatureLevel { level: 1 }), Ok(Change::Nothing));
    let mut newer = register(TWO, 1, 1, None);
    if let Command::RegisterBroker { features, .. } = &mut newer {
        *features = FeatureRange { min: 2, max: 3 };
    }
    assert_eq!(bench.apply(newer), Err(Rejected::UnsupportedFeature(1)));
}

#[test]
fn replicas_are_spread_and_leaders_take_turns() {
    let mut bench = Bench::of(&[ONE, TWO, THREE]);
    assert_eq!(default_replication_factor(&bench.image), 3);
    let placed = place(&bench.image, 6, 2, 1).unwrap();
    let mut leads = BTreeMap::new();
    let mut holds = BTreeMap::new();
    for partition in &placed {
        *leads.entry(partition.replicas[0]).or_insert(0) += 1;
        partition.replicas.iter().for_each(|id| *holds.entry(*id).or_insert(0) += 1);
    }
    assert_eq!(leads, BTreeMap::from([(ONE, 2), (TWO, 2), (THREE, 2)]));
    assert_eq!(holds, BTreeMap::from([(ONE, 4), (TWO, 4), (THREE, 4)]));
    assert_eq!(placed[0].replicas[0], TWO);

    let refused = PlacementError::ReplicationFactor { wanted: 4, registered: 3 };
    assert_eq!(place(&bench.image, 1, 4, 0), Err(refused));
    let three = bench.member(THREE).broker_epoch;
    bench.apply(Command::SetFenced { broker: THREE, broker_epoch: three, fenced: true }).unwrap();
    let placed = place(&bench.image, 9, 2, 0).unwrap();
    assert!(
        placed.iter().all(|partition| !partition.replicas.contains(&THREE)),
        "a fenced broker gets nothing while there are others"
    );
    let sole = Bench::of(&[ONE]);
    assert_eq!(default_replication_factor(&sole.image), 1);
    let everything = NewPartition { replicas: vec![ONE] };
    assert_eq!(place(&sole.image, 2, 1, u64::MAX), Ok(vec![everything.clone(), everything]));
}

#[test]
fn a_topic_that_is_made_while_brokers_are_away_has_as_many_replicas_as_any_other() {
    let mut bench = Bench::of(&[ONE, TWO, THREE]);
    let leave = |bench: &mut Bench, broker| {
        let broker_epoch = bench.member(broker).broker_epoch;
        bench.apply(Command::SetFenced { broker, broker_epoch, fenced: true }).unwrap();
    };
    leave(&mut bench, TWO);
    leave(&mut bench, THREE);
    assert_eq!(default_replication_factor(&bench.image), 3);
    for partition in place(&bench.image, 4, 3, 1).unwrap() {
        assert_eq!(partition.replicas[0], ONE, "who serves leads: {partition:?}");
        assert_eq!(partition.replicas.iter().collect::<BTreeSet<_>>().len(), 3);
    }
    let followers = place(&bench.image, 4, 2, 0).unwrap().into_iter().map(|partition| partition.replicas[1]);
    assert_eq!(
        followers.collect::<Vec<_>>(),
        [TWO, THREE, TWO, THREE],
        "those who are away share what is left"
    );
    leave(&mut bench, ONE);
    assert_eq!(place(&bench.image, 1, 3, 0), Err(PlacementError::NobodyServes));
}

#[test]
fn replicas_stand_on_different_racks_while_there_are_enough() {
    let mut bench = Bench::formed();
    for (id, rack) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b")] {
        bench.apply(register(BrokerId(id), 1, 1, Some(rack))).unwrap();
    }
    let rack = |image: &Image, id: BrokerId| image.broker(id).unwrap().rack.clone();
    for partition in place(&bench.image, 30, 2, 3).unwrap() {
        assert_ne!(rack(&bench.image, partition.replicas[0]), rack(&bench.image, partition.replicas[1]));
    }
    for partition in place(&bench.image, 30, 5, 3).unwrap() {
        let distinct: BTreeSet<_> = partition.replicas.iter().collect();
        assert_eq!(distinct.len(), 5);
    }
    for away in 2..=6 {
        let (broker, broker_epoch) = (BrokerId(away), bench.member(BrokerId(away)).broker_epoch);
        bench.apply(Command::SetFenced { broker, broker_epoch, fenced: true }).unwrap();
    }
    for partition in place(&bench.image, 30, 2, 3).unwrap() {
        let [leader, away] = partition.replicas[..] else { panic!("{partition:?}") };
        assert_eq!(leader, BrokerId(1));
        assert_ne!(rack(&bench.image, leader), rack(&bench.image, away), "of those who are away, too");
    }
}
