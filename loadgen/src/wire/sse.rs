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
    /// Of the last event that had one, where the stream goes on there when it is opened again.
    last_id: Option<String>,
    is_durable: bool,
}

/// Takes the next event with everything in it, up to the empty line that ends it.
fn event(text: &mut BytesMut) -> Option<BytesMut> {
    let end = memmem::find(text, b"\n\n").map(|at| at + 2);
    let other = || memmem::find(text, b"\r\n\r\n").map(|at| at + 4);
    let end = end.or_else(other)?;
    Some(text.split_to(end))
}

/// What an event says of its place in the stream.
fn id(event: &[u8]) -> Option<&str> {
    let line = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"id:"))?;
    std::str::from_utf8(line).ok().map(str::trim)
}

impl Sse {
    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        let last_id = self.last_id.take().filter(|_| !opening.is_clean);
        let since = last_id.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        *self = Sse { is_durable: !opening.is_clean, last_id, ..Sse::default() };
        let Opening { host, path, .. } = opening;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{since}\r\n");
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
                    return Ok(Some(Event::Open { is_resumed: self.last_id.is_some(), receive_max: u16::MAX }));
                }
                Some(Body::Chunked) => &mut self.text,
                Some(_) => &mut *incoming,
            };
            if let Some(event) = event(text) {
                if self.is_durable
                    && let Some(id) = id(&event)
                {
                    self.last_id = Some(id.to_owned());
                }
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
    fn a_stream_goes_on_where_it_was() {
        let (mut sse, mut out) = (Sse::default(), Vec::new());
        let opening = Opening { host: "h", path: "/", name: "", is_clean: false, publishing: None };
        sse.open(&opening, &mut out);
        let mut incoming = BytesMut::from("HTTP/1.1 200 OK\r\n\r\nid: 1-7\ndata: a\n\n");
        let opens = |event| matches!(event, Some(Event::Open { is_resumed: false, .. }));
        assert!(
            opens(sse.decode(&mut incoming).expect("valid")) && sse.decode(&mut incoming).expect("valid").is_some()
        );
        out.clear();
        sse.open(&opening, &mut out);
        assert!(out.ends_with(b"\r\nLast-Event-ID: 1-7\r\n\r\n"));
        out.clear();
        sse.open(&Opening { is_clean: true, ..opening }, &mut out);
        assert!(out.ends_with(b"text/event-stream\r\n\r\n"));
    }

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
