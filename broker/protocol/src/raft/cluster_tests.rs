//! Clusters under random faults: the properties of figure 3, and that a healed cluster goes on.

use std::time::Duration;

use weir_defect::{Defect, switch_on};

use super::VoterChange;
use super::harness::{Cluster, voters};

/// How often what happens in a run: drawn per seed, so that some runs have many elections and others long logs.
struct Profile {
    /// The faces of the die, each with its weight.
    weights: [(usize, Action); 17],
    pass_us_max: usize,
}

#[derive(Clone, Copy)]
enum Action {
    Deliver,
    Drop,
    Repeat,
    SyncHardState,
    SyncLog,
    ReadForFollowers,
    PassTime,
    Propose,
    Read,
    Crash,
    Restart,
    CutOff,
    Pause,
    HealOrResign,
    ChangeVoters,
    TakeSnapshot,
    Damage,
}

impl Profile {
    fn draw(cluster: &mut Cluster, special: Special) -> Profile {
        let changes = special == Special::Changes;
        let snapshots = cluster.random.percent(50);
        let mut weigh = |base: usize| base * [1, 4, 4, 4, 16][cluster.random.below(5)];
        let weights = [
            (weigh(330), Action::Deliver),
            (weigh(8), Action::Drop),
            (weigh(8), Action::Repeat),
            (weigh(120), Action::SyncHardState),
            (weigh(180), Action::SyncLog),
            (weigh(30), Action::ReadForFollowers),
            (weigh(60), Action::PassTime),
            (weigh(60), Action::Propose),
            (weigh(30), Action::Read),
            (weigh(2), Action::Crash),
            (weigh(10), Action::Restart),
            (weigh(2), Action::CutOff),
            (weigh(1), Action::Pause),
            (weigh(8), Action::HealOrResign),
            (if changes { weigh(6) } else { 0 }, Action::ChangeVoters),
            (if snapshots { weigh(6) } else { 0 }, Action::TakeSnapshot),
            (if special == Special::Damage { weigh(2) } else { 0 }, Action::Damage),
        ];
        Profile { weights, pass_us_max: [2_000, 10_000, 50_000][cluster.random.below(3)] }
    }

    fn roll(&self, cluster: &mut Cluster) -> Action {
        let mut at = cluster.random.below(self.weights.iter().map(|(weight, _)| weight).sum());
        let face = self.weights.iter().find(|(weight, _)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        face.map_or(Action::Deliver, |(_, action)| *action)
    }
}

/// What happens besides loss, pauses and power failures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    Nothing,
    /// A node comes back with an empty folder.
    Wipes,
    /// Voters come and go.
    Changes,
    /// Disks of a minority are damaged, again and again.
    Damage,
}

/// One random run. `Err` says which property is broken.
fn run(nodes: usize, seed: u64, steps: usize, special: Special) -> Result<Cluster, String> {
    let (wipes, changes) = (special == Special::Wipes, special == Special::Changes);
    let mut cluster = Cluster::new(nodes, seed);
    if changes {
        let first = 1 + cluster.random.below(nodes);
        cluster = Cluster::with_voters(nodes, voters(first), seed);
    }
    let profile = Profile::draw(&mut cluster, special);
    for step in 0..steps {
        if cluster.broken.is_some() {
            break;
        }
        if wipes && step == steps / 2 {
            let node = cluster.random.below(nodes);
            cluster.wipe(node);
        }
        random_step(&mut cluster, &profile);
        if step % 64 == 0 {
            cluster.check_logs();
        }
    }
    cluster.cut_off.clear();
    cluster.paused.clear();
    if !wipes {
        (0..nodes).for_each(|node| cluster.restart(node));
        expect_progress(&mut cluster);
    }
    cluster.check_logs();
    match cluster.broken.take() {
        Some(law) => Err(format!("seed {seed}, {nodes} nodes: {law}")),
        None => Ok(cluster),
    }
}

fn random_step(cluster: &mut Cluster, profile: &Profile) {
    let node = cluster.random.below(cluster.nodes.len());
    let waiting = cluster.network.len();
    // Mostly in order, or a long queue would delay every message alike.
    let reach = if cluster.random.percent(80) { waiting.min(3) } else { waiting };
    let message = cluster.random.below(reach);
    match profile.roll(cluster) {
        Action::Deliver | Action::Drop | Action::Repeat if waiting == 0 => {
            cluster.pass_time(Duration::from_millis(7));
        }
        Action::Deliver => cluster.deliver(message),
        Action::Drop => {
            cluster.network.remove(message);
        }
        Action::Repeat => cluster.network.push(cluster.network[message].clone()),
        Action::SyncHardState => cluster.sync_hard_state(node),
        Action::SyncLog => {
            let end = cluster.log_end_of(node);
            let unsynced = cluster.random.below(4);
            cluster.sync_log(node, end.saturating_sub(unsynced));
        }
        Action::ReadForFollowers => cluster.read_for_followers(node),
        Action::PassTime => {
            let time = 1 + cluster.random.below(profile.pass_us_max);
            cluster.pass_time(Duration::from_micros(time as u64));
        }
        Action::Propose => cluster.propose(cluster.leader().filter(|_| node > 0).unwrap_or(node)),
        Action::Read => cluster.read(node),
        Action::Crash => cluster.crash(node),
        Action::Restart => cluster.restart(node),
        Action::CutOff => {
            cluster.cut_off.insert(node);
        }
        Action::Pause => {
            cluster.paused.insert(node);
        }
        Action::TakeSnapshot => cluster.take_snapshot(node),
        Action::Damage => {
            let minority = (cluster.nodes.len() - 1) / 2;
            let (node, vote) = (cluster.random.below(minority), cluster.random.percent(20));
            cluster.crash_and_damage(node, vote);
        }
        Action::ChangeVoters => {
            let id = cluster.nodes[cluster.random.below(cluster.nodes.len())].id;
            let leader = cluster.leader().unwrap_or(node);
            let change = match cluster.raft_if_up(leader).is_some_and(|raft| raft.voters().contains(id)) {
                true => VoterChange::Remove(id),
                false => VoterChange::Add(id),
            };
            cluster.change_voters(leader, change);
        }
        Action::HealOrResign => match cluster.random.below(8) {
            0 => cluster.fail_append(node),
            1 => cluster.step(node, super::Input::Resign),
            2 => cluster.step(cluster.leader().unwrap_or(node), super::Input::HandOver),
            3 => cluster.paused.clear(),
            _ => cluster.cut_off.clear(),
        },
    }
}

