//! Workloads without messages: reads of records, and connections that come and go.

use crate::link::{Caller, Link, Receiving};
use crate::payload::Stamp;
use crate::runtime::{Runtime, Writer};
use crate::shared::Phase;
use crate::signal::Signal;
use crate::target::numbered;
use crate::wire::{Event, Message, Opening, Protocol, Wire};
use crate::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// When the n-th of what this connection does is due, in nanoseconds; `None`: there is no schedule.
fn due_ns(worker: &Worker, number: usize, sent: u64) -> Option<u64> {
    let scenario = worker.scenario();
    let turn = sent * scenario.subscribers as u64 + number as u64;
    let start_ns = worker.shared.schedule_ns.load(Ordering::Relaxed);
    (scenario.rate > 0.0).then(|| start_ns + (turn as f64 / scenario.rate * 1e9) as u64)
}

/// Waits until that; gives when it was meant to begin.
async fn pace<R: Runtime>(worker: &Worker, number: usize, sent: u64) -> u64 {
    let Some(due_ns) = due_ns(worker, number, sent) else { return worker.shared.now_ns() };
    if let Some(left_ns) = due_ns.checked_sub(worker.shared.now_ns()) {
        R::sleep(Duration::from_nanos(left_ns)).await;
    }
    due_ns
}

/// Reads that are under way on a connection: when each was meant to begin.
#[derive(Default)]
struct UnderWay {
    since_ns: RefCell<VecDeque<u64>>,
    signal: Signal,
    has_ended: Cell<bool>,
}

/// A connection that reads records, one after the other or several at once.
pub async fn read<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let opened = Link::<R>::dial(&worker.shared, Caller { protocol: Protocol::Rest, number, is_slow: false });
    worker.settle(&opened.as_ref().map(drop).map_err(Clone::clone));
    let Ok(link) = opened else { return };
    let (receiving, writer) = link.split();
    let under_way = Rc::new(UnderWay::default());
    R::spawn(take_answers::<R>(worker.clone(), under_way.clone(), receiving));
    if let Err(what) = read_all::<R>(&worker, number, &under_way, writer).await {
        worker.shared.problem(format!("a reader: {what}"));
    }
    worker.shared.finished.fetch_add(1, Ordering::AcqRel);
}

async fn read_all<R: Runtime>(
    worker: &Worker,
    number: usize,
    under_way: &UnderWay,
    mut writer: R::Writer,
) -> Result<(), String> {
    let (shared, scenario) = (&worker.shared, worker.scenario());
    let (_, host) = shared.address(Protocol::Rest)?;
    if shared.target.read.is_empty() {
        return Err("the server has no way to read records".into());
    }
    let targets: Vec<String> = (0..scenario.topics).map(|topic| numbered(&shared.target.read, topic)).collect();
    worker.until_it_begins::<R>().await;
    let mut wire = Wire::new(Protocol::Rest);
    let (mut sent, mut out) = (0u64, Vec::new());
    while shared.phase() <= Phase::Measure && !under_way.has_ended.get() {
        let room = scenario.in_flight.saturating_sub(under_way.since_ns.borrow().len());
        if room == 0 {
            under_way.signal.wait().await;
            continue;
        }
        // On a schedule one by one, each at its time.
        let count = if scenario.rate > 0.0 { 1 } else { room };
        for _ in 0..count {
            let begun_ns = pace::<R>(worker, number, sent).await;
            let target = &targets[(number as u64 + sent) as usize % scenario.topics];
            wire.publish(&Message { target, host, payload: b"", qos: 0, retain: false, id: 0 }, &mut out);
            under_way.since_ns.borrow_mut().push_back(begun_ns);
            sent += 1;
        }
        writer.write(&mut out).await.map_err(|error| format!("cannot send: {error}"))?;
    }
    while !under_way.since_ns.borrow().is_empty() && !under_way.has_ended.get() && shared.phase() < Phase::Done {
        R::sleep(Duration::from_millis(1)).await;
    }
    match under_way.since_ns.borrow().len() {
        0 => Ok(()),
        missing => Err(format!("{missing} reads were not answered")),
    }
}

async fn take_answers<R: Runtime>(worker: Rc<Worker>, under_way: Rc<UnderWay>, mut receiving: Receiving<R>) {
    let mut wire = Wire::new(Protocol::Rest);
    let shared = &worker.shared;
    // Where the generator has written the records, it knows what is in them.
    let is_known = !shared.target.publish.is_empty();
    let what = loop {
        match receiving.next(&mut wire, &mut Vec::new()) {
            Err(what) => break what,
            Ok(None) => {
                under_way.signal.set();
                if let Err(what) = receiving.receive().await {
                    break what;
                }
            }
            Ok(Some(Event::Answer(body))) => {
                let begun_ns = under_way.since_ns.borrow_mut().pop_front();
                let Some(begun_ns) = begun_ns else { break "an answer to nothing".into() };
                let is_whole = || Stamp::read(&body).is_some_and(|(_, rest)| rest.is_whole(worker.scenario().bytes));
                if is_known && !is_whole() {
                    break format!("not the record: {}", String::from_utf8_lossy(&body));
                }
                worker.answered(begun_ns);
            }
            Ok(Some(_)) => {}
        }
    };
    under_way.has_ended.set(true);
    under_way.signal.set();
    // What comes after the last answer is the end of the connection.
    if shared.phase() < Phase::Drain {
        shared.problem(format!("a reader: {what}"));
    }
}

/// Connects, waits until the connection stands, and ends it; again and again.
pub async fn connect<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let scenario = worker.scenario();
    let protocol = scenario.subscribe[number % scenario.subscribe.len()];
    let topic = (!scenario.all_topics).then_some(number % scenario.topics);
    let target = &worker.shared.target;
    let path = target.subscription(protocol, topic).map(|stream| target.path(protocol, &stream));
    let host = worker.shared.address(protocol).map(|(_, host)| host.to_owned());
    let both = path.and_then(|path| Ok((path, host?)));
    worker.settle(&both.as_ref().map(drop).map_err(Clone::clone));
    let Ok((path, host)) = both else { return };
    worker.until_it_begins::<R>().await;
    let name = format!("lg{:x}-c{number}", worker.shared.run);
    let mut sent = 0;
    while worker.shared.phase() <= Phase::Measure {
        let begun_ns = pace::<R>(&worker, number, sent).await;
        // Ports of those before are not free yet: from time to time it takes another address.
        let caller = Caller { protocol, number: number + sent as usize * scenario.subscribers, is_slow: false };
        sent += 1;
        let opening = Opening { host: &host, path: &path, name: &name, is_clean: true, publishing: None };
        let mut wire = Wire::new(protocol);
        let opened = Link::<R>::open(&worker.shared, caller, &mut wire, &opening).await;
        match opened {
            Ok(_) => worker.answered(begun_ns),
            Err(what) => {
                worker.shared.problem(what);
                R::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    worker.shared.finished.fetch_add(1, Ordering::AcqRel);
}
