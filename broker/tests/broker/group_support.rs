//! What the tests of consumer groups share: requests over real frames, and brokers that do not wait for more members.

use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use weir_broker::Config;
use weir_runtime::time;

use crate::support::{Broker, Client, PATIENCE, config, topic};

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// No wait for more members.
pub(crate) fn quick() -> Config {
    let mut config = config();
    config.groups.initial_rebalance_delay = std::time::Duration::ZERO;
    config.offsets_topic_partitions = 3;
    config
}

pub(crate) async fn find(client: &mut Client, name: &str) -> i16 {
    let request = FindCoordinatorRequest::default().with_key(text(name));
    client.call(3, &request).await.error_code
}

pub(crate) fn join_request(name: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff"));
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_group_instance_id(None)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins in two steps (KIP-394).
pub(crate) async fn join(client: &mut Client, name: &str) -> JoinGroupResponse {
    let first = client.call(5, &join_request(name, "")).await;
    assert_eq!(first.error_code, ResponseError::MemberIdRequired.code());
    client.call(5, &join_request(name, &first.member_id)).await
}

pub(crate) async fn sync(client: &mut Client, name: &str, joined: &JoinGroupResponse) -> (i16, Bytes) {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"all"));
    let request = SyncGroupRequest::default()
        .with_group_id(group(name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(None)
        .with_assignments(vec![assignment]);
    let response = client.call(3, &request).await;
    (response.error_code, response.assignment)
}

pub(crate) async fn heartbeat(client: &mut Client, name: &str, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(None);
    client.call(3, &request).await.error_code
}

pub(crate) fn commit_request(name: &str, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(4)
        .with_committed_metadata(Some(text(metadata)));
    let data = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(-1)
        .with_group_instance_id(None)
        .with_topics(vec![data])
}

pub(crate) async fn commit(client: &mut Client, name: &str, offset: i64, metadata: &str) -> i16 {
    let response = client.call(7, &commit_request(name, offset, metadata)).await;
    response.topics[0].partitions[0].error_code
}

/// The committed offset, its leader epoch and its metadata.
pub(crate) async fn committed(client: &mut Client, name: &str) -> (i64, i32, String) {
    let data = OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(group(name)).with_topics(Some(vec![data]));
    let response = client.call(7, &request).await;
    assert_eq!(response.error_code, 0);
    let partition = &response.topics[0].partitions[0];
    let metadata = partition.metadata.as_ref().map(ToString::to_string).unwrap_or_default();
    (partition.committed_offset, partition.committed_leader_epoch, metadata)
}

/// A broker with a topic, and the group's coordinator found.
pub(crate) async fn ready(name: &str) -> (Broker, Client) {
    let broker = Broker::with(quick()).await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(find(&mut client, name).await, 0);
    (broker, client)
}

/// A member with a connection of its own.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) group: String,
    pub(crate) instance: Option<StrBytes>,
    pub(crate) session_timeout_ms: i32,
    /// Its id; empty until it was given one.
    pub(crate) id: StrBytes,
    /// As it was told last.
    pub(crate) generation: i32,
}

impl Member {
    pub(crate) async fn of(address: SocketAddr, name: &str) -> Member {
        let client = Client::connect(address).await;
        let group = name.to_owned();
        Member {
            client,
            group,
            instance: None,
            session_timeout_ms: 300_000,
            id: StrBytes::default(),
            generation: -1,
        }
    }

    pub(crate) fn static_as(mut self, instance: &str) -> Member {
        self.instance = Some(text(instance));
        self
    }

    /// Connects again, to a broker that has restarted.
    pub(crate) async fn reconnect(&mut self, address: SocketAddr) {
        self.client = Client::connect(address).await;
    }

    fn join_request(&self) -> JoinGroupRequest {
        join_request(&self.group, &self.id)
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_rebalance_timeout_ms(300_000)
            .with_group_instance_id(self.instance.clone())
    }

    /// Asks to join, at first in two steps (KIP-394), and does not wait for the generation.
    pub(crate) async fn ask_to_join(&mut self) {
        if self.id.is_empty() && self.instance.is_none() {
            let request = self.join_request();
            let first = self.client.call(5, &request).await;
            assert_eq!(first.error_code, ResponseError::MemberIdRequired.code());
            self.id = first.member_id;
        }
        let request = self.join_request();
        self.client.send(5, &request).await;
    }

    /// Waits for the generation that it has asked for.
    pub(crate) async fn joined(&mut self) -> JoinGroupResponse {
        let (_, joined) = self.client.answer::<JoinGroupRequest>(5).await;
        assert_eq!(joined.error_code, 0, "{joined:?}");
        self.id = joined.member_id.clone();
        self.generation = joined.generation_id;
        joined
    }

    pub(crate) async fn join(&mut self) -> JoinGroupResponse {
        self.ask_to_join().await;
        self.joined().await
    }

    fn sync_request(&self, assignments: &[(StrBytes, Bytes)]) -> SyncGroupRequest {
        let assignments = assignments
            .iter()
            .map(|(id, bytes)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(id.clone())
                    .with_assignment(bytes.clone())
            })
            .collect();
        SyncGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_assignments(assignments)
    }

    /// Asks for its assignment, the leader with those of all, and does not wait for it.
    pub(crate) async fn ask_to_sync(&mut self, assignments: &[(StrBytes, Bytes)]) {
        let request = self.sync_request(assignments);
        self.client.send(3, &request).await;
    }

    /// Waits for the assignment that it has asked for.
    pub(crate) async fn synced(&mut self) -> (i16, Bytes) {
        let (_, response) = self.client.answer::<SyncGroupRequest>(3).await;
        (response.error_code, response.assignment)
    }

    pub(crate) async fn sync(&mut self, assignments: &[(StrBytes, Bytes)]) -> (i16, Bytes) {
        self.ask_to_sync(assignments).await;
        self.synced().await
    }

    pub(crate) async fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.client.call(3, &request).await.error_code
    }

    /// Sends heartbeats until it is told to join again.
    pub(crate) async fn told_to_rejoin(&mut self) {
        let deadline = time::now() + PATIENCE;
        let rebalancing = ResponseError::RebalanceInProgress.code();
        loop {
            let code = self.heartbeat().await;
            if code == rebalancing {
                return;
            }
            assert_eq!(code, 0);
            assert!(time::now() < deadline, "{} is to join again", self.id);
        }
    }

    /// Commits an offset of partition 0 of `t`.
    pub(crate) async fn commit(&mut self, offset: i64) -> i16 {
        let request = commit_request(&self.group, offset, "")
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.client.call(7, &request).await.topics[0].partitions[0].error_code
    }

    pub(crate) async fn leave(&mut self) -> i16 {
        let identity = MemberIdentity::default()
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(group(&self.group)).with_members(vec![identity]);
        self.client.call(3, &request).await.error_code
    }
}

/// The state and the size of a group.
pub(crate) async fn describe(client: &mut Client, name: &str) -> (String, usize) {
    let request = DescribeGroupsRequest::default().with_groups(vec![group(name)]);
    let described = client.call(5, &request).await;
    let described = &described.groups[0];
    assert_eq!(described.error_code, 0);
    (described.group_state.to_string(), described.members.len())
}

/// Waits until a group has so many members, those that have not been in a generation yet among them.
pub(crate) async fn until_members(client: &mut Client, name: &str, count: usize) {
    let deadline = time::now() + PATIENCE;
    while describe(client, name).await.1 != count {
        assert!(time::now() < deadline, "{count} members");
    }
}
