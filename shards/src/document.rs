//! The canonical form of a document: MessagePack, read as a stream of tokens and written by appending, never as a tree.
//!
//! What a document holds: null, bool, 64-bit integers, floats (always 8 bytes), text, bytes, dates (the timestamp
//! extension, type −1), arrays, and maps with text keys. Protocols transcode into and out of this form at the edges;
//! the engine validates, merges and stores it (`validate.rs`).

use crate::limits::DOCUMENT_DEPTH_MAX;

/// MessagePack's type number for timestamps.
const TIMESTAMP: i8 = -1;

/// A point in time: seconds since 1970 and nanoseconds (below 10^9) after that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    pub seconds: i64,
    pub nanos: u32,
}

impl Date {
    pub fn from_micros(micros: u64) -> Date {
        Date { seconds: (micros / 1_000_000) as i64, nanos: (micros % 1_000_000) as u32 * 1000 }
    }

    /// `None` where the number is not finite or out of range.
    pub fn from_millis(millis: f64) -> Option<Date> {
        if !millis.is_finite() || millis.abs() > 8.64e15 {
            return None;
        }
        let seconds = (millis / 1000.0).floor();
        let nanos = ((millis - seconds * 1000.0) * 1e6).round().clamp(0.0, 999_999_999.0);
        Some(Date { seconds: seconds as i64, nanos: nanos as u32 })
    }

    pub fn as_millis(self) -> f64 {
        self.seconds as f64 * 1000.0 + f64::from(self.nanos) / 1e6
    }
}

/// One step through a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Only above `i64::MAX`.
    Uint(u64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Date(Date),
    /// Followed by this many values.
    Array(u32),
    /// Followed by this many pairs of key and value.
    Map(u32),
}

