//! Whole meshes of shards in one thread: a seeded scheduler decides who takes a turn, real segments hold the data, toy
//! connections write, read and subscribe. What every subscriber saw is checked against everything that was written.

use super::*;
use crate::command::Operation;
use crate::command::{ConnectionRef, Write};
use crate::event::{Body, EventKind};
use crate::key::KeyCodec;
use crate::link::{Wake, mesh};
use crate::outbox::{Encoded, FrameKind};
use crate::scan::{Step, owner};
use crate::schema::{Attribute, Export, Kind, Role};
use crate::storage::Directory;
use crate::subscription::{Request, SubscriptionRef};
use crate::topic::{KeyFilter, Target};
use std::collections::{BTreeMap, HashMap};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Frames are lines: `+key version` for a put, `-key version` for a delete, `!key version` for a message.
struct Lines;

impl Encoder for Lines {
    fn encode(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded> {
        let mark = match context.kind {
            EventKind::Put => '+',
            EventKind::Delete => '-',
            EventKind::Message => '!',
            EventKind::Leave => unreachable!("there are no live queries here"),
        };
        let row = if kind.has(FrameKind::RETAIN) { " row" } else { "" };
        out.extend_from_slice(format!("{mark}{} {}{row}\n", context.key_text, context.version.0).as_bytes());
        let packet_id_at = (kind.qos() > 0).then_some(1);
        Some(Encoded { packet_id_at, payload_bytes: None })
    }
}

fn definition() -> TableDef {
    let id = Attribute {
        name: "id".into(),
        kind: Kind::Id,
        required: false,
        indexed: false,
        role: Role::Plain,
        description: None,
    };
    TableDef {
        exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
        attributes: vec![id],
        primary_key: Some(0),
        ..TableDef::new("T")
    }
}

const TABLE: TableId = TableId(0);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

struct World {
    shards: Vec<Shard>,
    disks: Vec<Directory>,
    commits: Vec<Option<StorageRequest>>,
    random: Random,
    now_us: u64,
    /// What each tag wrote: the key, followed by `!` for a message.
    written: HashMap<u64, String>,
    /// Versions of each of these in the order in which the owner applied them, from acknowledgements.
    history: BTreeMap<String, Vec<u64>>,
    outcomes: HashMap<u64, Outcome>,
    subscribed: Vec<(u32, SubscriptionRef)>,
    /// Connections whose sessions were to be saved.
    unsaved: Vec<u32>,
    /// Everything sent to each connection.
    sent: HashMap<(u16, u32), String>,
    next_tag: u64,
}

impl World {
    fn new(folder: &std::path::Path, shards: usize, seed: u64) -> World {
        let wakes: Vec<Arc<dyn Wake>> = (0..shards).map(|_| Arc::new(Nobody) as Arc<dyn Wake>).collect();
        let disks: Vec<Directory> =
            (0..shards).map(|shard| Directory::open(&folder.join(shard.to_string())).unwrap()).collect();
        let tables = [(TABLE, Arc::new(definition()))];
        let shards = mesh(&wakes)
            .into_iter()
            .enumerate()
            .map(|(index, links)| {
                let parts = Parts {
                    index: index as u16,
                    limits: Limits::default(),
                    tables: &tables,
                    links,
                    encoder: Box::new(Lines),
                    salt: seed + index as u64,
                    now_us: 1_000_000,
                };
                Shard::open(parts, &disks[index]).unwrap().0
            })
            .collect::<Vec<_>>();
        World {
            commits: shards.iter().map(|_| None).collect(),
            shards,
            disks,
            random: Random(seed),
            now_us: 1_000_000,
            written: HashMap::new(),
            history: BTreeMap::new(),
            outcomes: HashMap::new(),
            subscribed: Vec::new(),
            unsaved: Vec::new(),
            sent: HashMap::new(),
            next_tag: 0,
        }
    }

    fn connect(&mut self, shard: u16, index: u32) -> ConnectionRef {
        let connection = ConnectionRef { shard, index, generation: 1 };
        self.shards[usize::from(shard)].outboxes.open(connection);
        connection
    }

    fn write(&mut self, from: ConnectionRef, operation: Operation, key: &str) -> u64 {
        self.next_tag += 1;
        let tag = self.next_tag;
        let document: &[u8] = if operation == Operation::Delete { &[] } else { &[0x80] };
        let body = Body::new(key.as_bytes(), document);
        let token = Some(Token { connection: from, tag });
        let message = if operation == Operation::Message { "!" } else { "" };
        self.written.insert(tag, format!("{key}{message}"));
        let write = Write { token, ..Write::new(operation, TABLE, body) };
        self.shards[usize::from(from.shard)].submit(write);
        tag
    }

