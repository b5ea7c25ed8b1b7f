//! Records over WebSocket (compat §4): the current ones at once, then every change, one envelope per message. Events
//! are encoded in `protocol/frames.rs`.

use super::frame::{Message, Reader, close, write_close};
use crate::protocol::format::Format;
use crate::protocol::frames::{Encoding, Protocol};
use crate::protocol::framing::{Opcode, write_header};
use crate::protocol::watch::{Progress, RESET, Stream, Watch};
use crate::protocol::{Context, Flow, Session};
use shards::client::Client;
use shards::command::Completion;

/// A client that was silent for so long is asked whether it is still there.
const PING_US: u64 = 30_000_000;

/// The answer to a data frame: so far a WebSocket only listens. Documented in the README.
const READ_ONLY: &str = "{\"type\":\"problem\",\"status\":501,\"title\":\"Not Implemented\",\
                         \"detail\":\"this WebSocket only sends; write with PUT or MQTT\"}";

pub struct RecordsSession {
    reader: Reader,
    stream: Option<Stream>,
    heard_us: u64,
    pinged: bool,
    closing: bool,
}

impl RecordsSession {
    /// The handshake is done. A target that cannot be served is closed at once, with the reason.
    pub fn open(
        context: &mut Context<'_>,
        watch: Result<Watch, (u16, String)>,
        format: Format,
    ) -> (RecordsSession, Flow) {
        let mut session = RecordsSession {
            reader: Reader::default(),
            stream: None,
            heard_us: context.ticks_us(),
            pinged: false,
            closing: false,
        };
        match watch {
            Ok(watch) => {
                let encoding = Encoding { protocol: Protocol::WebSocket, format }.code();
                context.shard.outboxes.attach(context.connection, Client::stream(encoding));
                let mut stream = Stream::open(context, watch, encoding);
                if stream.must_reset(context) {
                    session.write_text(context, RESET);
                }
                session.stream = Some(stream);
                (session, Flow::Continue)
            }
            Err((code, reason)) => {
                let flow = session.close(context, code, &reason);
                (session, flow)
            }
        }
    }

    fn leave(&mut self, context: &mut Context<'_>) {
        if let Some(mut stream) = self.stream.take() {
            stream.leave(context);
        }
    }

    fn write_text(&self, context: &mut Context<'_>, text: &str) {
        context.write(|out| {
            write_header(Opcode::Text, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        });
    }

    fn close(&mut self, context: &mut Context<'_>, code: u16, reason: &str) -> Flow {
        self.leave(context);
        if !std::mem::replace(&mut self.closing, true) {
            context.write(|out| write_close(code, reason, out));
        }
        Flow::Close
    }
}

impl Session for RecordsSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        if self.closing {
            return (input.len(), Flow::Continue);
        }
        let bytes_max = context.shard.limits().packet_bytes_max;
        let mut data = std::mem::take(&mut context.scratch.unmasked);
        let read = self.reader.read(input, bytes_max, &mut data);
        let outcome = match read {
            Ok(None) => (0, Flow::Continue),
            Ok(Some((message, length))) => {
                self.heard_us = context.ticks_us();
                self.pinged = false;
                let flow = match message {
                    Message::Ping => {
                        context.write(|out| {
                            write_header(Opcode::Pong, data.len(), out);
                            out.extend_from_slice(&data);
                        });
                        Flow::Continue
                    }
                    Message::Text | Message::Binary => {
                        self.write_text(context, READ_ONLY);
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

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        if matches!(completion, Completion::Overflowed { .. }) {
            return self.close(context, close::TRY_AGAIN, "too slow: the outbox is full");
        }
        let progress = self.stream.as_mut().map(|stream| stream.complete(context, &completion));
        if progress == Some(Progress::Reset) {
            self.write_text(context, RESET);
        }
        Flow::Continue
    }

    fn deadline(&self) -> Option<u64> {
        Some(self.heard_us + PING_US * (1 + u64::from(self.pinged)))
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        if self.pinged {
            return self.close(context, close::NORMAL, "no answer to a ping");
        }
        self.pinged = true;
        context.write(|out| write_header(Opcode::Ping, 0, out));
        Flow::Continue
    }

    fn stop(&mut self, context: &mut Context<'_>) -> Flow {
        self.close(context, close::RESTART, "the server is shutting down")
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.leave(context);
    }
}
