//! One page that needs nothing else: figures, latencies by percentile, and rates over time, as SVG.

use super::text;
use crate::figures::{Report, place, quantile};
use crate::history::Entry;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 8] = ["#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0e7490", "#a16207", "#475569"];

struct Line {
    name: String,
    /// Both between 0 and 1.
    points: Vec<(f64, f64)>,
}

struct Plot<'a> {
    title: &'a str,
    lines: Vec<Line>,
    /// Where on its axis, and what is written there.
    across: Vec<(f64, String)>,
    up: Vec<(f64, String)>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One picture of plots, one below the other.
fn picture(plots: &[Plot<'_>]) -> String {
    let (mut inside, mut down) = (String::new(), 0.0);
    for plot in plots {
        let _ = write!(inside, "<g transform=\"translate(0 {down})\">{}</g>", plot.draw());
        down += plot.height();
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {down}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{inside}</svg>\n"
    )
}

impl Plot<'_> {
    /// With the names of its lines below it.
    fn height(&self) -> f64 {
        HEIGHT + 18.0 * self.lines.len() as f64
    }

    fn draw(&self) -> String {
        let x = |at: f64| LEFT + at * (WIDTH - LEFT - 20.0);
        let y = |at: f64| HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - 40.0);
        let mut out =
            format!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>", escape(self.title));
        for (at, label) in &self.across {
            let (x, top, bottom) = (x(*at), y(1.0), y(0.0));
            let _ = write!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#e2e8f0\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            );
        }
        for (at, label) in &self.up {
            let (y, left, right) = (y(*at), x(0.0), x(1.0));
            let _ = write!(
                out,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points: Vec<String> =
                line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            let down = HEIGHT + 18.0 * index as f64;
            let _ = write!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
                 <rect x=\"{LEFT}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text>",
                points.join(" "),
                down - 10.0,
                LEFT + 18.0,
                down,
                escape(&line.name)
            );
        }
        out
    }
}

/// Percentiles on an axis that gives each nine the same room; latencies on one of powers of ten.
fn latencies(reports: &[Report]) -> Option<Plot<'static>> {
    let found: Vec<&Report> = reports.iter().filter(|report| !report.curve.is_empty()).collect();
    let values = || found.iter().flat_map(|report| &report.curve).map(|value| (*value).max(1) as f64);
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let from = low.log10().floor();
    let to = high.log10().ceil().max(from + 1.0);
    let lines = found.iter().map(|report| {
        let points =
            report.curve.iter().enumerate().map(|(point, value)| {
                (place(quantile(point)), (((*value).max(1) as f64).log10() - from) / (to - from))
            });
        Line { name: format!("{} on {}", report.name, report.server), points: points.collect() }
    });
    let quantiles = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    let powers = from as i32..=to as i32;
    let plot = Plot {
        title: "Latency by percentile",
        lines: lines.collect(),
        across: quantiles.iter().map(|(quantile, name)| (place(*quantile), (*name).to_owned())).collect(),
        up: powers
            .map(|power| ((f64::from(power) - from) / (to - from), text::duration(10f64.powi(power) / 1e3)))
            .collect(),
    };
    Some(plot)
}

/// Work done a second, over the time of the measurement.
fn rates(reports: &[Report]) -> Option<Plot<'static>> {
    let series: Vec<(String, Vec<(f64, f64)>)> = reports
        .iter()
        .filter(|report| report.series.len() > 2)
        .map(|report| {
            let work = |index: usize| {
                let sample = &report.series[index];
                if report.scenario.subscribers > 0 && report.delivered > 0 { sample.delivered } else { sample.answered }
            };
            let points = (1..report.series.len()).map(|index| {
                let (before, after) = (&report.series[index - 1], &report.series[index]);
                (after.at, (work(index) - work(index - 1)) as f64 / (after.at - before.at).max(1e-6))
            });
            (format!("{} on {}", report.name, report.server), points.collect())
        })
        .collect();
    let points = || series.iter().flat_map(|(_, points)| points);
    let end = points().map(|(at, _)| *at).fold(0.0, f64::max);
    let high = points().map(|(_, rate)| *rate).fold(0.0, f64::max);
    if high <= 0.0 {
        return None;
    }
    let scaled = |points: &[(f64, f64)]| points.iter().map(|(at, rate)| (at / end, rate / high)).collect();
    let plot = Plot {
        title: "Done per second, over time",
        lines: series.iter().map(|(name, points)| Line { name: name.clone(), points: scaled(points) }).collect(),
        across: (0..=4).map(|step| (f64::from(step) / 4.0, format!("{:.1} s", end * f64::from(step) / 4.0))).collect(),
        up: (0..=4).map(|step| (f64::from(step) / 4.0, text::short(high * f64::from(step) / 4.0))).collect(),
    };
    Some(plot)
}

/// Ratios of comparisons, in the order of time: 1 is as good as the baseline.
pub fn over_time(entries: &[Entry]) -> String {
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let times = || entries.iter().map(|entry| entry.unix_time);
    let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(1));
    let high = entries.iter().map(|entry| entry.ratio).fold(1.0, f64::max) * 1.1;
    let at = |time: u64| (time - first) as f64 / (last - first).max(1) as f64;
    let lines = names.iter().map(|name| {
        let own = entries.iter().filter(|entry| entry.name == *name);
        let points = own.map(|entry| (at(entry.unix_time), entry.ratio / high)).collect();
        Line { name: (*name).to_owned(), points }
    });
    let days = (last - first) as f64 / 86_400.0;
    let plot = Plot {
        title: "Ratio to the baseline (of counts: to the oldest), over time",
        lines: lines.collect(),
        across: (0..=4)
            .map(|step| (f64::from(step) / 4.0, format!("day {:.1}", days * f64::from(step) / 4.0)))
            .collect(),
        up: (0..=4).map(|step| (f64::from(step) / 4.0, format!("{:.2}", high * f64::from(step) / 4.0))).collect(),
    };
    picture(&[plot])
}

/// Both plots.
pub fn plots(reports: &[Report]) -> String {
    let found: Vec<Plot<'_>> = [latencies(reports), rates(reports)].into_iter().flatten().collect();
    picture(&found)
}

pub fn page(reports: &[Report]) -> String {
    let tables: String = reports.iter().map(|report| format!("<pre>{}</pre>\n", escape(&text::text(report)))).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>loadgen</title>\n\
         <style>body{{font:15px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         pre{{background:#f8fafc;padding:1rem;overflow:auto}}svg{{width:100%;margin:1rem 0}}</style>\n\
         <h1>loadgen</h1>\n{}{tables}</html>\n",
        plots(reports)
    )
}
