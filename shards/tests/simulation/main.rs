//! The simulator of the storage engine: whole servers of shards on simulated disks, the power cut at every point, disks
//! that fill, fail and rot; what is recovered is measured against everything that was acknowledged
//! (promises 2 to 8 of `reliability.md`).
//!
//! `cargo test -p tablecast-shards --test simulation -- [--images N] [--seed S [--trace]]`

mod disk;
mod images;
mod oracle;
mod world;

use disk::Files;
use images::{Rot, crash_everywhere, rot};
use oracle::{Check, Model};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use world::World;

const IMAGES: u64 = 150_000;
const THREADS: usize = 2;
/// Violations after which it is no use to go on.
const VIOLATIONS_MAX: usize = 10;
/// A run of at least so many images has met all of [`MUST_HAPPEN`], or it shows nothing.
const IMAGES_TO_MEET_ALL: u64 = 100_000;
const MUST_HAPPEN: [&str; 12] = [
    "acknowledgements",
    "failed flushes",
    "failed jobs",
    "frames",
    "indexes",
    "marks",
    "reads",
    "refused: disk full",
    "refused: exists",
    "removals",
    "rewrites",
    "scrubs",
];
/// Wall time at which every world begins, in microseconds since 1970.
const START_US: u64 = 1_700_000_000_000_000;

/// SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// From `low` to below `high`, or `low`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low).max(1)
    }

    pub fn fork(&mut self) -> Random {
        Random(self.number())
    }
}

