//! Snapshots, with the sections of the paper that they show.

use super::harness::{Cluster, limits, voter, voters};
use super::*;

const STEP: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

/// Three nodes of which one is down, and the leader has dropped what that one lacks.
fn one_far_behind() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::new(3, 3);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    let away = (leader + 1) % 3;
    cluster.crash(away);
    write(&mut cluster, leader, 20);
    cluster.take_snapshot(leader);
    (cluster, leader, away)
}

fn write(cluster: &mut Cluster, leader: usize, entries: usize) {
    for _ in 0..entries {
        cluster.propose(leader);
        cluster.run_well(STEP);
    }
    cluster.run_well(SECOND);
}

#[test]
fn a_voter_that_lacks_what_the_log_has_dropped_gets_the_snapshot_in_pieces() {
    // §7, figure 13
    let (mut cluster, leader, away) = one_far_behind();
    let start = cluster.raft(leader).log_start();
    assert!(start > 10, "the log begins at {start}");
    let bytes = cluster.raft(leader).snapshot().map_or(0, |snapshot| snapshot.bytes);
    assert!(bytes > 2 * limits().piece_bytes_max as u64, "several pieces");
    cluster.restart(away);
    cluster.run_well(2 * SECOND);
    assert_eq!(cluster.snapshots_installed, 1);
    assert_eq!(cluster.raft(away).log_end(), cluster.raft(leader).log_end());
    write(&mut cluster, leader, 3);
    assert_eq!(cluster.state_of(away), cluster.state_of(leader));
    assert_eq!(cluster.broken, None);
}

#[test]
fn a_snapshot_tells_who_votes() {
    let mut cluster = Cluster::with_voters(4, voters(3), 3);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    cluster.crash(3);
    cluster.cut_off.insert((leader + 1) % 3);
    cluster.change_voters(leader, VoterChange::Remove(voter((leader + 1) % 3, 1)));
    write(&mut cluster, leader, 10);
    cluster.take_snapshot(leader);
    cluster.restart(3);
    cluster.run_well(2 * SECOND);
    assert_eq!(cluster.snapshots_installed, 1);
    assert_eq!(cluster.raft(3).voters().ids().len(), 2);
    assert_eq!(cluster.raft(3).role_name(), "Observer");
    assert_eq!(cluster.broken, None);
}

/// A node with this log, fed by hand.
fn node(log: LogPosition, snapshot: Option<Snapshot>) -> (Raft, Vec<Effect>) {
    let hard_state = HardState { term: 4, vote: None, ..HardState::default() };
    let start = StartState { me: voter(0, 1), voters: voters(3), hard_state, snapshot, log, damage: None };
    let mut effects = Vec::new();
    let raft = Raft::start(start, Timing::default(), limits(), Duration::ZERO, 0, &mut effects);
    raft.invariants().expect("the laws hold");
    (raft, effects)
}

fn step(raft: &mut Raft, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    raft.step(Duration::ZERO, input, &mut effects);
    raft.invariants().expect("the laws hold");
    effects
}

fn snapshot(end: Index, term: Term, bytes: u64) -> Snapshot {
    Snapshot { at: SnapshotPoint { end, term, voters: voters(3) }, bytes, checksum: 7 }
}

fn chunk(snapshot: Snapshot, offset: u64, bytes: &'static [u8]) -> Input {
    let message =
        Message::Snapshot(SnapshotChunk { term: 4, snapshot, offset, bytes: bytes.into(), round: 0 });
    Input::Message(Envelope { from: voter(1, 1), to: voter(0, 1), message })
}

fn answer(effects: &[Effect]) -> AppendOutcome {
    let sent = effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { message: Message::AppendAnswer { outcome, .. }, .. } => Some(*outcome),
        _ => None,
    });
    sent.expect("an answer")
}

#[test]
fn a_log_that_has_the_snapshots_last_entry_keeps_what_follows() {
    // §7: the snapshot is a prefix of the log.
    let log = LogPosition { end: 9, terms: vec![(1, 0), (3, 4)], ..LogPosition::default() };
    let (mut raft, _) = node(log, None);
    let effects = step(&mut raft, chunk(snapshot(6, 3, 2), 0, b"x"));
    assert!(effects.contains(&Effect::Commit { end: 6 }), "it is committed, or there were no such snapshot");
    assert_eq!(answer(&effects), AppendOutcome::Accepted { matched_end: 6, durable_end: 6 });
    assert_eq!(raft.log_end(), 9);
}

#[test]
fn a_snapshot_takes_the_place_of_a_log_that_contradicts_it() {
    let log = LogPosition { end: 9, terms: vec![(1, 0), (2, 4)], ..LogPosition::default() };
    let (mut raft, _) = node(log, None);
    let big = snapshot(6, 3, 2);
    let effects = step(&mut raft, chunk(big.clone(), 0, b"x"));
    assert_eq!(answer(&effects), AppendOutcome::Receiving { end: 6, received: 1 });
    let repeated = step(&mut raft, chunk(big.clone(), 0, b"x"));
    assert!(matches!(&repeated[..], [Effect::WriteSnapshot { offset: 0, .. }, ..]), "it begins anew");
    let effects = step(&mut raft, chunk(big.clone(), 1, b"y"));
    assert!(effects.contains(&Effect::InstallSnapshot { snapshot: big.clone() }));
    assert_eq!(answer(&effects), AppendOutcome::Busy);
    assert_eq!(answer(&step(&mut raft, chunk(big, 1, b"y"))), AppendOutcome::Busy, "once is enough");
    let effects = step(&mut raft, Input::SnapshotInstalled { end: 6 });
    assert_eq!(answer(&effects), AppendOutcome::Accepted { matched_end: 6, durable_end: 6 });
    assert_eq!((raft.log_start(), raft.log_end(), raft.commit()), (6, 6, 6));
}

