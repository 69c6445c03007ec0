//! Nodes that have lost a part of their log, or their vote (contract 6).

use super::harness::{Cluster, limits, voter, voters};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const RECOVERING: Voice = Voice::Recovering(77);

/// A node of three that restarts in term 4 with four entries, fed by hand.
fn node(damage: Option<Damage>, standing: Standing) -> (Raft, Vec<Effect>) {
    let log = LogPosition { end: 4, terms: vec![(1, 0), (3, 2)], ..LogPosition::default() };
    let hard_state = HardState { term: 4, vote: Some(voter(2, 1)), standing };
    let start = StartState { me: voter(0, 1), voters: voters(3), hard_state, snapshot: None, log, damage };
    let mut effects = Vec::new();
    let raft = Raft::start(start, Timing::default(), limits(), Duration::ZERO, 77, &mut effects);
    raft.invariants().expect("the laws hold");
    (raft, effects)
}

fn step(raft: &mut Raft, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    raft.step(SECOND, input, &mut effects);
    raft.invariants().expect("the laws hold");
    effects
}

fn hear(raft: &mut Raft, message: Message) -> Vec<Effect> {
    step(raft, Input::Message(Envelope { from: voter(1, 1), to: voter(0, 1), message }))
}

fn append(base: Index, entries: usize, recovery: Option<Recovery>) -> Message {
    let entry = Entry { term: 4, kind: EntryKind::Command, payload: "x".into() };
    let entries = vec![entry; entries];
    let previous_term = if base == 4 { 3 } else { 4 };
    Message::Append(Append { term: 4, base, previous_term, entries, commit: 0, round: 0, recovery })
}

/// The last answer to a leader: how far it matches, and the recovery that it names.
fn answer(effects: &[Effect]) -> (AppendOutcome, Voice) {
    let sent = effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { message: Message::AppendAnswer { outcome, voice, .. }, .. } => {
            Some((*outcome, *voice))
        }
        _ => None,
    });
    sent.expect("an answer")
}

fn votes(raft: &mut Raft) -> bool {
    let candidacy = Candidacy { term: 9, last_term: 9, end: 99 };
    let effects = step(
        &mut raft.clone(),
        Input::Message(Envelope { from: voter(2, 1), to: voter(0, 1), message: Message::PreVote(candidacy) }),
    );
    effects.iter().any(|effect| matches!(effect, Effect::Send { .. }))
}

#[test]
fn a_loss_is_written_down_before_the_log_is_altered() {
    let (mut raft, effects) = node(Some(Damage::Log), Standing::Whole);
    let state = HardState { term: 4, vote: Some(voter(2, 1)), standing: Standing::Recovering };
    assert_eq!(effects[0], Effect::PersistHardState { seq: HardStateSeq(1), state });
    assert!(!effects.contains(&Effect::TruncateLog { to: 4 }));
    let confirmed = || append(4, 1, Some(Recovery { name: 77, end: 5 }));
    assert_eq!(answer(&hear(&mut raft, confirmed())), (AppendOutcome::Busy, RECOVERING));
    let effects = step(&mut raft, Input::HardStatePersisted { seq: HardStateSeq(1) });
    assert_eq!(effects, [Effect::TruncateLog { to: 4 }]);
    step(&mut raft, Input::Truncated { to: 4 });
    let accepted = AppendOutcome::Accepted { matched_end: 5, durable_end: 4 };
    assert_eq!(answer(&hear(&mut raft, append(4, 1, None))), (accepted, RECOVERING));
}

#[test]
fn what_is_left_behind_the_damage_stays_until_a_leader_has_all_that_is_committed() {
    // It may be the only copy of something, if other disks are damaged elsewhere.
    let (mut raft, _) = node(Some(Damage::Log), Standing::Whole);
    step(&mut raft, Input::HardStatePersisted { seq: HardStateSeq(1) });
    let effects = hear(&mut raft, append(4, 1, None));
    assert_eq!(answer(&effects), (AppendOutcome::Busy, RECOVERING), "the leader has not confirmed anything");
    assert!(!effects.contains(&Effect::TruncateLog { to: 4 }));
    let effects = hear(&mut raft, append(4, 1, Some(Recovery { name: 77, end: 5 })));
    assert!(effects.contains(&Effect::TruncateLog { to: 4 }));
}

#[test]
fn a_voter_that_has_lost_entries_votes_again_when_it_holds_what_its_leader_held() {
    // It restarts once more: the loss is known from the hard state alone.
    let (mut raft, _) = node(None, Standing::Recovering);
    assert_eq!(raft.role_name(), "Observer");
    assert!(!votes(&mut raft));
    let recovery = |name| Some(Recovery { name, end: 6 });
    hear(&mut raft, append(4, 2, recovery(76)));
    let (_, named) = answer(&step(&mut raft, Input::Persisted { end: 6 }));
    assert_eq!(named, RECOVERING, "the leader meant an earlier recovery");
    let effects = hear(&mut raft, append(6, 0, recovery(77)));
    let whole = HardState { term: 4, vote: Some(voter(2, 1)), standing: Standing::Whole };
    assert!(effects.contains(&Effect::PersistHardState { seq: HardStateSeq(1), state: whole }));
    assert_eq!(answer(&effects), (AppendOutcome::Accepted { matched_end: 6, durable_end: 6 }, Voice::Whole));
    assert_eq!(raft.role_name(), "Follower");
    raft.step(2 * SECOND, Input::Tick { jitter: 0 }, &mut Vec::new());
    assert!(votes(&mut raft));
}

