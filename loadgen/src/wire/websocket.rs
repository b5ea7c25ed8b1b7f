//! WebSocket (RFC 6455): frames with tungstenite's header codec; messages may come in fragments.

use super::http;
use super::{Event, Opening};
use bytes::{Buf, BytesMut};
use std::io::Cursor;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

#[derive(Default)]
pub struct WebSocket {
    /// The key whose answer is awaited.
    key: Option<String>,
    is_open: bool,
    /// The fragments of a message so far.
    message: BytesMut,
}

impl WebSocket {
    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        let Opening { host, path, .. } = opening;
        let key = generate_key();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        *self = WebSocket { key: Some(key), ..WebSocket::default() };
    }

    pub fn decode(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        if !self.is_open {
            let Some(head) = http::head(incoming)? else { return Ok(None) };
            let expected = self.key.take().map(|key| derive_accept_key(key.as_bytes()));
            if head.status != 101 || head.accept != expected {
                return Err(format!("HTTP status {} instead of a WebSocket", head.status));
            }
            incoming.advance(head.length);
            self.is_open = true;
            return Ok(Some(Event::Open { is_resumed: false }));
        }
        loop {
            let mut cursor = Cursor::new(&incoming[..]);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|error| format!("WebSocket: {error}"))?;
            let Some((header, length)) = parsed else { return Ok(None) };
            let (at, length) = (cursor.position() as usize, length as usize);
            if header.mask.is_some() {
                return Err("WebSocket: a masked frame from a server (RFC 6455 §5.1)".into());
            }
            if incoming.len() < at + length {
                return Ok(None);
            }
            incoming.advance(at);
            let payload = incoming.split_to(length);
            match header.opcode {
                OpCode::Data(kind) => {
                    let continues = matches!(kind, Data::Continue);
                    if header.is_final && !continues {
                        return Ok(Some(Event::Message { payload: payload.freeze(), is_state: false }));
                    }
                    self.message.extend_from_slice(&payload);
                    if header.is_final {
                        let payload = self.message.split().freeze();
                        return Ok(Some(Event::Message { payload, is_state: false }));
                    }
                }
                OpCode::Control(Control::Ping) => {
                    let pong = FrameHeader {
                        is_final: true,
                        opcode: OpCode::Control(Control::Pong),
                        mask: Some([0; 4]), // masked with zeros: the payload as it is
                        ..FrameHeader::default()
                    };
                    pong.format(payload.len() as u64, replies).map_err(|error| format!("WebSocket: {error}"))?;
                    replies.extend_from_slice(&payload);
                }
                OpCode::Control(Control::Close) => {
                    let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    return Err(format!("the WebSocket was closed with {code}"));
                }
                OpCode::Control(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fragments_and_pings() {
        let mut socket = WebSocket { is_open: true, ..WebSocket::default() };
        let mut incoming = BytesMut::from(&b"\x81\x01a\x01\x01b\x89\x02hi\x80\x01c\x82\x02d"[..]);
        let mut replies = Vec::new();
        let mut next = |incoming: &mut BytesMut| match socket.decode(incoming, &mut replies).expect("valid") {
            Some(Event::Message { payload, .. }) => Some(payload.to_vec()),
            _ => None,
        };
        assert_eq!(next(&mut incoming).expect("whole"), b"a");
        assert_eq!(next(&mut incoming).expect("two fragments"), b"bc");
        assert_eq!(next(&mut incoming), None, "not whole yet");
        assert_eq!(replies, b"\x8a\x82\0\0\0\0hi");
        assert!(socket.decode(&mut BytesMut::from(&b"\x88\x02\x03\xe8"[..]), &mut replies).is_err());
    }
}
