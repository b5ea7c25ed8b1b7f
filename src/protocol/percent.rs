//! Percent-encoding (RFC 3986 §2.1).

use std::borrow::Cow;

/// `None`: a broken escape, or not UTF-8.
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digit = |offset: usize| (*bytes.get(at + offset)? as char).to_digit(16);
            decoded.push((digit(1)? * 16 + digit(2)?) as u8);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok().map(Cow::from)
}
