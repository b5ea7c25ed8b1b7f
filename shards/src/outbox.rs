//! What waits to be sent to each connection: bounded in bytes, gathered while a send is in flight, handed out as one
//! buffer per connection and turn. Small frames are copied one behind the other (one contiguous send); large ones are
//! shared by reference. Idle connections hold no buffer: buffers come from a pool and go back to it.

use crate::client::{Client, Phase, Source};
use crate::command::ConnectionRef;
use crate::counters::{Counter, Counters};
use crate::event::Event;
use crate::limits::{
    FRAME_SHARE_BYTES_MIN, OUTBOX_POOL_BUFFER_BYTES, OUTBOX_POOL_BUFFER_BYTES_MAX, OUTBOX_POOL_BUFFERS,
    OUTBOX_RESERVE_BYTES, OUTBOX_STALL_BYTES, RUN_BYTES_MAX,
};
use crate::log::Position;
use crate::scan::ScanRef;
use crate::schema::TableId;
use bytes::Bytes;
use hashbrown::HashMap;
use run::{Member, Run};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

pub(crate) mod run;

/// Which encoding of an event a subscriber gets. Subscribers of one kind share the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameKind {
    /// Protocol and format; the engine does not look inside.
    pub encoding: u8,
    /// Which of the table's exported paths the subscriber used.
    pub path: u8,
    /// See the constants.
    pub flags: u8,
}

impl FrameKind {
    /// The bits that hold the quality of service: above 0 the frame carries a packet identifier.
    const QOS: u8 = 3;
    /// Current state, not news: MQTT's RETAIN bit.
    pub const RETAIN: u8 = 4;
    /// The subscriber has seen everything up to
    /// [`crate::shard::FrameContext::seen`]: the frame may say so.
    pub const POSITION: u8 = 8;
    /// It may have been sent before.
    pub const DUPLICATE: u8 = 16;
    /// The subscriber has the state before ([`crate::shard::FrameContext::previous`]): what has changed will do.
    pub const PATCH: u8 = 32;

    /// 0 to 2.
    pub fn qos(self) -> u8 {
        self.flags & FrameKind::QOS
    }

    pub fn with_qos(self, qos: u8) -> FrameKind {
        FrameKind { flags: self.flags & !FrameKind::QOS | qos, ..self }
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn with(mut self, flag: u8) -> FrameKind {
        self.flags |= flag;
        self
    }
}

/// An encoded event.
pub struct Frame {
    pub kind: FrameKind,
    pub bytes: Vec<u8>,
    /// Where the two bytes of the packet identifier stand.
    pub packet_id_at: Option<usize>,
    /// 1 if it is counted as a message, and the bytes of its payload.
    messages: u64,
    payload_bytes: u64,
    /// The same bytes to share, made when first needed.
    shared: Option<Bytes>,
}

impl Frame {
    fn empty(kind: FrameKind) -> Frame {
        Frame { kind, bytes: Vec::new(), packet_id_at: None, messages: 0, payload_bytes: 0, shared: None }
    }

    fn fill(&mut self, kind: FrameKind, encode: impl FnOnce(&mut Vec<u8>) -> Option<Encoded>) {
        self.kind = kind;
        self.bytes.clear();
        self.shared = None;
        match encode(&mut self.bytes) {
            Some(Encoded { packet_id_at, payload_bytes }) => {
                self.packet_id_at = packet_id_at;
                self.messages = payload_bytes.is_some().into();
                self.payload_bytes = payload_bytes.unwrap_or_default() as u64;
            }
            None => self.bytes.clear(),
        }
    }

