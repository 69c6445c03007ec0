//! Handing leadership over (Ongaro's thesis, §3.10).

use super::harness::{Cluster, voter};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Far less than an election timeout.
const SOON: Duration = Duration::from_millis(20);

fn running(nodes: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::new(nodes, 1);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

#[test]
fn a_leader_that_stops_is_succeeded_without_an_election_timeout() {
    let (mut cluster, leader) = running(3);
    let term = cluster.raft(leader).term();
    cluster.step(leader, Input::HandOver);
    cluster.run_well(SOON);
    let next = cluster.leader().expect("another leader");
    assert_ne!(next, leader);
    assert_eq!(cluster.raft(next).term(), term + 1);
    assert_eq!(cluster.raft(leader).leader(), Some(voter(next, 1)));
    assert_eq!(cluster.broken, None);
}

#[test]
fn leaders_that_stop_in_succession_are_each_succeeded_at_once() {
    // A rolling restart: each is back before the next one stops.
    let (mut cluster, mut leader) = running(3);
    for _ in 0..6 {
        cluster.step(leader, Input::HandOver);
        cluster.run_well(SOON);
        let next = cluster.leader().expect("another leader");
        assert_ne!(next, leader);
        cluster.crash(leader);
        cluster.propose(next);
        cluster.run_well(SOON);
        cluster.restart(leader);
        cluster.run_well(SOON * 5);
        assert_eq!(cluster.leader(), Some(next), "whoever returns disturbs nobody");
        leader = next;
    }
    assert_eq!(cluster.broken, None);
}

#[test]
fn the_last_two_voters_hand_over_too() {
    let (mut cluster, leader) = running(2);
    cluster.step(leader, Input::HandOver);
    cluster.run_well(SOON);
    assert_eq!(cluster.leader(), Some(1 - leader));
}

#[test]
fn the_successor_holds_everything_that_the_leader_has_taken() {
    let (mut cluster, leader) = running(3);
    let behind = (leader + 1) % 3;
    cluster.cut_off.insert(behind);
    cluster.propose(leader);
    cluster.step(leader, Input::HandOver);
    cluster.propose(leader);
    let end = cluster.raft(leader).log_end();
    assert!(cluster.network.iter().all(|envelope| !matches!(envelope.message, Message::TimeoutNow { .. })));
    cluster.run_well(SOON);
    let next = (leader + 2) % 3;
    assert_eq!(cluster.leader(), Some(next), "whoever is cut off is not named");
    assert_eq!(end, 2, "a leader that hands over takes no more proposals");
    assert!(cluster.raft(next).commit() >= end);
    assert_eq!(cluster.broken, None);
}

#[test]
fn a_leader_whom_nobody_can_succeed_resigns_after_an_election_timeout() {
    let (mut cluster, leader) = running(3);
    cluster.paused.extend((0..3).filter(|node| *node != leader));
    cluster.step(leader, Input::HandOver);
    assert!(cluster.raft(leader).is_leader());
    cluster.run_well(Timing::default().election_min + SOON);
    assert!(!cluster.raft(leader).is_leader());
}

#[test]
fn only_whom_the_leader_has_named_unseats_it() {
    // Thesis §4.2.3
    let (mut cluster, leader) = running(3);
    let (other, term) = ((leader + 1) % 3, cluster.raft(leader).term() + 1);
    let candidacy = Candidacy { term, last_term: 1, end: 1 };
    let say = |message| Input::Message(Envelope { from: voter(other, 1), to: voter(leader, 1), message });
    cluster.step(leader, say(Message::Vote(candidacy)));
    assert!(cluster.raft(leader).is_leader());
    cluster.step(leader, say(Message::VoteAtOnce(candidacy)));
    assert!(!cluster.raft(leader).is_leader());
}

#[test]
fn a_successor_that_is_named_late_campaigns_no_more() {
    let (mut cluster, leader) = running(3);
    let (other, term) = ((leader + 1) % 3, cluster.raft(leader).term());
    let late = Message::TimeoutNow { term: term - 1 };
    let message = Envelope { from: voter(leader, 1), to: voter(other, 1), message: late };
    cluster.step(other, Input::Message(message));
    assert_eq!(cluster.raft(other).role_name(), "Follower");
}
