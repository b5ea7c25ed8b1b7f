//! One run of a scenario against one server: starts the threads, leads them through the phases, and watches.

use crate::figures::{Counted, Environment, Percentiles, Report, Sample, curve};
use crate::process::{Usage, command_line, family};
use crate::runtime::Runtime;
use crate::runtime::glommio::Glommio;
use crate::runtime::monoio::Monoio;
use crate::scenario::{Scenario, Workload};
use crate::shared::{Phase, Shared};
use crate::target::Target;
use crate::worker::work;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const SAMPLE: Duration = Duration::from_millis(50);
/// A run whose connections have not been made by then has failed: this, and so much more for each connection.
const SETUP: Duration = Duration::from_secs(30);
const SETUP_EACH: Duration = Duration::from_millis(5);
/// What is under way in the end may take so long, and nothing may come for so long.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_millis(1500);
/// A resumption that takes longer has failed.
const RESUME_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    #[default]
    Monoio,
    Glommio,
}

pub struct Options {
    pub runtime: RuntimeKind,
    /// Each runs a thread of its own.
    pub cores: Vec<usize>,
    /// The server's process, and the cores that it has.
    pub process: Option<u32>,
    pub server_cores: Vec<usize>,
    pub shows_progress: bool,
}

struct Watch<'a> {
    shared: &'a Shared,
    options: &'a Options,
    samples: Vec<Sample>,
    measured_since: Option<Instant>,
    shown: Instant,
    before: (u64, u64),
}

impl Watch<'_> {
    /// A moment passes: notes the counts, and shows them now and then.
    fn tick(&mut self, what: &str) {
        std::thread::sleep(SAMPLE);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        let (sent, delivered, answered) = (count(&counts.sent), count(&counts.delivered), count(&counts.acknowledged));
        if let Some(since) = self.measured_since {
            self.samples.push(Sample { at: since.elapsed().as_secs_f64(), sent, delivered, answered });
        }
        let elapsed_s = self.shown.elapsed().as_secs_f64();
        if self.options.shows_progress && elapsed_s >= 0.5 {
            let work = (delivered.max(answered) - self.before.0) as f64 / elapsed_s;
            let sending = (sent - self.before.1) as f64 / elapsed_s;
            let connected = count(&counts.connected);
            let mut line =
                format!("\r{what:<28} {connected:>7} connected  {sending:>10.0} sent/s  {work:>10.0} done/s");
            let problems = count(&counts.problems);
            if problems > 0 {
                line += &format!("  {problems} problems");
            }
            eprint!("{line:<100}");
            let _ = std::io::stderr().flush();
            (self.shown, self.before) = (Instant::now(), (delivered.max(answered), sent));
        }
    }

    fn wait(&mut self, what: &str, at_most: Duration, mut until: impl FnMut(&Shared) -> bool) -> bool {
        let end = Instant::now() + at_most;
        while Instant::now() < end {
            if until(self.shared) {
                return true;
            }
            let total = at_most.as_secs_f64();
            let part = 1.0 - end.saturating_duration_since(Instant::now()).as_secs_f64() / total;
            let bar = "#".repeat((part * 12.0) as usize);
            self.tick(&format!("{what:<12} [{bar:<12}]"));
        }
        until(self.shared)
    }
}

/// The processor's name and the kernel's.
fn environment(options: &Options) -> Environment {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime: format!("{:?}", options.runtime).to_lowercase(),
        cores: options.cores.clone(),
        server_cores: options.server_cores.clone(),
        server_command: options.process.map(command_line).unwrap_or_default(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: model.trim_start_matches(['\t', ' ', ':']).to_owned(),
        unix_time: since.as_secs(),
    }
}

pub fn run(
    name: &str,
    server: &str,
    scenario: &Scenario,
    target: &Target,
    options: &Options,
) -> Result<Report, String> {
    let (publish, subscribe) = (target.spoken(&scenario.publish), target.spoken(&scenario.subscribe));
    let scenario = &Scenario { publish, subscribe, ..scenario.clone() };
    let shared = Arc::new(Shared::new(scenario.clone(), target.clone(), options.cores.len()));
    let idle = options.process.map(|process| Usage::of(&family(process)));
    let (sender, results) = channel();
    let threads: Vec<_> = options
        .cores
        .iter()
        .enumerate()
        .map(|(index, core)| {
            let (shared, results) = (shared.clone(), sender.clone());
            match options.runtime {
                RuntimeKind::Monoio => Monoio::run(*core, move || work::<Monoio>(shared, index, results)),
                RuntimeKind::Glommio => Glommio::run(*core, move || work::<Glommio>(shared, index, results)),
            }
        })
        .collect();
    drop(sender);
    let mut watch = Watch {
        shared: &shared,
        options,
        samples: Vec::new(),
        measured_since: None,
        shown: Instant::now(),
        before: (0, 0),
    };
    let led = lead(&mut watch, scenario, idle);
    shared.enter(Phase::Done);
    if options.shows_progress {
        eprint!("\r{:<100}\r", "");
    }
    let mut counted = Counted::default();
    for thread in threads {
        thread.join().map_err(|_| "a thread of the generator has panicked")?;
    }
    results.iter().for_each(|own| counted.add(&own));
    let measured = led?;
    let promises = if scenario.workload == Workload::Idle { &[][..] } else { &counted.verdicts[..] };
    let mut broken: Vec<String> = promises.iter().flat_map(|(promise, verdict)| verdict.broken(*promise)).collect();
    if counted.forgotten > 0 {
        broken.push(format!("{} sessions forgotten", counted.forgotten));
    }
    let operations = match scenario.workload {
        Workload::Idle => 0,
        Workload::Resume => counted.delivered,
        Workload::Flow if scenario.subscribers > 0 => counted.delivered,
        _ => counted.acknowledged,
    };
    let per = |seconds: f64| (operations > 0 && seconds > 0.0).then(|| operations as f64 / seconds);
    Ok(Report {
        name: name.to_owned(),
        server: server.to_owned(),
        environment: environment(options),
        scenario: scenario.clone(),
        seconds: measured.seconds,
        sent: counted.sent,
        answered: counted.acknowledged,
        delivered: counted.delivered,
        operations,
        operations_per_s: per(measured.seconds),
        operations_per_cpu_s: measured.usage.and_then(|usage| per(usage.cpu_s)),
        latency: Percentiles::of(&counted.latency),
        answer: Percentiles::of(&counted.answer),
        usage: measured.usage,
        generator_cpu_s: measured.generator_cpu_s,
        bytes_per_connection: measured.bytes_per_connection,
        verdicts: counted.verdicts.clone(),
        slow: counted.slow,
        foreign: counted.foreign,
        reconnects: counted.reconnects,
        series: watch.samples,
        curve: curve(if counted.latency.is_empty() { &counted.answer } else { &counted.latency }),
        problem_count: shared.counts.problems.load(Ordering::Relaxed),
        problems: shared.problems(),
        broken,
        latencies: Some(Box::new((counted.latency, counted.answer))),
    })
}

