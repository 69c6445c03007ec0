//! The fetch response, written by hand: the crate's holds records as one `Bytes` and copies them.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::chunks::Chunks;
use crate::records::varint;

const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;
const FLEXIBLE: i16 = 12;

/// A fetch response. Fields that a version does not have are left out when it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchResponse {
    /// How long the client was throttled, in ms.
    pub throttle_time_ms: i32,
    /// Error of the whole request, from version 7.
    pub error_code: i16,
    /// The fetch session (KIP-227), 0 for none, from version 7.
    pub session_id: i32,
    /// What was fetched.
    pub topics: Vec<FetchedTopic>,
    /// Where the leaders named in the partitions are (KIP-951), from version 16.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchedTopic {
    /// Name, up to version 12.
    pub name: StrBytes,
    /// Id, from version 13.
    pub id: Uuid,
    /// Its partitions.
    pub partitions: Vec<FetchedPartition>,
}

/// What was fetched from one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error_code: i16,
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable_offset: i64,
    /// Log start offset, from version 5.
    pub log_start_offset: i64,
    /// The greatest epoch that the follower has in common with the leader, and its end offset (KIP-595), from 12.
    pub diverging_epoch: Option<(i32, i64)>,
    /// Who leads now (KIP-951), from version 12.
    pub current_leader: Option<LeaderHint>,
    /// End offset and epoch of the snapshot to fetch instead (KIP-630), from version 12.
    pub snapshot_id: Option<(i64, i32)>,
    /// Aborted transactions in the range, for read_committed; `None` with read_uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// A replica to read from instead (KIP-392), -1 for none, from version 11. It goes with no records (K8).
    pub preferred_read_replica: i32,
    /// Record batches, in order and uncopied. Never null on the wire: clients expect empty.
    pub records: Vec<Bytes>,
}

impl Default for FetchedPartition {
    fn default() -> Self {
        FetchedPartition {
            index: 0,
            error_code: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

/// A leader and its epoch, -1 for unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader's broker id.
    pub leader_id: i32,
    /// Its epoch.
    pub leader_epoch: i32,
}

/// An aborted transaction in a fetched range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Where it began.
    pub first_offset: i64,
}

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeEndpoint {
    /// Broker id.
    pub node_id: i32,
    /// Host.
    pub host: StrBytes,
    /// Port.
    pub port: i32,
    /// Rack.
    pub rack: Option<StrBytes>,
}

impl FetchResponse {
    /// Bytes of records in all.
    pub fn records_bytes(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.flat_map(|partition| &partition.records).map(Bytes::len).sum()
    }

    pub(super) fn encode(&self, version: i16, out: &mut Chunks) -> Result<(), String> {
        if !VERSIONS.contains(&version) {
            return Err("the fetch response has no such version".into());
        }
        let flexible = version >= FLEXIBLE;
        let buffer = out.buffer();
        buffer.put_i32(self.throttle_time_ms);
        if version >= 7 {
            buffer.put_i16(self.error_code);
            buffer.put_i32(self.session_id);
        }
        put_length(buffer, flexible, self.topics.len())?;
        for topic in &self.topics {
            topic.encode(version, out)?;
        }
        if flexible {
            let endpoints = if version >= 16 { self.node_endpoints.as_slice() } else { &[] };
            put_endpoints(out.buffer(), endpoints)?;
        }
        Ok(())
    }
}

impl FetchedTopic {
    fn encode(&self, version: i16, out: &mut Chunks) -> Result<(), String> {
        let flexible = version >= FLEXIBLE;
        let buffer = out.buffer();
        if version >= 13 {
            buffer.put_slice(self.id.as_bytes());
        } else {
            put_str(buffer, flexible, &self.name)?;
        }
        put_length(buffer, flexible, self.partitions.len())?;
        for partition in &self.partitions {
            partition.encode(version, out)?;
        }
        if flexible {
            out.buffer().put_u8(0);
        }
        Ok(())
    }
}

impl FetchedPartition {
    fn encode(&self, version: i16, out: &mut Chunks) -> Result<(), String> {
        let flexible = version >= FLEXIBLE;
        let buffer = out.buffer();
        buffer.put_i32(self.index);
        buffer.put_i16(self.error_code);
        buffer.put_i64(self.high_watermark);
        buffer.put_i64(self.last_stable_offset);
        if version >= 5 {
            buffer.put_i64(self.log_start_offset);
        }
        self.put_aborted(buffer, flexible)?;
        if version >= 11 {
            buffer.put_i32(self.preferred_read_replica);
        }
        let bytes: usize = self.records.iter().map(Bytes::len).sum();
        put_length(buffer, flexible, bytes)?;
        for records in &self.records {
            out.push(records.clone());
        }
        if flexible {
            self.put_tagged(out.buffer());
        }
        Ok(())
    }

