//! Workloads without messages: reads of records, and connections that come and go.

use crate::link::{Caller, Link};
use crate::runtime::Runtime;
use crate::shared::Phase;
use crate::target::numbered;
use crate::wire::{Event, Message, Opening, Protocol, Wire};
use crate::worker::Worker;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Something was done that began at `since_ns`.
fn done(worker: &Worker, since_ns: u64) {
    worker.shared.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    if worker.shared.phase() == Phase::Measure {
        let mut counted = worker.counted.borrow_mut();
        counted.acknowledged += 1;
        counted.answer.saturating_record(worker.shared.now_ns().saturating_sub(since_ns).max(1));
    }
}

async fn until_it_begins<R: Runtime>(worker: &Worker) {
    while worker.shared.phase() < Phase::Warmup {
        R::sleep(Duration::from_millis(1)).await;
    }
}

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

/// A connection that reads records, one after the other or several at once.
pub async fn read<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let opened = Link::<R>::dial(&worker.shared, Caller { protocol: Protocol::Rest, number, is_slow: false });
    worker.settle(&opened.as_ref().map(drop).map_err(Clone::clone));
    let Ok(mut link) = opened else { return };
    if let Err(what) = read_all(&worker, number, &mut link).await
        && worker.shared.phase() < Phase::Done
    {
        worker.shared.problem(format!("a reader: {what}"));
    }
}

async fn read_all<R: Runtime>(worker: &Worker, number: usize, link: &mut Link<R>) -> Result<(), String> {
    let (shared, scenario) = (&worker.shared, worker.scenario());
    let (_, host) = shared.target.address(Protocol::Rest)?;
    if shared.target.read.is_empty() {
        return Err("the server has no way to read records".into());
    }
    let targets: Vec<String> = (0..scenario.topics).map(|topic| numbered(&shared.target.read, topic)).collect();
    until_it_begins::<R>(worker).await;
    let mut wire = Wire::new(Protocol::Rest);
    let (mut sent, mut waiting) = (0u64, VecDeque::new());
    while shared.phase() <= Phase::Measure {
        while waiting.len() < scenario.in_flight {
            let begun_ns = pace::<R>(worker, number, sent).await;
            let target = &targets[(number as u64 + sent) as usize % scenario.topics];
            wire.publish(&Message { target, host, payload: b"", qos: 0, retain: false, id: 0 }, &mut link.out);
            waiting.push_back(begun_ns);
            sent += 1;
        }
        link.flush().await?;
        if let Event::Acknowledged { .. } = link.next(shared, &mut wire).await?
            && let Some(begun_ns) = waiting.pop_front()
        {
            done(worker, begun_ns);
        }
    }
    Ok(())
}

/// Connects, waits until the connection stands, and ends it; again and again.
pub async fn connect<R: Runtime>(worker: Rc<Worker>, number: usize) {
    let scenario = worker.scenario();
    let protocol = scenario.subscribe[number % scenario.subscribe.len()];
    let topic = (!scenario.all_topics).then_some(number % scenario.topics);
    let target = &worker.shared.target;
    let path = target.subscription(protocol, topic).map(|stream| target.path(protocol, &stream));
    let host = target.address(protocol).map(|(_, host)| host.to_owned());
    let both = path.and_then(|path| Ok((path, host?)));
    worker.settle(&both.as_ref().map(drop).map_err(Clone::clone));
    let Ok((path, host)) = both else { return };
    until_it_begins::<R>(&worker).await;
    let name = format!("lg{:x}-c{number}", worker.shared.run);
    let mut sent = 0;
    while worker.shared.phase() <= Phase::Measure {
        let begun_ns = pace::<R>(&worker, number, sent).await;
        sent += 1;
        let caller = Caller { protocol, number, is_slow: false };
        let opening = Opening { host: &host, path: &path, name: &name, is_clean: true, accepted: None };
        let mut wire = Wire::new(protocol);
        let opened: Result<(Link<R>, bool), String> = Link::open(&worker.shared, caller, &mut wire, &opening).await;
        match opened {
            Ok(_) => done(&worker, begun_ns),
            Err(what) => {
                worker.shared.problem(what);
                R::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
