//! The table of roles in the module's documentation is what the code does.

use super::scenario_tests::{ME, OTHER, leadership, log};
use super::*;

type Situation = (&'static str, fn() -> Vec<Input>);

/// How each role is reached.
const ROLES: [Situation; 4] = [
    ("Idle", Vec::new),
    ("Follower", || vec![Input::BecomeFollower { epoch: 3, leader: OTHER }]),
    ("Leader", || vec![Input::BecomeLeader(leadership(3, &[ME]))]),
    ("Failed", || vec![Input::FolderFailed]),
];

/// Each input, with the conditions that matter to it, from a replica in epoch 3.
const INPUTS: [Situation; 17] = [
    ("BecomeLeader, older epoch", || vec![Input::BecomeLeader(leadership(-1, &[ME]))]),
    ("BecomeLeader, newer epoch", || vec![Input::BecomeLeader(leadership(4, &[ME]))]),
    ("BecomeFollower, older epoch", || vec![Input::BecomeFollower { epoch: -2, leader: OTHER }]),
    ("BecomeFollower, newer epoch", || vec![Input::BecomeFollower { epoch: 4, leader: OTHER }]),
    ("Resign, older epoch", || vec![Input::Resign { epoch: -2 }]),
    ("Resign, same or newer epoch", || vec![Input::Resign { epoch: 3 }]),
    ("Append", || vec![append()]),
    ("Expire", || vec![Input::Expire { waiter: WaiterId(1) }]),
    ("Durable", || vec![Input::Durable { end: 1 }]),
    ("AppendFailed, nobody else holds the tail", || vec![append(), Input::AppendFailed { from: 0 }]),
    ("AppendFailed, others may hold the tail", || {
        vec![append(), Input::Shipped { end: 1 }, Input::AppendFailed { from: 0 }]
    }),
    ("StartOffset", || vec![Input::StartOffset { start: 1 }]),
    ("Damaged", || vec![append(), Input::Damaged { from: 0 }]),
    ("FolderFailed", || vec![Input::FolderFailed]),
    ("ReplicaProgress", || {
        vec![Input::ReplicaProgress { from: OTHER, broker_epoch: 20, epoch: 3, durable_end: 1 }]
    }),
    ("IsrRefused", || vec![Input::IsrRefused { epoch: 3, partition_epoch: 3, now_ms: 0 }]),
    ("Tick", || vec![Input::Tick { now_ms: 1_000_000 }]),
];

fn append() -> Input {
    Input::Append { waiter: WaiterId(1), acks: Acks::All, count: 1, epoch: None, producer: None, now_ms: 0 }
}

#[test]
fn the_table_of_roles_is_what_the_code_does() {
    let mut observed = Vec::new();
    for (role, reach) in ROLES {
        for (name, inputs) in INPUTS {
            let mut partition = Partition::new(log(), ME, LogState::EMPTY, Limits::default());
            let mut effects = Vec::new();
            reach().into_iter().for_each(|input| partition.step(input, &mut effects));
            assert_eq!(partition.role_name(), role);
            effects.clear();
            inputs().into_iter().for_each(|input| partition.step(input, &mut effects));
            let entered = effects.iter().any(|effect| matches!(effect, Effect::BeginEpoch { .. }));
            if partition.role_name() != role || entered {
                observed.push(format!("{role} | {name} | {}", partition.role_name()));
            }
        }
    }
    let documented: Vec<String> = include_str!("mod.rs")
        .lines()
        .skip_while(|line| !line.contains("| role | input |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("//! | "))
        .map(|row| row.split(" | ").take(3).collect::<Vec<_>>().join(" | "))
        .collect();
    assert_eq!(documented, observed);
}