    fn shared(&mut self) -> Bytes {
        self.shared.get_or_insert_with(|| Bytes::copy_from_slice(&self.bytes)).clone()
    }
}

/// The encodings of one event, each made at most once. Its buffers are reused from event to event.
#[derive(Default)]
pub struct Frames {
    frames: Vec<Frame>,
    used: usize,
    /// For frames that one subscriber alone gets.
    own: Option<Frame>,
}

impl Frames {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The frame of a kind, encoded by `encode` if this is the first time. `None`: this event has no such frame.
    pub fn get(&mut self, kind: FrameKind, encode: impl FnOnce(&mut Vec<u8>) -> Option<Encoded>) -> Option<&mut Frame> {
        let at = match self.frames[..self.used].iter().position(|frame| frame.kind == kind) {
            Some(at) => at,
            None => {
                if self.used == self.frames.len() {
                    self.frames.push(Frame::empty(kind));
                }
                self.frames[self.used].fill(kind, encode);
                self.used += 1;
                self.used - 1
            }
        };
        let frame = &mut self.frames[at];
        if frame.bytes.is_empty() { None } else { Some(frame) }
    }

    /// A frame that is shared with nobody.
    pub fn own(&mut self, kind: FrameKind, encode: impl FnOnce(&mut Vec<u8>) -> Option<Encoded>) -> Option<&mut Frame> {
        let frame = self.own.get_or_insert_with(|| Frame::empty(kind));
        frame.fill(kind, encode);
        if frame.bytes.is_empty() { None } else { Some(frame) }
    }
}

/// What an encoder says of the frame that it has appended.
pub struct Encoded {
    pub packet_id_at: Option<usize>,
    /// Of a message that is counted as such (MQTT).
    pub payload_bytes: Option<usize>,
}

/// What a frame was made of.
pub enum Origin<'a> {
    Event {
        shard: u16,
        position: Position,
    },
    /// An event that was read from the log, for one client.
    Replayed {
        shard: u16,
        position: Position,
        shared: Option<u32>,
    },
    Row {
        table: TableId,
        key: &'a [u8],
    },
    /// It is in flight already, and sent again.
    Again {
        packet_id: u16,
    },
}

impl Origin<'_> {
    fn source(&self, path: u8) -> Source {
        match *self {
            Origin::Event { shard, position } | Origin::Replayed { shard, position, .. } => {
                Source::Event { shard, position, path }
            }
            Origin::Row { table, key } => Source::Row { table, key: key.into() },
            Origin::Again { .. } => unreachable!("it has its place"),
        }
    }

    fn shared(&self) -> Option<u32> {
        match self {
            Origin::Replayed { shared, .. } => *shared,
            _ => None,
        }
    }
}

/// A part of a send that is not in the contiguous buffer: it goes before the byte at `at`.
pub struct Splice {
    pub at: usize,
    pub bytes: Bytes,
}

/// All that one send carries. The reactor owns it until the send is complete, then gives it back.
#[derive(Default)]
#[repr(C)]
pub struct SendBuffer {
    /// If it is there it is all there is: the same bytes for many connections.
    pub shared: Option<Arc<[u8]>>,
    pub bytes: Vec<u8>,
    pub splices: Vec<Splice>,
}

impl SendBuffer {
    pub fn len(&self) -> usize {
        match self.contiguous() {
            Some(bytes) => bytes.len(),
            None => self.bytes.len() + self.splices.iter().map(|splice| splice.bytes.len()).sum::<usize>(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.splices.is_empty() && self.shared.is_none()
    }

    /// All of it, where it lies in one piece.
    pub fn contiguous(&self) -> Option<&[u8]> {
        match &self.shared {
            Some(shared) => Some(shared),
            None => self.splices.is_empty().then_some(&self.bytes),
        }
    }

    /// Its pieces from the byte `from` on, in order.
    pub fn pieces<'a>(&'a self, mut from: usize, mut body: impl FnMut(&'a [u8])) {
        let mut add = |slice: &'a [u8]| {
            let skip = from.min(slice.len());
            from -= skip;
            if skip < slice.len() {
                body(&slice[skip..]);
            }
        };
        if let Some(shared) = &self.shared {
            return add(shared);
        }
        let mut at = 0;
        for splice in &self.splices {
            add(&self.bytes[at..splice.at]);
            add(&splice.bytes);
            at = splice.at;
        }
        add(&self.bytes[at..]);
    }

    /// More is to come behind shared bytes: from here on they are its own.
    fn own(&mut self, pool: &mut Vec<Vec<u8>>) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.pop().unwrap_or_else(|| Vec::with_capacity(OUTBOX_POOL_BUFFER_BYTES));
        }
        if let Some(shared) = self.shared.take() {
            self.bytes.extend_from_slice(&shared);
        }
    }
}

