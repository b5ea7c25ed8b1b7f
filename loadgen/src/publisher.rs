//! A publisher: sends on schedule, or as fast as its window allows.

use crate::link::{Caller, Link, Opened, Receiving};
use crate::payload::Stamp;
use crate::runtime::{Runtime, Writer};
use crate::scenario::{Scenario, Window, Workload};
use crate::shared::{Phase, Shared};
use crate::signal::Signal;
use crate::target::numbered;
use crate::wire::{Event, Message, Opening, Protocol, Wire};
use crate::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Messages that are given to the socket at once.
const BATCH: u64 = 64;
/// Messages that may wait for their acknowledgement, whatever the schedule says: there are no more packet identifiers.
const UNANSWERED_MAX: u64 = 60_000;
/// After so long without a delivery those that are missing are taken to be lost.
const STALLED_NS: u64 = 1_000_000_000;
/// How long is waited in the end for what is not acknowledged.
const PATIENCE: Duration = Duration::from_secs(10);

/// A window is filled again when so many messages have room in it: one half is on its way while the other is sent.
fn refill(in_flight: u64) -> u64 {
    (in_flight / 2).max(1)
}

#[derive(Default)]
pub struct Publisher {
    pub signal: Signal,
    /// Messages that are due, of a schedule.
    pub due: Cell<u64>,
    sent: Cell<u64>,
    answered: Cell<u64>,
    /// Deliveries to this thread's subscribers, that there are to be of what was sent, and that have been.
    owed: Cell<u64>,
    deliveries: Cell<u64>,
    /// At so many its window has room.
    wakes_at: Cell<u64>,
    /// Messages that are waiting for their acknowledgement, with the time they were meant to be sent.
    waiting: RefCell<VecDeque<(u16, u64)>>,
    /// What the protocol wants in return for what it has received.
    replies: RefCell<Vec<u8>>,
    has_failed: Cell<bool>,
    /// Messages above QoS 0 that the server takes at once.
    receive_max: Cell<u64>,
}

impl Publisher {
    /// One of its messages has come to one of its subscribers.
    pub fn delivered(&self) {
        self.deliveries.set(self.deliveries.get() + 1);
        if self.deliveries.get() >= self.wakes_at.get() {
            self.signal.set();
        }
    }

    /// Deliveries to this thread for a message, on the average; 0: nobody here listens.
    fn listeners(&self) -> u64 {
        self.owed.get().div_ceil(self.sent.get().max(1))
    }

    /// A message was sent that so many on this thread are to hear.
    fn owes(&self, listeners: u64, in_flight: u64) {
        self.sent.set(self.sent.get() + 1);
        self.owed.set(self.owed.get() + listeners);
        let under_way = (in_flight - refill(in_flight)) * self.listeners();
        self.wakes_at.set(self.owed.get().saturating_sub(under_way));
    }

    /// How many messages may be sent now.
    fn allowance(&self, scenario: &Scenario) -> u64 {
        let sent = self.sent.get();
        let unanswered = sent - self.answered.get();
        if scenario.workload == Workload::Resume {
            let left = scenario.messages as u64 - sent.min(scenario.messages as u64);
            return left.min((scenario.in_flight as u64).saturating_sub(unanswered));
        }
        let left = if scenario.rate > 0.0 {
            self.due.get().saturating_sub(sent)
        } else {
            let under_way = match scenario.window() {
                Window::Deliveries if self.owed.get() > 0 => {
                    self.owed.get().saturating_sub(self.deliveries.get()).div_ceil(self.listeners())
                }
                _ => unanswered,
            };
            let room = (scenario.in_flight as u64).saturating_sub(under_way);
            if room < refill(scenario.in_flight as u64) { 0 } else { room }
        };
        let most = if scenario.qos > 0 { UNANSWERED_MAX.min(self.receive_max.get()) } else { UNANSWERED_MAX };
        left.min(most.saturating_sub(unanswered))
    }
}

pub async fn publish<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let protocol = worker.scenario().publish[number % worker.scenario().publish.len()];
    let mut connection = None; // it stays when there is nothing left to send
    let result = run::<R>(&worker, number, protocol, &mut connection).await;
    if let Err(what) = result {
        worker.shared.problem(format!("a publisher by {protocol:?}: {what}"));
    }
    note_sent(&worker, number);
    worker.shared.finished.fetch_add(1, Ordering::AcqRel);
    while connection.is_some() && worker.shared.phase() < Phase::Done {
        R::sleep(Duration::from_millis(50)).await;
    }
}

