//! Reads requests out of the receive buffer: the head by httparse, everything around it strictly by RFC 9112. What two
//! readers could understand in two ways is refused and the connection closed, so that nothing can be smuggled past one
//! of them.

use shards::limits::TOPIC_BYTES_MAX;
use std::mem::MaybeUninit;

/// Bytes of a request head, and of the trailer of a chunked body.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of a request head.
pub const FIELDS_MAX: usize = 64;
/// Bytes of the request target: a longest key, percent-encoded, and a query.
const TARGET_BYTES_MAX: usize = 3 * TOPIC_BYTES_MAX + 1024;
/// Bytes of a chunk's size line.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Why a request cannot be read: the status of the answer, and what was wrong. The connection is closed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    pub status: u16,
    pub what: &'static str,
}

fn bad(what: &'static str) -> RequestError {
    RequestError { status: 400, what }
}

/// How the body is delimited (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

/// A whole request, borrowed from the receive buffer.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The path, still percent-encoded, always starting with `/`; or `*`.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// Minor version: 0 or 1.
    pub minor: u8,
    pub fields: Vec<httparse::Header<'a>>,
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The value of a field that is given once, as text; an unreadable one counts as absent.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let found = self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    }

    /// All members of a list field, over all its lines (RFC 9110 §5.3).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        let texts = lines.filter_map(|field| std::str::from_utf8(field.value).ok());
        texts.flat_map(|text| text.split(',')).map(str::trim).filter(|member| !member.is_empty())
    }

    /// Whether a list field has a member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.list(name).any(|own| own.eq_ignore_ascii_case(member))
    }

    /// Whether the connection may serve another request afterwards (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        if self.minor == 0 { self.lists("connection", "keep-alive") } else { !self.lists("connection", "close") }
    }
}

/// Where the reading of the next request stands; nothing is scanned twice however slowly bytes arrive.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes in which no end of the head was found.
    scanned: usize,
    /// Set once the head is there.
    framing: Option<Framing>,
    /// Body of the last request, if it came in chunks.
    chunks: Vec<u8>,
}

#[derive(Debug)]
struct Framing {
    head_bytes: usize,
    length: Length,
    /// Whether `100 Continue` is owed.
    expects_continue: bool,
    incoming: Incoming,
    /// Decoded chunks, and how far into the input they have been decoded.
    chunks: Vec<u8>,
    at: usize,
}

/// A body that is taken piece by piece (RFC 9112 §6).
#[derive(Debug)]
pub struct Incoming {
    next: Next,
    /// Bytes of the current chunk, or of a body without chunks, that are still to come.
    left: usize,
    /// Bytes of the trailer so far.
    trailer: usize,
}

/// What comes next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Bytes,
    ChunkSize,
    Chunk,
    ChunkEnd,
    Trailer,
    Nothing,
}

/// A part of a body, and how much of the input was taken for it. Nothing taken: more input is needed, or it is the end.
#[derive(Debug, Default)]
pub struct Piece<'a> {
    pub taken: usize,
    pub data: &'a [u8],
}

