//! Scalar values as bytes that compare as the values do: for comparisons, sorting and indexes.
//!
//! | first byte | value  | then                                                                              |
//! |------------|--------|-----------------------------------------------------------------------------------|
//! | 0          | null   | nothing                                                                           |
//! | 1          | bool   | 0 or 1                                                                            |
//! | 2          | number | as f64, 8 bytes in order; what an integer has beyond that, 2 bytes (above 2^53)   |
//! | 3          | date   | seconds with the sign bit flipped, 8 bytes; nanoseconds, 4 bytes                  |
//! | 4          | text   | UTF-8, each 0 followed by 255; then 0, 0                                          |
//! | 5          | bytes  | the same                                                                          |
//!
//! No encoding is the beginning of another one, so that something may follow.

use crate::document::Token;

pub const NULL: u8 = 0;
const BOOL: u8 = 1;
const NUMBER: u8 = 2;
const DATE: u8 = 3;
pub const TEXT: u8 = 4;
const BYTES: u8 = 5;

/// Text and bytes are cut here in an index (what is found is compared again) and for sorting.
pub const CUT_BYTES: usize = 1024;

fn number(value: f64, beyond: i32, out: &mut Vec<u8>) {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits };
    out.push(NUMBER);
    out.extend_from_slice(&ordered.to_be_bytes());
    out.extend_from_slice(&((beyond + 0x8000) as u16).to_be_bytes());
}

fn integer(value: i128, out: &mut Vec<u8>) {
    let near = value as f64;
    number(near, (value - near as i128) as i32, out);
}

fn escaped(first: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
}

/// Appends a scalar; false for an array or a map, which have no place in the order.
pub fn encode(token: Token<'_>, out: &mut Vec<u8>) -> bool {
    match token {
        Token::Null => out.push(NULL),
        Token::Bool(value) => out.extend_from_slice(&[BOOL, value.into()]),
        Token::Int(value) => integer(value.into(), out),
        Token::Uint(value) => integer(value.into(), out),
        Token::Float(value) => number(value, 0, out),
        Token::Date(date) => {
            out.push(DATE);
            out.extend_from_slice(&(date.seconds as u64 ^ 1 << 63).to_be_bytes());
            out.extend_from_slice(&date.nanos.to_be_bytes());
        }
        Token::Str(text) => {
            escaped(TEXT, text.as_bytes(), out);
            out.extend_from_slice(&[0, 0]);
        }
        Token::Bytes(bytes) => {
            escaped(BYTES, bytes, out);
            out.extend_from_slice(&[0, 0]);
        }
        Token::Array(_) | Token::Map(_) => return false,
    }
    true
}

/// The same, cut to [`CUT_BYTES`]. Cut values keep their order, but several may become one.
pub fn encode_cut(token: Token<'_>, out: &mut Vec<u8>) -> bool {
    match token {
        Token::Str(text) if text.len() > CUT_BYTES => {
            escaped(TEXT, &text.as_bytes()[..CUT_BYTES], out);
            out.extend_from_slice(&[0, 0]);
            true
        }
        Token::Bytes(bytes) if bytes.len() > CUT_BYTES => encode(Token::Bytes(&bytes[..CUT_BYTES]), out),
        token => encode(token, out),
    }
}

/// An encoded value as it stands in an index.
pub fn cut(encoded: &[u8]) -> Vec<u8> {
    match decode(encoded) {
        Some(Value::Text(text)) if text.len() > CUT_BYTES => {
            let mut out = Vec::new();
            escaped(TEXT, &text[..CUT_BYTES], &mut out);
            out.extend_from_slice(&[0, 0]);
            out
        }
        Some(Value::Bytes(bytes)) if bytes.len() > CUT_BYTES => {
            let mut out = Vec::new();
            encode(Token::Bytes(&bytes[..CUT_BYTES]), &mut out);
            out
        }
        _ => encoded.into(),
    }
}

/// What an encoded value was, as far as keys and indexes need it.
#[derive(Debug, PartialEq)]
pub enum Value {
    /// Rounded down.
    Number(i128),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Other,
}

