//! Promise: whatever clients do, and whenever the server is killed, what each client sees is what the MQTT specification
//! allows. Random clients against the real sessions and shards, without sockets (`world.rs`), checked against a model
//! (`model.rs`, `client.rs`).
//!
//! `MODEL_SEED` runs one seed, `MODEL_RUNS` so many. A failure names its seed and the fewest steps that show it.

#[path = "../mqtt_clauses/wire.rs"]
#[allow(dead_code)]
mod wire;

mod client;
mod model;
mod terms;
#[allow(dead_code)] // the fuzzer's decisions
mod world;

use client::Client;
use model::{Ledger, Session};
use shards::limits::{Limits, SegmentSizes};
use terms::Terms;
use world::{Chance, World};

const RUNS: u64 = 300;
const STEPS: usize = 3000;
const LONG_RUNS: u64 = 6;
/// More than any backlog needs.
const SETTLE_ROUNDS: usize = 20_000;

struct Run {
    world: World,
    ledger: Ledger,
    clients: Vec<Client>,
}

fn limits(is_small: bool) -> Limits {
    let (packet_bytes_max, first) = if is_small { (8 << 10, 32 << 10) } else { (64 << 10, 256 << 10) };
    let segments = SegmentSizes { first, max: 4 * first, ..SegmentSizes::default() };
    Limits { packet_bytes_max, segments, ..Limits::default() }
}

impl Run {
    fn new(seed: u64) -> Run {
        let shards = [1, 2, 4][seed as usize % 3];
        let mut chance = Chance::Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        chance.below(2);
        let mut world = World::new(shards, chance, limits(true));
        world.disk_delay = [1, 3, 20][world.chance.below(3)];
        let mut ledger = Ledger::new();
        let count = 2 + world.chance.below(4);
        let clients = (0..count).map(|n| Client::new(&format!("c{n}"), 4 + world.chance.below(2) as u8, &mut ledger));
        let clients = clients.collect();
        Run { world, ledger, clients }
    }

