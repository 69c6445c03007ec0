//! Produce versions 0 to 2: advertised, because librdkafka looks at them to decide whether it may compress, and
//! refused (K2). The crate does not have them; what is needed to refuse them politely is here.

use bytes::{Buf, BufMut, Bytes};
use kafka_protocol::messages::ApiKey;

use super::chunks::Chunks;
use super::{DecodeError, EncodeError, REQUEST_ELEMENTS_MAX};
use crate::frame;
use crate::schema::{OLD_PRODUCE_REQUEST, walk};

/// The frame that answers a Produce request of version 0, 1 or 2 with `error_code` for each partition in it;
/// `None` for a request with acks 0, which awaits no answer: close the connection.
///
/// # Errors
/// When the body is not such a request.
pub fn refuse_old_produce(
    version: i16,
    correlation_id: i32,
    mut body: Bytes,
    error_code: i16,
) -> Result<Option<Vec<Bytes>>, RefuseError> {
    walk(&OLD_PRODUCE_REQUEST, version, &body, REQUEST_ELEMENTS_MAX).map_err(DecodeError::from)?;
    let acks = body.get_i16();
    let _timeout_ms = body.get_i32();
    if acks == 0 {
        return Ok(None);
    }
    let mut out = Chunks::new();
    let buffer = out.buffer();
    frame::put_response_header(buffer, ApiKey::Produce as i16, version, correlation_id);
    // The walk has covered each length and count below.
    let topics = body.get_i32();
    buffer.put_i32(topics);
    for _ in 0..topics {
        let length = body.get_i16();
        buffer.put_i16(length);
        buffer.put_slice(&body.split_to(length as usize));
        let partitions = body.get_i32();
        buffer.put_i32(partitions);
        for _ in 0..partitions {
            buffer.put_i32(body.get_i32());
            let records_bytes = body.get_i32();
            body.advance(usize::try_from(records_bytes).unwrap_or(0));
            buffer.put_i16(error_code);
            buffer.put_i64(-1);
            if version >= 2 {
                buffer.put_i64(-1);
            }
        }
    }
    if version >= 1 {
        buffer.put_i32(0);
    }
    Ok(Some(out.finish()?))
}

/// Why [`refuse_old_produce`] has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefuseError {
    /// The request does not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer would be too large.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
