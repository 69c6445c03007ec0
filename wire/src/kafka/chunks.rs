use bytes::{Buf, Bytes, BytesMut};

use super::EncodeError;
use crate::frame::PREFIX_BYTES;

/// A frame being written: bytes of our own in one buffer, and bytes of others between them that are not copied.
pub(super) struct Chunks {
    own: BytesMut,
    /// Where in `own` others' bytes come in.
    others: Vec<(usize, Bytes)>,
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        let mut own = BytesMut::with_capacity(256);
        own.resize(PREFIX_BYTES, 0);
        Chunks { own, others: Vec::new() }
    }

    /// Where own bytes are appended.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    /// Appends bytes without copying them.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.others.push((self.own.len(), bytes));
        }
    }

    /// Writes the length prefix; gives the chunks in their order, none of them empty.
    pub(super) fn finish(mut self) -> Result<Vec<Bytes>, EncodeError> {
        let bytes =
            self.others.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + self.own.len() - PREFIX_BYTES;
        let length = i32::try_from(bytes).map_err(|_| EncodeError::TooLarge { bytes })?;
        self.own[..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        let mut own = self.own.freeze();
        let mut chunks = Vec::with_capacity(2 * self.others.len() + 1);
        let mut cut = 0;
        for (at, bytes) in self.others {
            if at > cut {
                chunks.push(own.split_to(at - cut));
                cut = at;
            }
            chunks.push(bytes);
        }
        if own.has_remaining() {
            chunks.push(own);
        }
        Ok(chunks)
    }

    /// As [`finish`](Self::finish), for frames that hold only own bytes.
    pub(super) fn finish_whole(self) -> Result<Bytes, EncodeError> {
        let mut chunks = self.finish()?;
        Ok(if chunks.len() == 1 { chunks.remove(0) } else { Bytes::from(chunks.concat()) })
    }
}
