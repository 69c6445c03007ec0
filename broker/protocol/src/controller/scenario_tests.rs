//! Transcripts of a controller, named after what they show. `UPDATE_EXPECT=1 cargo test -p weir-protocol` rewrites them.

use expect_test::{Expect, expect};

use super::harness::*;
use super::*;
use crate::metadata::LastStop;

fn check(world: &World, expected: &Expect) {
    expected.assert_eq(&world.transcript());
}

#[test]
fn a_broker_that_falls_silent_is_fenced_when_its_session_ends() {
    let mut world = World::new(3);
    world.pass_with(ms(1_500), &[2, 3]);
    check(&world, &expect!["1000 ms  commits fence 1 → 2 leads 1, isr 2,3"]);
}

#[test]
fn a_broker_whose_connection_breaks_is_fenced_soon_unless_it_comes_back() {
    let mut world = World::new(3);
    world.lose_connection(2);
    world.pass_with(ms(50), &[1, 3]);
    world.heartbeat(2, Wants::Serve);
    world.pass_with(ms(150), &[1, 2, 3]);
    world.lose_connection(1);
    world.pass_with(ms(300), &[2, 3]);
    check(
        &world,
        &expect![[r#"
            0 ms     the connection to 2 breaks
            200 ms   the connection to 1 breaks
            300 ms   commits fence 1 → 2 leads 1, isr 2,3"#]],
    );
}

#[test]
fn a_clean_stop_waits_until_the_others_know() {
    // KIP-631, KIP-841
    let mut world = World::new(3);
    let before = world.image.applied().unwrap();
    world.heartbeat(1, Wants::Leave);
    world.heartbeat_at(2, Wants::Serve, before);
    world.heartbeat(3, Wants::Serve);
    world.heartbeat(1, Wants::Leave);
    world.heartbeat(2, Wants::Serve);
    world.heartbeat(1, Wants::Leave);
    world.heartbeat(1, Wants::Leave);
    check(
        &world,
        &expect![[r#"
            0 ms     answers it serves
            0 ms     commits shutdown of 1 → 2 leads 1, isr 2,3
            0 ms     answers it serves
            0 ms     answers it serves, may go
            0 ms     commits fence 1 → 2 leads 1, isr 2,3
            0 ms     answers it is fenced, may go"#]],
    );
}

#[test]
fn a_sole_broker_may_go() {
    let mut world = World::new(1);
    world.heartbeat(1, Wants::Leave);
    world.heartbeat(1, Wants::Leave);
    world.register(1, LastStop::Clean);
    world.heartbeat(1, Wants::Serve);
    check(
        &world,
        &expect![[r#"
            0 ms     answers it serves
            0 ms     commits shutdown of 1 → nobody leads 1, isr , elr 1
            0 ms     answers it serves, may go
            0 ms     commits fence 1 → nobody leads 1, isr , elr 1
            0 ms     commits start of 1 → nobody leads 1, isr , elr 1
            0 ms     answers broker epoch 6
            0 ms     commits unfence 1 → 1 leads 2, isr 1"#]],
    );
}

#[test]
fn a_broker_with_a_failed_folder_is_fenced_at_its_own_wish() {
    // Contract 8
    let mut world = World::new(3);
    world.heartbeat(1, Wants::Fenced);
    world.heartbeat(1, Wants::Serve);
    check(&world, &expect!["0 ms     commits fence 1 → 2 leads 1, isr 2,3"]);
}

#[test]
fn a_broker_is_unfenced_when_it_has_applied_its_registration() {
    // KIP-631
    let mut world = World::new(3);
    let before = world.image.applied().unwrap();
    world.register(2, LastStop::Certain);
    world.heartbeat_at(2, Wants::Serve, before);
    assert_eq!(world.broker_state(2), "Fenced");
    world.heartbeat(2, Wants::Serve);
    check(
        &world,
        &expect![[r#"
            0 ms     commits start of 2 → 1 leads 0, isr 1,3
            0 ms     answers broker epoch 8
            0 ms     commits unfence 2 → 1 leads 0, isr 1,3"#]],
    );
}

#[test]
fn a_second_broker_of_the_same_number_is_refused_while_the_first_lives() {
    let mut world = World::new(2);
    world.empty_disk(2);
    world.register(2, LastStop::Clean);
    world.pass_with(ms(1_200), &[1]);
    world.register(2, LastStop::Clean);
    check(
        &world,
        &expect![[r#"
            0 ms     answers refused: broker 2 is alive with another data folder
            1000 ms  commits fence 2 → 1 leads 0, isr 1, elr 2
            1200 ms  commits start of 2 → 1 leads 0, isr 1, uncertain 2
            1200 ms  answers broker epoch 7"#]],
    );
}

#[test]
fn one_proposal_per_partition_is_in_flight() {
    // KIP-903
    let mut world = World::new(3);
    world.commits = false;
    let (wider, narrower) = (world.alter(&[1, 2]), world.alter(&[1, 3]));
    world.change(wider.clone());
    world.change(narrower);
    world.commit_all();
    world.change(wider);
    let fence = ClusterCommand::Fence { broker: BrokerId(1), broker_epoch: world.epoch(1) };
    world.change(fence);
    check(
        &world,
        &expect![[r#"
            0 ms     answers refused: the controller has proposals in flight; try again
            0 ms     commits isr → 1 leads 0, isr 1,2
            0 ms     answers entry 8
            0 ms     answers refused: partition 00000000-0000-0000-0000-000000000007-0 has epoch 1, not 0
            0 ms     answers refused: this command cannot be asked for"#]],
    );
}

#[test]
fn a_request_that_crosses_a_fencing_is_rejected_when_it_is_applied() {
    let mut world = World::new(3);
    world.commits = false;
    world.pass_with(ms(900), &[1, 2]);
    world.pass(ms(150));
    world.heartbeat(1, Wants::Serve);
    let all = world.alter(&[1, 2]);
    world.change(all);
    world.commit_all();
    check(
        &world,
        &expect![[r#"
             1050 ms  commits fence 3 → 1 leads 0, isr 1,2
             1050 ms  commits isr → rejected: partition 00000000-0000-0000-0000-000000000007-0 has epoch 1, not 0
             1050 ms  answers refused: partition 00000000-0000-0000-0000-000000000007-0 has epoch 1, not 0"#]],
    );
}

#[test]
fn after_a_power_loss_the_largest_of_enough_answers_leads() {
    // Contract 5
    let mut world = World::new(3);
    world.register(3, LastStop::Uncertain);
    let shrink = world.alter(&[1]);
    world.change(shrink);
    world.register(2, LastStop::Uncertain);
    world.register(1, LastStop::Uncertain);
    world.heartbeat(1, Wants::Serve);
    world.tails(1, 0, 5);
    world.heartbeat(2, Wants::Serve);
    world.tails(2, 0, 7);
    check(
        &world,
        &expect![[r#"
            0 ms     commits start of 3 → 1 leads 0, isr 1,2
            0 ms     answers broker epoch 8
            0 ms     commits isr → 1 leads 0, isr 1, elr 2
            0 ms     answers entry 9
            0 ms     commits start of 2 → 1 leads 0, isr 1, uncertain 2
            0 ms     answers broker epoch 10
            0 ms     commits start of 1 → nobody leads 1, isr , uncertain 1,2
            0 ms     answers broker epoch 11
            0 ms     commits unfence 1 → nobody leads 1, isr , uncertain 1,2
            0 ms     asks 1 for 1 tails
            0 ms     1 has 5 records, the last of epoch 0
            0 ms     commits unfence 2 → nobody leads 1, isr , uncertain 1,2
            0 ms     asks 2 for 1 tails
            0 ms     2 has 7 records, the last of epoch 0
            0 ms     commits recovered 2, as [], [1] less → 2 leads 2, isr 2, uncertain 1"#]],
    );
}

#[test]
fn a_lost_disk_counts_as_an_answer_and_a_question_is_asked_again() {
    // Contract 5
    let mut world = World::new(3);
    for id in 1..=3 {
        if id == 2 {
            world.empty_disk(2);
            world.pass_with(ms(1_100), &[3]);
        }
        world.register(id, LastStop::Uncertain);
        world.heartbeat(id, Wants::Serve);
    }
    world.tails(2, -1, 0);
    world.pass_with(ms(250), &[1, 2, 3]);
    world.tails(3, 0, 4);
    check(
        &world,
        &expect![[r#"
            0 ms     commits start of 1 → 2 leads 1, isr 2,3
            0 ms     answers broker epoch 8
            0 ms     commits unfence 1 → 2 leads 1, isr 2,3
            1000 ms  commits fence 1 → 2 leads 1, isr 2,3
            1000 ms  commits fence 2 → 3 leads 2, isr 3, elr 2
            1100 ms  commits start of 2 → 3 leads 2, isr 3, uncertain 2
            1100 ms  answers broker epoch 12
            1100 ms  commits unfence 2 → 3 leads 2, isr 3, uncertain 2
            1100 ms  commits start of 3 → nobody leads 3, isr , uncertain 2,3
            1100 ms  answers broker epoch 14
            1100 ms  asks 2 for 1 tails
            1100 ms  commits unfence 3 → nobody leads 3, isr , uncertain 2,3
            1100 ms  asks 3 for 1 tails
            1100 ms  2 has 0 records, the last of epoch -1
            1100 ms  commits unfence 1 → nobody leads 3, isr , uncertain 2,3
            1300 ms  asks 3 for 1 tails
            1350 ms  3 has 4 records, the last of epoch 0
            1350 ms  commits recovered 3, as [], [2] less → 3 leads 4, isr 3, uncertain 2"#]],
    );
}

#[test]
fn an_answer_from_before_another_reign_is_about_another_question() {
    // Contract 5
    let mut world = World::new(2);
    world.register(1, LastStop::Uncertain);
    world.register(2, LastStop::Uncertain);
    world.heartbeat(1, Wants::Serve);
    let partition = world.image.partition(LOG).unwrap();
    let question = Question { log: LOG, leader_epoch: partition.leader_epoch - 1 };
    let (broker, broker_epoch) = (BrokerId(1), world.epoch(1));
    world.step(Input::Tails { broker, broker_epoch, tails: vec![(question, Tail { epoch: 0, end: 9 })] });
    world.heartbeat(2, Wants::Serve);
    world.tails(2, 0, 3);
    assert_eq!(world.image.partition(LOG).unwrap().leader, None, "1 has not answered yet");
    world.tails(1, 0, 4);
    assert_eq!(world.image.partition(LOG).unwrap().leader, Some(BrokerId(1)));
}

#[test]
fn a_new_controller_gives_fresh_sessions_and_goes_on_with_what_is_committed() {
    let mut world = World::new(3);
    world.pass_with(ms(900), &[2, 3]);
    world.take_over();
    world.pass_with(ms(450), &[2, 3]);
    assert_eq!(world.broker_state(1), "InService");
    world.pass_with(ms(300), &[2, 3]);
    check(
        &world,
        &expect![[r#"
            900 ms   another controller takes over
            1500 ms  commits fence 1 → 2 leads 1, isr 2,3"#]],
    );
}

#[test]
fn who_waits_for_a_controller_that_resigns_is_told() {
    let mut world = World::new(3);
    world.commits = false;
    let shrink = world.alter(&[1]);
    world.change(shrink);
    world.take_over();
    world.commit_all();
    check(
        &world,
        &expect![[r#"
            0 ms     answers refused: this node is not the controller
            0 ms     another controller takes over
            0 ms     commits isr → 1 leads 0, isr 1, elr 2,3"#]],
    );
}

#[test]
fn a_controller_that_was_stopped_fences_nobody_for_it() {
    let mut world = World::new(3);
    world.pass_with(ms(300), &[1, 2, 3]);
    // The timer rings late.
    world.now += ms(5_000);
    world.timer = None;
    world.step(Input::Tick);
    world.pass_with(ms(300), &[1, 2, 3]);
    assert!((1..=3).all(|id| world.broker_state(id) == "InService"));
    check(&world, &expect![[""]]);
}

#[test]
fn internal_topics_grow_as_brokers_join() {
    // Contract 3
    let mut world = World::formed(1);
    world.create("__consumer_offsets", TOPIC, 1);
    for id in 2..=4 {
        world.register(id, LastStop::Clean);
        world.heartbeat(id, Wants::Serve);
    }
    let joined = world.alter(&[1, 2]);
    world.change(joined);
    check(
        &world,
        &expect![[r#"
            0 ms     commits a command of the first format → 1 leads 0, isr 1
            0 ms     commits start of 2 → 1 leads 0, isr 1
            0 ms     answers broker epoch 4
            0 ms     commits unfence 2 → 1 leads 0, isr 1
            0 ms     commits more replicas → 1 leads 0, isr 1, adding 2
            0 ms     commits start of 3 → 1 leads 0, isr 1, adding 2
            0 ms     answers broker epoch 7
            0 ms     commits unfence 3 → 1 leads 0, isr 1, adding 2
            0 ms     commits more replicas → 1 leads 0, isr 1, adding 2,3
            0 ms     commits start of 4 → 1 leads 0, isr 1, adding 2,3
            0 ms     answers broker epoch 10
            0 ms     commits unfence 4 → 1 leads 0, isr 1, adding 2,3
            0 ms     commits isr → 1 leads 0, isr 1,2, adding 3
            0 ms     answers entry 12"#]],
    );
}

#[test]
fn what_the_quorum_refuses_is_tried_again() {
    let mut world = World::new(2);
    world.commits = false;
    world.pass_with(ms(1_050), &[2]);
    let (command, _) = world.proposed.pop_front().expect("a fence");
    world.step(Input::ProposalRefused { command: command.expect("the controller's own") });
    assert!(world.proposed.is_empty());
    assert!(world.timer.is_none_or(|at| at > world.now), "not at once, for ever");
    world.commits = true;
    world.pass_with(ms(300), &[2]);
    assert_eq!(world.broker_state(1), "Fenced");
}

#[test]
fn leaders_go_back_to_the_first_replicas_after_a_while() {
    // KIP-460
    let mut world = World::new(2);
    world.register(1, LastStop::Clean);
    world.heartbeat(1, Wants::Serve);
    let joined = world.alter(&[1, 2]);
    world.change(joined);
    world.pass_with(ms(300_000), &[1, 2]);
    check(
        &world,
        &expect![[r#"
        0 ms     commits start of 1 → 2 leads 1, isr 2, elr 1
        0 ms     answers broker epoch 6
        0 ms     commits unfence 1 → 2 leads 1, isr 2, elr 1
        0 ms     commits isr → 2 leads 1, isr 1,2
        0 ms     answers entry 8
        300000 ms commits another change of the partition → 1 leads 2, isr 1,2"#]],
    );
}
