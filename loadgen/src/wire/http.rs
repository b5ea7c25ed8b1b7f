//! HTTP/1.1: requests, and the answers to them in their order.

use super::{Event, Message};
use bytes::{Buf, BytesMut};

const HEADERS_MAX: usize = 48;

/// The head of an answer.
pub struct Head {
    pub status: u16,
    /// Bytes that it takes.
    pub length: usize,
    pub body: Body,
    /// `Sec-WebSocket-Accept` and `Sec-WebSocket-Protocol`
    pub accept: Option<String>,
    pub subprotocol: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Bytes(usize),
    Chunked,
    /// Until the connection ends.
    Rest,
}

/// The head at the start of what has come, if it is whole.
pub fn head(incoming: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(incoming).map_err(|error| format!("HTTP: {error}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let body = match (field("content-length"), field("transfer-encoding")) {
        _ if matches!(status, 100..=199 | 204 | 304) => Body::Bytes(0),
        (_, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Body::Chunked,
        (Some(length), _) => Body::Bytes(length.parse().map_err(|_| format!("HTTP: Content-Length {length:?}"))?),
        _ => Body::Rest,
    };
    let owned = |name: &str| field(name).map(str::to_owned);
    let (accept, subprotocol) = (owned("sec-websocket-accept"), owned("sec-websocket-protocol"));
    Ok(Some(Head { status, length, body, accept, subprotocol }))
}

/// Takes a chunk out of what has come, if it is whole: its length; 0 is the last one.
pub fn chunk(incoming: &mut BytesMut, body: &mut BytesMut) -> Result<Option<usize>, String> {
    let parsed = httparse::parse_chunk_size(incoming).map_err(|_| "HTTP: a chunk's size is not valid".to_owned())?;
    let httparse::Status::Complete((at, size)) = parsed else { return Ok(None) };
    let size = usize::try_from(size).map_err(|_| "HTTP: a chunk is too large".to_owned())?;
    if incoming.len() < at + size + 2 {
        return Ok(None);
    }
    body.extend_from_slice(&incoming[at..at + size]);
    incoming.advance(at + size + 2);
    Ok(Some(size))
}

/// Appends a request: the target is method and path.
pub fn request(message: &Message<'_>, out: &mut Vec<u8>) {
    let Message { target, host, payload, .. } = message;
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host.as_bytes());
    if !payload.is_empty() {
        out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(payload.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(payload);
}

/// One that makes requests, several at once if it likes.
#[derive(Default)]
pub struct Rest {
    /// What is left of the answer that is being read.
    left: Option<Body>,
    /// Of a body in chunks, what has come.
    chunks: BytesMut,
}

impl Rest {
    pub fn decode(&mut self, incoming: &mut BytesMut) -> Result<Option<Event>, String> {
        loop {
            match self.left {
                None => {
                    let Some(head) = head(incoming)? else { return Ok(None) };
                    if !(200..300).contains(&head.status) {
                        let text = String::from_utf8_lossy(&incoming[head.length..]);
                        return Err(format!("HTTP status {}: {}", head.status, text.trim()));
                    }
                    incoming.advance(head.length);
                    self.left = Some(head.body);
                }
                Some(Body::Bytes(length)) => {
                    if incoming.len() < length {
                        return Ok(None);
                    }
                    self.left = None;
                    return Ok(Some(Event::Answer(incoming.split_to(length).freeze())));
                }
                Some(Body::Chunked) => {
                    let Some(length) = chunk(incoming, &mut self.chunks)? else { return Ok(None) };
                    if length == 0 {
                        self.left = None;
                        return Ok(Some(Event::Answer(self.chunks.split().freeze())));
                    }
                }
                Some(Body::Rest) => return Err("HTTP: an answer without length on a connection that stays".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_pieces() {
        let answers = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let (mut rest, mut incoming, mut bodies) = (Rest::default(), BytesMut::new(), Vec::new());
        for byte in answers {
            incoming.extend_from_slice(&[*byte]);
            if let Some(Event::Answer(body)) = rest.decode(&mut incoming).expect("valid") {
                bodies.push(body);
            }
        }
        assert_eq!((&bodies[..], incoming.len()), (&[&b""[..], b"abc", b"abc"].map(Into::into)[..], 0));
        incoming.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert!(rest.decode(&mut incoming).expect_err("refused").contains("404"));
    }
}
