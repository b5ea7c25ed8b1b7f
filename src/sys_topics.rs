//! What the server says of itself below `$SYS`, in the tree and the words of mosquitto, where tools look for it.
//!
//! Each shard's thread counts for itself (`shards::counters`) and copies what it has counted into a [`Tally`], at most
//! once a second. The thread of shard 0 adds them up every ten seconds and writes what has changed into the table of
//! figures, whose records MQTT clients subscribe to as to any other. They are written at QoS 0: nobody wants old figures
//! when it comes back.

use crate::protocol::format::Decoder;
use crate::protocol::payload;
use shards::command::{Operation, Write};
use shards::counters::{Counter, Counters};
use shards::event::{Body, Terms};
use shards::limits::TALLY_INTERVAL_US;
use shards::schema::TableId;
use shards::shard::Shard;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one shard has counted, for all threads to read. On cache lines of its own.
#[repr(align(128))]
struct Copied([AtomicU64; Counter::COUNT]);

/// What all shards have counted.
pub struct Tally {
    shards: Vec<Copied>,
    /// The most clients that were connected at a time.
    clients_max: AtomicU64,
}

impl Tally {
    /// With what there is at start.
    pub fn new(shards: impl Iterator<Item = Counters>) -> Tally {
        Tally { shards: shards.map(|own| Copied(own.0.map(AtomicU64::new))).collect(), clients_max: AtomicU64::new(0) }
    }

    fn total(&self) -> Counters {
        let mut total = Counters::default();
        for Copied(copied) in &self.shards {
            total.0.iter_mut().zip(copied).for_each(|(total, own)| *total += own.load(Ordering::Relaxed));
        }
        total
    }

    fn clients(&self) -> u64 {
        self.shards.iter().map(|Copied(copied)| copied[Counter::Clients as usize].load(Ordering::Relaxed)).sum()
    }
}

/// A shard's way to the tally.
pub struct Teller {
    shard: usize,
    clients: u64,
    told_us: u64,
    /// There may be something that has not been told.
    is_behind: bool,
}

impl Teller {
    pub fn new(shard: u16) -> Teller {
        Teller { shard: usize::from(shard), clients: 0, told_us: 0, is_behind: false }
    }

    /// At the end of a turn: tells what was counted, if the last time is long enough ago. Of clients it tells at once.
    pub fn tell(&mut self, shard: &Shard, tally: &Tally) {
        let Copied(copied) = &tally.shards[self.shard];
        let clients = shard.outboxes.counters[Counter::Clients];
        if clients != self.clients {
            self.clients = clients;
            copied[Counter::Clients as usize].store(clients, Ordering::Relaxed);
            tally.clients_max.fetch_max(tally.clients(), Ordering::Relaxed);
        }
        self.is_behind = shard.ticks_us() < self.told_us + TALLY_INTERVAL_US;
        if !self.is_behind {
            self.told_us = shard.ticks_us();
            copied.iter().zip(shard.counters().0).for_each(|(copied, own)| copied.store(own, Ordering::Relaxed));
        }
    }

    /// When the thread must wake to tell more, though nothing happens.
    pub fn deadline_us(&self) -> Option<u64> {
        self.is_behind.then_some(self.told_us + TALLY_INTERVAL_US)
    }
}

/// How fast something happens, per minute: averages over the last minute, five and fifteen, in which what is long ago
/// counts exponentially less.
#[derive(Clone, Copy, Default)]
struct Load {
    last: u64,
    averages: [f64; 3],
}

/// Name of an average, and the time in which its past loses all but 1/e of its weight, in seconds.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

impl Load {
    fn advance(&mut self, now: u64, elapsed_s: f64) {
        let per_minute = now.saturating_sub(self.last) as f64 * 60.0 / elapsed_s;
        self.last = now;
        for (average, (_, span_s)) in self.averages.iter_mut().zip(SPANS) {
            *average = per_minute + (-elapsed_s / span_s).exp() * (*average - per_minute);
        }
    }
}

