//! The table of statements against the tests.

use crate::{v3, v5};
use std::collections::HashSet;

const TABLE: &str = include_str!("clauses.txt");

/// The sections that have numbered statements, and how many (appendix B of each specification). MQTT 5 has no 2.2.1-1.
const SECTIONS_3: &str = "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 \
                          3.3.4:1 3.3.5:2 3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 \
                          3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 \
                          4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1";
const SECTIONS_5: &str = "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 \
                          3.2.2:22 3.3.1:13 3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 \
                          3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 \
                          3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 \
                          4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 \
                          4.13.1:1 4.13.2:1 6.0.0:4";

struct Entry {
    number: &'static str,
    who: &'static str,
    /// A test, or why there is none.
    test: Result<&'static str, &'static str>,
}

/// The entries of 3.1.1 and those of 5.0.
fn entries() -> [Vec<Entry>; 2] {
    let (three, five) = TABLE.split_once("# MQTT 5.0\n").expect("two parts");
    let three = three.split_once("# MQTT 3.1.1\n").expect("the first part").1;
    [three, five].map(|part| part.lines().filter(|line| !line.is_empty()).map(entry).collect())
}

fn entry(line: &'static str) -> Entry {
    let (number, rest) = line.split_once(' ').expect("a number");
    let (who, rest) = rest.trim_start().split_once(' ').expect("whom it concerns");
    let test = match rest.trim_start() {
        why if why.starts_with("- ") => Err(&why[2..]),
        test => Ok(test),
    };
    Entry { number, who, test }
}

fn numbers(sections: &str) -> Vec<String> {
    let count = |section: &str| {
        let (section, last) = section.split_once(':').expect("a count");
        let first = if section == "2.2.1" { 2 } else { 1 };
        let last: u32 = last.parse().expect("a number");
        (first..=last).map(|n| format!("{section}-{n}")).collect::<Vec<_>>()
    };
    sections.split_whitespace().flat_map(count).collect()
}

#[test]
fn every_statement_is_listed_once() {
    for (entries, (sections, count)) in entries().iter().zip([(SECTIONS_3, 141), (SECTIONS_5, 251)]) {
        let listed: Vec<&str> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!(listed, numbers(sections));
        assert_eq!(listed.len(), count);
    }
}

#[test]
fn every_test_bears_its_number() {
    for (version, entries) in [3, 5].iter().zip(entries()) {
        for entry in entries {
            assert!(["server", "client", "both"].contains(&entry.who), "{}: {}", entry.number, entry.who);
            let Ok(test) = entry.test else { continue };
            let start = format!("mqtt{version}_{}_", entry.number.replace(['.', '-'], "_"));
            assert!(test.starts_with(&start) && test.len() > start.len(), "{test} instead of {start}...");
            assert_ne!(entry.who, "client", "{test} is tested, so that it concerns the server");
        }
    }
}

#[test]
fn tests_and_entries_are_the_same() {
    for (entries, tests) in entries().iter().zip([v3::NAMES, v5::NAMES]) {
        let named: HashSet<&str> = entries.iter().filter_map(|entry| entry.test.ok()).collect();
        let tests: HashSet<&str> = tests.iter().copied().collect();
        let missing: Vec<_> = named.difference(&tests).collect();
        let unlisted: Vec<_> = tests.difference(&named).collect();
        assert!(missing.is_empty() && unlisted.is_empty(), "no such tests: {missing:?}; not listed: {unlisted:?}");
    }
}

#[test]
fn what_is_not_tested_has_a_reason() {
    let mut count = [0, 0];
    for (entries, count) in entries().iter().zip(&mut count) {
        for entry in entries {
            if let Err(why) = entry.test {
                assert!(why.split_whitespace().count() >= 4, "{}: {why}", entry.number);
                *count += 1;
            }
        }
    }
    assert!(count[0] <= 12 && count[1] <= 27, "{count:?} statements without a test");
}
