//! One hop between two threads: nanoseconds per 64-byte message, ours beside `rtrb`. Both sides spin.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

const SLOTS: usize = 1024;
const MESSAGES: u64 = 200_000;

type Message = [u64; 8];

/// The time in which `MESSAGES` go from one thread to the other.
fn hop(mut push: impl FnMut(Message) -> bool + Send, mut pop: impl FnMut() -> Option<Message>) -> Duration {
    std::thread::scope(|scope| {
        let started = Instant::now();
        scope.spawn(move || {
            for number in 0..MESSAGES {
                while !push([number; 8]) {
                    spin_loop();
                }
            }
        });
        for number in 0..MESSAGES {
            let message = loop {
                match pop() {
                    Some(message) => break message,
                    None => spin_loop(),
                }
            };
            assert_eq!(black_box(message)[7], number);
        }
        started.elapsed()
    })
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/two threads, 64 bytes");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("ours", |bencher| {
        bencher.iter_custom(|rounds| {
            let round = |_| {
                let (mut producer, mut consumer) = shards::ring::ring::<Message>(SLOTS);
                hop(|message| producer.push(message).is_ok(), || consumer.pop())
            };
            (0..rounds).map(round).sum()
        });
    });
    group.bench_function("rtrb", |bencher| {
        bencher.iter_custom(|rounds| {
            let round = |_| {
                let (mut producer, mut consumer) = rtrb::RingBuffer::<Message>::new(SLOTS);
                hop(|message| producer.push(message).is_ok(), || consumer.pop().ok())
            };
            (0..rounds).map(round).sum()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = ring
}
criterion_main!(benches);