    fn subscribe(&mut self, connection: ConnectionRef, filter: KeyFilter) {
        let targets = vec![Target { table: TABLE, path: 0, filter }];
        let request = Request::new(connection, targets, 0);
        self.shards[usize::from(connection.shard)].subscribe(request);
    }

    /// One turn of one shard; its disk answers only sometimes.
    fn turn(&mut self, at: usize, disk_answers: bool) {
        self.now_us += 10;
        let shard = &mut self.shards[at];
        shard.begin_turn(self.now_us, self.now_us);
        shard.receive();
        if disk_answers && let Some(commit) = self.commits[at].take() {
            shard.storage_complete(commit.run(&self.disks[at])).unwrap();
        }
        while self.commits[at].is_none()
            && let Some(request) = shard.storage_request()
        {
            match request {
                StorageRequest::Commit { .. } => self.commits[at] = Some(request),
                other => shard.storage_complete(other.run(&self.disks[at])).unwrap(),
            }
        }
        while let Some(completion) = shard.completion() {
            match completion {
                Completion::Outcome { token, outcome } => {
                    if let Outcome::Written { version, .. } = &outcome {
                        self.history.entry(self.written[&token.tag].clone()).or_default().push(version.0);
                    }
                    self.outcomes.insert(token.tag, outcome);
                }
                Completion::Subscribed { connection, subscription } => {
                    self.subscribed.push((connection.index, subscription));
                    shard.start(subscription);
                }
                Completion::Unsaved { connection } => self.unsaved.push(connection.index),
                Completion::Overflowed { connection } => panic!("{connection:?} overflowed"),
                _ => {}
            }
        }
        let mut dirty = Vec::new();
        shard.outboxes.take_dirty(&mut dirty);
        for index in dirty {
            if let Some(buffer) = shard.outboxes.take(index) {
                let text = String::from_utf8(buffer.contiguous().expect("small frames").to_vec()).unwrap();
                self.sent.entry((at as u16, index)).or_default().push_str(&text);
                let connection = ConnectionRef { shard: at as u16, index, generation: 1 };
                if shard.outboxes.sent(connection, buffer) {
                    shard.resume(connection);
                }
            }
        }
        shard.end_turn();
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            for at in 0..self.shards.len() {
                self.turn(at, true);
            }
        }
        assert!(self.shards.iter().all(Shard::is_idle));
    }
}

/// What one subscriber was sent, per key: versions in order.
fn seen(lines: &str) -> BTreeMap<String, Vec<u64>> {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines.lines() {
        let mut words = line[1..].split(' ');
        let message = if line.starts_with('!') { "!" } else { "" };
        let key = format!("{}{message}", words.next().unwrap());
        seen.entry(key).or_default().push(words.next().unwrap().parse().unwrap());
    }
    seen
}

/// Promise 8: writes race with subscribes, on 1, 2 and 4 shards. For each key a subscriber sees an unbroken end of the
/// history of its states, and of its messages: no gap, no duplicate, in order; and every key that it must see.
#[test]
fn snapshot_and_stream_have_no_gap_and_no_duplicate() {
    for seed in 0..60u64 {
        let shards = [1, 2, 4][seed as usize % 3];
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(folder.path(), shards, seed);
        let writer = world.connect(0, 0);
        let keys: Vec<String> = (0..12).map(|n| if n % 3 == 0 { format!("a/{n}") } else { format!("k{n}") }).collect();
        for key in keys.iter().take(8) {
            world.write(writer, Operation::Put, key);
        }
        world.settle();
        let mut filters = HashMap::new();
        let mut next_index = 1;
        for _ in 0..400 {
            match world.random.below(20) {
                0 if next_index < 12 => {
                    let shard = world.random.below(shards) as u16;
                    let connection = world.connect(shard, next_index);
                    let filter = match world.random.below(3) {
                        0 => KeyFilter::all(),
                        1 => KeyFilter::below("a"),
                        _ => {
                            let key = &keys[world.random.below(keys.len())];
                            KeyFilter::exact(key, KeyCodec::Text).unwrap()
                        }
                    };
                    filters.insert((shard, next_index), filter.clone());
                    world.subscribe(connection, filter);
                    next_index += 1;
                }
                1..=8 => {
                    let key = keys[world.random.below(keys.len())].clone();
                    let operation =
                        [Operation::Put, Operation::Put, Operation::Delete, Operation::Message][world.random.below(4)];
                    world.write(writer, operation, &key);
                }
                _ => {
                    let at = world.random.below(shards);
                    let disk_answers = world.random.below(3) == 0;
                    world.turn(at, disk_answers);
                }
            }
        }
        world.settle();
        assert_eq!(world.subscribed.len(), filters.len());
        for (connection, filter) in &filters {
            let lines = world.sent.get(connection).cloned().unwrap_or_default();
            let seen = seen(&lines);
            for (key, history) in &world.history {
                let versions = seen.get(key).cloned().unwrap_or_default();
                assert!(
                    versions.is_empty() || filter.matches(key.trim_end_matches('!')),
                    "seed {seed}: {key} is not subscribed"
                );
                assert!(history.ends_with(&versions), "seed {seed}: {connection:?} {key}: {versions:?} of {history:?}");
            }
            // The newest state of every record that exists was shown.
            for key in keys.iter().filter(|key| filter.matches(key)) {
                let owner = owner(TABLE, key.as_bytes(), shards);
                if let Some(entry) = world.shards[usize::from(owner)].table(TABLE).get(key.as_bytes()) {
                    let versions = seen.get(key).cloned().unwrap_or_default();
                    assert!(versions.contains(&entry.version.0), "seed {seed}: {connection:?} never saw {key}");
                }
            }
        }
    }
}

