//! Writes responses. Every one passes through [`Exchange`], which knows what the request's head implies for all answers
//! to it: version, connection, origin, and whether a body is wanted.

use super::coding::{CODED_BYTES_MIN, Coding};
use super::files::StaticFile;
use super::representation::Representation;
use crate::protocol::Context;
use crate::protocol::format;
use shards::document::Writer;

/// What the answer to a request depends on, whatever the answer is.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub minor: u8,
    pub keep_alive: bool,
    /// HEAD: no body is sent.
    pub head_only: bool,
    /// An origin that is allowed to read the answer.
    pub origin: Option<String>,
    /// Whether other origins are answered differently.
    pub varies_by_origin: bool,
    /// How the client would have content encoded.
    pub coding: Option<Coding>,
    /// When the request was taken, on the clock of [`Context::ticks_us`].
    pub since_us: u64,
}

/// A body and what to say of it.
pub struct Body<'a> {
    pub content_type: &'a str,
    pub bytes: &'a [u8],
    /// The entity tag of these bytes as they are.
    pub etag: Option<&'a str>,
}

impl<'a> Body<'a> {
    pub fn new(content_type: &'a str, bytes: &'a [u8]) -> Body<'a> {
        Body { content_type, bytes, etag: None }
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

const DATE_BYTES: usize = "Sat, 21 Nov 2026 22:53:36 GMT".len();

/// What the Date field says: formatted once a second, and sent in every response.
#[derive(Default)]
pub struct DateText {
    /// Since 1970.
    second: u64,
    text: Option<[u8; DATE_BYTES]>,
}

impl DateText {
    fn at(&mut self, now_us: u64) -> [u8; DATE_BYTES] {
        let second = now_us / 1_000_000;
        if self.second != second {
            (self.second, self.text) = (second, None);
        }
        *self.text.get_or_insert_with(|| date(now_us))
    }
}

/// `Sat, 21 Nov 2026 22:53:36 GMT` (RFC 9110 §5.6.7).
fn date(now_us: u64) -> [u8; DATE_BYTES] {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut iso = String::new();
    shards::date::write_iso(shards::document::Date::from_micros(now_us), &mut iso);
    let day = DAYS[(now_us / 86_400_000_000 % 7) as usize];
    let month = iso[5..7].parse::<usize>().unwrap_or(1);
    let text = format!("{day}, {} {} {} {} GMT", &iso[8..10], MONTHS[month - 1], &iso[..4], &iso[11..19]);
    text.as_bytes().try_into().expect("each part has its length")
}

/// What a response says of the time.
struct Now {
    date: [u8; DATE_BYTES],
    ticks_us: u64,
}

impl Now {
    fn of(context: &mut Context<'_>) -> Now {
        Now { date: context.scratch.date.at(context.shard.now_us()), ticks_us: context.ticks_us() }
    }
}

pub fn write_field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    // A value of ours never has line breaks; one that echoes a client's is cleaned here once for all.
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if value.as_bytes().iter().any(breaks) {
        out.extend(value.bytes().filter(|byte| !breaks(byte)));
    } else {
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The field that says how long the answer took, in milliseconds with three decimals.
fn write_milliseconds(took_us: u64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(b"Server-Timing: db;dur=");
    out.extend_from_slice(buffer.format(took_us / 1000).as_bytes());
    let decimals = &buffer.format(1000 + took_us % 1000)[1..];
    out.push(b'.');
    out.extend_from_slice(decimals.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Exchange {
    /// An answer to a request whose head could not be read.
    pub fn broken() -> Exchange {
        Exchange {
            minor: 1,
            keep_alive: false,
            head_only: false,
            origin: None,
            varies_by_origin: false,
            coding: None,
            since_us: 0,
        }
    }

    /// Appends the status line and the fields that every response has.
    fn write_head(&self, now: &Now, status: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(status).as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&now.date);
        out.extend_from_slice(b"\r\n");
        if !self.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if self.minor == 0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        if let Some(origin) = &self.origin {
            write_field("Access-Control-Allow-Origin", origin, out);
            out.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\n");
            out.extend_from_slice(b"Access-Control-Expose-Headers: Durability, ETag, Location, Position\r\n");
        }
        if self.since_us > 0 {
            write_milliseconds(now.ticks_us.saturating_sub(self.since_us), out);
        }
        out.extend_from_slice(if self.varies_by_origin {
            b"Vary: Accept, Accept-Encoding, Origin\r\n"
        } else {
            b"Vary: Accept, Accept-Encoding\r\n"
        });
    }

    /// Writes a whole response. `fields` appends further fields.
    pub fn respond(
        &self,
        context: &mut Context<'_>,
        status: u16,
        fields: impl FnOnce(&mut Vec<u8>),
        body: Option<Body<'_>>,
    ) {
        let now = Now::of(context);
        let is_coded = |body: &Body<'_>| body.bytes.len() >= CODED_BYTES_MIN && Coding::is_for(body.content_type);
        let coding = self.coding.filter(|_| body.as_ref().is_some_and(is_coded));
        let coded = coding.zip(body.as_ref()).map(|(coding, body)| coding.encode(body.bytes));
        let bytes = coded.as_deref().or(body.as_ref().map(|body| body.bytes)).unwrap_or_default();
        context.write(|out| {
            self.write_head(&now, status, out);
            fields(out);
            if let Some(body) = &body {
                write_field("Content-Type", body.content_type, out);
                match (body.etag, coding) {
                    (Some(etag), Some(coding)) => write_field("ETag", &coding.tag(etag), out),
                    (Some(etag), None) => write_field("ETag", etag, out),
                    (None, _) => {}
                }
            }
            if let Some(coding) = coding {
                write_field("Content-Encoding", coding.name(), out);
            }
            // RFC 9110 §8.6: none in 1xx, 204; in 304 it would be the full answer's.
            if !matches!(status, 204 | 304) {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"\r\n");
            if !self.head_only {
                out.extend_from_slice(bytes);
            }
        });
    }

    /// Answers with a static file, whose bytes are not copied.
    pub fn respond_shared(&self, context: &mut Context<'_>, file: &StaticFile) {
        let now = Now::of(context);
        let coded = file.coded.iter().find(|(coding, _)| Some(*coding) == self.coding);
        let body = coded.map_or(&file.body, |(_, body)| body);
        context.write(|out| {
            self.write_head(&now, 200, out);
            match coded {
                Some((coding, _)) => {
                    write_field("ETag", &coding.tag(&file.etag), out);
                    write_field("Content-Encoding", coding.name(), out);
                }
                None => write_field("ETag", &file.etag, out),
            }
            write_field("Content-Type", &file.content_type, out);
            write_field("Content-Length", itoa::Buffer::new().format(body.len()), out);
            out.extend_from_slice(b"\r\n");
        });
        if !self.head_only {
            context.shard.outboxes.write_shared(context.connection, body.clone());
        }
    }

    /// Writes a response whose body follows in pieces: chunked, or for HTTP/1.0 until the connection closes.
    pub fn respond_in_pieces(&self, context: &mut Context<'_>, content_type: &str, fields: &[(&str, &str)]) {
        let now = Now::of(context);
        context.write(|out| {
            self.write_head(&now, 200, out);
            write_field("Content-Type", content_type, out);
            for (name, value) in fields {
                write_field(name, value, out);
            }
            if self.minor == 1 {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            out.extend_from_slice(b"\r\n");
        });
    }

    /// The head of `101 Switching Protocols`.
    pub fn switch_protocols(&self, context: &mut Context<'_>, accept: &str, subprotocol: Option<&str>) {
        context.write(|out| {
            out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
            write_field("Sec-WebSocket-Accept", accept, out);
            if let Some(subprotocol) = subprotocol {
                write_field("Sec-WebSocket-Protocol", subprotocol, out);
            }
            out.extend_from_slice(b"\r\n");
        });
    }

    /// Answers with a document.
    pub fn document(
        &self,
        context: &mut Context<'_>,
        status: u16,
        representation: Representation,
        document: &[u8],
        etag: Option<&str>,
        fields: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut bytes = Vec::with_capacity(2 * document.len());
        representation.write(document, &mut bytes);
        let body = Body { content_type: representation.media_type(), bytes: &bytes, etag };
        let fields = |out: &mut Vec<u8>| {
            representation.fields().iter().for_each(|(name, value)| write_field(name, value, out));
            fields(out);
        };
        self.respond(context, status, fields, Some(body));
    }

    /// Answers with a problem document (RFC 9457; compat §6.5).
    pub fn problem(&self, context: &mut Context<'_>, status: u16, code: &str, detail: &str) {
        self.problem_with(context, status, code, detail, (0, &[]), |_| {});
    }

    /// The same with further members, and fields of the head.
    pub fn problem_with(
        &self,
        context: &mut Context<'_>,
        status: u16,
        code: &str,
        detail: &str,
        (count, members): (u32, &[u8]),
        fields: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut document = Vec::new();
        document.write_map(5 + count);
        for (name, value) in [("type", "about:blank"), ("title", reason_phrase(status))] {
            document.write_str(name);
            document.write_str(value);
        }
        document.write_str("status");
        document.write_uint(u64::from(status));
        for (name, value) in [("code", code), ("detail", detail)] {
            document.write_str(name);
            document.write_str(value);
        }
        document.extend_from_slice(members);
        let mut json = Vec::new();
        format::write_json(&document, &mut json);
        self.respond(context, status, fields, Some(Body::new("application/problem+json", &json)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_the_clock() {
        let mut text = DateText::default();
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_795_301_616_000_000, "Sat, 21 Nov 2026 22:53:36 GMT"),
            (1_795_301_616_999_999, "Sat, 21 Nov 2026 22:53:36 GMT"),
            (1_795_301_617_000_000, "Sat, 21 Nov 2026 22:53:37 GMT"),
            // The wall clock may be set back.
            (951_782_400_000_000, "Tue, 29 Feb 2000 00:00:00 GMT"),
        ];
        for (now_us, expected) in cases {
            assert_eq!(text.at(now_us), expected.as_bytes());
        }
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        for (took_us, expected) in [(0, "0.000"), (7, "0.007"), (1_234, "1.234"), (60_000_050, "60000.050")] {
            let mut out = Vec::new();
            write_milliseconds(took_us, &mut out);
            assert_eq!(out, format!("Server-Timing: db;dur={expected}\r\n").as_bytes());
        }
    }
}
