//! The table of brokers in the module's documentation is what the code does.

use super::harness::*;
use super::*;
use crate::metadata::LastStop;

/// Two brokers, of which the first is in this state.
fn reach(state: &str) -> World {
    let mut world = World::new(2);
    match state {
        "Fenced" => {
            world.register(1, LastStop::Clean);
        }
        "Leaving" => {
            let before = world.image.applied().unwrap();
            world.heartbeat_at(2, Wants::Serve, before);
            world.heartbeat(1, Wants::Leave);
        }
        _ => {}
    }
    assert_eq!(world.broker_state(1), state);
    world
}

type Step = (&'static str, fn(&mut World));

/// Each row's input, done to broker 1.
const STEPS: [Step; 9] = [
    ("Heartbeat, serves and has applied its registration", |world| world.heartbeat(1, Wants::Serve)),
    ("Heartbeat, serves and has not applied its registration", |world| {
        world.heartbeat_at(1, Wants::Serve, world.epoch(1) - 1);
    }),
    ("Heartbeat, wants to be fenced", |world| world.heartbeat(1, Wants::Fenced)),
    ("Heartbeat, wants to leave", |world| world.heartbeat(1, Wants::Leave)),
    ("Heartbeat, the others have applied it", |world| {
        if world.broker_state(1) == "Leaving" {
            world.heartbeat(2, Wants::Serve);
            world.heartbeat(1, Wants::Leave);
        }
    }),
    ("Tick, the session is over", |world| world.pass_with(ms(1_200), &[2])),
    ("ConnectionLost, and no word in time", |world| {
        world.lose_connection(1);
        world.pass_with(ms(200), &[2]);
    }),
    ("Register, another incarnation", |world| world.register(1, LastStop::Certain)),
    ("Register, the same again", |world| {
        let mut registration = world.registration(1, LastStop::Certain);
        registration.incarnation.0 -= 1;
        let request = world.request();
        world.step(Input::Register { request, registration });
    }),
];

#[test]
fn the_table_of_brokers_is_what_the_code_does() {
    let mut observed = Vec::new();
    for state in ["Fenced", "InService", "Leaving"] {
        for (what, step) in STEPS {
            let mut world = reach(state);
            // The other broker knows nothing new, or every leaving broker could go at once.
            step(&mut world);
            let next = world.broker_state(1);
            if next != state {
                observed.push(format!("{state} | {what} | {next}"));
            }
        }
    }
    let source = include_str!("mod.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | "));
    let documented: Vec<_> = rows
        .filter_map(|row| row.rsplit_once(" | ").map(|(row, _)| row.to_owned()))
        .filter(|row| !row.starts_with("state"))
        .collect();
    let mut documented: Vec<_> = documented;
    documented.sort();
    observed.sort();
    assert_eq!(documented, observed);
}
