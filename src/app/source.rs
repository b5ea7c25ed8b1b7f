//! Where an app's files come from: a folder on disk, or the files embedded in the binary. Called by `app::App::load`
//! and its readers; the only place of `app` that touches the file system.

use crate::diagnostic::{Diagnostics, Place};
use glob::{MatchOptions, Pattern};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Text files of an app (configuration, schema, resources): far above any real one.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Folder entries looked at for one glob. A glob that reaches further is pointed at the wrong folder.
const ENTRIES_MAX: usize = 100_000;
/// Folders inside folders; what is deeper is not found.
const DEPTH_MAX: usize = 32;

/// `*` does not cross a slash and no wildcard matches a leading dot, as in the glob libraries that Harper uses.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

pub enum Source {
    Folder(PathBuf),
    /// Path with forward slashes, contents.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// A `files` value of `config.yaml`.
#[derive(Debug)]
pub struct Glob<'a> {
    pub text: String,
    pub place: Place<'a>,
    pattern: Pattern,
}

impl<'a> Glob<'a> {
    pub fn parse(text: &str, place: Place<'a>) -> Result<Glob<'a>, String> {
        let text = text.strip_prefix("./").unwrap_or(text);
        let outside = text.starts_with('/') || text.split(['/', '\\']).any(|segment| segment == "..");
        if text.is_empty() || outside {
            return Err(format!("`{text}` (expected a path or glob inside the app folder)"));
        }
        let pattern = Pattern::new(text).map_err(|error| format!("`{text}` is not a glob: {}", error.msg))?;
        Ok(Glob { text: text.to_owned(), place, pattern })
    }

    /// The folder that all matches are in: the segments before the first wildcard, never the file's own name.
    pub fn base(&self) -> &str {
        let fixed = self.text.find(['*', '?', '[']).unwrap_or(self.text.len());
        self.text[..fixed].rfind('/').map_or("", |end| &self.text[..end])
    }

    /// How many folders deep matches can be, counted from the base folder.
    fn levels(&self) -> usize {
        if self.text.contains("**") {
            return DEPTH_MAX;
        }
        let base = self.base();
        let below = if base.is_empty() { &*self.text } else { &self.text[base.len() + 1..] };
        below.split('/').count()
    }

    fn matches(&self, path: &str) -> bool {
        self.pattern.matches_with(path, MATCHING)
    }

    fn is_literal(&self) -> bool {
        !self.text.contains(['*', '?', '['])
    }
}

/// Why a file could not be read.
pub enum ReadError {
    Missing,
    TooLarge,
    Io(io::Error),
}

impl Source {
    /// The contents of one file, of at most `bytes_max`.
    pub fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
        let bytes = match self {
            Source::Embedded(files) => {
                let (_, bytes) = files.iter().find(|(name, _)| *name == path).ok_or(ReadError::Missing)?;
                bytes.to_vec()
            }
            Source::Folder(root) => {
                let file = fs::File::open(root.join(path)).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => ReadError::Missing,
                    _ => ReadError::Io(error),
                })?;
                let mut bytes = Vec::new();
                file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
                bytes
            }
        };
        if bytes.len() as u64 > bytes_max { Err(ReadError::TooLarge) } else { Ok(bytes) }
    }

    pub fn has(&self, path: &str) -> bool {
        match self {
            Source::Embedded(files) => files.iter().any(|(name, _)| *name == path),
            Source::Folder(root) => fs::symlink_metadata(root.join(path)).is_ok(),
        }
    }

    /// A text file of an app; `None` after a report.
    pub fn read_text(&self, path: &str, diagnostics: &mut Diagnostics) -> Option<String> {
        let message = match self.read(path, TEXT_BYTES_MAX) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => return Some(text),
                Err(_) => "is not UTF-8".to_owned(),
            },
            Err(ReadError::Missing) => "does not exist".to_owned(),
            Err(ReadError::TooLarge) => format!("is too large (expected at most {TEXT_BYTES_MAX} bytes)"),
            Err(ReadError::Io(error)) => error.to_string(),
        };
        diagnostics.error(Place::whole(path), message);
        None
    }

    /// Paths that match, sorted. Never: dot files, `node_modules`, links that lead out of the glob's base folder.
    pub fn find(&self, glob: &Glob<'_>, diagnostics: &mut Diagnostics) -> Vec<String> {
        let mut paths: Vec<String> = match self {
            Source::Embedded(files) => {
                let names = files.iter().map(|(name, _)| *name);
                names.filter(|name| glob.matches(name)).map(str::to_owned).collect()
            }
            Source::Folder(root) => {
                let mut walk = Walk { root, glob, entries: 0, paths: Vec::new(), diagnostics };
                if let Err((path, error)) = walk.start() {
                    diagnostics.error(glob.place, format!("{path}: {error}"));
                    return Vec::new();
                }
                walk.paths
            }
        };
        paths.sort();
        if paths.is_empty() && glob.is_literal() {
            diagnostics.error(glob.place, format!("{} does not exist (expected a file of the app folder)", glob.text));
        } else if paths.is_empty() {
            diagnostics.warning(glob.place, format!("no file matches {}", glob.text));
        }
        paths
    }
}

