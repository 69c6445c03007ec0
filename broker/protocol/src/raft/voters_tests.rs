//! Sets of voters, as they stand in an entry.

use bytes::Bytes;

use super::harness::{voter, voters};
use super::*;

#[test]
fn the_payload_of_a_change_of_voters_is_what_it_was() {
    // Frozen: logs on disks hold these bytes.
    let set = Voters::new([voter(2, 0xAB), voter(1, 7)]).unwrap();
    let hex: String = set.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "01 0002 00000001 00000000000000000000000000000007 00000002 000000000000000000000000000000ab"
            .replace(' ', "")
    );
    assert_eq!(Voters::decode(&set.encode()), Ok(set));
}

#[test]
fn voters_that_cannot_be_are_refused() {
    let good = voters(3).encode();
    assert_eq!(Voters::decode(&good[..good.len() - 1]), Err(VotersError::Length));
    assert_eq!(Voters::decode(&[]), Err(VotersError::Length));
    assert_eq!(Voters::decode(&[2, 0, 0]), Err(VotersError::Version(2)));
    assert_eq!(Voters::new([voter(1, 1), voter(1, 2)]), Err(VotersError::Repeated));
    assert_eq!(Voters::new((0..33).map(|node| voter(node, 1))), Err(VotersError::TooMany));
    for payload in [&[1, 0, 0][..], &[9]] {
        let entry = Entry { term: 1, kind: EntryKind::Voters, payload: Bytes::copy_from_slice(payload) };
        assert!(!entry.is_sensible());
    }
}

#[test]
fn a_majority_is_more_than_half() {
    let majorities: Vec<_> = (1..=7).map(|nodes| voters(nodes).majority()).collect();
    assert_eq!(majorities, [1, 2, 2, 3, 3, 4, 4]);
}