/// Reads tokens. Never panics and never reads past the end: `None` means that what follows is no document.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Offset of the next token.
    pub fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(slice)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self, count: usize) -> Option<Token<'a>> {
        std::str::from_utf8(self.take(count)?).ok().map(Token::Str)
    }

    fn extension(&mut self, count: usize) -> Option<Token<'a>> {
        let kind = self.number::<1>()?[0] as i8;
        let body = self.take(count)?;
        if kind != TIMESTAMP {
            return None;
        }
        let (seconds, nanos) = match count {
            4 => (i64::from(u32::from_be_bytes(body.try_into().ok()?)), 0),
            8 => {
                let word = u64::from_be_bytes(body.try_into().ok()?);
                ((word & ((1 << 34) - 1)) as i64, (word >> 34) as u32)
            }
            12 => (i64::from_be_bytes(body[4..].try_into().ok()?), u32::from_be_bytes(body[..4].try_into().ok()?)),
            _ => return None,
        };
        (nanos < 1_000_000_000).then_some(Token::Date(Date { seconds, nanos }))
    }

    /// The next token. Not an iterator: its caller must follow arrays and maps.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Token<'a>> {
        let marker = self.number::<1>()?[0];
        Some(match marker {
            0x00..=0x7f => Token::Int(i64::from(marker)),
            0x80..=0x8f => Token::Map(u32::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(marker & 0x0f)),
            0xa0..=0xbf => return self.text(usize::from(marker & 0x1f)),
            0xc0 => Token::Null,
            0xc1 => return None,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => {
                let count = usize::from(self.number::<1>()?[0]);
                Token::Bytes(self.take(count)?)
            }
            0xc5 => {
                let count = usize::from(u16::from_be_bytes(self.number()?));
                Token::Bytes(self.take(count)?)
            }
            0xc6 => {
                let count = u32::from_be_bytes(self.number()?) as usize;
                Token::Bytes(self.take(count)?)
            }
            0xc7 => {
                let count = usize::from(self.number::<1>()?[0]);
                return self.extension(count);
            }
            0xc8 | 0xc9 => return None,
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.number()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.number()?)),
            0xcc => Token::Int(i64::from(self.number::<1>()?[0])),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.number()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.number()?))),
            0xcf => {
                let number = u64::from_be_bytes(self.number()?);
                i64::try_from(number).map_or(Token::Uint(number), Token::Int)
            }
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.number()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.number()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.number()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => return self.extension(1 << (marker - 0xd4)),
            0xd9 => {
                let count = usize::from(self.number::<1>()?[0]);
                return self.text(count);
            }
            0xda => {
                let count = usize::from(u16::from_be_bytes(self.number()?));
                return self.text(count);
            }
            0xdb => {
                let count = u32::from_be_bytes(self.number()?) as usize;
                return self.text(count);
            }
            0xdc => Token::Array(u32::from(u16::from_be_bytes(self.number()?))),
            0xdd => Token::Array(u32::from_be_bytes(self.number()?)),
            0xde => Token::Map(u32::from(u16::from_be_bytes(self.number()?))),
            0xdf => Token::Map(u32::from_be_bytes(self.number()?)),
            0xe0..=0xff => Token::Int(i64::from(marker as i8)),
        })
    }

    /// Steps over one whole value and gives its bytes. It looks at lengths alone: whoever reads what is in there will
    /// find what is wrong with it.
    pub fn value(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            if self.text_bytes().is_some() {
                continue;
            }
            let marker = self.number::<1>()?[0];
            let bytes = match marker {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => continue,
                0x80..=0x8f => {
                    left += 2 * u64::from(marker & 0x0f);
                    continue;
                }
                0x90..=0x9f => {
                    left += u64::from(marker & 0x0f);
                    continue;
                }
                0xdc => {
                    left += u64::from(u16::from_be_bytes(self.number()?));
                    continue;
                }
                0xdd => {
                    left += u64::from(u32::from_be_bytes(self.number()?));
                    continue;
                }
                0xde => {
                    left += 2 * u64::from(u16::from_be_bytes(self.number()?));
                    continue;
                }
                0xdf => {
                    left += 2 * u64::from(u32::from_be_bytes(self.number()?));
                    continue;
                }
                0xc4 => usize::from(self.number::<1>()?[0]),
                0xc5 => usize::from(u16::from_be_bytes(self.number()?)),
                0xc6 => u32::from_be_bytes(self.number()?) as usize,
                0xc7 => 1 + usize::from(self.number::<1>()?[0]),
                0xcc..=0xcf => 1 << (marker - 0xcc),
                0xd0..=0xd3 => 1 << (marker - 0xd0),
                0xd4..=0xd8 => 1 + (1 << (marker - 0xd4)),
                0xca => 4,
                0xcb => 8,
                _ => return None,
            };
            self.take(bytes)?;
        }
        Some(&self.bytes[start..self.at])
    }

    /// The bytes of a text, if that is what comes next; else nothing is read. Not checked to be UTF-8: for those who
    /// compare or copy them.
    pub fn text_bytes(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let (head, count): (usize, usize) = match *rest.first()? {
            marker @ 0xa0..=0xbf => (1, usize::from(marker & 0x1f)),
            0xd9 => (2, usize::from(*rest.get(1)?)),
            0xda => (3, usize::from(u16::from_be_bytes(rest.get(1..3)?.try_into().ok()?))),
            0xdb => (5, u32::from_be_bytes(rest.get(1..5)?.try_into().ok()?) as usize),
            _ => return None,
        };
        let text = rest.get(head..head.checked_add(count)?)?;
        self.at += head + count;
        Some(text)
    }

    /// The text of a map key.
    pub fn key(&mut self) -> Option<&'a str> {
        match self.next()? {
            Token::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// Whether `bytes` are exactly one well-formed document value, not nested too deep, with text keys.
pub fn is_well_formed(bytes: &[u8]) -> bool {
    check(bytes).is_ok()
}

/// The same; fails with the offset of what is wrong.
pub fn check(bytes: &[u8]) -> Result<(), usize> {
    fn value(reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        if depth > DOCUMENT_DEPTH_MAX {
            return None;
        }
        match reader.next()? {
            Token::Array(count) => (0..count).try_for_each(|_| value(reader, depth + 1)),
            Token::Map(count) => (0..count).try_for_each(|_| {
                reader.key()?;
                value(reader, depth + 1)
            }),
            _ => Some(()),
        }
    }
    let mut reader = Reader::new(bytes);
    let is_whole = value(&mut reader, 0).is_some() && reader.position() == bytes.len();
    if is_whole { Ok(()) } else { Err(reader.position()) }
}

/// The value of a top-level attribute.
pub fn attribute<'a>(document: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut reader = Reader::new(document);
    let Token::Map(count) = reader.next()? else { return None };
    for _ in 0..count {
        let key = reader.text_bytes()?;
        let value = reader.value()?;
        if key == name.as_bytes() {
            return Some(value);
        }
    }
    None
}