    /// One step; an error is of this client.
    fn step(&mut self) -> Result<(), (usize, String)> {
        let Run { world, ledger, clients } = self;
        let at = world.chance.below(clients.len());
        match world.chance.below(1000) {
            0..500 => {
                let shard = world.chance.below(world.shards());
                world.turn(shard);
            }
            500..998 => {
                let client = &mut clients[at];
                client.receive(world, ledger).map_err(|error| (at, error))?;
                let connects = if client.is_on() { world.chance.one_in(400) } else { world.chance.one_in(10) };
                if connects && client.may_connect() {
                    let terms = Terms::any(&mut world.chance);
                    client.connect(world, ledger, terms);
                } else {
                    client.act(world, ledger);
                }
            }
            998 => self.pass(),
            _ if self.world.chance.one_in(3) => {
                self.in_order()?;
                self.world.crash();
                self.ledger.crashed();
                for (at, client) in self.clients.iter_mut().enumerate() {
                    client.crashed(&mut self.world, &mut self.ledger).map_err(|error| (at, error))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Time passes, when nothing is under way.
    fn pass(&mut self) {
        self.world.settle();
        let us = [1_000_000, 4_000_000, 15_000_000, 40_000_000][self.world.chance.below(4)];
        self.world.pass(us);
        self.world.settle();
    }

    /// Clients that have a session come back, and everything is acknowledged.
    fn settle(&mut self) -> Result<(), (usize, String)> {
        let Run { world, ledger, clients } = self;
        world.settle();
        for (at, client) in clients.iter_mut().enumerate() {
            client.receive(world, ledger).map_err(|error| (at, error))?;
            if client.is_awaited(world.now_us) && client.may_connect() {
                let terms = Terms {
                    is_clean: false,
                    expiry_s: Some(3600),
                    receive_maximum: None,
                    alias_maximum: 0,
                    will: None,
                };
                client.connect(world, ledger, terms);
            }
        }
        let mut quiet = 0;
        for _ in 0..SETTLE_ROUNDS {
            world.settle();
            let mut busy = false;
            for (at, client) in clients.iter_mut().enumerate() {
                let before = client.received;
                client.receive(world, ledger).map_err(|error| (at, error))?;
                busy |= client.settle(world, ledger) || client.received > before;
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 3 {
                break;
            }
        }
        for (at, client) in clients.iter().enumerate() {
            client.is_done(world).map_err(|error| (at, error))?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), (usize, String)> {
        let lost = self.clients.iter().map(Client::lost_as_member).max().unwrap_or(0);
        self.ledger.members_lost = self.ledger.members_lost.max(lost);
        let live = self.clients.iter().enumerate().filter(|(_, client)| client.is_live());
        for (at, client) in live.clone() {
            self.ledger.complete(&client.name, &client.session).map_err(|error| (at, error))?;
        }
        let live: Vec<&Session> = live.map(|(_, client)| &client.session).collect();
        self.ledger.complete_groups(&live).map_err(|error| (0, error))?;
        self.in_order()
    }

    fn in_order(&self) -> Result<(), (usize, String)> {
        let all: Vec<&Session> = self.clients.iter().map(|client| &client.session).collect();
        self.ledger.in_order(&all).map_err(|error| (0, error))
    }

    fn whole(seed: u64, steps: usize) -> (Run, Result<(), (usize, String)>) {
        let mut run = Run::new(seed);
        for _ in 0..steps {
            if let Err(error) = run.step() {
                return (run, Err(error));
            }
        }
        let result = run.settle().and_then(|()| run.check());
        (run, result)
    }
}

/// The fewest steps of a seed that fail, as far as halving finds them, and how.
fn report(seed: u64, run: Run, at: usize, error: String) -> String {
    let (mut best, mut steps) = ((run, at, error), STEPS);
    let mut less = STEPS / 2;
    while less > 0 {
        match Run::whole(seed, steps - less) {
            (run, Err((at, error))) => {
                steps -= less;
                best = (run, at, error);
                less = less.min(steps / 2);
            }
            _ => less /= 2,
        }
    }
    let (run, at, error) = best;
    let client = &run.clients[at];
    let log: Vec<&str> = client.log.iter().map(String::as_str).collect();
    let (shards, step) = (run.world.shards(), run.ledger.step);
    format!(
        "seed {seed}, {shards} shards, {steps} steps, at {step}: {}, MQTT {}: {error}\n{}",
        client.name,
        client.level,
        log.join("\n")
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Thousands of messages for one durable reader that keeps its window full, on slow disks: packet identifiers go round,
/// what does not fit the window is read from the log, and nothing is missing.
fn many_messages(seed: u64) -> (Run, Result<(), (usize, String)>) {
    let mut run = Run::new(seed);
    let small = seed.is_multiple_of(2);
    run.world = World::new([1, 2, 4][seed as usize % 3], Chance::Seed(seed), limits(small));
    let (world, ledger) = (&mut run.world, &mut run.ledger);
    world.disk_delay = [3, 10, 30][seed as usize / 3 % 3];
    run.clients = ["reader", "p1", "p2"].iter().map(|name| Client::new(name, 5, ledger)).collect();
    let window = if small { Some(20) } else { None };
    let terms = Terms { is_clean: true, expiry_s: None, receive_maximum: window, alias_maximum: 0, will: None };
    for client in &mut run.clients {
        client.connect(world, ledger, terms.clone());
        client.window = 500;
    }
    let result = many_steps(&mut run, seed, &terms).and_then(|()| run.settle()).and_then(|()| run.check());
    (run, result)
}

fn many_steps(run: &mut Run, seed: u64, terms: &Terms) -> Result<(), (usize, String)> {
    let Run { world, ledger, clients } = run;
    let mut is_subscribed = false;
    for round in 0..12_000 {
        for _ in 0..world.shards() {
            let shard = world.chance.below(world.shards());
            world.turn(shard);
        }
        for (at, client) in clients.iter_mut().enumerate() {
            client.receive(world, ledger).map_err(|error| (at, error))?;
            if !client.is_connected() {
                continue;
            }
            if at > 0 {
                // In bursts, as a busy publisher's socket gives them.
                for _ in 0..if is_subscribed && round % 40 < 8 { world.chance.below(12) } else { 0 } {
                    let qos = 1 + world.chance.below(2) as u8;
                    client.publish(world, ledger, ["a/b", "d"][at - 1], if seed % 5 < 3 { 2 } else { qos }, false);
                }
                client.settle(world, ledger);
            } else if !std::mem::replace(&mut is_subscribed, true) {
                client.subscribe(world, ledger, &[("a/b", 2), ("d", 2)], None);
            } else {
                // Bursts and pauses: the window is full at times, and empty at others.
                for _ in 0..if round % 64 < 40 { world.chance.below(40) } else { 0 } {
                    client.acknowledge(world, ledger, round % 3 > 0);
                }
                client.resume(world, ledger);
                if round % 3000 == 2999 && seed % 4 == 1 {
                    client.cut(world, ledger);
                    let terms = Terms { is_clean: false, ..terms.clone() };
                    client.connect(world, ledger, terms);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn many_messages_for_one_reader() {
    let first = number("MODEL_SEED");
    let runs = number("MODEL_RUNS").unwrap_or(if first.is_some() { 1 } else { LONG_RUNS });
    for seed in first.unwrap_or(0)..first.unwrap_or(0) + runs {
        let (run, result) = many_messages(seed);
        println!("seed {seed}: {} messages, {} deliveries", run.ledger.messages.len(), run.ledger.deliveries);
        if let Err((at, error)) = result {
            let log: Vec<&str> = run.clients[at].log.iter().map(String::as_str).collect();
            panic!("seed {seed}, {} shards: {error}\n{}", run.world.shards(), log.join("\n"));
        }
    }
}

#[test]
fn whatever_clients_do() {
    let first = number("MODEL_SEED");
    let runs = number("MODEL_RUNS").unwrap_or(if first.is_some() { 1 } else { RUNS });
    let from = first.unwrap_or(0);
    let started = std::time::Instant::now();
    let (mut deliveries, mut messages, mut crashes) = (0, 0, 0);
    let mut failures = Vec::new();
    for seed in from..from + runs {
        let (run, result) = Run::whole(seed, STEPS);
        deliveries += run.ledger.deliveries;
        messages += run.ledger.messages.len();
        crashes += run.ledger.crashes;
        if let Err((at, error)) = result {
            failures.push(report(seed, run, at, error));
            if failures.len() == 3 {
                break;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f32();
    println!("{runs} runs: {messages} messages, {deliveries} deliveries, {crashes} crashes in {seconds} s");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
