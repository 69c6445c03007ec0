//! Records as they are printed: in a format, or as JSON.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use serde_json::{Value, json};
use weir_client::{ConsumerRecord, Polled, TopicPartition};

use crate::failure::{Failure, explained};
use crate::format::Format;
use crate::output::{note, written};
use crate::progress::{self, Progress};

/// Prints records.
pub(crate) struct Printer<'a> {
    format: &'a Format,
    null: &'a [u8],
    json: bool,
    out: BufWriter<io::StdoutLock<'static>>,
    /// How many more are asked for.
    left: u64,
    progress: Progress,
}

impl<'a> Printer<'a> {
    /// `count`: how many records are asked for.
    pub(crate) fn new(format: &'a Format, null: &'a str, json: bool, count: Option<u64>) -> Self {
        Self {
            format,
            null: null.as_bytes(),
            json,
            out: BufWriter::new(io::stdout().lock()),
            left: count.unwrap_or(u64::MAX),
            progress: Progress::new("read", progress::output_is_a_file()),
        }
    }

    /// Prints what was read, as far as it is asked for. When that is all: where each partition goes on, of which something
    /// was not printed.
    pub(crate) fn print(
        &mut self,
        polled: &Polled,
    ) -> Result<Option<BTreeMap<TopicPartition, i64>>, Failure> {
        let mut not_printed = BTreeMap::new();
        for (partition, record) in polled.records() {
            if self.left == 0 {
                not_printed.entry(partition.clone()).or_insert(record.offset);
                continue;
            }
            self.left -= 1;
            let printed = if self.json {
                writeln!(self.out, "{}", as_json(partition, record))
            } else {
                self.format.write(&mut self.out, partition, record, self.null)
            };
            written(printed)?;
            let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
            self.progress.add(bytes(&record.key) + bytes(&record.value));
        }
        written(self.out.flush())?;
        for failure in &polled.failures {
            if failure.stopped {
                return Err(failure.error.clone().into());
            }
            note(&format!("{}: {}; trying again", failure.partition, explained(&failure.error)));
        }
        Ok((self.left == 0).then_some(not_printed))
    }

    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.progress.finish();
        written(self.out.flush())
    }
}

/// Text stays text; other bytes become `{"hex": "..."}`.
fn text(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

fn as_json(partition: &TopicPartition, record: &ConsumerRecord) -> Value {
    let headers = record.headers.iter().map(|(key, value)| json!([text(Some(key)), text(value.as_ref())]));
    json!({
        "topic": &*partition.topic,
        "partition": partition.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": text(record.key.as_ref()),
        "value": text(record.value.as_ref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_printed_as_hex() {
        assert_eq!(text(Some(&Bytes::from_static(b"a\xc3\xa9"))), json!("a\u{e9}"));
        assert_eq!(text(Some(&Bytes::from_static(b"\xff\x00"))), json!({ "hex": "ff00" }));
        assert_eq!(text(None), Value::Null);
    }
}
