//! Server-sent events (WHATWG HTML, "Server-sent events"): a response that does not end. Events are encoded in
//! `frames.rs`; this session subscribes, and keeps the line busy while nothing happens.

use super::format::Format;
use super::frames::{Encoding, Protocol};
use super::framing::write_chunk;
use super::{Context, Flow, Session};
use shards::command::Completion;
use shards::subscription::{Request, SubscriptionRef};
use shards::topic::Target;

/// A comment is sent when the stream was silent for so long: proxies and clients give silent streams up.
const COMMENT_US: u64 = 15_000_000;

pub struct SseSession {
    subscription: Option<SubscriptionRef>,
    next_comment_us: u64,
}

impl SseSession {
    /// The response head has been written already.
    pub fn open(context: &mut Context<'_>, target: Target) -> SseSession {
        let encoding = Encoding { protocol: Protocol::Sse, format: Format::Json };
        let subscription = context.shard.subscribe(Request::new(context.connection, vec![target], encoding.code()));
        SseSession { subscription: Some(subscription), next_comment_us: context.ticks_us() + COMMENT_US }
    }

    fn leave(&mut self, context: &mut Context<'_>) {
        if let Some(subscription) = self.subscription.take() {
            context.shard.unsubscribe(subscription);
        }
    }
}

impl Session for SseSession {
    /// A client has nothing more to say on this connection.
    fn receive(&mut self, _: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        (input.len(), Flow::Continue)
    }

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        match completion {
            Completion::Subscribed { subscription, .. } => {
                context.shard.start(subscription);
                Flow::Continue
            }
            Completion::Overflowed { .. } => {
                self.leave(context);
                Flow::Close
            }
            _ => Flow::Continue,
        }
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
        self.leave(context);
        context.write(|out| out.extend_from_slice(b"0\r\n\r\n")); // the end of the chunked body
        Flow::Close
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.leave(context);
    }
}
