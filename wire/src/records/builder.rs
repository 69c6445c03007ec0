use bytes::{BufMut, Bytes, BytesMut};

use super::{
    ATTRIBUTE_CONTROL, ATTRIBUTE_DELETE_HORIZON, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL,
    BatchError, BatchHeader, CRC_START, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, NO_PRODUCER_ID, NO_TIMESTAMP,
    TimestampType, varint,
};
use crate::codec::{self, Compression};

/// Who wrote a batch, for idempotence and transactions (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence number of the batch's first record; -1 in control batches.
    pub base_sequence: i32,
}

/// Builds one batch, for our client and for what brokers write themselves.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// The header, then the records.
    out: BytesMut,
    compression: Compression,
    /// Filled in while records are pushed. `length` and `crc` are set by `finish`.
    header: BatchHeader,
}

impl BatchBuilder {
    /// An empty batch at offset 0 without a leader epoch or producer, as clients send it.
    pub fn new(compression: Compression) -> BatchBuilder {
        let mut out = BytesMut::with_capacity(512);
        out.put_bytes(0, HEADER_BYTES);
        let header = BatchHeader {
            base_offset: 0,
            length: 0,
            leader_epoch: -1,
            crc: 0,
            attributes: compression.bits(),
            last_offset_delta: -1,
            base_timestamp_ms: NO_TIMESTAMP,
            max_timestamp_ms: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
        };
        BatchBuilder { out, compression, header }
    }

    /// A batch with the place, producer and settings of another, without its records. Timestamps count from `horizon_ms`, if there is
    /// one, which is the batch's delete horizon then (KIP-534).
    pub(super) fn like(header: &BatchHeader, horizon_ms: Option<i64>) -> Result<BatchBuilder, BatchError> {
        let mut builder = BatchBuilder::new(header.compression()?);
        let had_horizon = header.has_delete_horizon().then_some(header.base_timestamp_ms);
        let horizon_ms = had_horizon.or(horizon_ms);
        let is_log_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        builder.header = BatchHeader {
            length: 0,
            crc: 0,
            attributes: header.attributes | horizon_ms.map_or(0, |_| ATTRIBUTE_DELETE_HORIZON),
            last_offset_delta: -1,
            base_timestamp_ms: horizon_ms.unwrap_or(NO_TIMESTAMP),
            max_timestamp_ms: if is_log_append_time { header.max_timestamp_ms } else { NO_TIMESTAMP },
            count: 0,
            ..*header
        };
        Ok(builder)
    }

    /// Sets the place in the log, for batches that a broker appends itself.
    #[must_use]
    pub fn at(mut self, base_offset: i64, leader_epoch: i32) -> Self {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        self
    }

    /// Sets the producer.
    #[must_use]
    pub fn producer(mut self, producer: Producer) -> Self {
        self.header.producer_id = producer.id;
        self.header.producer_epoch = producer.epoch;
        self.header.base_sequence = producer.base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= ATTRIBUTE_TRANSACTIONAL;
        self
    }

