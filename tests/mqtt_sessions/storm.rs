//! Exactly once, at least once, in order: a publisher and a subscriber lose their connections at random moments, and the
//! server is killed with SIGKILL and started again now and then. MQTT_STORM_SEED repeats a run.

use crate::client::{Client, Gone};
use crate::common::Server;
use crate::common::wire::Random;
use crate::rig::own;
use crate::wire::{Connect, DISCONNECT, Packet, Publish, ack};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TOPICS: u32 = 4;
/// Messages on their way from the publisher.
const WINDOW: usize = 12;
const DEADLINE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy)]
struct Case {
    level: u8,
    qos: u8,
    shards: usize,
    count: u32,
    /// Whether the server dies too.
    kills: bool,
}

/// What both sides have in common: a session, a connection or none, and a mind to lose it.
struct Side {
    addr: SocketAddr,
    connect: Connect,
    client: Option<Client>,
    /// The session has been there: it must be from now on.
    known: bool,
    random: Random,
    connects: usize,
    end: Instant,
}

impl Side {
    fn new(case: Case, addr: SocketAddr, id: &str, seed: u64) -> Side {
        Side {
            addr,
            connect: Connect::lasting(case.level, id),
            client: None,
            known: false,
            random: Random(seed | 1),
            connects: 0,
            end: Instant::now() + DEADLINE,
        }
    }

    /// Connects if there is no connection: whether that was done, so that all that is open is to be sent again.
    fn connected(&mut self) -> bool {
        if self.client.is_some() {
            return false;
        }
        loop {
            assert!(Instant::now() < self.end, "{}: not done within {DEADLINE:?}", self.connect.id);
            match Client::try_open(self.addr, &self.connect) {
                Ok(client) => {
                    let lost = self.known && !client.connack.present;
                    assert!(!lost, "{}: the session was lost at connection {}", self.connect.id, self.connects);
                    self.known = true;
                    self.connects += 1;
                    self.client = Some(client);
                    return true;
                }
                Err(Ok(connack)) => panic!("{} was refused: {connack:?}", self.connect.id),
                Err(Err(_)) => thread::sleep(Duration::from_millis(10)), // the server is away
            }
        }
    }

    /// Sends; at times only a part of it, and then the connection is gone.
    fn send(&mut self, bytes: &[u8]) {
        let Some(client) = &mut self.client else { return };
        let cut = self.random.below(200) == 0;
        let part = if cut { self.random.below(bytes.len() as u64) as usize } else { bytes.len() };
        if client.try_send(&bytes[..part]).is_err() || cut {
            self.client = None;
        }
    }

    /// The next packet, if there is one; at times the connection is lost instead.
    fn read(&mut self, within: Duration) -> Option<Packet> {
        match self.random.below(250) {
            0 => self.client = None,
            1 => {
                let _ = self.client.as_mut()?.try_send(&DISCONNECT);
                self.client = None;
            }
            _ => match self.client.as_mut()?.read(within) {
                Ok(packet) => return Some(packet),
                Err(Gone::Late) => {}
                Err(Gone::Closed) => self.client = None,
            },
        }
        None
    }
}

/// A message on its way from the publisher.
struct Open {
    id: u16,
    n: u32,
    /// PUBREC has come.
    released: bool,
}

