//! What the coordinator must know of a consumer's metadata: its topics.

use std::collections::BTreeSet;

/// Topics of one subscription that are looked at.
const TOPICS_MAX: usize = 100_000;

/// The topics in a `ConsumerProtocolSubscription` of any version: its version, then an array of texts, then what does not
/// matter here. `None` if the bytes are something else.
pub fn topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let mut rest = metadata.get(2..)?;
    let count = usize::try_from(take(&mut rest, 4).map(|bytes| number(bytes) as i32)?).ok()?;
    if count > TOPICS_MAX {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let length = take(&mut rest, 2).map(number)? as usize;
        topics.insert(std::str::from_utf8(take(&mut rest, length)?).ok()?.to_owned());
    }
    Some(topics)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// Big-endian, up to four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_whatever_follows_on_them() {
        let bytes = b"\x00\x03\x00\x00\x00\x02\x00\x01b\x00\x02aa and the rest";
        assert_eq!(topics(bytes), Some(BTreeSet::from(["aa".to_owned(), "b".to_owned()])));
        assert_eq!(topics(b"\x00\x00\x00\x00\x00\x00"), Some(BTreeSet::new()));
    }

    #[test]
    fn k23_bytes_that_are_something_else_are_no_subscription() {
        assert_eq!(topics(b""), None);
        assert_eq!(topics(b"\x00\x00\x7f\xff\xff\xff\x00"), None);
        assert_eq!(topics(b"\x00\x00\x00\x00\x00\x01\x00\x05ab"), None);
        assert_eq!(topics(b"\x00\x00\xff\xff\xff\xff"), None);
    }
}
