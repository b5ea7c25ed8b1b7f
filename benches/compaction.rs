//! What compaction costs those who write: the time from a write to its acknowledgement, with compaction under way and
//! without, in turns in one run on one log. Each sample is one turn of eight records of 200 bytes, committed through
//! the ring; jobs run on a thread beside it, as in the server.

mod common;

use common::{Engine, Random, put, random_key, table};
use shards::schema::{Retention, TableDef};
use std::time::{Duration, Instant};

const RECORDS: u64 = 200_000;
const PER_TURN: usize = 8;
const ROUNDS: usize = 5;
const PHASE: Duration = Duration::from_secs(4);
/// History younger than this stays: the clock is moved on by it, and compaction begins.
const WINDOW_US: u64 = 3_600_000_000;

fn compacts(engine: &mut Engine) -> bool {
    let busy = engine.is_rewriting || !engine.shard.may_sleep();
    engine.shard.wake_up();
    busy
}

fn quantile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() - 1) as f64 * part) as usize]
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let definition = TableDef { retention: Retention { window_us: WINDOW_US, bytes: None }, ..table() };
    let mut engine = Engine::open(folder.path(), definition);
    for first in (0..RECORDS).step_by(2_000) {
        engine.write((first..first + 2_000).map(|number| put(&random_key(number), number as u32)));
    }
    let mut random = Random(7);
    let mut all = [Vec::new(), Vec::new()];
    println!("turns of {PER_TURN} records among {RECORDS}; milliseconds from write to acknowledgement");
    println!("round  compaction   turns    p50    p99   p99.9");
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let mut p99 = [Duration::ZERO; 2];
        for with in [false, true] {
            if with {
                // Enough of garbage in every segment; what is written from now on stays history for an hour.
                for _ in 0..RECORDS / 2_000 {
                    engine.write((0..1_000).map(|_| put(&random_key(random.below(RECORDS)), 1)));
                }
                engine.ahead_us += WINDOW_US + 1_000_000;
            } else {
                while compacts(&mut engine) {
                    engine.turn(Duration::from_millis(5));
                }
            }
            let mut samples = Vec::new();
            let began = Instant::now();
            let mut busy = Duration::ZERO;
            while began.elapsed() < 3 * PHASE && if with { busy < PHASE } else { began.elapsed() < PHASE } {
                let before = compacts(&mut engine);
                let writes: Vec<_> =
                    (0..PER_TURN).map(|_| put(&random_key(random.below(RECORDS)), round as u32)).collect();
                let started = Instant::now();
                engine.write(writes.into_iter());
                let took = started.elapsed();
                if (before || compacts(&mut engine)) == with {
                    samples.push(took);
                    busy += took;
                }
            }
            let milliseconds = |part| quantile(&mut samples.clone(), part).as_secs_f64() * 1e3;
            println!(
                "{round:5}  {:10}  {:6}  {:5.2}  {:5.2}  {:6.2}",
                if with { "under way" } else { "none" },
                samples.len(),
                milliseconds(0.5),
                milliseconds(0.99),
                milliseconds(0.999)
            );
            p99[usize::from(with)] = quantile(&mut samples, 0.99);
            all[usize::from(with)].extend(samples);
        }
        ratios.push(p99[1].as_secs_f64() / p99[0].as_secs_f64());
    }
    let [without, with] = all.each_mut().map(|samples| quantile(samples, 0.99));
    println!(
        "all rounds: p99 {:.2} ms without, {:.2} ms with compaction: {:.2} times; median of the rounds {:.2} times (aim: \
         at most 1.30)",
        without.as_secs_f64() * 1e3,
        with.as_secs_f64() * 1e3,
        with.as_secs_f64() / without.as_secs_f64(),
        common::median(&mut ratios)
    );
}
