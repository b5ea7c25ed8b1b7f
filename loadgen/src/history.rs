//! Figures over time, as lines of CSV: comparisons (when, what, and the ratio with its interval), or counts (when, after
//! which revision, and one number for each thing that is counted).

use crate::compare::{Ratio, Row};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// The first line of comparisons; and how that of counts begins.
const HEAD: &str = "unix_time,scenario,figure,ratio,low,high,confidence,rounds,note";

const COUNTS_HEAD: &str = "unix_time,after,";

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub unix_time: u64,
    /// Scenario and figure, or what is counted.
    pub name: String,
    /// To the baseline; of counts to the oldest one.
    pub ratio: f64,
}

/// Adds what the first server was to the last one, with a note that tells what these are.
pub fn add(path: &Path, scenario: &str, note: &str, rows: &[Row]) -> Result<(), String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let note = note.replace([',', '\n', '"'], " ");
    let mut text = if path.exists() { String::new() } else { format!("{HEAD}\n") };
    for row in rows {
        let Some(Ratio { ratio, low, high, confidence, rounds }) = row.ratios.first() else { continue };
        let (time, figure) = (since.as_secs(), row.figure.name());
        text += &format!("{time},{scenario},{figure},{ratio:.4},{low:.4},{high:.4},{confidence:.4},{rounds},{note}\n");
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split(',');
    let unix_time = fields.next()?.parse().ok()?;
    let (scenario, figure) = (fields.next()?, fields.next()?);
    Some(Entry { unix_time, name: format!("{scenario}, {figure}"), ratio: fields.next()?.parse().ok()? })
}

/// The counts of a line, for as many of `names` as were counted then.
fn counts(line: &str, names: &[&str]) -> Option<(u64, Vec<f64>)> {
    let (time, rest) = line.split_once(',')?;
    let counts: Vec<f64> = rest.split(',').skip(1).map(|count| count.parse().ok()).collect::<Option<_>>()?;
    (counts.len() <= names.len()).then_some((time.parse().ok()?, counts))
}

pub fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let head = text.lines().next().unwrap_or_default();
    let lines = || text.lines().enumerate().skip(1);
    let problem = |index: usize| format!("{}, line {}: expected {head}", path.display(), index + 1);
    if let Some(names) = head.strip_prefix(COUNTS_HEAD) {
        let names: Vec<&str> = names.split(',').collect();
        let rows = lines().map(|(index, line)| counts(line, &names).ok_or_else(|| problem(index)));
        let rows: Vec<(u64, Vec<f64>)> = rows.collect::<Result<_, _>>()?;
        let oldest = |at: usize| rows.iter().find_map(|(_, counts)| counts.get(at)).copied().unwrap_or(f64::NAN);
        let entries = rows.iter().flat_map(|(unix_time, counts)| {
            let numbered = names.iter().enumerate().zip(counts);
            numbered.map(|((at, name), count)| Entry {
                unix_time: *unix_time,
                name: (*name).to_owned(),
                ratio: count / oldest(at),
            })
        });
        return Ok(entries.collect());
    }
    lines().map(|(index, line)| entry(line).ok_or_else(|| problem(index))).collect()
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
            add(&path, "pairs", "a, \"b\"", std::slice::from_ref(&row)).expect("written");
        }
        let entries = read(&path).expect("valid");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[1].name.as_str(), entries[1].ratio), ("pairs, p99", 1.25));
        std::fs::write(&path, "unix_time,after,a,b\n100,x,10\n200,y,5,4\n300,z,20,2\n").expect("write");
        let ratios: Vec<f64> = read(&path).expect("valid").iter().map(|entry| entry.ratio).collect();
        assert_eq!(ratios, [1.0, 0.5, 1.0, 2.0, 0.5]);
        std::fs::write(&path, "head\n1,2\n").expect("write");
        assert!(read(&path).expect_err("short").contains("line 2"));
    }
}
