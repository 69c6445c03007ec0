use super::{Field, Kind, Message};
use crate::records::varint;

/// The longest text, as in Kafka: flexible versions, too, hold it to the 16 bits of the others. What is stored and answered
/// in other formats relies on that.
const TEXT_BYTES_MAX: i64 = i16::MAX as i64;

/// Why bytes do not follow a message's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The table does not know this version.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The bytes end inside of a field.
    #[error("{message}.{field} needs {needed} bytes, {available} are left")]
    Truncated {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// Bytes that the field needs, at least.
        needed: u64,
        /// Bytes that are left.
        available: usize,
    },
    /// A variable-length number that does not end within its size.
    #[error("{message}.{field} is not a valid varint")]
    Varint {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A length that is negative, or null where null is not allowed, or of a text that is longer than Kafka has any.
    #[error("{message}.{field} has length {length}")]
    Length {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The length; -1 stands for null.
        length: i64,
    },
    /// A tagged field that this version does not have, or that does not fill its size.
    #[error("{message} has tag {tag} of {size} bytes: {reason}")]
    Tag {
        /// The message.
        message: &'static str,
        /// The tag.
        tag: u32,
        /// Its size as claimed.
        size: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More array elements and tagged fields in all than a message may have.
    #[error("{message} has more than {limit} elements")]
    TooManyElements {
        /// The message.
        message: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Bytes are left behind the message.
    #[error("{bytes} bytes behind {message}")]
    TrailingBytes {
        /// The message.
        message: &'static str,
        /// How many.
        bytes: usize,
    },
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Array elements and tagged fields in all. Decoded, each takes up to about 300 bytes of memory besides
    /// its text and bytes, which are shared with the frame.
    pub elements: usize,
}

/// Follows the shape of `message` through `bytes`, which must end where the message ends. Takes time in
/// proportion to the bytes and allocates nothing. What it accepts can be decoded without fear for memory;
/// text may still turn out not to be UTF-8.
///
/// # Errors
/// The first place where bytes and shape disagree.
pub fn walk(message: &Message, version: i16, bytes: &[u8], elements_max: usize) -> Result<Walked, WalkError> {
    let name = message.name;
    let (first, last) = message.versions;
    if !(first..=last).contains(&version) {
        return Err(WalkError::Version { message: name, version });
    }
    let flexible = version >= message.flexible;
    let mut walk = Walk { message: name, version, flexible, rest: bytes, elements: 0, elements_max };
    walk.fields(message.fields)?;
    if !walk.rest.is_empty() {
        return Err(WalkError::TrailingBytes { message: name, bytes: walk.rest.len() });
    }
    Ok(Walked { elements: walk.elements })
}

struct Walk<'a> {
    message: &'static str,
    version: i16,
    flexible: bool,
    rest: &'a [u8],
    elements: usize,
    elements_max: usize,
}

impl<'a> Walk<'a> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), WalkError> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(field.name, &field.kind)?;
            }
        }
        if self.flexible {
            self.tagged_fields(fields)?;
        }
        Ok(())
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), WalkError> {
        let count = self.varint("tagged_fields")?;
        self.count_elements("tagged_fields", u64::from(count))?;
        for _ in 0..count {
            let tag = self.varint("tag")?;
            let size = self.varint("tag_size")?;
            let content = self.take("tagged_field", u64::from(size))?;
            let Some(field) = fields.iter().find(|field| field.tag == Some(tag)) else {
                continue;
            };
            let refuse = |reason| WalkError::Tag { message: self.message, tag, size, reason };
            if !field.is_in(self.version) {
                return Err(refuse("this version does not have it"));
            }
            let mut inner = Walk { rest: content, ..*self };
            inner.value(field.name, &field.kind)?;
            if !inner.rest.is_empty() {
                return Err(refuse("it does not fill its size"));
            }
            self.elements = inner.elements;
        }
        Ok(())
    }

    fn value(&mut self, name: &'static str, kind: &'static Kind) -> Result<(), WalkError> {
        match kind {
            Kind::Bool | Kind::I8 => self.skip(name, 1),
            Kind::I16 | Kind::U16 => self.skip(name, 2),
            Kind::I32 | Kind::U32 => self.skip(name, 4),
            Kind::I64 | Kind::F64 => self.skip(name, 8),
            Kind::Uuid => self.skip(name, 16),
            Kind::Str | Kind::NullStr => {
                let length = if self.flexible { self.compact(name)? } else { self.i16(name)?.into() };
                if length > TEXT_BYTES_MAX {
                    return Err(WalkError::Length { message: self.message, field: name, length });
                }
                self.content(name, length, matches!(kind, Kind::NullStr))
            }
            Kind::Bytes | Kind::NullBytes => {
                let length = self.length(name)?;
                self.content(name, length, matches!(kind, Kind::NullBytes))
            }
            Kind::Array(element) => self.array(name, element, false),
            Kind::NullArray(element) => self.array(name, element, true),
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullStruct(fields) => match self.take(name, 1)? {
                [1] => self.fields(fields),
                _ => Ok(()),
            },
        }
    }

    fn array(&mut self, name: &'static str, element: &'static Kind, nullable: bool) -> Result<(), WalkError> {
        let length = self.length(name)?;
        if length == -1 && nullable {
            return Ok(());
        }
        let Ok(count) = u64::try_from(length) else {
            return Err(WalkError::Length { message: self.message, field: name, length });
        };
        self.count_elements(name, count)?;
        for _ in 0..count {
            self.value(name, element)?;
        }
        Ok(())
    }

    /// No element takes less than a byte, so a count above the bytes that are left is a lie.
    fn count_elements(&mut self, field: &'static str, count: u64) -> Result<(), WalkError> {
        let available = self.rest.len();
        if count > available as u64 {
            return Err(WalkError::Truncated { message: self.message, field, needed: count, available });
        }
        self.elements += count as usize;
        if self.elements > self.elements_max {
            return Err(WalkError::TooManyElements { message: self.message, limit: self.elements_max });
        }
        Ok(())
    }

    fn content(&mut self, field: &'static str, length: i64, nullable: bool) -> Result<(), WalkError> {
        if length == -1 && nullable {
            return Ok(());
        }
        match u64::try_from(length) {
            Ok(length) => self.skip(field, length),
            Err(_) => Err(WalkError::Length { message: self.message, field, length }),
        }
    }

    /// A length of bytes or arrays: 32 bits, or a varint one above it. -1 is null.
    fn length(&mut self, field: &'static str) -> Result<i64, WalkError> {
        if self.flexible {
            return self.compact(field);
        }
        let mut number = [0; 4];
        number.copy_from_slice(self.take(field, 4)?);
        Ok(i32::from_be_bytes(number).into())
    }

    fn i16(&mut self, field: &'static str) -> Result<i16, WalkError> {
        let mut number = [0; 2];
        number.copy_from_slice(self.take(field, 2)?);
        Ok(i16::from_be_bytes(number))
    }

    fn compact(&mut self, field: &'static str) -> Result<i64, WalkError> {
        Ok(i64::from(self.varint(field)?) - 1)
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, WalkError> {
        if self.rest.is_empty() {
            return Err(WalkError::Truncated { message: self.message, field, needed: 1, available: 0 });
        }
        varint::take_u32(&mut self.rest).ok_or(WalkError::Varint { message: self.message, field })
    }

    fn skip(&mut self, field: &'static str, needed: u64) -> Result<(), WalkError> {
        self.take(field, needed).map(|_| ())
    }

    fn take(&mut self, field: &'static str, needed: u64) -> Result<&'a [u8], WalkError> {
        let available = self.rest.len();
        let split = usize::try_from(needed).ok().and_then(|needed| self.rest.split_at_checked(needed));
        let (taken, behind) =
            split.ok_or(WalkError::Truncated { message: self.message, field, needed, available })?;
        self.rest = behind;
        Ok(taken)
    }
}