struct Measured {
    seconds: f64,
    usage: Option<Usage>,
    generator_cpu_s: f64,
    bytes_per_connection: Option<f64>,
}

/// Leads the threads through the phases.
fn lead(watch: &mut Watch<'_>, scenario: &Scenario, idle: Option<Usage>) -> Result<Measured, String> {
    let shared = watch.shared;
    let publishers = scenario.publishers();
    let expected = (scenario.subscribers + publishers) as u64;
    let mut limit = SETUP + SETUP_EACH * expected as u32;
    if scenario.ramp > 0.0 {
        limit += Duration::from_secs_f64(expected as f64 / scenario.ramp);
    }
    let counts = &shared.counts;
    let is_ready = |shared: &Shared| {
        shared.counts.connected.load(Ordering::Relaxed) >= expected
            || shared.counts.problems.load(Ordering::Relaxed) > 0
    };
    watch.wait("connecting", limit, is_ready);
    let connected = counts.connected.load(Ordering::Relaxed);
    if connected < expected {
        let problems = shared.problems().join("; ");
        return Err(format!("{connected} of {expected} connections stand: {problems}"));
    }
    let own = [std::process::id()];
    // Those that it has started by now belong to it.
    let processes = watch.options.process.map(family);
    let usage = || processes.as_deref().map(Usage::of);
    let cost = |before: Option<Usage>| Some(usage()?.since(&before?));
    if scenario.workload == Workload::Idle {
        std::thread::sleep(Duration::from_secs(1)); // what setting up has left behind is let go
        let (before, since) = (usage(), Instant::now());
        let grown = |idle: Usage| Some(before?.anonymous_bytes.saturating_sub(idle.anonymous_bytes));
        let grown = idle.and_then(grown);
        watch.wait("idle", Duration::from_secs_f64(scenario.seconds), |_| false);
        return Ok(Measured {
            seconds: since.elapsed().as_secs_f64(),
            usage: cost(before),
            generator_cpu_s: 0.0,
            bytes_per_connection: grown.map(|grown| grown as f64 / connected.max(1) as f64),
        });
    }
    shared.schedule_ns.store(shared.now_ns(), Ordering::Release);
    shared.enter(Phase::Warmup);
    let everyone = |shared: &Shared| shared.finished.load(Ordering::Acquire) >= scenario.actors();
    let is_resume = scenario.workload == Workload::Resume;
    if is_resume {
        if !watch.wait("publishing", RESUME_MAX, everyone) {
            return Err("what subscribers are to miss could not be published".into());
        }
    } else {
        watch.wait("warming up", Duration::from_secs_f64(scenario.warmup), |_| false);
    }
    let (before, own_before, since) = (usage(), Usage::of(&own), Instant::now());
    watch.measured_since = Some(since);
    shared.enter(Phase::Measure);
    if is_resume {
        let all = deliveries(shared, scenario);
        watch.wait("resuming", RESUME_MAX, |shared| shared.counts.delivered.load(Ordering::Relaxed) >= all);
    } else {
        watch.wait("measuring", Duration::from_secs_f64(scenario.seconds), |_| false);
    }
    let measured = Measured {
        seconds: since.elapsed().as_secs_f64(),
        usage: cost(before),
        generator_cpu_s: Usage::of(&own).since(&own_before).cpu_s,
        bytes_per_connection: None,
    };
    watch.measured_since = None;
    shared.enter(Phase::Drain);
    watch.wait("finishing", DRAIN_MAX, everyone);
    let all = deliveries(shared, scenario);
    let mut last = (0, Instant::now());
    watch.wait("draining", DRAIN_MAX, |shared| {
        let delivered = shared.counts.delivered.load(Ordering::Relaxed);
        if delivered != last.0 {
            last = (delivered, Instant::now());
        }
        delivered >= all || last.1.elapsed() >= QUIET
    });
    Ok(measured)
}

/// How many deliveries there are if nothing is lost.
fn deliveries(shared: &Shared, scenario: &Scenario) -> u64 {
    let readers = scenario.subscribers - scenario.slow_readers - scenario.stuck_readers;
    let listeners = |topic: usize| match scenario.all_topics {
        true => readers,
        false => (readers + scenario.topics - 1 - topic) / scenario.topics,
    };
    let sent = shared.sent.lock().expect("not poisoned");
    sent.iter().map(|((_, topic), count)| count * listeners(*topic as usize) as u64).sum()
}