fn publish_all(case: Case, mut side: Side) -> usize {
    let (mut open, mut next, mut ids) = (VecDeque::<Open>::new(), 0, (1..=u16::MAX).cycle());
    let publish = |open: &Open, dup: bool| {
        let topic = format!("storm/{}", open.n % TOPICS);
        Publish { dup, ..Publish::new(&topic, open.n.to_string()).qos(case.qos).id(open.id) }.bytes(case.level)
    };
    while next < case.count || !open.is_empty() {
        if side.connected() {
            // Everything again, in its order [MQTT-4.4.0-1].
            let bytes: Vec<u8> = open
                .iter()
                .flat_map(|open| if open.released { ack(0x62, open.id) } else { publish(open, true) })
                .collect();
            if !bytes.is_empty() {
                side.send(&bytes);
            }
        }
        while open.len() < WINDOW && next < case.count && side.client.is_some() {
            let id = ids.find(|id| open.iter().all(|open| open.id != *id)).expect("an unused identifier");
            open.push_back(Open { id, n: next, released: false });
            next += 1;
            side.send(&publish(open.back().expect("just pushed"), false));
        }
        match side.read(Duration::from_millis(100)) {
            Some(Packet::PubAck(got)) if case.qos == 1 => {
                assert!(got.code() < 0x80, "{got:?}");
                open.retain(|open| open.id != got.id);
            }
            Some(Packet::PubRec(got)) => {
                assert!(got.code() < 0x80, "{got:?}");
                if let Some(open) = open.iter_mut().find(|open| open.id == got.id) {
                    open.released = true;
                    side.send(&ack(0x62, got.id));
                }
            }
            Some(Packet::PubComp(got)) => {
                let was_released = open.iter().any(|open| open.id == got.id && open.released);
                assert!(was_released, "PUBCOMP {} for what was not released", got.id);
                open.retain(|open| open.id != got.id);
            }
            Some(other) => panic!("the publisher got {other:?}"),
            None => {}
        }
    }
    side.connects
}

/// The messages in the order in which they first came, and how often connected.
fn take_all(case: Case, mut side: Side, ready: &AtomicBool, done: &AtomicUsize) -> (Vec<u32>, usize) {
    let mut seen = Vec::new();
    let mut all = HashSet::new();
    // QoS 2: what was received and not released, by identifier.
    let mut held: HashMap<u16, u32> = HashMap::new();
    while !ready.load(Ordering::Acquire) {
        side.connected();
        let Some(client) = &mut side.client else { continue };
        let bytes = crate::wire::subscribe(case.level, 1, &Default::default(), &[("storm/#", case.qos)]);
        if client.try_send(&bytes).is_ok() && matches!(client.read(Duration::from_secs(5)), Ok(Packet::SubAck(_))) {
            ready.store(true, Ordering::Release);
        } else {
            side.client = None;
        }
    }
    let mut answers: VecDeque<Vec<u8>> = VecDeque::new();
    while all.len() < case.count as usize || !held.is_empty() || !answers.is_empty() {
        if side.connected() {
            answers.clear(); // whatever was owed on the old connection is asked for again
        }
        // At times answers wait for a while; their order stays.
        if side.random.below(4) != 0 {
            while let Some(bytes) = answers.pop_front() {
                side.send(&bytes);
            }
        }
        match side.read(Duration::from_millis(20)) {
            Some(Packet::Publish(publish)) => {
                let n: u32 = publish.text().parse().expect("a number");
                assert_eq!(publish.qos, case.qos);
                let again = case.qos == 2 && held.contains_key(&publish.id);
                if again {
                    assert_eq!(held[&publish.id], n, "identifier {} was given to another message", publish.id);
                    // After a crash the server need not know that it had sent it.
                    assert!(publish.dup || case.kills, "{n} came again without DUP");
                } else {
                    let new = all.insert(n);
                    assert!(new || case.qos == 1, "{n} came twice, as {publish:?}");
                    if new {
                        seen.push(n);
                    }
                }
                if case.qos == 2 {
                    held.insert(publish.id, n);
                }
                answers.push_back(ack(if case.qos == 2 { 0x50 } else { 0x40 }, publish.id));
            }
            Some(Packet::PubRel(got)) => {
                held.remove(&got.id);
                answers.push_back(ack(0x70, got.id));
            }
            Some(Packet::Disconnect { code, .. }) => panic!("the subscriber was sent away with {code:#x}"),
            Some(other) => panic!("the subscriber got {other:?}"),
            None => {}
        }
        done.store(all.len(), Ordering::Release);
    }
    // Nothing comes behind it, on a connection that lasts.
    let until = Instant::now() + Duration::from_millis(800);
    while Instant::now() < until {
        if side.client.is_none() {
            side.connected();
        }
        match side.client.as_mut().map(|client| client.read(Duration::from_millis(100))) {
            Some(Ok(Packet::Publish(publish))) if case.qos == 1 => {
                let n = publish.text().parse().expect("a number");
                assert!(all.contains(&n) && (publish.dup || case.kills), "{publish:?}");
                side.send(&ack(0x40, publish.id));
            }
            Some(Ok(Packet::PubRel(got))) => side.send(&ack(0x70, got.id)),
            Some(Ok(other)) => panic!("after the end came {other:?}"),
            Some(Err(Gone::Closed)) => side.client = None,
            Some(Err(Gone::Late)) | None => {}
        }
    }
    (seen, side.connects)
}

