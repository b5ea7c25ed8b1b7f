//! MQTT over WebSocket: the packets are a stream of bytes in binary messages (MQTT 3.1.1 §6, MQTT 5 §6).

use super::mqtt::Mqtt;
use super::websocket::{Received, Socket, frame};
use super::{Event, Message, Opening};
use bytes::BytesMut;
use tungstenite::protocol::frame::coding::{Data, OpCode};

pub struct MqttWebSocket {
    socket: Socket,
    mqtt: Mqtt,
    /// What has come and is not decoded.
    packets: BytesMut,
    /// What is to be sent: CONNECT, until the socket stands.
    sending: Vec<u8>,
}

impl MqttWebSocket {
    pub fn new(version: u8) -> MqttWebSocket {
        let (socket, mqtt) = (Socket::default(), Mqtt::new(version));
        MqttWebSocket { socket, mqtt, packets: BytesMut::new(), sending: Vec::new() }
    }

    /// Sends what there is in a message.
    fn send(&mut self, out: &mut Vec<u8>) {
        if !self.sending.is_empty() {
            frame(OpCode::Data(Data::Binary), &self.sending, out);
            self.sending.clear();
        }
    }

    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        self.packets.clear();
        self.sending.clear();
        self.mqtt.connect(opening, &mut self.sending);
        self.socket.open(opening, Some("mqtt"), out);
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) {
        self.mqtt.subscribe(filter, qos, &mut self.sending);
        self.send(out);
    }

    pub fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        self.mqtt.publish(message, &mut self.sending);
        self.send(out);
    }

    pub fn decode(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        loop {
            if !self.packets.is_empty() {
                let event = self.mqtt.decode(&mut self.packets, &mut self.sending)?;
                self.send(replies);
                if event.is_some() {
                    return Ok(event);
                }
            }
            match self.socket.receive(incoming, replies)? {
                None => return Ok(None),
                Some(Received::Open) => self.send(replies),
                Some(Received::Message(bytes)) if self.packets.is_empty() => self.packets = bytes,
                Some(Received::Message(bytes)) => self.packets.extend_from_slice(&bytes),
            }
        }
    }
}
