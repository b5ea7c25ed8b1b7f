//! Figures as a table for people.

use crate::figures::{Percentiles, Report};
use crate::verify::{Promise, Verdict};
use std::fmt::Write;

/// Three digits, and a unit.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

/// Microseconds.
pub fn duration(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "  {name:<28}{value}");
}

fn percentiles(out: &mut String, name: &str, own: Option<&Percentiles>) {
    let Some(own) = own else { return };
    let parts = [("p50", own.p50), ("p90", own.p90), ("p99", own.p99), ("p99.9", own.p999), ("max", own.max)];
    let text: Vec<String> = parts.iter().map(|(name, us)| format!("{name} {}", duration(*us))).collect();
    line(out, name, &text.join("   "));
}

pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let unit = report.unit();
    let _ = writeln!(out, "{} on {}: {}", report.name, report.server, report.scenario.description);
    let _ = writeln!(out, "  {:.2} s on {}, {}", report.seconds, report.environment.runtime, report.environment.cpu);
    if let Some(figure) = report.operations_per_s {
        line(&mut out, &format!("{unit} per second"), &short(figure));
    }
    if let Some(figure) = report.operations_per_cpu_s {
        line(&mut out, &format!("{unit} per CPU s"), &format!("{} (CPU of the server)", short(figure)));
    }
    if report.sent > 0 {
        line(&mut out, "sent per second", &short(report.sent as f64 / report.seconds));
    }
    percentiles(&mut out, "delivered after", report.latency.as_ref());
    percentiles(&mut out, "answered after", report.answer.as_ref());
    if let Some(usage) = &report.usage {
        let busy = 100.0 * usage.cpu_s / report.seconds;
        let memory = short(usage.resident_bytes as f64);
        let switches = short(usage.context_switches as f64 / report.seconds);
        let text = format!("{busy:.0} % of a core, {memory}B resident, {switches} context switches/s");
        line(&mut out, "server", &text);
    }
    if report.generator_cpu_s > 0.0 {
        let cores = report.environment.cores.len() as f64;
        let busy = 100.0 * report.generator_cpu_s / report.seconds / cores;
        let warning = if busy > 95.0 { " (saturated: rates by the clock are the generator's)" } else { "" };
        line(&mut out, "generator", &format!("{busy:.0} % of its cores{warning}"));
    }
    if let Some(bytes) = report.bytes_per_connection {
        line(&mut out, "memory per connection", &format!("{bytes:.0} B"));
    }
    for (promise, verdict) in &report.verdicts {
        let Verdict { delivered, duplicated, reordered, passed_over, cut_off } = verdict;
        let missing = match promise {
            Promise::AtLeastOnce | Promise::ExactlyOnce => format!("{} lost", passed_over + cut_off),
            Promise::Newest => format!("{passed_over} conflated, {cut_off} newest missing"),
            Promise::AtMostOnce => format!("{} left out", passed_over + cut_off),
        };
        let text = format!("{delivered} delivered, {missing}, {duplicated} duplicated, {reordered} out of order");
        line(&mut out, &format!("verified ({})", promise.name()), &text);
    }
    if report.slow.delivered + report.slow.passed_over + report.slow.cut_off > 0 {
        let missing = report.slow.passed_over + report.slow.cut_off;
        line(&mut out, "slow readers", &format!("{} delivered, {missing} not", report.slow.delivered));
    }
    if report.foreign > 0 {
        line(&mut out, "states and others' messages", &report.foreign.to_string());
    }
    if report.reconnects > 0 {
        line(&mut out, "connections lost on purpose", &report.reconnects.to_string());
    }
    for broken in &report.broken {
        line(&mut out, "PROMISE NOT KEPT", broken);
    }
    if report.problem_count > 0 {
        line(&mut out, "PROBLEMS", &report.problem_count.to_string());
        report.problems.iter().for_each(|problem| line(&mut out, "", problem));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let shown: Vec<String> = [0.0, 7.25, 1234.0, 45_600.0, 2_840_000.0].map(short).into();
        assert_eq!(shown, ["0.00", "7.25", "1234", "45.6 k", "2.84 M"]);
        assert_eq!([12.0, 1500.0, 2.5e6].map(duration), ["12 µs", "1.50 ms", "2.50 s"]);
    }
}
