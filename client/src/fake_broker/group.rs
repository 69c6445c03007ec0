//! A coordinator for one member at a time: it leads its group alone. What many members do is tried against real brokers.

use std::collections::BTreeMap;

use bytes::Bytes;
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::find_coordinator_response::Coordinator;
use weir_wire::kafka::messages::join_group_response::JoinGroupResponseMember;
use weir_wire::kafka::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use weir_wire::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use weir_wire::kafka::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use weir_wire::kafka::{Request, Response};

use super::State;

/// A group.
#[derive(Debug, Default)]
pub(crate) struct FakeGroup {
    pub(crate) generation: i32,
    /// The member, once it is in.
    pub(crate) member: Option<StrBytes>,
    named: i32,
    /// By topic and partition.
    pub(crate) committed: BTreeMap<(String, i32), i64>,
}

impl State {
    /// Answers what concerns groups.
    pub(super) fn group_request(&mut self, node: usize, request: Request, code: i16) -> Response {
        // The other requests find out that this node is none.
        let code = if code == 0 && node != self.coordinator { 16 } else { code };
        match request {
            Request::FindCoordinator(request) => self.find_coordinator(&request).into(),
            Request::JoinGroup(request) => self.join(&request, code).into(),
            Request::SyncGroup(request) => self.sync(&request, code).into(),
            Request::Heartbeat(request) => {
                let code = self.check(&request.group_id, &request.member_id, request.generation_id, code);
                HeartbeatResponse::default().with_error_code(code).into()
            }
            Request::LeaveGroup(request) => {
                self.group(&request.group_id).member = None;
                LeaveGroupResponse::default().with_error_code(code).into()
            }
            Request::OffsetCommit(request) => self.commit(&request, code).into(),
            Request::OffsetFetch(request) => self.fetch_offsets(&request, code).into(),
            other => panic!("a fake broker was asked for {:?}", other.key()),
        }
    }

    pub(crate) fn group(&mut self, id: &str) -> &mut FakeGroup {
        self.groups.entry(id.to_owned()).or_default()
    }

    fn check(&mut self, group: &str, member: &StrBytes, generation: i32, code: i16) -> i16 {
        let group = self.group(group);
        match () {
            () if code != 0 => code,
            () if group.member.as_ref() != Some(member) => 25,
            () if group.generation != generation => 22,
            () => 0,
        }
    }

    fn find_coordinator(&self, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        let address = self.addresses[self.coordinator];
        let found = request.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(i32::try_from(self.coordinator).unwrap().into())
                .with_host(StrBytes::from_string(address.ip().to_string()))
                .with_port(address.port().into())
        });
        FindCoordinatorResponse::default().with_coordinators(found.collect())
    }

    fn join(&mut self, request: &JoinGroupRequest, code: i16) -> JoinGroupResponse {
        let group = self.group(&request.group_id);
        if code != 0 {
            return JoinGroupResponse::default().with_error_code(code);
        }
        if request.member_id.is_empty() {
            group.named += 1;
            let id = StrBytes::from_string(format!("member-{}", group.named));
            return JoinGroupResponse::default().with_error_code(79).with_member_id(id);
        }
        group.member = Some(request.member_id.clone());
        group.generation += 1;
        let protocol = &request.protocols[0];
        let member = JoinGroupResponseMember::default()
            .with_member_id(request.member_id.clone())
            .with_metadata(protocol.metadata.clone());
        JoinGroupResponse::default()
            .with_generation_id(group.generation)
            .with_protocol_type(Some(request.protocol_type.clone()))
            .with_protocol_name(Some(protocol.name.clone()))
            .with_leader(request.member_id.clone())
            .with_member_id(request.member_id.clone())
            .with_members(vec![member])
    }

    fn sync(&mut self, request: &SyncGroupRequest, code: i16) -> SyncGroupResponse {
        let code = self.check(&request.group_id, &request.member_id, request.generation_id, code);
        let mine = request.assignments.iter().find(|one| one.member_id == request.member_id);
        let assignment = mine.map(|one| one.assignment.clone()).filter(|_| code == 0);
        SyncGroupResponse::default()
            .with_error_code(code)
            .with_assignment(assignment.unwrap_or_else(Bytes::new))
    }

    fn commit(&mut self, request: &OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
        let by_admin = request.generation_id_or_member_epoch < 0;
        let generation = request.generation_id_or_member_epoch;
        let code = match code {
            0 if by_admin => 0,
            code => self.check(&request.group_id, &request.member_id, generation, code),
        };
        let mut topics = Vec::new();
        for topic in &request.topics {
            let mut answer = OffsetCommitResponseTopic::default().with_name(topic.name.clone());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if code == 0 {
                    let place = (topic.name.to_string(), index);
                    self.group(&request.group_id).committed.insert(place, partition.committed_offset);
                }
                let told = OffsetCommitResponsePartition::default();
                answer.partitions.push(told.with_partition_index(index).with_error_code(code));
            }
            topics.push(answer);
        }
        OffsetCommitResponse::default().with_topics(topics)
    }

    fn fetch_offsets(&mut self, request: &OffsetFetchRequest, code: i16) -> OffsetFetchResponse {
        let asked = &request.groups[0];
        let committed = &self.group(&asked.group_id).committed;
        let mut places: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        match &asked.topics {
            Some(topics) => {
                places.extend(topics.iter().map(|t| (t.name.to_string(), t.partition_indexes.clone())));
            }
            None => committed
                .keys()
                .for_each(|(topic, partition)| places.entry(topic.clone()).or_default().push(*partition)),
        }
        let topics = places.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|partition| {
                let offset = committed.get(&(topic.clone(), partition)).copied().unwrap_or(-1);
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
            });
            let partitions = partitions.collect();
            OffsetFetchResponseTopics::default()
                .with_name(StrBytes::from_string(topic.clone()).into())
                .with_partitions(partitions)
        });
        let topics = if code == 0 { topics.collect() } else { Vec::new() };
        let group = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
        OffsetFetchResponse::default().with_groups(vec![group.with_topics(topics).with_error_code(code)])
    }
}
