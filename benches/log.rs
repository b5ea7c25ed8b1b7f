//! The storage engine beside SQLite and redb, on the same file system, interleaved in one run: writes per second where
//! each writer waits for its acknowledgement before the next write (group commit), reads of random keys, and how fast a
//! log is opened; and what it costs to append to the open batch. Every figure is the median of some rounds. A record is a document of 200 bytes under a key of 16.

mod common;

use common::{Engine, Random, TABLE, median, open, put, random_key, table};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use rusqlite::Connection;
use shards::clock::Version;
use shards::limits::SegmentSizes;
use shards::link::Wake;
use shards::log::Room;
use shards::log::format::{RecordHead, RecordKind};
use shards::log::recover;
use shards::progress::Progress;
use shards::storage::{Directory, StorageCompletion, StorageRequest};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RECORDS: u64 = 1_000_000;
const WRITERS: [u64; 4] = [1, 8, 64, 512];
const WRITE_ROUNDS: usize = 5;
const WRITE_TIME: Duration = Duration::from_millis(400);
const READ_ROUNDS: usize = 5;
const READ_TIME: Duration = Duration::from_millis(300);
const OPEN_ROUNDS: usize = 5;
const REDB_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// What is measured: a group of writes that is on disk when the call returns, and reads.
trait Store {
    fn write(&mut self, keys: &mut dyn Iterator<Item = &str>);
    /// Reads records; gives the number of bytes that were found.
    fn read(&mut self, keys: &mut dyn Iterator<Item = &str>) -> usize;
}

impl Store for Engine {
    fn write(&mut self, keys: &mut dyn Iterator<Item = &str>) {
        Engine::write(self, keys.map(|key| put(key, 1)));
    }

    fn read(&mut self, keys: &mut dyn Iterator<Item = &str>) -> usize {
        let found = |key: &str| self.shard.peek(TABLE, key.as_bytes()).expect("it can be read").expect("it is there");
        keys.map(|key| found(key).document.len()).sum()
    }
}

impl Store for Connection {
    fn write(&mut self, keys: &mut dyn Iterator<Item = &str>) {
        let transaction = self.transaction().expect("a transaction");
        {
            let sql = "INSERT OR REPLACE INTO t (k, v) VALUES (?1, ?2)";
            let mut insert = transaction.prepare_cached(sql).expect("a statement");
            keys.for_each(|key| _ = insert.execute((key.as_bytes(), VALUE)).expect("an insert"));
        }
        transaction.commit().expect("a commit");
    }

    fn read(&mut self, keys: &mut dyn Iterator<Item = &str>) -> usize {
        let mut select = self.prepare_cached("SELECT v FROM t WHERE k = ?1").expect("a statement");
        let mut found =
            |key: &str| select.query_row([key.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).expect("it is there").len();
        keys.map(&mut found).sum()
    }
}

impl Store for Database {
    fn write(&mut self, keys: &mut dyn Iterator<Item = &str>) {
        let mut transaction = self.begin_write().expect("a transaction");
        transaction.set_durability(Durability::Immediate).expect("durability");
        {
            let mut table = transaction.open_table(REDB_TABLE).expect("a table");
            keys.for_each(|key| _ = table.insert(key.as_bytes(), &VALUE[..]).expect("an insert"));
        }
        transaction.commit().expect("a commit");
    }

    fn read(&mut self, keys: &mut dyn Iterator<Item = &str>) -> usize {
        let transaction = self.begin_read().expect("a transaction");
        let table = transaction.open_table(REDB_TABLE).expect("a table");
        let found = |key: &str| table.get(key.as_bytes()).expect("a read").expect("it is there").value().to_vec().len();
        keys.map(found).sum()
    }
}

const VALUE: [u8; 200] = [b'x'; 200];
const NAMES: [&str; 3] = ["tablecast", "SQLite", "redb"];

fn stores(folder: &Path) -> [Box<dyn Store>; 3] {
    let sqlite = Connection::open(folder.join("sqlite.db")).expect("SQLite");
    sqlite
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -600000; PRAGMA mmap_size = \
             2000000000; CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;",
        )
        .expect("a table");
    let redb = Database::create(folder.join("redb.db")).expect("redb");
    [Box::new(Engine::open(&folder.join("log"), table())), Box::new(sqlite), Box::new(redb)]
}

fn row(what: &str, rates: [&mut Vec<f64>; 3]) {
    let [own, sqlite, redb] = rates.map(|rates| median(rates));
    println!("{what:28} {own:12.0} {sqlite:12.0} {redb:12.0} {:10.2} {:10.2}", own / sqlite, own / redb);
}

