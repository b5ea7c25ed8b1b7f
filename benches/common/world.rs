//! Shards without sockets or disk, driven by hand: what is published at the first has its subscribers at the last.

use shards::client::{Client, Phase};
use shards::command::{Completion, ConnectionRef, Operation, Write};
use shards::event::{Body, Terms};
use shards::key::KeyCodec;
use shards::limits::{INFLIGHT_MAX, Limits};
use shards::link::{Wake, mesh};
use shards::scan::owner;
use shards::schema::{Export, TableDef, TableId};
use shards::shard::{Parts, Shard};
use shards::storage::{Directory, StorageCompletion, StorageRequest};
use shards::subscription::Request;
use shards::topic::{KeyFilter, Target};
use std::sync::Arc;
use tablecast::protocol::format::{Decoder, Format};
use tablecast::protocol::frames::{Encoding, FrameEncoder, Protocol};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

pub const TABLE: TableId = TableId(0);
const WINDOW: u16 = 64;

pub struct World {
    shards: Vec<(Shard, Directory)>,
    _folder: tempfile::TempDir,
    connections: Vec<ConnectionRef>,
    key: Vec<u8>,
    document: Vec<u8>,
    now_us: u64,
    dirty: Vec<u32>,
    next_packet_id: u16,
}

impl World {
    /// So many shards with this many subscribers of one table.
    pub fn new(count: u16, subscribers: u32, qos: u8, protocol: Protocol) -> World {
        let definition = TableDef {
            exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
            ..TableDef::new("T")
        };
        let wakes: Vec<_> = (0..count).map(|_| Arc::new(Nobody) as Arc<dyn Wake>).collect();
        let tables = [(TABLE, Arc::new(definition))];
        let folder = tempfile::tempdir().unwrap();
        let open = |(index, links): (u16, _)| {
            let encoder = Box::new(FrameEncoder::new(false));
            let parts = Parts { index, limits: Limits::default(), tables: &tables, links, encoder, salt: 1, now_us: 1 };
            let directory = Directory::open(&folder.path().join(index.to_string())).unwrap();
            (Shard::open(parts, &directory).unwrap().0, directory)
        };
        let shards = (0..).zip(mesh(&wakes)).map(open).collect();
        let json = format!(r#"{{"temp":21.5,"location":"hall 4","note":"{}"}}"#, "x".repeat(85));
        assert_eq!(json.len(), 128);
        let mut document = Vec::new();
        Decoder::default().decode(Format::Json, json.as_bytes(), &mut document).unwrap();
        let (connections, dirty) = (Vec::new(), Vec::new());
        // The record belongs to the shard at which it is published.
        let key = |number: u32| {
            let mut key = Vec::new();
            KeyCodec::Auto.encode_text(&format!("k/{number}"), &mut key).unwrap();
            key
        };
        let key = (1..).map(key).find(|key| owner(TABLE, key, usize::from(count)) == 0).unwrap();
        let mut world =
            World { key, shards, _folder: folder, connections, document, now_us: 1, dirty, next_packet_id: 1 };
        let encoding = Encoding { protocol, format: Format::Json }.code();
        let (last, _) = world.shards.last_mut().unwrap();
        for index in 0..subscribers {
            let connection = ConnectionRef { shard: count - 1, index, generation: 1 };
            last.outboxes.open(connection);
            last.outboxes.attach(connection, Client::new(WINDOW, false));
            last.subscribe(Request {
                qos,
                snapshot: false,
                ..Request::new(
                    connection,
                    vec![Target { table: TABLE, path: 0, filter: KeyFilter::below("k") }],
                    encoding,
                )
            });
            world.connections.push(connection);
        }
        (0..3).for_each(|_| _ = world.turn(0, 0)); // a subscription is asked for, confirmed, and begins
        world
    }

    /// One turn with so many messages; gives the bytes that were sent.
    pub fn turn(&mut self, events: u16, qos: u8) -> usize {
        self.turn_of(Operation::Message, events, qos)
    }

    pub fn turn_of(&mut self, operation: Operation, events: u16, qos: u8) -> usize {
        self.now_us += 10;
        let mut sent = 0;
        for at in 0..self.shards.len() {
            sent += self.turn_at(at, operation, if at == 0 { events } else { 0 }, qos);
        }
        if qos > 0 {
            for _ in 0..events {
                self.acknowledge(qos);
            }
        }
        sent
    }

    fn turn_at(&mut self, at: usize, operation: Operation, events: u16, qos: u8) -> usize {
        let (shard, directory) = &mut self.shards[at];
        shard.begin_turn(self.now_us, self.now_us);
        shard.receive();
        for _ in 0..events {
            let body = Body::new(&self.key, &self.document);
            shard.submit(Write { terms: Terms { qos, ..Terms::default() }, ..Write::new(operation, TABLE, body) });
        }
        while let Some(request) = shard.storage_request() {
            let completion = match request {
                StorageRequest::Create { .. } => request.run(directory),
                // The disk only claims to have it: what is measured here is the engine.
                StorageRequest::Commit { .. } => StorageCompletion::Committed(Ok(())),
                StorageRequest::Mark { .. } | StorageRequest::Job(_) => continue,
            };
            shard.storage_complete(completion).unwrap();
        }
        while let Some(completion) = shard.completion() {
            match completion {
                Completion::Subscribed { subscription, .. } => shard.start(subscription),
                other => panic!("unexpected: {other:?}"),
            }
        }
        let mut sent = 0;
        self.dirty.clear();
        shard.outboxes.take_dirty(&mut self.dirty);
        for &index in &self.dirty {
            if let Some(buffer) = shard.outboxes.take(index) {
                sent += buffer.len();
                shard.outboxes.sent(self.connections[index as usize], buffer);
            }
        }
        shard.end_turn();
        sent
    }

    /// Every subscriber acknowledges its next message.
    fn acknowledge(&mut self, qos: u8) {
        let (shard, _) = self.shards.last_mut().unwrap();
        let id = self.next_packet_id;
        for &connection in &self.connections {
            if qos == 1 {
                assert!(shard.acknowledge(connection, id, Phase::AtLeastOnce));
            } else {
                assert!(shard.outboxes.client(connection).is_some_and(|client| client.release(id)));
                assert!(shard.acknowledge(connection, id, Phase::Released));
            }
        }
        self.next_packet_id = self.next_packet_id % INFLIGHT_MAX as u16 + 1;
    }
}
