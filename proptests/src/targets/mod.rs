//! The fuzz targets. To add one: a function that takes bytes and panics when the parser misbehaves, a row in
//! [`TARGETS`], and seeds in `corpus/<name>/` (`fuzz --target <name> --write-seeds 20`).

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
    Target { name: "wire_request", run: wire::request, generate: wire::generate_request, repair: None },
    Target { name: "wire_response", run: wire::response, generate: wire::generate_response, repair: None },
    Target { name: "wire_stream", run: wire::stream, generate: wire::generate_stream, repair: None },
    Target {
        name: "wire_old_produce",
        run: wire::old_produce,
        generate: wire::generate_old_produce,
        repair: None,
    },
    Target {
        name: "wire_batch",
        run: wire::batch,
        generate: wire::generate_batch,
        repair: Some(wire::repair_batch),
    },
    Target { name: "wire_codec", run: wire::codec, generate: wire::generate_codec, repair: None },
    Target {
        name: "wire_blob",
        run: wire::blob,
        generate: wire::generate_blob,
        repair: Some(wire::repair_blob),
    },
    Target { name: "wire_internal", run: wire::internal, generate: wire::generate_internal, repair: None },
];
