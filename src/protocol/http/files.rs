//! Static files, held in memory: a lookup is exact and cannot leave the folder, whatever the path says. Filled by the
//! `app` module at start, served by the HTTP session.

use super::coding::{CODED_BYTES_MIN, Coding};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticFile {
    pub body: Bytes,
    /// The body in each content coding that makes it smaller.
    pub coded: Vec<(Coding, Bytes)>,
    /// With `charset=utf-8` for text.
    pub content_type: String,
    /// With its quotes. Changes with the contents.
    pub etag: String,
}

impl StaticFile {
    pub fn new(body: Bytes, content_type: String, etag: String) -> StaticFile {
        let shrinks = body.len() >= CODED_BYTES_MIN && Coding::is_for(&content_type);
        let codings = Coding::ALL.into_iter().filter(|_| shrinks);
        let coded = codings.map(|coding| (coding, Bytes::from(coding.encode(&body))));
        let coded = coded.filter(|(_, coded)| coded.len() < body.len()).collect();
        StaticFile { body, coded, content_type, etag }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    File(&'a StaticFile),
    /// The path names a folder that has an `index.html`, but lacks the final slash that makes relative links work.
    RedirectToDirectory,
    None,
}

#[derive(Clone, Debug, Default)]
pub struct StaticFiles {
    /// By URL path without the leading slash; an `index.html` also as its folder (`""`, `docs/`).
    files: HashMap<String, StaticFile>,
    /// Those that have an `index.html`, without slashes around.
    folders: HashSet<String>,
    count: usize,
}

impl StaticFiles {
    /// `url_path` starts with a slash and is percent-decoded, without query.
    pub fn get(&self, url_path: &str) -> Lookup<'_> {
        let Some(path) = url_path.strip_prefix('/') else { return Lookup::None };
        if let Some(file) = self.files.get(path) {
            return Lookup::File(file);
        }
        if self.folders.contains(path) { Lookup::RedirectToDirectory } else { Lookup::None }
    }

    /// Number of files (an `index.html` counts once).
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a file; an `index.html` also stands for its folder where `index` says so.
    pub fn insert(&mut self, url_path: String, file: StaticFile, index: bool) {
        let folder = url_path.strip_suffix("index.html").filter(|folder| folder.is_empty() || folder.ends_with('/'));
        if let Some(folder) = folder.filter(|_| index) {
            self.folders.extend(folder.strip_suffix('/').map(str::to_owned));
            self.files.insert(folder.to_owned(), file.clone());
        }
        self.files.insert(url_path, file);
        self.count += 1;
    }
}
