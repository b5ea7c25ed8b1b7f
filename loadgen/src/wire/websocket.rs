//! WebSocket (RFC 6455): frames with tungstenite's header codec; messages may come in fragments. A socket carries the
//! messages of a stream, or a publisher's, or MQTT (`mqtt_websocket.rs`).

use super::http;
use super::{Event, Message, Opening};
use crate::target::Publishing;
use bytes::{Buf, BytesMut};
use memchr::memmem;
use std::io::Cursor;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Of what a client sends, which is masked with something (RFC 6455 §5.3).
const MASK: [u8; 4] = [0x9d, 0x2c, 0x71, 0xe6];

/// Appends a frame.
pub fn frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: true, opcode, mask: Some(MASK), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("a vector takes all that is written to it");
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What has come through a socket.
pub enum Received {
    /// The handshake is done.
    Open,
    Message(BytesMut),
}

/// The client's side of a socket.
#[derive(Default)]
pub struct Socket {
    /// The key whose answer is awaited.
    key: Option<String>,
    is_open: bool,
    /// What is spoken in it.
    subprotocol: Option<&'static str>,
    /// The fragments of a message so far.
    message: BytesMut,
}

impl Socket {
    pub fn open(&mut self, opening: &Opening<'_>, subprotocol: Option<&'static str>, out: &mut Vec<u8>) {
        let Opening { host, path, .. } = opening;
        let key = generate_key();
        let offer = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        *self = Socket { key: Some(key), subprotocol, ..Socket::default() };
    }

    pub fn receive(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Received>, String> {
        if !self.is_open {
            let Some(head) = http::head(incoming)? else { return Ok(None) };
            let expected = self.key.take().map(|key| derive_accept_key(key.as_bytes()));
            if head.status != 101 {
                return Err(format!("HTTP status {} instead of a WebSocket", head.status));
            }
            if head.accept != expected {
                return Err("WebSocket: Sec-WebSocket-Accept is not what the key asks for (RFC 6455 §4.1)".into());
            }
            if head.subprotocol.as_deref() != self.subprotocol {
                return Err(format!("WebSocket: the subprotocol is {:?}", head.subprotocol.unwrap_or_default()));
            }
            incoming.advance(head.length);
            self.is_open = true;
            return Ok(Some(Received::Open));
        }
        loop {
            let mut cursor = Cursor::new(&incoming[..]);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|error| format!("WebSocket: {error}"))?;
            let Some((header, length)) = parsed else { return Ok(None) };
            let (at, length) = (cursor.position() as usize, length as usize);
            if header.mask.is_some() {
                return Err("WebSocket: a masked frame from a server (RFC 6455 §5.1)".into());
            }
            if incoming.len() - at < length {
                return Ok(None);
            }
            incoming.advance(at);
            let payload = incoming.split_to(length);
            match header.opcode {
                OpCode::Data(kind) => {
                    if header.is_final && !matches!(kind, Data::Continue) {
                        return Ok(Some(Received::Message(payload)));
                    }
                    self.message.extend_from_slice(&payload);
                    if header.is_final {
                        return Ok(Some(Received::Message(self.message.split())));
                    }
                }
                OpCode::Control(Control::Ping) => frame(OpCode::Control(Control::Pong), &payload, replies),
                OpCode::Control(Control::Close) => {
                    let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    return Err(format!("the WebSocket was closed with {code} {reason}").trim_end().to_owned());
                }
                OpCode::Control(_) => {}
            }
        }
    }
}

/// A socket whose messages are what was published, or, on a publisher's, answers to what it has sent.
#[derive(Default)]
pub struct WebSocket {
    socket: Socket,
    /// What stands in answers, of a publisher's.
    publishing: Option<Publishing>,
    scratch: Vec<u8>,
}

/// The message that an answer is about, by its `ref`; 0: the oldest.
fn reference(answer: &[u8]) -> u16 {
    const NAME: &[u8] = b"\"ref\":";
    let digits = memmem::find(answer, NAME).map(|at| &answer[at + NAME.len()..]).unwrap_or_default();
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u16, digit| number.wrapping_mul(10).wrapping_add(u16::from(digit - b'0')))
}

