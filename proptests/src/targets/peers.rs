//! What the nodes of a cluster say to each other.

use weir_broker::parsers;

use crate::mutate::Random;

/// The kind of message, and a message's encoding.
pub(super) fn run(input: &[u8]) {
    if let Some((&kind, message)) = input.split_first() {
        let read = parsers::reencode_peer_message(kind, message);
        if let Some(again) = &read {
            assert_eq!(parsers::reencode_peer_message(kind, again).as_ref(), Some(again));
        }
    }
}

pub(super) fn generate(random: &mut Random) -> Vec<u8> {
    let kind = random.below(parsers::PEER_MESSAGES) as u8;
    let mut out = vec![kind];
    out.extend_from_slice(&parsers::sample_peer_message(kind, random.number()));
    out
}
