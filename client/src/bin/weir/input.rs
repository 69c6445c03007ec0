//! Records as they are read: from files or the standard input, as text or as JSON.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use weir_client::ProducerRecord;

use crate::failure::Failure;

/// Texts of records, or why there are no more.
pub(crate) type Chunk = Result<Vec<Bytes>, Failure>;

const CHUNKS_MAX: usize = 8;
const RECORDS_PER_CHUNK_MAX: usize = 500;
const BUFFER_BYTES: usize = 64 << 10;

/// What stands between the delimiters of these files, or of the standard input where there are none. It is read by a
/// thread, so that who waits for more also hears of other things, and a record that has come is not kept waiting for the
/// next. Little is read ahead of what is taken.
pub(crate) fn records(files: Vec<PathBuf>, delimiter: Vec<u8>) -> mpsc::Receiver<Chunk> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    std::thread::spawn(move || {
        if files.is_empty() {
            read(
                &mut BufReader::with_capacity(BUFFER_BYTES, io::stdin()),
                "the standard input",
                &delimiter,
                &chunks,
            );
        }
        for file in &files {
            match open(file) {
                Ok(mut input) => read(&mut input, &file.display().to_string(), &delimiter, &chunks),
                Err(failure) => drop(chunks.blocking_send(Err(failure))),
            }
        }
    });
    receiver
}

fn open(file: &Path) -> Result<BufReader<File>, Failure> {
    let open = File::open(file).map(|file| BufReader::with_capacity(BUFFER_BYTES, file));
    open.map_err(|error| Failure::failed(format!("cannot open {}: {error}", file.display())))
}

fn read<R: Read>(input: &mut BufReader<R>, name: &str, delimiter: &[u8], chunks: &mpsc::Sender<Chunk>) {
    loop {
        let chunk = match chunk(input, delimiter) {
            Ok(chunk) if chunk.is_empty() => return,
            chunk => chunk.map_err(|error| Failure::failed(format!("cannot read {name}: {error}"))),
        };
        let ended = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || ended {
            return;
        }
    }
}

/// The next record, with those behind it that have come as well.
fn chunk<R: Read>(input: &mut BufReader<R>, delimiter: &[u8]) -> io::Result<Vec<Bytes>> {
    let mut records = Vec::new();
    while records.len() < RECORDS_PER_CHUNK_MAX {
        // A record that is not whole yet may be long in coming.
        let come = delimiter.last().is_some_and(|last| input.buffer().contains(last));
        if !come && !records.is_empty() {
            break;
        }
        let Some(record) = next(input, delimiter)? else { break };
        records.push(record);
    }
    Ok(records)
}

/// What stands before the next delimiter; `None` at the end. An empty rest is no record.
fn next(input: &mut impl BufRead, delimiter: &[u8]) -> io::Result<Option<Bytes>> {
    let Some(&last) = delimiter.last() else { return Ok(None) };
    let mut text = Vec::new();
    loop {
        let read = input.read_until(last, &mut text)?;
        if text.ends_with(delimiter) {
            text.truncate(text.len() - delimiter.len());
            return Ok(Some(text.into()));
        }
        if read == 0 {
            return Ok((!text.is_empty()).then(|| text.into()));
        }
    }
}

/// A record from an object as `weir consume -o json` prints it: `key`, `value`, `headers` and `timestamp_ms`.
pub(crate) fn record_of_json(text: &[u8]) -> Result<ProducerRecord, Failure> {
    let wrong = |why: &str| {
        let begin: String = String::from_utf8_lossy(text).chars().take(60).collect();
        Failure::failed(format!("a record is not as 'weir consume -o json' prints it: {why}: {begin}"))
    };
    let value: Value = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
    let Value::Object(parts) = &value else { return Err(wrong("it is no object")) };
    let bytes =
        |name: &str| bytes_of_json(parts.get(name)).map_err(|why| wrong(&format!("its {name} is {why}")));
    let mut headers = Vec::new();
    if let Some(list) = parts.get("headers") {
        for header in list.as_array().ok_or_else(|| wrong("its headers are no list"))? {
            let Some([Value::String(name), value]) = header.as_array().map(Vec::as_slice) else {
                return Err(wrong("a header is no list of a name and a value"));
            };
            let value = bytes_of_json(Some(value)).map_err(|why| wrong(&format!("a header is {why}")))?;
            headers.push((name.clone(), value));
        }
    }
    let timestamp_ms = match parts.get("timestamp_ms") {
        None | Some(Value::Null) => None,
        Some(ms) => Some(ms.as_i64().ok_or_else(|| wrong("its timestamp_ms is no whole number"))?),
    };
    Ok(ProducerRecord {
        key: bytes("key")?,
        value: bytes("value")?,
        headers,
        timestamp_ms,
        ..Default::default()
    })
}

/// Text, `{"hex": "..."}`, or none.
fn bytes_of_json(value: Option<&Value>) -> Result<Option<Bytes>, &'static str> {
    let hex = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(Bytes::from(text.clone()))),
        Some(Value::Object(parts)) => parts.get("hex").and_then(Value::as_str),
        Some(_) => None,
    };
    let hex = hex.ok_or("neither text nor {\"hex\": \"...\"} nor null")?;
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return Err("an odd number of hex digits") };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs
        .iter()
        .map(byte)
        .collect::<Option<Vec<u8>>>()
        .map(|bytes| Some(bytes.into()))
        .ok_or("not hex digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_with_the_delimiter_or_the_input() {
        let all = |text: &str, delimiter: &str| {
            let mut input = BufReader::with_capacity(2, text.as_bytes());
            let mut records = Vec::new();
            loop {
                let chunk = chunk(&mut input, delimiter.as_bytes()).unwrap();
                if chunk.is_empty() {
                    return records;
                }
                records.extend(chunk.iter().map(|record| String::from_utf8(record.to_vec()).unwrap()));
            }
        };
        assert_eq!(all("a\n\nb", "\n"), ["a", "", "b"]);
        assert_eq!(all("a\nb\n", "\n"), ["a", "b"]);
        assert_eq!(all("a-b--c", "--"), ["a-b", "c"]);
    }

    #[test]
    fn a_record_that_has_come_does_not_wait_for_the_next() {
        let mut input = BufReader::new("a\nb\nhalf".as_bytes());
        assert_eq!(chunk(&mut input, b"\n").unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_record_of_json_is_as_consume_prints_it() {
        let text = r#"{"headers":[["a","1"],["b",null]],"key":"k","offset":3,"partition":1,"timestamp_ms":5,"topic":"t","value":{"hex":"ff00"}}"#;
        let record = record_of_json(text.as_bytes()).unwrap();
        assert_eq!((record.key, record.timestamp_ms), (Some(Bytes::from_static(b"k")), Some(5)));
        assert_eq!(record.value, Some(Bytes::from_static(b"\xff\x00")));
        assert_eq!(
            record.headers,
            [("a".to_owned(), Some(Bytes::from_static(b"1"))), ("b".to_owned(), None)]
        );
        assert_eq!(record_of_json(b"{}").unwrap(), ProducerRecord::default());
    }

    #[test]
    fn a_record_of_json_that_is_none_is_refused() {
        for wrong in [
            "",
            "1",
            "{\"key\":1}",
            "{\"value\":{\"hex\":\"f\"}}",
            "{\"value\":{\"hex\":\"+1\"}}",
            "{\"headers\":[[1,2]]}",
            "{\"timestamp_ms\":1.5}",
        ] {
            assert!(record_of_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
