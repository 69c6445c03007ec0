//! Clusters under random faults: the properties of figure 3, and that a healed cluster goes on.

use std::time::Duration;

use weir_defect::{Defect, switch_on};

use super::harness::Cluster;

/// One random run. `Err` says which property is broken.
fn run(nodes: usize, seed: u64, steps: usize, wipes: bool) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(nodes, seed);
    for step in 0..steps {
        if cluster.broken.is_some() {
            break;
        }
        random_step(&mut cluster, wipes && step == steps / 2);
        if step % 64 == 0 {
            cluster.check_logs();
        }
    }
    cluster.cut_off.clear();
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

fn random_step(cluster: &mut Cluster, wipe: bool) {
    let nodes = cluster.nodes.len();
    let node = cluster.random.below(nodes);
    if wipe {
        return cluster.wipe(node);
    }
    match cluster.random.below(1000) {
        0..450 => {
            let waiting = cluster.network.len();
            if waiting == 0 {
                return cluster.pass_time(Duration::from_millis(7));
            }
            let at = cluster.random.below(waiting);
            if cluster.random.percent(5) {
                cluster.network.swap_remove(at);
                return;
            }
            if cluster.random.percent(4) {
                cluster.network.push(cluster.network[at].clone());
            }
            cluster.deliver(at);
        }
        450..560 => cluster.sync_hard_state(node),
        560..680 => {
            let (from, end) = (cluster.log_of(node).len().saturating_sub(4), cluster.log_of(node).len());
            let upto = from + cluster.random.below(end - from + 1);
            cluster.sync_log(node, upto);
        }
        680..720 => cluster.read_for_followers(node),
        720..820 => {
            let time = Duration::from_micros(1 + cluster.random.below(40_000) as u64);
            cluster.pass_time(time);
        }
        820..900 => cluster.propose(cluster.leader().filter(|_| node > 0).unwrap_or(node)),
        900..940 => cluster.read(node),
        940..950 => cluster.crash(node),
        950..980 => cluster.restart(node),
        980..985 => {
            cluster.cut_off.insert(node);
        }
        985..995 => cluster.cut_off.clear(),
        995..998 => cluster.fail_append(node),
        _ => cluster.step(node, super::Input::Resign),
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

fn run_many(nodes: usize, seeds: std::ops::Range<u64>, steps: usize, wipes: bool) -> Result<(), String> {
    let (mut committed, mut reads) = (0, 0);
    for seed in seeds {
        let cluster = run(nodes, seed, steps, wipes)?;
        committed += cluster.committed.len();
        reads += cluster.reads_ready;
    }
    println!("{nodes} nodes: {committed} entries committed, {reads} reads answered");
    assert!(wipes || (committed > 0 && reads > 0), "the runs do something");
    Ok(())
}

#[test]
fn a_sole_voter_loses_nothing_that_it_committed() {
    run_many(1, 0..100, 2_000, false).unwrap();
}

#[test]
fn three_voters_keep_raft_s_properties_under_loss_and_power_failures() {
    run_many(3, 0..150, 4_000, false).unwrap();
}

#[test]
fn five_voters_keep_raft_s_properties_under_loss_and_power_failures() {
    run_many(5, 0..60, 6_000, false).unwrap();
}

#[test]
fn a_voter_that_returns_with_an_empty_folder_breaks_nothing() {
    // Contract 6
    run_many(3, 0..100, 3_000, true).unwrap();
}

/// With a defect switched on the same runs break a property; a build without switches has nothing to show here.
fn expect_found(defect: Defect, nodes: usize, wipes: bool) {
    if !switch_on(&[defect]) {
        return;
    }
    let found = (0..4_000).find_map(|seed| run(nodes, seed, 4_000, wipes).err());
    switch_on(&[]);
    println!("{defect:?}: {found:?}");
    assert!(found.is_some(), "{defect:?} is not found");
}

#[test]
fn a_vote_that_is_not_synced_is_found() {
    expect_found(Defect::no_fsync_vote, 3, false);
}

#[test]
fn a_term_that_is_resumed_after_a_restart_is_found() {
    expect_found(Defect::resume_same_epoch, 3, false);
}

#[test]
fn a_commit_of_an_older_term_is_found() {
    expect_found(Defect::commit_prior_term, 5, false);
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    expect_found(Defect::reuse_read_context, 3, false);
}

#[test]
fn a_wiped_voter_that_votes_is_found() {
    expect_found(Defect::wiped_voter_votes, 3, true);
}
