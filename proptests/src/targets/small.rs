//! Parsers of a few fields each, which share the time of one target: the first byte says which one it is.

use super::{folder, wire};
use crate::mutate::Random;

/// One of them.
struct Small {
    run: fn(&[u8]),
    generate: fn(&mut Random) -> Vec<u8>,
    repair: fn(&mut [u8]),
}

const ALL: [Small; 4] = [
    Small { run: wire::blob, generate: wire::generate_blob, repair: wire::repair_blob },
    Small { run: folder::identity, generate: folder::generate_identity, repair: folder::repair_sealed },
    Small { run: folder::name, generate: folder::generate_name, repair: |_| {} },
    Small { run: folder::quorum_state, generate: folder::generate_quorum_state, repair: wire::repair_blob },
];

fn parser(which: u8) -> &'static Small {
    &ALL[usize::from(which) % ALL.len()]
}

pub(super) fn run(input: &[u8]) {
    if let Some((which, input)) = input.split_first() {
        (parser(*which).run)(input);
    }
}

pub(super) fn generate(random: &mut Random) -> Vec<u8> {
    let which = random.below(ALL.len()) as u8;
    let mut out = vec![which];
    out.extend_from_slice(&(parser(which).generate)(random));
    out
}

pub(super) fn repair(input: &mut [u8]) {
    if let Some((which, input)) = input.split_first_mut() {
        (parser(*which).repair)(input);
    }
}
