//! What the threads of a run have in common: the orders, where the run stands, and live counts.

use crate::scenario::Scenario;
use crate::target::Target;
use crate::wire::Protocol;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where a run stands; each follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are made.
    Setup,
    /// Messages flow, and nothing is counted yet.
    Warmup,
    Measure,
    /// Nothing more is sent; what is under way still arrives.
    Drain,
    Done,
}

const PHASES: [Phase; 5] = [Phase::Setup, Phase::Warmup, Phase::Measure, Phase::Drain, Phase::Done];
/// Problems that are told in words; others are only counted.
const PROBLEMS_MAX: usize = 20;

#[derive(Default)]
pub struct Counts {
    pub connected: AtomicU64,
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub delivered: AtomicU64,
    pub problems: AtomicU64,
}

pub struct Shared {
    pub scenario: Scenario,
    pub target: Target,
    /// Tells this run's messages from others'.
    pub run: u32,
    /// Time is counted from here.
    base: Instant,
    phase: AtomicU8,
    pub counts: Counts,
    /// Connections that have sent all they were to, and have been told that it is accepted.
    pub finished: AtomicUsize,
    /// Messages that were sent, and accepted where they are answered, by publisher and topic.
    pub sent: Mutex<HashMap<(u32, u32), u64>>,
    problems: Mutex<Vec<String>>,
    /// When the schedule of an open loop begins, in nanoseconds since `base`.
    pub schedule_ns: AtomicU64,
    /// From when to when is measured.
    measured_ns: (AtomicU64, AtomicU64),
    /// Where the protocols are spoken: looked up once.
    addresses: HashMap<Protocol, Result<SocketAddr, String>>,
    pub workers: usize,
}

impl Shared {
    pub fn new(scenario: Scenario, target: Target, workers: usize) -> Shared {
        let protocols = scenario.publish.iter().chain(&scenario.subscribe).chain(&[Protocol::Rest]);
        let addresses = protocols.map(|protocol| (*protocol, target.address(*protocol))).collect();
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Shared {
            scenario,
            target,
            run: (since_epoch.subsec_nanos() >> 4 ^ std::process::id()) & 0xffff,
            base: Instant::now(),
            phase: AtomicU8::new(0),
            counts: Counts::default(),
            finished: AtomicUsize::new(0),
            sent: Mutex::default(),
            problems: Mutex::default(),
            schedule_ns: AtomicU64::new(u64::MAX),
            measured_ns: (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)),
            addresses,
            workers,
        }
    }

    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Acquire)).min(PHASES.len() - 1)]
    }

    pub fn enter(&self, phase: Phase) {
        let (from, upto) = &self.measured_ns;
        match phase {
            Phase::Measure => from.store(self.now_ns(), Ordering::Release),
            Phase::Drain => upto.store(self.now_ns(), Ordering::Release),
            _ => {}
        }
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Whether what was meant to happen at this time is measured, however late it did.
    pub fn is_measured(&self, at_ns: u64) -> bool {
        let (from, upto) = &self.measured_ns;
        (from.load(Ordering::Acquire)..upto.load(Ordering::Acquire)).contains(&at_ns)
    }

    /// The address for a protocol, and what goes into the Host field.
    pub fn address(&self, protocol: Protocol) -> Result<(SocketAddr, &str), String> {
        let address = self.addresses.get(&protocol).cloned().unwrap_or_else(|| self.target.address(protocol))?;
        Ok((address, self.target.host(protocol).unwrap_or_default()))
    }

    pub fn now_ns(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    pub fn instant(&self, at_ns: u64) -> Instant {
        self.base + Duration::from_nanos(at_ns)
    }

    pub fn problem(&self, what: String) {
        self.counts.problems.fetch_add(1, Ordering::Relaxed);
        let mut problems = self.problems.lock().expect("not poisoned");
        if problems.len() < PROBLEMS_MAX && !problems.contains(&what) {
            problems.push(what);
        }
    }

    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().expect("not poisoned").clone()
    }
}
