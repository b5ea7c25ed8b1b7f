//! Records over WebSocket (compat §4): the current ones at once, then every change, one envelope per message. Events
//! are encoded in `protocol/frames.rs`.

use super::duplex::Duplex;
use super::frame::{Message, Reader, close, write_close, write_pong};
use super::keepalive::Keepalive;
use crate::protocol::format::{self, Format};
use crate::protocol::frames::{Encoding, Protocol};
use crate::protocol::framing::{Opcode, write_header};
use crate::protocol::watch::{Progress, Stream, Watch, write_reset};
use crate::protocol::{Context, Flow, Session};
use shards::command::Completion;

/// The answer to a data frame on a socket that only listens. Documented in the README.
const READ_ONLY: &str = "{\"type\":\"problem\",\"status\":501,\"title\":\"Not Implemented\",\
                         \"detail\":\"this WebSocket only sends; open it with ?duplex to write\"}";

pub struct RecordsSession {
    reader: Reader,
    stream: Option<Stream>,
    format: Format,
    duplex: Option<Box<Duplex>>,
    keepalive: Keepalive,
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
            format,
            duplex: None,
            keepalive: Keepalive::new(context.ticks_us()),
            closing: false,
        };
        match watch {
            Ok(watch) => {
                let protocol = if watch.is_duplex { Protocol::WebSocketDuplex } else { Protocol::WebSocket };
                let encoding = Encoding { protocol, format }.code();
                session.duplex = watch.is_duplex.then(|| Box::new(Duplex::new(watch.target.clone(), encoding)));
                context.shard.outboxes.attach(context.connection, watch.client(encoding));
                let (stream, progress) = Stream::open(context, watch, encoding);
                if progress == Progress::Reset {
                    session.say_reset(context);
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
        let others = self.duplex.take().into_iter().flat_map(|duplex| duplex.streams).map(|(_, stream)| stream);
        self.stream.take().into_iter().chain(others).for_each(|mut stream| stream.leave(context));
    }

    fn write_text(&self, context: &mut Context<'_>, text: &str) {
        context.write(|out| {
            write_header(Opcode::Text, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        });
    }

    /// A client has said something.
    fn said(&mut self, context: &mut Context<'_>, is_text: bool, data: &[u8]) {
        let Some(duplex) = &mut self.duplex else { return self.write_text(context, READ_ONLY) };
        let format = match (is_text, self.format) {
            (true, _) => Format::Json,
            (false, Format::Json) => Format::Cbor,
            (false, format) => format,
        };
        let mut answer = Vec::new();
        duplex.frame(context, format, data, &mut answer);
        self.answer(context, &answer);
    }

    /// Says that events are missing: the place that the client has come to is gone.
    fn say_reset(&self, context: &mut Context<'_>) {
        let mut document = Vec::new();
        write_reset(&mut document);
        self.answer(context, &document);
    }

    /// Sends a document in the socket's format, if there is one.
    fn answer(&self, context: &mut Context<'_>, document: &[u8]) {
        if document.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        format::encode(self.format, document, &mut bytes);
        let opcode = if self.format == Format::Json { Opcode::Text } else { Opcode::Binary };
        context.write(|out| {
            write_header(opcode, bytes.len(), out);
            out.extend_from_slice(&bytes);
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
        if self.duplex.is_some() && !context.shard.has_room() {
            return (0, Flow::Blocked);
        }
        let bytes_max = context.shard.limits().packet_bytes_max;
        let mut data = std::mem::take(&mut context.scratch.unmasked);
        let read = self.reader.read(input, bytes_max, &mut data);
        let outcome = match read {
            Ok(None) => (0, Flow::Continue),
            Ok(Some((message, length))) => {
                self.keepalive.heard(context.ticks_us());
                let flow = match message {
                    Message::Ping => {
                        context.write(|out| write_pong(&data, out));
                        Flow::Continue
                    }
                    Message::Text | Message::Binary => {
                        self.said(context, message == Message::Text, &data);
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
        if let (Some(duplex), Completion::Outcome { token, outcome }) = (&mut self.duplex, &completion) {
            let mut answer = Vec::new();
            duplex.written(context, token.tag, outcome, &mut answer);
            self.answer(context, &answer);
            return Flow::Continue;
        }
        let others = self.duplex.iter_mut().flat_map(|duplex| &mut duplex.streams).map(|(_, stream)| stream);
        let all = self.stream.iter_mut().chain(others);
        let resets = all.filter_map(|stream| (stream.complete(context, &completion) == Progress::Reset).then_some(()));
        if resets.count() > 0 {
            self.say_reset(context);
        }
        Flow::Continue
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

    fn end(&mut self, context: &mut Context<'_>) {
        self.leave(context);
    }
}
