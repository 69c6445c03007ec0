//! Scenarios, with the sections of the paper that they show.

use weir_defect::defect;

use super::harness::{Cluster, limits, voter, voters};
use super::*;

const STEP: Duration = Duration::from_millis(1);

/// One node, fed by hand.
struct Bench {
    raft: Raft,
    now: Duration,
}

impl Bench {
    fn start(nodes: usize, hard_state: HardState, log: LogPosition) -> (Bench, Vec<Effect>) {
        let voters = voters(nodes);
        let state = StartState { me: voter(0, 1), voters, hard_state, snapshot: None, log, damage: None };
        let mut effects = Vec::new();
        let raft = Raft::start(state, Timing::default(), limits(), Duration::ZERO, 0, &mut effects);
        (Bench { raft, now: Duration::ZERO }, effects)
    }

    fn new(nodes: usize) -> Bench {
        Bench::start(nodes, HardState::default(), LogPosition::default()).0
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.raft.step(self.now, input, &mut effects);
        self.raft.invariants().expect("the laws hold after each step");
        effects
    }

    fn hear(&mut self, from: usize, message: Message) -> Vec<Effect> {
        self.step(Input::Message(Envelope { from: voter(from, 1), to: voter(0, 1), message }))
    }

    /// What was answered to `from`, and what it waits for.
    fn answer(effects: &[Effect]) -> (Message, SyncPoint) {
        let sent = effects.iter().find_map(|effect| match effect {
            Effect::Send { message, after, .. } => Some((message.clone(), *after)),
            _ => None,
        });
        sent.expect("something was sent")
    }
}

fn entry(term: Term) -> Entry {
    Entry { term, kind: EntryKind::Command, payload: "x".into() }
}

fn append(term: Term, base: Index, previous_term: Term, entries: &[Term], commit: Index) -> Message {
    let entries = entries.iter().copied().map(entry).collect();
    Message::Append(Append { term, base, previous_term, entries, commit, round: 0, recovery: None })
}

fn accepted(term: Term, matched_end: Index, durable_end: Index) -> Message {
    let outcome = AppendOutcome::Accepted { matched_end, durable_end };
    Message::AppendAnswer { term, round: 0, outcome, voice: Voice::Whole }
}

#[test]
fn a_quorum_of_one_leads_as_soon_as_its_own_vote_is_durable() {
    let (mut bench, effects) = Bench::start(1, HardState::default(), LogPosition::default());
    let vote = HardState { term: 1, vote: Some(voter(0, 1)), ..HardState::default() };
    let persist = Effect::PersistHardState { seq: HardStateSeq(1), state: vote };
    assert_eq!(effects[0], persist);
    assert!(!bench.raft.is_leader());
    let effects = bench.step(Input::HardStatePersisted { seq: HardStateSeq(1) });
    let start = Entry { term: 1, kind: EntryKind::LeaderStart, payload: "".into() };
    assert_eq!(
        effects,
        [Effect::BecameLeader { term: 1 }, Effect::AppendEntries { first: 0, entries: vec![start] }]
    );
    assert_eq!(bench.step(Input::Persisted { end: 1 }), [Effect::Commit { end: 1 }]);
    let effects = bench.step(Input::Propose { id: ProposalId(7), payload: "a".into() });
    assert_eq!(effects[0], Effect::ProposalAccepted { id: ProposalId(7), index: 1, term: 1 });
    assert!(matches!(&effects[1..], [Effect::AppendEntries { first: 1, .. }]));
    assert_eq!(bench.step(Input::Persisted { end: 2 }), [Effect::Commit { end: 2 }]);
    let read = bench.step(Input::Read { id: ReadId(1) });
    assert_eq!(read, [Effect::ReadReady { id: ReadId(1), commit: 2 }]);
}

#[test]
fn a_restart_ends_the_term_even_of_a_quorum_of_one() {
    // Z42: what the former self wrote in term 3 may have lost its tail.
    let hard_state = HardState { term: 3, vote: Some(voter(0, 1)), ..HardState::default() };
    let log = LogPosition { end: 5, terms: vec![(1, 0), (3, 4)], ..LogPosition::default() };
    let (mut bench, effects) = Bench::start(1, hard_state, log);
    if !defect!(resume_same_epoch) {
        let state = HardState { term: 4, vote: Some(voter(0, 1)), ..HardState::default() };
        assert_eq!(effects, [Effect::PersistHardState { seq: HardStateSeq(1), state }, effects[1].clone()]);
        assert_eq!(bench.raft.commit(), 0, "what was committed is known when the new term's first entry is");
        bench.step(Input::HardStatePersisted { seq: HardStateSeq(1) });
        assert_eq!(bench.step(Input::Persisted { end: 6 }), [Effect::Commit { end: 6 }]);
    }
}