/// Promise 4: same seed, same run.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = || {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(folder.path(), 2, 7);
        let writer = world.connect(0, 0);
        let reader = world.connect(1, 1);
        world.subscribe(reader, KeyFilter::all());
        for number in 0..100 {
            world.write(writer, Operation::Put, &format!("k{}", number % 10));
            let at = world.random.below(2);
            world.turn(at, number % 3 == 0);
        }
        world.settle();
        world.sent[&(1, 1)].clone()
    };
    assert_eq!(run(), run());
}

#[test]
fn acknowledgements_wait_for_the_disk_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let mut world = World::new(folder.path(), 2, 1);
        let writer = world.connect(0, 0);
        let tags: Vec<u64> = (0..20).map(|number| world.write(writer, Operation::Put, &format!("k{number}"))).collect();
        for _ in 0..5 {
            world.turn(0, false);
            world.turn(1, false);
        }
        assert!(tags.iter().all(|tag| !world.outcomes.contains_key(tag)), "nothing is flushed yet");
        world.settle();
        assert!(tags.iter().all(|tag| matches!(world.outcomes[tag], Outcome::Written { existed: false, .. })));
        let again = world.write(writer, Operation::Insert, "k3");
        let deleted = world.write(writer, Operation::Delete, "k4");
        world.settle();
        assert!(matches!(world.outcomes[&again], Outcome::Refused(crate::command::Refusal::Exists)));
        assert!(matches!(world.outcomes[&deleted], Outcome::Written { existed: true, .. }));
    }
    let mut world = World::new(folder.path(), 2, 2);
    let reader = world.connect(1, 5);
    let count: usize = world.shards.iter().map(|shard| shard.table(TABLE).len()).sum();
    assert_eq!(count, 19);
    // A collection, merged in key order over both shards.
    let target = Target { table: TABLE, path: 0, filter: KeyFilter::all() };
    let scan = world.shards[1].scan(Token { connection: reader, tag: 1 }, target, None);
    world.settle();
    let mut keys = Vec::new();
    loop {
        match world.shards[1].scan_step(scan) {
            Step::Row { row, .. } => keys.push(String::from_utf8(row.body.key().to_vec()).unwrap()),
            Step::Wait => world.settle(),
            Step::End => break,
            Step::Damaged => panic!("nothing is damaged"),
        }
    }
    assert!(keys.is_sorted() && keys.len() == 19, "{keys:?}");
}

#[test]
fn a_client_identifier_has_one_holder_across_shards() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path(), 4, 1);
    let connections: Vec<ConnectionRef> = (0..4).map(|shard| world.connect(shard, 1)).collect();
    for connection in &connections {
        world.shards[usize::from(connection.shard)].join("client", *connection, false);
        for _ in 0..4 {
            (0..4).for_each(|at| world.shards[at].end_turn());
            (0..4).for_each(|at| _ = world.shards[at].receive());
        }
    }
    for (shard, evicted) in [true, true, true, false].into_iter().enumerate() {
        let mut told = false;
        while let Some(completion) = world.shards[shard].completion() {
            told |= matches!(completion, Completion::Evicted { .. });
        }
        assert_eq!(told, evicted, "shard {shard}");
    }
    // One that left late does not take the name away from its successor.
    world.shards[0].leave("client", connections[0], None);
    let holders = |world: &World| world.shards.iter().map(|shard| shard.sessions.len()).sum::<usize>();
    for _ in 0..2 {
        (0..4).for_each(|at| world.shards[at].end_turn());
        (0..4).for_each(|at| _ = world.shards[at].receive());
    }
    assert_eq!(holders(&world), 1);
}