/// One listing of the folder under a glob.
struct Walk<'w, 'a> {
    root: &'w Path,
    glob: &'w Glob<'a>,
    entries: usize,
    paths: Vec<String>,
    diagnostics: &'w mut Diagnostics,
}

type WalkError = (String, io::Error);

impl Walk<'_, '_> {
    fn start(&mut self) -> Result<(), WalkError> {
        let base = self.glob.base().to_owned();
        let failed = |error| (base.clone(), error);
        let root = self.root.canonicalize().map_err(failed)?;
        let folder = match self.root.join(&base).canonicalize() {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !folder.starts_with(&root) {
            return Err(failed(io::Error::other("leads out of the app folder")));
        }
        self.folder(&folder, &folder, &base, self.glob.levels())
    }

    fn folder(&mut self, inside: &Path, folder: &Path, name: &str, levels: usize) -> Result<(), WalkError> {
        let failed = |error| (name.to_owned(), error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(failed(io::Error::other(format!("more than {ENTRIES_MAX} files and folders"))));
            }
            // A name that is not UTF-8 cannot be named in a URL or in config.yaml.
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            if file_name.starts_with('.') || file_name == "node_modules" {
                continue;
            }
            let path = if name.is_empty() { file_name } else { format!("{name}/{file_name}") };
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && levels > 1 {
                self.folder(inside, &entry.path(), &path, levels - 1)?;
            } else if !self.glob.matches(&path) {
                continue;
            } else if kind.is_file() || (kind.is_symlink() && self.link_is_usable(inside, &entry.path(), &path)) {
                self.paths.push(path);
            }
        }
        Ok(())
    }

    /// Links to files inside the folder are followed (container platforms mount files that way), links to folders are
    /// not: they could form a circle.
    fn link_is_usable(&mut self, inside: &Path, link: &Path, name: &str) -> bool {
        let usable = link.canonicalize().is_ok_and(|target| target.starts_with(inside) && target.is_file());
        if !usable {
            self.diagnostics.warning(self.glob.place, format!("{name} is a link out of its folder, skipped"));
        }
        usable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (text, base) in [
            ("*.graphql", ""),
            ("schema.graphql", ""),
            ("./schema.graphql", ""),
            ("web/**", "web"),
            ("web/**/*.js", "web"),
            ("a/b/c*.js", "a/b"),
            ("web/index.html", "web"),
        ] {
            assert_eq!(Glob::parse(text, Place::whole("c")).expect(text).base(), base, "{text}");
        }
        for text in ["", "../x", "/etc/*", "a/../../b", "[", "a\\..\\b"] {
            assert!(Glob::parse(text, Place::whole("c")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_is_listed_without_what_is_hidden_or_outside() {
        let outside = tempfile::tempdir().expect("tempdir");
        fs::write(outside.path().join("secret.js"), "x").expect("write");
        let app = tempfile::tempdir().expect("tempdir");
        for path in ["web/a.js", "web/deep/b.js", "web/.env", "web/.git/c.js", "web/node_modules/d.js", "e.js"] {
            let path = app.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            fs::write(path, "x").expect("write");
        }
        let link = |to: PathBuf, name: &str| std::os::unix::fs::symlink(to, app.path().join(name)).expect("link");
        link(outside.path().join("secret.js"), "web/secret.js");
        link(app.path().join("e.js"), "web/up.js");
        link(app.path().join("web/a.js"), "web/alias.js");
        link(app.path().join("web"), "web/circle");
        link(outside.path().to_owned(), "out");

        let source = Source::Folder(app.path().to_owned());
        let find = |text: &str| {
            let mut diagnostics = Diagnostics::default();
            let glob = Glob::parse(text, Place::whole("c")).expect("a glob");
            (source.find(&glob, &mut diagnostics), diagnostics.lines().len(), diagnostics.has_errors())
        };
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        assert_eq!(find("web/**"), (owned(&["web/a.js", "web/alias.js", "web/deep/b.js"]), 3, false));
        assert_eq!(find("web/*.js"), (owned(&["web/a.js", "web/alias.js"]), 2, false));
        assert_eq!(find("e.js"), (owned(&["e.js"]), 0, false));
        assert_eq!(find("*/d*/b.js"), (owned(&["web/deep/b.js"]), 0, false));
        assert_eq!(find("out/*"), (Vec::new(), 1, true));
        assert_eq!(find("missing/*"), (Vec::new(), 1, false));
        assert_eq!(find("missing.js"), (Vec::new(), 1, true));
    }
}