#[test]
fn a_snapshot_that_arrives_damaged_is_asked_for_again() {
    let (mut raft, _) = node(LogPosition::default(), None);
    step(&mut raft, chunk(snapshot(6, 3, 1), 0, b"x"));
    let effects = step(&mut raft, Input::SnapshotRefused { end: 6 });
    let complaint = Effect::Complain { about: voter(1, 1), what: Complaint::DamagedSnapshot };
    assert!(effects.contains(&complaint));
    assert_eq!(answer(&effects), AppendOutcome::Receiving { end: 6, received: 0 });
    assert_eq!((raft.log_end(), raft.commit()), (0, 0));
    let effects = step(&mut raft, chunk(snapshot(6, 3, 1), 0, b"x"));
    assert!(effects.contains(&Effect::InstallSnapshot { snapshot: snapshot(6, 3, 1) }));
}

#[test]
fn a_piece_that_cannot_be_is_not_believed() {
    // Contract 14
    let (mut raft, _) = node(LogPosition::default(), None);
    let no_voters = SnapshotPoint { end: 6, term: 3, voters: Voters::default() };
    let impossible = [
        chunk(snapshot(0, 3, 1), 0, b"x"),
        chunk(snapshot(Index::MAX, 3, 1), 0, b"x"),
        chunk(snapshot(6, 5, 1), 0, b"x"),
        chunk(snapshot(6, 3, 1), 1, b"x"),
        chunk(snapshot(6, 3, 2), 0, b""),
        chunk(snapshot(6, 3, u64::MAX), 0, b"x"),
        chunk(Snapshot { at: no_voters, bytes: 1, checksum: 0 }, 0, b"x"),
    ];
    for input in impossible {
        let effects = step(&mut raft, input);
        assert!(effects.contains(&Effect::Complain { about: voter(1, 1), what: Complaint::Nonsense }));
    }
}

#[test]
fn power_failed_between_the_snapshot_and_the_log_that_it_replaces() {
    // The log ends before the snapshot, or has another entry there.
    let other_term = LogPosition { end: 9, terms: vec![(1, 0), (2, 4)], ..LogPosition::default() };
    let shorter = LogPosition { end: 3, terms: vec![(1, 0)], ..LogPosition::default() };
    for log in [other_term, shorter] {
        let (mut raft, effects) = node(log, Some(snapshot(6, 3, 1)));
        assert_eq!(effects[0], Effect::ResetLog { start: 6 });
        step(&mut raft, Input::Truncated { to: 6 });
        assert_eq!((raft.log_start(), raft.log_end(), raft.commit()), (6, 6, 6));
        assert_eq!(raft.role_name(), "Follower");
    }
    let whole = LogPosition { end: 9, terms: vec![(1, 0), (3, 4)], ..LogPosition::default() };
    let (raft, effects) = node(whole, Some(snapshot(6, 3, 1)));
    assert!(!effects.contains(&Effect::ResetLog { start: 6 }));
    assert_eq!((raft.log_start(), raft.log_end(), raft.commit()), (0, 9, 6));
}

#[test]
fn a_gap_between_snapshot_and_log_is_a_loss() {
    // Z45, contract 6
    let gap =
        LogPosition { start: 8, term_before_start: 3, end: 9, terms: vec![(3, 8)], ..LogPosition::default() };
    let (mut raft, effects) = node(gap, Some(snapshot(6, 3, 1)));
    let marked = HardState { term: 4, vote: None, standing: Standing::Recovering };
    assert_eq!(effects[0], Effect::PersistHardState { seq: HardStateSeq(1), state: marked });
    assert_eq!(raft.role_name(), "Observer");
    assert_eq!(step(&mut raft, Input::HardStatePersisted { seq: HardStateSeq(1) }), []);
    let recovery = Some(Recovery { name: 0, end: 9 });
    let heartbeat =
        Append { term: 4, base: 9, previous_term: 3, entries: vec![], commit: 9, round: 0, recovery };
    let message = Message::Append(heartbeat);
    let effects = step(&mut raft, Input::Message(Envelope { from: voter(1, 1), to: voter(0, 1), message }));
    assert!(effects.contains(&Effect::ResetLog { start: 6 }), "once a leader has all that is committed");
}

#[test]
fn a_log_keeps_some_entries_behind_its_snapshot() {
    let (cluster, leader, _) = one_far_behind();
    let raft = cluster.raft(leader);
    let end = raft.snapshot().map_or(0, |snapshot| snapshot.at.end);
    assert_eq!(raft.log_start(), end - Index::from(limits().entries_retained));
    assert_eq!(raft.snapshot_point(end), None, "nothing is new");
    assert_eq!(raft.snapshot_point(raft.log_end() + 1), None, "not committed");
}