/// Fan-out goes from one to the next: what it looks at as a rule stands in the first line of the cache, with the shared
/// bytes of what waits.
#[derive(Default)]
#[repr(C)]
struct Outbox {
    generation: u32,
    /// Longer frames are left out, as the client asked; 0: no limit.
    frame_bytes_max: u32,
    open: bool,
    dirty: bool,
    overflowed: bool,
    in_flight: bool,
    /// Somebody waits for room here.
    stalled: bool,
    /// Its client is behind: see there whether an event is to be left out.
    is_behind: bool,
    /// Its client has a pace.
    is_paced: bool,
    /// Its bytes are counted as sent: it speaks MQTT.
    is_counted: bool,
    /// Bytes in `waiting`, held for the disk and in flight.
    bytes: usize,
    in_flight_bytes: usize,
    /// Of a connection that acknowledges.
    client: Option<Box<Client>>,
    waiting: SendBuffer,
}

impl Outbox {
    /// Whether a frame of this length may be sent.
    fn takes(&self, bytes: usize) -> bool {
        self.frame_bytes_max == 0 || bytes <= self.frame_bytes_max as usize
    }
}

/// The outboxes of a shard, by connection index.
pub struct Outboxes {
    shard: u16,
    boxes: Vec<Outbox>,
    dirty: Vec<u32>,
    overflowed: Vec<ConnectionRef>,
    /// Connections whose session is to be saved: frames are held until it is.
    unsaved: Vec<ConnectionRef>,
    /// What is sent is counted here; whoever works for these connections may count on.
    pub counters: Counters,
    pool: Vec<Vec<u8>>,
    bytes_max: usize,
    /// The time of this turn.
    pub ticks_us: u64,
    /// Scans that wait for room, by the index of their connection.
    stalled_scans: HashMap<u32, Vec<ScanRef>>,
    /// Connections with a pace that wait for their next window.
    paced: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Frames that are still to be given to those that are to get them.
    pub(crate) run: Run,
}

impl Outboxes {
    pub fn new(shard: u16, bytes_max: usize) -> Outboxes {
        Outboxes {
            shard,
            boxes: Vec::new(),
            dirty: Vec::new(),
            overflowed: Vec::new(),
            unsaved: Vec::new(),
            counters: Counters::default(),
            pool: Vec::new(),
            bytes_max,
            ticks_us: 0,
            stalled_scans: HashMap::new(),
            paced: BinaryHeap::new(),
            run: Run::default(),
        }
    }

    pub fn open(&mut self, connection: ConnectionRef) {
        self.settle();
        let index = connection.index as usize;
        if index >= self.boxes.len() {
            self.boxes.resize_with(index + 1, Outbox::default);
        }
        self.boxes[index] = Outbox { generation: connection.generation, open: true, ..Outbox::default() };
    }

    /// The connection is gone, and nothing of it is in flight any more.
    pub fn close(&mut self, connection: ConnectionRef) {
        if let Some(outbox) = self.get(connection) {
            let outbox = std::mem::take(outbox);
            self.recycle(outbox.waiting.bytes);
            self.stalled_scans.remove(&connection.index);
        }
    }

