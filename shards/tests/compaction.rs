//! What compaction promises of one shard: the files of a log stay small whatever is overwritten, history is kept for as
//! long as its table says and not longer, what has expired goes without a word, and nothing that was deleted or has
//! expired comes back.

mod common;

use common::{START_US, TABLE, World, attribute, bytes_of, key, put, table, write};
use shards::command::Operation;
use shards::log::format::RecordKind;
use shards::schema::{Kind, Retention, Role, TableDef};
use shards::storage::FileName;
use std::collections::BTreeMap;
use std::path::Path;

const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;
/// With it a document has 200 bytes.
const PADDING: usize = 166;

fn table_with(retention: Retention) -> TableDef {
    TableDef { retention, ..table() }
}

fn window(window_us: u64) -> TableDef {
    table_with(Retention { window_us, bytes: None })
}

/// Puts records of these numbers.
fn put_all(world: &mut World, numbers: impl Iterator<Item = u64>, value: impl Fn(u64) -> u64) {
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(5_000) {
        world.turn(10_000, some.iter().map(|&number| put(&key(number), value(number), PADDING)));
    }
}

/// Writes other records until the segment that was written to before is sealed; gives their number.
fn seal(world: &mut World, name: &str) -> usize {
    let before = world.shard.log().sealed().len();
    let mut number = 0;
    while world.shard.log().sealed().len() == before {
        world.turn(10_000, (number..number + 500).map(|number| put(&format!("{name}-{number}"), 0, 1_000)));
        number += 500;
    }
    world.turn(10_000, []);
    number as usize
}

/// Puts, deletes and messages of a key that the log still has.
fn history(world: &World, of: &str) -> Vec<RecordKind> {
    let mut kinds = Vec::new();
    world.shard.log().history(&mut |_, record| {
        if record.key == of.as_bytes() {
            kinds.push(record.kind);
        }
    });
    kinds
}

#[test]
fn files_are_at_most_half_as_large_again_as_what_is_live() {
    const RECORDS: u64 = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(folder.path(), &window(0), START_US);
    let mut expected: BTreeMap<u64, u64> = (0..RECORDS).map(|number| (number, number)).collect();
    put_all(&mut world, 0..RECORDS, |number| number);
    for round in 1..=2 {
        // A half, another one each time, in no order.
        let numbers: Vec<u64> =
            (0..RECORDS).map(|n| n * 7_919 % RECORDS).filter(|n| (n ^ (n >> round)) & 1 == 0).collect();
        numbers.iter().for_each(|number| _ = expected.insert(*number, number + round));
        put_all(&mut world, numbers.into_iter(), |number| number + round);
        let before = bytes_of(folder.path(), ".log");
        world.settle();
        let (count, live) = world.live();
        assert_eq!(count as u64, RECORDS);
        let (log, index) = (bytes_of(folder.path(), ".log"), bytes_of(folder.path(), ".index"));
        let factor = (log + index) as f64 / live as f64;
        // Of segments that are full; the one that is appended to and the next one are preallocated.
        let sealed: u64 = world.shard.log().sealed().iter().map(|own| sealed_bytes(folder.path(), own.segment)).sum();
        let of_sealed = (sealed + index) as f64 / live as f64;
        println!(
            "round {round}: {live} bytes live; {before} of segments before compaction, {log} after it, {index} of \
             indexes: {factor:.2} of what is live, {of_sealed:.2} without preallocated segments"
        );
        assert!(of_sealed <= 1.5, "round {round}: {of_sealed:.2} of what is live, without preallocated segments");
        assert!(factor <= 1.5, "round {round}: {factor:.2} of what is live");
        let all = bytes_of(folder.path(), "");
        assert!(all <= log + index + 16 * 1024, "other files take {} bytes", all - log - index);
        check(&world, &expected);
    }
    drop(world);
    check(&World::open(folder.path(), &window(0), START_US + DAY_US), &expected);
}

fn sealed_bytes(folder: &Path, segment: u32) -> u64 {
    bytes_of(folder, &FileName::Segment(segment).to_string())
}

fn check(world: &World, expected: &BTreeMap<u64, u64>) {
    for (number, value) in expected {
        assert_eq!(world.read(&key(*number)), Some(*value), "record {number}");
    }
    assert_eq!(world.shard.table(TABLE).len(), expected.len());
}

#[test]
fn history_stays_for_the_window_of_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let definition = window(2 * DAY_US);
    let mut world = World::open(folder.path(), &definition, START_US);
    // Garbage for which rewriting is worth it.
    let fill = |world: &mut World| {
        for value in 0..3 {
            put_all(world, 0..8_000, |_| value);
        }
    };
    world.turn(1_000, [put("a", 1, 10)]);
    world.turn(1_000, [put("a", 2, 10), write(Operation::Message, "a", &[("n", 9)], 10)]);
    world.turn(1_000, [put("b", 1, 10)]);
    world.turn(1_000, [write(Operation::Delete, "b", &[], 0)]);
    fill(&mut world);
    seal(&mut world, "first");
    use RecordKind::{Delete, Message, Put};
    let check = |world: &mut World, a: &[RecordKind], b: &[RecordKind]| {
        world.settle();
        assert_eq!((history(world, "a"), history(world, "b")), (a.to_vec(), b.to_vec()));
        assert_eq!((world.read("a"), world.read("b")), (Some(2), None));
    };
    check(&mut world, &[Put, Put, Message], &[Put, Delete]);
    let before = bytes_of(folder.path(), ".log");
    world.turn(2 * DAY_US - HOUR_US, []);
    check(&mut world, &[Put, Put, Message], &[Put, Delete]);
    assert_eq!(bytes_of(folder.path(), ".log"), before, "an hour before the end of the window nothing has gone");
    world.turn(2 * HOUR_US, []);
    check(&mut world, &[Put], &[]);
    let after = bytes_of(folder.path(), ".log");
    assert!(after < before - 3_000_000, "{before} bytes of segments, then {after}");
    drop(world);
    let mut world = World::open(folder.path(), &definition, START_US + 3 * DAY_US);
    check(&mut world, &[Put], &[]);
    // A delete outlives a window that is shorter than a day.
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(folder.path(), &window(0), START_US);
    world.turn(1_000, [put("a", 1, 10), put("a", 2, 10), put("b", 1, 10), write(Operation::Delete, "b", &[], 0)]);
    fill(&mut world);
    seal(&mut world, "first");
    check(&mut world, &[Put], &[Delete]);
}