#[test]
fn a_term_that_only_the_log_remembers_is_not_used_again() {
    let log = LogPosition { end: 2, terms: vec![(5, 0)], ..LogPosition::default() };
    let (bench, _) =
        Bench::start(3, HardState { term: 4, vote: Some(voter(0, 1)), ..HardState::default() }, log);
    assert_eq!(bench.raft.term(), 5);
}

#[test]
fn a_vote_is_given_once_in_a_term_and_said_only_after_it_is_synced() {
    // §5.2; Z41
    let mut bench = Bench::new(3);
    let candidacy = Candidacy { term: 1, last_term: 0, end: 0 };
    let effects = bench.hear(1, Message::Vote(candidacy));
    let granted = Message::VoteAnswer { term: 1, granted: true };
    // Two hard states: the new term, then the vote in it.
    assert_eq!(Bench::answer(&effects), (granted.clone(), SyncPoint::HardState(HardStateSeq(2))));
    let refused = Message::VoteAnswer { term: 1, granted: false };
    assert_eq!(Bench::answer(&bench.hear(2, Message::Vote(candidacy))).0, refused);
    bench.step(Input::HardStatePersisted { seq: HardStateSeq(2) });
    let again = bench.hear(1, Message::Vote(candidacy));
    assert_eq!(Bench::answer(&again), (granted, SyncPoint::Now));
}

#[test]
fn a_candidate_whose_log_is_older_gets_no_vote() {
    // §5.4.1: the last term decides, then the length.
    let log = || LogPosition { end: 4, terms: vec![(1, 0), (3, 2)], ..LogPosition::default() };
    for (last_term, end, granted) in [(3, 4, true), (4, 1, true), (3, 5, true), (3, 3, false), (2, 9, false)]
    {
        let (mut bench, _) =
            Bench::start(3, HardState { term: 3, vote: None, ..HardState::default() }, log());
        let candidacy = Candidacy { term: 4, last_term, end };
        let answer = Bench::answer(&bench.hear(1, Message::Vote(candidacy))).0;
        assert_eq!(answer, Message::VoteAnswer { term: 4, granted }, "{last_term} {end}");
    }
}

#[test]
fn who_hears_a_leader_votes_for_nobody_else() {
    // Thesis §4.2.3 and §9.6: a node that comes back from a partition disturbs nobody.
    let mut bench = Bench::new(3);
    bench.hear(1, append(2, 0, 0, &[], 0));
    let candidacy = Candidacy { term: 3, last_term: 9, end: 9 };
    let refused = Message::PreVoteAnswer { term: 2, granted: false };
    assert_eq!(Bench::answer(&bench.hear(2, Message::PreVote(candidacy))).0, refused);
    assert_eq!(bench.hear(2, Message::Vote(candidacy)), []);
    assert_eq!(bench.raft.term(), 2);
    bench.now += Timing::default().election_min;
    let granted = Message::PreVoteAnswer { term: 3, granted: true };
    assert_eq!(Bench::answer(&bench.hear(2, Message::PreVote(candidacy))).0, granted);
    assert_eq!(bench.raft.term(), 2, "a pre-vote changes nothing");
}

