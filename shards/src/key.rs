//! Keys: text in a URL or topic ⇄ the encoded form that orders records ⇄ a value in a document (compat §2.4).
//!
//! | table's key type        | encoded form                                                        |
//! |-------------------------|---------------------------------------------------------------------|
//! | `ID`, `String`          | the UTF-8 text itself                                               |
//! | `Int`, `Long`, `BigInt` | 8 bytes, big-endian, sign bit flipped                               |
//! | anything else, or none  | a tag and a body: `1` bool, `2` number (f64, order-preserving), `3` text |
//!
//! Each form orders bytewise as its values do. The empty key is no record: it stands for the table's own topic.

use crate::document::{Reader, Token, Writer};
use crate::limits::KEY_BYTES_MAX;
use crate::schema::{Kind, TableDef};

/// How one table encodes its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCodec {
    Text,
    Integer,
    Auto,
}

/// Why a text is no key of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    Empty,
    TooLong,
    /// The table's keys are integers.
    NotAnInteger,
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyError::Empty => f.write_str("the key is empty"),
            KeyError::TooLong => write!(f, "the key is longer than {KEY_BYTES_MAX} bytes"),
            KeyError::NotAnInteger => f.write_str("the key must be an integer"),
        }
    }
}

const TAG_BOOL: u8 = 1;
const TAG_NUMBER: u8 = 2;
const TAG_TEXT: u8 = 3;

impl KeyCodec {
    /// Where texts begin among auto-cast keys: behind all numbers.
    pub const FIRST_TEXT: &'static [u8] = &[TAG_TEXT];

    pub fn of(table: &TableDef) -> KeyCodec {
        match table.primary_key.map(|index| &table.attributes[index].kind) {
            Some(Kind::Id | Kind::String) => KeyCodec::Text,
            Some(Kind::Int | Kind::Long | Kind::BigInt) => KeyCodec::Integer,
            _ => KeyCodec::Auto,
        }
    }

    /// Appends the encoded form of a key written as text.
    pub fn encode_text(self, text: &str, out: &mut Vec<u8>) -> Result<(), KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() >= KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        match self {
            KeyCodec::Text => out.extend_from_slice(text.as_bytes()),
            KeyCodec::Integer => encode_integer(text.parse().map_err(|_| KeyError::NotAnInteger)?, out),
            KeyCodec::Auto => match text {
                "true" | "false" => out.extend_from_slice(&[TAG_BOOL, (text == "true") as u8]),
                _ => match auto_number(text) {
                    Some(number) => encode_number(number, out),
                    None => {
                        out.push(TAG_TEXT);
                        out.extend_from_slice(text.as_bytes());
                    }
                },
            },
        }
        Ok(())
    }

    /// The key as text, for topics and URLs. `scratch` holds it where the encoded form is not text already.
    pub fn text<'a>(self, key: &'a [u8], scratch: &'a mut String) -> &'a str {
        scratch.clear();
        match (self, key.first()) {
            (_, None) => "",
            (KeyCodec::Text, _) => std::str::from_utf8(key).unwrap_or_default(),
            (KeyCodec::Integer, _) => {
                use std::fmt::Write;
                let _ = write!(scratch, "{}", decode_integer(key));
                scratch
            }
            (KeyCodec::Auto, Some(&TAG_BOOL)) => match key.get(1) {
                Some(1) => "true",
                _ => "false",
            },
            (KeyCodec::Auto, Some(&TAG_NUMBER)) => {
                use std::fmt::Write;
                let _ = write!(scratch, "{}", decode_number(&key[1..]));
                scratch
            }
            (KeyCodec::Auto, Some(_)) => std::str::from_utf8(&key[1..]).unwrap_or_default(),
        }
    }

    /// Appends the key as a value of a document.
    pub fn write_value(self, key: &[u8], out: &mut Vec<u8>) {
        let mut scratch = String::new();
        match (self, key.first()) {
            (KeyCodec::Integer, Some(_)) => out.write_int(decode_integer(key)),
            (KeyCodec::Auto, Some(&TAG_BOOL)) => out.write_bool(key.get(1) == Some(&1)),
            (KeyCodec::Auto, Some(&TAG_NUMBER)) => {
                let number = decode_number(&key[1..]);
                if number.fract() == 0.0 { out.write_int(number as i64) } else { out.write_float(number) }
            }
            _ => out.write_str(self.text(key, &mut scratch)),
        }
    }

    /// Appends the encoded form of a key given as a value of a document; `None` if it can be no key of this table.
    pub fn encode_value(self, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let token = Reader::new(value).next()?;
        let text = match token {
            Token::Str(text) => return self.encode_text(text, out).ok(),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        if self == KeyCodec::Text { None } else { self.encode_text(&text, out).ok() }
    }
}

/// Encodes an integer key.
pub fn encode_integer(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&((number as u64) ^ (1 << 63)).to_be_bytes());
}

/// The integer of an encoded integer key.
pub fn decode_integer(key: &[u8]) -> i64 {
    let bytes: [u8; 8] = key.try_into().unwrap_or([0; 8]);
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

/// A number that JavaScript would print exactly as `text`; other texts stay texts.
fn auto_number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number.abs() <= 9_007_199_254_740_992.0 && number.to_string() == text).then_some(number)
}

fn encode_number(number: f64, out: &mut Vec<u8>) {
    let bits = number.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | (1 << 63) };
    out.push(TAG_NUMBER);
    out.extend_from_slice(&ordered.to_be_bytes());
}

fn decode_number(body: &[u8]) -> f64 {
    let ordered = u64::from_be_bytes(body.try_into().unwrap_or([0; 8]));
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(codec: KeyCodec, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        codec.encode_text(text, &mut out).unwrap();
        out
    }

    #[test]
    fn text_survives_and_order_is_by_value() {
        let cases: [(KeyCodec, &[&str]); 3] = [
            (KeyCodec::Text, &["10", "9", "a", "a/b", "ä"]),
            (KeyCodec::Integer, &["-9223372036854775808", "-10", "-9", "0", "9", "10", "9223372036854775807"]),
            (KeyCodec::Auto, &["false", "true", "-2.5", "-2", "0", "9", "10", "010", "abc"]),
        ];
        for (codec, texts) in cases {
            let keys: Vec<_> = texts.iter().map(|text| encoded(codec, text)).collect();
            assert!(keys.is_sorted(), "{codec:?}");
            for (key, text) in keys.iter().zip(texts) {
                assert_eq!(codec.text(key, &mut String::new()), *text);
                let mut value = Vec::new();
                codec.write_value(key, &mut value);
                let mut again = Vec::new();
                codec.encode_value(&value, &mut again).unwrap();
                assert_eq!(&again, key, "{codec:?} {text}");
            }
        }
    }

    #[test]
    fn wrong_keys_are_refused() {
        let long = "x".repeat(KEY_BYTES_MAX);
        let cases = [
            (KeyCodec::Text, "", KeyError::Empty),
            (KeyCodec::Text, long.as_str(), KeyError::TooLong),
            (KeyCodec::Integer, "1.5", KeyError::NotAnInteger),
            (KeyCodec::Integer, "9223372036854775808", KeyError::NotAnInteger),
            (KeyCodec::Integer, "abc", KeyError::NotAnInteger),
        ];
        for (codec, text, error) in cases {
            assert_eq!(codec.encode_text(text, &mut Vec::new()), Err(error));
        }
    }
}
