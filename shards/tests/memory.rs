//! Promise: memory holds the key and at most 120 bytes of each record; values live in the log. Counted is the anonymous
//! memory of the process, as the kernel sees it: with what the allocator wastes, without pages that are only cached.

mod common;

use common::{START_US, TABLE, World, bytes_of, key, put, table};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RECORDS: u64 = 1_000_000;
const PER_TURN: u64 = 8_000;
const KEY_BYTES: u64 = 16;
/// With it a document has 200 bytes.
const DOCUMENT_PADDING: usize = 166;
const MAX: u64 = 120;
/// What the child is to do, and where.
const ROLE: &str = "TABLECAST_MEMORY_ROLE";

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says so");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Looks again and again until it is told to stop; gives the most that was seen.
struct Peak(Arc<AtomicBool>, Arc<AtomicU64>, std::thread::JoinHandle<()>);

impl Peak {
    fn start() -> Peak {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(anonymous_bytes())));
        let (stopped, most) = (stop.clone(), peak.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                most.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Peak(stop, peak, thread)
    }

    fn finish(self) -> u64 {
        self.0.store(true, Ordering::Relaxed);
        self.2.join().unwrap();
        self.1.load(Ordering::Relaxed).max(anonymous_bytes())
    }
}

/// The part of the child: prints bytes per record, at most and at the end.
fn measure(role: &str, folder: &Path) {
    let before = anonymous_bytes();
    let peak = Peak::start();
    let mut world = World::open(folder, &table(), START_US);
    if role == "write" {
        for first in (0..RECORDS).step_by(PER_TURN as usize) {
            world.turn(10_000, (first..first + PER_TURN).map(|number| put(&key(number), number, DOCUMENT_PADDING)));
        }
    }
    let peak = peak.finish();
    world.settle();
    let after = anonymous_bytes();
    assert_eq!(world.shard.table(TABLE).len() as u64, RECORDS);
    assert!(world.shard.log().is_clean());
    assert_eq!(world.read(&key(7)), Some(7));
    println!("measured {} {} {}", (peak - before) / RECORDS, (after - before) / RECORDS, world.live().1 / RECORDS);
}

#[test]
fn a_record_costs_its_key_and_120_bytes() {
    if let Ok(role) = std::env::var(ROLE) {
        let (role, folder) = role.split_once(' ').expect("a role and a folder");
        return measure(role, Path::new(folder));
    }
    let folder = tempfile::tempdir().unwrap();
    for role in ["write", "open"] {
        let started = Instant::now();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_record_costs_its_key_and_120_bytes", "--nocapture"]);
        let output = child.env(ROLE, format!("{role} {}", folder.path().display())).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let figures = text.lines().find_map(|line| Some(line.split_once("measured ")?.1)).expect("figures");
        let figures: Vec<u64> = figures.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let [peak, after, in_log] = figures[..] else { panic!("{figures:?}") };
        let (peak, after) = (peak - KEY_BYTES, after - KEY_BYTES);
        println!(
            "{role} {RECORDS} records of {in_log} bytes in the log: {after} bytes of memory each beside the key, {peak} \
             at most meanwhile; {:.1} s; {} MB of segments, {} MB of indexes",
            started.elapsed().as_secs_f64(),
            bytes_of(folder.path(), ".log") / 1_000_000,
            bytes_of(folder.path(), ".index") / 1_000_000,
        );
        assert!(after <= MAX, "{role}: {after} bytes of memory per record beside its key");
        assert!(peak <= MAX, "{role}: {peak} bytes of memory per record beside its key, at most");
    }
}
