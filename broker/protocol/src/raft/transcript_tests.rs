//! Transcripts of a few nodes, named after what they show. `UPDATE_EXPECT=1 cargo test -p weir-protocol` rewrites them.

use expect_test::{Expect, expect};

use super::harness::{Cluster, voter, voters};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// A cluster whose leader has committed its term's first entry.
fn running(nodes: usize, voting: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::with_voters(nodes, voters(voting), 1);
    cluster.run_well(SECOND);
    let leader = cluster.leader().expect("a leader");
    (cluster, leader)
}

fn check(mut cluster: Cluster, expected: &Expect) {
    assert_eq!(cluster.broken, None);
    expected.assert_eq(&cluster.transcript());
}

#[test]
fn an_election_asks_twice() {
    // §5.2; thesis §9.6
    let mut cluster = Cluster::new(3, 1);
    cluster.watch();
    cluster.run_well(SECOND / 2);
    check(
        cluster,
        &expect![[r#"
            1 > 0  would you vote in term 1 for a log that ends at 0 in term 0?
            1 > 2  would you vote in term 1 for a log that ends at 0 in term 0?
            0 > 1  would vote in term 1
                1  persists term 1, vote for 1
            2 > 1  would vote in term 1
            1 > 0  vote in term 1 for a log that ends at 0 in term 0
                0  persists term 1, vote for nobody
                0  persists term 1, vote for 1
            1 > 2  vote in term 1 for a log that ends at 0 in term 0
                2  persists term 1, vote for nobody
                2  persists term 1, vote for 1
            0 > 1  does vote in term 1
                1  leads term 1
            2 > 1  does vote in term 1
            1 > 0  term 1: at 0 after term 0: [LeaderStart/1]
                0  follows 1 in term 1
            1 > 2  term 1: at 0 after term 0: [LeaderStart/1]
                2  follows 1 in term 1
                1  commits up to 1
                0  commits up to 1
                2  commits up to 1"#]],
    );
}

#[test]
fn what_a_deposed_leader_wrote_alone_is_cut() {
    // §5.3, figure 7
    let (mut cluster, leader) = running(3, 3);
    cluster.watch();
    cluster.note("the leader is cut off, and writes");
    cluster.cut_off.insert(leader);
    cluster.propose(leader);
    cluster.run_well(SECOND);
    cluster.note("it is back");
    cluster.cut_off.clear();
    cluster.run_well(SECOND / 2);
    check(
        cluster,
        &expect![[r#"
            -- the leader is cut off, and writes
            2 > 0  would you vote in term 2 for a log that ends at 1 in term 1?
            0 > 2  would vote in term 2
                2  persists term 2, vote for 2
            2 > 0  vote in term 2 for a log that ends at 1 in term 1
                0  persists term 2, vote for nobody
                0  persists term 2, vote for 2
            0 > 2  does vote in term 2
                2  leads term 2
            2 > 0  term 2: at 1 after term 1: [LeaderStart/2]
                0  follows 2 in term 2
                2  commits up to 2
                0  commits up to 2
                1  resigns from term 1
            -- it is back
                1  persists term 2, vote for nobody
                1  follows 2 in term 2
            2 > 1  term 2: at 1 after term 1: [LeaderStart/2]
                1  cuts its log to 1
            1 > 2  busy
            2 > 1  term 2: at 1 after term 1: [LeaderStart/2]
                1  commits up to 2"#]],
    );
}

#[test]
fn a_voter_joins() {
    // Thesis §4.1
    let (mut cluster, leader) = running(3, 2);
    cluster.watch();
    cluster.change_voters(leader, VoterChange::Add(voter(2, 1)));
    cluster.change_voters(leader, VoterChange::Remove(voter(2, 1)));
    cluster.run_well(STEP);
    check(
        cluster,
        &expect![[r#"
            1  refuses: another change of voters is under way
        1 > 0  term 1: at 1 after term 1: [Voters/1]
        1 > 2  term 1: at 1 after term 1: [Voters/1]
            1  commits up to 2
            0  commits up to 2
            2  commits up to 2"#]],
    );
}

#[test]
fn a_leader_removes_itself() {
    // Thesis §4.2.2
    let (mut cluster, leader) = running(3, 3);
    cluster.watch();
    cluster.change_voters(leader, VoterChange::Remove(voter(leader, 1)));
    cluster.run_well(SECOND);
    check(
        cluster,
        &expect![[r#"
            1 > 0  term 1: at 1 after term 1: [Voters/1]
            1 > 2  term 1: at 1 after term 1: [Voters/1]
                1  commits up to 2
                1  resigns from term 1
                0  commits up to 2
                2  commits up to 2
            2 > 0  would you vote in term 2 for a log that ends at 2 in term 1?
            0 > 2  would vote in term 2
                2  persists term 2, vote for 2
            2 > 0  vote in term 2 for a log that ends at 2 in term 1
                0  persists term 2, vote for nobody
                0  persists term 2, vote for 2
            0 > 2  does vote in term 2
                2  leads term 2
            2 > 0  term 2: at 2 after term 1: [LeaderStart/2]
                0  follows 2 in term 2
                2  commits up to 3
                0  commits up to 3
                1  persists term 2, vote for nobody
                1  follows 2 in term 2
            1 > 2  my term 1 ends at 2
            2 > 1  term 2: at 2 after term 1: [LeaderStart/2]
                1  commits up to 3"#]],
    );
}

#[test]
fn a_follower_that_is_far_behind_gets_a_snapshot() {
    // §7
    let (mut cluster, leader) = running(3, 3);
    let away = (leader + 1) % 3;
    cluster.crash(away);
    for _ in 0..9 {
        cluster.propose(leader);
        cluster.run_well(STEP);
    }
    cluster.watch();
    cluster.take_snapshot(leader);
    cluster.restart(away);
    cluster.run_well(SECOND / 4);
    check(
        cluster,
        &expect![[r#"
            1  drops its log below 7
            2  follows 1 in term 1
        2 > 1  my term 1 ends at 1
        1 > 2  snapshot at 10: bytes 0 to 32 of 71
        2 > 1  32 bytes of snapshot 10
        1 > 2  snapshot at 10: bytes 32 to 64 of 71
        2 > 1  64 bytes of snapshot 10
        1 > 2  snapshot at 10: bytes 64 to 71 of 71
            2  installs the snapshot at 10
        2 > 1  busy"#]],
    );
}

#[test]
fn a_voter_that_has_lost_entries_catches_up_before_it_counts() {
    // Contract 6
    let (mut cluster, leader) = running(3, 3);
    let (hurt, away) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.crash(away);
    cluster.propose(leader);
    cluster.run_well(STEP);
    cluster.crash_and_damage(hurt, false);
    cluster.watch();
    cluster.note("it restarts with a damaged log");
    cluster.restart(hurt);
    cluster.propose(leader);
    cluster.run_well(SECOND / 8);
    check(
        cluster,
        &expect![[r#"
            -- it restarts with a damaged log
                2  persists term 1, vote for 1, Recovering
            1 > 2  term 1: at 2 after term 1: [Command/1]
                2  follows 1 in term 1
            2 > 1  busy, but I do not count
            1 > 2  term 1: at 2 after term 1: [], hold 3 first
                2  cuts its log to 1
            2 > 1  busy, but I do not count
            2 > 1  the same up to 0, durable up to 0, but I do not count
            1 > 2  term 1: at 2 after term 1: [Command/1], hold 3 first
            2 > 1  my term 1 ends at 1, but I do not count
            1 > 2  term 1: at 1 after term 1: [Command/1], hold 3 first
                2  commits up to 1
                2  commits up to 2
            2 > 1  the same up to 2, durable up to 1, but I do not count
            2 > 1  the same up to 2, durable up to 2, but I do not count
            1 > 2  term 1: at 2 after term 1: [Command/1], hold 3 first
                2  persists term 1, vote for 1
            2 > 1  the same up to 3, durable up to 2, but I do not count
            2 > 1  the same up to 3, durable up to 3, but I do not count
                1  commits up to 3
                2  commits up to 3
            1 > 0  term 1: at 1 after term 1: [Command/1]"#]],
    );
}

#[test]
fn a_read_waits_until_a_majority_has_confirmed_the_leader() {
    // §8
    let (mut cluster, leader) = running(3, 3);
    cluster.watch();
    cluster.read(leader);
    cluster.note("nobody has answered yet");
    cluster.run_well(STEP);
    cluster.cut_off.insert(leader);
    cluster.note("the leader is cut off");
    cluster.read(leader);
    cluster.run_well(SECOND / 2);
    check(
        cluster,
        &expect![[r#"
            -- nobody has answered yet
                1  reads at 1
            -- the leader is cut off
                1  resigns from term 1
                1  refuses to read: this node does not lead the metadata quorum
            2 > 0  would you vote in term 2 for a log that ends at 1 in term 1?
            0 > 2  would vote in term 2
                2  persists term 2, vote for 2
            2 > 0  vote in term 2 for a log that ends at 1 in term 1
                0  persists term 2, vote for nobody
                0  persists term 2, vote for 2
            0 > 2  does vote in term 2
                2  leads term 2
            2 > 0  term 2: at 1 after term 1: [LeaderStart/2]
                0  follows 2 in term 2
                2  commits up to 2
                0  commits up to 2"#]],
    );
}
