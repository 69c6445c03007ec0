//! Changes of voters, with the sections of Ongaro's thesis that they show.

use weir_defect::defect;

use super::harness::{Cluster, voter, voters};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster that has run for a while, and its leader. Voters are the first `voting` of `nodes`.
fn running(nodes: usize, voting: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::with_voters(nodes, voters(voting), 11);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

fn change(cluster: &mut Cluster, change: VoterChange) {
    let leader = cluster.leader().expect("a leader");
    cluster.change_voters(leader, change);
    cluster.run_well(SECOND);
    assert_eq!(cluster.broken, None);
}

fn refused(cluster: &mut Cluster, node: usize, change: VoterChange) -> Refusal {
    let mut raft = cluster.raft(node).clone();
    let mut effects = Vec::new();
    raft.step(cluster.now, Input::ChangeVoters { id: ProposalId(0), change }, &mut effects);
    match effects[0] {
        Effect::ProposalRefused { reason, .. } => reason,
        _ => panic!("not refused: {effects:?}"),
    }
}

#[test]
fn a_cluster_grows_from_one_voter_to_five_and_shrinks_to_one() {
    // §4.1
    let (mut cluster, _) = running(5, 1);
    for node in 1..5 {
        change(&mut cluster, VoterChange::Add(voter(node, 1)));
        for at in 0..5 {
            assert_eq!(cluster.raft(at).voters(), &voters(node + 1), "on node {at}");
        }
    }
    for node in 0..4 {
        change(&mut cluster, VoterChange::Remove(voter(node, 1)));
        cluster.run_well(SECOND);
    }
    assert_eq!(cluster.leader(), Some(4), "the last voter leads");
    assert_eq!(cluster.raft(0).role_name(), "Observer");
    assert_eq!(cluster.log_of(0), cluster.log_of(4), "who was removed follows on");
}

#[test]
fn a_leader_that_is_removed_leads_until_that_is_committed_and_does_not_count_itself() {
    // §4.2.2
    let (mut cluster, leader) = running(3, 3);
    let id = voter(leader, 1);
    cluster.change_voters(leader, VoterChange::Remove(id));
    cluster.sync_all(leader);
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    // One of two is no majority of those that remain.
    cluster.cut_off.insert(others[0]);
    let commit = cluster.raft(leader).commit();
    cluster.run_well(20 * Duration::from_millis(1));
    assert!(cluster.raft(leader).is_leader());
    assert_eq!(cluster.raft(leader).commit(), commit);
    cluster.cut_off.clear();
    cluster.run_well(2 * SECOND);
    assert_eq!(cluster.raft(leader).role_name(), "Observer");
    assert!(others.contains(&cluster.leader().expect("another leader")));
    assert_eq!(cluster.broken, None);
}

#[test]
fn a_removal_of_one_of_two_is_committed_by_the_one_whose_log_has_it() {
    // §4.2.2: the leader removes itself and stops before the other has heard of it.
    let (mut cluster, leader) = running(2, 2);
    cluster.cut_off.insert(1 - leader);
    cluster.change_voters(leader, VoterChange::Remove(voter(leader, 1)));
    cluster.sync_all(leader);
    cluster.crash(leader);
    cluster.restart(leader);
    cluster.cut_off.clear();
    cluster.run_well(3 * SECOND);
    assert_eq!(cluster.leader(), Some(1 - leader));
    assert_eq!(cluster.raft(leader).role_name(), "Observer");
    assert_eq!(cluster.broken, None);
}

#[test]
fn changes_are_made_one_at_a_time() {
    let (mut cluster, leader) = running(5, 3);
    cluster.change_voters(leader, VoterChange::Add(voter(3, 1)));
    let reason = refused(&mut cluster, leader, VoterChange::Add(voter(4, 1)));
    assert_eq!(reason, ChangeRefusal::ChangeUnderWay.into());
}

#[test]
fn a_leader_changes_no_voters_before_an_entry_of_its_term_is_committed() {
    // Ongaro, raft-dev 2015; Z39
    let (mut cluster, leader) = running(4, 3);
    cluster.step(leader, Input::Resign);
    cluster.cut_off.insert(leader);
    let mut term_begun = None;
    for _ in 0..2_000 {
        cluster.pass_time(Duration::from_millis(1));
        for node in 0..4 {
            cluster.sync_hard_state(node);
        }
        while !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        term_begun = term_begun.or(cluster.leader());
        if term_begun.is_some() {
            break;
        }
    }
    let leader = term_begun.expect("another leader");
    let change = VoterChange::Add(voter(3, 1));
    if !defect!(reconfigure_before_noop) {
        assert_eq!(refused(&mut cluster, leader, change), ChangeRefusal::TermNotCommitted.into());
    }
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    // §4.2.1: a new voter that holds nothing yet would hold up the next commit.
    let (mut cluster, leader) = running(4, 3);
    let mut expect = |change, reason: ChangeRefusal| {
        assert_eq!(refused(&mut cluster, leader, change), reason.into(), "{change:?}");
    };
    let other = (leader + 1) % 3;
    expect(VoterChange::Add(voter(other, 1)), ChangeRefusal::VoterExists);
    expect(VoterChange::Add(voter(other, 2)), ChangeRefusal::VoterExists);
    expect(VoterChange::Add(voter(9, 1)), ChangeRefusal::NotCaughtUp);
    expect(VoterChange::Remove(voter(3, 1)), ChangeRefusal::NoSuchVoter);
    expect(VoterChange::Remove(voter(other, 2)), ChangeRefusal::NoSuchVoter);
    let leads = Refusal::NotLeader(Some(voter(leader, 1)));
    assert_eq!(refused(&mut cluster, other, VoterChange::Add(voter(3, 1))), leads);
    let (mut alone, _) = running(1, 1);
    let last = VoterChange::Remove(voter(0, 1));
    assert_eq!(refused(&mut alone, 0, last), ChangeRefusal::BadNumberOfVoters.into());
}

#[test]
fn a_voter_whose_disk_was_lost_is_replaced_by_the_same_node_with_a_new_folder() {
    // Contract 6; Z58
    let (mut cluster, leader) = running(3, 3);
    let lost = (leader + 1) % 3;
    cluster.propose(leader);
    cluster.run_well(SECOND);
    cluster.wipe(lost);
    assert_eq!(cluster.raft(lost).role_name(), "Observer");
    change(&mut cluster, VoterChange::Remove(voter(lost, 1)));
    change(&mut cluster, VoterChange::Add(voter(lost, 2)));
    assert_eq!(cluster.raft(lost).role_name(), "Follower");
    assert!(cluster.raft(lost).voters().contains(voter(lost, 2)));
    assert_eq!(cluster.log_of(lost), cluster.log_of(leader));
}

#[test]
fn an_empty_folder_votes_for_nobody() {
    // Contract 6
    let mut cluster = Cluster::with_voters(3, voters(2), 1);
    let candidacy = Candidacy { term: 1, last_term: 0, end: 0 };
    let ask = |to| Envelope { from: voter(0, 1), to: voter(to, 1), message: Message::Vote(candidacy) };
    cluster.step(2, Input::Message(ask(2)));
    assert_eq!(cluster.raft(2).term(), 0);
    cluster.step(1, Input::Message(ask(1)));
    assert_eq!(cluster.raft(1).term(), 1, "the first voters are empty, too");
}

#[test]
fn a_change_that_is_cut_from_the_log_is_taken_back() {
    // §4.1: voters are those of the log's newest change, committed or not.
    let mut cluster = Cluster::with_voters(4, voters(3), 1);
    let append = |term, base, previous_term, kind, payload| {
        let entries = vec![Entry { term, kind, payload }];
        Message::Append(Append { term, base, previous_term, entries, commit: 0, round: 0, recovery: None })
    };
    let to = voter(3, 1);
    let messages = [
        append(1, 0, 0, EntryKind::Voters, voters(4).encode()),
        append(2, 0, 0, EntryKind::LeaderStart, "".into()),
    ];
    let mut roles = Vec::new();
    for (from, message) in messages.into_iter().enumerate() {
        cluster.step(3, Input::Message(Envelope { from: voter(from, 1), to, message }));
        roles.push((cluster.raft(3).role_name(), cluster.raft(3).voters().ids().len()));
    }
    assert_eq!(roles, [("Follower", 4), ("Observer", 3)]);
}
