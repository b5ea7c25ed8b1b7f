//! Another protocol inside binary messages: MQTT over WebSocket (MQTT 5 §6). Message boundaries mean nothing to it:
//! packets may be split over messages, and several may come in one [MQTT-6.0.0-2].

use super::frame::{Message, Reader, close, write_close, write_pong};
use crate::protocol::framing::Framing;
use crate::protocol::{Context, Flow, Session};
use shards::command::Completion;

pub struct TunnelSession {
    inner: Box<dyn Session>,
    reader: Reader,
    /// Bytes that the inner session has not taken yet.
    pending: Vec<u8>,
    closing: bool,
}

impl TunnelSession {
    pub fn new(inner: Box<dyn Session>) -> TunnelSession {
        TunnelSession { inner, reader: Reader::default(), pending: Vec::new(), closing: false }
    }

    /// Calls the inner session; what it writes is framed.
    fn inside<R>(
        &mut self,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut dyn Session, &mut Context<'_>) -> R,
    ) -> R {
        context.framing = Framing::WebSocket;
        let result = call(self.inner.as_mut(), context);
        context.framing = Framing::None;
        result
    }

    fn close(&mut self, context: &mut Context<'_>, code: u16, reason: &str) -> Flow {
        if !std::mem::replace(&mut self.closing, true) {
            context.write(|out| write_close(code, reason, out));
        }
        Flow::Close
    }

    fn after(&mut self, context: &mut Context<'_>, flow: Flow) -> Flow {
        match flow {
            Flow::Close => self.close(context, close::NORMAL, ""),
            flow => flow,
        }
    }

    /// Gives the inner session what waits for it, until it wants no more.
    fn feed(&mut self, context: &mut Context<'_>) -> Flow {
        let pending = std::mem::take(&mut self.pending);
        let mut at = 0;
        let flow = loop {
            let (taken, flow) = self.inside(context, |inner, context| inner.receive(context, &pending[at..]));
            at += taken;
            match flow {
                Flow::Continue if taken > 0 && at < pending.len() => {}
                flow => break flow,
            }
        };
        self.pending = pending;
        self.pending.drain(..at);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        self.after(context, flow)
    }

    fn message(&mut self, context: &mut Context<'_>, message: &Message, data: &[u8]) -> Flow {
        match message {
            Message::Binary => {
                self.pending.extend_from_slice(data);
                self.feed(context)
            }
            // Only binary frames carry MQTT [MQTT-6.0.0-1].
            Message::Text => self.close(context, close::UNSUPPORTED, "MQTT comes in binary frames"),
            Message::Ping => {
                context.write(|out| write_pong(data, out));
                Flow::Continue
            }
            Message::Pong | Message::Fragment => Flow::Continue,
            Message::Close(code) => self.close(context, *code, ""),
        }
    }
}

impl Session for TunnelSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        if self.closing {
            return (input.len(), Flow::Continue);
        }
        if !self.pending.is_empty() {
            match self.feed(context) {
                Flow::Continue => {}
                flow => return (0, flow),
            }
        }
        // The packet bound holds for what is inside; a frame may carry several packets.
        let bytes_max = context.shard.limits().packet_bytes_max;
        let mut data = std::mem::take(&mut context.scratch.unmasked);
        let outcome = match self.reader.read(input, bytes_max, &mut data) {
            Ok(None) => (0, Flow::Continue),
            Ok(Some((message, length))) => (length, self.message(context, &message, &data)),
            Err(violation) => (input.len(), self.close(context, violation.code, violation.what)),
        };
        context.scratch.unmasked = data;
        outcome
    }

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        let flow = self.inside(context, |inner, context| inner.complete(context, completion));
        self.after(context, flow)
    }

    fn deadline(&self) -> Option<u64> {
        self.inner.deadline()
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        let flow = self.inside(context, |inner, context| inner.expire(context));
        self.after(context, flow)
    }

    fn stop(&mut self, context: &mut Context<'_>) -> Flow {
        match self.inside(context, |inner, context| inner.stop(context)) {
            Flow::Close => self.close(context, close::RESTART, "the server is shutting down"),
            flow => flow,
        }
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.inside(context, |inner, context| inner.end(context));
    }
}