    fn get(&mut self, connection: ConnectionRef) -> Option<&mut Outbox> {
        self.settle();
        let outbox = self.boxes.get_mut(connection.index as usize)?;
        (outbox.open && outbox.generation == connection.generation).then_some(outbox)
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        let fits = (OUTBOX_POOL_BUFFER_BYTES..=OUTBOX_POOL_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && self.pool.len() < OUTBOX_POOL_BUFFERS {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// The connection acknowledges what it gets: at most `window` messages are in flight to it.
    pub fn attach(&mut self, connection: ConnectionRef, client: Client) {
        if let Some(outbox) = self.get(connection) {
            outbox.is_behind = client.is_behind();
            outbox.is_paced = client.pace.is_some();
            outbox.is_counted = !client.is_stream;
            outbox.client = Some(Box::new(client));
        }
    }

    pub fn client(&mut self, connection: ConnectionRef) -> Option<&mut Client> {
        self.get(connection)?.client.as_deref_mut()
    }

    /// The client of an open connection, by its index.
    pub fn client_at(&mut self, index: u32) -> Option<&mut Client> {
        self.settle();
        self.boxes.get_mut(index as usize)?.client.as_deref_mut()
    }

    /// To be called when a client has caught up with a shard.
    pub fn update_behind(&mut self, connection: ConnectionRef) {
        if let Some(outbox) = self.get(connection) {
            outbox.is_behind = outbox.client.as_ref().is_some_and(|client| client.is_behind());
        }
    }

    /// Events whose frames are longer are not sent to this connection (MQTT 5 §3.1.2.11.4).
    pub fn set_frame_bytes_max(&mut self, connection: ConnectionRef, bytes: usize) {
        if let Some(outbox) = self.get(connection) {
            outbox.frame_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
    }

    /// How many events the pace of a connection's client allows now. None: [`Outboxes::next_paced`] gives it when it does.
    pub fn allowance(&mut self, connection: ConnectionRef) -> usize {
        self.settle();
        let outbox = self.boxes.get_mut(connection.index as usize);
        let client = outbox.and_then(|outbox| outbox.client.as_deref_mut());
        let place = (connection.index, connection.generation);
        client.map_or(usize::MAX, |client| wait_for_pace(client, &mut self.paced, self.ticks_us, place) as usize)
    }

    /// The next connection whose pace allows more.
    pub fn next_paced(&mut self) -> Option<ConnectionRef> {
        let Reverse((at_us, index, generation)) = *self.paced.peek()?;
        if at_us > self.ticks_us {
            return None;
        }
        self.paced.pop();
        let connection = ConnectionRef { shard: self.shard, index, generation };
        if let Some(pace) = self.client(connection).and_then(|client| client.pace.as_mut()) {
            pace.is_queued = false;
        }
        Some(connection)
    }

    /// When that will be, on the clock of turns.
    pub fn paced_at_us(&self) -> Option<u64> {
        self.paced.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    /// Bytes that wait for the connection or are in flight to it.
    pub fn bytes(&self, connection: ConnectionRef) -> usize {
        self.boxes.get(connection.index as usize).map_or(0, |outbox| outbox.bytes)
    }

    /// Whether so much waits already that a scan, or the next request, should pause. [`Outboxes::sent`] tells when it
    /// may go on.
    pub fn stall(&mut self, connection: ConnectionRef, scan: Option<ScanRef>) -> bool {
        let enough = (self.bytes_max / 2).min(OUTBOX_STALL_BYTES);
        let Some(outbox) = self.get(connection) else { return false };
        // A scan waits for a used-up window as well.
        let has_room = scan.is_none() || outbox.client.as_ref().is_none_or(|client| client.room() > 0);
        let stalled = outbox.bytes > enough || !has_room;
        if stalled {
            outbox.stalled = true;
            if let Some(scan) = scan {
                let scans = self.stalled_scans.entry(connection.index).or_default();
                scans.extend(Some(scan).filter(|scan| !scans.contains(scan)));
            }
        }
        stalled
    }

    /// Whether a scan waits for room.
    pub fn is_stalled(&self, connection: ConnectionRef, scan: ScanRef) -> bool {
        self.stalled_scans.get(&connection.index).is_some_and(|scans| scans.contains(&scan))
    }

    /// The scans that waited for room.
    pub fn take_stalled(&mut self, connection: ConnectionRef) -> Vec<ScanRef> {
        if self.stalled_scans.is_empty() || self.get(connection).is_none() {
            return Vec::new();
        }
        self.stalled_scans.remove(&connection.index).unwrap_or_default()
    }

    /// Whether messages that are delivered at most once are left out.
    pub fn is_full(&mut self, connection: ConnectionRef) -> bool {
        let bytes_max = self.bytes_max;
        self.get(connection).is_none_or(|outbox| outbox.bytes > bytes_max)
    }

    /// Whether a frame of this length may be sent to the connection.
    pub fn takes(&mut self, connection: ConnectionRef, bytes: usize) -> bool {
        self.get(connection).is_some_and(|outbox| outbox.takes(bytes))
    }

    /// Writes of the protocol itself: acknowledgements, responses. They may use the reserve beyond the bound; who
    /// writes more while that is used up is disconnected.
    pub fn write(&mut self, connection: ConnectionRef, body: impl FnOnce(&mut Vec<u8>)) {
        let bound = self.bytes_max + OUTBOX_RESERVE_BYTES;
        if self.get(connection).is_none() {
            return;
        }
        let Outboxes { boxes, pool, overflowed, .. } = self;
        let outbox = &mut boxes[connection.index as usize];
        outbox.waiting.own(pool);
        if outbox.bytes > bound && !outbox.overflowed {
            outbox.overflowed = true;
            overflowed.push(connection);
        }
        let before = outbox.waiting.bytes.len();
        body(&mut outbox.waiting.bytes);
        outbox.bytes += outbox.waiting.bytes.len() - before;
        self.mark(connection.index);
    }

    /// Queues shared bytes behind what waits, without a copy.
    pub fn write_shared(&mut self, connection: ConnectionRef, bytes: Bytes) {
        if bytes.len() < FRAME_SHARE_BYTES_MIN {
            return self.write(connection, |out| out.extend_from_slice(&bytes));
        }
        if self.get(connection).is_none() {
            return;
        }
        let Outboxes { boxes, pool, .. } = self;
        let outbox = &mut boxes[connection.index as usize];
        if outbox.waiting.shared.is_some() {
            outbox.waiting.own(pool);
        }
        outbox.bytes += bytes.len();
        let at = outbox.waiting.bytes.len();
        outbox.waiting.splices.push(Splice { at, bytes });
        self.mark(connection.index);
    }

    fn mark(&mut self, index: u32) {
        let outbox = &mut self.boxes[index as usize];
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Adds an event's frames to the run, each encoded by `encode`.
    pub(crate) fn extend_run(
        &mut self,
        frames: &mut Frames,
        (shard, position): (u16, Position),
        mut encode: impl FnMut(FrameKind, &mut Vec<u8>) -> Option<Encoded>,
    ) {
        let mut is_long = false;
        for number in 0..self.run.used {
            let stream = &mut self.run.streams[number];
            let kind = stream.kind;
            let Some(frame) = frames.get(kind, |out| encode(kind, out)) else { continue };
            if frame.bytes.len() < FRAME_SHARE_BYTES_MIN {
                stream.add(frame, shard, position);
                self.run.frames += 1;
                is_long |= stream.bytes.len() >= RUN_BYTES_MAX;
                continue;
            }
            // Large frames are shared by themselves.
            self.settle();
            let run = std::mem::take(&mut self.run);
            for member in run.members.iter().filter(|member| member.stream as usize == number) {
                self.push_apart(member.connection, frame, &Origin::Event { shard, position });
            }
            self.run = run;
        }
        if is_long {
            self.settle();
        }
    }

    /// Ends the run: everyone is given its frames.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.run.frames > 0 {
            self.give();
        }
    }

    fn give(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        let streams = &run.streams[..run.used];
        let shared = |stream: &run::Stream| (stream.kind.qos() == 0).then(|| stream.bytes.as_slice().into());
        let all: Vec<Option<Arc<[u8]>>> = streams.iter().map(shared).collect();
        for &Member { connection, stream } in &run.members {
            let (stream, shared) = (&streams[stream as usize], &all[stream as usize]);
            if stream.parts.is_empty() {
                continue; // events that this encoding has no frames for
            }
            let Some(outbox) = self.boxes.get_mut(connection as usize).filter(|own| own.open && !own.overflowed) else {
                continue;
            };
            if !outbox.takes(stream.longest) || outbox.bytes > self.bytes_max || outbox.is_behind || outbox.is_paced {
                self.give_parts(connection, stream);
                continue;
            }
            match shared {
                Some(shared) if outbox.bytes == 0 || outbox.waiting.is_empty() => {
                    outbox.waiting.shared = Some(shared.clone());
                }
                Some(shared) => {
                    outbox.waiting.own(&mut self.pool);
                    outbox.waiting.bytes.extend_from_slice(shared);
                }
                None => {
                    let phase = Phase::of(stream.kind);
                    let client = outbox.client.as_deref_mut();
                    let Some(client) = client.filter(|own| own.takes_at_once(phase, stream.parts.len())) else {
                        self.give_parts(connection, stream);
                        continue;
                    };
                    outbox.waiting.own(&mut self.pool);
                    stream.copy_for(client, phase, &mut outbox.waiting.bytes);
                }
            }
            outbox.bytes += stream.bytes.len();
            for part in &stream.parts {
                self.counters[Counter::MessagesSent] += part.messages;
                self.counters[Counter::PayloadBytesSent] += part.payload_bytes;
            }
            self.mark(connection);
        }
        run.streams.iter_mut().for_each(run::Stream::clear);
        run.frames = 0;
        self.run = run;
    }

    /// Gives a connection the frames of a stream one by one: not all of them may be for it.
    fn give_parts(&mut self, connection: u32, stream: &run::Stream) {
        let (mut frame, mut from) = (Frame::empty(stream.kind), 0);
        for part in &stream.parts {
            frame.bytes.clear();
            frame.bytes.extend_from_slice(&stream.bytes[from..part.end]);
            frame.packet_id_at = part.packet_id_at.map(|at| at - from);
            (frame.messages, frame.payload_bytes, from) = (part.messages, part.payload_bytes, part.end);
            let origin = Origin::Event { shard: part.shard, position: part.position };
            self.push_apart(connection, &mut frame, &origin);
        }
    }

    /// Queues an event's frame. At the bound a client falls behind and is given the rest from the log; a connection
    /// without one is disconnected: it does not read.
    pub fn push(&mut self, index: u32, frame: &mut Frame, origin: &Origin<'_>) {
        self.settle();
        self.push_apart(index, frame, origin);
    }

    /// The same for a connection that no run is for.
    pub(crate) fn push_apart(&mut self, index: u32, frame: &mut Frame, origin: &Origin<'_>) {
        let Some(outbox) = self.boxes.get_mut(index as usize).filter(|outbox| outbox.open && !outbox.overflowed) else {
            return;
        };
        if !outbox.takes(frame.bytes.len()) {
            return;
        }
        let qos = frame.kind.qos();
        // Looked at before the frame: a single one that is larger than the bound still reaches who reads.
        let is_full = outbox.bytes > self.bytes_max;
        let mut packet_id = None;
        if is_full || qos > 0 || outbox.is_behind || outbox.is_paced {
            let Some(client) = &mut outbox.client else {
                if is_full {
                    outbox.overflowed = true;
                    let generation = outbox.generation;
                    self.overflowed.push(ConnectionRef { shard: self.shard, index, generation });
                    return;
                }
                return append_frame(outbox, index, frame, None, &mut self.pool, &mut self.dirty, &mut self.counters);
            };
            if !client.has_begun {
                return; // [MQTT-3.2.0-1]; what must not be lost is read from the log
            }
            if let Origin::Event { shard, position } = *origin {
                if outbox.is_behind && client.reads_later(shard, qos) {
                    return;
                }
                // A stream that is behind on one shard reads all of them from their logs: what it is told of its place
                // must be true.
                let follows = client.is_stream && outbox.is_behind;
                let is_early = wait_for_pace(client, &mut self.paced, self.ticks_us, (index, outbox.generation)) == 0;
                if is_full || follows || is_early || (qos > 0 && client.room() == 0) {
                    client.fall_behind(shard, position, is_full || follows || is_early);
                    outbox.is_behind = true;
                    outbox.stalled = true;
                    return;
                }
            }
            if matches!(origin, Origin::Event { .. } | Origin::Replayed { .. }) {
                client.take_allowance();
            }
            if let (1.., Some(at)) = (qos, frame.packet_id_at) {
                let phase = Phase::of(frame.kind);
                let id = match origin {
                    Origin::Again { packet_id } => *packet_id,
                    _ if client.room() == 0 => return,
                    origin => client.begin(phase, origin.shared(), origin.source(frame.kind.path)),
                };
                // What comes behind a message that is held waits with it: the order stays.
                if client.holds(phase) && !matches!(origin, Origin::Again { .. }) {
                    let start = client.held.len();
                    client.held.extend_from_slice(&frame.bytes);
                    client.held[start + at..start + at + 2].copy_from_slice(&id.to_be_bytes());
                    outbox.bytes += frame.bytes.len();
                    count(frame, &mut self.counters);
                    if start == 0 {
                        let generation = outbox.generation;
                        self.unsaved.push(ConnectionRef { shard: self.shard, index, generation });
                    }
                    return;
                }
                packet_id = Some((at, id));
            }
        }
        append_frame(outbox, index, frame, packet_id, &mut self.pool, &mut self.dirty, &mut self.counters);
    }

    /// The topic alias with which a frame may be sent, and whether the client knows it already. To be asked only for
    /// frames that are pushed next.
    pub fn alias(&mut self, index: u32, event: &Event, kind: FrameKind) -> Option<(u16, bool)> {
        self.settle();
        let bytes_max = self.bytes_max;
        let outbox = self.boxes.get_mut(index as usize)?;
        let client = outbox.client.as_deref_mut().filter(|client| client.alias_maximum > 0 && client.has_begun)?;
        // The frame that teaches an alias must not be left out, nor be overtaken.
        let is_sent = outbox.open && !outbox.overflowed && outbox.bytes <= bytes_max && outbox.frame_bytes_max == 0;
        let qos = kind.qos();
        let waits = client.reads_later(event.shard, qos) || (qos > 0 && (client.is_durable || client.room() == 0));
        if is_sent && !waits { client.alias(event.table, kind.path, event.body.key()) } else { None }
    }

    /// Queues bytes that must not be sent before the session has been saved.
    pub fn hold(&mut self, connection: ConnectionRef, body: impl FnOnce(&mut Vec<u8>)) {
        let Some(outbox) = self.get(connection) else { return };
        let Some(client) = &mut outbox.client else { return };
        let start = client.held.len();
        body(&mut client.held);
        outbox.bytes += client.held.len() - start;
        if start == 0 {
            self.unsaved.push(connection);
        }
    }

    /// The session is being saved: what is held now may go when that is done.
    pub fn cover(&mut self, connection: ConnectionRef) {
        if let Some(client) = self.client(connection) {
            client.covered = client.held.len();
        }
    }

    /// The session has been saved: what was held then goes. True: more is held, it is to be saved again.
    pub fn saved(&mut self, connection: ConnectionRef) -> bool {
        let Some(client) = self.client(connection) else { return false };
        let covered = std::mem::take(&mut client.covered);
        let more = client.held.len() > covered;
        let held = if more { client.held.split_off(covered) } else { Vec::new() };
        let bytes = std::mem::replace(&mut client.held, held);
        if let Some(outbox) = self.get(connection) {
            outbox.bytes -= bytes.len(); // it is counted again where it goes
        }
        if !bytes.is_empty() {
            self.write(connection, |out| out.extend_from_slice(&bytes));
        }
        more
    }

    /// Connections with something to send, to be asked with [`Outboxes::take`].
    pub fn take_dirty(&mut self, into: &mut Vec<u32>) {
        self.settle();
        into.append(&mut self.dirty);
        for &index in into.iter() {
            self.boxes[index as usize].dirty = false;
        }
    }

    /// What is to be sent now; `None` while a send is in flight or where nothing waits.
    pub fn take(&mut self, index: u32) -> Option<SendBuffer> {
        let outbox = self.boxes.get_mut(index as usize)?;
        if !outbox.open || outbox.in_flight {
            return None;
        }
        let buffer = match outbox.waiting.shared.take() {
            Some(shared) => SendBuffer { shared: Some(shared), ..SendBuffer::default() },
            None if outbox.waiting.is_empty() => return None,
            None => std::mem::take(&mut outbox.waiting),
        };
        outbox.in_flight = true;
        outbox.in_flight_bytes = buffer.len();
        if outbox.is_counted {
            self.counters[Counter::BytesSent] += outbox.in_flight_bytes as u64;
        }
        Some(buffer)
    }

    /// A send is complete. True: somebody had been waiting for room.
    pub fn sent(&mut self, connection: ConnectionRef, buffer: SendBuffer) -> bool {
        self.recycle(buffer.bytes);
        let Some(outbox) = self.get(connection) else { return false };
        outbox.in_flight = false;
        outbox.bytes -= outbox.in_flight_bytes;
        outbox.in_flight_bytes = 0;
        let more = outbox.bytes > 0 && !outbox.waiting.is_empty();
        let stalled = std::mem::take(&mut outbox.stalled);
        if more {
            self.mark(connection.index);
        }
        stalled
    }

    /// Whether everything has been sent.
    pub fn is_drained(&mut self, connection: ConnectionRef) -> bool {
        self.get(connection).is_none_or(|outbox| !outbox.in_flight && outbox.waiting.is_empty())
    }

    pub fn next_overflowed(&mut self) -> Option<ConnectionRef> {
        self.overflowed.pop()
    }

    /// A connection whose session is to be saved.
    pub fn next_unsaved(&mut self) -> Option<ConnectionRef> {
        self.unsaved.pop()
    }
}

fn count(frame: &Frame, counters: &mut Counters) {
    counters[Counter::MessagesSent] += frame.messages;
    counters[Counter::PayloadBytesSent] += frame.payload_bytes;
}

/// How many events a client's pace allows now; where there are none, it is queued until there are.
fn wait_for_pace(
    client: &mut Client,
    paced: &mut BinaryHeap<Reverse<(u64, u32, u32)>>,
    ticks_us: u64,
    (index, generation): (u32, u32),
) -> u32 {
    match (client.allowance(ticks_us), &mut client.pace) {
        (Ok(left), _) => left,
        (Err(_), None) => 0,
        (Err(at_us), Some(pace)) => {
            if !std::mem::replace(&mut pace.is_queued, true) {
                paced.push(Reverse((at_us, index, generation)));
            }
            0
        }
    }
}

fn append_frame(
    outbox: &mut Outbox,
    index: u32,
    frame: &mut Frame,
    packet_id: Option<(usize, u16)>,
    pool: &mut Vec<Vec<u8>>,
    dirty: &mut Vec<u32>,
    counters: &mut Counters,
) {
    outbox.bytes += frame.bytes.len();
    count(frame, counters);
    outbox.waiting.own(pool);
    if frame.bytes.len() < FRAME_SHARE_BYTES_MIN {
        append(&mut outbox.waiting, &frame.bytes, packet_id);
    } else {
        append_shared(&mut outbox.waiting, frame.shared(), packet_id);
    }
    if !outbox.dirty {
        outbox.dirty = true;
        dirty.push(index);
    }
}

fn append(buffer: &mut SendBuffer, frame: &[u8], packet_id: Option<(usize, u16)>) {
    let start = buffer.bytes.len();
    buffer.bytes.extend_from_slice(frame);
    if let Some((at, id)) = packet_id {
        buffer.bytes[start + at..start + at + 2].copy_from_slice(&id.to_be_bytes());
    }
}

/// The head up to the packet identifier is each connection's own; the rest is shared.
fn append_shared(buffer: &mut SendBuffer, frame: Bytes, packet_id: Option<(usize, u16)>) {
    let mut rest = frame;
    if let Some((at, id)) = packet_id {
        let head = rest.split_to(at + 2);
        buffer.bytes.extend_from_slice(&head[..at]);
        buffer.bytes.extend_from_slice(&id.to_be_bytes());
    }
    let at = buffer.bytes.len();
    buffer.splices.push(Splice { at, bytes: rest });
}
