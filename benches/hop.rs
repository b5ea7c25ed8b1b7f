//! What a second shard costs. First the engine's work for one event with 1,000 subscribers at the shard that owns the
//! record, and at another one (both shards' turns, one after the other on this thread): the ratio per delivery, and what
//! is left of the difference per turn. Then the hop itself: from the ring of a thread on core 0 to a thread on core 1
//! that waits in its reactor as a shard does, while that is busy and while it is asleep.
//!
//! `cargo bench --bench hop`

#[path = "common/world.rs"]
mod world;

use shards::command::Control;
use shards::link::{Links, Wake, mesh};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tablecast::protocol::frames::Protocol;
use tablecast::reactor::{EventFd, Reactor, run_on, uring::Uring};
use world::World;

const SUBSCRIBERS: u32 = 1_000;
const ROUNDS: usize = 15;
const HOPS: usize = 20_000;
/// Between two hops to a thread that is to have fallen asleep.
const REST: Duration = Duration::from_micros(100);

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds of a turn with so many events.
fn turn_us(world: &mut World, events: u16) -> f64 {
    const TURNS: u32 = 200;
    let begun = Instant::now();
    for _ in 0..TURNS {
        world.turn(events, 0);
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS)
}

fn cost(events: u16) {
    let mut worlds = [1, 2].map(|shards| World::new(shards, SUBSCRIBERS, 0, Protocol::MqttV4));
    worlds.iter_mut().for_each(|world| _ = turn_us(world, events));
    let (mut one, mut two, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let [own, other] = &mut worlds;
        let (own, other) = (turn_us(own, events), turn_us(other, events));
        one.push(own);
        two.push(other);
        ratios.push(other / own);
    }
    let (one, two) = (median(&mut one), median(&mut two));
    let ratio = median(&mut ratios);
    println!(
        "{events:>2} events to {SUBSCRIBERS} subscribers: {one:.1} µs with one shard, {two:.1} µs across two: {ratio:.3} x \
         ({:.3} to {:.3}), {:.2} µs an event more",
        ratios[0],
        ratios[ROUNDS - 1],
        (two - one) / f64::from(events)
    );
}

/// Waits for messages as a shard does, and notes how long each was on its way.
fn listen(mut links: Links, wake: Arc<EventFd>, is_busy: bool, base: Instant, sent_ns: &AtomicU64) -> Vec<f64> {
    run_on(&[1]).expect("a second core");
    let mut reactor = Uring::new(wake).expect("io_uring");
    let (mut completions, mut hops) = (Vec::new(), Vec::new());
    while hops.len() < HOPS {
        let may_sleep = links.may_sleep() && !is_busy;
        let timeout = if may_sleep { Some(Duration::from_secs(1)) } else { Some(Duration::ZERO) };
        reactor.poll(timeout, &mut completions).expect("a poll");
        links.wake_up();
        completions.clear();
        while links.receive_control(0).is_some() {
            let now_ns = base.elapsed().as_nanos() as u64;
            hops.push((now_ns - sent_ns.swap(0, Ordering::AcqRel)) as f64 / 1e3);
        }
    }
    hops
}

fn hop(is_busy: bool) {
    let wakes = [(); 2].map(|()| Arc::new(EventFd::new().expect("an event descriptor")));
    let mut links = mesh(&wakes.clone().map(|wake| wake as Arc<dyn Wake>));
    let (theirs, mut own) = (links.pop().expect("two"), links.pop().expect("two"));
    let (base, sent_ns, is_over) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let mut hops = std::thread::scope(|scope| {
        let [_, wake] = wakes;
        let listener = scope.spawn(|| {
            let hops = listen(theirs, wake, is_busy, base, &sent_ns);
            is_over.store(true, Ordering::Release);
            hops
        });
        run_on(&[0]).expect("a first core");
        let mut next = Instant::now();
        while !is_over.load(Ordering::Acquire) {
            next += if is_busy { Duration::from_micros(20) } else { REST };
            while Instant::now() < next || sent_ns.load(Ordering::Acquire) != 0 {
                if is_over.load(Ordering::Acquire) {
                    break;
                }
                std::hint::spin_loop();
            }
            sent_ns.store(base.elapsed().as_nanos() as u64, Ordering::Release);
            own.send_control(1, Control::Credit { weight: 1 });
            own.flush();
        }
        listener.join().expect("no panic")
    });
    let p50 = median(&mut hops);
    let p99 = hops[hops.len() * 99 / 100];
    let state = if is_busy { "busy" } else { "asleep" };
    println!("a hop to a thread that is {state}: p50 {p50:.2} µs, p99 {p99:.2} µs");
}

fn main() {
    for events in [16, 1] {
        cost(events);
    }
    for is_busy in [true, false] {
        hop(is_busy);
    }
}