#[test]
fn a_follower_cuts_what_contradicts_the_leader_and_takes_nothing_until_that_is_durable() {
    // §5.3, figure 7
    let log = LogPosition { end: 6, terms: vec![(1, 0), (2, 3)], ..LogPosition::default() };
    let (mut bench, _) = Bench::start(3, HardState { term: 2, vote: None, ..HardState::default() }, log);
    let diverged = AppendOutcome::Diverged { term: 2, end: 6 };
    let message = Message::AppendAnswer { term: 4, round: 0, outcome: diverged, voice: Voice::Whole };
    assert_eq!(Bench::answer(&bench.hear(1, append(4, 8, 3, &[4], 0))).0, message, "a gap");

    let effects = bench.hear(1, append(4, 3, 1, &[3, 4], 0));
    assert_eq!(effects[0], Effect::TruncateLog { to: 3 });
    let busy = Message::AppendAnswer { term: 4, round: 0, outcome: AppendOutcome::Busy, voice: Voice::Whole };
    assert_eq!(Bench::answer(&effects).0, busy);
    assert_eq!(Bench::answer(&bench.hear(1, append(4, 3, 1, &[3, 4], 0))).0, busy);
    // Storage speaks of the old tail still: it counts for nothing that comes in its place.
    bench.step(Input::Persisted { end: 6 });
    assert_eq!(bench.raft.durable_end(), 3);

    assert_eq!(Bench::answer(&bench.step(Input::Truncated { to: 3 })).0, accepted(4, 3, 3));
    let effects = bench.hear(1, append(4, 3, 1, &[3, 4], 0));
    assert!(matches!(&effects[0], Effect::AppendEntries { first: 3, entries } if entries.len() == 2));
    assert_eq!(Bench::answer(&effects).0, accepted(4, 5, 3));
    let effects = bench.step(Input::Persisted { end: 5 });
    assert_eq!(Bench::answer(&effects).0, accepted(4, 5, 5), "a finished sync is reported at once");
}

#[test]
fn a_late_or_repeated_append_cuts_nothing() {
    // §5.3: only a conflict cuts; a message that is shorter than the log is no conflict.
    let mut bench = Bench::new(3);
    bench.hear(1, append(1, 0, 0, &[1, 1, 1], 0));
    let effects = bench.hear(1, append(1, 0, 0, &[1], 0));
    assert_eq!(Bench::answer(&effects).0, accepted(1, 3, 0));
    assert_eq!(bench.raft.log_end(), 3);
}

#[test]
fn a_follower_commits_what_it_has_synced_and_what_matches_the_leader() {
    let log = LogPosition { end: 3, terms: vec![(1, 0)], ..LogPosition::default() };
    let (mut bench, _) = Bench::start(3, HardState { term: 1, vote: None, ..HardState::default() }, log);
    let effects = bench.hear(1, append(2, 1, 1, &[], 3));
    assert!(effects.contains(&Effect::Commit { end: 1 }), "the rest may not be the leader's");
    let effects = bench.hear(1, append(2, 3, 1, &[2], 4));
    assert!(effects.contains(&Effect::Commit { end: 3 }), "the fourth is not durable here");
    assert!(bench.step(Input::Persisted { end: 4 }).contains(&Effect::Commit { end: 4 }));
}

#[test]
fn a_leader_that_contradicts_what_is_committed_is_not_believed() {
    // Contract 14
    let mut bench = Bench::new(3);
    bench.hear(1, append(1, 0, 0, &[1, 1], 2));
    bench.step(Input::Persisted { end: 2 });
    assert_eq!(bench.raft.commit(), 2);
    let effects = bench.hear(2, append(2, 0, 0, &[2], 0));
    let complaint = Effect::Complain { about: voter(2, 1), what: Complaint::ContradictsCommitted };
    assert!(effects.contains(&complaint));
    let nonsense = [
        append(2, -1, 0, &[], 0),
        append(2, 0, 0, &[3], 0),
        append(2, 0, 0, &[2, 1], 0),
        append(2, i64::MAX, 2, &[2], 0),
    ];
    for message in nonsense {
        let effects = bench.hear(2, message);
        assert!(effects.contains(&Effect::Complain { about: voter(2, 1), what: Complaint::Nonsense }));
    }
    assert_eq!(bench.raft.log_end(), 2);
}

/// The leader of three in term `term` over `log`, whose first entry nobody has yet.
fn leader_of_three(term: Term, log: LogPosition) -> Bench {
    let (mut bench, _) =
        Bench::start(3, HardState { term: term - 1, vote: None, ..HardState::default() }, log);
    bench.now += Duration::from_millis(400);
    bench.step(Input::Tick { jitter: 0 });
    bench.hear(1, Message::PreVoteAnswer { term, granted: true });
    bench.step(Input::HardStatePersisted { seq: HardStateSeq(1) });
    bench.hear(1, Message::VoteAnswer { term, granted: true });
    assert!(bench.raft.is_leader());
    bench
}

