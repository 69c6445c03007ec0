//! The frame of our small files: what it is, its format version, its length and a checksum over all of it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the content.
const HEADER_BYTES: usize = 20;
const CRC_AT: usize = 16;

/// What a file holds. The bytes stand at its very start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 8],
    /// The newest format version that this code reads and writes.
    pub(crate) version: u16,
}

/// Why a frame cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BlobError {
    /// Written by a later version of Weir.
    Newer { found: u16 },
    /// Cut, or changed by somebody else.
    Damaged(String),
}

/// Frames `content`.
pub(crate) fn seal(kind: Kind, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + content.len());
    out.put_slice(&kind.magic);
    out.put_u16_le(kind.version);
    out.put_u16_le(0);
    out.put_u32_le(content.len() as u32);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[..CRC_AT]), content);
    out.put_u32_le(crc);
    out.put_slice(content);
    out.freeze()
}

/// Checks a frame and returns its version and content.
pub(crate) fn open(kind: Kind, bytes: &Bytes) -> Result<(u16, Bytes), BlobError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BlobError::Damaged(format!("{} bytes are too few", bytes.len())));
    }
    let mut header = &bytes[..HEADER_BYTES];
    if header[..8] != kind.magic {
        return Err(BlobError::Damaged("it does not begin as such a file does".to_owned()));
    }
    header.advance(8);
    let version = header.get_u16_le();
    header.advance(2);
    let len = header.get_u32_le() as usize;
    let crc = header.get_u32_le();
    let content = bytes.slice(HEADER_BYTES..);
    let found =
        crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), content.get(..len).unwrap_or(&content));
    if content.len() < len || found != crc {
        return Err(BlobError::Damaged("its checksum is wrong".to_owned()));
    }
    if version > kind.version {
        return Err(BlobError::Newer { found: version });
    }
    Ok((version, content.slice(..len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: *b"WEIRtest", version: 3 };

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let sealed = seal(KIND, b"content");
        assert_eq!(open(KIND, &sealed), Ok((3, Bytes::from_static(b"content"))));
        for at in 0..sealed.len() {
            assert!(open(KIND, &sealed.slice(..at)).is_err(), "cut at {at}");
            let mut changed = sealed.to_vec();
            changed[at] ^= 4;
            assert!(matches!(open(KIND, &changed.into()), Err(BlobError::Damaged(_))), "changed at {at}");
        }
    }

    #[test]
    fn a_file_of_the_future_is_told_from_a_damaged_one() {
        let sealed = seal(Kind { version: 4, ..KIND }, b"content");
        assert_eq!(open(KIND, &sealed), Err(BlobError::Newer { found: 4 }));
        assert_eq!(open(Kind { version: 5, ..KIND }, &sealed), Ok((4, Bytes::from_static(b"content"))));
    }
}
