//! A subscriber: connects, listens, and checks what it is given.

use crate::link::{Caller, Link, Opened};
use crate::payload::Stamp;
use crate::runtime::Runtime;
use crate::scenario::Workload;
use crate::shared::Phase;
use crate::verify::Tracker;
use crate::wire::{Event, Opening, Wire};
use crate::worker::{Seen, Worker};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why a connection has ended.
enum Ended {
    /// The subscriber has lost it on purpose.
    Cut,
    /// The run is over.
    Done,
}

struct Subscriber {
    worker: Rc<Worker>,
    caller: Caller,
    name: String,
    filter: String,
    is_stuck: bool,
    seen: Rc<RefCell<Seen>>,
    /// State of a small generator of random numbers.
    random: u64,
    /// The server has confirmed the subscription once.
    is_known: bool,
}

pub async fn subscribe<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let scenario = worker.scenario().clone();
    let protocol = scenario.subscribe[number % scenario.subscribe.len()];
    let topic = (!scenario.all_topics).then_some(number % scenario.topics);
    let filter = match worker.shared.target.subscription(protocol, topic) {
        Ok(filter) => filter,
        Err(what) => return worker.settle(&Err(what)),
    };
    // The last ones are the slow and the stuck ones.
    let is_stuck = number >= scenario.subscribers - scenario.stuck_readers;
    let is_slow = number >= scenario.subscribers - scenario.stuck_readers - scenario.slow_readers;
    let seen = Seen { tracker: Tracker::default(), promise: scenario.promise(protocol), is_slow, topic };
    let seen = Rc::new(RefCell::new(seen));
    worker.subscribers.borrow_mut().push(seen.clone());
    if !is_slow {
        worker.listens(topic);
    }
    let mut own = Subscriber {
        name: format!("lg{:x}-s{number}", worker.shared.run),
        caller: Caller { protocol, number, is_slow },
        filter,
        is_stuck,
        seen,
        random: (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        is_known: false,
        worker,
    };
    let mut wire = Wire::new(protocol);
    let mut was_settled = false;
    loop {
        match own.listen::<R>(&mut wire, &mut was_settled).await {
            Ok(Ended::Done) => return,
            Ok(Ended::Cut) => own.worker.counted.borrow_mut().reconnects += 1,
            Err(_) if own.worker.shared.phase() == Phase::Done => return,
            Err(what) if !was_settled => return own.worker.settle(&Err(what)),
            Err(what) => {
                own.worker.shared.problem(format!("a subscriber by {protocol:?}: {what}"));
                R::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Subscriber {
    /// Between 0 and 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One connection, from its beginning to its end.
    async fn listen<R: Runtime>(&mut self, wire: &mut Wire, was_settled: &mut bool) -> Result<Ended, String> {
        let worker = self.worker.clone();
        let (shared, scenario) = (&*worker.shared, worker.scenario());
        let (_, host) = shared.address(self.caller.protocol)?;
        let is_away = scenario.workload == Workload::Resume;
        let is_clean = !scenario.durable && !is_away;
        let path = &shared.target.path(self.caller.protocol, &self.filter);
        let opening = Opening { host, path, name: &self.name, is_clean, publishing: None };
        let Opened { mut link, is_resumed, .. } = Link::<R>::open(shared, self.caller, wire, &opening).await?;
        let is_mqtt = self.caller.protocol.is_mqtt();
        if self.is_known && !is_mqtt && !is_resumed {
            self.seen.borrow_mut().tracker.begin_anew();
        }
        if self.is_known && is_mqtt && !is_clean && !is_resumed {
            worker.counted.borrow_mut().forgotten += 1;
        }
        if wire.subscribes() && scenario.subscribes && !is_resumed {
            wire.subscribe(&self.filter, scenario.qos, &mut link.out);
            link.flush().await?;
            loop {
                match link.next(shared, wire).await? {
                    Event::Subscribed => break,
                    event => self.take(&link, event),
                }
            }
        }
        self.is_known = true;
        if !std::mem::replace(was_settled, true) {
            worker.settle(&Ok(()));
            if is_away {
                drop(link);
                while shared.phase() < Phase::Measure {
                    R::sleep(Duration::from_millis(5)).await;
                }
                return Ok(Ended::Cut);
            }
        }
        let lasts_s = if scenario.cut_every > 0.0 { -scenario.cut_every * (1.0 - self.random()).ln() } else { 1e9 };
        let cut_ns = shared.now_ns().saturating_add((lasts_s * 1e9) as u64);
        while self.is_stuck && shared.phase() != Phase::Done {
            R::sleep(Duration::from_millis(100)).await;
        }
        loop {
            let event = link.next(shared, wire).await?;
            let bytes = if let Event::Message { payload, .. } = &event { payload.len() } else { 0 };
            self.take(&link, event);
            if self.caller.is_slow {
                R::sleep(Duration::from_secs_f64(bytes as f64 / scenario.slow_bytes_per_s as f64)).await;
            }
            match shared.phase() {
                Phase::Done => return Ok(Ended::Done),
                Phase::Drain => {}
                _ if link.read_ns >= cut_ns => return Ok(Ended::Cut),
                _ => {}
            }
        }
    }

    fn take<R: Runtime>(&mut self, link: &Link<R>, event: Event) {
        let Event::Message { payload, is_state } = event else { return };
        let (worker, shared) = (&self.worker, &self.worker.shared);
        let stamp = Stamp::read(&payload).filter(|(stamp, _)| stamp.run == shared.run && !is_state);
        let Some((stamp, rest)) = stamp else {
            worker.counted.borrow_mut().foreign += 1;
            return;
        };
        if !rest.is_whole(worker.scenario().bytes) {
            shared.problem(format!("a message came damaged: {}", String::from_utf8_lossy(&payload)));
        }
        let is_first = self.seen.borrow_mut().tracker.note(&stamp);
        if self.caller.is_slow || !is_first {
            return;
        }
        shared.counts.delivered.fetch_add(1, Ordering::Relaxed);
        if let Some(publisher) = worker.publishers.get(stamp.publisher as usize) {
            publisher.delivered();
        }
        let mut counted = worker.counted.borrow_mut();
        counted.delivered += u64::from(shared.phase() == Phase::Measure);
        if shared.is_measured(stamp.time_ns) {
            counted.latency.saturating_record(link.read_ns.saturating_sub(stamp.time_ns).max(1));
        }
    }
}
