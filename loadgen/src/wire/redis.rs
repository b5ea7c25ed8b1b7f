//! As much of RESP2 as publish and subscribe take.

use super::Event;
use bytes::{Buf, Bytes, BytesMut};

const VALUES_MAX: usize = 8;
const BULK_BYTES_MAX: usize = 16 << 20;

/// Appends a command.
pub fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.push(b'*');
    out.extend_from_slice(number.format(words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(b"\r\n$");
        out.extend_from_slice(number.format(word.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

/// A line without its end, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let end = at + memchr::memchr(b'\r', bytes.get(at..)?)?;
    (bytes.len() > end + 1).then(|| (&bytes[at..end], end + 2))
}

fn number(line: &[u8]) -> Result<usize, String> {
    let text = std::str::from_utf8(line.get(1..).unwrap_or_default()).unwrap_or_default();
    text.parse().ok().filter(|number| *number <= BULK_BYTES_MAX).ok_or_else(|| format!("RESP: {text:?} is no length"))
}

pub fn decode(incoming: &mut BytesMut) -> Result<Option<Event>, String> {
    let Some((first, mut at)) = line(incoming, 0) else { return Ok(None) };
    match first.first() {
        Some(b':') => {
            incoming.advance(at);
            return Ok(Some(Event::Acknowledged { id: 0 }));
        }
        Some(b'*') => {}
        _ => return Err(format!("RESP: {}", String::from_utf8_lossy(first))),
    }
    let count = number(first)?;
    if count == 0 || count > VALUES_MAX {
        return Err(format!("RESP: an array of {count}"));
    }
    let (mut kind, mut last): (&[u8], (usize, usize)) = (b"", (0, 0));
    for index in 0..count {
        let Some((head, next)) = line(incoming, at) else { return Ok(None) };
        at = next;
        if head.first() == Some(&b'$') {
            let length = number(head)?;
            if incoming.len() < at + length + 2 {
                return Ok(None);
            }
            if index == 0 {
                kind = &incoming[at..at + length];
            }
            last = (at, length);
            at += length + 2;
        }
    }
    let event = match kind {
        b"subscribe" => Event::Subscribed,
        b"message" => {
            let payload = Bytes::copy_from_slice(&incoming[last.0..last.0 + last.1]);
            Event::Message { payload, is_state: false }
        }
        other => return Err(format!("RESP: {}", String::from_utf8_lossy(other))),
    };
    incoming.advance(at);
    Ok(Some(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_pieces() {
        let mut out = Vec::new();
        command(&[b"PUBLISH", b"a", b"xyz"], &mut out);
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$3\r\nxyz\r\n");
        let answers =
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\nxyz\r\n:5\r\n";
        let (mut incoming, mut seen) = (BytesMut::new(), Vec::new());
        for byte in answers {
            incoming.extend_from_slice(&[*byte]);
            seen.extend(decode(&mut incoming).expect("valid"));
        }
        let [Event::Subscribed, Event::Message { payload, .. }, Event::Acknowledged { .. }] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(&payload[..], b"xyz");
        assert!(decode(&mut BytesMut::from(&b"-ERR no\r\n"[..])).is_err());
    }
}