    fn put_aborted(&self, buffer: &mut BytesMut, flexible: bool) -> Result<(), String> {
        let Some(aborted) = &self.aborted_transactions else {
            if flexible {
                buffer.put_u8(0)
            } else {
                buffer.put_i32(-1)
            }
            return Ok(());
        };
        put_length(buffer, flexible, aborted.len())?;
        for transaction in aborted {
            buffer.put_i64(transaction.producer_id);
            buffer.put_i64(transaction.first_offset);
            if flexible {
                buffer.put_u8(0);
            }
        }
        Ok(())
    }

    fn put_tagged(&self, buffer: &mut BytesMut) {
        let present =
            [self.diverging_epoch.is_some(), self.current_leader.is_some(), self.snapshot_id.is_some()];
        buffer.put_u8(present.into_iter().map(u8::from).sum());
        if let Some((epoch, end_offset)) = self.diverging_epoch {
            buffer.put_slice(&[0, 13]);
            buffer.put_i32(epoch);
            buffer.put_i64(end_offset);
            buffer.put_u8(0);
        }
        if let Some(leader) = self.current_leader {
            buffer.put_slice(&[1, 9]);
            buffer.put_i32(leader.leader_id);
            buffer.put_i32(leader.leader_epoch);
            buffer.put_u8(0);
        }
        if let Some((end_offset, epoch)) = self.snapshot_id {
            buffer.put_slice(&[2, 13]);
            buffer.put_i64(end_offset);
            buffer.put_i32(epoch);
            buffer.put_u8(0);
        }
    }
}

fn put_endpoints(buffer: &mut BytesMut, endpoints: &[NodeEndpoint]) -> Result<(), String> {
    if endpoints.is_empty() {
        buffer.put_u8(0);
        return Ok(());
    }
    let mut content = BytesMut::new();
    put_length(&mut content, true, endpoints.len())?;
    for endpoint in endpoints {
        content.put_i32(endpoint.node_id);
        put_str(&mut content, true, &endpoint.host)?;
        content.put_i32(endpoint.port);
        match &endpoint.rack {
            None => content.put_u8(0),
            Some(rack) => put_str(&mut content, true, rack)?,
        }
        content.put_u8(0);
    }
    buffer.put_slice(&[1, 0]);
    varint::put_u64(buffer, content.len() as u64);
    buffer.put_slice(&content);
    Ok(())
}

/// Length of an array or of bytes.
fn put_length(buffer: &mut BytesMut, flexible: bool, length: usize) -> Result<(), String> {
    let length = i32::try_from(length).map_err(|_| format!("{length} is too long for an array or bytes"))?;
    if flexible {
        varint::put_u64(buffer, length as u64 + 1);
    } else {
        buffer.put_i32(length);
    }
    Ok(())
}

fn put_str(buffer: &mut BytesMut, flexible: bool, text: &str) -> Result<(), String> {
    let length =
        i16::try_from(text.len()).map_err(|_| format!("{} bytes are too long for text", text.len()))?;
    if flexible {
        varint::put_u64(buffer, length as u64 + 1);
    } else {
        buffer.put_i16(length);
    }
    buffer.put_slice(text.as_bytes());
    Ok(())
}
