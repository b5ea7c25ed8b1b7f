//! Sends every message back as it came: what conformance suites of WebSocket implementations talk to. Mounted only by an
//! app whose `config.yaml` asks for it (`webSocketEcho`). Frames, pings and closing are those of every other WebSocket.

use super::frame::{Message, Reader, close, write_close, write_pong};
use super::keepalive::Keepalive;
use crate::protocol::framing::{Opcode, write_header};
use crate::protocol::{Context, Flow, Session};
use bytes::Bytes;
use shards::command::Completion;

/// Largest message: what the suites send. The bound on packets is not asked here: it is one for records.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

pub struct EchoSession {
    reader: Reader,
    keepalive: Keepalive,
    closing: bool,
}

impl EchoSession {
    pub fn new(ticks_us: u64) -> EchoSession {
        EchoSession { reader: Reader::default(), keepalive: Keepalive::new(ticks_us), closing: false }
    }

    fn close(&mut self, context: &mut Context<'_>, code: u16, reason: &str) -> Flow {
        if !std::mem::replace(&mut self.closing, true) {
            context.write(|out| write_close(code, reason, out));
        }
        Flow::Close
    }
}

impl Session for EchoSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        // A client that does not read its messages is not read from: one of them at most waits here, whatever its size.
        if context.shard.outboxes.stall(context.connection, None) {
            return (0, Flow::Blocked);
        }
        let mut data = std::mem::take(&mut context.scratch.unmasked);
        let outcome = match self.reader.read(input, MESSAGE_BYTES_MAX, &mut data) {
            Ok(None) => (0, Flow::Continue),
            Ok(Some((message, length))) => {
                self.keepalive.heard(context.ticks_us());
                let flow = match message {
                    Message::Text | Message::Binary => {
                        let opcode = if message == Message::Text { Opcode::Text } else { Opcode::Binary };
                        context.write(|out| write_header(opcode, data.len(), out));
                        let message = Bytes::from(std::mem::take(&mut data));
                        context.shard.outboxes.write_shared(context.connection, message);
                        Flow::Continue
                    }
                    Message::Ping => {
                        context.write(|out| write_pong(&data, out));
                        Flow::Continue
                    }
                    Message::Pong | Message::Fragment => Flow::Continue,
                    Message::Close(code) => self.close(context, code, ""),
                };
                (length, flow)
            }
            Err(violation) => (input.len(), self.close(context, violation.code, violation.what)),
        };
        context.scratch.unmasked = data;
        outcome
    }

    fn complete(&mut self, _: &mut Context<'_>, _: Completion) -> Flow {
        Flow::Close // it asks nothing of the shard: its outbox has overflowed
    }

    fn deadline(&self) -> Option<u64> {
        Some(self.keepalive.deadline())
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        if self.keepalive.expire(context) {
            return Flow::Continue;
        }
        self.close(context, close::NORMAL, "no answer to a ping")
    }

    fn stop(&mut self, context: &mut Context<'_>) -> Flow {
        self.close(context, close::RESTART, "the server is shutting down")
    }

    fn end(&mut self, _: &mut Context<'_>) {}
}
