//! The table of states in the module's documentation is what the code does.

use super::harness::*;
use super::*;

/// A group in each state, with one member, and that member.
fn reach(state: &str) -> (Bench, Client) {
    let mut bench = Bench::with(Limits::default());
    let mut a = Client::new("a");
    if state == "Empty" {
        bench.commit(&a, 1);
        return (bench, a);
    }
    let call = bench.join(&a);
    bench.pass(seconds(3));
    bench.take_over(&mut a, call);
    if state == "CompletingRebalance" {
        return (bench, a);
    }
    bench.sync(&a, &[(&a, "0")]);
    if state == "PreparingRebalance" {
        bench.join(&Client::new("other"));
    }
    (bench, a)
}

type Step = (&'static str, fn(&mut Bench, &Client));

const STEPS: [Step; 9] = [
    ("Join, new member", |bench, _| {
        bench.join(&Client::new("new"));
    }),
    ("Join, the leader", |bench, a| {
        if bench.state() != "Empty" {
            bench.join(a);
        }
    }),
    ("Heartbeat", |bench, a| bench.heartbeat(a)),
    ("Leave, a stranger", |bench, _| bench.leave(&Client { id: name("x"), ..Client::new("x") })),
    ("Leave, the last that has not joined", |bench, a| {
        bench.leave(a);
    }),
    ("Commit", |bench, a| bench.commit(a, 3)),
    ("Tick, a session is over", |bench, _| bench.pass(seconds(11))),
    ("Committed, the assignment", |bench, a| {
        bench.sync(a, &[(a, "0")]);
    }),
    ("AppendFailed, the assignment", |bench, a| {
        bench.commits = false;
        bench.sync(a, &[(a, "0")]);
        bench.fail_all();
    }),
];

#[test]
fn the_table_of_states_is_what_the_code_does() {
    let mut observed = Vec::new();
    for state in ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"] {
        for (what, step) in STEPS {
            let (mut bench, a) = reach(state);
            assert_eq!(bench.state(), state);
            step(&mut bench, &a);
            if bench.state() != state {
                observed.push(format!("{state} | {what} | {}", bench.state()));
            }
        }
    }
    let documented: Vec<String> = include_str!("mod.rs")
        .lines()
        .skip_while(|line| !line.contains("| state | input |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("//! | "))
        .map(|row| row.trim_end_matches(" |").to_owned())
        .collect();
    assert_eq!(documented, observed);
}
