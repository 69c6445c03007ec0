//! The table of roles in the module's documentation is what the code does.

use super::harness::{Cluster, limits, voter, voters};
use super::*;

type Reach = fn() -> Cluster;
type Do = fn(&mut Cluster);

const NEWER: Term = 9;

fn tick(cluster: &mut Cluster) {
    cluster.now += Duration::from_millis(400);
    cluster.step(0, Input::Tick { jitter: 0 });
}

fn say(cluster: &mut Cluster, from: usize, message: Message) {
    cluster.step(0, Input::Message(Envelope { from: voter(from, 1), to: voter(0, 1), message }));
}

fn grant_pre_votes(cluster: &mut Cluster) {
    let term = cluster.raft(0).term() + 1;
    say(cluster, 1, Message::PreVoteAnswer { term, granted: true });
}

fn grant_votes(cluster: &mut Cluster) {
    cluster.sync_all(0);
    let term = cluster.raft(0).term();
    say(cluster, 1, Message::VoteAnswer { term, granted: true });
}

fn follower() -> Cluster {
    Cluster::new(3, 1)
}

fn observer() -> Cluster {
    let others = Voters::new((1..4).map(|node| voter(node, 1))).expect("distinct nodes");
    Cluster::with_voters(4, others, 1)
}

fn pre_candidate() -> Cluster {
    let mut cluster = follower();
    tick(&mut cluster);
    cluster
}

fn candidate() -> Cluster {
    let mut cluster = pre_candidate();
    grant_pre_votes(&mut cluster);
    cluster
}

fn leader() -> Cluster {
    let mut cluster = candidate();
    grant_votes(&mut cluster);
    cluster
}

/// How each role is reached by node 0.
const ROLES: [(&str, Reach); 5] = [
    ("Observer", observer),
    ("Follower", follower),
    ("PreCandidate", pre_candidate),
    ("Candidate", candidate),
    ("Leader", leader),
];

/// What a leader of a newer term says that makes these nodes the voters.
fn hear_of_voters(cluster: &mut Cluster, nodes: std::ops::Range<usize>, commit: Index) {
    let payload = Voters::new(nodes.map(|node| voter(node, 1))).expect("distinct nodes").encode();
    let entries = vec![Entry { term: NEWER, kind: EntryKind::Voters, payload }];
    let append = Append { term: NEWER, base: 0, previous_term: 0, entries, commit, round: 0, recovery: None };
    say(cluster, 1, Message::Append(append));
    cluster.sync_all(0);
}

fn accept(cluster: &mut Cluster, end: Index) {
    cluster.sync_all(0);
    let term = cluster.raft(0).term();
    let outcome = AppendOutcome::Accepted { matched_end: end, durable_end: end };
    (1..3).for_each(|from| {
        say(cluster, from, Message::AppendAnswer { term, round: 0, outcome, voice: Voice::Whole })
    });
}

/// Each input, with the conditions that matter to it.
const INPUTS: [(&str, Do); 14] = [
    ("timeout", |cluster| {
        if !cluster.raft(0).is_leader() {
            tick(cluster);
        }
    }),
    ("newer term", |cluster| {
        let outcome = AppendOutcome::Busy;
        say(cluster, 1, Message::AppendAnswer { term: NEWER, round: 0, outcome, voice: Voice::Whole });
    }),
    ("a leader of the term", |cluster| {
        let term = cluster.raft(0).term();
        let append =
            Append { term, base: 0, previous_term: 0, entries: vec![], commit: 0, round: 0, recovery: None };
        say(cluster, 1, Message::Append(append));
    }),
    ("pre-votes of a majority", grant_pre_votes),
    ("votes of a majority", grant_votes),
    ("no majority heard", |cluster| {
        if cluster.raft(0).is_leader() {
            tick(cluster);
        }
    }),
    ("own log failed", |cluster| {
        // A follower that has an entry which its disk did not take.
        if !cluster.raft(0).is_leader() {
            let term = cluster.raft(0).term();
            let entries = vec![Entry { term: term.max(1), kind: EntryKind::LeaderStart, payload: "".into() }];
            let append =
                Append { term, base: 0, previous_term: 0, entries, commit: 0, round: 0, recovery: None };
            if cluster.raft(0).role_name() == "Follower" {
                say(cluster, 1, Message::Append(append));
            }
        }
        cluster.fail_append(0);
    }),
    ("its leader hands over", |cluster| {
        let term = cluster.raft(0).term();
        say(cluster, 1, Message::TimeoutNow { term });
    }),
    ("resign", |cluster| cluster.step(0, Input::Resign)),
    ("hand over", |cluster| cluster.step(0, Input::HandOver)),
    ("a change admits it", |cluster| {
        if cluster.raft(0).role_name() == "Observer" {
            hear_of_voters(cluster, 0..4, 0);
        }
    }),
    ("its removal is committed", |cluster| {
        if cluster.raft(0).is_leader() {
            accept(cluster, 1);
            cluster.change_voters(0, VoterChange::Remove(voter(0, 1)));
            accept(cluster, 2);
        } else {
            hear_of_voters(cluster, 1..4, 1);
        }
    }),
    ("a proposal", |cluster| cluster.propose(0)),
    ("a heartbeat's time", |cluster| {
        let leads = cluster.raft(0).is_leader();
        cluster.now += if leads { Timing::default().heartbeat } else { Duration::ZERO };
        cluster.step(0, Input::Tick { jitter: 0 });
    }),
];

#[test]
fn the_table_of_roles_is_what_the_code_does() {
    let mut observed = Vec::new();
    for (role, reach) in ROLES {
        for (name, act) in INPUTS {
            let mut cluster = reach();
            assert_eq!(cluster.raft(0).role_name(), role);
            act(&mut cluster);
            let next = cluster.raft(0).role_name();
            if next != role {
                observed.push(format!("//! | {role} | {name} | {next} |"));
            }
        }
    }
    let documented: Vec<_> = include_str!("mod.rs")
        .lines()
        .skip_while(|line| !line.contains("| role | input |"))
        .skip(2)
        .collect();
    let documented: Vec<_> = documented.into_iter().take_while(|line| line.starts_with("//! |")).collect();
    observed.sort_by_key(|row| documented.iter().position(|other| other == row));
    assert_eq!(documented, observed);
}

#[test]
fn an_observer_never_campaigns() {
    let stranger = voter(0, 7);
    for (me, damage) in
        [(stranger, None), (voter(0, 1), Some(Damage::Log)), (voter(0, 1), Some(Damage::Vote))]
    {
        let state = StartState {
            me,
            voters: voters(3),
            hard_state: HardState::default(),
            snapshot: None,
            log: LogPosition::default(),
            damage,
        };
        let mut effects = Vec::new();
        let mut raft = Raft::start(state, Timing::default(), limits(), Duration::ZERO, 0, &mut effects);
        effects.clear();
        raft.step(Duration::from_secs(9), Input::Tick { jitter: 0 }, &mut effects);
        assert_eq!((raft.role_name(), effects), ("Observer", vec![]));
    }
}