#[test]
fn history_is_bounded_in_bytes_where_its_table_says_so() {
    const BYTES: u64 = 12 << 20;
    let folder = tempfile::tempdir().unwrap();
    let definition = table_with(Retention { window_us: 30 * DAY_US, bytes: Some(BYTES) });
    let mut world = World::open(folder.path(), &definition, START_US);
    for value in 0..30 {
        put_all(&mut world, 0..10_000, |_| value);
        world.settle();
    }
    let (count, live) = world.live();
    let log = bytes_of(folder.path(), ".log");
    let mut kept = 0;
    world.shard.log().history(&mut |_, record| kept += record.key.len() + record.document.len());
    println!("{count} records, {live} bytes live; {log} bytes of segments, {kept} bytes of keys and documents in them");
    // What is not more than a quarter of a segment may stay, and the newest segments are preallocated.
    let most = live + BYTES + (live + BYTES) / 3 + (16 << 20);
    assert!(log <= most, "{log} bytes of segments, at most {most} were expected");
    assert!(kept as u64 >= BYTES / 2, "only {kept} bytes of history are left of {BYTES}");
    assert_eq!((world.read(&key(1)), count), (Some(29), 10_000));
}

#[test]
fn what_has_expired_goes_without_an_event() {
    let definition = TableDef {
        attributes: vec![attribute("id", Kind::Id, Role::Plain), attribute("until", Kind::Long, Role::ExpiresAt)],
        ..window(0)
    };
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(folder.path(), &definition, START_US);
    world.listen();
    let until_ms = (START_US + HOUR_US) / 1_000;
    let expiring = |key: &str, until_ms: u64| write(Operation::Put, key, &[("n", 1), ("until", until_ms)], PADDING);
    // An older version that stays longer, in a segment of its own: it must not come back.
    world.turn(1_000, [put("covered", 7, 10), put("again", 7, 10), expiring("longer", until_ms)]);
    seal(&mut world, "stays");
    world.turn(1_000, [expiring("covered", until_ms), expiring("again", until_ms), expiring("longer", until_ms * 2)]);
    for first in (0..50_000).step_by(5_000) {
        world.turn(1_000, (first..first + 5_000).map(|number| expiring(&key(number), until_ms)));
    }
    seal(&mut world, "also-stays");
    world.settle();
    let (heard, position) = (world.heard, world.shard.log().position());
    let (all, stays) = (world.live().0, world.live().0 - 50_002);
    let before = bytes_of(folder.path(), "");
    assert_eq!((world.read(&key(3)), world.read("covered")), (Some(1), Some(1)));

    let left_us = until_ms * 1_000 - world.now_us;
    world.turn(left_us - 1, []);
    assert_eq!((world.read(&key(3)), world.live().0), (Some(1), all), "a microsecond before");
    world.turn(1, []);
    assert_eq!((world.read(&key(3)), world.read("covered")), (None, None), "readers see nothing from then on");
    world.settle();
    assert_eq!(world.live().0, stays, "the others stay");
    assert_eq!((world.heard, world.shard.log().position()), (heard, position), "nobody was told, nothing was logged");
    assert_eq!(world.read("longer"), Some(1), "it was given a later end");
    let after = bytes_of(folder.path(), "");
    println!("{before} bytes of files before, {after} after {} records have expired", all - stays);
    assert!(after < before - 50_000 * 200, "{before} bytes of files, then {after}");
    world.turn(1_000, [put("again", 8, 10)]);

    let now_us = world.now_us + 1;
    drop(world);
    let mut world = World::open(folder.path(), &definition, now_us);
    let mut count = stays + 1;
    for turn in ["after a start", "after one more segment", "after two more segments"] {
        let found = ["covered", "again", "longer"].map(|key| world.read(key));
        assert_eq!(found, [None, Some(8), Some(1)], "{turn}");
        assert_eq!(world.live().0, count, "{turn}");
        count += seal(&mut world, turn);
        world.settle();
    }
}

#[test]
fn what_was_deleted_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(folder.path(), &window(0), START_US);
    put_all(&mut world, 0..40_000, |number| number);
    let mut left: BTreeMap<u64, u64> = (0..40_000).map(|number| (number, number)).collect();
    for round in 0..4 {
        // Far later each time: the deletes themselves may go.
        world.turn(3 * DAY_US, []);
        let gone: Vec<u64> = (0..40_000).filter(|number| number * 13 % 10 == round).collect();
        for some in gone.chunks(2_000) {
            world.turn(1_000, some.iter().map(|&number| write(Operation::Delete, &key(number), &[], 0)));
        }
        gone.iter().for_each(|number| _ = left.remove(number));
        put_all(&mut world, left.keys().copied().filter(|number| number % 3 == 0), |number| number);
        world.settle();
        check(&world, &left);
        let now_us = world.now_us;
        drop(world);
        world = World::open(folder.path(), &window(0), now_us);
        check(&world, &left);
    }
}
