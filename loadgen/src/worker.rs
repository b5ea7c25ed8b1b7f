//! One thread of the generator: it makes its part of the connections, and gathers what they have seen.
//!
//! Subscriber `n` belongs to worker `n mod workers`. A publisher that waits for deliveries counts those to the subscribers
//! of its own thread, and has its home where there are some.

use crate::figures::Counted;
use crate::link::{Caller, Link};
use crate::pacer;
use crate::publisher::{self, Publisher};
use crate::runtime::{Reader, Runtime};
use crate::scenario::{Scenario, Workload};
use crate::shared::{Phase, Shared};
use crate::subscriber;
use crate::verify::{Promise, Tracker};
use crate::wire::{Event, Message, Opening, Protocol, Wire};
use crate::{reads, target};
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Connections that are set up at once.
const OPENING_MAX: u64 = 64;
/// How often a worker looks after what is not woken by events.
const ROUND: Duration = Duration::from_millis(20);

/// What became of one subscriber.
pub struct Seen {
    pub tracker: Tracker,
    pub promise: Promise,
    pub is_slow: bool,
    /// `None`: all topics.
    pub topic: Option<usize>,
}

pub struct Worker {
    pub shared: Arc<Shared>,
    pub index: usize,
    pub counted: RefCell<Counted>,
    /// By number; those of other workers are there, too, and stay still.
    pub publishers: Vec<Publisher>,
    pub subscribers: RefCell<Vec<Rc<RefCell<Seen>>>>,
    /// Subscribers of this thread that keep up: those of all topics, and those of each.
    listeners: (Cell<u64>, Vec<Cell<u64>>),
    /// Connections of this worker that were begun, and that stand or have failed.
    pub begun: Cell<u64>,
    pub settled: Cell<u64>,
}

impl Worker {
    pub fn scenario(&self) -> &Scenario {
        &self.shared.scenario
    }

    /// One more subscriber is to keep up with a topic, or with all of them.
    pub fn listens(&self, topic: Option<usize>) {
        let count = topic.map_or(&self.listeners.0, |topic| &self.listeners.1[topic]);
        count.set(count.get() + 1);
    }

    /// Subscribers of this thread that keep up with a topic.
    pub fn listeners(&self, topic: usize) -> u64 {
        self.listeners.0.get() + self.listeners.1[topic].get()
    }

    /// Something is done that was meant to begin at `since_ns`. Its time counts where it began while it was measured: what
    /// is late must not count less for that.
    pub fn answered(&self, since_ns: u64) {
        self.shared.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut counted = self.counted.borrow_mut();
        counted.acknowledged += u64::from(self.shared.phase() == Phase::Measure);
        if self.shared.is_measured(since_ns) {
            counted.answer.saturating_record(self.shared.now_ns().saturating_sub(since_ns).max(1));
        }
    }

