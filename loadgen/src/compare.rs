//! Servers side by side: rounds in which each has its turn, and ratios with a stated confidence. Machines drift; within
//! a round they have drifted little, so that each round gives a ratio of its own.

use crate::figures::Report;
use serde::{Deserialize, Serialize};

/// Samples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// A figure of a run, and whether less of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Operations per second of the server's CPU time.
    PerCpu,
    PerSecond,
    P50,
    P99,
    BytesPerConnection,
}

pub const FIGURES: [Figure; 5] =
    [Figure::PerCpu, Figure::PerSecond, Figure::P50, Figure::P99, Figure::BytesPerConnection];

impl Figure {
    pub fn name(self) -> &'static str {
        match self {
            Figure::PerCpu => "per CPU second",
            Figure::PerSecond => "per second",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::BytesPerConnection => "bytes per connection",
        }
    }

    pub fn of(self, report: &Report) -> Option<f64> {
        let latency = report.latency.as_ref().or(report.answer.as_ref());
        match self {
            Figure::PerCpu => report.operations_per_cpu_s,
            Figure::PerSecond => Some(report.operations_per_s),
            Figure::P50 => latency.map(|own| own.p50),
            Figure::P99 => latency.map(|own| own.p99),
            Figure::BytesPerConnection => report.bytes_per_connection,
        }
        .filter(|figure| *figure > 0.0)
    }

    pub fn less_is_better(self) -> bool {
        matches!(self, Figure::P50 | Figure::P99 | Figure::BytesPerConnection)
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// A ratio, and between what it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    pub rounds: usize,
}

/// The median of the rounds' ratios; its interval by the bootstrap over rounds (the same random numbers each time).
pub fn ratio(pairs: &[(f64, f64)]) -> Ratio {
    let ratios: Vec<f64> = pairs.iter().map(|(own, other)| own / other).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |count: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % count.max(1) as u64) as usize
    };
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = ratios.iter().map(|_| ratios[below(ratios.len())]).collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Ratio {
        ratio: median(&ratios),
        low: medians[RESAMPLES * 25 / 1000],
        high: medians[RESAMPLES * 975 / 1000],
        rounds: ratios.len(),
    }
}

/// What was found of one figure: for each server its median, and its ratio to the last one.
pub struct Row {
    pub figure: Figure,
    pub medians: Vec<f64>,
    pub ratios: Vec<Ratio>,
}

/// `rounds[r][s]` is what server `s` did in round `r`.
pub fn table(rounds: &[Vec<Report>]) -> Vec<Row> {
    let servers = rounds.first().map_or(0, Vec::len);
    FIGURES
        .into_iter()
        .filter_map(|figure| {
            let values: Vec<Vec<f64>> = rounds
                .iter()
                .map(|round| round.iter().map(|report| figure.of(report)).collect::<Option<Vec<f64>>>())
                .collect::<Option<_>>()?;
            let column = |server: usize| values.iter().map(|round| round[server]).collect::<Vec<f64>>();
            let last = column(servers.checked_sub(1)?);
            let against = |server: usize| {
                let pairs: Vec<(f64, f64)> = column(server).into_iter().zip(last.iter().copied()).collect();
                ratio(&pairs)
            };
            Some(Row {
                figure,
                medians: (0..servers).map(|server| median(&column(server))).collect(),
                ratios: (0..servers.saturating_sub(1)).map(against).collect(),
            })
        })
        .collect()
}

/// What may become worse, by figure: 1.05 lets it be 5 % worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub figure: Figure,
    pub worse: f64,
}

impl Budget {
    /// Whether a ratio of the new server to the old one breaks it: with confidence, and not by its median alone.
    pub fn is_broken(&self, ratio: &Ratio) -> bool {
        match self.figure.less_is_better() {
            true => ratio.low > self.worse,
            false => ratio.high < 1.0 / self.worse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_truth_and_nothing_far_off() {
        let noisy: Vec<(f64, f64)> =
            (0..15).map(|round| (110.0 + f64::from(round % 5), 100.0 + f64::from(round % 3))).collect();
        let found = ratio(&noisy);
        assert!(found.low <= found.ratio && found.ratio <= found.high);
        assert!((1.08..1.14).contains(&found.low) && (1.08..1.14).contains(&found.high), "{found:?}");
    }

    #[test]
    fn a_budget_is_broken_with_confidence_only() {
        let ratio = |low: f64, high: f64| Ratio { ratio: f64::midpoint(low, high), low, high, rounds: 9 };
        let latency = Budget { figure: Figure::P99, worse: 1.1 };
        assert!(latency.is_broken(&ratio(1.2, 1.4)) && !latency.is_broken(&ratio(1.05, 1.4)));
        let cost = Budget { figure: Figure::PerCpu, worse: 1.1 };
        assert!(
            cost.is_broken(&ratio(0.7, 0.8)) && !cost.is_broken(&ratio(0.7, 0.95)) && !cost.is_broken(&ratio(1.5, 2.0))
        );
    }
}
