//! Two machines and what happens between them. Only a simulation can do that; any other build has nothing to test here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_runtime::net::Listener;
use weir_runtime::simulation::{self, Keep, NetProfile, NodeId, SimulationOptions, World};
use weir_runtime::time::Instant;
use weir_runtime::{task, time, watch};

use super::tests::{introduced, note, question, setup};
use super::*;
use crate::server::Stage;

const SEEDS: u64 = 20;
const PORT: u16 = 9093;

fn ip(node: i32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8))
}

/// A node that answers every question, and counts the notes that reach it.
async fn node(me: i32, notes: Arc<Mutex<Vec<Note>>>, lost: Arc<Mutex<Vec<BrokerId>>>) {
    let (inboxes, mut arrivals) = Inboxes::new();
    let peers = Peers::connecting(setup(me, "secret"), inboxes);
    let listener = Listener::bind(SocketAddr::new(ip(me), PORT)).await.unwrap();
    let (lanes, _replicas) = mpsc::channel(1);
    let (_stage, reader) = watch::channel(Stage::Running);
    task::spawn("server", server::serve(listener, peers, lanes, reader));
    loop {
        weir_runtime::select! {
            Some(asked) = arrivals.quorum.recv() => drop(asked.reply.send(introduced(me))),
            Some(envelope) = arrivals.raft.recv() => locked(&notes).push(Note::Raft(envelope)),
            Some(node) = arrivals.lost.recv() => locked(&lost).push(node.broker),
            else => return,
        }
    }
}

struct Two {
    world: World,
    one: NodeId,
    two: NodeId,
    notes: Arc<Mutex<Vec<Note>>>,
    lost: Arc<Mutex<Vec<BrokerId>>>,
    peers: Peers,
}

impl Two {
    /// Asks node 1 from node 2; returns whether it was answered, and how long that took.
    async fn ask(&self) -> (bool, Duration) {
        let (peers, began) = (self.peers.clone(), time::now());
        let asked = self.world.spawn_on(self.two, async move { peers.ask(BrokerId(1), question(2)).await });
        let answer = asked.await.expect("no panic");
        (answer.is_ok(), time::now() - began)
    }

    /// Asks until there is an answer; returns how long that took.
    async fn reached(&self) -> Duration {
        let began = time::now();
        while !self.ask().await.0 {
            time::sleep(Duration::from_millis(5)).await;
        }
        time::now() - began
    }
}

fn simulate(scenario: impl AsyncFn(Two) + Send + Copy + 'static) {
    for seed in 0..SEEDS {
        let options = SimulationOptions { net: NetProfile::default(), ..SimulationOptions::default() };
        let simulated = move |world: World| async move {
            let (notes, lost) = <(Arc<Mutex<Vec<Note>>>, Arc<Mutex<Vec<BrokerId>>>)>::default();
            let seen = (Arc::clone(&notes), Arc::clone(&lost));
            let one = world.add_node("one", ip(1), move || node(1, Arc::clone(&seen.0), Arc::clone(&seen.1)));
            let two = world.add_node("two", ip(2), std::future::pending::<()>);
            let (inboxes, _arrivals) = Inboxes::new();
            let peers = Peers::connecting(setup(2, "secret"), inboxes);
            peers.set_addresses([(BrokerId(1), ("10.0.0.1".to_owned(), PORT))]);
            let two = Two { world, one, two, notes, lost, peers };
            two.reached().await;
            scenario(two).await;
        };
        let Ok(outcome) = simulation::run(seed, options, simulated) else { return };
        if let Err(failure) = outcome.result {
            panic!("seed {seed}: {failure}");
        }
    }
}

const NOTICED: Duration = Duration::from_millis(1_300);

#[test]
fn a_cut_is_noticed_in_time_whichever_way_it_cuts() {
    simulate(async |nodes| {
        let net = nodes.world.net();
        for (from, to) in [(nodes.one, nodes.two), (nodes.two, nodes.one)] {
            net.cut(from, to);
            let (answered, waited) = nodes.ask().await;
            assert!(!answered && waited <= NOTICED, "{waited:?}");
            net.mend(from, to);
            // A try that was under way when the link was mended may have to end first.
            let back = nodes.reached().await;
            assert!(back <= Duration::from_millis(1_700), "{back:?}");
        }
    });
}

#[test]
fn a_machine_that_has_lost_power_is_noticed_on_the_old_connection_and_reached_again() {
    simulate(async |nodes| {
        nodes.world.power_loss(nodes.one, Keep::Drawn);
        nodes.world.restart(nodes.one);
        let back = nodes.reached().await;
        assert!(back <= Duration::from_millis(1_700), "{back:?}");
    });
}

#[test]
fn a_stopped_process_is_noticed_and_heard_again_when_it_goes_on() {
    simulate(async |nodes| {
        nodes.world.pause(nodes.one);
        let (answered, waited) = nodes.ask().await;
        assert!(!answered && waited <= NOTICED, "{waited:?}");
        nodes.world.resume(nodes.one);
        let back = nodes.reached().await;
        assert!(back <= Duration::from_millis(1_700), "{back:?}");
    });
}

#[test]
fn a_killed_process_is_lost_to_the_other_at_once() {
    simulate(async |nodes| {
        let killed: Instant = time::now();
        nodes.world.kill(nodes.two);
        while locked(&nodes.lost).is_empty() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*locked(&nodes.lost), [BrokerId(2)]);
        assert!(killed.elapsed() <= Duration::from_millis(100), "{:?}", killed.elapsed());
    });
}

#[test]
fn notes_alone_show_a_dead_connection_too() {
    simulate(async |nodes| {
        let tell = |term| {
            let peers = nodes.peers.clone();
            nodes.world.spawn_on(nodes.two, async move { peers.tell(BrokerId(1), note(2, term)) })
        };
        nodes.world.power_loss(nodes.one, Keep::Drawn);
        nodes.world.restart(nodes.one);
        let began: Instant = time::now();
        for term in 1.. {
            tell(term).await.expect("no panic");
            time::sleep(Duration::from_millis(50)).await;
            if !locked(&nodes.notes).is_empty() {
                break;
            }
        }
        assert!(began.elapsed() <= Duration::from_millis(1_700), "{:?}", began.elapsed());
    });
}
