//! Replicas under random faults, and transcripts. `UPDATE_EXPECT=1 cargo test -p weir-protocol` rewrites them.

use expect_test::{Expect, expect};
use weir_defect::{Defect, switch_on};

use super::harness::Cluster;

/// One random run. `Err` says which law is broken.
fn run(seed: u64, steps: usize) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(seed);
    let quiet = cluster.random.below(4);
    for _ in 0..steps {
        if cluster.broken.is_some() {
            break;
        }
        let node = cluster.random.below(3);
        match cluster.random.below(100) {
            0..36 => cluster.deliver(false),
            36..40 => cluster.deliver(true),
            40..44 => cluster.lose(),
            44..60 => cluster.fetch(node),
            60..72 => cluster.sync(node),
            72..80 => cluster.produce(node),
            80..88 => cluster.learn(node),
            88..96 => {
                cluster.now_ms += 20;
                cluster.tick(node);
            }
            96 if quiet < 3 => cluster.crash(node),
            97 if quiet < 2 => cluster.fence(node),
            98 if quiet < 1 => cluster.elect(node),
            _ => {}
        }
    }
    if cluster.broken.is_none() {
        heal(&mut cluster);
    }
    match cluster.broken.take() {
        Some(law) => Err(format!("seed {seed}: {law}")),
        None => Ok(cluster),
    }
}

/// Nothing fails any more: all are in sync again, and hold the same.
fn heal(cluster: &mut Cluster) {
    let before = cluster.committed.len();
    for round in 0..60 {
        cluster.now_ms += 50;
        for node in 0..3 {
            cluster.learn(node);
            cluster.tick(node);
            cluster.fetch(node);
            cluster.settle();
            cluster.sync(node);
            cluster.settle();
        }
        if round == 40 {
            (0..3).for_each(|node| cluster.produce(node));
        }
    }
    let logs: Vec<_> = cluster.nodes.iter().map(|node| &node.log).collect();
    if cluster.broken.is_none()
        && (logs[0] != logs[1]
            || logs[1] != logs[2]
            || cluster.isr.len() < 3
            || cluster.committed.len() <= before)
    {
        cluster.broken = Some(format!("healed, and not in sync: {:?}, {logs:?}", cluster.isr));
    }
}

#[test]
fn random_replicas_keep_what_was_acknowledged_and_come_into_sync_again() {
    let (mut acknowledged, mut cuts) = (0, 0);
    for seed in 0..400 {
        let cluster = run(seed, 1_200).unwrap_or_else(|law| panic!("{law}"));
        acknowledged += cluster.acknowledged;
        cuts += cluster.cuts;
    }
    assert!(acknowledged > 4_000 && cuts > 100, "{acknowledged} acknowledged, {cuts} cuts");
}

#[test]
fn random_replicas_meet_the_defects() {
    for defect in [
        Defect::truncate_to_hw,
        Defect::credit_diverging_fetch,
        Defect::isr_join_at_hw,
        Defect::waiter_survives_epoch,
        Defect::hw_below_min_isr,
        Defect::hw_committed_isr_only,
    ] {
        if !switch_on(&[defect]) {
            return;
        }
        let found = (0..2_000).find_map(|seed| run(seed, 1_200).err());
        switch_on(&[]);
        println!("{}: {found:?}", defect.name());
        assert!(found.is_some(), "{} is not found", defect.name());
    }
}

/// Each follower fetches, and what it wrote becomes durable.
fn replicate(cluster: &mut Cluster, followers: &[usize]) {
    for node in followers {
        cluster.fetch(*node);
        cluster.settle();
        cluster.sync(*node);
        cluster.settle();
    }
}

fn check(mut cluster: Cluster, expected: &Expect) {
    expected.assert_eq(&cluster.transcript());
}

#[test]
fn a_record_is_acknowledged_when_it_is_durable_everywhere() {
    // Contracts 1 and 2
    let mut cluster = Cluster::new(1);
    cluster.watch();
    cluster.produce(0);
    cluster.sync(0);
    replicate(&mut cluster, &[1, 2]);
    check(
        cluster,
        &expect![[r#"
            0  appends at 0
        1 > 0  at 0 after epoch -1, durable to 0: Matches { high_watermark: 0, start: 0 }
            1  writes 0 to 1
        2 > 0  at 0 after epoch -1, durable to 0: Matches { high_watermark: 0, start: 0 }
            2  writes 0 to 1
            0  shows what lies below 1
            0  acknowledges 0"#]],
    );
}

#[test]
fn what_a_deposed_leader_wrote_alone_is_cut() {
    // KIP-101, KIP-279
    let mut cluster = Cluster::new(1);
    cluster.watch();
    cluster.produce(0);
    cluster.sync(0);
    cluster.elect(1);
    cluster.learn(1);
    cluster.produce(1);
    cluster.sync(1);
    cluster.learn(0);
    replicate(&mut cluster, &[0, 0]);
    check(
        cluster,
        &expect![[r#"
            0  appends at 0
            1  leads epoch 2 from 0 on
            1  appends at 0
            0  refuses: this replica does not lead the partition
        0 > 1  at 1 after epoch 1, durable to 1: Diverges { epoch: 1, end: 0 }
            0  cuts its log to 0
        0 > 1  at 0 after epoch -1, durable to 0: Matches { high_watermark: 0, start: 0 }
            0  writes 0 to 1"#]],
    );
}

#[test]
fn a_follower_that_lags_leaves_and_comes_back() {
    // KIP-966: below min ISR nothing would be committed
    let mut cluster = Cluster::new(1);
    cluster.tick(0);
    cluster.watch();
    cluster.produce(0);
    cluster.sync(0);
    cluster.now_ms = 250;
    replicate(&mut cluster, &[1]);
    cluster.now_ms = 300;
    cluster.tick(0);
    cluster.settle();
    cluster.learn(0);
    replicate(&mut cluster, &[2, 2]);
    cluster.learn(0);
    check(
        cluster,
        &expect![[r#"
            0  appends at 0
        1 > 0  at 0 after epoch -1, durable to 0: Matches { high_watermark: 0, start: 0 }
            1  writes 0 to 1
            0  asks for the ISR [0, 1]
                  ISR {0, 1}, ELR {}
            0  shows what lies below 1
            0  acknowledges 0
        2 > 0  at 0 after epoch -1, durable to 0: Matches { high_watermark: 1, start: 0 }
            2  writes 0 to 1
            0  asks for the ISR [0, 1, 2]
        2 > 0  at 1 after epoch 1, durable to 1: Matches { high_watermark: 1, start: 0 }
                  ISR {0, 1, 2}, ELR {}"#]],
    );
}