/// Says how much was sent to each topic. What should have been accepted and was not is owed to nobody.
fn note_sent(worker: &Worker, number: usize) {
    let own = &worker.publishers[number];
    let sent = own.sent.get() - own.waiting.borrow().len() as u64;
    let topics: Vec<usize> = worker.scenario().topics_of(number).collect();
    let cycle = topics.len() as u64;
    let mut all = worker.shared.sent.lock().expect("not poisoned");
    for (place, topic) in (0..).zip(&topics) {
        all.insert((number as u32, *topic as u32), sent / cycle + u64::from(place < sent % cycle));
    }
}

async fn run<R: Runtime>(
    worker: &Rc<Worker>,
    number: usize,
    protocol: Protocol,
    connection: &mut Option<R::Writer>,
) -> Result<(), String> {
    let (shared, scenario) = (worker.shared.clone(), worker.scenario());
    let own = &worker.publishers[number];
    let targets = (0..scenario.topics).map(|topic| shared.target.publication(protocol, topic));
    let targets: Result<Vec<String>, String> = targets.collect();
    let opened = match &targets {
        Ok(_) => open::<R>(&shared, number, protocol).await,
        Err(what) => Err(what.clone()),
    };
    worker.settle(&opened.as_ref().map(drop).map_err(Clone::clone));
    let (Ok(targets), Ok((Opened { link, receive_max, .. }, wire))) = (targets, opened) else { return Ok(()) };
    own.receive_max.set(receive_max.into());
    let (receiving, writer) = link.split();
    let writer = connection.insert(writer);
    R::spawn(receive(worker.clone(), number, receiving, wire));
    let (_, host) = shared.address(protocol)?;
    worker.until_it_begins::<R>().await;
    let is_answered = protocol.is_answered(scenario.qos);
    // Others are answered in order.
    let is_numbered = scenario.qos > 0 || protocol == Protocol::WebSocket;
    let mut wire = Wire::new(protocol);
    let (mut out, mut payload) = (Vec::new(), Vec::new());
    let mut moved = (0, shared.now_ns());
    let last_phase = if scenario.workload == Workload::Resume { Phase::Warmup } else { Phase::Measure };
    // What was due before the end is sent, however late it is then.
    let is_due = |phase| phase == Phase::Drain && scenario.rate > 0.0 && own.due.get() > own.sent.get();
    while shared.phase() <= last_phase || is_due(shared.phase()) {
        out.append(&mut own.replies.borrow_mut());
        let count = own.allowance(scenario).min(BATCH);
        if own.has_failed.get() {
            return Ok(());
        }
        if count == 0 && out.is_empty() {
            if scenario.workload == Workload::Resume && own.sent.get() >= scenario.messages as u64 {
                break;
            }
            own.signal.wait().await;
            give_up_lost(own, &shared, &mut moved);
            continue;
        }
        let now_ns = shared.now_ns();
        let is_measured = shared.phase() == Phase::Measure;
        for _ in 0..count {
            let sent = own.sent.get();
            let (message_number, topic) = scenario.place(number, sent);
            let time_ns = if scenario.rate > 0.0 { due_ns(&shared, number, sent) } else { now_ns };
            let id = if is_numbered { (sent % u64::from(u16::MAX)) as u16 + 1 } else { 0 };
            payload.clear();
            let (publisher, topic_number) = (number as u32, topic as u32);
            let stamp = Stamp { run: shared.run, publisher, topic: topic_number, number: message_number, time_ns };
            stamp.write(scenario.bytes, &mut payload);
            let target = &targets[topic];
            let (qos, retain) = (scenario.qos, scenario.retain);
            wire.publish(&Message { target, host, payload: &payload, qos, retain, id }, &mut out);
            own.owes(worker.listeners(topic), scenario.in_flight as u64);
            match is_answered {
                true => own.waiting.borrow_mut().push_back((id, time_ns)),
                false => own.answered.set(own.answered.get() + 1),
            }
        }
        shared.counts.sent.fetch_add(count, Ordering::Relaxed);
        if is_measured {
            worker.counted.borrow_mut().sent += count;
        }
        writer.write(&mut out).await.map_err(|error| format!("cannot send: {error}"))?;
    }
    if let missed @ 1.. = own.due.get().saturating_sub(own.sent.get()) {
        return Err(format!("{missed} messages were due and could not be sent"));
    }
    let until_ns = shared.now_ns() + PATIENCE.as_nanos() as u64;
    while !own.waiting.borrow().is_empty() && shared.now_ns() < until_ns && !own.has_failed.get() {
        own.signal.wait().await;
        out.append(&mut own.replies.borrow_mut());
        if !out.is_empty() {
            writer.write(&mut out).await.map_err(|error| format!("cannot send: {error}"))?;
        }
    }
    match own.waiting.borrow().len() {
        0 => Ok(()),
        missing => Err(format!("{missing} messages were not acknowledged")),
    }
}

