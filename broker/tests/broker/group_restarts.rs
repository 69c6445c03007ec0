//! The broker is killed while members wait for each other: they find their coordinator again, and the group settles.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::JoinGroupRequest;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;

use crate::group_support::*;
use crate::process::{Process, start_with};
use crate::support::{Client, run};

/// A broker's process, and what is left when it is killed.
struct Killable {
    process: Process,
    folder: tempfile::TempDir,
    settings: tempfile::NamedTempFile,
}

impl Killable {
    /// With a topic, and the group's coordinator found.
    async fn start() -> (Killable, Client) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = tempfile::NamedTempFile::new().expect("a file");
        settings
            .write_all(b"group.initial.rebalance.delay.ms=0\noffsets.topic.num.partitions=3\n")
            .expect("written");
        let process = start_with(folder.path(), settings.path());
        let mut client = Client::connect(process.address).await;
        client.create("t", 1, &[]).await;
        assert_eq!(find(&mut client, "g").await, 0);
        (Killable { process, folder, settings }, client)
    }

    /// SIGKILL, and another process on the same folder, where everybody finds the coordinator again.
    async fn kill(self, members: &mut [&mut Member]) -> (Killable, Client) {
        let Killable { process, folder, settings } = self;
        drop(process);
        for member in members.iter_mut() {
            assert!(member.client.is_closed().await, "nobody is left waiting");
        }
        let process = start_with(folder.path(), settings.path());
        for member in members.iter_mut() {
            let address = coordinator(process.address, &member.group).await;
            member.reconnect(address).await;
        }
        let client = Client::connect(process.address).await;
        (Killable { process, folder, settings }, client)
    }
}

/// Where any broker says that a group's coordinator is.
async fn coordinator(any: SocketAddr, name: &str) -> SocketAddr {
    let mut client = Client::connect(any).await;
    let found = client.call(3, &FindCoordinatorRequest::default().with_key(text(name))).await;
    assert_eq!(found.error_code, 0);
    format!("{}:{}", found.host.as_str(), found.port).parse().expect("an address")
}

/// Joins as clients do: with the id that it has, and as somebody new when that is not known any more.
async fn join_anew(member: &mut Member) {
    member.ask_to_join().await;
    if member.generation == -1 {
        let (_, refused) = member.client.answer::<JoinGroupRequest>(5).await;
        assert_eq!(refused.error_code, ResponseError::UnknownMemberId.code());
        member.id = StrBytes::default();
        member.ask_to_join().await;
    }
}

/// All of them, having asked to join, get an assignment of their own.
async fn settle(members: &mut [&mut Member]) {
    let mut decided: BTreeMap<StrBytes, Bytes> = BTreeMap::new();
    let mut leader = StrBytes::default();
    for member in members.iter_mut() {
        let joined = member.joined().await;
        leader = joined.leader;
        decided.extend(joined.members.iter().map(|other| {
            let id = other.member_id.clone();
            (id.clone(), Bytes::copy_from_slice(id.as_bytes()))
        }));
    }
    assert_eq!(decided.len(), members.len());
    let decided: Vec<_> = decided.into_iter().collect();
    for member in members.iter_mut() {
        member.ask_to_sync(if member.id == leader { &decided } else { &[] }).await;
    }
    for member in members.iter_mut() {
        assert_eq!(member.synced().await, (0, Bytes::copy_from_slice(member.id.as_bytes())));
        assert_eq!(member.heartbeat().await, 0);
    }
}

/// The first generation, of one member, with a committed offset.
async fn begin(broker: &Killable) -> Member {
    let mut first = Member::of(broker.process.address, "g").await;
    first.join().await;
    let everything = vec![(first.id.clone(), Bytes::from_static(b"all"))];
    assert_eq!(first.sync(&everything).await.0, 0);
    assert_eq!(first.commit(41).await, 0);
    first
}

#[test]
fn k15_members_that_wait_for_a_generation_when_the_broker_is_killed_form_one_afterwards() {
    run(async {
        let (broker, mut client) = Killable::start().await;
        let address = broker.process.address;
        let mut first = begin(&broker).await;
        let (mut second, mut third) = (Member::of(address, "g").await, Member::of(address, "g").await);
        second.ask_to_join().await;
        third.ask_to_join().await;
        until_members(&mut client, "g", 3).await;
        let (_broker, mut client) = broker.kill(&mut [&mut first, &mut second, &mut third]).await;
        assert_eq!(committed(&mut client, "g").await.0, 41);
        assert_eq!(first.heartbeat().await, 0, "its generation is the last that was complete");
        assert_eq!(first.commit(42).await, 0);
        join_anew(&mut second).await;
        join_anew(&mut third).await;
        first.told_to_rejoin().await;
        until_members(&mut client, "g", 3).await;
        first.ask_to_join().await;
        settle(&mut [&mut first, &mut second, &mut third]).await;
        assert_eq!(committed(&mut client, "g").await.0, 42);
    });
}

#[test]
fn k15_members_that_wait_for_their_assignment_when_the_broker_is_killed_get_one_afterwards() {
    run(async {
        let (broker, mut client) = Killable::start().await;
        let mut first = begin(&broker).await;
        let mut second = Member::of(broker.process.address, "g").await;
        second.ask_to_join().await;
        first.told_to_rejoin().await;
        assert_eq!(first.commit(42).await, 0);
        first.join().await;
        second.joined().await;
        second.ask_to_sync(&[]).await;
        assert_eq!(describe(&mut client, "g").await, ("CompletingRebalance".to_owned(), 2));
        let (_broker, mut client) = broker.kill(&mut [&mut first, &mut second]).await;
        assert_eq!(committed(&mut client, "g").await.0, 42);
        let again = ResponseError::RebalanceInProgress.code();
        assert_eq!(first.heartbeat().await, again, "the generation never was complete, and is known");
        assert_eq!(second.heartbeat().await, again);
        assert_eq!(first.commit(43).await, 0, "of what it read before");
        second.ask_to_join().await;
        first.ask_to_join().await;
        settle(&mut [&mut first, &mut second]).await;
        assert_eq!(committed(&mut client, "g").await.0, 43);
    });
}