/// The outcome of [`Reader::read`].
#[derive(Debug)]
pub enum Progress<'a> {
    /// More bytes are needed. True: the client waits for `100 Continue`.
    More { send_continue: bool },
    /// A request, and how many bytes it took.
    Request(Request<'a>, usize),
    /// The head of a request whose body is many records, to be taken as it comes; and how many bytes the head took. True:
    /// the client waits for `100 Continue`.
    Streamed(Request<'a>, usize, Incoming, bool),
}

impl Reader {
    /// Whether some of a request has been seen.
    pub fn has_begun(&self) -> bool {
        self.scanned > 0 || self.framing.is_some()
    }

    /// Whether the head of a request is there, and its body is awaited.
    pub fn has_head(&self) -> bool {
        self.framing.is_some()
    }

    /// Reads the request at the start of `input`, which begins with the same bytes as at the last call.
    pub fn read<'a>(&'a mut self, input: &'a [u8], body_bytes_max: usize) -> Result<Progress<'a>, RequestError> {
        if self.framing.is_none() {
            let Some(head_bytes) = self.find_head(input)? else { return Ok(Progress::More { send_continue: false }) };
            let mut request = parse_head(&input[..head_bytes])?;
            if is_streamed(&request) {
                let framing = frame(&request, head_bytes, usize::MAX)?;
                self.scanned = 0;
                return Ok(Progress::Streamed(request, head_bytes, framing.incoming, framing.expects_continue));
            }
            let framing = frame(&request, head_bytes, body_bytes_max)?;
            // Mostly all of it is there, and the head is read once.
            if let Length::Bytes(count) = framing.length
                && let Some(body) = input[head_bytes..].get(..count)
            {
                self.scanned = 0;
                request.body = body;
                return Ok(Progress::Request(request, head_bytes + count));
            }
            self.framing = Some(framing);
        }
        let framing = self.framing.as_mut().expect("just set");
        let end = match framing.length {
            Length::Bytes(count) => Some(framing.head_bytes + count).filter(|end| input.len() >= *end),
            Length::Chunked => framing.chunked(input, body_bytes_max)?.then_some(framing.at),
        };
        let Some(end) = end else {
            let waiting = input.len() == framing.head_bytes;
            let send_continue = std::mem::take(&mut framing.expects_continue) && waiting;
            return Ok(Progress::More { send_continue });
        };
        self.scanned = 0;
        let framing = self.framing.take().expect("set above");
        let mut request = parse_head(&input[..framing.head_bytes])?;
        match framing.length {
            Length::Bytes(_) => request.body = &input[framing.head_bytes..end],
            Length::Chunked => {
                self.chunks = framing.chunks;
                request.body = &self.chunks;
            }
        }
        Ok(Progress::Request(request, end))
    }

    /// The length of the head, once its empty line is there. Bare line feeds are refused (RFC 9112 §2.2).
    fn find_head(&mut self, input: &[u8]) -> Result<Option<usize>, RequestError> {
        let from = self.scanned.saturating_sub(3);
        for (offset, byte) in input[from..].iter().enumerate().take(HEAD_BYTES_MAX + 1) {
            let at = from + offset;
            if *byte != b'\n' {
                continue;
            }
            if at == 0 || input[at - 1] != b'\r' {
                return Err(bad("a line that does not end with CR LF"));
            }
            if at >= 3 && input[at - 3..at] == *b"\r\n\r" {
                return if at < HEAD_BYTES_MAX { Ok(Some(at + 1)) } else { Err(too_large()) };
            }
        }
        self.scanned = input.len();
        if input.len() > HEAD_BYTES_MAX { Err(too_large()) } else { Ok(None) }
    }
}

fn too_large() -> RequestError {
    RequestError { status: 431, what: "the request head is larger than 8 KiB" }
}

fn parse_head(head: &[u8]) -> Result<Request<'_>, RequestError> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("an empty request line")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError { status: 431, what: "more than 64 fields" });
        }
        Err(httparse::Error::Version) => {
            return Err(RequestError { status: 505, what: "HTTP/1.0 and HTTP/1.1 are served" });
        }
        Err(httparse::Error::Token) => return Err(bad("the request line has an illegal character")),
        Err(_) => return Err(bad("the request head is not valid")),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("the request line is not complete"));
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(RequestError { status: 414, what: "the request target is too long" });
    }
    let fields = parsed.headers.to_vec();
    if fields.iter().any(|field| field.value.contains(&b'\r') || field.value.contains(&0)) {
        return Err(bad("a field value has an illegal character"));
    }
    let (path, query) = split_target(target)?;
    Ok(Request { method, path, query, minor, fields, body: &[] })
}

/// Origin form, absolute form and `*` (RFC 9112 §3.2).
fn split_target(target: &str) -> Result<(&str, &str), RequestError> {
    let origin_form = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = &target[7..];
            match rest.find(['/', '?']) {
                Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
                _ => "/",
            }
        }
        _ => target,
    };
    if origin_form != "*" && !origin_form.starts_with('/') {
        return Err(bad("the request target is neither a path nor a URL"));
    }
    if origin_form.contains('#') {
        return Err(bad("the request target has a fragment"));
    }
    Ok(origin_form.split_once('?').unwrap_or((origin_form, "")))
}

/// How long the body is, and whether the head is consistent about it.
fn frame(request: &Request<'_>, head_bytes: usize, body_bytes_max: usize) -> Result<Framing, RequestError> {
    let values = |name: &'static str| request.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let hosts = values("host").count();
    if hosts > 1 || (hosts == 0 && request.minor == 1) {
        return Err(bad("exactly one Host field is required")); // RFC 9112 §3.2
    }
    let encodings = values("transfer-encoding").count();
    let length = match (values("content-length").count(), encodings) {
        (0, 0) => Length::Bytes(0),
        (1, 0) => {
            let text = values("content-length").next().map_or(&b""[..], |field| field.value);
            let digits = !text.is_empty() && text.len() < 16 && text.iter().all(u8::is_ascii_digit);
            let parsed = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            Length::Bytes(parsed.ok_or(bad("Content-Length is not a number"))?)
        }
        (0, _) if request.minor == 0 => return Err(bad("Transfer-Encoding in HTTP/1.0")), // RFC 9112 §6.1
        (0, 1) => {
            let members: Vec<&str> = request.list("transfer-encoding").collect();
            match members.as_slice() {
                [only] if only.eq_ignore_ascii_case("chunked") => Length::Chunked,
                [.., last] if last.eq_ignore_ascii_case("chunked") => {
                    return Err(RequestError { status: 501, what: "no transfer coding but chunked is served" });
                }
                _ => return Err(bad("chunked must be the last transfer coding")), // RFC 9112 §6.3
            }
        }
        (0, _) => return Err(bad("more than one Transfer-Encoding field")),
        (_, 0) => return Err(bad("more than one Content-Length field")), // RFC 9112 §6.3
        _ => return Err(bad("both Content-Length and Transfer-Encoding")), // RFC 9112 §6.3
    };
    if matches!(length, Length::Bytes(count) if count > body_bytes_max) {
        return Err(RequestError { status: 413, what: "the body is larger than the server accepts" });
    }
    let expectation = request.field("expect");
    if expectation.is_some_and(|text| !text.eq_ignore_ascii_case("100-continue")) {
        return Err(RequestError { status: 417, what: "no expectation but 100-continue is met" });
    }
    let expects_continue = expectation.is_some() && request.minor == 1 && length != Length::Bytes(0);
    let (next, left) = match length {
        Length::Bytes(0) => (Next::Nothing, 0),
        Length::Bytes(count) => (Next::Bytes, count),
        Length::Chunked => (Next::ChunkSize, 0),
    };
    let incoming = Incoming { next, left, trailer: 0 };
    Ok(Framing { head_bytes, length, expects_continue, incoming, chunks: Vec::new(), at: head_bytes })
}

