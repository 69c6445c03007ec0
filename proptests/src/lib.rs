//! Fuzz targets for every parser that a peer or a disk feeds, and a small mutational fuzzer for them that needs
//! nothing but the stable toolchain: `cargo run --profile sim -p weir-proptests --bin fuzz -- --seconds 60` (that
//! profile is optimised and keeps assertions and overflow checks).
//! The property tests proper are in `tests/`; `PROPTEST_CASES=100000 cargo test -p weir-proptests` digs deeper.
//!
//! * [`targets`]: what is fuzzed; one function per parser.
//! * [`explore`]: every run of a few nodes within bounds, over the production cores.
//! * [`mutate`]: how inputs are made from the committed corpus in `corpus/<target>/`.

mod crc;
pub mod explore;
pub mod mutate;
pub mod targets;

/// How many cases a property is tried with: `usual`, unless the environment variable `PROPTEST_CASES` says more or
/// less.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}