/// Whether a text can stand in an HTTP field and in an MQTT property: short, printable ASCII.
pub fn is_content_type(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// The parts of an opaque document `{contentType, data}` (compat §7): its content type and its bytes or text.
pub fn opaque(document: &[u8]) -> Option<(&str, &[u8])> {
    let Token::Str(content_type) = Reader::new(attribute(document, "contentType")?).next()? else { return None };
    if !is_content_type(content_type) {
        return None;
    }
    match Reader::new(attribute(document, "data")?).next()? {
        Token::Bytes(data) => Some((content_type, data)),
        Token::Str(text) => Some((content_type, text.as_bytes())),
        _ => None,
    }
}

/// Appends values in canonical form: the shortest header that fits, floats in 8 bytes.
pub trait Writer {
    fn write_null(&mut self);
    fn write_bool(&mut self, value: bool);
    fn write_int(&mut self, value: i64);
    fn write_uint(&mut self, value: u64);
    fn write_float(&mut self, value: f64);
    fn write_str(&mut self, value: &str) {
        self.write_text(value.as_bytes());
    }
    /// Bytes that are UTF-8.
    fn write_text(&mut self, value: &[u8]);
    fn write_bytes(&mut self, value: &[u8]);
    fn write_date(&mut self, value: Date);
    fn write_array(&mut self, count: u32);
    fn write_map(&mut self, count: u32);
}

impl Writer for Vec<u8> {
    fn write_null(&mut self) {
        self.push(0xc0);
    }

    fn write_bool(&mut self, value: bool) {
        self.push(0xc2 + u8::from(value));
    }

    fn write_int(&mut self, value: i64) {
        if value >= 0 {
            return self.write_uint(value as u64);
        }
        match value {
            -32..=-1 => self.push(value as u8),
            -0x80..=-33 => self.extend_from_slice(&[0xd0, value as u8]),
            -0x8000..=-0x81 => header(self, 0xd1, &(value as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => header(self, 0xd2, &(value as i32).to_be_bytes()),
            _ => header(self, 0xd3, &value.to_be_bytes()),
        }
    }

    fn write_uint(&mut self, value: u64) {
        match value {
            0..=0x7f => self.push(value as u8),
            0x80..=0xff => self.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => header(self, 0xcd, &(value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => header(self, 0xce, &(value as u32).to_be_bytes()),
            _ => header(self, 0xcf, &value.to_be_bytes()),
        }
    }

    fn write_float(&mut self, value: f64) {
        header(self, 0xcb, &value.to_be_bytes());
    }

    fn write_text(&mut self, value: &[u8]) {
        match value.len() {
            count @ 0..=31 => self.push(0xa0 | count as u8),
            count @ 32..=0xff => self.extend_from_slice(&[0xd9, count as u8]),
            count @ 0x100..=0xffff => header(self, 0xda, &(count as u16).to_be_bytes()),
            count => header(self, 0xdb, &(count as u32).to_be_bytes()),
        }
        self.extend_from_slice(value);
    }

    fn write_bytes(&mut self, value: &[u8]) {
        match value.len() {
            count @ 0..=0xff => self.extend_from_slice(&[0xc4, count as u8]),
            count @ 0x100..=0xffff => header(self, 0xc5, &(count as u16).to_be_bytes()),
            count => header(self, 0xc6, &(count as u32).to_be_bytes()),
        }
        self.extend_from_slice(value);
    }

    fn write_date(&mut self, value: Date) {
        match value {
            Date { seconds: 0..=0xffff_ffff, nanos: 0 } => {
                self.extend_from_slice(&[0xd6, TIMESTAMP as u8]);
                self.extend_from_slice(&(value.seconds as u32).to_be_bytes());
            }
            Date { seconds: 0..=0x3_ffff_ffff, .. } => {
                self.extend_from_slice(&[0xd7, TIMESTAMP as u8]);
                let word = (u64::from(value.nanos) << 34) | value.seconds as u64;
                self.extend_from_slice(&word.to_be_bytes());
            }
            _ => {
                self.extend_from_slice(&[0xc7, 12, TIMESTAMP as u8]);
                self.extend_from_slice(&value.nanos.to_be_bytes());
                self.extend_from_slice(&value.seconds.to_be_bytes());
            }
        }
    }

    fn write_array(&mut self, count: u32) {
        match count {
            0..=15 => self.push(0x90 | count as u8),
            16..=0xffff => header(self, 0xdc, &(count as u16).to_be_bytes()),
            _ => header(self, 0xdd, &count.to_be_bytes()),
        }
    }

    fn write_map(&mut self, count: u32) {
        match count {
            0..=15 => self.push(0x80 | count as u8),
            16..=0xffff => header(self, 0xde, &(count as u16).to_be_bytes()),
            _ => header(self, 0xdf, &count.to_be_bytes()),
        }
    }
}

fn header(out: &mut Vec<u8>, marker: u8, number: &[u8]) {
    out.push(marker);
    out.extend_from_slice(number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scalars_survive(int in any::<i64>(), uint in any::<u64>(), float in any::<f64>(), text in ".{0,300}",
                           bytes in proptest::collection::vec(any::<u8>(), 0..300),
                           seconds in any::<i64>(), nanos in 0u32..1_000_000_000) {
            let mut out = Vec::new();
            out.write_int(int);
            out.write_uint(uint);
            out.write_float(float);
            out.write_str(&text);
            out.write_bytes(&bytes);
            out.write_date(Date { seconds, nanos });
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.next(), Some(Token::Int(int)));
            prop_assert_eq!(reader.next(), Some(i64::try_from(uint).map_or(Token::Uint(uint), Token::Int)));
            prop_assert!(matches!(reader.next(), Some(Token::Float(x)) if x.to_bits() == float.to_bits()));
            prop_assert_eq!(reader.next(), Some(Token::Str(&text)));
            prop_assert_eq!(reader.next(), Some(Token::Bytes(&bytes)));
            prop_assert_eq!(reader.next(), Some(Token::Date(Date { seconds, nanos })));
            prop_assert_eq!(reader.position(), out.len());
            let mut lengths = Reader::new(&out);
            let passed_over: Vec<usize> = (0..6).filter_map(|_| lengths.value().map(<[u8]>::len)).collect();
            prop_assert_eq!((passed_over.len(), passed_over.iter().sum::<usize>()), (6, out.len()));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let passed_over = Reader::new(&bytes).value().map(<[u8]>::len);
            prop_assert!(!is_well_formed(&bytes) || passed_over == Some(bytes.len()));
            let _ = attribute(&bytes, "a");
            let _ = opaque(&bytes);
        }
    }

    #[test]
    fn attributes_are_found_past_nested_values() {
        let mut out = Vec::new();
        out.write_map(2);
        out.write_str("a");
        out.write_array(2);
        out.write_null();
        out.write_map(1);
        out.write_str("b");
        out.write_bool(true);
        out.write_str("b");
        out.write_int(-5);
        assert!(is_well_formed(&out));
        assert_eq!(attribute(&out, "b"), Some(&[0xfb][..]));
        assert_eq!(attribute(&out, "c"), None);
    }

    #[test]
    fn dates_convert_from_milliseconds() {
        let date = Date::from_millis(-1500.25).unwrap();
        assert_eq!(date, Date { seconds: -2, nanos: 499_750_000 });
        assert_eq!(date.as_millis(), -1500.25);
        assert_eq!(Date::from_millis(f64::NAN), None);
    }
}