/// Whether the body is a sequence of records, however long.
fn is_streamed(request: &Request<'_>) -> bool {
    matches!(request.method, "PUT" | "POST")
        && request.field("content-type").and_then(Sequence::of_media_type).is_some()
}

/// A format of many documents behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// A JSON text on each line.
    Ndjson,
    /// RFC 8742
    Cbor,
}

impl Sequence {
    pub fn of_media_type(media_type: &str) -> Option<Sequence> {
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Sequence::Ndjson),
            "application/cbor-seq" => Some(Sequence::Cbor),
            _ => None,
        }
    }
}

impl Framing {
    /// Decodes the chunks that are there. True: the last one was among them.
    fn chunked(&mut self, input: &[u8], body_bytes_max: usize) -> Result<bool, RequestError> {
        while !self.incoming.is_at_end() {
            let piece = self.incoming.next(&input[self.at..])?;
            // Sizes and extensions may not be much longer than what they wrap.
            let wrapping = self.at - self.head_bytes > 8 * body_bytes_max + (64 << 10);
            if wrapping || self.chunks.len() + piece.data.len() + self.incoming.left > body_bytes_max {
                return Err(RequestError { status: 413, what: "the body is larger than the server accepts" });
            }
            if piece.taken == 0 {
                return Ok(false);
            }
            self.chunks.extend_from_slice(piece.data);
            self.at += piece.taken;
        }
        Ok(true)
    }
}

impl Incoming {
    pub fn is_at_end(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Takes the next part of the body from the start of `input` (RFC 9112 §7.1).
    ///
    /// # Errors
    /// The chunks are not valid.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, RequestError> {
        match self.next {
            Next::Nothing => {}
            Next::Bytes | Next::Chunk => {
                let data = &input[..input.len().min(self.left)];
                self.left -= data.len();
                if self.left == 0 {
                    self.next = if self.next == Next::Chunk { Next::ChunkEnd } else { Next::Nothing };
                }
                return Ok(Piece { taken: data.len(), data });
            }
            Next::ChunkSize => {
                let Some(line) = line(input, CHUNK_LINE_BYTES_MAX)? else { return Ok(Piece::default()) };
                self.left = chunk_size(&input[..line])?;
                self.next = if self.left > 0 { Next::Chunk } else { Next::Trailer };
                return Ok(Piece { taken: line + 2, data: &[] });
            }
            Next::ChunkEnd => {
                let end = input.get(..2).unwrap_or(input);
                if !b"\r\n".starts_with(end) {
                    return Err(bad("a chunk does not end where its size says"));
                }
                if end.len() == 2 {
                    self.next = Next::ChunkSize;
                    return Ok(Piece { taken: 2, data: &[] });
                }
            }
            // Its fields are not used.
            Next::Trailer => {
                let Some(length) = line(input, HEAD_BYTES_MAX)? else { return Ok(Piece::default()) };
                self.trailer += length + 2;
                if self.trailer > HEAD_BYTES_MAX {
                    return Err(too_large());
                }
                if length == 0 {
                    self.next = Next::Nothing;
                } else if !input[..length].contains(&b':') {
                    return Err(bad("the trailer is not valid"));
                }
                return Ok(Piece { taken: length + 2, data: &[] });
            }
        }
        Ok(Piece::default())
    }
}

/// The length of the line at the start of `input`, without its CR LF.
fn line(input: &[u8], bytes_max: usize) -> Result<Option<usize>, RequestError> {
    match input.iter().take(bytes_max + 2).position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && input[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(bad("a line that does not end with CR LF")),
        None if input.len() > bytes_max + 1 => Err(bad("a line of a chunked body is too long")), // CR may be there
        None => Ok(None),
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, RequestError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let extension = line[digits..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    let clean = !line[digits..].contains(&b'\r') && matches!(extension, None | Some(b';'));
    match usize::from_str_radix(text, 16) {
        Ok(size) if digits <= 8 && clean => Ok(size),
        _ => Err(bad("the size of a chunk is not valid")),
    }
}

#[cfg(test)]
mod tests;
