//! Scenarios: what is to be done to a server. A scenario is a TOML file; the ready-made ones are those of `perf/scenarios`.

use crate::verify::Promise;
use crate::wire::Protocol;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Publishers and subscribers of topics.
    #[default]
    Flow,
    /// Connections that are opened and closed, over and over.
    Connect,
    /// Connections that do nothing.
    Idle,
    /// Subscribers that were away, and are given what they have missed.
    Resume,
    /// Reads of single records.
    Reads,
}

/// What a publisher waits for before it sends more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// That subscribers have had what it has sent.
    Deliveries,
    /// That the server has accepted what it has sent.
    Acknowledgements,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub description: String,
    pub workload: Workload,
    /// Protocols of the publishers, in turn.
    pub publish: Vec<Protocol>,
    /// Protocols of the subscribers, in turn; of connections, where there are only such.
    pub subscribe: Vec<Protocol>,
    pub publishers: usize,
    pub subscribers: usize,
    /// Messages go to these in turn: the n-th of publisher p to topic (p + n × publishers) mod topics. Subscriber s
    /// listens to topic s mod topics.
    pub topics: usize,
    /// Subscribers listen to all topics instead.
    pub all_topics: bool,
    pub qos: u8,
    pub retain: bool,
    /// Of a message.
    pub bytes: usize,
    /// Messages of a publisher that are under way at once, where it sends as fast as it can.
    pub in_flight: usize,
    /// What ends a message's way; left out: deliveries where there are subscribers.
    pub window: Option<Window>,
    /// Messages (or connections, or reads) a second that are sent whatever becomes of them, by all together; 0: as fast
    /// as the window allows. (Reads and connections begin up to a millisecond late, the runtimes' timers being as coarse;
    /// messages do not.)
    pub rate: f64,
    /// Messages that are due at once, at that rate.
    pub burst: usize,
    /// Before what is measured begins, in seconds.
    pub warmup: f64,
    /// How long is measured.
    pub seconds: f64,
    /// Of the subscribers, how many read only so many bytes a second, and how many nothing at all.
    pub slow_readers: usize,
    pub slow_bytes_per_s: usize,
    pub stuck_readers: usize,
    /// Mean time after which a subscriber loses its connection and makes another, in seconds; 0: never.
    pub cut_every: f64,
    /// Whether idle connections subscribe to anything.
    pub subscribes: bool,
    /// Sessions of MQTT subscribers outlive their connections.
    pub durable: bool,
    /// New connections a second while they are set up; 0: as fast as they come about.
    pub ramp: f64,
    /// That a resumed subscriber has missed.
    pub messages: usize,
    /// What subscribers were promised; left out: what follows from QoS and what is done to them.
    pub promise: Option<Promise>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            description: String::new(),
            workload: Workload::Flow,
            publish: vec![Protocol::Mqtt4],
            subscribe: vec![Protocol::Mqtt4],
            publishers: 1,
            subscribers: 100,
            topics: 1,
            all_topics: false,
            qos: 0,
            retain: false,
            bytes: 128,
            in_flight: 32,
            window: None,
            rate: 0.0,
            burst: 1,
            warmup: 1.0,
            seconds: 5.0,
            slow_readers: 0,
            slow_bytes_per_s: 10_000,
            stuck_readers: 0,
            cut_every: 0.0,
            subscribes: true,
            durable: false,
            ramp: 0.0,
            messages: 1000,
            promise: None,
        }
    }
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// The ready-made scenarios, by name.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../perf/scenarios/", $name, ".toml")))),*];
    };
}

built_in![
    "fan-out",
    "fan-out-single",
    "fan-out-qos1",
    "fan-out-latency",
    "fan-out-sse",
    "fan-out-websocket",
    "fan-out-mqtt-websocket",
    "pairs",
    "pairs-qos1",
    "funnel",
    "ingest",
    "reads",
    "puts",
    "connect",
    "idle",
    "resume",
    "mixed",
    "storm",
    "slow",
];

impl Scenario {
    /// A scenario by name or file, with some of its values (`key=value`, as in the file) replaced.
    pub fn load(name: &str, changes: &[String]) -> Result<Scenario, String> {
        let text = match BUILT_IN.iter().find(|(own, _)| *own == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(name).map_err(|error| {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                format!("scenario {name}: {error}; ready-made ones are {}", names.join(", "))
            })?,
        };
        let mut table: toml::Table = text.parse().map_err(|error| format!("scenario {name}: {error}"))?;
        for change in changes {
            let (key, value) = change.split_once('=').ok_or_else(|| format!("{change:?} is not key=value"))?;
            let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut it| it.remove("value"));
            table.insert(key.trim().to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
        }
        let scenario: Scenario = table.try_into().map_err(|error| format!("scenario {name}: {error}"))?;
        scenario.check().map_err(|what| format!("scenario {name}: {what}"))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let only = |protocols: &[Protocol], excluded: &[Protocol], what: &str| match protocols
            .iter()
            .find(|protocol| excluded.contains(protocol))
        {
            Some(protocol) => Err(format!("{protocol:?} cannot {what}")),
            None if protocols.is_empty() => Err(format!("no protocol to {what}")),
            None => Ok(()),
        };
        only(&self.publish, &[Protocol::Sse], "publish")?;
        only(&self.subscribe, &[Protocol::Rest], "subscribe")?;
        let range = |name: &str, value: f64, from: f64, to: f64| {
            if (from..=to).contains(&value) { Ok(()) } else { Err(format!("{name} is {value}, not {from} to {to}")) }
        };
        range("publishers", self.publishers as f64, 0.0, 1e5)?;
        range("subscribers", self.subscribers as f64, 0.0, 1e6)?;
        range("topics", self.topics as f64, 1.0, 1e6)?;
        range("qos", self.qos.into(), 0.0, 2.0)?;
        range("bytes", self.bytes as f64, 0.0, 16e6)?;
        range("in_flight", self.in_flight as f64, 1.0, 60_000.0)?;
        range("rate", self.rate, 0.0, 1e8)?;
        range("burst", self.burst as f64, 1.0, 1e6)?;
        range("seconds", self.seconds, 0.1, 86_400.0)?;
        range("warmup", self.warmup, 0.0, 3600.0)?;
        range("cut_every", self.cut_every, 0.0, 86_400.0)?;
        range("slow_bytes_per_s", self.slow_bytes_per_s as f64, 1.0, 1e9)?;
        range("ramp", self.ramp, 0.0, 1e6)?;
        if self.burst > 1 && self.workload != Workload::Flow {
            return Err("bursts are of messages: the workload is flow".into());
        }
        if self.workload == Workload::Resume
            && let Some(protocol) = self.subscribe.iter().find(|protocol| !protocol.is_mqtt())
        {
            return Err(format!("{protocol:?} keeps no session to resume; cut_every and durable make SSE go on"));
        }
        range("messages", self.messages as f64, 1.0, 1e7)?;
        let kinds = self.slow_readers + self.stuck_readers;
        range("slow_readers + stuck_readers", kinds as f64, 0.0, self.subscribers as f64)
    }

