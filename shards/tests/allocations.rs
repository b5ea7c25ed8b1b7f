//! Promise: once warm, an event costs a constant number of allocations, however many hear of it.

use shards::client::{Client, Phase};
use shards::command::{Completion, ConnectionRef, Operation, Write};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::limits::{INFLIGHT_MAX, Limits};
use shards::link::{Wake, mesh};
use shards::outbox::{Encoded, FrameKind};
use shards::schema::{Export, TableDef, TableId};
use shards::shard::{Encoder, FrameContext, Parts, Shard};
use shards::storage::{Directory, StorageCompletion, StorageRequest};
use shards::subscription::Request;
use shards::topic::{KeyFilter, Target};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator; counting touches only a thread-local number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Frames are a place for the packet identifier and the document.
struct Plain;

impl Encoder for Plain {
    fn encode(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded> {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(context.document);
        Some(Encoded { packet_id_at: (kind.qos() > 0).then_some(0), payload_bytes: Some(out.len()) })
    }
}

const TABLE: TableId = TableId(0);
const WINDOW: u16 = 16;

struct World {
    shard: Shard,
    directory: Directory,
    _folder: tempfile::TempDir,
    connections: Vec<ConnectionRef>,
    key: Vec<u8>,
    now_us: u64,
    dirty: Vec<u32>,
    /// Given to every connection alike.
    next_packet_id: u16,
}

impl World {
    fn new(subscribers: u32, qos: u8) -> World {
        let definition = TableDef {
            exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
            ..TableDef::new("T")
        };
        let links = mesh(&[Arc::new(Nobody) as Arc<dyn Wake>]).remove(0);
        let tables = [(TABLE, Arc::new(definition))];
        let parts = Parts {
            index: 0,
            limits: Limits::default(),
            tables: &tables,
            links,
            encoder: Box::new(Plain),
            salt: 1,
            now_us: 1,
        };
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let (shard, _) = Shard::open(parts, &directory).unwrap();
        let mut key = Vec::new();
        KeyCodec::Auto.encode_text("k/1", &mut key).unwrap();
        let mut world = World {
            key,
            shard,
            directory,
            _folder: folder,
            connections: Vec::new(),
            now_us: 1,
            dirty: Vec::new(),
            next_packet_id: 1,
        };
        for index in 0..subscribers {
            let connection = ConnectionRef { shard: 0, index, generation: 1 };
            world.shard.outboxes.open(connection);
            world.shard.outboxes.attach(connection, Client::new(WINDOW, false));
            let target = Target { table: TABLE, path: 0, filter: KeyFilter::below("k") };
            world.shard.subscribe(Request { qos, snapshot: false, ..Request::new(connection, vec![target], 0) });
            world.connections.push(connection);
        }
        world.turn(0);
        world
    }

    /// One turn with this many events; everything is sent, flushed and acknowledged. Gives the number of frames' bytes.
    fn turn(&mut self, events: u16) -> usize {
        self.now_us += 10;
        self.shard.begin_turn(self.now_us, self.now_us);
        for _ in 0..events {
            let body = Body::new(&self.key, &[0x81, 0xa1, b'a', 0x01]);
            let operation = Operation::Message;
            self.shard.submit(Write::new(operation, TABLE, body));
        }
        while let Some(request) = self.shard.storage_request() {
            let completion = match request {
                StorageRequest::Create { .. } => request.run(&self.directory),
                // The disk only claims to have it: what is measured here is the engine.
                StorageRequest::Commit { .. } => StorageCompletion::Committed(Ok(())),
                StorageRequest::Mark { .. } | StorageRequest::Job(_) => continue,
            };
            self.shard.storage_complete(completion).unwrap();
        }
        while let Some(completion) = self.shard.completion() {
            match completion {
                Completion::Subscribed { subscription, .. } => self.shard.start(subscription),
                other => panic!("unexpected: {other:?}"),
            }
        }
        let mut sent = 0;
        self.dirty.clear();
        self.shard.outboxes.take_dirty(&mut self.dirty);
        for &index in &self.dirty {
            let connection = self.connections[index as usize];
            let buffer = self.shard.outboxes.take(index).expect("something waits");
            sent += buffer.len();
            self.shard.outboxes.sent(connection, buffer);
        }
        self.shard.end_turn();
        sent
    }

    fn acknowledge(&mut self, events: u16) {
        for _ in 0..events {
            for &connection in &self.connections {
                assert!(self.shard.acknowledge(connection, self.next_packet_id, Phase::AtLeastOnce));
            }
            self.next_packet_id = self.next_packet_id % INFLIGHT_MAX as u16 + 1;
        }
    }

    /// Allocations of 64 turns of 8 events, once warm.
    fn allocations(&mut self, qos: u8) -> u64 {
        let mut before = 0;
        for turn in 0..128 {
            if turn == 64 {
                before = ALLOCATIONS.get();
            }
            let sent = self.turn(8);
            assert_eq!(sent, 8 * 6 * self.connections.len(), "everybody hears everything");
            if qos > 0 {
                self.acknowledge(8);
            }
        }
        ALLOCATIONS.get() - before
    }
}

#[test]
fn allocations_do_not_grow_with_subscribers() {
    for qos in [0, 1] {
        let [few, many] = [10, 1000].map(|subscribers| World::new(subscribers, qos).allocations(qos));
        println!("QoS {qos}, 512 events: {few} allocations for 10 subscribers, {many} for 1,000");
        assert!(few <= 512 * 8, "QoS {qos}: {few} allocations for 512 events");
        assert!(many <= few + 32, "QoS {qos}: {few} allocations with 10 subscribers, {many} with 1,000");
    }
}