#[test]
fn what_a_leader_of_an_earlier_term_asked_for_is_not_enough() {
    let (mut raft, _) = node(None, Standing::Recovering);
    hear(&mut raft, append(4, 0, Some(Recovery { name: 77, end: 5 })));
    let entries = vec![Entry { term: 5, kind: EntryKind::LeaderStart, payload: "".into() }];
    let newer = Append { term: 5, base: 4, previous_term: 3, entries, commit: 0, round: 0, recovery: None };
    hear(&mut raft, Message::Append(newer));
    step(&mut raft, Input::Persisted { end: 5 });
    assert_eq!(raft.role_name(), "Observer");
}

#[test]
fn a_voter_that_has_lost_its_vote_never_votes_again_under_its_name() {
    let (mut raft, effects) = node(Some(Damage::Vote), Standing::Whole);
    let marked = effects.iter().any(|effect| {
        matches!(effect, Effect::PersistHardState { state, .. } if state.standing == Standing::Forgotten)
    });
    assert!(marked);
    step(&mut raft, Input::HardStatePersisted { seq: HardStateSeq(1) });
    hear(&mut raft, append(4, 1, Some(Recovery { name: 77, end: 5 })));
    let (_, named) = answer(&step(&mut raft, Input::Persisted { end: 5 }));
    assert_eq!(named, Voice::Forgotten(77));
    assert_eq!(raft.role_name(), "Observer");
}

#[test]
fn a_voter_that_has_lost_entries_and_its_vote_keeps_neither() {
    let (mut raft, effects) = node(Some(Damage::Both), Standing::Recovering);
    let forgotten = HardState { term: 4, vote: Some(voter(2, 1)), standing: Standing::Forgotten };
    assert_eq!(effects[0], Effect::PersistHardState { seq: HardStateSeq(1), state: forgotten });
    step(&mut raft, Input::HardStatePersisted { seq: HardStateSeq(1) });
    let effects = hear(&mut raft, append(4, 1, Some(Recovery { name: 77, end: 5 })));
    assert!(effects.contains(&Effect::TruncateLog { to: 4 }), "it follows a log that can grow");
    assert!(!votes(&mut raft));
}

#[test]
fn what_a_recovering_voter_holds_does_not_count() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    let mut raft = cluster.raft(leader).clone();
    let (term, commit, end) = (raft.term(), raft.commit(), raft.log_end());
    step(&mut raft, Input::Propose { id: ProposalId(9), payload: "x".into() });
    step(&mut raft, Input::Persisted { end: end + 1 });
    let follower = voter((leader + 1) % 3, 1);
    let say = |raft: &mut Raft, matched_end, voice| {
        let outcome = AppendOutcome::Accepted { matched_end, durable_end: matched_end };
        let message = Message::AppendAnswer { term, round: 0, outcome, voice };
        step(raft, Input::Message(Envelope { from: follower, to: voter(leader, 1), message }));
        raft.commit()
    };
    assert_eq!(say(&mut raft, end, Voice::Recovering(5)), commit);
    let mut effects = Vec::new();
    let heartbeat = cluster.now + Timing::default().heartbeat;
    raft.step(heartbeat, Input::Tick { jitter: 0 }, &mut effects);
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Send { to, message: Message::Append(append), .. } if *to == follower => append.recovery,
        _ => None,
    });
    assert_eq!(
        told,
        Some(Recovery { name: 5, end: end + 1 }),
        "what the leader held when it heard of the loss"
    );
    assert_eq!(
        say(&mut raft, end + 1, Voice::Recovering(5)),
        commit,
        "it holds the entry, and does not count"
    );
    assert_eq!(say(&mut raft, end + 1, Voice::Whole), end + 1);
}

#[test]
fn a_majority_with_a_recovering_voter_goes_on_when_that_has_caught_up() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    let (hurt, down) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.crash(down);
    cluster.crash_and_damage(hurt, false);
    cluster.restart(hurt);
    cluster.propose(leader);
    let commit = cluster.raft(leader).commit();
    cluster.run_well(SECOND);
    assert!(cluster.raft(leader).commit() > commit);
    assert_eq!(cluster.raft(hurt).role_name(), "Follower");
    assert_eq!(cluster.broken, None);
}

#[test]
fn a_voter_that_lost_its_vote_is_replaced_by_itself_under_another_folder() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    let hurt = (leader + 1) % 3;
    cluster.crash_and_damage(hurt, true);
    cluster.restart(hurt);
    cluster.propose(leader);
    cluster.run_well(SECOND);
    assert_eq!(cluster.raft(hurt).role_name(), "Observer");
    assert_eq!(cluster.log_of(hurt), cluster.log_of(leader), "it follows");
    cluster.wipe(hurt);
    for change in [VoterChange::Remove(voter(hurt, 1)), VoterChange::Add(voter(hurt, 2))] {
        cluster.change_voters(leader, change);
        cluster.run_well(SECOND);
    }
    assert_eq!(cluster.raft(hurt).role_name(), "Follower");
    assert_eq!(cluster.broken, None);
}