    pub async fn until_it_begins<R: Runtime>(&self) {
        while self.shared.phase() < Phase::Warmup {
            R::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A connection stands, or never will.
    pub fn settle(&self, result: &Result<(), String>) {
        self.settled.set(self.settled.get() + 1);
        match result {
            Ok(()) => _ = self.shared.counts.connected.fetch_add(1, Ordering::Relaxed),
            Err(what) => self.shared.problem(what.clone()),
        }
    }
}

/// Runs a worker to the end of the run; what it has counted goes to `results`.
pub async fn work<R: Runtime>(shared: Arc<Shared>, index: usize, results: Sender<Counted>) {
    let scenario = shared.scenario.clone();
    let publishers = scenario.publishers();
    let worker = Rc::new(Worker {
        publishers: (0..publishers).map(|_| Publisher::default()).collect(),
        shared: shared.clone(),
        index,
        counted: RefCell::default(),
        subscribers: RefCell::default(),
        listeners: (Cell::new(0), vec![Cell::new(0); scenario.topics]),
        begun: Cell::new(0),
        settled: Cell::new(0),
    });
    let workers = shared.workers;
    if scenario.workload == Workload::Reads
        && let Err(what) = write_records::<R>(&worker).await
    {
        worker.shared.problem(what);
    }
    let ramp_s = if scenario.ramp > 0.0 { worker.shared.workers as f64 / scenario.ramp } else { 0.0 };
    for number in (0..scenario.subscribers).filter(|number| number % workers == index) {
        let task = worker.clone();
        match scenario.workload {
            Workload::Reads => R::spawn(reads::read::<R>(task, number)),
            Workload::Connect => R::spawn(reads::connect::<R>(task, number)),
            Workload::Flow | Workload::Idle | Workload::Resume => R::spawn(subscriber::subscribe::<R>(task, number)),
        }
        admit::<R>(&worker, ramp_s).await;
    }
    for number in (0..publishers).filter(|number| scenario.home(*number, workers) == index) {
        R::spawn(publisher::publish::<R>(worker.clone(), number));
        admit::<R>(&worker, ramp_s).await;
    }
    while worker.settled.get() < worker.begun.get() {
        R::sleep(ROUND).await;
    }
    if scenario.rate > 0.0 && publishers > 0 {
        R::spawn(pace::<R>(worker.clone()));
    }
    while worker.shared.phase() != Phase::Done {
        R::sleep(ROUND).await;
        worker.publishers.iter().for_each(|own| own.signal.set());
    }
    let mut counted = worker.counted.take();
    finish(&worker, &mut counted);
    let _ = results.send(counted);
}

/// One more connection has begun: waits while too many are.
async fn admit<R: Runtime>(worker: &Worker, ramp_s: f64) {
    worker.begun.set(worker.begun.get() + 1);
    if ramp_s > 0.0 {
        // Sleeps are coarse: several at once, and then a longer one.
        let due_ns = (worker.begun.get() as f64 * ramp_s * 1e9) as u64;
        while worker.shared.now_ns() < due_ns {
            R::sleep(Duration::from_millis(1)).await;
        }
    }
    while worker.begun.get() - worker.settled.get() >= OPENING_MAX && worker.shared.phase() != Phase::Done {
        R::sleep(Duration::from_millis(1)).await;
    }
}

/// What the subscribers have seen, beside what was sent.
fn finish(worker: &Worker, counted: &mut Counted) {
    let sent = worker.shared.sent.lock().expect("not poisoned").clone();
    for seen in worker.subscribers.borrow().iter() {
        let seen = seen.borrow();
        let is_heard = |topic: u32| seen.topic.is_none_or(|own| own as u32 == topic);
        let heard = sent.iter().filter(|((_, topic), _)| is_heard(*topic));
        let verdict = seen.tracker.finish(heard.map(|(place, count)| (*place, *count)));
        match seen.is_slow {
            true => counted.slow.add(&verdict),
            false => counted.verdict(seen.promise).add(&verdict),
        }
    }
}

/// Tells publishers which of their messages are due: message `g` of all, in turn, at `g / rate`.
async fn pace<R: Runtime>(worker: Rc<Worker>) {
    let shared = worker.shared.clone();
    worker.until_it_begins::<R>().await;
    let (rate, burst) = (shared.scenario.rate, shared.scenario.burst as u64);
    let start_ns = shared.schedule_ns.load(Ordering::Acquire);
    let ticks = pacer::start(shared.clone(), start_ns, rate / burst as f64);
    let mut reader = match ticks.and_then(R::adopt) {
        Ok((reader, _)) => reader,
        Err(error) => return shared.problem(format!("no clock: {error}")),
    };
    let count = worker.publishers.len() as u64;
    let (mut told, mut scratch) = (0u64, BytesMut::new());
    while shared.phase() < Phase::Drain {
        if reader.read(&mut scratch).await.unwrap_or(0) == 0 {
            return;
        }
        scratch.clear();
        let elapsed_s = shared.now_ns().saturating_sub(start_ns) as f64 / 1e9;
        let due = ((elapsed_s * rate / burst as f64) as u64 + 1) * burst;
        // Each publisher whose turn came in between, once.
        for turn in told.max(due.saturating_sub(count))..due {
            let publisher = (turn % count) as usize;
            let own = &worker.publishers[publisher];
            own.due.set((due - publisher as u64).div_ceil(count));
            own.signal.set();
        }
        told = due;
    }
}

/// Puts a record where each read will look, if the server takes it.
async fn write_records<R: Runtime>(worker: &Worker) -> Result<(), String> {
    let shared = &worker.shared;
    if shared.target.publish.is_empty() || worker.index > 0 {
        return Ok(());
    }
    let caller = Caller { protocol: Protocol::Rest, number: 0, is_slow: false };
    let mut wire = Wire::new(Protocol::Rest);
    let opening = Opening { host: "", path: "", name: "", is_clean: true, publishing: None };
    let mut link = Link::<R>::open(shared, caller, &mut wire, &opening).await?.link;
    let (_, host) = shared.address(Protocol::Rest)?;
    let mut payload = Vec::new();
    for topic in 0..worker.scenario().topics {
        payload.clear();
        crate::payload::Stamp::default().write(worker.scenario().bytes, &mut payload);
        let target = target::numbered(&shared.target.publish, topic);
        let message = Message { target: &target, host, payload: &payload, qos: 0, retain: true, id: 0 };
        wire.publish(&message, &mut link.out);
        link.flush().await?;
        while !matches!(link.next(shared, &mut wire).await?, Event::Answer(_)) {}
    }
    Ok(())
}
