use bytes::Bytes;

use super::{BatchError, BatchHeader, TimestampType, varint};

/// The records of one batch, decompressed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    payload: Bytes,
}

/// One record; key, value and headers point into the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Absolute offset.
    pub offset: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Absolute timestamp in ms; with LogAppendTime the batch's max timestamp.
    pub timestamp_ms: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// A record's headers in their order, duplicate keys kept. Already known to parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: u32,
}

impl Headers<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    /// Key and value; the key is UTF-8 in every client known, but nobody promises it.
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        let key = take_bytes(&mut self.rest).ok()??;
        let value = take_bytes(&mut self.rest).ok()?;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl Records {
    pub(super) fn new(header: BatchHeader, payload: Bytes) -> Records {
        Records { header, payload }
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The decompressed records; slices of it outlive the records (`payload().slice_ref(record.key)`).
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Walks over the records without allocating. After the first error the walk ends; it also ends with an
    /// error when bytes are left behind the last record.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter { header: &self.header, rest: &self.payload, index: 0, ended: false }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// See [`Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordsIter<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
    index: u32,
    ended: bool,
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.index as i32 == self.header.count {
            self.ended = true;
            let (bytes, count) = (self.rest.len(), self.header.count);
            return (bytes > 0).then_some(Err(BatchError::TrailingBytes { bytes, count }));
        }
        let record = take_record(&mut self.rest, self.header)
            .map_err(|reason| BatchError::Record { index: self.index, reason });
        self.ended = record.is_err();
        self.index += 1;
        Some(record)
    }
}

#[inline]
fn take_record<'a>(rest: &mut &'a [u8], header: &BatchHeader) -> Result<Record<'a>, &'static str> {
    let length = varint::take_i32(rest).ok_or("length is not a varint")?;
    let length = usize::try_from(length).map_err(|_| "length is negative")?;
    let (mut body, behind) = rest.split_at_checked(length).ok_or("longer than the batch")?;
    *rest = behind;

    body = body.split_first().ok_or("no room for attributes")?.1;
    let timestamp_delta = varint::take_i64(&mut body).ok_or("timestamp delta is not a varint")?;
    let offset_delta = varint::take_i32(&mut body).ok_or("offset delta is not a varint")?;
    if offset_delta < 0 || offset_delta > header.last_offset_delta {
        return Err("offset delta is outside of the batch");
    }
    let timestamp_ms = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp_ms,
        TimestampType::CreateTime => {
            header.base_timestamp_ms.checked_add(timestamp_delta).ok_or("timestamp overflows")?
        }
    };
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let headers = take_headers(&mut body)?;
    if !body.is_empty() {
        return Err("shorter than its length");
    }
    let offset = header.base_offset + i64::from(offset_delta);
    Ok(Record { offset, offset_delta, timestamp_ms, key, value, headers })
}

/// Takes the headers, and checks them, so that reading them later cannot fail.
#[inline]
fn take_headers<'a>(body: &mut &'a [u8]) -> Result<Headers<'a>, &'static str> {
    let count = varint::take_i32(body).ok_or("header count is not a varint")?;
    let count = u32::try_from(count).map_err(|_| "header count is negative")?;
    let all = *body;
    for _ in 0..count {
        take_bytes(body)?.ok_or("header key is null")?;
        take_bytes(body)?;
    }
    Ok(Headers { rest: &all[..all.len() - body.len()], count })
}

#[inline]
fn take_bytes<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length = varint::take_i32(body).ok_or("field length is not a varint")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "field length is negative")?;
    let (field, behind) = body.split_at_checked(length).ok_or("field is longer than its record")?;
    *body = behind;
    Ok(Some(field))
}
