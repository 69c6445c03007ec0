//! What people write for addresses, settings, partitions, places in a log, times and bytes.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use weir_client::Start;
use weir_runtime::time;

/// `name=value`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it has the form NAME=VALUE".to_owned()),
    }
}

const PORT: u16 = 9092;

/// `host:port`, or `host` with Kafka's usual port. A listener as brokers' settings write it, `PLAINTEXT://host:port`, is one too.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let text = text.strip_prefix("PLAINTEXT://").unwrap_or(text);
    if text.is_empty() {
        return Err("it is empty; it has the form HOST:PORT".to_owned());
    }
    if text.contains("://") {
        return Err("only PLAINTEXT listeners can be reached; it has the form HOST:PORT".to_owned());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{PORT}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() => Ok(text.to_owned()),
            _ => Err("it has the form HOST:PORT, with a port from 1 to 65535".to_owned()),
        },
        _ => Ok(format!("{text}:{PORT}")),
    }
}

/// Addresses with commas between them.
pub(crate) fn addresses(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(address).collect()
}

/// Partitions: `0,2,5-7`.
pub(crate) fn partitions(text: &str) -> Result<BTreeSet<i32>, String> {
    let wrong = || format!("{text:?} has not the form 0,2,5-7");
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0).ok_or_else(wrong);
    let mut numbers = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last - first >= PARTITIONS_MAX {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

const PARTITIONS_MAX: i32 = 1_000_000;

/// Partitions as [`partitions`] reads them.
pub(crate) fn partitions_text(numbers: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text =
        |(first, last): (i32, i32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// A topic, and the partitions that are meant, where those are not all.
pub(crate) type TopicPart = (String, Option<BTreeSet<i32>>);

/// `topic`, or `topic:0,2,5-7`.
pub(crate) fn topic_part(text: &str) -> Result<TopicPart, String> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), None)),
        Some((topic, numbers)) => Ok((topic.to_owned(), Some(partitions(numbers)?))),
    }
}

/// `name=value`, or a name alone, which has no value.
pub(crate) fn header(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((text.to_owned(), None)),
    }
}

/// Where to begin in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Somewhere that the broker knows.
    Place(Start),
    /// So many records before the end.
    BeforeEnd(i64),
}

/// `beginning`, `end`, an offset, `-N` for N before the end, `@TIME`.
pub(crate) fn from(text: &str) -> Result<From, String> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    match text {
        "beginning" | "earliest" => Ok(From::Place(Start::Beginning)),
        "end" | "latest" => Ok(From::Place(Start::End)),
        _ => {
            if let Some(when) = text.strip_prefix('@') {
                return Ok(From::Place(Start::Time(timestamp_ms(when)?)));
            }
            if let Some(before) = text.strip_prefix('-') {
                return number(before).map(From::BeforeEnd).ok_or_else(|| "it is no number".to_owned());
            }
            let offset = number(text).map(|offset| From::Place(Start::Offset(offset)));
            offset.ok_or_else(|| "it is beginning, end, an offset, -N or @TIME".to_owned())
        }
    }
}

/// A time in milliseconds since 1970: such a number, or `2026-01-31T08:00:00Z` with or without time and seconds, or a
/// duration such as `-90m`, which is that long ago.
pub(crate) fn timestamp_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<u64>() {
        return i64::try_from(ms).map_err(|error| error.to_string());
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = i64::try_from(duration(ago)?.as_millis()).map_err(|error| error.to_string())?;
        return Ok(time::wall_ms().saturating_sub(ago).max(0));
    }
    date(text).ok_or_else(|| {
        "it is milliseconds since 1970, 2026-01-31T08:00Z, or -90m for 90 minutes ago".to_owned()
    })
}

/// A number with `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("it is a number with ms, s, m, h or d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it has no number".to_owned())?;
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| "it is too long".to_owned())
}

/// A date in UTC, with or without a time.
fn date(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, separator: char| -> Option<Vec<i64>> {
        let parts = text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from));
        parts.collect()
    };
    let (day, clock) = (numbers(day, '-')?, numbers(clock, ':')?);
    let (&[year, month, day], &[hour, minute, ..]) = (&day[..], &clock[..]) else { return None };
    let second = match clock[2..] {
        [] => 0,
        [second] => second,
        _ => return None,
    };
    let fits = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    fits.then(|| (((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: years begin in March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// Text with `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH`, as bytes.
pub(crate) fn escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match rest.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some('\\') => bytes.push(b'\\'),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let byte = u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no byte"))?;
                bytes.push(byte);
            }
            other => return Err(format!("\\{} means nothing", other.map(String::from).unwrap_or_default())),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_a_log() {
        assert_eq!(from("beginning"), Ok(From::Place(Start::Beginning)));
        assert_eq!(from("42"), Ok(From::Place(Start::Offset(42))));
        assert_eq!(from("-5"), Ok(From::BeforeEnd(5)));
        assert_eq!(from("@1000"), Ok(From::Place(Start::Time(1000))));
        assert!(from("soon").is_err() && from("--5").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(timestamp_ms("1970-01-02"), Ok(86_400_000));
        assert_eq!(timestamp_ms("2000-02-29T12:30:15Z"), Ok(951_827_415_000));
        assert_eq!(timestamp_ms("2024-03-01 00:00"), Ok(1_709_251_200_000));
        assert!(timestamp_ms("-1h").is_ok_and(|at| at > 1_700_000_000_000));
        for wrong in ["yesterday", "2026-13-01", "2026-01-01T25:00", "-5", "2026-01", "2026-01-01T1:2:3:4"] {
            assert!(timestamp_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_with_and_without_ports() {
        assert_eq!(address("h:1"), Ok("h:1".to_owned()));
        assert_eq!(address("PLAINTEXT://h:1"), Ok("h:1".to_owned()));
        assert_eq!(address("h"), Ok("h:9092".to_owned()));
        assert_eq!(address("::1"), Ok("[::1]:9092".to_owned()));
        assert_eq!(address("[::1]:1"), Ok("[::1]:1".to_owned()));
        assert_eq!(address("[::1]"), Ok("[::1]:9092".to_owned()));
        for wrong in ["", "h:", "h:x", "h:0", "h:65536", ":1", "SSL://h:1"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(addresses("a:1, b").unwrap(), ["a:1", "b:9092"]);
        assert!(addresses("a:1,").is_err());
    }

    #[test]
    fn partitions_one_by_one_and_in_ranges() {
        let numbers = partitions("5-7,0,2").unwrap();
        assert_eq!(numbers, BTreeSet::from([0, 2, 5, 6, 7]));
        assert_eq!(partitions_text(&numbers), "0,2,5-7");
        assert_eq!(partitions_text(&BTreeSet::new()), "");
        for wrong in ["", "a", "-1", "3-1", "1,", "0-2147483647"] {
            assert!(partitions(wrong).is_err(), "{wrong}");
        }
        assert_eq!(topic_part("t"), Ok(("t".to_owned(), None)));
        assert_eq!(topic_part("t:2,0"), Ok(("t".to_owned(), Some(BTreeSet::from([0, 2])))));
        assert!(topic_part("t:").is_err() && topic_part("t:a").is_err());
    }

    #[test]
    fn settings_and_escapes() {
        assert_eq!(setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(setting("a").is_err() && setting("=b").is_err());
        assert_eq!(escaped(r"a\t\x00\\é").unwrap(), b"a\t\0\\\xc3\xa9");
        assert!(escaped(r"\q").is_err() && escaped(r"\xg0").is_err() && escaped("\\").is_err());
    }
}