#[test]
fn figure_8_an_entry_of_an_older_term_is_committed_only_with_one_of_the_leaders_own() {
    // §5.4.2; Z43
    let log = LogPosition { end: 2, terms: vec![(1, 0), (2, 1)], ..LogPosition::default() };
    let mut bench = leader_of_three(4, log);
    bench.step(Input::Persisted { end: 3 });
    let effects = bench.hear(1, accepted(4, 2, 2));
    let committed = effects.iter().any(|effect| matches!(effect, Effect::Commit { .. }));
    assert_eq!(committed, defect!(commit_prior_term), "on a majority, but of term 2");
    assert!(bench.hear(1, accepted(4, 3, 3)).contains(&Effect::Commit { end: 3 }));
}

#[test]
fn what_a_follower_has_not_synced_does_not_count() {
    let mut bench = leader_of_three(1, LogPosition::default());
    bench.step(Input::Persisted { end: 1 });
    bench.hear(1, accepted(1, 1, 0));
    bench.hear(2, accepted(1, 1, 0));
    assert_eq!(bench.raft.commit(), 0);
    assert!(bench.hear(2, accepted(1, 1, 1)).contains(&Effect::Commit { end: 1 }));
}

#[test]
fn a_leader_goes_back_a_whole_term_at_a_time() {
    // §5.3, the end; KIP-595
    let log = LogPosition { end: 9, terms: vec![(1, 0), (4, 3), (6, 7)], ..LogPosition::default() };
    let mut bench = leader_of_three(7, log);
    let diverged = |term, end| {
        let outcome = AppendOutcome::Diverged { term, end };
        Message::AppendAnswer { term: 7, round: 0, outcome, voice: Voice::Whole }
    };
    let asked = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::ReadEntries { from, .. } => Some(*from),
            _ => None,
        })
    };
    // The follower's log is of terms 1, 1, 1, 1, 1, 5: it has no 6 and no 4.
    assert_eq!(asked(&bench.hear(1, diverged(5, 6))), Some(6));
    let effects = bench.hear(1, diverged(1, 5));
    assert_eq!(asked(&effects), Some(3), "where term 1 ends in the leader's own log");
    let entries = vec![entry(4); 2];
    let effects = bench.step(Input::EntriesRead { to: voter(1, 1), term: 7, from: 3, entries });
    let (message, _) = Bench::answer(&effects);
    assert!(matches!(message, Message::Append(Append { base: 3, previous_term: 1, .. })), "{message:?}");
    let stale = Input::EntriesRead { to: voter(1, 1), term: 6, from: 3, entries: vec![entry(4)] };
    assert_eq!(bench.step(stale), []);
}

#[test]
fn a_leader_that_no_majority_answers_resigns_and_refuses_its_reads() {
    // Z46
    let mut bench = leader_of_three(1, LogPosition::default());
    bench.step(Input::Read { id: ReadId(3) });
    bench.now += 2 * Timing::default().election_min;
    let effects = bench.step(Input::Tick { jitter: 0 });
    let refused = Effect::ReadRefused { id: ReadId(3), reason: Refusal::NotLeader(None) };
    assert_eq!(effects[..2], [Effect::Resigned { term: 1 }, refused]);
    let effects = bench.step(Input::Propose { id: ProposalId(1), payload: "a".into() });
    let refused = Effect::ProposalRefused { id: ProposalId(1), reason: Refusal::NotLeader(None) };
    assert_eq!(effects[0], refused);
}

#[test]
fn a_read_waits_for_the_terms_first_entry_and_for_a_majority_that_answers_after_it_began() {
    // §8; Z44
    let mut bench = leader_of_three(1, LogPosition::default());
    assert_eq!(bench.step(Input::Read { id: ReadId(1) }), []);
    bench.step(Input::Persisted { end: 1 });
    let effects = bench.hear(1, accepted(1, 1, 1));
    assert!(effects.contains(&Effect::Commit { end: 1 }));
    let ready = Effect::ReadReady { id: ReadId(1), commit: 1 };
    assert!(!effects.contains(&ready), "the answer is to a message from before the read's round");
    let confirm = |round| {
        let outcome = AppendOutcome::Accepted { matched_end: 1, durable_end: 1 };
        Message::AppendAnswer { term: 1, round, outcome, voice: Voice::Whole }
    };
    assert_eq!(bench.hear(2, confirm(0)), []);
    assert_eq!(bench.hear(2, confirm(1)), [ready]);
}