async fn open<R: Runtime>(shared: &Shared, number: usize, protocol: Protocol) -> Result<(Opened<R>, Wire), String> {
    let (_, host) = shared.address(protocol)?;
    let caller = Caller { protocol, number: shared.scenario.subscribers + number, is_slow: false };
    let name = format!("lg{:x}-p{number}", shared.run);
    let mut wire = Wire::new(protocol);
    let socket = shared.target.publish_websocket.as_ref().filter(|_| protocol == Protocol::WebSocket);
    let (mut stream, mut topics) = (String::new(), shared.scenario.topics_of(number));
    if let (Some(socket), Some(topic)) = (socket, topics.next()) {
        stream = numbered(&socket.path, topic);
        if stream != socket.path && topics.next().is_some() {
            return Err(
                "the server takes one topic from each WebSocket; the scenario has more for each publisher".into()
            );
        }
    }
    let path = &shared.target.path(protocol, &stream);
    let opening = Opening { host, path, name: &name, is_clean: true, publishing: socket };
    let mut opened = Link::open(shared, caller, &mut wire, &opening).await?;
    opened.link.flush().await?;
    Ok((opened, wire))
}

/// When a message is due: those of all publishers take turns.
fn due_ns(shared: &Shared, publisher: usize, sent: u64) -> u64 {
    let Scenario { publishers, burst, rate, .. } = shared.scenario;
    let turn = sent * publishers as u64 + publisher as u64;
    let start_ns = shared.schedule_ns.load(Ordering::Relaxed);
    start_ns + ((turn / burst as u64 * burst as u64) as f64 / rate * 1e9) as u64
}

/// Where nothing has come for long, a server that may lose messages has: the window is opened again.
fn give_up_lost(own: &Publisher, shared: &Shared, moved: &mut (u64, u64)) {
    let now_ns = shared.now_ns();
    if own.deliveries.get() != moved.0 {
        *moved = (own.deliveries.get(), now_ns);
    } else if now_ns - moved.1 > STALLED_NS {
        own.deliveries.set(own.owed.get());
        *moved = (own.deliveries.get(), now_ns);
    }
}

/// Takes acknowledgements.
async fn receive<R: Runtime>(worker: Rc<Worker>, number: usize, mut receiving: Receiving<R>, mut wire: Wire) {
    let (own, shared) = (&worker.publishers[number], &worker.shared);
    let result = loop {
        let event = match receiving.next(&mut wire, &mut own.replies.borrow_mut()) {
            Ok(event) => event,
            Err(what) => break what,
        };
        match event {
            None => {
                own.signal.set();
                if let Err(what) = receiving.receive().await {
                    break what;
                }
            }
            Some(event @ (Event::Acknowledged { .. } | Event::Answer(_))) => {
                let id = if let Event::Acknowledged { id } = event { id } else { 0 };
                let mut waiting = own.waiting.borrow_mut();
                let at = if id == 0 { Some(0) } else { waiting.iter().position(|(own, _)| *own == id) };
                let Some((_, time_ns)) = at.and_then(|at| waiting.remove(at)) else {
                    shared.problem(format!("an acknowledgement of {id}, which was not sent"));
                    continue;
                };
                own.answered.set(own.answered.get() + 1);
                worker.answered(time_ns);
            }
            Some(_) => {}
        }
    };
    own.has_failed.set(true);
    own.signal.set();
    if shared.phase() < Phase::Drain {
        shared.problem(format!("a publisher: {result}"));
    }
}
