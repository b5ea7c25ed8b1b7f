//! What a run has found.

use crate::process::Usage;
use crate::scenario::{Scenario, Workload};
use crate::verify::Verdict;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies in nanoseconds, up to two minutes, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("valid bounds")
}

/// Points of [`Report::curve`].
const CURVE_POINTS: u32 = 201;
/// It ends at 99.999 %.
const CURVE_NINES: f64 = 5.0;

/// Which quantile a point of a curve is for: each nine has the same room.
pub fn quantile(point: usize) -> f64 {
    1.0 - 10f64.powf(-CURVE_NINES * point as f64 / f64::from(CURVE_POINTS - 1))
}

/// Where a quantile is on such an axis, between 0 and 1.
pub fn place(quantile: f64) -> f64 {
    -(1.0 - quantile).log10() / CURVE_NINES
}

pub fn curve(histogram: &Histogram<u64>) -> Vec<u64> {
    let points = if histogram.is_empty() { 0 } else { CURVE_POINTS as usize };
    (0..points).map(|point| histogram.value_at_quantile(quantile(point))).collect()
}

/// What one thread has counted while it was measured, and what became of its subscribers.
pub struct Counted {
    pub sent: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    /// From when a message was meant to be sent until it came.
    pub latency: Histogram<u64>,
    /// From there until it was accepted; of reads and connects, until they were done.
    pub answer: Histogram<u64>,
    /// By promise: of subscribers that read as fast as they can.
    pub verdicts: Vec<(crate::verify::Promise, Verdict)>,
    /// Of slow and stuck ones.
    pub slow: Verdict,
    /// Messages of others, and states from before.
    pub foreign: u64,
    pub reconnects: u64,
    /// Subscribers whose sessions the server had forgotten.
    pub forgotten: u64,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted {
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            latency: histogram(),
            answer: histogram(),
            verdicts: Vec::new(),
            slow: Verdict::default(),
            foreign: 0,
            reconnects: 0,
            forgotten: 0,
        }
    }
}

impl Counted {
    pub fn add(&mut self, other: &Counted) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.latency.add(&other.latency).expect("equal bounds");
        self.answer.add(&other.answer).expect("equal bounds");
        for (promise, verdict) in &other.verdicts {
            self.verdict(*promise).add(verdict);
        }
        self.slow.add(&other.slow);
        self.foreign += other.foreign;
        self.reconnects += other.reconnects;
        self.forgotten += other.forgotten;
    }

    pub fn verdict(&mut self, promise: crate::verify::Promise) -> &mut Verdict {
        let at = self.verdicts.iter().position(|(own, _)| *own == promise).unwrap_or_else(|| {
            self.verdicts.push((promise, Verdict::default()));
            self.verdicts.len() - 1
        });
        &mut self.verdicts[at].1
    }
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Option<Percentiles> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Percentiles {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// Counts up to a moment, in seconds since the measurement began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: f64,
    pub sent: u64,
    pub delivered: u64,
    pub answered: u64,
}

/// Where it was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub version: String,
    pub runtime: String,
    pub cores: Vec<usize>,
    pub server_cores: Vec<usize>,
    /// With which the server was started; nothing where it is not known.
    pub server_command: String,
    pub kernel: String,
    pub cpu: String,
    pub unix_time: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub server: String,
    pub environment: Environment,
    pub scenario: Scenario,
    pub seconds: f64,
    pub sent: u64,
    pub answered: u64,
    pub delivered: u64,
    /// What counts as work of the server here: deliveries, or else what it has answered. Idle connections are none.
    pub operations: u64,
    pub operations_per_s: Option<f64>,
    pub operations_per_cpu_s: Option<f64>,
    pub latency: Option<Percentiles>,
    pub answer: Option<Percentiles>,
    /// Of the server while it was measured.
    pub usage: Option<Usage>,
    pub generator_cpu_s: f64,
    /// Memory that each connection costs the server.
    pub bytes_per_connection: Option<f64>,
    pub verdicts: Vec<(crate::verify::Promise, Verdict)>,
    pub slow: Verdict,
    pub foreign: u64,
    pub reconnects: u64,
    pub series: Vec<Sample>,
    /// Latencies in nanoseconds at [`quantile`]s, of deliveries or else of answers.
    pub curve: Vec<u64>,
    pub problem_count: u64,
    pub problems: Vec<String>,
    /// Promises that were not kept.
    pub broken: Vec<String>,
    #[serde(skip)]
    pub latencies: Option<Box<(Histogram<u64>, Histogram<u64>)>>,
}

impl Report {
    pub fn is_fine(&self) -> bool {
        self.broken.is_empty() && self.problem_count == 0
    }

    /// What an operation is.
    pub fn unit(&self) -> &'static str {
        match self.scenario.workload {
            Workload::Connect | Workload::Idle => "connections",
            Workload::Reads => "reads",
            Workload::Flow if self.scenario.subscribers == 0 => "acknowledgements",
            Workload::Flow | Workload::Resume => "deliveries",
        }
    }
}
