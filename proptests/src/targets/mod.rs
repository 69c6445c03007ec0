//! The fuzz targets. To add one: a function that takes bytes and panics when the parser misbehaves, a row in
//! [`TARGETS`], and seeds in `corpus/<name>/` (`fuzz --target <name> --write-seeds 20`).

mod folder;
mod groups;
pub mod journal;
mod peers;
mod segment;
mod sessions;
mod wire;

use crate::mutate::Random;

/// One parser under fuzzing.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Gives bytes to the parser. Panics when something that must hold does not.
    pub run: fn(&[u8]),
    /// Makes a valid input.
    pub generate: fn(&mut Random) -> Vec<u8>,
    /// Makes checksums right again after a mutation, so that what is behind them is reached.
    pub repair: Option<fn(&mut [u8])>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("wire_request", wire::request, wire::generate_request, None),
    target("wire_response", wire::response, wire::generate_response, None),
    target("wire_stream", wire::stream, wire::generate_stream, None),
    target("wire_old_produce", wire::old_produce, wire::generate_old_produce, None),
    target("wire_batch", wire::batch, wire::generate_batch, Some(wire::repair_batch)),
    target("wire_codec", wire::codec, wire::generate_codec, None),
    target("wire_blob", wire::blob, wire::generate_blob, Some(wire::repair_blob)),
    target("wire_internal", wire::internal, wire::generate_internal, None),
    target("wire_peer_frame", wire::peer_frame, wire::generate_peer_frame, Some(wire::repair_peer_frame)),
    target("peer_messages", peers::run, peers::generate, None),
    target("journal", journal::run, journal::generate, Some(journal::repair)),
    target("segment", segment::run, segment::generate, Some(segment::repair)),
    target("segment_index", folder::index, folder::generate_index, Some(folder::repair_index)),
    target("checkpoint", folder::checkpoint, folder::generate_checkpoint, Some(folder::repair_sealed)),
    target("identity", folder::identity, folder::generate_identity, Some(folder::repair_sealed)),
    target("names", folder::name, folder::generate_name, None),
    target("quorum_state", folder::quorum_state, folder::generate_quorum_state, Some(wire::repair_blob)),
    target("metadata_log", folder::metadata_log, folder::generate_metadata_log, None),
    target("group_records", groups::records, groups::generate_records, None),
    target("consumer_protocol", groups::consumer_protocol, groups::generate_consumer_protocol, None),
    target("fetch_sessions", sessions::run, sessions::generate, None),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    generate: fn(&mut Random) -> Vec<u8>,
    repair: Option<fn(&mut [u8])>,
) -> Target {
    Target { name, run, generate, repair }
}
