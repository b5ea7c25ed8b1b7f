//! MQTT, WebSocket and SSE by hand on raw sockets: to send what no library would, to see every byte that comes back,
//! and to be fast enough for thousands of connections. Reading takes whole packets, frames and events only: a deadline
//! that passes in the middle of one loses nothing.

use super::http::Connection;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// A length and that many bytes, as MQTT writes text.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// An MQTT packet: first byte, remaining length, body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest > 0x7f;
        out.push((rest & 0x7f) as u8 | if more { 0x80 } else { 0 });
        rest >>= 7;
        if !more {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// CONNECT with these flags (2: clean) and whatever follows the keep-alive (properties included).
pub fn connect(level: u8, flags: u8, keep_alive: u16, rest: &[u8]) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([level, flags]);
    body.extend(keep_alive.to_be_bytes());
    body.extend_from_slice(rest);
    packet(0x10, &body)
}

/// A plain CONNECT: clean, no will, keep-alive of a minute.
pub fn connect_as(level: u8, client_id: &str) -> Vec<u8> {
    connect(level, 2, 60, &[&no_properties(level)[..], &text(client_id)].concat())
}

/// The empty property list of version 5; nothing in 3.1.1.
pub fn no_properties(level: u8) -> Vec<u8> {
    if level == 5 { vec![0] } else { Vec::new() }
}

pub fn publish(level: u8, topic: &str, payload: &[u8], (qos, retain): (u8, bool), id: u16) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(no_properties(level));
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

pub fn subscribe(level: u8, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(no_properties(level));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(level: u8, id: u16, filter: &str) -> Vec<u8> {
    packet(0xa2, &[&id.to_be_bytes()[..], &no_properties(level), &text(filter)].concat())
}

pub fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

/// An MQTT connection.
pub struct Mqtt {
    pub connection: Connection,
    pub level: u8,
}

/// A received PUBLISH.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    /// QoS 1 only.
    pub id: Option<u16>,
}

impl Mqtt {
    /// Connected and accepted.
    #[track_caller]
    pub fn open(addr: SocketAddr, level: u8, client_id: &str) -> Mqtt {
        Mqtt::over(Connection::open(addr), level, client_id)
    }

    #[track_caller]
    pub fn over(connection: Connection, level: u8, client_id: &str) -> Mqtt {
        let mut mqtt = Mqtt { connection, level };
        mqtt.connection.send(&connect_as(level, client_id));
        let (first, body) = mqtt.expect();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK says {body:02x?}");
        mqtt
    }

    /// The next packet: first byte and body. UnexpectedEof: the server closed.
    pub fn next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = self.connection.ahead(at + 1)?[at];
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        self.connection.ahead(at + length)?;
        let whole = self.connection.take(at + length)?;
        Ok((whole[0], whole[at..].to_vec()))
    }

    /// The next packet, within the harness's usual deadline.
    #[track_caller]
    pub fn expect(&mut self) -> (u8, Vec<u8>) {
        self.connection.within(super::PATIENCE);
        self.next().unwrap_or_else(|e| panic!("no packet ({e}); so far {:?}", self.connection.seen()))
    }

    /// A PUBLISH taken apart.
    pub fn received(&self, first: u8, body: &[u8]) -> Option<Received> {
        if first >> 4 != 3 {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).ok()?;
        let mut at = 2 + length;
        let mut id = None;
        if first & 6 != 0 {
            id = Some(u16::from_be_bytes([body[at], body[at + 1]]));
            at += 2;
        }
        if self.level == 5 {
            at += 1 + usize::from(body[at]); // the lists of these tests are short
        }
        Some(Received { topic, payload: body[at..].to_vec(), id })
    }

    /// Subscribes and gives the SUBACK's codes.
    #[track_caller]
    pub fn subscribe(&mut self, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
        self.connection.send(&subscribe(self.level, id, filters));
        let skipped = if self.level == 5 { 3 } else { 2 };
        let (first, body) = self.expect();
        assert_eq!((first, &body[..2]), (0x90, &id.to_be_bytes()[..]), "no SUBACK: {first:02x} {body:02x?}");
        body[skipped..].to_vec()
    }

    /// The next PUBLISH; other packets are a panic.
    #[track_caller]
    pub fn expect_message(&mut self) -> Received {
        let (first, body) = self.expect();
        self.received(first, &body).unwrap_or_else(|| panic!("not a PUBLISH: {first:02x} {body:02x?}"))
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    #[track_caller]
    pub fn put(&mut self, topic: &str, payload: &[u8], id: u16) {
        self.connection.send(&publish(self.level, topic, payload, (1, true), id));
        assert_eq!(self.expect(), (0x40, id.to_be_bytes().to_vec()));
    }

    /// Asks for a PINGRESP: what was sent before has been understood.
    #[track_caller]
    pub fn ping(&mut self) {
        self.connection.send(&[0xc0, 0]);
        assert_eq!(self.expect(), (0xd0, vec![]));
    }
}

