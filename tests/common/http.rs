//! A small blocking HTTP/1.1 client and raw TCP, each with a deadline: to see exactly what the server sends, and to
//! send what no HTTP library would.

use super::codec::Format;
use rustls::{ClientConfig, ClientConnection};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a whole exchange may take unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// In the order they arrived, names as they were spelt.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of the name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body decoded by its own Content-Type (JSON without one).
    #[track_caller]
    pub fn value(&self) -> Value {
        let format = self.header("content-type").map_or(Some(Format::Json), Format::of_content_type);
        let decoded = format.and_then(|f| f.decode(&self.body));
        decoded.unwrap_or_else(|| panic!("the body is not what its type says: {self:?}"))
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn http(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut connection = Connection::open(addr);
    connection
        .try_request(method, path, headers, body)
        .unwrap_or_else(|e| panic!("{method} {path} at {addr}: {e}; got so far: {:?}", connection.seen()))
}

#[track_caller]
pub fn get(addr: SocketAddr, path: &str) -> Response {
    http(addr, "GET", path, &[], b"")
}

#[track_caller]
pub fn put_json(addr: SocketAddr, path: &str, value: &Value) -> Response {
    http(addr, "PUT", path, &[("Content-Type", "application/json")], value.to_string().as_bytes())
}

/// Sends the bytes on a new connection and returns everything that comes until the server closes or the time is over.
#[track_caller]
pub fn http_raw(addr: SocketAddr, bytes: &[u8], within: Duration) -> Vec<u8> {
    let mut connection = Connection::open(addr);
    connection.within(within);
    connection.send(bytes);
    connection.read_to_close();
    connection.buffer
}

/// A TCP connection with a deadline and what was read ahead; with TLS over it if asked for.
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    end: Instant,
    buffer: Vec<u8>,
}

impl Connection {
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Connection {
        Self::try_open(addr).unwrap_or_else(|e| panic!("connect to {addr}: {e}"))
    }

    pub fn try_open(addr: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Connection { stream, tls: None, end: Instant::now() + DEADLINE, buffer: Vec::new() })
    }

    /// With TLS, to a server called `localhost`; the handshake is over.
    #[track_caller]
    pub fn open_tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> Connection {
        Self::try_open_tls(addr, config).unwrap_or_else(|e| panic!("connect to {addr} with TLS: {e}"))
    }

    pub fn try_open_tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Connection> {
        let mut connection = Connection::try_open(addr)?;
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        connection.stream.set_read_timeout(Some(DEADLINE))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut connection.stream)?;
        }
        connection.tls = Some(Box::new(tls));
        Ok(connection)
    }

    #[track_caller]
    pub fn tls(&mut self) -> &mut ClientConnection {
        self.tls.as_mut().expect("a TLS connection")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sets the deadline of what follows.
    pub fn within(&mut self, time: Duration) -> &mut Self {
        self.end = Instant::now() + time;
        self
    }

    /// What has been read and not yet taken.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("send {} bytes: {e}", bytes.len()));
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.stream.write_all(bytes) };
        let mut stream = rustls::Stream::new(&mut **tls, &mut self.stream);
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Reads once into the buffer: false at the end of the stream (a reset counts as one). With TLS, an end that was
    /// not announced is UnexpectedEof.
    pub fn fill(&mut self) -> io::Result<bool> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.tls {
            None => self.stream.read(&mut chunk),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut chunk),
        };
        match read {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(e) => Err(e),
        }
    }

    /// The first `n` bytes, left where they are: a deadline that passes meanwhile loses nothing.
    pub fn ahead(&mut self, n: usize) -> io::Result<&[u8]> {
        while self.buffer.len() < n {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(&self.buffer[..n])
    }

    /// The length of what comes before `mark`, left where it is.
    pub fn ahead_until(&mut self, mark: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|w| w == mark) {
                return Ok(at);
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes exactly `n` bytes.
    pub fn take(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Takes everything up to and with `mark`.
    pub fn take_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|w| w == mark) {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until the server closes: whether it did before the deadline. What came is in the buffer ([`Self::rest`]).
    pub fn read_to_close(&mut self) -> bool {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Takes what is in the buffer.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.within(DEADLINE);
        self.try_request(method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Sends a request, with Host, and with Content-Length if there is a body, unless `headers` has them, and reads
    /// its response. The connection stays open for the next one.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !has("host") {
            head += &format!("Host: {}\r\n", self.stream.peer_addr()?);
        }
        let needs_length = !body.is_empty() || matches!(method, "PUT" | "POST" | "PATCH");
        if needs_length && !has("content-length") && !has("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut whole = head.into_bytes();
        whole.extend_from_slice(body);
        self.try_send(&whole)?;
        self.response(method == "HEAD")
    }

    /// Reads a status line and headers (informational responses but 101 are skipped); the body is left.
    pub fn response_head(&mut self) -> io::Result<Response> {
        loop {
            let head = self.take_until(b"\r\n\r\n")?;
            let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{what} in {}", head.escape_ascii()));
            let text = std::str::from_utf8(&head).map_err(|_| bad("not text"))?;
            let mut lines = text.trim_end().split("\r\n");
            let status_line = lines.next().unwrap_or("");
            let status = status_line
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3))
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| bad("no status line"))?;
            let headers = lines
                .map(|line| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned())))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| bad("a line without a colon"))?;
            if status >= 200 || status == 101 {
                return Ok(Response { status, headers, body: Vec::new() });
            }
        }
    }

    /// Reads one response with its body.
    pub fn response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut response = self.response_head()?;
        let chunked = response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = response.header("content-length").map(str::parse::<usize>);
        if to_head || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        } else if chunked {
            while let Some(chunk) = self.chunk()? {
                response.body.extend(chunk);
            }
        } else if let Some(length) = length {
            let length = length.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
            response.body = self.take(length)?;
        } else {
            while self.fill()? {}
            response.body = self.rest();
        }
        Ok(response)
    }

    /// One chunk of a chunked body; none after the last one, whose trailers are taken too.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let bad = |e: &str| io::Error::new(ErrorKind::InvalidData, e.to_owned());
        let line = self.take_until(b"\r\n")?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.trim().split(';').next().unwrap_or("");
        let size = usize::from_str_radix(digits, 16).map_err(|e| bad(&format!("chunk size {text:?}: {e}")))?;
        if size == 0 {
            while self.take_until(b"\r\n")? != b"\r\n" {}
            return Ok(None);
        }
        let chunk = self.take(size)?;
        if self.take(2)? != b"\r\n" {
            return Err(bad("no line end after a chunk"));
        }
        Ok(Some(chunk))
    }
}
