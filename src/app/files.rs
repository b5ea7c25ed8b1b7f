//! The static files of an app, read into memory at start: a lookup is then exact and cannot leave the folder, whatever
//! the path says. Made by `app::App::load`, used by the HTTP front-end.

use super::config::StaticSection;
use super::source::{ReadError, Source};
use crate::diagnostic::{Diagnostics, Place};
use crate::protocol::http::files::{StaticFile, StaticFiles};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

/// They stay in memory while the server runs.
const TOTAL_BYTES_MAX: u64 = 64 << 20;
const FILES_MAX: usize = 10_000;

/// Reads all that the `static` section names.
pub(super) fn load(source: &Source, section: &StaticSection<'_>, diagnostics: &mut Diagnostics) -> StaticFiles {
    let mut loader = Loader { source, bytes_left: TOTAL_BYTES_MAX, seen: HashSet::new(), diagnostics };
    let mut files = StaticFiles::default();
    for glob in &section.files {
        let skip = if glob.base().is_empty() { 0 } else { glob.base().len() + 1 };
        for path in loader.source.find(glob, loader.diagnostics) {
            let url_path = match section.url_path.as_str() {
                "" => path[skip..].to_owned(),
                prefix => format!("{prefix}/{}", &path[skip..]),
            };
            if !loader.seen.insert(url_path.clone()) {
                continue; // two globs that overlap
            }
            let Some(file) = loader.file(&path, glob.place) else { return StaticFiles::default() };
            files.insert(url_path, file, section.index);
        }
    }
    files
}

struct Loader<'l> {
    source: &'l Source,
    bytes_left: u64,
    seen: HashSet<String>,
    diagnostics: &'l mut Diagnostics,
}

impl Loader<'_> {
    /// `None` after a report.
    fn file(&mut self, path: &str, place: Place<'_>) -> Option<StaticFile> {
        let message = match self.source.read(path, self.bytes_left) {
            Ok(_) if self.seen.len() > FILES_MAX => format!("too many static files (expected at most {FILES_MAX})"),
            Ok(body) => {
                self.bytes_left -= body.len() as u64;
                let etag = etag(&body);
                return Some(StaticFile::new(body.into(), content_type(path), etag));
            }
            Err(ReadError::TooLarge) => {
                format!("static files are too large (expected at most {} MiB in all)", TOTAL_BYTES_MAX >> 20)
            }
            Err(ReadError::Missing) => format!("{path} has just been removed"),
            Err(ReadError::Io(error)) => format!("{path}: {error}"),
        };
        self.diagnostics.error(place, message);
        None
    }
}

fn content_type(path: &str) -> String {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let is_text = mime.type_() == mime_guess::mime::TEXT
        || matches!(mime.subtype().as_str(), "javascript" | "json" | "xml" | "manifest+json")
        || mime.suffix() == Some(mime_guess::mime::XML);
    if is_text { format!("{}; charset=utf-8", mime.essence_str()) } else { mime.essence_str().to_owned() }
}

/// The hash need not be stable over versions of the standard library: a new binary costs each browser one download.
fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{:x}-{:016x}\"", body.len(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::super::source::Glob;
    use super::*;
    use crate::protocol::http::files::Lookup;

    const FILES: &[(&str, &[u8])] = &[
        ("config.yaml", b"secret"),
        ("web/index.html", b"<p>"),
        ("web/app.js", b"1"),
        ("web/logo.svg", b"<svg/>"),
        ("web/data.bin", b"\0"),
        ("web/notindex.html", b"<p>"),
        ("web/.env", b"secret"),
        ("web/docs/index.html", b"docs"),
        ("web/empty/a.txt", b"a"),
    ];

    fn load(globs: &[&str], url_path: &str, index: bool) -> (StaticFiles, Vec<String>) {
        let place = Place::whole("config.yaml");
        let files = globs.iter().map(|text| Glob::parse(text, place).expect("a glob")).collect();
        let section = StaticSection { files, url_path: url_path.to_owned(), index };
        let mut diagnostics = Diagnostics::default();
        (super::load(&Source::Embedded(FILES), &section, &mut diagnostics), diagnostics.lines())
    }

    fn outcome(files: &StaticFiles, path: &str) -> String {
        match files.get(path) {
            Lookup::File(file) => file.content_type.clone(),
            Lookup::RedirectToDirectory => "redirect".to_owned(),
            Lookup::None => "none".to_owned(),
        }
    }

    #[test]
    fn lookups() {
        let (files, diagnostics) = load(&["web/**"], "", true);
        assert_eq!((files.len(), diagnostics.len()), (7, 0));
        for (path, expected) in [
            ("/", "text/html; charset=utf-8"),
            ("/index.html", "text/html; charset=utf-8"),
            ("/app.js", "text/javascript; charset=utf-8"),
            ("/logo.svg", "image/svg+xml; charset=utf-8"),
            ("/data.bin", "application/octet-stream"),
            ("/docs", "redirect"),
            ("/docs/", "text/html; charset=utf-8"),
            ("/docs/index.html", "text/html; charset=utf-8"),
            ("/empty", "none"),
            ("/empty/", "none"),
            ("/not", "none"),
            ("/notindex.html", "text/html; charset=utf-8"),
            ("", "none"),
            ("app.js", "none"),
            ("//app.js", "none"),
            ("//docs", "none"),
            ("/.env", "none"),
            ("/../config.yaml", "none"),
            ("/docs/../app.js", "none"),
            ("/web/app.js", "none"),
            ("/app.js/", "none"),
            ("/app.js\0", "none"),
            ("/..\\config.yaml", "none"),
        ] {
            assert_eq!(outcome(&files, path), expected, "{path}");
        }
    }

    #[test]
    fn url_path_index_and_overlap() {
        let (files, _) = load(&["web/**", "web/*.js"], "static", false);
        assert_eq!(files.len(), 7);
        assert_eq!(outcome(&files, "/static/app.js"), "text/javascript; charset=utf-8");
        for path in ["/static", "/static/", "/app.js", "/"] {
            assert_eq!(outcome(&files, path), "none", "{path}");
        }
        let (files, _) = load(&["web/*"], "static", true);
        assert_eq!(outcome(&files, "/static"), "redirect");
        assert_eq!(outcome(&files, "/static/docs/"), "none");
    }

    #[test]
    fn too_large_is_an_error_that_names_the_bound() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = std::fs::File::create(folder.path().join("big.bin")).expect("create");
        file.set_len(TOTAL_BYTES_MAX + 1).expect("a sparse file");
        let glob = Glob::parse("*", Place::whole("config.yaml")).expect("a glob");
        let section = StaticSection { files: vec![glob], url_path: String::new(), index: true };
        let mut diagnostics = Diagnostics::default();
        assert!(super::load(&Source::Folder(folder.path().to_owned()), &section, &mut diagnostics).is_empty());
        let lines = diagnostics.lines();
        assert!(lines.len() == 1 && lines[0].contains("64 MiB"), "{lines:?}");
    }

    #[test]
    fn etags_follow_the_contents() {
        assert_eq!(etag(b"a"), etag(b"a"));
        assert_ne!(etag(b"a"), etag(b"b"));
        assert!(etag(b"").starts_with('"') && etag(b"").ends_with('"'));
    }
}
