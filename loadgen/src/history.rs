//! Comparisons over time, as lines of CSV: when, what, and the ratio with its interval.

use crate::compare::{Ratio, Row};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Its first line.
const HEAD: &str = "unix_time,scenario,figure,ratio,low,high,confidence,rounds";

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub unix_time: u64,
    /// Scenario and figure.
    pub name: String,
    pub ratio: Ratio,
}

/// Adds what the first server was to the last one.
pub fn add(path: &Path, scenario: &str, rows: &[Row]) -> Result<(), String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut text = if path.exists() { String::new() } else { format!("{HEAD}\n") };
    for row in rows {
        let Some(Ratio { ratio, low, high, confidence, rounds }) = row.ratios.first() else { continue };
        let (time, figure) = (since.as_secs(), row.figure.name());
        text += &format!("{time},{scenario},{figure},{ratio:.4},{low:.4},{high:.4},{confidence:.4},{rounds}\n");
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split(',');
    let unix_time = fields.next()?.parse().ok()?;
    let (scenario, figure) = (fields.next()?, fields.next()?);
    let mut number = || fields.next()?.parse::<f64>().ok();
    let (ratio, low, high, confidence) = (number()?, number()?, number()?, number()?);
    let rounds = fields.next()?.parse().ok()?;
    Some(Entry {
        unix_time,
        name: format!("{scenario}, {figure}"),
        ratio: Ratio { ratio, low, high, confidence, rounds },
    })
}

pub fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().enumerate().skip(1);
    let problem = |index: usize| format!("{}, line {}: expected {HEAD}", path.display(), index + 1);
    lines.map(|(index, line)| entry(line).ok_or_else(|| problem(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Figure;

    #[test]
    fn what_is_added_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.csv");
        let ratio = Ratio { ratio: 1.25, low: 1.0, high: 1.5, confidence: 0.9375, rounds: 5 };
        let row = Row { figure: Figure::P99, medians: vec![1.0, 2.0], ratios: vec![ratio] };
        for _ in 0..2 {
            add(&path, "pairs", std::slice::from_ref(&row)).expect("written");
        }
        let entries = read(&path).expect("valid");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[1].name.as_str(), entries[1].ratio), ("pairs, p99", ratio));
        std::fs::write(&path, "head\n1,2\n").expect("write");
        assert!(read(&path).expect_err("short").contains("line 2"));
    }
}
