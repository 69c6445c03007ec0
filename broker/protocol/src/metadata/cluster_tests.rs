//! Transcripts of one partition while its brokers come and go. `UPDATE_EXPECT=1 cargo test -p weir-protocol` rewrites
//! them.

use expect_test::{Expect, expect};

use super::town::{LOG, TOPIC, Town};
use super::*;
use crate::types::BrokerId;

fn check(town: &Town, expected: &Expect) {
    expected.assert_eq(&town.transcript());
}

#[test]
fn a_leader_whose_session_ends_is_replaced_in_the_same_entry() {
    // KIP-841
    let mut town = Town::new(3, &[]);
    town.fence(1);
    town.fence(1);
    town.unfence(1);
    town.in_sync(&[1, 2, 3]).unwrap();
    check(
        &town,
        &expect![[r#"
        1 is fenced                        2 leads 1, isr 2,3
        1 is fenced                        2 leads 1, isr 2,3
        1 has caught up                    2 leads 1, isr 2,3
        the leader has [1, 2, 3] in sync   2 leads 1, isr 1,2,3"#]],
    );
}

#[test]
fn below_m_who_leaves_the_isr_stays_eligible() {
    // KIP-966
    let mut town = Town::new(3, &[]);
    town.fence(3);
    town.fence(2);
    town.fence(1);
    town.unfence(2);
    town.in_sync(&[2, 1]).unwrap_err();
    town.unfence(1);
    town.in_sync(&[1, 2]).unwrap();
    check(
        &town,
        &expect![[r#"
        3 is fenced                        1 leads 0, isr 1,2
        2 is fenced                        1 leads 0, isr 1, elr 2
        1 is fenced                        nobody leads 1, isr , elr 1,2
        2 has caught up                    2 leads 2, isr 2, elr 1
        the leader has [2, 1] in sync      refused: broker 1 cannot be in sync with 00000000-0000-0000-0000-000000000007-0
        1 has caught up                    2 leads 2, isr 2, elr 1
        the leader has [1, 2] in sync      2 leads 2, isr 1,2"#]],
    );
}

#[test]
fn a_leader_shrinks_below_m_and_both_others_stay_eligible() {
    let mut town = Town::new(3, &[]);
    town.in_sync(&[1]).unwrap();
    town.fence(1);
    town.fence(2);
    town.fence(3);
    town.unfence(3);
    check(
        &town,
        &expect![[r#"
        the leader has [1] in sync         1 leads 0, isr 1, elr 2,3
        1 is fenced                        2 leads 1, isr 2, elr 1,3
        2 is fenced                        3 leads 2, isr 3, elr 1,2
        3 is fenced                        nobody leads 3, isr , elr 1,2,3
        3 has caught up                    3 leads 4, isr 3, elr 1,2"#]],
    );
}

#[test]
fn a_clean_stop_moves_leaders_first() {
    // KIP-841: ISR without it, while it still serves
    let mut town = Town::new(3, &[]);
    town.wants_to_go(1);
    town.in_sync(&[1, 2, 3]).unwrap_err();
    town.fence(1);
    town.start(1, LastStop::Clean);
    town.unfence(1);
    town.in_sync(&[1, 2, 3]).unwrap();
    check(
        &town,
        &expect![[r#"
        1 wants to go                      2 leads 1, isr 2,3
        the leader has [1, 2, 3] in sync   refused: broker 1 cannot be in sync with 00000000-0000-0000-0000-000000000007-0
        1 is fenced                        2 leads 1, isr 2,3
        1 starts, last stop Clean          2 leads 1, isr 2,3
        1 has caught up                    2 leads 1, isr 2,3
        the leader has [1, 2, 3] in sync   2 leads 1, isr 1,2,3"#]],
    );
}

#[test]
fn a_sole_broker_that_restarts_leads_in_a_new_epoch() {
    // Contract 4
    let mut town = Town::new(1, &[]);
    town.start(1, LastStop::Certain);
    town.unfence(1);
    check(
        &town,
        &expect![[r#"
        1 starts, last stop Certain        nobody leads 1, isr , elr 1
        1 has caught up                    1 leads 2, isr 1"#]],
    );
}

#[test]
fn after_an_unclean_stop_only_a_certain_tail_stays_eligible() {
    // Contract 5; KIP-966
    let mut town = Town::new(3, &[]);
    town.in_sync(&[1, 2]).unwrap();
    town.start(2, LastStop::Certain);
    town.start(1, LastStop::Uncertain);
    town.unfence(1);
    town.unfence(2);
    check(
        &town,
        &expect![[r#"
        the leader has [1, 2] in sync      1 leads 0, isr 1,2
        2 starts, last stop Certain        1 leads 0, isr 1, elr 2
        1 starts, last stop Uncertain      nobody leads 1, isr , elr 2, uncertain 1
        1 has caught up                    nobody leads 1, isr , elr 2, uncertain 1
        2 has caught up                    2 leads 2, isr 2, uncertain 1"#]],
    );
}

#[test]
fn in_an_os_topic_only_a_clean_stop_leaves_the_tail_certain() {
    // Z10
    let mut town = Town::new(2, &[("flush.messages", "1000")]);
    town.in_sync(&[1]).unwrap();
    town.start(1, LastStop::Certain);
    town.unfence(1);
    town.start(2, LastStop::Clean);
    town.unfence(2);
    check(
        &town,
        &expect![[r#"
        the leader has [1] in sync         1 leads 0, isr 1, elr 2
        1 starts, last stop Certain        2 leads 1, isr 2, uncertain 1
        1 has caught up                    2 leads 1, isr 2, uncertain 1
        2 starts, last stop Clean          nobody leads 2, isr , elr 2, uncertain 1
        2 has caught up                    2 leads 3, isr 2, uncertain 1"#]],
    );
}

#[test]
fn who_had_less_is_asked_again_when_the_leader_comes_back_with_less_still() {
    // Contract 5: broker 1 has told how far it reaches, and loses power before it leads.
    let mut town = Town::new(2, &[("flush.messages", "1000")]);
    town.start(1, LastStop::Certain);
    town.start(2, LastStop::Certain);
    town.unfence(1);
    town.unfence(2);
    town.recovered(1, &[], &[2]).unwrap();
    town.start(1, LastStop::Certain);
    town.unfence(1);
    town.recovered(1, &[], &[]).unwrap_err();
    town.recovered(2, &[], &[1]).unwrap();
    town.in_sync(&[1, 2]).unwrap();
    check(
        &town,
        &expect![[r#"
            1 starts, last stop Certain        2 leads 1, isr 2, uncertain 1
            2 starts, last stop Certain        nobody leads 2, isr , uncertain 1,2
            1 has caught up                    nobody leads 2, isr , uncertain 1,2
            2 has caught up                    nobody leads 2, isr , uncertain 1,2
            1 has most, as [], [2] less        1 leads 3, isr 1, uncertain 2
            1 starts, last stop Certain        nobody leads 4, isr , uncertain 1,2
            1 has caught up                    nobody leads 4, isr , uncertain 1,2
            1 has most, as [], [] less         refused: invalid in-sync replicas: too few have answered
            2 has most, as [], [1] less        2 leads 5, isr 2, uncertain 1
            the leader has [1, 2] in sync      2 leads 5, isr 1,2"#]],
    );
}

#[test]
fn a_topic_that_became_sync_in_this_life_is_not_certain_yet() {
    let mut town = Town::new(2, &[("flush.messages", "1000")]);
    let changes = [("flush.messages".to_owned(), None)].into();
    town.say("the topic becomes sync", Command::SetTopicConfig { id: TOPIC, changes }).unwrap();
    town.start(1, LastStop::Certain);
    town.start(2, LastStop::Certain);
    town.recovered(1, &[2], &[]).unwrap_err();
    town.unfence(1);
    town.unfence(2);
    town.recovered(1, &[2], &[]).unwrap();
    town.start(1, LastStop::Certain);
    town.start(2, LastStop::Certain);
    town.unfence(1);
    check(
        &town,
        &expect![[r#"
            the topic becomes sync             1 leads 0, isr 1,2
            1 starts, last stop Certain        2 leads 1, isr 2, uncertain 1
            2 starts, last stop Certain        nobody leads 2, isr , uncertain 1,2
            1 has most, as [2], [] less        refused: no eligible leader of 00000000-0000-0000-0000-000000000007-0 is available
            1 has caught up                    nobody leads 2, isr , uncertain 1,2
            2 has caught up                    nobody leads 2, isr , uncertain 1,2
            1 has most, as [2], [] less        1 leads 3, isr 1, elr 2
            1 starts, last stop Certain        2 leads 4, isr 2, elr 1
            2 starts, last stop Certain        nobody leads 5, isr , elr 1,2
            1 has caught up                    1 leads 6, isr 1, elr 2"#]],
    );
}

#[test]
fn a_sole_replica_needs_no_recovery_unless_its_disk_is_another_one() {
    let mut town = Town::new(1, &[("flush.messages", "1000")]);
    town.start(1, LastStop::Uncertain);
    town.unfence(1);
    town.start_empty(1);
    town.unfence(1);
    check(
        &town,
        &expect![[r#"
        1 starts, last stop Uncertain      nobody leads 1, isr , elr 1
        1 has caught up                    1 leads 2, isr 1
        1 starts with an empty disk        nobody leads 3, isr , uncertain 1
        1 has caught up                    nobody leads 3, isr , uncertain 1"#]],
    );
}

#[test]
fn a_start_that_never_registered_leaves_nothing_certain() {
    let mut town = Town::new(2, &[]);
    let mut registration = town.registration(1, LastStop::Clean);
    registration.incarnation.0 += 1;
    town.say("1 starts a second time", ClusterCommand::RegisterBroker(registration)).unwrap();
    check(&town, &expect!["1 starts a second time             2 leads 1, isr 2, uncertain 1"]);
}

#[test]
fn when_all_lost_power_the_largest_of_enough_answers_leads() {
    // Contract 5: a lost disk counts as an answer
    let mut town = Town::new(3, &[]);
    town.in_sync(&[1, 2]).unwrap();
    town.fence(3);
    town.start(1, LastStop::Uncertain);
    town.start_empty(2);
    town.unfence(1);
    town.unfence(2);
    town.recovered(1, &[], &[]).unwrap_err();
    town.recovered(1, &[], &[3]).unwrap_err();
    town.recovered(1, &[], &[2]).unwrap();
    check(
        &town,
        &expect![[r#"
            the leader has [1, 2] in sync      1 leads 0, isr 1,2
            3 is fenced                        1 leads 0, isr 1,2
            1 starts, last stop Uncertain      2 leads 1, isr 2, uncertain 1
            2 starts with an empty disk        nobody leads 2, isr , uncertain 1,2
            1 has caught up                    nobody leads 2, isr , uncertain 1,2
            2 has caught up                    nobody leads 2, isr , uncertain 1,2
            1 has most, as [], [] less         refused: invalid in-sync replicas: too few have answered
            1 has most, as [], [3] less        refused: invalid in-sync replicas: who answered is not one of the uncertain, or stands there twice
            1 has most, as [], [2] less        1 leads 3, isr 1, uncertain 2"#]],
    );
}

#[test]
fn who_answered_with_as_much_as_the_leader_stays_eligible() {
    let mut town = Town::new(3, &[("min.insync.replicas", "3")]);
    for id in 1..=3 {
        town.start(id, LastStop::Uncertain);
    }
    (1..=3).for_each(|id| town.unfence(id));
    town.recovered(2, &[3], &[1]).unwrap();
    town.recovered(3, &[2], &[1]).unwrap_err();
    town.fence(2);
    check(
        &town,
        &expect![[r#"
            1 starts, last stop Uncertain      2 leads 1, isr 2,3, uncertain 1
            2 starts, last stop Uncertain      3 leads 2, isr 3, uncertain 1,2
            3 starts, last stop Uncertain      nobody leads 3, isr , uncertain 1,2,3
            1 has caught up                    nobody leads 3, isr , uncertain 1,2,3
            2 has caught up                    nobody leads 3, isr , uncertain 1,2,3
            3 has caught up                    nobody leads 3, isr , uncertain 1,2,3
            2 has most, as [3], [1] less       2 leads 4, isr 2, elr 3, uncertain 1
            3 has most, as [2], [1] less       refused: partition 00000000-0000-0000-0000-000000000007-0 needs no election
            2 is fenced                        3 leads 5, isr 3, elr 2, uncertain 1"#]],
    );
}

#[test]
fn unclean_election_happens_only_where_it_is_configured() {
    // KIP-106
    let mut town = Town::new(2, &[("min.insync.replicas", "1")]);
    town.in_sync(&[1]).unwrap();
    town.start_empty(1);
    town.unfence(1);
    let changes = [("unclean.leader.election.enable".to_owned(), Some("true".to_owned()))].into();
    town.say("unclean election is allowed", Command::SetTopicConfig { id: TOPIC, changes }).unwrap();
    assert_eq!(town.partition().leader, Some(BrokerId(2)), "who has something, not the empty last leader");
    check(
        &town,
        &expect![[r#"
            the leader has [1] in sync         1 leads 0, isr 1
            1 starts with an empty disk        nobody leads 1, isr , uncertain 1
            1 has caught up                    nobody leads 1, isr , uncertain 1
            unclean election is allowed        2 leads 2, isr 2, unclean"#]],
    );
}

#[test]
fn an_operator_may_elect_uncleanly_and_only_without_a_leader() {
    // KIP-460
    let mut town = Town::new(2, &[("min.insync.replicas", "1")]);
    let elect = |town: &Town| ClusterCommand::ElectUnclean {
        log: LOG,
        partition_epoch: town.partition().partition_epoch,
    };
    let command = elect(&town);
    town.say("an operator's order", command).unwrap_err();
    town.in_sync(&[1]).unwrap();
    town.fence(1);
    let command = elect(&town);
    town.say("an operator's order", command).unwrap();
    check(
        &town,
        &expect![[r#"
        an operator's order                refused: partition 00000000-0000-0000-0000-000000000007-0 needs no election
        the leader has [1] in sync         1 leads 0, isr 1
        1 is fenced                        nobody leads 1, isr , elr 1
        an operator's order                2 leads 2, isr 2, unclean"#]],
    );
}

#[test]
fn the_preferred_leader_leads_again_when_it_is_in_sync() {
    // KIP-460
    let mut town = Town::new(3, &[]);
    town.fence(1);
    town.unfence(1);
    for _ in 0..2 {
        let partition_epoch = town.partition().partition_epoch;
        town.say("preferred election", ClusterCommand::ElectPreferred { log: LOG, partition_epoch }).ok();
        town.in_sync(&[1, 2, 3]).ok();
    }
    let partition_epoch = town.partition().partition_epoch;
    town.say("preferred election", ClusterCommand::ElectPreferred { log: LOG, partition_epoch }).unwrap_err();
    check(
        &town,
        &expect![[r#"
        1 is fenced                        2 leads 1, isr 2,3
        1 has caught up                    2 leads 1, isr 2,3
        preferred election                 refused: no eligible leader of 00000000-0000-0000-0000-000000000007-0 is available
        the leader has [1, 2, 3] in sync   2 leads 1, isr 1,2,3
        preferred election                 1 leads 2, isr 1,2,3
        the leader has [1, 2, 3] in sync   1 leads 2, isr 1,2,3
        preferred election                 refused: partition 00000000-0000-0000-0000-000000000007-0 needs no election"#]],
    );
}

#[test]
fn a_leader_that_asks_for_the_isr_that_there_is_moves_the_partition_epoch() {
    // Otherwise an earlier request on the same partition epoch might still be carried out, and would have to be waited for.
    let mut town = Town::new(3, &[]);
    let earlier = town.alter(&[1, 2]);
    let before = town.partition().partition_epoch;
    town.in_sync(&[1, 2, 3]).unwrap();
    assert_eq!(town.partition().partition_epoch, before + 1);
    assert_eq!(town.partition().leader_epoch, 0, "nothing else has changed");
    town.say("a request of before", earlier).unwrap_err();
}

#[test]
fn a_late_isr_request_is_refused() {
    // KIP-903, KIP-497: Z11, Z12
    let mut town = Town::new(3, &[]);
    town.in_sync(&[1, 2]).unwrap();
    let late = town.alter(&[1, 2, 3]);
    town.start_empty(3);
    town.say("an addition of 3's former self", late.clone()).unwrap_err();
    town.in_sync(&[1, 2, 3]).unwrap_err();
    town.unfence(3);
    let again = town.alter(&[1, 2, 3]);
    town.in_sync(&[1]).unwrap();
    town.say("a request from before", again).unwrap_err();
    town.fence(1);
    town.say("a request of 1's reign", late).unwrap_err();
    check(
        &town,
        &expect![[r#"
            the leader has [1, 2] in sync      1 leads 0, isr 1,2
            3 starts with an empty disk        1 leads 0, isr 1,2
            an addition of 3's former self     refused: broker 3 has epoch 9, not 3
            the leader has [1, 2, 3] in sync   refused: broker 3 cannot be in sync with 00000000-0000-0000-0000-000000000007-0
            3 has caught up                    1 leads 0, isr 1,2
            the leader has [1] in sync         1 leads 0, isr 1, elr 2
            a request from before              refused: partition 00000000-0000-0000-0000-000000000007-0 has epoch 2, not 1
            1 is fenced                        2 leads 1, isr 2, elr 1
            a request of 1's reign             refused: broker 1 does not lead 00000000-0000-0000-0000-000000000007-0 in epoch 0"#]],
    );
}

#[test]
fn a_damaged_replica_leaves_unless_it_is_the_last() {
    // Contract 7
    let mut town = Town::new(2, &[("min.insync.replicas", "1")]);
    let leave = |town: &Town, id| ClusterCommand::LeaveIsr { log: LOG, member: town.member(id) };
    let command = leave(&town, 1);
    town.say("1 is damaged", command).unwrap();
    let command = leave(&town, 2);
    town.say("2 is damaged", command).unwrap_err();
    town.fence(2);
    let command = leave(&town, 2);
    town.say("2 is damaged", command).unwrap_err();
    check(
        &town,
        &expect![[r#"
            1 is damaged                       2 leads 1, isr 2
            2 is damaged                       refused: no eligible leader of 00000000-0000-0000-0000-000000000007-0 is available
            2 is fenced                        nobody leads 2, isr , elr 2
            2 is damaged                       refused: no eligible leader of 00000000-0000-0000-0000-000000000007-0 is available"#]],
    );
}

#[test]
fn after_a_damaged_follower_has_left_its_leader_begins_a_new_epoch() {
    // Contract 7: what it knows of the follower is no longer true.
    let mut town = Town::new(2, &[("min.insync.replicas", "1")]);
    let leave = ClusterCommand::LeaveIsr { log: LOG, member: town.member(2) };
    town.say("2 is damaged", leave.clone()).unwrap();
    town.say("and says so once more", leave).unwrap();
    check(
        &town,
        &expect![[r#"
            2 is damaged                       1 leads 1, isr 1
            and says so once more              1 leads 2, isr 1"#]],
    );
}

#[test]
fn a_leader_that_had_to_cut_shipped_records_gets_a_new_epoch() {
    let mut town = Town::new(2, &[]);
    let renew = ClusterCommand::RenewEpoch { log: LOG, leader: town.member(1), leader_epoch: 0 };
    town.say("1 asks for another epoch", renew.clone()).unwrap();
    town.say("and again", renew).unwrap_err();
    check(
        &town,
        &expect![[r#"
        1 asks for another epoch           1 leads 1, isr 1,2
        and again                          refused: broker 1 does not lead 00000000-0000-0000-0000-000000000007-0 in epoch 0"#]],
    );
}

#[test]
fn added_replicas_count_for_m_once_they_have_been_in_sync() {
    // Contract 3
    let mut town = Town::formed(3);
    town.create("t", TOPIC, vec![BrokerId(1)], &[]);
    let add = |town: &Town| ClusterCommand::AddReplicas {
        id: TOPIC,
        partitions: vec![AddedReplicas {
            partition: 0,
            partition_epoch: town.partition().partition_epoch,
            replicas: vec![BrokerId(3), BrokerId(2)],
        }],
    };
    let command = add(&town);
    town.say("3 and 2 get replicas", command).unwrap();
    assert_eq!(town.image.min_isr(LOG), Some(1));
    town.in_sync(&[1, 2]).unwrap();
    assert_eq!(town.image.min_isr(LOG), Some(2));
    town.fence(2);
    town.in_sync(&[1, 3]).unwrap();
    let command = add(&town);
    town.say("the same again", command).unwrap_err();
    check(
        &town,
        &expect![[r#"
        3 and 2 get replicas               1 leads 0, isr 1, adding 3,2
        the leader has [1, 2] in sync      1 leads 0, isr 1,2, adding 3
        2 is fenced                        1 leads 0, isr 1, elr 2, adding 3
        the leader has [1, 3] in sync      1 leads 0, isr 1,3
        the same again                     refused: invalid replicas: a broker stands there twice"#]],
    );
}

#[test]
fn a_lower_min_isr_makes_nobody_eligible_who_may_lack_what_it_lets_through() {
    let mut town = Town::new(3, &[]);
    town.in_sync(&[1]).unwrap();
    let changes = [("min.insync.replicas".to_owned(), Some("1".to_owned()))].into();
    town.say("min.insync.replicas becomes 1", Command::SetTopicConfig { id: TOPIC, changes }).unwrap();
    check(
        &town,
        &expect![[r#"
        the leader has [1] in sync         1 leads 0, isr 1, elr 2,3
        min.insync.replicas becomes 1      1 leads 0, isr 1"#]],
    );
}

#[test]
fn commands_of_a_cluster_wait_until_every_broker_can_read_them() {
    // KIP-584
    let mut image = Image::empty();
    let form = Command::FormCluster { cluster_id: uuid::Uuid::from_u128(9), feature_level: 1 };
    image.apply_record(0, &form.into()).unwrap();
    let mut old = Town::formed(1).registration(1, LastStop::Clean);
    let refused = Rejected::FeatureLevel { needed: 2, current: 1 };
    let record = Record::V2(ClusterCommand::RegisterBroker(old.clone()));
    assert_eq!(image.permits(&record), Err(refused.clone()));
    assert_eq!(image.apply_record(1, &record), Err(refused));
    let level = |level| Record::V1(Command::SetFeatureLevel { level });
    assert_eq!(image.apply_record(2, &level(2)), Ok(Change::FeatureLevelChanged { level: 2 }));
    assert!(image.apply_record(3, &record).is_ok());
    assert_eq!(image.apply_record(4, &level(1)), Err(Rejected::Downgrade { given: 1, current: 2 }));
    old.broker = BrokerId(2);
    old.features.max = 1;
    let outcome = image.apply_record(5, &Record::V2(ClusterCommand::RegisterBroker(old)));
    assert_eq!(outcome, Err(Rejected::UnsupportedFeature(2)), "an old broker cannot join again");
}

/// Runs with a defect switched on, in simulation builds only.
fn with(defect: weir_defect::Defect, scenario: impl FnOnce(&mut Town)) {
    if weir_defect::switch_on(&[defect]) {
        let configs = [("flush.messages", "1000"), ("min.insync.replicas", "1")];
        scenario(&mut Town::new(2, &configs));
    }
    weir_defect::switch_on(&[]);
}

#[test]
fn z10_the_last_in_sync_replica_leads_again_without_its_page_cache() {
    with(weir_defect::Defect::elect_last_isr_unclean, |town| {
        town.in_sync(&[1]).unwrap();
        town.start(1, LastStop::Uncertain);
        town.unfence(1);
        assert_eq!(town.partition().leader, Some(BrokerId(1)));
    });
}

#[test]
fn z11_an_addition_that_meant_the_former_self_lets_an_empty_replica_in() {
    with(weir_defect::Defect::isr_no_broker_epoch, |town| {
        town.in_sync(&[1]).unwrap();
        let late = town.alter(&[1, 2]);
        town.start_empty(2);
        town.unfence(2);
        town.say("an addition of 2's former self", late).unwrap();
        assert_eq!(town.partition().isr, [BrokerId(1), BrokerId(2)]);
    });
}

#[test]
fn z12_a_fenced_broker_is_put_back_into_the_isr() {
    with(weir_defect::Defect::isr_allow_fenced, |town| {
        town.fence(2);
        town.in_sync(&[1, 2]).unwrap();
        assert_eq!(town.partition().isr, [BrokerId(1), BrokerId(2)]);
    });
}
