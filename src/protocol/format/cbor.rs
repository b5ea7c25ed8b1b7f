//! CBOR (RFC 8949) ⇄ the canonical form. Dates are tag 1 where a float of seconds holds them to the microsecond, else
//! tag 0; big integers (tags 2 and 3) are read where they fit 64 bits; other tags are stepped over, their content counts.

use super::{DecodeError, Format};
use shards::date::{parse_iso, write_iso};
use shards::document::{Date, Reader, Token, Writer};
use shards::limits::DOCUMENT_DEPTH_MAX;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// The length of a string, array or map of indefinite length.
const INDEFINITE: Option<u64> = None;

/// Where more bytes could have made it valid.
const TOO_EARLY: &str = "it ends too early";

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Appends the canonical form of one CBOR data item.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut input = Input { bytes: input, at: 0 };
    input.value(out, 0)?;
    if input.at < input.bytes.len() {
        return Err(input.error("bytes follow the value"));
    }
    Ok(())
}

/// The same of the item at the start of the input; gives its length. `None`: its end is not there.
pub fn decode_item(input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>> {
    let mut input = Input { bytes: input, at: 0 };
    match input.value(out, 0) {
        Ok(()) => Ok(Some(input.at)),
        Err(error) if error.what == TOO_EARLY => Ok(None),
        Err(error) => Err(error),
    }
}

impl<'a> Input<'a> {
    fn error(&self, what: &str) -> DecodeError {
        DecodeError { format: Format::Cbor, what: what.to_owned(), at: self.at.min(self.bytes.len()) }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let slice = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.error(TOO_EARLY))?;
        self.at += slice.len();
        Ok(slice)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let slice = self.take(N as u64)?;
        slice.try_into().map_err(|_| self.error(TOO_EARLY))
    }

    /// Major type, low bits, and the argument; `None` as argument: indefinite length.
    fn head(&mut self) -> Result<(u8, u8, Option<u64>)> {
        let [first] = self.number()?;
        let (major, low) = (first >> 5, first & 31);
        let argument = match low {
            0..=23 => u64::from(low),
            24 => u64::from(self.number::<1>()?[0]),
            25 => u64::from(u16::from_be_bytes(self.number()?)),
            26 => u64::from(u32::from_be_bytes(self.number()?)),
            27 => u64::from_be_bytes(self.number()?),
            31 if (BYTES..=MAP).contains(&major) || major == 7 => return Ok((major, low, INDEFINITE)),
            _ => return Err(self.error("a reserved header")),
        };
        Ok((major, low, Some(argument)))
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > DOCUMENT_DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        let start = self.at;
        let (major, low, argument) = self.head()?;
        match (major, argument) {
            (UNSIGNED, Some(value)) => out.write_uint(value),
            (NEGATIVE, Some(value)) => match i64::try_from(value) {
                Ok(value) => out.write_int(-1 - value),
                Err(_) => out.write_float(-1.0 - value as f64),
            },
            (BYTES, length) => {
                let bytes = self.string(BYTES, length)?;
                out.write_bytes(&bytes);
            }
            (TEXT, length) => {
                let bytes = self.string(TEXT, length)?;
                let text = std::str::from_utf8(&bytes).map_err(|_| self.error("the text is not UTF-8"))?;
                out.write_str(text);
            }
            (ARRAY, length) => {
                self.items(length, out, Writer::write_array, |input, out| input.value(out, depth + 1))?
            }
            (MAP, length) => self.items(length, out, Writer::write_map, |input, out| {
                input.key(out)?;
                input.value(out, depth + 1)
            })?,
            (TAG, Some(tag)) => self.tagged(tag, out, depth)?,
            _ => self.simple(low, argument, start, out)?,
        }
        Ok(())
    }

    /// Map keys are text here; numbers become text.
    fn key(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let (major, _, argument) = self.head()?;
        match (major, argument) {
            (TEXT, length) => {
                let bytes = self.string(TEXT, length)?;
                let text = std::str::from_utf8(&bytes).map_err(|_| self.error("a key is not UTF-8"))?;
                out.write_str(text);
            }
            (UNSIGNED, Some(value)) => out.write_str(itoa::Buffer::new().format(value)),
            (NEGATIVE, Some(value)) => out.write_str(itoa::Buffer::new().format(-1 - i128::from(value))),
            _ => return Err(self.error("map keys must be text")),
        }
        Ok(())
    }

    fn at_break(&mut self) -> bool {
        let is_break = self.bytes.get(self.at) == Some(&0xff);
        self.at += usize::from(is_break);
        is_break
    }

    /// The elements of an array or map. Where their number is not known beforehand it is filled in afterwards, in the
    /// header for 32-bit numbers.
    fn items(
        &mut self,
        length: Option<u64>,
        out: &mut Vec<u8>,
        header: fn(&mut Vec<u8>, u32),
        mut item: impl FnMut(&mut Self, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if let Some(length) = length {
            // Each element takes a byte at least: a larger number is a lie.
            if length > (self.bytes.len() - self.at) as u64 {
                return Err(self.error(TOO_EARLY));
            }
            header(out, length as u32);
            return (0..length).try_for_each(|_| item(self, out));
        }
        let start = out.len();
        header(out, u32::MAX);
        let mut count = 0u32;
        while !self.at_break() {
            item(self, out)?;
            count += 1;
        }
        out[start + 1..start + 5].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }

    fn string(&mut self, major: u8, length: Option<u64>) -> Result<std::borrow::Cow<'a, [u8]>> {
        if let Some(length) = length {
            return Ok(self.take(length)?.into());
        }
        let mut whole = Vec::new();
        while !self.at_break() {
            match self.head()? {
                (chunk, _, Some(length)) if chunk == major => whole.extend_from_slice(self.take(length)?),
                _ => return Err(self.error("a string of indefinite length has chunks of its own kind only")),
            }
        }
        Ok(whole.into())
    }

    fn tagged(&mut self, tag: u64, out: &mut Vec<u8>, depth: usize) -> Result<()> {
        let start = out.len();
        self.value(out, depth + 1)?;
        let inner = out.split_off(start);
        let token = Reader::new(&inner).next();
        let date = match (tag, token) {
            (0, Some(Token::Str(text))) => parse_iso(text),
            (1, Some(Token::Int(seconds))) => Some(Date { seconds, nanos: 0 }),
            (1, Some(Token::Float(seconds))) => date_from_seconds(seconds),
            (2 | 3, Some(Token::Bytes(bytes))) => {
                let digits = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &bytes[first..]);
                if digits.len() > 8 {
                    return Err(self.error("an integer of more than 64 bits"));
                }
                let value = digits.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                match (tag, i64::try_from(value)) {
                    (2, _) => out.write_uint(value),
                    (_, Ok(value)) => out.write_int(-1 - value),
                    _ => return Err(self.error("an integer of more than 64 bits")),
                }
                return Ok(());
            }
            _ => {
                out.extend_from_slice(&inner);
                return Ok(());
            }
        };
        out.write_date(date.ok_or_else(|| self.error("not a date"))?);
        Ok(())
    }

    fn simple(&mut self, low: u8, argument: Option<u64>, start: usize, out: &mut Vec<u8>) -> Result<()> {
        match (low, argument) {
            (20, _) => out.write_bool(false),
            (21, _) => out.write_bool(true),
            (22 | 23, _) => out.write_null(), // null; JavaScript's undefined
            (25, Some(bits)) => out.write_float(half(bits as u16)),
            (26, Some(bits)) => out.write_float(f64::from(f32::from_bits(bits as u32))),
            (27, Some(bits)) => out.write_float(f64::from_bits(bits)),
            _ => {
                self.at = start;
                return Err(self.error("an unassigned simple value, or a break where none belongs"));
            }
        }
        Ok(())
    }
}

fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff);
    sign * match bits >> 10 & 31 {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + fraction) * 2f64.powi(i32::from(exponent) - 25),
    }
}

/// A float holds the seconds of our age to the microsecond, not better.
fn date_from_seconds(seconds: f64) -> Option<Date> {
    if !seconds.is_finite() || seconds.abs() > 8.64e12 {
        return None;
    }
    let whole = seconds.floor();
    let micros = ((seconds - whole) * 1e6).round() as u32;
    let carry = micros / 1_000_000;
    Some(Date { seconds: whole as i64 + i64::from(carry), nanos: micros % 1_000_000 * 1000 })
}

/// Appends a canonical document as CBOR, in the shortest headers, floats in 8 bytes.
pub fn write_cbor(document: &[u8], out: &mut Vec<u8>) {
    let mut reader = Reader::new(document);
    // Canonical form and CBOR both list containers before their content: one loop does.
    while reader.position() < document.len()
        && let Some(token) = reader.next()
    {
        match token {
            Token::Null => out.push(0xf6),
            Token::Bool(value) => out.push(0xf4 + u8::from(value)),
            Token::Int(value) if value < 0 => write_head(NEGATIVE, !value as u64, out),
            Token::Int(value) => write_head(UNSIGNED, value as u64, out),
            Token::Uint(value) => write_head(UNSIGNED, value, out),
            Token::Float(value) => write_float(value, out),
            Token::Str(text) => {
                write_head(TEXT, text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Token::Bytes(bytes) => {
                write_head(BYTES, bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Token::Date(date) => write_date(date, out),
            Token::Array(count) => write_head(ARRAY, u64::from(count), out),
            Token::Map(count) => write_head(MAP, u64::from(count), out),
        }
    }
}

fn write_float(value: f64, out: &mut Vec<u8>) {
    out.push(0xfb);
    out.extend_from_slice(&value.to_be_bytes());
}

fn write_date(date: Date, out: &mut Vec<u8>) {
    if date.nanos == 0 {
        write_head(TAG, 1, out);
        let (major, value) =
            if date.seconds < 0 { (NEGATIVE, !date.seconds as u64) } else { (UNSIGNED, date.seconds as u64) };
        return write_head(major, value, out);
    }
    let seconds = date.seconds as f64 + f64::from(date.nanos) / 1e9;
    if date_from_seconds(seconds) == Some(date) {
        write_head(TAG, 1, out);
        return write_float(seconds, out);
    }
    let mut text = String::new();
    write_iso(date, &mut text);
    write_head(TAG, 0, out);
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn write_head(major: u8, value: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}