    /// How many connections have something to finish: they publish, read, or come and go.
    pub fn actors(&self) -> usize {
        match self.workload {
            Workload::Flow | Workload::Resume => self.publishers,
            Workload::Connect | Workload::Reads => self.subscribers,
            Workload::Idle => 0,
        }
    }

    /// How many connections publish.
    pub fn publishers(&self) -> usize {
        match self.workload {
            Workload::Flow | Workload::Resume => self.publishers,
            Workload::Connect | Workload::Idle | Workload::Reads => 0,
        }
    }

    /// Which of so many workers has a publisher: one with subscribers of the first topic it sends to, if there are any,
    /// since a worker knows of the deliveries to its own. (Subscriber s belongs to worker s mod workers.)
    pub fn home(&self, publisher: usize, workers: usize) -> usize {
        let listener = if self.all_topics { publisher % self.subscribers.max(1) } else { publisher % self.topics };
        listener % workers
    }

    pub fn window(&self) -> Window {
        self.window.unwrap_or(match self.subscribers > self.slow_readers + self.stuck_readers {
            true => Window::Deliveries,
            false => Window::Acknowledgements,
        })
    }

    /// What a subscriber of this protocol was promised.
    pub fn promise(&self, protocol: Protocol) -> Promise {
        let is_kept = self.cut_every == 0.0 || self.durable;
        self.promise.unwrap_or(match self.qos {
            1 if protocol.is_mqtt() && is_kept => Promise::AtLeastOnce,
            2 if protocol.is_mqtt() && is_kept => Promise::ExactlyOnce,
            _ => Promise::AtMostOnce,
        })
    }

    /// The number of a publisher's message, and its topic, by how many it has sent before.
    pub fn place(&self, publisher: usize, sent: u64) -> (u64, usize) {
        let topics = self.topics as u64;
        let step = self.publishers as u64 % topics;
        let topic = (publisher as u64 + sent % topics * step) % topics;
        // It comes back to the same topic after so many.
        let cycle = topics / gcd(topics, step.max(topics * u64::from(step == 0)));
        (sent / cycle, topic as usize)
    }

    /// The topics that a publisher sends to.
    pub fn topics_of(&self, publisher: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.place(publisher, 0).1;
        let rest = (1..self.topics as u64).map(move |sent| self.place(publisher, sent).1);
        std::iter::once(first).chain(rest.take_while(move |topic| *topic != first))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn ready_made_scenarios_are_valid_and_may_be_changed() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name, &["seconds=2".into()]).expect(name);
            assert!(!scenario.description.is_empty() && scenario.seconds == 2.0, "{name}");
        }
        let changed =
            Scenario::load("fan-out", &["subscribe=[\"sse\"]".into(), "promise=newest".into()]).expect("valid");
        assert_eq!((changed.subscribe, changed.promise), (vec![Protocol::Sse], Some(Promise::Newest)));
        for wrong in ["qos=3", "publish=[\"sse\"]", "nonsense=1", "topics=0", "subscribe=[]", "qos"] {
            Scenario::load("fan-out", &[wrong.into()]).expect_err(wrong);
        }
    }

    #[test]
    fn numbers_of_a_topic_follow_each_other() {
        for (publishers, topics) in [(1, 1), (1, 7), (100, 100), (64, 1000), (6, 4), (3, 2), (8, 4)] {
            let scenario = Scenario { publishers, topics, ..Scenario::default() };
            for publisher in 0..publishers {
                let mut next: HashMap<usize, u64> = HashMap::new();
                for sent in 0..3000 {
                    let (number, topic) = scenario.place(publisher, sent);
                    let expected = next.entry(topic).or_default();
                    assert_eq!(number, *expected, "{publishers} {topics} {publisher} {sent}");
                    *expected += 1;
                }
                let mut own: Vec<usize> = scenario.topics_of(publisher).collect();
                own.sort_unstable();
                let mut seen: Vec<usize> = next.into_keys().collect();
                seen.sort_unstable();
                assert_eq!(own, seen);
            }
        }
    }
}
