//! What is wrong with something an operator wrote, and where. Made by every reader of outside text (`yaml`, `app`,
//! `settings`); collected, so that one run shows all mistakes; printed by `cli`.

use std::fmt;

/// Printing more helps nobody, and it bounds the memory that a hostile file can claim through its mistakes.
const DIAGNOSTICS_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// A position in a text that somebody wrote. Cheap to copy: tokens and syntax nodes carry one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// As shown to the user: a path relative to the app folder, or a word such as `environment`.
    pub file: &'a str,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0: the file as a whole.
    pub column: u32,
}

impl<'a> Place<'a> {
    pub fn whole(file: &'a str) -> Place<'a> {
        Place { file, line: 0, column: 0 }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(self.file) } else { write!(f, "{}:{}:{}", self.file, self.line, self.column) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub severity: Severity,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place { file: &self.file, line: self.line, column: self.column };
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{place}: {severity}: {}", self.message)
    }
}

/// Gathers diagnostics while something is read. Readers go on after an error, as far as they can make sense.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    has_errors: bool,
}

impl Diagnostics {
    pub fn error(&mut self, place: Place<'_>, message: impl Into<String>) {
        self.has_errors = true;
        self.push(place, message.into(), Severity::Error);
    }

    pub fn warning(&mut self, place: Place<'_>, message: impl Into<String>) {
        self.push(place, message.into(), Severity::Warning);
    }

    /// Says the same thing at the same place only once: a nested type is visited once for every use of it.
    fn push(&mut self, place: Place<'_>, message: String, severity: Severity) {
        let Place { file, line, column } = place;
        let diagnostic = Diagnostic { file: file.to_owned(), line, column, message, severity };
        if self.list.len() < DIAGNOSTICS_MAX && !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    pub fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// `value` and the warnings, or, if there was an error, everything that is to be shown.
    pub fn finish<T>(self, value: T) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.has_errors { Err(self.list) } else { Ok((value, self.list)) }
    }

    #[cfg(test)]
    pub fn lines(&self) -> Vec<String> {
        self.list.iter().map(Diagnostic::to_string).collect()
    }
}

/// ` (did you mean x?)` for the candidate most like `name`; empty if none is near.
pub fn suggestion(name: &str, candidates: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let distance_max = 1 + name.chars().count() / 4;
    let near = |candidate: &String| {
        let distance = strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
        (distance <= distance_max).then_some(distance)
    };
    let candidates = candidates.into_iter().map(|candidate| candidate.as_ref().to_owned());
    match candidates.filter_map(|candidate| Some((near(&candidate)?, candidate))).min() {
        Some((_, candidate)) => format!(" (did you mean {candidate}?)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let known = ["graphqlSchema", "rest", "static"];
        for (name, expected) in [
            ("graphqlschema", " (did you mean graphqlSchema?)"),
            ("statik", " (did you mean static?)"),
            ("rset", " (did you mean rest?)"),
            ("something", ""),
        ] {
            assert_eq!(suggestion(name, known), expected, "{name}");
        }
    }

    #[test]
    fn display_and_repeats() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.warning(Place { file: "a.graphql", line: 3, column: 7 }, "odd");
        diagnostics.warning(Place { file: "a.graphql", line: 3, column: 7 }, "odd");
        diagnostics.error(Place::whole("environment"), "bad");
        assert_eq!(diagnostics.lines(), ["a.graphql:3:7: warning: odd", "environment: error: bad"]);
        assert!(diagnostics.finish(()).is_err());
    }
}
