use bytes::Bytes;

use super::{
    ATTRIBUTES_KNOWN, Batch, BatchError, BatchHeader, CRC_START, NO_PRODUCER_ID, NO_TIMESTAMP, TimestampType,
    assign,
};

/// What a topic allows its producers.
#[derive(Debug, Clone)]
pub struct ProduceLimits {
    /// `max.message.bytes`: the greatest batch, in bytes as sent.
    pub batch_bytes_max: usize,
    /// The greatest decompressed payload of a batch, in bytes.
    pub decompressed_bytes_max: usize,
    /// Record batches for one partition in one request. Kafka allows one.
    pub batches_max: usize,
    /// Each record needs a key: the topic is compacted (K11).
    pub require_keys: bool,
    /// The least and the greatest timestamp, in ms, from `message.timestamp.before.max.ms` and `.after.max.ms`.
    /// "No timestamp" (-1) always passes.
    pub timestamps_ms: Option<(i64, i64)>,
}

impl Default for ProduceLimits {
    fn default() -> Self {
        ProduceLimits {
            batch_bytes_max: 1_048_588,
            decompressed_bytes_max: 64 << 20,
            batches_max: 1,
            require_keys: false,
            timestamps_ms: None,
        }
    }
}

/// Checks what a producer sent for one partition (K10, K11), before anything of it is appended. Each batch's
/// CRC is computed once, its records are walked once. A max timestamp that is not the records' greatest is
/// corrected, as Kafka does; all other bytes stay as they came, uncopied.
///
/// # Errors
/// The first thing that is wrong; then nothing may be appended.
pub fn validate_produced(bytes: Bytes, limits: &ProduceLimits) -> Result<Vec<Batch>, BatchError> {
    let mut rest = bytes;
    let mut accepted = Vec::with_capacity(1);
    while !rest.is_empty() {
        if accepted.len() == limits.batches_max {
            return Err(BatchError::Batches { found: accepted.len() + 1, limit: limits.batches_max });
        }
        let batch = Batch::split_from(&mut rest)?;
        accepted.push(validate_batch(batch, limits)?);
    }
    if accepted.is_empty() {
        return Err(BatchError::Batches { found: 0, limit: limits.batches_max });
    }
    Ok(accepted)
}

fn validate_batch(batch: Batch, limits: &ProduceLimits) -> Result<Batch, BatchError> {
    let bytes = batch.header.size_bytes();
    if bytes > limits.batch_bytes_max {
        return Err(BatchError::TooLarge { bytes, limit: limits.batch_bytes_max });
    }
    batch.verify_crc()?;
    validate_header(&batch.header)?;
    let max_timestamp_ms = validate_records(&batch, limits)?;
    if max_timestamp_ms == batch.header.max_timestamp_ms {
        return Ok(batch);
    }
    Ok(with_max_timestamp(&batch, max_timestamp_ms))
}

fn validate_header(header: &BatchHeader) -> Result<(), BatchError> {
    let attributes = header.attributes;
    let refuse = |reason| Err(BatchError::Attributes { attributes, reason });
    if attributes & !ATTRIBUTES_KNOWN != 0 {
        return refuse("unknown bits are set");
    }
    if header.is_control() {
        return refuse("producers may not write control batches");
    }
    if header.has_delete_horizon() {
        return refuse("producers may not set a delete horizon");
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return refuse("producers may not set the timestamp type to LogAppendTime");
    }
    let (count, last_offset_delta) = (header.count, header.last_offset_delta);
    if count < 1 || i64::from(count) != i64::from(last_offset_delta) + 1 {
        return Err(BatchError::Count { count, last_offset_delta });
    }
    let BatchHeader { producer_id, producer_epoch, base_sequence, .. } = *header;
    let consistent = if producer_id == NO_PRODUCER_ID {
        !header.is_transactional()
    } else {
        producer_id >= 0 && producer_epoch >= 0 && base_sequence >= 0
    };
    if !consistent {
        return Err(BatchError::Producer { producer_id, producer_epoch, base_sequence });
    }
    Ok(())
}

/// Walks over the records; gives the greatest timestamp.
fn validate_records(batch: &Batch, limits: &ProduceLimits) -> Result<i64, BatchError> {
    let (min_ms, max_ms) = limits.timestamps_ms.unwrap_or((0, i64::MAX));
    let mut max_timestamp_ms = NO_TIMESTAMP;
    let records = batch.records(limits.decompressed_bytes_max)?;
    for (index, record) in (0u32..).zip(&records) {
        let record = record?;
        if i64::from(record.offset_delta) != i64::from(index) {
            return Err(BatchError::OffsetDelta { index, offset_delta: record.offset_delta });
        }
        let timestamp_ms = record.timestamp_ms;
        if timestamp_ms != NO_TIMESTAMP && !(min_ms..=max_ms).contains(&timestamp_ms) {
            return Err(BatchError::Timestamp { index, timestamp_ms, min_ms, max_ms });
        }
        if limits.require_keys && record.key.is_none() {
            return Err(BatchError::KeyMissing { index });
        }
        max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
    }
    Ok(max_timestamp_ms)
}

fn with_max_timestamp(batch: &Batch, max_timestamp_ms: i64) -> Batch {
    let mut header = BatchHeader { max_timestamp_ms, ..batch.header };
    let chunks = assign::with_new_crc(&mut header, &batch.bytes);
    debug_assert!(chunks[0].len() > CRC_START);
    Batch { header, bytes: Bytes::from(chunks.concat()) }
}
