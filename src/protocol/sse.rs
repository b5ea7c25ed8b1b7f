//! Server-sent events (WHATWG HTML, "Server-sent events"): a response that does not end. Events are encoded in
//! `frames.rs`; this session subscribes, and keeps the line busy while nothing happens.

use super::format::{Format, write_json};
use super::frames::{Encoding, Protocol};
use super::framing::write_chunk;
use super::watch::{Progress, Stream, Watch, write_reset};
use super::{Context, Flow, Session};
use shards::command::Completion;

/// A comment is sent when the stream was silent for so long: proxies and clients give silent streams up.
const COMMENT_US: u64 = 15_000_000;

pub struct SseSession {
    stream: Stream,
    next_comment_us: u64,
}

impl SseSession {
    /// The response head has been written already.
    pub fn open(context: &mut Context<'_>, watch: Watch) -> SseSession {
        let encoding = Encoding { protocol: Protocol::Sse, format: Format::Json }.code();
        context.shard.outboxes.attach(context.connection, watch.client(encoding));
        let (stream, progress) = Stream::open(context, watch, encoding);
        if progress == Progress::Reset {
            say_reset(context);
        }
        SseSession { stream, next_comment_us: context.ticks_us() + COMMENT_US }
    }
}

/// Says that events are missing: the place that the client has come to is gone.
fn say_reset(context: &mut Context<'_>) {
    let (mut document, mut event) = (Vec::new(), b"data: ".to_vec());
    write_reset(&mut document);
    write_json(&document, &mut event);
    event.extend_from_slice(b"\n\n");
    context.write(|out| write_chunk(&event, out));
}

impl Session for SseSession {
    /// A client has nothing more to say on this connection.
    fn receive(&mut self, _: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        (input.len(), Flow::Continue)
    }

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        if matches!(completion, Completion::Overflowed { .. }) {
            self.stream.leave(context);
            return Flow::Close;
        }
        if self.stream.complete(context, &completion) == Progress::Reset {
            say_reset(context);
        }
        Flow::Continue
    }

    fn deadline(&self) -> Option<u64> {
        Some(self.next_comment_us)
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        // Something on its way is as good as a comment.
        if context.shard.outboxes.bytes(context.connection) == 0 {
            context.write(|out| write_chunk(b":\n\n", out));
        }
        self.next_comment_us = context.ticks_us() + COMMENT_US;
        Flow::Continue
    }

    fn stop(&mut self, context: &mut Context<'_>) -> Flow {
        self.stream.leave(context);
        context.write(|out| out.extend_from_slice(b"0\r\n\r\n")); // the end of the chunked body
        Flow::Close
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.stream.leave(context);
    }
}
