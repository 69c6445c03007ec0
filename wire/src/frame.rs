//! Kafka's frames: a length of four bytes, a header, a body; and the headers' versions (KIP-482, KIP-511).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::records::varint;
use crate::schema::shape_of;

/// Key of ApiVersions, whose response header never becomes flexible (K1).
const API_VERSIONS_KEY: i16 = 18;
/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;
/// `socket.request.max.bytes` by default.
pub const FRAME_BYTES_MAX: usize = 100 << 20;

/// Why a frame or its header is refused. The connection cannot go on after any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is negative or above the limit.
    #[error("frame length {length} is outside of 0 to {limit}")]
    Length {
        /// The prefix.
        length: i32,
        /// The limit.
        limit: usize,
    },
    /// The frame ends inside of its header.
    #[error("frame of {bytes} bytes ends inside of its header")]
    Truncated {
        /// Size of the frame.
        bytes: usize,
    },
    /// No API has this key.
    #[error("no API has key {api_key} (version {version}, correlation id {correlation_id})")]
    UnknownApi {
        /// The key.
        api_key: i16,
        /// The version that came with it.
        version: i16,
        /// The request's correlation id.
        correlation_id: i32,
    },
    /// The header does not parse.
    #[error("request header is malformed: {reason}")]
    Header {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What [`take_frame`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A whole frame, without its length prefix.
    Frame(Bytes),
    /// So many bytes are missing, at least.
    Missing(usize),
}

/// Takes the first frame off the front of what was received. It reserves no memory: a length prefix of 2 GiB
/// costs nothing but the bytes that really arrive, and is refused at once when above `frame_bytes_max`.
///
/// # Errors
/// `Length`.
pub fn take_frame(received: &mut BytesMut, frame_bytes_max: usize) -> Result<Progress, FrameError> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else {
        return Ok(Progress::Missing(PREFIX_BYTES - received.len()));
    };
    let length = i32::from_be_bytes(*prefix);
    let frame_bytes = match usize::try_from(length) {
        Ok(bytes) if bytes <= frame_bytes_max => bytes,
        _ => return Err(FrameError::Length { length, limit: frame_bytes_max }),
    };
    let available = received.len() - PREFIX_BYTES;
    if available < frame_bytes {
        return Ok(Progress::Missing(frame_bytes - available));
    }
    received.advance(PREFIX_BYTES);
    Ok(Progress::Frame(received.split_to(frame_bytes).freeze()))
}

/// A request's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: i16,
    /// Which version of it; not yet compared with what is served.
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// Takes the request header off the front of a frame; the body is left.
///
/// # Errors
/// `UnknownApi`, `Truncated`, `Header`.
pub fn take_request_header(frame: &mut Bytes) -> Result<RequestHeader, FrameError> {
    let bytes = frame.len();
    let truncated = |_| FrameError::Truncated { bytes };
    let api_key = frame.try_get_i16().map_err(truncated)?;
    let version = frame.try_get_i16().map_err(truncated)?;
    let correlation_id = frame.try_get_i32().map_err(truncated)?;
    let Some(header_version) = request_header_version(api_key, version) else {
        return Err(FrameError::UnknownApi { api_key, version, correlation_id });
    };
    let client_id = match frame.try_get_i16().map_err(truncated)? {
        -1 => None,
        length => {
            let length =
                usize::try_from(length).map_err(|_| FrameError::Header { reason: "client id's length" })?;
            if length > frame.len() {
                return Err(FrameError::Truncated { bytes });
            }
            let text = StrBytes::from_utf8(frame.split_to(length));
            Some(text.map_err(|_| FrameError::Header { reason: "client id is not UTF-8" })?)
        }
    };
    if header_version >= 2 {
        skip_tagged_fields(frame).ok_or(FrameError::Header { reason: "tagged fields" })?;
    }
    Ok(RequestHeader { api_key, version, correlation_id, client_id })
}

/// Takes the response header off the front of a frame; gives the correlation id, the body is left.
///
/// # Errors
/// `Truncated`, `Header`.
pub fn take_response_header(frame: &mut Bytes, api_key: i16, version: i16) -> Result<i32, FrameError> {
    let bytes = frame.len();
    let correlation_id = frame.try_get_i32().map_err(|_| FrameError::Truncated { bytes })?;
    if response_header_version(api_key, version) >= 1 {
        skip_tagged_fields(frame).ok_or(FrameError::Header { reason: "tagged fields" })?;
    }
    Ok(correlation_id)
}

fn skip_tagged_fields(frame: &mut Bytes) -> Option<()> {
    let mut rest: &[u8] = frame;
    let count = varint::take_u32(&mut rest)?;
    for _ in 0..count {
        let _tag = varint::take_u32(&mut rest)?;
        let size = varint::take_u32(&mut rest)?;
        rest = rest.get(size as usize..)?;
    }
    let left = rest.len();
    frame.advance(frame.len() - left);
    Some(())
}

/// Version of a request's header: 2 from the first flexible version on, else 1 (version 0 went with
/// ControlledShutdown). `None` for an unknown API.
pub fn request_header_version(api_key: i16, version: i16) -> Option<i16> {
    let shape = shape_of(api_key)?;
    Some(if version >= shape.request.flexible { 2 } else { 1 })
}

/// Version of a response's header: 1 from the first flexible version on, else 0; always 0 for ApiVersions (K1).
pub fn response_header_version(api_key: i16, version: i16) -> i16 {
    let flexible = shape_of(api_key).is_some_and(|shape| version >= shape.response.flexible);
    i16::from(flexible && api_key != API_VERSIONS_KEY)
}

/// Appends a request header.
pub fn put_request_header(out: &mut BytesMut, header: &RequestHeader) {
    out.put_i16(header.api_key);
    out.put_i16(header.version);
    out.put_i32(header.correlation_id);
    // A name that no i16 can count is cut off rather than sent as something else.
    match header.client_id.as_deref().map(|id| id.get(..i16::MAX as usize).unwrap_or(id)) {
        Some(id) if id.len() <= i16::MAX as usize => {
            out.put_i16(id.len() as i16);
            out.put_slice(id.as_bytes());
        }
        _ => out.put_i16(-1),
    }
    if request_header_version(header.api_key, header.version) == Some(2) {
        out.put_u8(0);
    }
}

/// Appends a response header.
pub fn put_response_header(out: &mut BytesMut, api_key: i16, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if response_header_version(api_key, version) >= 1 {
        out.put_u8(0);
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod frame_tests;