impl WebSocket {
    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        self.publishing = opening.publishing.cloned();
        self.socket.open(opening, None, out);
    }

    /// The target is the text to be sent, with `{id}` and `{message}` for what goes in there.
    pub fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        let scratch = &mut self.scratch;
        scratch.clear();
        for (index, part) in message.target.split("{message}").enumerate() {
            if index > 0 {
                scratch.extend_from_slice(message.payload);
            }
            for (index, part) in part.split("{id}").enumerate() {
                if index > 0 {
                    scratch.extend_from_slice(itoa::Buffer::new().format(message.id).as_bytes());
                }
                scratch.extend_from_slice(part.as_bytes());
            }
        }
        frame(OpCode::Data(Data::Text), scratch, out);
    }

    pub fn decode(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        while let Some(received) = self.socket.receive(incoming, replies)? {
            let payload = match received {
                Received::Open => return Ok(Some(Event::open())),
                Received::Message(payload) => payload.freeze(),
            };
            let Some(Publishing { accepted, refused, .. }) = &self.publishing else {
                return Ok(Some(Event::Message { payload, is_state: false }));
            };
            if memmem::find(&payload, accepted.as_bytes()).is_some() {
                return Ok(Some(Event::Acknowledged { id: reference(&payload) }));
            }
            if !refused.is_empty() && memmem::find(&payload, refused.as_bytes()).is_some() {
                return Err(format!("a message was refused: {}", String::from_utf8_lossy(&payload)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fragments_and_pings() {
        let socket = Socket { is_open: true, ..Socket::default() };
        let mut socket = WebSocket { socket, ..WebSocket::default() };
        let mut incoming = BytesMut::from(&b"\x81\x01a\x01\x01b\x89\x02hi\x80\x01c\x82\x02d"[..]);
        let mut replies = Vec::new();
        let mut next = |incoming: &mut BytesMut| match socket.decode(incoming, &mut replies).expect("valid") {
            Some(Event::Message { payload, .. }) => Some(payload.to_vec()),
            _ => None,
        };
        assert_eq!(next(&mut incoming).expect("whole"), b"a");
        assert_eq!(next(&mut incoming).expect("two fragments"), b"bc");
        assert_eq!(next(&mut incoming), None, "not whole yet");
        assert_eq!(replies, [b"\x8a\x82", &MASK[..], &[b'h' ^ MASK[0], b'i' ^ MASK[1]]].concat());
        assert!(socket.decode(&mut BytesMut::from(&b"\x88\x02\x03\xe8"[..]), &mut replies).is_err());
    }

    #[test]
    fn what_a_publisher_sends_and_is_answered() {
        let target = "{\"ref\":{id},\"value\":{message}}";
        let message = Message { target, host: "", payload: b"{}", qos: 0, retain: true, id: 70 };
        let (mut socket, mut out) = (WebSocket::default(), Vec::new());
        socket.publish(&message, &mut out);
        assert_eq!(socket.scratch, b"{\"ref\":70,\"value\":{}}");
        assert_eq!(out[..2], [0x81, 0x80 | socket.scratch.len() as u8]);
        let answers = |text: &str| {
            let socket = Socket { is_open: true, ..Socket::default() };
            let (accepted, refused) = ("\"type\":\"ack\"".into(), "\"type\":\"problem\"".into());
            let publishing = Some(Publishing { accepted, refused, ..Publishing::default() });
            let mut socket = WebSocket { socket, publishing, ..WebSocket::default() };
            let mut incoming = BytesMut::from(&[b"\x81", &[text.len() as u8], text.as_bytes()].concat()[..]);
            socket.decode(&mut incoming, &mut Vec::new())
        };
        let acknowledged = |text| match answers(text).expect("no problem") {
            Some(Event::Acknowledged { id }) => Some(id),
            _ => None,
        };
        assert_eq!(acknowledged("{\"type\":\"ack\",\"ref\":65535,\"version\":1}"), Some(65_535));
        assert_eq!(acknowledged("{\"type\":\"ack\"}"), Some(0), "the oldest");
        assert_eq!(acknowledged("{\"type\":\"put\",\"id\":\"1\"}"), None, "of the stream");
        assert!(answers("{\"type\":\"problem\",\"ref\":1,\"status\":400}").is_err());
    }
}