#[test]
fn a_leader_whose_disk_is_full_gives_the_index_to_no_other_entry_of_its_term() {
    // Contract 4
    let mut bench = leader_of_three(1, LogPosition::default());
    bench.step(Input::Persisted { end: 1 });
    bench.step(Input::Propose { id: ProposalId(1), payload: "a".into() });
    let effects = bench.step(Input::AppendFailed { from: 1 });
    assert_eq!(effects[0], Effect::Resigned { term: 1 });
    assert_eq!((bench.raft.log_end(), bench.raft.role_name()), (1, "Follower"));
}

#[test]
fn a_leader_refuses_what_exceeds_its_bounds() {
    let mut bench = leader_of_three(1, LogPosition::default());
    let refused = |id, reason| Effect::ProposalRefused { id: ProposalId(id), reason };
    let effects = bench.step(Input::Propose { id: ProposalId(1), payload: vec![0; 65].into() });
    assert_eq!(effects, [refused(1, Refusal::TooLarge)]);
    for id in 2..40 {
        let effects = bench.step(Input::Propose { id: ProposalId(id), payload: "a".into() });
        assert_eq!(effects.contains(&refused(id, Refusal::Overloaded)), id >= 17, "{id}");
    }
    for id in 0..6 {
        let effects = bench.step(Input::Read { id: ReadId(id) });
        let refused = Effect::ReadRefused { id: ReadId(id), reason: Refusal::Overloaded };
        assert_eq!(effects.contains(&refused), id >= 4);
    }
}

#[test]
fn a_message_for_another_folder_of_the_node_is_not_answered() {
    // Contract 6; Z58
    let mut bench = Bench::new(3);
    let message = Message::Vote(Candidacy { term: 1, last_term: 0, end: 0 });
    let envelope = Envelope { from: voter(1, 1), to: voter(0, 2), message };
    assert_eq!(bench.step(Input::Message(envelope)), []);
}

#[test]
fn a_cut_off_leader_is_replaced_and_follows_when_it_is_back() {
    let mut cluster = Cluster::new(3, 7);
    cluster.run_well(Duration::from_secs(1));
    let old = cluster.leader().expect("a leader");
    let term = cluster.raft(old).term();
    cluster.cut_off.insert(old);
    cluster.propose(old);
    cluster.run_well(Duration::from_secs(1));
    let new = cluster.leader().expect("another leader");
    assert_ne!(old, new);
    assert!(!cluster.raft(old).is_leader(), "alone, it has resigned");
    cluster.propose(new);
    cluster.run_well(10 * STEP);
    cluster.cut_off.clear();
    cluster.run_well(Duration::from_secs(1));
    assert_eq!(cluster.leader(), Some(new), "who comes back disturbs nobody");
    assert_eq!(cluster.raft(new).term(), term + 1);
    assert_eq!(cluster.log_of(old), cluster.log_of(new));
    assert_eq!(cluster.broken, None);
}

#[test]
fn a_voter_that_was_away_for_long_gets_what_it_missed_from_the_disk() {
    let mut cluster = Cluster::new(3, 3);
    cluster.run_well(Duration::from_secs(1));
    let leader = cluster.leader().expect("a leader");
    let away = (leader + 1) % 3;
    cluster.crash(away);
    for _ in 0..50 {
        cluster.propose(leader);
        cluster.run_well(5 * STEP);
    }
    cluster.restart(away);
    cluster.run_well(Duration::from_secs(1));
    assert!(cluster.committed.len() > 50);
    assert_eq!(cluster.log_of(away), cluster.log_of(leader));
    assert_eq!(cluster.broken, None);
}

#[test]
fn power_fails_everywhere_and_nothing_committed_is_gone() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_well(Duration::from_secs(1));
    for _ in 0..5 {
        let leader = cluster.leader().expect("a leader");
        cluster.propose(leader);
        cluster.run_well(5 * STEP);
        cluster.propose(leader);
        (0..3).for_each(|node| cluster.crash(node));
        (0..3).for_each(|node| cluster.restart(node));
        cluster.run_well(Duration::from_secs(1));
    }
    assert!(cluster.committed.len() >= 10);
    assert_eq!(cluster.broken, None);
}
