//! The repository checks itself: which way dependencies point (architecture §3), where `unsafe` may stand, how long a
//! file may be, and that every dependency says why it is there.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 900;

/// Where `unsafe` may stand: maps, rings, system calls; and tests that stand in for one of them.
const UNSAFE_ALLOWED: [&str; 10] = [
    "shards/src/ring.rs",
    "shards/src/sync.rs",
    "shards/src/log/map.rs",
    "shards/src/storage.rs",
    "src/reactor/",
    "loadgen/src/runtime/",
    "shards/tests/allocations.rs",
    "tests/common/",
    "tests/seccomp.rs",
    "tests/tidy.rs",
];

const TOP_LEVEL: [&str; 15] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "DEVELOPERS.md",
    "rustfmt.toml",
    "clippy.toml",
    "src",
    "shards",
    "benches",
    "loadgen",
    "tests",
    "perf",
    "target",
    "proptest-regressions", // where a failed property test leaves its case
];

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers; comments are left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("tests")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "shards", "benches", "loadgen", "tests", "perf"] {
        collect(&root().join(folder), &mut paths);
    }
    assert!(paths.len() > 50, "the sources are where they are looked for");
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Whether `word` stands in `line` by itself.
fn names(line: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word))
}

/// Fails with every place where a file of `files` names one of `words`.
fn forbid<'a>(files: impl Iterator<Item = &'a Source>, words: &[&str], why: &str) {
    let mut found = Vec::new();
    for source in files {
        for (number, line) in source.code() {
            if let Some(word) = words.iter().find(|word| names(line, word)) {
                found.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    assert!(found.is_empty(), "{why}\n{}", found.join("\n"));
}

#[test]
fn the_engine_does_not_know_the_server() {
    let sources = sources();
    let engine = sources.iter().filter(|source| source.path.starts_with("shards/"));
    forbid(engine, &["tablecast", "tokio", "mio", "io_uring"], "the engine has no server, no socket and no runtime");
    let manifest = fs::read_to_string(root().join("shards/Cargo.toml")).unwrap();
    let names_root = manifest.lines().any(|line| line.starts_with("tablecast ") || line.contains("path = \"..\""));
    assert!(!names_root, "shards/Cargo.toml depends on the root crate");
}

#[test]
fn protocols_are_pure() {
    let sources = sources();
    let protocols = sources.iter().filter(|source| source.path.starts_with("src/protocol/") && !source.is_test());
    let effects = [
        "Instant::now",
        "SystemTime",
        "std::thread",
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "crate::admin",
        "crate::app",
        "crate::auth",
        "crate::cluster",
        "crate::connection",
        "crate::reactor",
        "crate::server",
        "crate::shard_thread",
    ];
    forbid(protocols, &effects, "protocols are bytes, completions and the time as arguments");
}

/// What they share stands in `src/protocol/*.rs`.
#[test]
fn sibling_protocols_do_not_import_each_other() {
    let sources = sources();
    let siblings = ["mqtt", "http", "ws", "sse"];
    for own in siblings {
        let folder = format!("src/protocol/{own}");
        let files = sources.iter().filter(|source| source.path.starts_with(&folder));
        let others: Vec<String> = siblings
            .iter()
            .filter(|other| **other != own)
            .flat_map(|other| [format!("protocol::{other}"), format!("super::super::{other}")])
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        forbid(files, &others, "sibling protocols meet in framing, frames, format and payload");
    }
    let shared = sources.iter().filter(|source| {
        ["format/", "framing.rs", "payload.rs", "sse.rs"]
            .iter()
            .any(|end| source.path.contains(&format!("protocol/{end}")))
    });
    let all = ["super::mqtt", "super::http", "super::ws", "protocol::mqtt", "protocol::http", "protocol::ws"];
    forbid(shared, &all, "what protocols share knows none of them");
}

#[test]
fn unsafe_stands_in_a_few_files() {
    let sources = sources();
    let others = sources.iter().filter(|source| !UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)));
    forbid(others, &["unsafe"], "unsafe is for maps, rings and system calls");
}

#[test]
fn the_engine_has_no_locks() {
    let sources = sources();
    let engine = sources.iter().filter(|source| source.path.starts_with("shards/src/"));
    forbid(engine, &["Mutex", "RwLock", "static mut"], "one owner: only rings cross threads");
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.text.lines().count() > LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "files stop before {LINES_MAX} lines: {long:?}");
}

#[test]
fn nothing_is_left_half_done() {
    let sources = sources();
    let files = sources.iter().filter(|source| source.path != "tests/tidy.rs");
    forbid(files, &["todo!", "dbg!", "unimplemented!"], "finish it or leave it out");
}

#[test]
fn every_dependency_says_why() {
    for manifest in ["Cargo.toml", "shards/Cargo.toml", "loadgen/Cargo.toml"] {
        let Ok(text) = fs::read_to_string(root().join(manifest)) else { continue };
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains('=') {
                assert!(line.contains(" # "), "{manifest}: no reason is given for {line}");
            }
        }
    }
}

#[test]
fn the_top_level_holds_what_the_architecture_lists() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()), "what is {name} doing here?");
    }
}

#[test]
fn words_are_told_from_parts_of_words() {
    assert!(names("use crate::server;", "crate::server"));
    assert!(!names("use crate::server_name;", "crate::server"));
    assert!(!names("let unsafely = 1;", "unsafe"));
}
