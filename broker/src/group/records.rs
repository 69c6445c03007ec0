//! A coordinator's records as they stand in the log.

use std::time::Duration;

use bytes::Bytes;
use weir_protocol::group::{CommittedOffset, GroupState, MemberState, Name, Record};
use weir_runtime::time;
use weir_wire::codec::Compression;
use weir_wire::offsets_topic::{GroupMember, GroupValue, Key, OffsetValue, RecordError};
use weir_wire::records::{Batch, BatchBuilder, BatchError};

/// One batch of these records.
pub(super) fn batch<'a>(records: impl Iterator<Item = &'a Record>) -> Result<Batch, BatchError> {
    let now_ms = time::wall_ms();
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let (key, value) = encode(record);
        builder.push(now_ms, Some(&key), value.as_deref(), &[])?;
    }
    Batch::split_from(&mut builder.finish()?)
}

/// A record's key and value.
pub(crate) fn encode(record: &Record) -> (Bytes, Option<Bytes>) {
    match record {
        Record::Group { group, value } => {
            let key = Key::Group { group: group.to_string() };
            (key.encode(), value.as_ref().map(|state| group_value(state).encode()))
        }
        Record::Offset { group, topic, partition, value } => {
            let (group, topic) = (group.to_string(), topic.to_string());
            let key = Key::Offset { group, topic, partition: *partition };
            (key.encode(), value.as_ref().map(|offset| offset_value(offset).encode()))
        }
    }
}

fn offset_value(offset: &CommittedOffset) -> OffsetValue {
    OffsetValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.to_string(),
        commit_timestamp_ms: offset.committed_ms,
    }
}

fn group_value(state: &GroupState) -> GroupValue {
    let members = state.members.iter().map(|member| GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        rebalance_timeout_ms: millis(member.rebalance_timeout),
        session_timeout_ms: millis(member.session_timeout),
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    });
    GroupValue {
        protocol_type: state.protocol_type.to_string(),
        generation: state.generation,
        protocol: state.protocol.as_ref().map(ToString::to_string),
        leader: state.leader.as_ref().map(ToString::to_string),
        state_timestamp_ms: state.since_ms,
        members: members.collect(),
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A record of the log; `None` if it is about something that is not known.
pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, RecordError> {
    let key = match Key::decode(key) {
        Ok(key) => key,
        Err(RecordError::Version { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(match key {
        Key::Group { group } => {
            let value = value.map(GroupValue::decode).transpose()?.map(group_state);
            Record::Group { group: Name::from(group), value }
        }
        Key::Offset { group, topic, partition } => {
            let value = value.map(OffsetValue::decode).transpose()?.map(|offset| CommittedOffset {
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: Name::from(offset.metadata),
                committed_ms: offset.commit_timestamp_ms,
            });
            Record::Offset { group: Name::from(group), topic: Name::from(topic), partition, value }
        }
    }))
}

fn group_state(value: GroupValue) -> GroupState {
    let members = value.members.into_iter().map(|member| MemberState {
        member_id: Name::from(member.member_id),
        instance_id: member.instance_id.map(Name::from),
        client_id: Name::from(member.client_id),
        client_host: Name::from(member.client_host),
        rebalance_timeout: Duration::from_millis(u64::try_from(member.rebalance_timeout_ms).unwrap_or(0)),
        session_timeout: Duration::from_millis(u64::try_from(member.session_timeout_ms).unwrap_or(0)),
        subscription: member.subscription,
        assignment: member.assignment,
    });
    GroupState {
        protocol_type: Name::from(value.protocol_type),
        generation: value.generation,
        protocol: value.protocol.map(Name::from),
        leader: value.leader.map(Name::from),
        since_ms: value.state_timestamp_ms,
        members: members.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_from_a_batch_as_they_were() {
        let member = MemberState {
            member_id: Name::from("a-1"),
            instance_id: Some(Name::from("one")),
            client_id: Name::from("a"),
            client_host: Name::from("/10.0.0.1"),
            rebalance_timeout: Duration::from_secs(60),
            session_timeout: Duration::from_secs(10),
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"a"),
        };
        let group = Name::from("g");
        let state = GroupState {
            protocol_type: Name::from("consumer"),
            generation: 3,
            protocol: Some(Name::from("range")),
            leader: Some(Name::from("a-1")),
            since_ms: 5,
            members: vec![member],
        };
        let offset =
            CommittedOffset { offset: 4, leader_epoch: 2, metadata: Name::from("m"), committed_ms: 7 };
        let at = |value| Record::Offset { group: group.clone(), topic: Name::from("t"), partition: 1, value };
        let written = [
            Record::Group { group: group.clone(), value: Some(state) },
            at(Some(offset)),
            at(None),
            Record::Group { group: group.clone(), value: None },
        ];
        let batch = batch(written.iter()).expect("a batch");
        let records = batch.records(1 << 20).expect("records");
        let read: Vec<Record> = records
            .iter()
            .map(|record| {
                let record = record.expect("a record");
                decode(record.key.expect("a key"), record.value).expect("decodable").expect("known")
            })
            .collect();
        assert_eq!(read, written);
    }
}
