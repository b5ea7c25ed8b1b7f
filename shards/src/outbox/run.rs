//! Runs: consecutive events that the same connections hear of in the same bytes. Their frames are gathered once, and
//! when the run ends each connection is given all of them at once: by reference where nothing else waits for it. What
//! an event costs does not depend on how many hear of it then; what a run costs does.
//!
//! A run ends with the turn, when others are to hear of an event, when it is long, and before anything else is done to
//! an outbox: nobody can tell that frames were held back.

use super::{Frame, FrameKind};
use crate::event::{Event, EventKind};
use crate::log::Position;
use crate::subscription::{DETAILED, Subscriber, Subscribers};

/// A frame of a run.
pub(super) struct Part {
    /// Where it ends in the bytes of its stream.
    pub end: usize,
    pub shard: u16,
    pub position: Position,
    pub messages: u64,
    pub payload_bytes: u64,
}

/// The frames of a run in one encoding.
pub(super) struct Stream {
    pub kind: FrameKind,
    pub bytes: Vec<u8>,
    pub parts: Vec<Part>,
    /// Length of the longest one.
    pub longest: usize,
}

impl Stream {
    pub fn add(&mut self, frame: &Frame, shard: u16, position: Position) {
        self.bytes.extend_from_slice(&frame.bytes);
        self.longest = self.longest.max(frame.bytes.len());
        let Frame { messages, payload_bytes, .. } = *frame;
        self.parts.push(Part { end: self.bytes.len(), shard, position, messages, payload_bytes });
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.longest = 0;
    }
}

/// A connection that hears of a run, and the number of the stream.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub connection: u32,
    pub stream: u32,
}

#[derive(Default)]
pub(crate) struct Run {
    /// Names the subscribers: the stamps of their lists, and what of an event decides who gets which kind of frame.
    audience: Vec<u64>,
    /// The same of the event that is being delivered.
    asked: Vec<u64>,
    last_stamp: u64,
    pub(super) members: Vec<Member>,
    /// Subscribers whose frames are not the same for all: they have packet identifiers, or something else of their own.
    apart: Vec<Subscriber>,
    pub(super) streams: Vec<Stream>,
    /// Streams of this run; others are kept for their memory.
    pub(super) used: usize,
}

impl Run {
    /// An event comes.
    pub fn ask(&mut self, event: &Event) {
        self.asked.clear();
        self.asked.push(u64::from(event.terms.qos) << 1 | u64::from(event.kind == EventKind::Message));
    }

    /// These are to hear of it.
    pub fn ask_for(&mut self, subscribers: &mut Subscribers) {
        self.asked.push(subscribers.stamp(&mut self.last_stamp));
    }

    /// Whether the event has the audience of the one before. If not, those who hear of it are to be added.
    pub fn is_asked(&self) -> bool {
        self.asked == self.audience
    }

    /// Turns to the audience of the event; the run before has ended.
    pub fn turn(&mut self) {
        std::mem::swap(&mut self.asked, &mut self.audience);
        self.members.clear();
        self.apart.clear();
        self.used = 0;
    }

    pub fn add(&mut self, subscriber: &Subscriber, kind: FrameKind) {
        if subscriber.options & DETAILED != 0 || kind.qos() > 0 {
            return self.apart.push(*subscriber);
        }
        let known = self.streams[..self.used].iter().position(|stream| stream.kind == kind);
        let stream = known.unwrap_or_else(|| {
            if self.used == self.streams.len() {
                self.streams.push(Stream { kind, bytes: Vec::new(), parts: Vec::new(), longest: 0 });
            }
            self.streams[self.used].kind = kind;
            self.used += 1;
            self.used - 1
        });
        self.members.push(Member { connection: subscriber.connection, stream: stream as u32 });
    }

    /// Those whose frames are their own. To be given back.
    pub fn take_apart(&mut self) -> Vec<Subscriber> {
        std::mem::take(&mut self.apart)
    }

    pub fn give_apart(&mut self, apart: Vec<Subscriber>) {
        self.apart = apart;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams[..self.used].iter().all(|stream| stream.parts.is_empty())
    }
}