/// Liveness: a cluster that works elects a leader, commits and answers reads.
fn expect_progress(cluster: &mut Cluster) {
    cluster.run_well(Duration::from_secs(3));
    let (before, reads_before) = (cluster.committed.len(), cluster.reads_ready);
    let Some(leader) = cluster.leader() else {
        cluster.broken.get_or_insert("no leader after three seconds without faults".to_owned());
        return;
    };
    cluster.propose(leader);
    cluster.read(leader);
    cluster.run_well(Duration::from_secs(1));
    let everywhere = (0..cluster.nodes.len()).all(|node| cluster.raft(node).commit() as usize > before);
    if cluster.committed.len() <= before || cluster.reads_ready <= reads_before || !everywhere {
        cluster.broken.get_or_insert("a healed cluster does not go on".to_owned());
    }
}

fn run_many(nodes: usize, seeds: std::ops::Range<u64>, steps: usize, special: Special) -> Result<(), String> {
    let (mut committed, mut reads, mut snapshots) = (0, 0, 0);
    for seed in seeds {
        let cluster = run(nodes, seed, steps, special)?;
        committed += cluster.committed.len();
        reads += cluster.reads_ready;
        snapshots += cluster.snapshots_installed;
    }
    println!(
        "{nodes} nodes: {committed} entries committed, {reads} reads answered, {snapshots} snapshots installed"
    );
    assert!(special == Special::Wipes || (committed > 0 && reads > 0), "the runs do something");
    Ok(())
}

#[test]
fn a_sole_voter_loses_nothing_that_it_committed() {
    run_many(1, 0..100, 2_000, Special::Nothing).unwrap();
}

#[test]
fn three_voters_keep_raft_s_properties_under_loss_and_power_failures() {
    run_many(3, 0..80, 4_000, Special::Nothing).unwrap();
}

#[test]
fn five_voters_keep_raft_s_properties_under_loss_and_power_failures() {
    run_many(5, 0..30, 6_000, Special::Nothing).unwrap();
}

#[test]
fn a_voter_that_returns_with_an_empty_folder_breaks_nothing() {
    // Contract 6
    run_many(3, 0..60, 3_000, Special::Wipes).unwrap();
}

#[test]
fn voters_come_and_go_one_at_a_time_and_nothing_committed_is_lost() {
    run_many(3, 0..40, 4_000, Special::Changes).unwrap();
    run_many(5, 0..30, 6_000, Special::Changes).unwrap();
}

#[test]
fn damaged_logs_and_votes_of_a_minority_lose_nothing() {
    // Contract 6
    run_many(3, 0..60, 4_000, Special::Damage).unwrap();
    run_many(5, 0..30, 6_000, Special::Damage).unwrap();
}

/// With a defect switched on the same runs break a property; a build without switches has nothing to show here.
fn expect_found(defect: Defect, nodes: usize, special: Special) {
    if !switch_on(&[defect]) {
        return;
    }
    let found = (0..20_000).find_map(|seed| run(nodes, seed, 4_000, special).err());
    switch_on(&[]);
    println!("{defect:?}: {found:?}");
    assert!(found.is_some(), "{defect:?} is not found");
}

#[test]
fn a_vote_that_is_not_synced_is_found() {
    expect_found(Defect::no_fsync_vote, 3, Special::Nothing);
}

#[test]
fn a_term_that_is_resumed_after_a_restart_is_found() {
    expect_found(Defect::resume_same_epoch, 3, Special::Nothing);
}

#[test]
fn a_commit_of_an_older_term_is_found() {
    expect_found(Defect::commit_prior_term, 3, Special::Nothing);
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    expect_found(Defect::reuse_read_context, 3, Special::Nothing);
}

#[test]
fn a_wiped_voter_that_votes_is_found() {
    expect_found(Defect::wiped_voter_votes, 3, Special::Wipes);
}

#[test]
fn a_log_that_drops_what_no_snapshot_holds_is_found() {
    expect_found(Defect::retention_past_snapshot, 3, Special::Nothing);
}

#[test]
fn a_snapshot_that_names_what_it_does_not_hold_is_found() {
    expect_found(Defect::snapshot_index_early, 3, Special::Nothing);
}