/// A name, and what it stands for.
type Named = (&'static str, fn(&Counters) -> u64);

/// The loads that are told: the name below `broker/load`, and what is counted.
const LOADS: [Named; 9] = [
    ("messages/received", |total| total[Counter::PacketsReceived]),
    ("messages/sent", packets_sent),
    ("publish/dropped", |total| total[Counter::MessagesDropped]),
    ("publish/received", |total| total[Counter::MessagesReceived]),
    ("publish/sent", |total| total[Counter::MessagesSent]),
    ("bytes/received", |total| total[Counter::BytesReceived]),
    ("bytes/sent", |total| total[Counter::BytesSent]),
    ("sockets", |total| total[Counter::Sockets]),
    ("connections", |total| total[Counter::Connects]),
];

fn packets_sent(total: &Counters) -> u64 {
    total[Counter::MessagesSent] + total[Counter::AnswersSent]
}

/// Sessions without a connection.
fn clients_away(total: &Counters) -> u64 {
    total[Counter::SessionsStored].saturating_sub(total[Counter::ClientsStored])
}

/// The figures that are plain numbers: the name below `broker`, and what it stands for. What is stored is the records:
/// they are what mosquitto calls retained messages.
const FIGURES: [Named; 19] = [
    ("clients/connected", |total| total[Counter::Clients]),
    ("clients/disconnected", clients_away),
    ("clients/expired", |total| total[Counter::SessionsExpired]),
    ("clients/total", |total| total[Counter::Clients] + clients_away(total)),
    ("messages/received", |total| total[Counter::PacketsReceived]),
    ("messages/sent", packets_sent),
    ("messages/stored", |total| total[Counter::Records]),
    ("publish/messages/dropped", |total| total[Counter::MessagesDropped]),
    ("publish/messages/received", |total| total[Counter::MessagesReceived]),
    ("publish/messages/sent", |total| total[Counter::MessagesSent]),
    ("publish/bytes/received", |total| total[Counter::PayloadBytesReceived]),
    ("publish/bytes/sent", |total| total[Counter::PayloadBytesSent]),
    ("bytes/received", |total| total[Counter::BytesReceived]),
    ("bytes/sent", |total| total[Counter::BytesSent]),
    ("subscriptions/count", |total| total[Counter::Subscriptions]),
    ("shared_subscriptions/count", |total| total[Counter::SharedSubscriptions]),
    ("retained messages/count", |total| total[Counter::Records]),
    ("store/messages/count", |total| total[Counter::Records]),
    ("store/messages/bytes", |total| total[Counter::RecordBytes]),
];

/// Writes the figures, on the thread of one shard.
pub struct SysTopics {
    table: TableId,
    interval_us: u64,
    next_us: u64,
    last_us: u64,
    loads: [Load; LOADS.len()],
    /// What was written last, by key.
    written: HashMap<String, String>,
}

impl SysTopics {
    pub fn new(table: TableId, interval_us: u64) -> SysTopics {
        SysTopics { table, interval_us, next_us: 0, last_us: 0, loads: Default::default(), written: HashMap::new() }
    }

    /// When [`SysTopics::write`] has something to do, on the clock of [`Shard::ticks_us`].
    pub fn deadline_us(&self) -> u64 {
        self.next_us
    }

    /// Writes what has changed, if it is time.
    pub fn write(&mut self, shard: &mut Shard, tally: &Tally) {
        let ticks_us = shard.ticks_us();
        if ticks_us < self.next_us {
            return;
        }
        self.next_us = ticks_us + self.interval_us;
        let total = tally.total();
        let elapsed_s = (ticks_us - self.last_us) as f64 / 1e6;
        self.last_us = ticks_us;
        self.say(shard, "broker/version", concat!("tablecast version ", env!("CARGO_PKG_VERSION")).to_owned());
        self.say(shard, "broker/uptime", format!("{} seconds", ticks_us / 1_000_000));
        self.say(shard, "broker/clients/maximum", tally.clients_max.load(Ordering::Relaxed).to_string());
        for (name, figure) in FIGURES {
            self.say(shard, &format!("broker/{name}"), figure(&total).to_string());
        }
        for (at, (name, counted)) in LOADS.into_iter().enumerate() {
            if elapsed_s > 0.0 {
                self.loads[at].advance(counted(&total), elapsed_s);
            }
            for (average, (span, _)) in self.loads[at].averages.into_iter().zip(SPANS) {
                self.say(shard, &format!("broker/load/{name}/{span}"), format!("{average:.2}"));
            }
        }
    }

    fn say(&mut self, shard: &mut Shard, key: &str, text: String) {
        if self.written.get(key) == Some(&text) {
            return;
        }
        let mut bytes = key.as_bytes().to_vec();
        let decoded = payload::document(Some("text/plain"), text.as_bytes(), &mut Decoder::default(), &mut bytes);
        debug_assert!(decoded.is_ok(), "text is not decoded");
        let body = Body::from_parts(bytes, key.len(), 0);
        shard.submit(Write { terms: Terms::default(), ..Write::new(Operation::Put, self.table, body) });
        self.written.insert(key.to_owned(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_approach_what_happens_and_forget_it() {
        let mut load = Load::default();
        let mut counted = 0;
        for _ in 0..6 {
            counted += 100; // 600 a minute
            load.advance(counted, 10.0);
        }
        for (average, (_, span_s)) in load.averages.iter().zip(SPANS) {
            let after_a_minute = 600.0 * (1.0 - f64::exp(-60.0 / span_s));
            assert!((average - after_a_minute).abs() < 1e-6, "{average} {after_a_minute}");
        }
        for _ in 0..60 {
            load.advance(counted, 10.0);
        }
        assert!(load.averages[0] < 0.05 && load.averages[2] > 15.0, "{:?}", load.averages);
    }

    #[test]
    fn the_tally_adds_up() {
        let mut counters = [Counters::default(); 2];
        counters[0][Counter::Clients] = 2;
        counters[1][Counter::Clients] = 3;
        let tally = Tally::new(counters.into_iter());
        assert_eq!((tally.clients(), tally.total()[Counter::Clients]), (5, 5));
    }
}