/// `None`: these bytes are no encoded value.
pub fn decode(encoded: &[u8]) -> Option<Value> {
    let unescaped = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            out.push(*byte);
            at += 1 + usize::from(*byte == 0);
        }
        out
    };
    let body = || encoded.get(1..encoded.len().checked_sub(2)?);
    Some(match *encoded.first()? {
        NUMBER => {
            let ordered = u64::from_be_bytes(encoded.get(1..9)?.try_into().ok()?);
            let beyond = i128::from(u16::from_be_bytes(encoded.get(9..11)?.try_into().ok()?)) - 0x8000;
            let bits = if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered };
            let near = f64::from_bits(bits);
            Value::Number(near.floor() as i128 + beyond)
        }
        TEXT => Value::Text(unescaped(body()?)),
        BYTES => Value::Bytes(unescaped(body()?)),
        _ => Value::Other,
    })
}

/// Where the first value of some bytes ends.
pub fn end_of_first(bytes: &[u8]) -> usize {
    let end = match bytes.first() {
        Some(&BOOL) => 2,
        Some(&NUMBER) => 11,
        Some(&DATE) => 13,
        Some(&TEXT | &BYTES) => {
            let mut at = 1;
            while let [first, second, ..] = bytes[at.min(bytes.len())..] {
                match (first, second) {
                    (0, 0) => return at + 2,
                    (0, _) => at += 2,
                    _ => at += 1,
                }
            }
            bytes.len()
        }
        _ => 1,
    };
    end.min(bytes.len())
}

/// Of a text (or bytes) that was encoded: what everything that begins with it begins with.
pub fn prefix(encoded: &[u8]) -> &[u8] {
    &encoded[..encoded.len().saturating_sub(2)]
}

/// Whether two encoded values are of one kind: only such are compared by less and greater.
pub fn is_same_kind(a: &[u8], b: &[u8]) -> bool {
    a.first() == b.first()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Date;

    fn bytes(token: Token<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(encode(token, &mut out));
        assert_eq!(end_of_first(&out), out.len());
        assert_eq!(end_of_first(&[&out[..], &[7, 0, 0]].concat()), out.len());
        out
    }

    #[test]
    fn bytes_order_as_values_do() {
        let dates = [(-5, 7), (-5, 8), (0, 0), (9, 1)].map(|(seconds, nanos)| Token::Date(Date { seconds, nanos }));
        let ordered = [
            &[Token::Null, Token::Bool(false), Token::Bool(true)][..],
            &[Token::Float(f64::NEG_INFINITY), Token::Int(i64::MIN), Token::Int(i64::MIN + 1), Token::Float(-1.5)],
            &[Token::Int(-1), Token::Int(0), Token::Float(1e-300), Token::Int(1), Token::Float(1.5), Token::Int(2)],
            &[Token::Int((1 << 53) - 1), Token::Int(1 << 53), Token::Int((1 << 53) + 1), Token::Int((1 << 53) + 2)],
            &[Token::Int(i64::MAX - 1), Token::Int(i64::MAX), Token::Float(9.3e18), Token::Uint(u64::MAX - 1)],
            &[Token::Uint(u64::MAX), Token::Float(1e30)],
            &dates,
            &[Token::Str(""), Token::Str("\0"), Token::Str("\0a"), Token::Str("\u{1}"), Token::Str("a")],
            &[Token::Str("a\0"), Token::Str("aa"), Token::Str("ä"), Token::Bytes(b""), Token::Bytes(b"x")],
        ]
        .concat();
        for (at, a) in ordered.iter().enumerate() {
            for (other, b) in ordered.iter().enumerate() {
                assert_eq!(bytes(*a).cmp(&bytes(*b)), at.cmp(&other), "{a:?} {b:?}");
            }
        }
        assert_eq!(bytes(Token::Int(3)), bytes(Token::Float(3.0)));
        assert_eq!(bytes(Token::Float(-0.0)), bytes(Token::Int(0)));
        assert_eq!(decode(&bytes(Token::Int(i64::MAX))), Some(Value::Number(i64::MAX.into())));
        assert_eq!(decode(&bytes(Token::Float(-1.5))), Some(Value::Number(-2)));
        assert_eq!(decode(&bytes(Token::Str("a\0b"))), Some(Value::Text(b"a\0b".to_vec())));
        assert!(bytes(Token::Str("abc")).starts_with(prefix(&bytes(Token::Str("ab")))));
    }
}