/// What was done.
#[derive(Default)]
struct Counts {
    images: AtomicU64,
    seeds: AtomicU64,
    events: AtomicU64,
    rot_trials: AtomicU64,
    rot_reported: AtomicU64,
    /// What happened in the worlds.
    happened: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    fn happened(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A few lives of a server, each ended by a power cut or a failed flush, all images of each looked at.
fn run_seed(seed: u64, counts: &Counts, trace: &mut Option<Vec<String>>) -> Check {
    let mut random = Random::new(seed);
    let shards = [1, 1, 1, 2, 2, 3][random.below(6)];
    let mut disks: Vec<(Files, Model)> = (0..shards).map(|_| Default::default()).collect();
    let (mut now_us, mut tag) = (START_US, 0);
    for life in 0..1 + random.below(4) {
        let mut world = World::open(disks, now_us, random.fork(), tag)?;
        world.trace = trace.take();
        let lived = live(&mut world, &mut random);
        *trace = world.trace.take();
        let at_rest = lived.map_err(|error| format!("life {life}: {error}"))?;
        for (what, count) in &world.happened {
            *counts.happened().entry(what).or_default() += count;
        }
        disks = Vec::new();
        for at in 0..shards {
            let ended = end(&world, at, at_rest, &mut random, counts, trace);
            disks.push(ended.map_err(|error| format!("life {life}: {error}"))?);
        }
        // The clock may have been set back a little.
        now_us = world.now_us + [1, 0, 10_000_000][random.below(3)] - random.range(1, 900);
        tag = world.next_tag();
    }
    counts.seeds.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Runs a server for a while. True: it came to rest.
fn live(world: &mut World, random: &mut Random) -> Check<bool> {
    let steps = random.range(100, 1200);
    let rests = random.below(3) == 0;
    let faulty = random.below(world.nodes.len());
    if random.below(5) == 0 {
        world.nodes[faulty].disk.fail_sync_after(random.below(120) as u32);
    }
    let full_at = if random.below(4) == 0 { random.range(0, steps) } else { u64::MAX };
    for step in 0..steps {
        if step == full_at {
            world.fill_disk(faulty);
        }
        world.step()?;
        if world.dead {
            return Ok(false);
        }
    }
    if rests {
        world.settle()?;
    }
    Ok(rests && !world.dead)
}

/// Cuts the power at each point of a shard's life; gives what its last moment has left, and the history up to it.
fn end(
    world: &World,
    at: usize,
    at_rest: bool,
    random: &mut Random,
    counts: &Counts,
    trace: &mut Option<Vec<String>>,
) -> Check<(Files, Model)> {
    let mut each = |done: usize, seq: u64| {
        if let Some(trace) = trace {
            trace.push(format!("shard {at}: {done} writes give seq {seq}"));
        }
    };
    let (images, platter) = crash_everywhere(world, at, random, &mut each)?;
    counts.images.fetch_add(images, Ordering::Relaxed);
    let files = platter.crash(None, random);
    if at_rest {
        let Rot { trials, reported } = rot(world, at, &files, 60, random)?;
        counts.rot_trials.fetch_add(trials, Ordering::Relaxed);
        counts.rot_reported.fetch_add(reported, Ordering::Relaxed);
    }
    let model = &world.nodes[at].model;
    let bounds = world.bounds_at(at, usize::MAX);
    let mut opener = images::Opener::new(at, world.nodes.len(), &world.tables, model);
    let seq = opener.check(&files, bounds, random)?;
    let mut model = model.clone();
    counts.events.fetch_add(model.last_seq(), Ordering::Relaxed);
    model.truncate(seq);
    Ok((files, model))
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a seed; a panic is a violation too.
fn guarded(seed: u64, counts: &Counts, trace: &mut Option<Vec<String>>) -> Check {
    catch_unwind(AssertUnwindSafe(|| run_seed(seed, counts, trace)))
        .unwrap_or_else(|_| Err(PANIC.with_borrow(|panic| format!("panic: {panic}"))))
}

struct Arguments {
    images: u64,
    seed: Option<u64>,
    trace: bool,
    list: bool,
}

/// Our own flags; those of `cargo test` are not for us.
fn arguments() -> Arguments {
    let mut arguments = Arguments { images: IMAGES, seed: None, trace: false, list: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--images" => arguments.images = words.next().and_then(|word| word.parse().ok()).unwrap_or(IMAGES),
            "--seed" => arguments.seed = words.next().and_then(|word| word.parse().ok()),
            "--trace" => arguments.trace = true,
            "--list" => arguments.list = true,
            _ => {}
        }
    }
    arguments
}

/// Promise 4: two processes that are given the same seed do the same.
fn same_in_two_processes(seed: u64) -> Check {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let run = || Command::new(&program).args(["--seed", &seed.to_string(), "--trace"]).output();
    let [first, second] = [run(), run()].map(|output| output.map(|output| output.stdout).unwrap_or_default());
    if first.is_empty() || first == second {
        return if first.is_empty() { Err("no trace".into()) } else { Ok(()) };
    }
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (lines(&first), lines(&second));
    let at = first.iter().zip(&second).position(|(a, b)| a != b).unwrap_or(first.len().min(second.len()));
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
    Err(format!("two runs differ in line {at}: `{}` and `{}`", line(&first), line(&second)))
}

fn main() -> ExitCode {
    let arguments = arguments();
    if arguments.list {
        println!("simulation: test");
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|info| PANIC.with_borrow_mut(|panic| *panic = info.to_string())));
    let begin = Instant::now();
    let counts = Counts::default();
    let mut violations: Vec<(u64, String)> = Vec::new();
    if let Some(seed) = arguments.seed {
        let mut trace = arguments.trace.then(Vec::new);
        violations.extend(guarded(seed, &counts, &mut trace).err().map(|error| (seed, error)));
        if let Some(trace) = trace {
            trace.iter().for_each(|line| println!("{line}"));
            return ExitCode::from(u8::from(!violations.is_empty()));
        }
    } else {
        let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = || {
            let mut violations = Vec::new();
            while counts.images.load(Ordering::Relaxed) < arguments.images
                && failed.load(Ordering::Relaxed) < VIOLATIONS_MAX as u64
            {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = guarded(seed, &counts, &mut None) {
                    failed.fetch_add(1, Ordering::Relaxed);
                    violations.push((seed, error));
                }
            }
            violations
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                violations.extend(thread.join().unwrap_or_else(|_| vec![(0, "a thread has ended".into())]));
            }
        });
        if counts.images.load(Ordering::Relaxed) >= IMAGES_TO_MEET_ALL && violations.is_empty() {
            let happened = counts.happened();
            let missing = MUST_HAPPEN.iter().filter(|what| !happened.contains_key(*what));
            violations.extend(missing.map(|what| (0, format!("the simulator has met no {what}"))));
        }
        let traced = (0..3).map(|seed| (seed, same_in_two_processes(seed)));
        violations.extend(traced.filter_map(|(seed, result)| result.err().map(|error| (seed, error))));
    }
    for (seed, error) in &violations {
        println!("seed {seed}: {error}");
        println!("    again: cargo test -p {} --test simulation -- --seed {seed}", env!("CARGO_PKG_NAME"));
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let happened: Vec<String> = counts.happened().iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("{}", happened.join(", "));
    println!(
        "rot: {} of {} trials reported, the others harmless",
        count(&counts.rot_reported),
        count(&counts.rot_trials)
    );
    println!(
        "simulation: {} images, {} seeds, {} events, {} violations, {:.1} s",
        count(&counts.images),
        count(&counts.seeds),
        count(&counts.events),
        violations.len(),
        begin.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(!violations.is_empty()))
}