fn writes(keys: &[String]) {
    let mut rates: Vec<[Vec<f64>; 3]> = WRITERS.iter().map(|_| Default::default()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let mut stores = stores(folder.path());
    let mut random = Random(3);
    for _ in 0..WRITE_ROUNDS {
        for (rates, writers) in rates.iter_mut().zip(WRITERS) {
            for (store, rates) in stores.iter_mut().zip(rates) {
                let (started, mut count) = (Instant::now(), 0);
                while started.elapsed() < WRITE_TIME {
                    let mut group = (0..writers).map(|_| &*keys[random.below(RECORDS) as usize]);
                    store.write(&mut group);
                    count += writers;
                }
                rates.push(count as f64 / started.elapsed().as_secs_f64());
            }
        }
    }
    for (mut rates, writers) in rates.into_iter().zip(WRITERS) {
        row(&format!("writes/s, {writers} in flight"), rates.each_mut());
    }
}

/// Gives the folder with a million records, for the openings.
fn reads(keys: &[String], folder: &Path) {
    let mut stores = stores(folder);
    let mut loading = Vec::new();
    for (at, store) in stores.iter_mut().enumerate() {
        let started = Instant::now();
        let group = if at == 0 { 4_000 } else { keys.len() };
        keys.chunks(group).for_each(|keys| store.write(&mut keys.iter().map(String::as_str)));
        loading.push(format!("{} {:.1} s", NAMES[at], started.elapsed().as_secs_f64()));
    }
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut random = Random(5);
    for round in 0..=READ_ROUNDS {
        for (store, rates) in stores.iter_mut().zip(&mut rates) {
            let (started, mut count) = (Instant::now(), 0);
            while started.elapsed() < READ_TIME {
                let mut some = (0..1_000).map(|_| &*keys[random.below(RECORDS) as usize]);
                black_box(store.read(&mut some));
                count += 1_000;
            }
            if round > 0 {
                rates.push(count as f64 / started.elapsed().as_secs_f64()); // the first round warms the caches
            }
        }
    }
    row("reads/s, random keys, warm", rates.each_mut());
    println!("(loaded in groups of 4,000 and in one transaction each: {})", loading.join(", "));
}

/// What this thread has spent on a processor.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says so");
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
}

fn opening(what: &str, folder: &Path) {
    let (mut wall, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..OPEN_ROUNDS {
        let (started, before) = (Instant::now(), processor_time());
        let shard = open(folder, table(), Arc::new(Nobody));
        wall.push(started.elapsed().as_secs_f64());
        processor.push((processor_time() - before).as_secs_f64());
        assert_eq!(shard.table(TABLE).len() as u64, RECORDS);
    }
    let (wall, processor) = (median(&mut wall), median(&mut processor));
    let rate = |seconds: f64| RECORDS as f64 / seconds / 1e6;
    println!(
        "{what:28} {:6.2} M records/s of processor time, {:6.2} M/s of {wall:.3} s by the clock",
        rate(processor),
        rate(wall)
    );
}

fn openings(random_keys: &Path) {
    println!("\nopening a log of {RECORDS} records in sealed segments (aim: 2 M records/s a core with indexes)");
    let rising_keys = tempfile::tempdir().expect("a folder");
    let mut engine = Engine::open(rising_keys.path(), table());
    for first in (0..RECORDS).step_by(4_000) {
        let keys: Vec<String> = (first..first + 4_000).map(|number| format!("{number:016}")).collect();
        Store::write(&mut engine, &mut keys.iter().map(String::as_str));
    }
    drop(engine);
    for (keys, folder) in [("random keys", random_keys), ("rising keys", rising_keys.path())] {
        Engine::open(folder, table()).settle(); // the last segment gets its index
        opening(&format!("{keys}, with indexes"), folder);
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.extension().is_some_and(|extension| extension == "index") {
                std::fs::remove_file(path).expect("an index goes");
            }
        }
        opening(&format!("{keys}, without indexes"), folder);
    }
}

/// Appends to the open batch, in memory; the disk only claims to have it.
fn appends() {
    const GROUP: u64 = 1_000;
    let folder = tempfile::tempdir().expect("a folder");
    let directory = Directory::open(folder.path()).expect("a directory");
    let (mut log, _) =
        recover::open(&directory, 0, 7, SegmentSizes::default(), &Progress::default()).expect("a sound log");
    let mut nanoseconds = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        for _ in 0..GROUP {
            assert_eq!(log.room(216), Room::Yes);
            let write = |_, out: &mut Vec<u8>| {
                out.extend_from_slice(&VALUE);
                Ok::<_, ()>(None)
            };
            let head = RecordHead {
                kind: RecordKind::Put,
                table: TABLE,
                version: Version(1),
                may_expire: false,
                qos: 0,
                publisher: 0,
                key: b"key/123456789012",
                properties: &[],
            };
            log.append(&head, write).expect("an append");
        }
        nanoseconds.push(started.elapsed().as_nanos() as f64 / GROUP as f64);
        while let Some(request) = log.request(0) {
            let completion = match request {
                StorageRequest::Commit { .. } => StorageCompletion::Committed(Ok(())),
                StorageRequest::Mark { .. } | StorageRequest::Job(_) => continue,
                request => request.run(&directory),
            };
            log.complete(completion, 0).expect("the disk works");
        }
    }
    println!("append to the open batch: {:.0} ns", median(&mut nanoseconds));
}

fn main() {
    let keys: Vec<String> = (0..RECORDS).map(random_key).collect();
    println!("{:28} {:>12} {:>12} {:>12} {:>10} {:>10}", "", NAMES[0], NAMES[1], NAMES[2], "x SQLite", "x redb");
    writes(&keys);
    let folder = tempfile::tempdir().expect("a folder");
    reads(&keys, folder.path());
    openings(&folder.path().join("log"));
    appends();
}
