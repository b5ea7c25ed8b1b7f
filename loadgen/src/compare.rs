//! Servers side by side: rounds in which each has its turn, and ratios with a stated confidence. Machines drift; within
//! a round they have drifted little, so that each round gives a ratio of its own.

use crate::figures::Report;

/// Intervals are as narrow as this confidence allows; of a few rounds they are all there is, and have less.
const CONFIDENCE: f64 = 0.95;
/// Fewer rounds cannot show with [`CONFIDENCE`] that a budget is broken: all of them on one side of it happens by chance
/// in one of 2^5 cases.
pub const BUDGET_ROUNDS_MIN: usize = 5;

/// A figure of a run, and whether less of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
            Figure::PerSecond => report.operations_per_s,
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

/// A ratio, and between what it lies with so much confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    pub confidence: f64,
    pub rounds: usize,
}

/// The median of the rounds' ratios, with its interval by order: whatever the distribution, a round is as likely above
/// the median as below it, so that how many are follows the binomial distribution.
pub fn ratio(pairs: &[(f64, f64)]) -> Ratio {
    let mut ratios: Vec<f64> = pairs.iter().map(|(own, other)| own / other).collect();
    ratios.sort_by(f64::total_cmp);
    let rounds = ratios.len();
    // How likely it is that no more than `outside` rounds are on one given side of the median.
    let mut ways = 1.0;
    let mut tail = 0.5f64.powi(rounds as i32);
    let (mut outside, mut confidence) = (0, 1.0 - 2.0 * tail);
    while outside + 1 < rounds.div_ceil(2) {
        ways *= (rounds - outside) as f64 / (outside + 1) as f64;
        tail += ways * 0.5f64.powi(rounds as i32);
        if 1.0 - 2.0 * tail < CONFIDENCE {
            break;
        }
        (outside, confidence) = (outside + 1, 1.0 - 2.0 * tail);
    }
    Ratio { ratio: median(&ratios), low: ratios[outside], high: ratios[rounds - 1 - outside], confidence, rounds }
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
    fn intervals_are_as_narrow_as_their_confidence_allows() {
        // Tables of the sign test: with 7 rounds all of them, with 9 all but the outermost, with 12 all but two each.
        for (rounds, outside, confidence) in
            [(1, 0, 0.0), (3, 0, 0.75), (7, 0, 0.9844), (9, 1, 0.9609), (12, 2, 0.9614)]
        {
            let pairs: Vec<(f64, f64)> = (1..=rounds).rev().map(|round| (f64::from(round), 1.0)).collect();
            let found = ratio(&pairs);
            let expected = (f64::from(1 + outside), f64::from(rounds - outside));
            assert_eq!((found.low, found.high, found.rounds), (expected.0, expected.1, pairs.len()));
            assert!((found.confidence - confidence).abs() < 1e-4, "{found:?}");
        }
    }

    #[test]
    fn a_budget_is_broken_with_confidence_only() {
        let ratio =
            |low: f64, high: f64| Ratio { ratio: f64::midpoint(low, high), low, high, confidence: 0.96, rounds: 9 };
        let latency = Budget { figure: Figure::P99, worse: 1.1 };
        assert!(latency.is_broken(&ratio(1.2, 1.4)) && !latency.is_broken(&ratio(1.05, 1.4)));
        let cost = Budget { figure: Figure::PerCpu, worse: 1.1 };
        assert!(
            cost.is_broken(&ratio(0.7, 0.8)) && !cost.is_broken(&ratio(0.7, 0.95)) && !cost.is_broken(&ratio(1.5, 2.0))
        );
    }
}
