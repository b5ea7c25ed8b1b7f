//! MQTT over WebSocket.

use crate::common::wire::{WebSocket, frame, handshake, packet as mqtt};
use crate::common::{Connection, PATIENCE};
use crate::rig::{shared_http, unique};
use crate::wire::{Connect, PINGREQ, Packet, Properties, Publish, decode, read_variable, subscribe};

/// A WebSocket that speaks MQTT; the answer names the subprotocol [MQTT-6.0.0-4].
fn open(level: u8, offered: &str) -> WebSocket {
    let mut connection = Connection::open(shared_http(level));
    let fields = format!("Sec-WebSocket-Protocol: {offered}\r\n");
    connection.send(handshake(shared_http(level), "/mqtt", &fields).as_bytes());
    let head = connection.response_head().expect("an answer to the handshake");
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("mqtt")), "{head:?}");
    connection.within(PATIENCE);
    WebSocket { connection }
}

/// Everything that comes, until there are `n` packets. All frames are binary.
fn packets(socket: &mut WebSocket, level: u8, n: usize) -> Vec<Packet> {
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    while found.len() < n {
        let (first, payload) = socket.expect();
        assert!(first & 15 <= 2, "a frame with opcode {}", first & 15);
        assert_ne!(first & 15, 1, "MQTT comes in binary frames");
        bytes.extend(payload);
        while let Some((length, header)) = bytes.get(1..).and_then(|rest| read_variable(rest).expect("a length")) {
            let whole = 1 + header + length;
            if bytes.len() < whole {
                break;
            }
            found.push(decode(bytes[0], &bytes[1 + header..whole], level).expect("a packet"));
            bytes.drain(..whole);
        }
    }
    assert!(bytes.is_empty(), "{bytes:02x?} are left over");
    found
}

pub fn binary_frames_only(level: u8) {
    let connect = Connect::clean(level, &unique("ws")).bytes();
    for (at, text) in [(0, connect.clone()), (1, PINGREQ.to_vec()), (1, Vec::new()), (1, b"hello".to_vec())] {
        let mut socket = open(level, "mqtt");
        if at == 1 {
            socket.connection.send(&frame(0x82, &connect));
            assert!(matches!(&packets(&mut socket, level, 1)[..], [Packet::ConnAck(connack)] if connack.code == 0));
        }
        socket.connection.send(&frame(0x81, &text));
        socket.connection.within(PATIENCE);
        assert!(socket.connection.read_to_close(), "a text frame of {} bytes", text.len());
    }
}

/// Frames and packets have nothing to do with each other.
pub fn frames_are_no_packets(level: u8) {
    let topic = unique("ws");
    let none = Properties::default();
    let all = [
        Connect::clean(level, &unique("ws")).bytes(),
        subscribe(level, 1, &none, &[(&topic, 1)]),
        Publish::new(&topic, "text".repeat(100)).qos(1).id(2).bytes(level),
        mqtt(0xc0, &[]),
    ]
    .concat();
    for chunk in [1, 2, 3, 7, 100, all.len()] {
        let mut socket = open(level, "mqtt");
        for part in all.chunks(chunk) {
            socket.connection.send(&frame(0x82, part));
        }
        let mut seen = packets(&mut socket, level, 5);
        seen.sort_by_key(|packet| match packet {
            Packet::ConnAck(_) => 0,
            Packet::SubAck(_) => 1,
            Packet::Publish(_) => 2,
            Packet::PubAck(_) => 3,
            _ => 4,
        });
        assert!(
            matches!(
                &seen[..],
                [Packet::ConnAck(_), Packet::SubAck(_), Packet::Publish(publish), Packet::PubAck(_), Packet::PingResp]
                    if publish.payload.len() == 400
            ),
            "in parts of {chunk}: {seen:?}"
        );
    }
    // A fragmented message, with a ping between its fragments.
    let mut socket = open(level, "mqtt");
    let connect = Connect::clean(level, &unique("ws")).bytes();
    let (head, tail) = connect.split_at(5);
    socket.connection.send(&[frame(0x02, head), frame(0x89, b"?"), frame(0x80, tail)].concat());
    assert_eq!(socket.expect(), (0x8a, b"?".to_vec()), "the pong");
    assert!(matches!(&packets(&mut socket, level, 1)[..], [Packet::ConnAck(_)]));
}

pub fn subprotocol(level: u8) {
    for offered in ["mqtt", "mqtt, other", "other, mqtt"] {
        let mut socket = open(level, offered);
        socket.connection.send(&frame(0x82, &Connect::clean(level, &unique("ws")).bytes()));
        assert!(matches!(&packets(&mut socket, level, 1)[..], [Packet::ConnAck(connack)] if connack.code == 0));
    }
}