#[test]
fn interest_ends_with_the_last_subscriber() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path(), 2, 1);
    let connections = [world.connect(1, 1), world.connect(1, 2)];
    for connection in connections {
        world.subscribe(connection, KeyFilter::all());
    }
    world.settle();
    assert!(!world.shards[0].table(TABLE).interest.is_empty());
    for (_, subscription) in world.subscribed.clone() {
        world.shards[1].unsubscribe(subscription);
    }
    world.settle();
    assert!(world.shards[0].table(TABLE).interest.is_empty());
    assert!(world.shards[1].table(TABLE).subscribers.is_empty());
}

/// What is to be on disk before it is sent is asked for in the turn in which it comes: the thread may sleep after that.
#[test]
fn a_session_is_to_be_saved_in_the_turn_of_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path(), 2, 1);
    let (publisher, subscriber) = (world.connect(0, 1), world.connect(1, 2));
    world.shards[1].outboxes.attach(subscriber, crate::client::Client::new(10, true));
    let targets = vec![Target { table: TABLE, path: 0, filter: KeyFilter::all() }];
    world.shards[1].subscribe(Request { qos: 2, ..Request::new(subscriber, targets, 0) });
    world.settle();
    let key = (0..).map(|number: u32| format!("k{number}")).find(|key| owner(TABLE, key.as_bytes(), 2) == 0).unwrap();
    let terms = crate::event::Terms { qos: 2, ..Default::default() };
    let body = Body::new(key.as_bytes(), &[0x80]);
    world.shards[usize::from(publisher.shard)].submit(Write { terms, ..Write::new(Operation::Message, TABLE, body) });
    let is_held = |world: &mut World| !world.shards[1].outboxes.client(subscriber).unwrap().held.is_empty();
    for turn in 0.. {
        assert!(turn < 10, "it has not come");
        world.turn(0, true);
        world.turn(1, true);
        assert_eq!(is_held(&mut world), world.unsaved == [2]);
        if is_held(&mut world) {
            break;
        }
    }
}

/// A filter that matches few keys among many: the scan goes on past chunks in which nothing matches.
#[test]
fn a_scan_goes_past_any_number_of_keys_that_do_not_match() {
    for shards in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(folder.path(), shards, 1);
        let writer = world.connect(0, 0);
        for number in 0..1500 {
            world.write(writer, Operation::Put, &format!("a/{number:04}"));
            world.turn(0, true);
        }
        world.write(writer, Operation::Put, "z");
        world.settle();
        let reader = world.connect(0, 1);
        world.subscribe(reader, KeyFilter::Pattern(vec![crate::topic::Level::One].into()));
        world.settle();
        world.write(writer, Operation::Put, "b");
        world.settle();
        let seen = seen(&world.sent[&(0, 1)]);
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["b", "z"], "{shards} shards");
    }
}

/// One filter that covers two paths of a table is one subscription with two lines in the same list.
#[test]
fn a_subscription_over_two_paths_of_a_table_delivers_once_and_goes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path(), 1, 1);
    let (writer, reader, other) = (world.connect(0, 0), world.connect(0, 1), world.connect(0, 2));
    world.subscribe(other, KeyFilter::all());
    let target = |path| Target { table: TABLE, path, filter: KeyFilter::all() };
    world.shards[0].subscribe(Request::new(reader, vec![target(0), target(1)], 0));
    world.settle();
    world.write(writer, Operation::Put, "k");
    world.settle();
    assert_eq!(world.sent[&(0, 1)].lines().count(), 1);
    let (_, subscription) = world.subscribed[1];
    world.shards[0].unsubscribe(subscription);
    world.write(writer, Operation::Put, "k");
    world.settle();
    assert_eq!(world.sent[&(0, 1)].lines().count(), 1, "it is gone");
    assert_eq!(world.sent[&(0, 2)].lines().count(), 2, "the other one is not");
}

/// A record larger than what is left of a small segment waits for one of its size, and those behind it with it.
#[test]
fn a_large_record_gets_a_segment_of_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path(), 1, 1);
    let writer = world.connect(0, 0);
    let mut tags = Vec::new();
    for size in [100, 900_000, 7_000_000, 100] {
        let mut document = Vec::new();
        crate::document::Writer::write_map(&mut document, 1);
        crate::document::Writer::write_str(&mut document, "data");
        crate::document::Writer::write_bytes(&mut document, &vec![7; size]);
        world.next_tag += 1;
        let tag = world.next_tag;
        world.written.insert(tag, "k".into());
        let write = Write {
            token: Some(Token { connection: writer, tag }),
            ..Write::new(Operation::Put, TABLE, Body::new(b"k", &document))
        };
        world.shards[0].submit(write);
        tags.push(tag);
    }
    world.settle();
    assert!(tags.iter().all(|tag| matches!(world.outcomes[tag], Outcome::Written { .. })));
}
