//! Server-sent events: a GET whose answer does not end (WHATWG HTML §9.2).

use super::http::{self, Body};
use super::{Event, Opening};
use bytes::{Buf, BytesMut};
use memchr::memmem;

#[derive(Default)]
pub struct Sse {
    body: Option<Body>,
    /// Of chunks, what they carry.
    text: BytesMut,
}

/// Takes the next event with everything in it, up to the empty line that ends it.
fn event(text: &mut BytesMut) -> Option<BytesMut> {
    let end = memmem::find(text, b"\n\n").map(|at| at + 2);
    let other = || memmem::find(text, b"\r\n\r\n").map(|at| at + 4);
    let end = end.or_else(other)?;
    Some(text.split_to(end))
}

impl Sse {
    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        *self = Sse::default();
        let Opening { host, path, .. } = opening;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
    }

    pub fn decode(&mut self, incoming: &mut BytesMut) -> Result<Option<Event>, String> {
        loop {
            let text = match self.body {
                None => {
                    let Some(head) = http::head(incoming)? else { return Ok(None) };
                    if head.status != 200 {
                        return Err(format!("HTTP status {} instead of an event stream", head.status));
                    }
                    incoming.advance(head.length);
                    self.body = Some(head.body);
                    return Ok(Some(Event::Open { is_resumed: false }));
                }
                Some(Body::Chunked) => &mut self.text,
                Some(_) => &mut *incoming,
            };
            if let Some(event) = event(text) {
                if memmem::find(&event, b"data:").is_none() {
                    continue; // a comment
                }
                return Ok(Some(Event::Message { payload: event.freeze(), is_state: false }));
            }
            match self.body {
                Some(Body::Chunked) => match http::chunk(incoming, &mut self.text)? {
                    None => return Ok(None),
                    Some(0) => return Err("the event stream has ended".into()),
                    Some(_) => {}
                },
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_chunks_and_without() {
        let events = "id: 1\ndata: a\n\n: still here\n\ndata: b\r\n\r\n";
        let chunked: String = events.chars().map(|character| format!("1\r\n{character}\r\n")).collect();
        for (coding, body) in [("Transfer-Encoding: chunked\r\n", chunked.as_str()), ("", events)] {
            let mut incoming = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{coding}\r\n{body}").as_str());
            let (mut sse, mut seen) = (Sse::default(), Vec::new());
            while let Some(event) = sse.decode(&mut incoming).expect("valid") {
                seen.push(event);
            }
            assert!(
                matches!(&seen[..], [Event::Open { .. }, Event::Message { .. }, Event::Message { .. }]),
                "{seen:?}"
            );
        }
    }
}
