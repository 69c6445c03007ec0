use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::disk::{AlignedBuf, Disk, DiskOptions, Lane, Op, OpenError, OpenMode};
use crate::net::{Listener, Stream};
use crate::simulation::{Failure, Keep, NodeId, Outcome, SimulationOptions, World, run};
use crate::{task, time};

fn ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn simulate<F, Fut>(seed: u64, simulation: F) -> Outcome<Fut::Output>
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    run(seed, SimulationOptions::default(), simulation).unwrap()
}

fn value<T>(outcome: Outcome<T>) -> T {
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

async fn echo() {
    let listener = Listener::bind(SocketAddr::new(ip(1), 9092)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        task::spawn("echo", async move {
            let (mut reader, mut writer) = stream.into_split();
            let mut buffer = BytesMut::new();
            while let Ok(1..) = reader.read(&mut buffer, 4096).await {
                if writer.write_all(&mut VecDeque::from([buffer.split().freeze()])).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn say(text: &'static str) -> io::Result<Bytes> {
    let (mut reader, mut writer) = Stream::connect(SocketAddr::new(ip(1), 9092)).await?.into_split();
    writer.write_all(&mut VecDeque::from([Bytes::from_static(text.as_bytes())])).await?;
    let mut buffer = BytesMut::new();
    while buffer.len() < text.len() {
        if reader.read(&mut buffer, 4096).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.freeze())
}

async fn eventually<T>(mut attempt: impl AsyncFnMut() -> io::Result<T>) -> T {
    loop {
        if let Ok(value) = attempt().await {
            return value;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_client_talks_to_a_server_on_another_node() {
    let outcome = simulate(1, |world| async move {
        world.add_node("server", ip(1), echo);
        let client = world.add_node("client", ip(2), std::future::pending::<()>);
        world.spawn_on(client, eventually(async || say("hello").await)).await.unwrap()
    });
    assert!(outcome.counters["net.delivered"] >= 2);
    assert_eq!(value(outcome), "hello");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let hash = |seed| {
        let outcome = simulate(seed, |world| async move {
            world.add_node("server", ip(1), echo);
            for number in 2..5 {
                let client = world.add_node("client", ip(number), std::future::pending::<()>);
                world.spawn_on(client, eventually(async || say("hello").await)).await.unwrap();
            }
        });
        (outcome.event_hash, outcome.event_count, outcome.simulated)
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn many_seeds_run_side_by_side_in_one_process() {
    let hashes = || -> Vec<u64> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|seed| {
                    scope.spawn(move || {
                        let outcome = simulate(seed, |world| async move {
                            world.add_node("server", ip(1), echo);
                            let client = world.add_node("client", ip(2), std::future::pending::<()>);
                            world.spawn_on(client, eventually(async || say("hi").await)).await.unwrap();
                        });
                        outcome.event_hash
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    assert_eq!(hashes(), hashes());
}

/// Opens a log, remembers what is in it, and appends a line: synced at even incarnations.
async fn appending(seen: Arc<Mutex<Vec<String>>>) {
    let disk = Disk::open(Path::new("data"), DiskOptions::default()).await.unwrap();
    let (file, len) = disk.open_file("log", OpenMode::Create).await.unwrap();
    let content = disk.read(&file, 0, len as usize).await.unwrap();
    seen.lock().unwrap().push(String::from_utf8_lossy(&content).into_owned());
    disk.write(&file, len, vec![Bytes::from_static(b"synced ")]).await.unwrap();
    disk.submit(Lane::Pool, vec![Op::Sync { file: file.clone() }, Op::SyncDir { path: "".into() }])
        .await
        .unwrap();
    disk.write(&file, len + 7, vec![Bytes::from_static(b"cached ")]).await.unwrap();
    std::future::pending::<()>().await;
}

fn restarts(end: fn(&World, NodeId)) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    value(simulate(5, move |world| async move {
        let node = world.add_node("broker", ip(1), move || appending(Arc::clone(&shared)));
        for _ in 0..2 {
            time::sleep(Duration::from_secs(1)).await;
            end(&world, node);
            assert!(!world.is_running(node));
            world.restart(node);
        }
        time::sleep(Duration::from_secs(1)).await;
    }));
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn a_killed_process_finds_everything_it_wrote() {
    let seen = restarts(|world, node| world.kill(node));
    assert_eq!(seen, ["", "synced cached ", "synced cached synced cached "]);
}

#[test]
fn after_a_power_loss_what_was_synced_is_there() {
    let seen = restarts(|world, node| world.power_loss(node, Keep::Nothing));
    assert_eq!(seen, ["", "synced ", "synced synced "]);
}

#[test]
fn a_folder_is_locked_until_its_process_is_dead() {
    value(simulate(6, |world| async move {
        let opens = async || Disk::open(Path::new("data"), DiskOptions::default()).await;
        let node = world.add_node("broker", ip(1), move || async move {
            let disk = opens().await.unwrap();
            assert!(matches!(opens().await, Err(OpenError::Locked { .. })));
            drop(disk);
            let _held = opens().await.unwrap();
            std::future::pending::<()>().await;
        });
        time::sleep(Duration::from_secs(1)).await;
        world.restart(node);
        time::sleep(Duration::from_secs(1)).await;
    }));
}

#[test]
fn a_direct_write_survives_a_power_loss_without_a_sync_and_gives_its_buffer_back() {
    value(simulate(7, |world| async move {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let node = world.add_node("broker", ip(1), move || {
            let seen = Arc::clone(&shared);
            async move {
                let disk = Disk::open(Path::new("data"), DiskOptions::default()).await.unwrap();
                let (file, len) = disk.open_file("journal", OpenMode::Direct).await.unwrap();
                assert!(file.is_direct());
                let content = disk.read(&file, 0, len as usize).await.unwrap();
                seen.lock().unwrap().push(content);
                disk.sync_dir("").await.unwrap();
                let mut data = AlignedBuf::new();
                data.extend_from_slice(&[7; 8192]);
                let op = Op::WriteAligned { file, offset: 0, data };
                let done = disk.submit(Lane::Journal, vec![op]).await.unwrap();
                assert!(matches!(&done[..], [crate::disk::Done::WrittenAligned(data)] if data.len() == 8192));
                std::future::pending::<()>().await;
            }
        });
        time::sleep(Duration::from_secs(1)).await;
        world.power_loss(node, Keep::Nothing);
        world.restart(node);
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.lock().unwrap()[1], [7; 8192][..]);
    }));
}

#[test]
fn a_peer_that_lost_its_power_is_noticed_only_when_the_write_times_out() {
    value(simulate(8, |world| async move {
        let server = world.add_node("server", ip(1), echo);
        let client = world.add_node("client", ip(2), std::future::pending::<()>);
        let talk = world.spawn_on(client, async {
            let stream = eventually(async || Stream::connect(SocketAddr::new(ip(1), 9092)).await).await;
            let (mut reader, mut writer) = stream.into_split();
            time::sleep(Duration::from_secs(5)).await;
            let mut buffer = BytesMut::new();
            let silence = time::timeout(Duration::from_secs(60), reader.read(&mut buffer, 1)).await;
            assert!(silence.is_err(), "nobody says that the peer is gone");
            writer.write_all(&mut VecDeque::from([Bytes::from_static(b"x")])).await.unwrap();
            let started = time::now();
            let error = reader.read(&mut buffer, 1).await.unwrap_err();
            (error.kind(), started.elapsed())
        });
        time::sleep(Duration::from_secs(4)).await;
        world.power_loss(server, Keep::Drawn);
        let (kind, waited) = talk.await.unwrap();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(waited >= Duration::from_secs(900), "{waited:?}");
    }));
}

#[test]
fn a_killed_peer_is_noticed_at_once_and_refuses() {
    value(simulate(9, |world| async move {
        let server = world.add_node("server", ip(1), echo);
        let client = world.add_node("client", ip(2), std::future::pending::<()>);
        let talk = world.spawn_on(client, async {
            let stream = eventually(async || Stream::connect(SocketAddr::new(ip(1), 9092)).await).await;
            let (mut reader, _writer) = stream.into_split();
            let ended = reader.read(&mut BytesMut::new(), 1).await;
            (ended.unwrap_or(0), say("again").await.unwrap_err().kind())
        });
        time::sleep(Duration::from_secs(10)).await;
        world.kill(server);
        assert_eq!(talk.await.unwrap(), (0, io::ErrorKind::ConnectionRefused));
    }));
}

#[test]
fn a_panic_on_a_node_is_the_outcome_and_says_where() {
    let outcome = simulate(10, |world| async move {
        world.add_node("broker", ip(1), || async { panic!("offset {} is gone", 7) });
        std::future::pending::<()>().await;
    });
    let Err(Failure::Panicked { message }) = outcome.result else { panic!("it must fail") };
    assert!(message.starts_with("offset 7 is gone (") && message.contains("binding_tests.rs"), "{message}");
}

#[test]
fn a_panic_while_a_panic_is_cleaned_up_does_not_end_the_process() {
    struct SpawnsWhenDropped;
    impl Drop for SpawnsWhenDropped {
        fn drop(&mut self) {
            drop(task::spawn("farewell", async {}));
        }
    }
    let outcome = simulate(18, |world| async move {
        world.add_node("broker", ip(1), || async {
            let _held = SpawnsWhenDropped;
            std::future::pending::<()>().await;
        });
        time::sleep(Duration::from_secs(1)).await;
        panic!("first");
    });
    let Err(Failure::Panicked { message }) = outcome.result else { panic!("it must fail") };
    assert!(message.contains("first"), "{message}");
}

#[test]
fn a_run_that_never_ends_is_given_up() {
    let options = SimulationOptions { time_limit: Duration::from_secs(60), ..SimulationOptions::default() };
    let outcome = run(11, options, |_| std::future::pending::<()>()).unwrap();
    assert_eq!(outcome.result, Err(Failure::TimeLimit { limit: Duration::from_secs(60) }));
    assert!(outcome.simulated >= Duration::from_secs(60));
}

#[test]
fn a_task_that_goes_round_without_waiting_is_found() {
    let outcome = simulate(19, |world| async move {
        world.add_node("broker", ip(1), || async {
            let due = time::now();
            loop {
                time::sleep_until(due).await;
                time::now();
            }
        });
        std::future::pending::<()>().await;
    });
    let Err(Failure::Panicked { message }) = outcome.result else { panic!("it must fail") };
    assert!(message.contains("a task of node 1 goes round without waiting"), "{message}");
}

#[test]
fn timers_are_exact_can_be_moved_and_leave_nothing_behind() {
    value(simulate(12, |_| async move {
        let start = time::now();
        time::sleep(Duration::from_micros(10)).await;
        assert!(start.elapsed() < Duration::from_micros(15), "{:?}", start.elapsed());
        let mut alarm = time::Alarm::new();
        for step in (1..1000u64).rev() {
            alarm.set(Some(start + Duration::from_secs(step)));
            assert!(time::timeout(Duration::from_micros(1), alarm.wait()).await.is_err());
        }
        alarm.wait().await;
        assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_millis(1001));
    }));
}

#[test]
fn a_wall_clock_can_be_set_and_the_monotonic_one_cannot() {
    value(simulate(13, |world| async move {
        let node = world.add_node("broker", ip(1), std::future::pending::<()>);
        let read = async || world.spawn_on(node, async { (time::wall_ms(), time::now()) }).await.unwrap();
        let (wall, monotonic) = read().await;
        world.clock(node).jump_backwards(Duration::from_secs(3600));
        let (later_wall, later_monotonic) = read().await;
        assert!(later_wall <= wall - 3_599_000 && later_monotonic > monotonic);
        world.clock(node).freeze();
        time::sleep(Duration::from_secs(5)).await;
        assert_eq!(read().await.0, read().await.0);
        assert!((later_wall..later_wall + 2).contains(&read().await.0));
    }));
}

#[test]
fn a_process_that_returns_has_exited_with_all_its_tasks() {
    value(simulate(14, |world| async move {
        let node = world.add_node("broker", ip(1), || async {
            task::spawn("server", echo());
            time::sleep(Duration::from_secs(2)).await;
        });
        let client = world.add_node("client", ip(2), std::future::pending::<()>);
        let call = || world.spawn_on(client, async { say("hi").await.map_err(|error| error.kind()) });
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(call().await.unwrap().unwrap(), "hi");
        time::sleep(Duration::from_secs(2)).await;
        assert!(!world.is_running(node));
        assert_eq!(call().await.unwrap(), Err(io::ErrorKind::ConnectionRefused));
        world.restart(node);
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(call().await.unwrap().unwrap(), "hi");
    }));
}

#[test]
fn a_paused_process_stands_still_and_goes_on() {
    value(simulate(15, |world| async move {
        let server = world.add_node("server", ip(1), echo);
        let client = world.add_node("client", ip(2), std::future::pending::<()>);
        world.spawn_on(client, eventually(async || say("hi").await)).await.unwrap();
        world.pause(server);
        let call = world.spawn_on(client, async { say("wait").await.unwrap() });
        time::sleep(Duration::from_secs(5)).await;
        assert!(!call.is_finished());
        world.resume(server);
        assert_eq!(call.await.unwrap(), "wait");
    }));
}

#[test]
fn a_process_is_asked_to_stop() {
    value(simulate(16, |world| async move {
        let node = world.add_node("broker", ip(1), task::interrupted);
        time::sleep(Duration::from_secs(1)).await;
        assert!(world.is_running(node));
        world.interrupt(node);
        time::sleep(Duration::from_millis(1)).await;
        assert!(!world.is_running(node));
    }));
}

#[test]
fn names_of_nodes_resolve() {
    value(simulate(17, |world| async move {
        world.add_node("broker-1", ip(1), std::future::pending::<()>);
        let found = crate::net::resolve("broker-1:9092").await.unwrap();
        assert_eq!(found, [SocketAddr::new(ip(1), 9092)]);
        assert_eq!(crate::net::resolve("broker-2:9092").await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }));
}
