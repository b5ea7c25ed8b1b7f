//! Runs: consecutive events that the same connections hear of in the same bytes. Their frames are gathered once, and
//! when the run ends each connection is given all of them at once: by reference where nothing else waits for it. What
//! an event costs does not depend on how many hear of it then; what a run costs does. Where frames carry packet
//! identifiers the bytes are copied, all at once, and each connection puts its own into them.
//!
//! A run ends with the turn, when others are to hear of an event, when it is long, and before anything else is done to
//! an outbox: nobody can tell that frames were held back.

use super::{Frame, FrameKind};
use crate::client::{Client, Phase, Source};
use crate::event::{Event, EventKind};
use crate::log::Position;
use crate::subscription::{DETAILED, Subscriber, Subscribers};

/// A frame of a run.
pub(super) struct Part {
    /// Where it ends in the bytes of its stream.
    pub end: usize,
    /// Where the packet identifier stands in those.
    pub packet_id_at: Option<usize>,
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
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&frame.bytes);
        self.longest = self.longest.max(frame.bytes.len());
        let Frame { messages, payload_bytes, .. } = *frame;
        let packet_id_at = frame.packet_id_at.map(|at| start + at);
        self.parts.push(Part { end: self.bytes.len(), packet_id_at, shard, position, messages, payload_bytes });
    }

    /// Appends the frames with packet identifiers of this client's.
    pub fn copy_for(&self, client: &mut Client, phase: Phase, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for &Part { packet_id_at, shard, position, .. } in &self.parts {
            let Some(at) = packet_id_at.map(|at| start + at) else { continue };
            let id = client.begin(phase, None, Source::Event { shard, position, path: self.kind.path });
            out[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
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
    /// Subscribers whose frames are not the same for all: they have something of their own.
    apart: Vec<Subscriber>,
    pub(super) streams: Vec<Stream>,
    /// Streams of this run; others are kept for their memory.
    pub(super) used: usize,
    /// In all of them.
    pub(super) frames: usize,
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

    /// Adds a subscriber. A connection is added once: where several of its subscriptions hear of an event they are
    /// `DETAILED`, so that all that an event makes for one client goes through one place.
    pub fn add(&mut self, subscriber: &Subscriber, kind: FrameKind) {
        if subscriber.options & DETAILED != 0 {
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
}

#[cfg(test)]
mod tests {
    use super::super::{Encoded, Frames, Outboxes};
    use super::*;
    use crate::clock::Version;
    use crate::command::ConnectionRef;
    use crate::event::{Body, Terms};
    use crate::limits::FRAME_SHARE_BYTES_MIN;
    use crate::schema::TableId;

    const BOUND: usize = 64 << 10;

    struct Toy {
        outboxes: Outboxes,
        frames: Frames,
        list: Subscribers,
        seq: u64,
    }

    impl Toy {
        fn new(subscribers: u32) -> Toy {
            Toy::of(subscribers, 0)
        }

        fn of(subscribers: u32, qos: u8) -> Toy {
            let (mut outboxes, mut list) = (Outboxes::new(0, BOUND), Subscribers::default());
            for index in 0..subscribers {
                outboxes.open(connection(index));
                let encoding = (qos == 0 && index == SILENT).into();
                let kind = FrameKind { encoding, path: 0, flags: qos };
                list.enter(Subscriber { connection: index, subscription: index, kind, options: 0, target: 0 });
            }
            Toy { outboxes, frames: Frames::default(), list, seq: 0 }
        }

        /// Delivers an event whose frame is so many times this letter.
        fn event(&mut self, letter: u8, bytes: usize) {
            self.seq += 1;
            let position = Position { epoch: 1, seq: self.seq };
            let event = Event {
                kind: EventKind::Message,
                table: TableId(0),
                version: Version(self.seq),
                shard: 0,
                position,
                reached: position,
                terms: Terms::default(),
                body: Body::new(b"k", b""),
                previous: None,
            };
            let Toy { outboxes, frames, list, .. } = self;
            frames.clear();
            outboxes.run.ask(&event);
            outboxes.run.ask_for(list);
            if !outboxes.run.is_asked() {
                outboxes.settle();
                outboxes.run.turn();
                list.live().iter().for_each(|subscriber| outboxes.run.add(subscriber, subscriber.kind));
            }
            outboxes.extend_run(frames, (0, position), |kind, out| {
                if kind.encoding == 1 {
                    return None;
                }
                out.resize(bytes, letter);
                let packet_id_at = (kind.qos() > 0).then_some(2);
                Some(Encoded { packet_id_at, payload_bytes: Some(1) })
            });
        }

        /// What each connection is sent, as letters; all of it is on its way then.
        fn sent(&mut self) -> Vec<(u32, String)> {
            let mut dirty = Vec::new();
            self.outboxes.take_dirty(&mut dirty);
            let take = |index: u32| {
                let buffer = self.outboxes.take(index)?;
                let mut bytes = Vec::new();
                buffer.pieces(0, |piece| bytes.extend_from_slice(piece));
                assert_eq!(bytes.len(), buffer.len());
                bytes.dedup();
                self.outboxes.sent(connection(index), buffer);
                Some((index, String::from_utf8(bytes).unwrap()))
            };
            dirty.into_iter().filter_map(take).collect()
        }
    }

    /// A connection whose encoding has no frames.
    const SILENT: u32 = 3;

    fn row() -> Source {
        Source::Row { table: TableId(0), key: b"k"[..].into() }
    }

    fn connection(index: u32) -> ConnectionRef {
        ConnectionRef { shard: 0, index, generation: 1 }
    }

    #[test]
    fn nobody_can_tell_that_frames_were_held_back() {
        let mut toy = Toy::new(SILENT + 1);
        toy.outboxes.set_frame_bytes_max(connection(1), 100);
        toy.event(b'a', 10);
        toy.event(b'b', FRAME_SHARE_BYTES_MIN);
        toy.event(b'c', 10);
        toy.event(b'd', 200);
        toy.outboxes.write(connection(2), |out| out.push(b'!'));
        toy.event(b'e', 10);
        let expected = [(0, "abcde"), (1, "ace"), (2, "abcd!e")].map(|(index, text)| (index, text.to_owned()));
        assert_eq!(toy.sent(), expected);
        toy.event(b'f', 10);
        toy.list.leave(1);
        toy.event(b'g', 10);
        let expected = [(0, "fg"), (1, "f"), (2, "fg")].map(|(index, text)| (index, text.to_owned()));
        assert_eq!(toy.sent(), expected, "who has left is given what came before");
        assert_eq!(toy.outboxes.counters[crate::counters::Counter::MessagesSent], 5 + 3 + 5 + 2 + 1 + 2);
    }

    #[test]
    fn each_acknowledges_its_own_identifiers() {
        let mut toy = Toy::of(4, 1);
        // A wide window, one of two messages, and one whose session is kept and waits for the disk already.
        for (index, window, is_durable) in [(0, 100, false), (1, 2, false), (2, 100, true)] {
            toy.outboxes.attach(connection(index), Client::new(window, is_durable));
        }
        toy.outboxes.client(connection(0)).unwrap().begin(Phase::AtLeastOnce, None, row());
        toy.outboxes.hold(connection(2), |held| held.push(b'!'));
        (b'a'..b'd').for_each(|letter| toy.event(letter, 5));
        let sent = toy.sent();
        let of = |index: u32| sent.iter().find(|(own, _)| *own == index).map(|(_, text)| text.as_str());
        assert_eq!(of(0), Some("a\0\u{2}ab\0\u{3}bc\0\u{4}c"));
        assert_eq!(of(1), Some("a\0\u{1}ab\0\u{2}b"), "the third is read from the log");
        assert_eq!((of(2), of(3)), (None, Some("abc")), "without a client: as at QoS 0");
        let mut client = |index| {
            let client = toy.outboxes.client(connection(index)).expect("attached");
            (client.inflight().count(), client.behind().first().map(|behind| behind.from.seq), client.held.clone())
        };
        assert_eq!(client(0), (4, None, Vec::new()));
        assert_eq!(client(1), (2, Some(2), Vec::new()));
        let held = b"!aa\0\x01abb\0\x02bcc\0\x03c".to_vec();
        assert_eq!(client(2), (3, None, held), "in order, behind what waits");
        assert_eq!(toy.outboxes.counters[crate::counters::Counter::MessagesSent], 3 + 2 + 3 + 3);
    }

    #[test]
    fn what_is_shared_is_not_copied_and_the_bound_holds() {
        let mut toy = Toy::new(2);
        toy.event(b'a', 10);
        toy.event(b'b', 10);
        let mut dirty = Vec::new();
        toy.outboxes.take_dirty(&mut dirty);
        let buffers: Vec<_> = dirty.iter().filter_map(|index| toy.outboxes.take(*index)).collect();
        let address = |at: usize| buffers[at].contiguous().map(<[u8]>::as_ptr);
        assert_eq!(address(0), address(1));
        // Neither send comes to its end: what comes waits up to the bound.
        (0..2 * BOUND / 1000).for_each(|_| toy.event(b'c', 1000));
        toy.outboxes.settle();
        assert_eq!(
            (toy.outboxes.next_overflowed(), toy.outboxes.next_overflowed()),
            (Some(connection(1)), Some(connection(0)))
        );
        assert!(toy.outboxes.bytes(connection(0)) <= BOUND + crate::limits::RUN_BYTES_MAX);
    }
}
