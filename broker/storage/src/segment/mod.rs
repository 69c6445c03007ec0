//! Segments: files of record batches, and the sparse index beside each.

mod chunks;
mod cursor;
mod index;
mod index_file;
mod scan;

pub(crate) use chunks::select;
pub(crate) use cursor::{Cursor, READ_BYTES, Span, Step};
pub(crate) use index::{IndexData, Noted, SegmentIndex};
pub(crate) use index_file::{decode, encode, load, store};
pub(crate) use scan::{ScanRange, Scanned, scan};
