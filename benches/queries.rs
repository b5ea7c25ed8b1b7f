//! Queries in the engine, one shard, without sockets; the disk only claims to have what it is given.
//!
//! `live`: what one write costs while one query is watched, and while 1,000 distinct ranges are (each write takes its
//! record out of one and into another). Aim: at most twice. `find`: a query over 1,000,000 records by an index and
//! read through.
//!
//! `cargo bench --bench queries [-- live|find]`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shards::client::Client;
use shards::command::{Completion, ConnectionRef, Operation, Token, Write};
use shards::document::{self, Writer};
use shards::event::Body;
use shards::limits::Limits;
use shards::link::{Wake, mesh};
use shards::query::{Comparison, Condition, Query, Scalar, Test, order};
use shards::scan::Step;
use shards::schema::{Attribute, Export, Kind, Role, TableDef, TableId};
use shards::shard::{Parts, Shard};
use shards::storage::{Directory, StorageCompletion, StorageRequest};
use shards::subscription::Request;
use shards::topic::{KeyFilter, Target};
use std::ops::Bound;
use std::sync::Arc;
use tablecast::protocol::format::Format;
use tablecast::protocol::frames::{Encoding, FrameEncoder, Protocol};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

const TABLE: TableId = TableId(0);
const CONNECTION: ConnectionRef = ConnectionRef { shard: 0, index: 0, generation: 1 };
const WRITES: u64 = 64;
const RANGES: i64 = 1000;
const RECORDS: u64 = 1_000_000;

fn definition() -> TableDef {
    let attribute = |name: &str, kind, indexed| Attribute {
        name: name.into(),
        kind,
        required: false,
        indexed,
        role: Role::Plain,
        description: None,
    };
    TableDef {
        exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
        attributes: vec![attribute("id", Kind::Id, false), attribute("n", Kind::Int, true)],
        primary_key: Some(0),
        ..TableDef::new("T")
    }
}

struct World {
    shard: Shard,
    directory: Directory,
    folder: tempfile::TempDir,
    now_us: u64,
    state: u64,
    dirty: Vec<u32>,
}

impl World {
    fn new() -> World {
        let links = mesh(&[Arc::new(Nobody) as Arc<dyn Wake>]).remove(0);
        let tables = [(TABLE, Arc::new(definition()))];
        let encoder = Box::new(FrameEncoder::new(false));
        let parts = Parts { index: 0, limits: Limits::default(), tables: &tables, links, encoder, salt: 1, now_us: 1 };
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let (shard, _) = Shard::open(parts, &directory).unwrap();
        let mut world = World { shard, directory, folder, now_us: 1, state: 7, dirty: Vec::new() };
        world.turn(|_| {});
        world
    }

    fn random(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % bound
    }

    fn put(&mut self, key: u64, n: i64) {
        let mut document = Vec::with_capacity(80);
        document.write_map(2);
        document.write_str("n");
        document.write_int(n);
        document.write_str("note");
        document.write_str("somewhere between here and there");
        debug_assert!(document::is_well_formed(&document));
        let body = Body::new(format!("{key:07}").as_bytes(), &document);
        self.shard.submit(Write::new(Operation::Put, TABLE, body));
    }