/// Kills the server after every so many messages that the subscriber has seen, until it is through; how often.
fn kill_now_and_then(
    server: &mut Server,
    count: usize,
    random: &mut Random,
    seen: impl Fn() -> Option<usize>,
) -> usize {
    let (mut at, mut kills) = (0, 0);
    loop {
        at += 1 + random.below(count as u64 / 6) as usize;
        while seen().is_some_and(|seen| seen < at) {
            thread::sleep(Duration::from_millis(1));
        }
        if seen().is_none() {
            return kills;
        }
        thread::sleep(Duration::from_millis(random.below(20)));
        server.kill9();
        server.restart_on_same_ports();
        kills += 1;
    }
}

fn storm(case: Case) {
    let seed = match std::env::var("MQTT_STORM_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos() as u64,
    };
    let Case { level, qos, shards, count, kills } = case;
    println!("MQTT_STORM_SEED={seed} (MQTT {level}, QoS {qos}, {shards} shards, {count} messages, kills: {kills})");
    let mut server = own(shards);
    let addr = server.mqtt();
    let (ready, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (sent, (seen, taken), killed) = thread::scope(|scope| {
        let subscriber = Side::new(case, addr, "subscriber", seed ^ 0x5bd1);
        let (ready, done) = (&ready, &done);
        let subscriber = scope.spawn(move || take_all(case, subscriber, ready, done));
        while !ready.load(Ordering::Acquire) && !subscriber.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let publisher = Side::new(case, addr, "publisher", seed ^ 0x1f3d);
        let publisher = scope.spawn(move || publish_all(case, publisher));
        let mut random = Random(seed | 1);
        let count = count as usize;
        let seen = || Some(done.load(Ordering::Acquire)).filter(|seen| *seen < count && !subscriber.is_finished());
        let killed = if kills { kill_now_and_then(&mut server, count, &mut random, seen) } else { 0 };
        let subscribed = subscriber.join().unwrap_or_else(|panic| resume_unwind(panic));
        (publisher.join().unwrap_or_else(|panic| resume_unwind(panic)), subscribed, killed)
    });
    println!("publisher connected {sent} times, subscriber {taken} times, server killed {killed} times");
    assert_eq!(seen.len(), count as usize);
    for topic in 0..TOPICS {
        let of_topic: Vec<u32> = seen.iter().copied().filter(|n| n % TOPICS == topic).collect();
        let first = of_topic.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(first, None, "storm/{topic} is out of order");
    }
    assert!(sent > 1 && taken > 1 && killed >= usize::from(kills), "connections and servers were to break");
}

const CALM: Case = Case { level: 5, qos: 2, shards: 2, count: 1500, kills: false };

#[test]
fn exactly_once_over_lost_connections() {
    for (level, shards) in [(4, 1), (5, 4)] {
        storm(Case { level, shards, ..CALM });
    }
}

#[test]
fn at_least_once_over_lost_connections() {
    for (level, shards) in [(4, 4), (5, 1)] {
        storm(Case { level, qos: 1, shards, ..CALM });
    }
}

#[test]
fn exactly_once_over_crashes() {
    for (level, shards) in [(4, 2), (5, 4)] {
        storm(Case { level, shards, kills: true, count: 8000, ..CALM });
    }
}

#[test]
fn at_least_once_over_crashes() {
    for (level, shards) in [(4, 4), (5, 2)] {
        storm(Case { level, qos: 1, shards, kills: true, count: 8000 });
    }
}