/// A WebSocket frame as a client sends it. `first` is FIN, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        n @ ..126 => out.push(0x80 | n as u8),
        n @ ..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The opening handshake for a path.
pub fn handshake(addr: SocketAddr, path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// An open WebSocket.
pub struct WebSocket {
    pub connection: Connection,
}

impl WebSocket {
    #[track_caller]
    pub fn open(addr: SocketAddr, path: &str) -> WebSocket {
        WebSocket::over(Connection::open(addr), addr, path)
    }

    #[track_caller]
    pub fn over(mut connection: Connection, addr: SocketAddr, path: &str) -> WebSocket {
        connection.send(handshake(addr, path, "").as_bytes());
        let head = connection.response_head().expect("an answer to the handshake");
        // The answer to the key of RFC 6455 §1.3.
        let accept = head.header("sec-websocket-accept");
        assert_eq!((head.status, accept), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), "{head:?}");
        WebSocket { connection }
    }

    /// The next frame: first byte and payload.
    pub fn next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.connection.ahead(2)?;
        if head[1] & 0x80 != 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "a server does not mask"));
        }
        let (at, length) = match head[1] {
            126 => {
                let head = self.connection.ahead(4)?;
                (4, usize::from(u16::from_be_bytes([head[2], head[3]])))
            }
            127 => {
                let head = self.connection.ahead(10)?;
                (10, u64::from_be_bytes(head[2..].try_into().expect("8 bytes")) as usize)
            }
            n => (2, usize::from(n)),
        };
        self.connection.ahead(at + length)?;
        let whole = self.connection.take(at + length)?;
        Ok((whole[0], whole[at..].to_vec()))
    }

    #[track_caller]
    pub fn expect(&mut self) -> (u8, Vec<u8>) {
        self.connection.within(super::PATIENCE);
        self.next().unwrap_or_else(|e| panic!("no frame ({e}); so far {:?}", self.connection.seen()))
    }

    /// Reads to the close frame: its code and reason.
    #[track_caller]
    pub fn expect_close(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.expect();
            if first == 0x88 {
                let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                return (code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned());
            }
        }
    }
}

/// An open event stream.
pub struct Sse {
    pub connection: Connection,
}

impl Sse {
    #[track_caller]
    pub fn open(addr: SocketAddr, path: &str) -> Sse {
        Sse::over(Connection::open(addr), addr, path)
    }

    #[track_caller]
    pub fn over(mut connection: Connection, addr: SocketAddr, path: &str) -> Sse {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n\r\n");
        connection.send(head.as_bytes());
        let head = connection.response_head().expect("an answer");
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
        Sse { connection }
    }

    /// The next chunk, which holds one event or comment; none at the end of the stream.
    pub fn next(&mut self) -> io::Result<Option<String>> {
        let digits = self.connection.ahead_until(b"\r\n")?;
        let size = String::from_utf8_lossy(self.connection.ahead(digits)?).into_owned();
        let size = usize::from_str_radix(&size, 16).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        let whole = digits + 2 + size + 2;
        self.connection.ahead(whole)?;
        let chunk = self.connection.take(whole)?;
        let text = String::from_utf8_lossy(&chunk[digits + 2..whole - 2]).into_owned();
        Ok((size > 0).then_some(text))
    }

    /// The data of the next event, comments skipped.
    #[track_caller]
    pub fn expect(&mut self) -> String {
        self.connection.within(super::PATIENCE);
        loop {
            let event = self.next().expect("an event").expect("no end of the stream");
            if let Some(data) = data_of(&event) {
                return data.to_owned();
            }
        }
    }
}

/// The `data:` line of an event.
pub fn data_of(event: &str) -> Option<&str> {
    event.lines().find_map(|line| line.strip_prefix("data: "))
}

/// Sends byte by byte, each in a packet of its own as far as the kernel lets it.
pub fn trickle(connection: &mut Connection, bytes: &[u8]) {
    for byte in bytes {
        let mut stream = connection.stream();
        stream.write_all(&[*byte]).expect("send a byte");
        std::thread::sleep(Duration::from_micros(200)); // not for something: to have the bytes come apart
    }
}

/// Pseudo-random numbers (xorshift): tests print the seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
