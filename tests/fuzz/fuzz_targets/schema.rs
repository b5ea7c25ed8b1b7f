//! Any text as a schema: no panic, every mistake at a place of the text, and of what is accepted no table that the server
//! could not have.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use tablecast::app::sdl::{define, parse};
use tablecast::diagnostic::{Diagnostic, Diagnostics};

fn check_place(text: &str, diagnostic: &Diagnostic) {
    assert!(!diagnostic.message.is_empty());
    if diagnostic.line == 0 {
        return; // the file as a whole
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n"); // GraphQL §2.1.2
    let lines: Vec<&str> = text.split('\n').collect();
    let (line, column) = (diagnostic.line as usize, diagnostic.column as usize);
    assert!(line <= lines.len(), "{diagnostic}: {} lines", lines.len());
    // Behind the last character: the end of the file.
    assert!(column >= 1 && column <= lines[line - 1].chars().count() + 1, "{diagnostic}");
}

fuzz_target!(|text: &str| {
    let mut diagnostics = Diagnostics::default();
    let tables = define(&[parse("s", text, &mut diagnostics)], &mut diagnostics);
    let (tables, found) = match diagnostics.finish(tables) {
        Ok(accepted) => accepted,
        Err(errors) => (Vec::new(), errors),
    };
    found.iter().for_each(|diagnostic| check_place(text, diagnostic));
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for table in &tables {
        assert!(!table.name.is_empty() && names.insert((&table.database, &table.name)));
        assert!(table.exports.iter().all(|export| paths.insert(&export.path)), "two tables at one path");
        assert!(table.primary_key.is_none_or(|at| at < table.attributes.len()));
        let attributes: HashSet<&str> = table.attributes.iter().map(|attribute| &*attribute.name).collect();
        assert_eq!(attributes.len(), table.attributes.len(), "two attributes of one name");
    }
});
