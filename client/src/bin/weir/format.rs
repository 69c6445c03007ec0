//! Formats for records, as kcat has them: `%t %p %o %k %s\n`.

use std::io::{self, Write};

use weir_client::{ConsumerRecord, TopicPartition};

use crate::parse;

/// A format that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    ValueBytesBinary,
    Timestamp,
    Headers,
}

impl Format {
    /// Understands a format.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            parts.push(Part::Text(parse::escaped(&rest[..at])?));
            let mut letters = rest[at + 1..].chars();
            let letter = letters.next().ok_or("it ends with %; %% prints one")?;
            parts.push(match letter {
                't' => Part::Topic,
                'p' => Part::Partition,
                'o' => Part::Offset,
                'k' => Part::Key,
                'K' => Part::KeyBytes,
                's' => Part::Value,
                'S' => Part::ValueBytes,
                'R' => Part::ValueBytesBinary,
                'T' => Part::Timestamp,
                'h' => Part::Headers,
                '%' => Part::Text(b"%".to_vec()),
                other => return Err(format!("%{other} means nothing; see --help")),
            });
            rest = letters.as_str();
        }
        parts.push(Part::Text(parse::escaped(rest)?));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// Prints a record. `null` stands where there is no key or value.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        partition: &TopicPartition,
        record: &ConsumerRecord,
        null: &[u8],
    ) -> io::Result<()> {
        let length =
            |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        for part in &self.0 {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Topic => write!(out, "{}", partition.topic)?,
                Part::Partition => write!(out, "{}", partition.partition)?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Key => out.write_all(record.key.as_deref().unwrap_or(null))?,
                Part::KeyBytes => write!(out, "{}", length(record.key.as_deref()))?,
                Part::Value => out.write_all(record.value.as_deref().unwrap_or(null))?,
                Part::ValueBytes => write!(out, "{}", length(record.value.as_deref()))?,
                Part::ValueBytesBinary => {
                    let bytes = i32::try_from(length(record.value.as_deref())).unwrap_or(i32::MAX);
                    out.write_all(&bytes.to_be_bytes())?;
                }
                Part::Timestamp => write!(out, "{}", record.timestamp_ms)?,
                Part::Headers => write_headers(out, record, null)?,
            }
        }
        Ok(())
    }
}

fn write_headers(out: &mut impl Write, record: &ConsumerRecord, null: &[u8]) -> io::Result<()> {
    for (at, (key, value)) in record.headers.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(key)?;
        out.write_all(b"=")?;
        out.write_all(value.as_deref().unwrap_or(null))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn printed(format: &str, key: Option<&'static str>) -> String {
        let header = |key: &'static str, value| (Bytes::from_static(key.as_bytes()), value);
        let record = ConsumerRecord {
            offset: 7,
            timestamp_ms: 1000,
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::from_static(b"value")),
            headers: vec![header("a", Some(Bytes::from_static(b"1"))), header("b", None)],
            leader_epoch: 0,
        };
        let mut out = Vec::new();
        let partition = TopicPartition::new("t", 3);
        Format::parse(format).unwrap().write(&mut out, &partition, &record, b"NULL").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_letter_prints_what_kcat_prints_for_it() {
        assert_eq!(printed(r"%t %p %o %k %s\n", Some("k")), "t 3 7 k value\n");
        assert_eq!(printed(r"%K %S %T %h\x21", None), "-1 5 1000 a=1,b=NULL!");
        assert_eq!(printed("100%% %k", None), "100% NULL");
        assert_eq!(printed("%R%s", None), "\0\0\0\x05value");
    }

    #[test]
    fn a_format_that_means_nothing_is_refused() {
        assert!(Format::parse("%q").is_err() && Format::parse("%").is_err() && Format::parse(r"\q").is_err());
    }
}
