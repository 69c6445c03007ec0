use bytes::BufMut;

use super::{Field, Kind, Message};
use crate::records::varint;

/// What [`sample`] may put into a message.
#[derive(Debug, Clone, Copy)]
pub struct SampleOptions {
    /// Elements per array, at most.
    pub elements_max: u64,
    /// Whether tagged fields appear, known ones and unknown ones.
    pub tagged: bool,
}

/// A random, valid message of a shape, for tests and fuzzers: canonical as the codec writes it (booleans 0 or 1,
/// shortest varints, tags in order). `random` gives uniform numbers.
///
/// # Panics
/// Never for shapes of this module's tables.
pub fn sample(
    message: &Message,
    version: i16,
    options: SampleOptions,
    random: &mut dyn FnMut() -> u64,
) -> Vec<u8> {
    let flexible = version >= message.flexible;
    let mut sampler = Sampler { version, flexible, options, random, out: Vec::new() };
    sampler.fields(message.fields);
    sampler.out
}

struct Sampler<'a> {
    version: i16,
    flexible: bool,
    options: SampleOptions,
    random: &'a mut dyn FnMut() -> u64,
    out: Vec<u8>,
}

impl Sampler<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        (self.random)() % bound
    }

    fn fields(&mut self, fields: &'static [Field]) {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(&field.kind);
            }
        }
        if self.flexible {
            self.tagged_fields(fields);
        }
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) {
        let mut chosen: Vec<&Field> = Vec::new();
        let mut unknown = 0;
        if self.options.tagged {
            let known = fields.iter().filter(|field| field.tag.is_some() && field.is_in(self.version));
            chosen.extend(known.filter(|_| (self.random)().is_multiple_of(2)));
            chosen.sort_by_key(|field| field.tag);
            unknown = self.below(3);
        }
        varint::put_u64(&mut self.out, chosen.len() as u64 + unknown);
        for field in chosen {
            let outer = std::mem::take(&mut self.out);
            self.value(&field.kind);
            let content = std::mem::replace(&mut self.out, outer);
            self.tagged_field(field.tag.unwrap_or_default(), &content);
        }
        for index in 0..unknown {
            let length = self.below(6) as usize;
            self.tagged_field(9_000 + index as u32, &vec![0xee; length]);
        }
    }

    fn tagged_field(&mut self, tag: u32, content: &[u8]) {
        varint::put_u64(&mut self.out, u64::from(tag));
        varint::put_u64(&mut self.out, content.len() as u64);
        self.out.put_slice(content);
    }

    fn value(&mut self, kind: &'static Kind) {
        match kind {
            Kind::Bool => {
                let value = self.below(2) as u8;
                self.out.put_u8(value);
            }
            Kind::I8 => self.number(1),
            Kind::I16 | Kind::U16 => self.number(2),
            Kind::I32 | Kind::U32 => self.number(4),
            Kind::I64 => self.number(8),
            Kind::F64 => {
                let value = self.below(1_000) as f64 / 8.0;
                self.out.put_f64(value);
            }
            Kind::Uuid => self.number(16),
            Kind::NullStr | Kind::NullBytes | Kind::NullArray(_) if self.below(4) == 0 => self.null(kind),
            Kind::Str | Kind::NullStr => {
                let length = self.below(9);
                if self.flexible {
                    varint::put_u64(&mut self.out, length + 1);
                } else {
                    self.out.put_i16(length as i16);
                }
                for _ in 0..length {
                    let letter = b'a' + self.below(26) as u8;
                    self.out.put_u8(letter);
                }
            }
            Kind::Bytes | Kind::NullBytes => {
                let length = self.below(20);
                self.length(length);
                self.number(length as usize);
            }
            Kind::Array(element) | Kind::NullArray(element) => {
                let length = self.below(self.options.elements_max + 1);
                self.length(length);
                for _ in 0..length {
                    self.value(element);
                }
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullStruct(_) if self.below(4) == 0 => self.out.put_i8(-1),
            Kind::NullStruct(fields) => {
                self.out.put_i8(1);
                self.fields(fields);
            }
        }
    }

    fn null(&mut self, kind: &'static Kind) {
        match (self.flexible, kind) {
            (true, _) => self.out.put_u8(0),
            (false, Kind::NullStr) => self.out.put_i16(-1),
            (false, _) => self.out.put_i32(-1),
        }
    }

    fn length(&mut self, length: u64) {
        if self.flexible {
            varint::put_u64(&mut self.out, length + 1);
        } else {
            self.out.put_i32(length as i32);
        }
    }

    fn number(&mut self, bytes: usize) {
        for _ in 0..bytes {
            let byte = self.below(256) as u8;
            self.out.put_u8(byte);
        }
    }
}