    fn turn(&mut self, work: impl FnOnce(&mut World)) {
        self.now_us += 10;
        self.shard.begin_turn(self.now_us, self.now_us);
        work(self);
        while let Some(request) = self.shard.storage_request() {
            let completion = match request {
                // What is read back must be there; but nobody waits for the disk.
                StorageRequest::Commit { segment, offset, ref data } => {
                    let path = self.folder.path().join(format!("{segment:08}.log"));
                    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, data, offset).unwrap();
                    StorageCompletion::Committed(Ok(()))
                }
                StorageRequest::Create { .. } => request.run(&self.directory),
                StorageRequest::Mark { .. } | StorageRequest::Job(_) => continue,
            };
            self.shard.storage_complete(completion).unwrap();
        }
        while let Some(completion) = self.shard.completion() {
            if let Completion::Subscribed { subscription, .. } = completion {
                self.shard.start(subscription);
            }
        }
        self.dirty.clear();
        self.shard.outboxes.take_dirty(&mut self.dirty);
        for &index in &self.dirty {
            if let Some(buffer) = self.shard.outboxes.take(index) {
                self.shard.outboxes.sent(ConnectionRef { index, ..CONNECTION }, buffer);
            }
        }
        self.shard.end_turn();
    }

    fn watch(&mut self, index: u32, condition: Condition) {
        let connection = ConnectionRef { index, ..CONNECTION };
        let encoding = Encoding { protocol: Protocol::Sse, format: Format::Json }.code();
        self.shard.outboxes.open(connection);
        self.shard.outboxes.attach(connection, Client::stream(encoding, None));
        let targets = vec![Target { table: TABLE, path: 0, filter: KeyFilter::all() }];
        let query = Some(Arc::new(Query { condition: Some(condition), ..Query::default() }));
        self.shard.subscribe(Request { query, ..Request::new(connection, targets, encoding) });
    }
}

fn scalar(n: i64) -> Scalar {
    let mut out = Vec::new();
    order::encode(document::Token::Int(n), &mut out);
    out.into()
}

fn test(name: &str, comparison: Comparison) -> Condition {
    Condition::Test(Test { path: [name.into()].into(), comparison })
}

fn range(from: i64, to: i64) -> Condition {
    test("n", Comparison::Range(Bound::Included(scalar(from)), Bound::Excluded(scalar(to))))
}

fn live(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("live");
    group.throughput(Throughput::Elements(WRITES));
    for (name, queries) in [("no query", 0), ("one query", 1), ("1,000 ranges", RANGES)] {
        let mut world = World::new();
        for index in 0..queries {
            let step = RANGES / queries;
            world.watch(index as u32, range(index * step, (index + 1) * step));
        }
        world.turn(|_| {});
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                world.turn(|world| {
                    for _ in 0..WRITES {
                        let (key, n) = (world.random(10_000), world.random(RANGES as u64));
                        world.put(key, n as i64);
                    }
                });
            });
        });
    }
    group.finish();
}

fn find(criterion: &mut Criterion) {
    let mut world = World::new();
    for from in (0..RECORDS).step_by(1000) {
        world.turn(|world| (from..from + 1000).for_each(|key| world.put(key, (key * 7919 % RECORDS) as i64)));
    }
    assert_eq!(world.shard.table(TABLE).len() as u64, RECORDS);
    let mut group = criterion.benchmark_group("find among 1,000,000");
    let text = Comparison::EndsWith("nowhere".into());
    for (name, condition, wanted, by) in [
        ("one, by index", test("n", Comparison::Equal(scalar(4711))), 1, "Index"),
        ("100, by index", range(4700, 4800), 100, "Index"),
        ("none, read through", test("note", text), 0, "Keys"),
    ] {
        let query = Arc::new(Query { condition: Some(condition), ..Query::default() });
        group.sample_size(10);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let plan = world.shard.plan(TABLE, query.clone()).unwrap();
                assert!(format!("{:?}", plan.order).starts_with(by), "{plan:?}");
                let target = Target { table: TABLE, path: 0, filter: KeyFilter::all() };
                let scan = world.shard.scan(Token { connection: CONNECTION, tag: 0 }, target, Some(Arc::new(plan)));
                let mut found = 0;
                loop {
                    match world.shard.scan_step(scan) {
                        Step::Row { .. } => found += 1,
                        Step::Wait => world.turn(|_| {}),
                        Step::End => break,
                        Step::Damaged => panic!("damaged"),
                    }
                }
                world.shard.close_scan(scan);
                assert_eq!(found, wanted);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = live, find
}
criterion_main!(benches);
