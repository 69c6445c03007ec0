use super::*;

/// Appends of ten records and 100 bytes each; the timestamps are given.
fn index(interval_bytes: u32, timestamps: &[i64]) -> IndexData {
    let mut data = IndexData::empty(1000);
    for (at, timestamp) in timestamps.iter().enumerate() {
        let at = at as u64;
        let base_offset = 1000 + 10 * at as i64;
        let noted = Noted {
            base_offset,
            next_offset: base_offset + 10,
            position: 100 * at,
            bytes: 100,
            max_timestamp_ms: *timestamp,
        };
        data.note(noted, interval_bytes);
    }
    data
}

#[test]
fn an_offset_leads_to_the_last_known_batch_at_or_below_it() {
    let data = index(200, &[5, 6, 7, 8, 9]);
    assert_eq!(data.entries.len(), 3);
    assert_eq!(data.floor(1000), (0, 1000));
    assert_eq!(data.floor(1019), (0, 1000));
    assert_eq!(data.floor(1020), (200, 1020));
    assert_eq!(data.floor(99_999), (400, 1040));
    assert_eq!(data.above(0), Some((200, 1020)));
    assert_eq!(data.above(200), Some((400, 1040)));
    assert_eq!(data.above(400), None);
    assert_eq!((data.covered, data.next_offset), (500, 1050));
}

#[test]
fn a_timestamp_leads_to_a_place_before_the_first_record_that_is_as_late() {
    let data = index(100, &[5, 9, 3, 9, 12]);
    assert_eq!(data.floor_by_time(i64::MIN), (0, 1000));
    assert_eq!(data.floor_by_time(5), (0, 1000));
    assert_eq!(data.floor_by_time(6), (100, 1010));
    assert_eq!(data.floor_by_time(9), (100, 1010));
    assert_eq!(data.floor_by_time(10), (400, 1040));
    assert_eq!((data.timestamp_bound, data.largest_at), (12, Some(400)));
}

#[test]
fn a_gap_in_the_offsets_has_an_entry() {
    let mut data = index(1 << 20, &[5]);
    let noted = Noted { base_offset: 1015, next_offset: 1016, position: 100, bytes: 80, max_timestamp_ms: 1 };
    data.note(noted, 1 << 20);
    assert_eq!(data.floor(1014), (0, 1000));
    assert_eq!(data.floor(1015), (100, 1015));
}

#[test]
fn a_cut_index_never_understates_timestamps() {
    let mut data = index(200, &[5, 20, 7, 8, 9]);
    data.cut(300, 1030);
    assert_eq!((data.covered, data.next_offset, data.entries.len()), (300, 1030, 2));
    assert_eq!((data.timestamp_bound, data.largest_at), (20, Some(100)));
    data.cut(100, 1010);
    assert_eq!((data.timestamp_bound, data.largest_at), (20, None), "20 is gone, and it is only a bound");
    data.cut(0, 1000);
    assert_eq!(data, IndexData::empty(1000));
}
