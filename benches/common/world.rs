//! A shard with subscribers and without sockets or disk, driven by hand.

use shards::client::{Client, Phase};
use shards::command::{Completion, ConnectionRef, Operation, Write};
use shards::event::{Body, Terms};
use shards::key::KeyCodec;
use shards::limits::{INFLIGHT_MAX, Limits};
use shards::link::{Wake, mesh};
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
    shard: Shard,
    directory: Directory,
    _folder: tempfile::TempDir,
    connections: Vec<ConnectionRef>,
    key: Vec<u8>,
    document: Vec<u8>,
    now_us: u64,
    dirty: Vec<u32>,
    next_packet_id: u16,
}

impl World {
    /// A shard with this many subscribers of one table.
    pub fn new(subscribers: u32, qos: u8, protocol: Protocol) -> World {
        let definition = TableDef {
            exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
            ..TableDef::new("T")
        };
        let links = mesh(&[Arc::new(Nobody) as Arc<dyn Wake>]).remove(0);
        let tables = [(TABLE, Arc::new(definition))];
        let encoder = Box::new(FrameEncoder::new(false));
        let parts = Parts { index: 0, limits: Limits::default(), tables: &tables, links, encoder, salt: 1, now_us: 1 };
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let (shard, _) = Shard::open(parts, &directory).unwrap();
        let json = format!(r#"{{"temp":21.5,"location":"hall 4","note":"{}"}}"#, "x".repeat(85));
        assert_eq!(json.len(), 128);
        let mut document = Vec::new();
        Decoder::default().decode(Format::Json, json.as_bytes(), &mut document).unwrap();
        let (connections, dirty) = (Vec::new(), Vec::new());
        let mut key = Vec::new();
        KeyCodec::Auto.encode_text("k/1", &mut key).unwrap();
        let mut world = World {
            key,
            shard,
            directory,
            _folder: folder,
            connections,
            document,
            now_us: 1,
            dirty,
            next_packet_id: 1,
        };
        let encoding = Encoding { protocol, format: Format::Json }.code();
        for index in 0..subscribers {
            let connection = ConnectionRef { shard: 0, index, generation: 1 };
            world.shard.outboxes.open(connection);
            world.shard.outboxes.attach(connection, Client::new(WINDOW, false));
            world.shard.subscribe(Request {
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
        world.turn(0, 0);
        world
    }

    /// One turn with so many messages; gives the bytes that were sent.
    pub fn turn(&mut self, events: u16, qos: u8) -> usize {
        self.turn_of(Operation::Message, events, qos)
    }

    pub fn turn_of(&mut self, operation: Operation, events: u16, qos: u8) -> usize {
        self.now_us += 10;
        self.shard.begin_turn(self.now_us, self.now_us);
        for _ in 0..events {
            let body = Body::new(&self.key, &self.document);
            self.shard.submit(Write { terms: Terms { qos, ..Terms::default() }, ..Write::new(operation, TABLE, body) });
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
            if let Some(buffer) = self.shard.outboxes.take(index) {
                sent += buffer.len();
                self.shard.outboxes.sent(self.connections[index as usize], buffer);
            }
        }
        if qos > 0 {
            for _ in 0..events {
                let id = self.next_packet_id;
                for &connection in &self.connections {
                    if qos == 1 {
                        assert!(self.shard.acknowledge(connection, id, Phase::AtLeastOnce));
                    } else {
                        assert!(self.shard.outboxes.client(connection).is_some_and(|client| client.release(id)));
                        assert!(self.shard.acknowledge(connection, id, Phase::Released));
                    }
                }
                self.next_packet_id = self.next_packet_id % INFLIGHT_MAX as u16 + 1;
            }
        }
        self.shard.end_turn();
        sent
    }
}