    /// Marks the batch as control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes |= ATTRIBUTE_CONTROL;
        self
    }

    /// Marks the timestamps as the leader's.
    #[must_use]
    pub fn log_append_time(mut self) -> Self {
        self.header.attributes |= ATTRIBUTE_LOG_APPEND_TIME;
        self
    }

    /// Adds a record at the next offset.
    ///
    /// # Errors
    /// As [`push_at`](Self::push_at).
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        let next = self.header.last_offset_delta.saturating_add(1);
        self.push_at(next, timestamp_ms, key, value, headers)
    }

    /// Adds a record at `base_offset + offset_delta`, which must grow from record to record; compaction leaves gaps.
    ///
    /// # Errors
    /// `OffsetDelta` when it does not grow, `Timestamp` when the distance to the first record's overflows,
    /// `TooLarge` when the batch would reach 2 GiB. The batch is unchanged then.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        let index = self.header.count as u32;
        if offset_delta <= self.header.last_offset_delta {
            return Err(BatchError::OffsetDelta { index, offset_delta });
        }
        let is_first = index == 0 && !self.header.has_delete_horizon();
        let base_ms = if is_first { timestamp_ms } else { self.header.base_timestamp_ms };
        let Some(timestamp_delta) = timestamp_ms.checked_sub(base_ms) else {
            return Err(BatchError::Timestamp { index, timestamp_ms, min_ms: 0, max_ms: i64::MAX });
        };
        let length = record_length(timestamp_delta, offset_delta, key, value, headers);
        let bytes = self.out.len().saturating_add(length).saturating_add(5);
        let limit = i32::MAX as usize;
        if bytes > limit {
            return Err(BatchError::TooLarge { bytes, limit });
        }
        let out = &mut self.out;
        out.reserve(length + 5);
        varint::put_i32(out, length as i32);
        out.put_i8(0);
        varint::put_i64(out, timestamp_delta);
        varint::put_i32(out, offset_delta);
        put_bytes(out, key);
        put_bytes(out, value);
        varint::put_i32(out, headers.len() as i32);
        for &(key, value) in headers {
            put_bytes(out, Some(key));
            put_bytes(out, value);
        }
        self.header.base_timestamp_ms = base_ms;
        self.header.max_timestamp_ms = self.header.max_timestamp_ms.max(timestamp_ms);
        self.header.last_offset_delta = offset_delta;
        self.header.count += 1;
        Ok(())
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.header.count as usize
    }

    /// Size of the batch so far in bytes, before compression.
    pub fn size_bytes(&self) -> usize {
        self.out.len()
    }

    /// Bytes that a record would add, at most.
    pub fn record_bytes_max(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> usize {
        record_length(i64::MAX, i32::MAX, key, value, headers).saturating_add(5)
    }

    /// As [`finish`](Self::finish), for a batch whose last places in the log are without a record.
    pub(super) fn finish_up_to(mut self, last_offset_delta: i32) -> Result<Bytes, BatchError> {
        self.header.last_offset_delta = last_offset_delta;
        self.finish()
    }

    /// Compresses the records and completes the header with length and CRC.
    ///
    /// # Errors
    /// `Count` for a batch without records, `Codec` when the codec fails, `TooLarge` when it grew over 2 GiB.
    pub fn finish(self) -> Result<Bytes, BatchError> {
        let BatchBuilder { mut out, compression, mut header } = self;
        if header.count == 0 {
            return Err(BatchError::Count { count: 0, last_offset_delta: header.last_offset_delta });
        }
        if compression != Compression::None {
            let compressed = codec::compress(compression, &out[HEADER_BYTES..])?;
            out.truncate(HEADER_BYTES);
            out.extend_from_slice(&compressed);
        }
        let (bytes, limit) = (out.len(), i32::MAX as usize);
        if bytes > limit {
            return Err(BatchError::TooLarge { bytes, limit });
        }
        header.length = (bytes - LENGTH_OVERHEAD_BYTES) as u32;
        header.write_checked_part(&mut &mut out[CRC_START..HEADER_BYTES]);
        header.crc = crc32c::crc32c(&out[CRC_START..]);
        header.write(&mut &mut out[..HEADER_BYTES]);
        Ok(out.freeze())
    }
}

fn record_length(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) -> usize {
    let field = |field: Option<&[u8]>| match field {
        None => 1,
        Some(bytes) => bytes.len().saturating_add(varint::len_i64(bytes.len() as i64)),
    };
    let headers_bytes = headers
        .iter()
        .map(|&(key, value)| field(Some(key)).saturating_add(field(value)))
        .fold(varint::len_i32(headers.len() as i32), usize::saturating_add);
    let fixed = 1 + varint::len_i64(timestamp_delta) + varint::len_i32(offset_delta);
    field(key).saturating_add(field(value)).saturating_add(headers_bytes).saturating_add(fixed)
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_i32(out, -1),
        Some(bytes) => {
            varint::put_i32(out, bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}
