//! Topics and filters: topic name ⇄ (table, key), MQTT wildcard filters as patterns over the keys of tables, and the
//! tree that finds everything interested in a key in one walk.
//!
//! The record with key `X` of the table exported at `T` is the topic `T/X`. Of several exported paths the longest that
//! matches on a level boundary wins; a table exported at the root takes what is left (compat §3.2). Filters follow
//! MQTT 5 §4.7 over full topic names and may span tables.

use crate::key::KeyCodec;
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use crate::schema::{Export, TableDef, TableId};
use hashbrown::HashMap;

/// One level of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Name(Box<str>),
    /// `+`
    One,
    /// `#`, only in the last place; also matches the level above it [MQTT-4.7.1-2].
    Rest,
}

/// A filter over the keys of one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyFilter {
    /// One key, encoded and as text.
    Exact { key: Box<[u8]>, text: Box<str> },
    /// Never without a wildcard.
    Pattern(Box<[Level]>),
}

/// Levels of a topic or key; the empty text has none.
fn levels(text: &str) -> impl Iterator<Item = &str> {
    let mut parts = text.split('/');
    if text.is_empty() {
        parts.next();
    }
    parts
}

impl KeyFilter {
    /// Every key of a table, and its own topic.
    pub fn all() -> KeyFilter {
        KeyFilter::Pattern(Box::new([Level::Rest]))
    }

    /// Keys below `prefix/`, without `prefix` itself: what the URL `/T/prefix/` names.
    pub fn below(prefix: &str) -> KeyFilter {
        let mut all: Vec<Level> = levels(prefix).map(|name| Level::Name(name.into())).collect();
        all.extend([Level::One, Level::Rest]);
        KeyFilter::Pattern(all.into())
    }

    /// Exactly the key `text`; `None` if it can be no key of such a table.
    pub fn exact(text: &str, codec: KeyCodec) -> Option<KeyFilter> {
        let mut key = Vec::new();
        if text.is_empty() {
            return Some(KeyFilter::Exact { key: key.into(), text: "".into() });
        }
        codec.encode_text(text, &mut key).ok()?;
        let mut scratch = String::new();
        let text = codec.text(&key, &mut scratch).into();
        Some(KeyFilter::Exact { key: key.into(), text })
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            KeyFilter::Exact { text: own, .. } => **own == *text,
            KeyFilter::Pattern(pattern) => {
                let mut pattern = pattern.iter();
                for level in levels(text) {
                    match pattern.next() {
                        Some(Level::Rest) => return true,
                        Some(Level::One) => {}
                        Some(Level::Name(name)) if **name == *level => {}
                        _ => return false,
                    }
                }
                matches!(pattern.next(), None | Some(Level::Rest))
            }
        }
    }

    /// Whether some key matches both.
    pub fn overlaps(&self, other: &KeyFilter) -> bool {
        fn meet(a: &[Level], b: &[Level]) -> bool {
            match (a.split_first(), b.split_first()) {
                (Some((Level::Rest, _)), _) | (_, Some((Level::Rest, _))) | (None, None) => true,
                (Some((Level::Name(a), _)), Some((Level::Name(b), _))) if a != b => false,
                (Some((_, a)), Some((_, b))) => meet(a, b),
                _ => false,
            }
        }
        match (self, other) {
            (KeyFilter::Pattern(a), KeyFilter::Pattern(b)) => meet(a, b),
            (KeyFilter::Exact { text, .. }, filter) | (filter, KeyFilter::Exact { text, .. }) => filter.matches(text),
        }
    }

    /// Text with which every matching key starts.
    pub fn prefix(&self) -> String {
        match self {
            KeyFilter::Exact { text, .. } => text.to_string(),
            KeyFilter::Pattern(pattern) => {
                let names = pattern.iter().map_while(|level| match level {
                    Level::Name(name) => Some(&**name),
                    _ => None,
                });
                names.collect::<Vec<_>>().join("/")
            }
        }
    }

    fn for_each_level(&self, mut body: impl FnMut(LevelRef<'_>)) {
        match self {
            KeyFilter::Exact { text, .. } => levels(text).for_each(|name| body(LevelRef::Name(name))),
            KeyFilter::Pattern(pattern) => pattern.iter().for_each(|level| match level {
                Level::Name(name) => body(LevelRef::Name(name)),
                Level::One => body(LevelRef::One),
                Level::Rest => body(LevelRef::Rest),
            }),
        }
    }
}

enum LevelRef<'a> {
    Name(&'a str),
    One,
    Rest,
}

/// Why a text is no topic name or no filter [MQTT-4.7.0-1, 4.7.1, 4.7.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    Empty,
    TooLong,
    TooManyLevels,
    NulCharacter,
    /// A wildcard in a topic name, or one that does not fill a level, or `#` before the end.
    Wildcard,
}

impl std::fmt::Display for TopicError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TopicError::Empty => f.write_str("the topic is empty"),
            TopicError::TooLong => write!(f, "the topic is longer than {TOPIC_BYTES_MAX} bytes"),
            TopicError::TooManyLevels => write!(f, "the topic has more than {TOPIC_LEVELS_MAX} levels"),
            TopicError::NulCharacter => f.write_str("the topic contains the character U+0000"),
            TopicError::Wildcard => f.write_str("a wildcard stands where none is allowed"),
        }
    }
}

/// Checks what topic names and filters have in common.
fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    let mut count = 1;
    for byte in text.bytes() {
        match byte {
            0 => return Err(TopicError::NulCharacter),
            b'/' => count += 1,
            _ => {}
        }
    }
    if count > TOPIC_LEVELS_MAX { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

/// Checks a topic name, as in a PUBLISH packet.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_text(name)?;
    if name.bytes().any(|byte| matches!(byte, b'+' | b'#')) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Reads a topic filter, as in a SUBSCRIBE packet.
pub fn parse_filter(filter: &str) -> Result<Vec<Level>, TopicError> {
    check_text(filter)?;
    let mut parts = filter.split('/').peekable();
    let mut parsed = Vec::new();
    while let Some(part) = parts.next() {
        parsed.push(match part {
            "+" => Level::One,
            "#" if parts.peek().is_none() => Level::Rest,
            name if name.contains(['+', '#']) => return Err(TopicError::Wildcard),
            name => Level::Name(name.into()),
        });
    }
    Ok(parsed)
}

/// A part of a subscription: some keys of one table, seen under one of its paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub table: TableId,
    /// Index into the table's exports.
    pub path: u8,
    pub filter: KeyFilter,
}

/// Where a topic or URL path leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolved<'a> {
    pub table: TableId,
    pub path: u8,
    /// What follows the exported path and its slash; empty where nothing follows.
    pub rest: &'a str,
    /// Whether a slash follows the exported path.
    pub slash: bool,
}

/// The exported paths that one protocol sees.
pub struct Routes {
    paths: HashMap<Box<str>, (TableId, u8)>,
    /// The same in a fixed order: longest first.
    ordered: Vec<(Box<str>, TableId, u8)>,
    levels_max: usize,
    codecs: HashMap<TableId, KeyCodec>,
}

impl Routes {
    /// The paths of `tables` for which `visible` holds.
    pub fn new<'a>(tables: impl Iterator<Item = (TableId, &'a TableDef)>, visible: impl Fn(&Export) -> bool) -> Routes {
        let mut ordered: Vec<(Box<str>, TableId, u8)> = Vec::new();
        let mut codecs = HashMap::new();
        for (id, table) in tables {
            codecs.insert(id, KeyCodec::of(table));
            for (index, export) in table.exports.iter().enumerate().filter(|(_, export)| visible(export)) {
                ordered.push((export.path.as_str().into(), id, index as u8));
            }
        }
        ordered.sort_by(|a, b| levels(&b.0).count().cmp(&levels(&a.0).count()).then_with(|| a.0.cmp(&b.0)));
        let levels_max = ordered.first().map_or(0, |(path, ..)| levels(path).count());
        let paths = ordered.iter().map(|(path, id, index)| (path.clone(), (*id, *index))).collect();
        Routes { paths, ordered, levels_max, codecs }
    }

    /// The longest exported path that `topic` starts with.
    pub fn resolve<'a>(&self, topic: &'a str) -> Option<Resolved<'a>> {
        let mut found = self.paths.get("").map(|&(table, path)| Resolved { table, path, rest: topic, slash: true });
        let mut ends = topic.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        for _ in 0..self.levels_max {
            let end = ends.next();
            let prefix = &topic[..end.unwrap_or(topic.len())];
            if let (false, Some(&(table, path))) = (prefix.is_empty(), self.paths.get(prefix)) {
                let rest = end.map_or("", |end| &topic[end + 1..]);
                found = Some(Resolved { table, path, rest, slash: end.is_some() });
            }
            if end.is_none() {
                break;
            }
        }
        found
    }

    /// The parts of tables that a filter covers; empty: nothing that is exported can match. Topics that begin with `$`
    /// are below paths that do, and are named in full: no wildcard stands for that level [MQTT-4.7.2-1].
    pub fn compile(&self, filter: &[Level]) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        let mut shadowed_below = 0;
        let is_reserved = matches!(filter.first(), Some(Level::Name(name)) if name.starts_with('$'));
        for (path, table, index) in &self.ordered {
            if path.starts_with('$') != is_reserved {
                continue;
            }
            let names: Vec<&str> = levels(path).collect();
            if names.len() >= shadowed_below
                && let Some(filter) = self.restrict(filter, &names, *table)
            {
                targets.push(Target { table: *table, path: *index, filter });
            }
            // Every topic that matches lies below this path, hence not under a shorter one.
            let literal = |(level, name): (&Level, &&str)| matches!(level, Level::Name(own) if **own == **name);
            if filter.len() >= names.len() && filter.iter().zip(&names).all(literal) {
                shadowed_below = shadowed_below.max(names.len());
            }
        }
        targets.sort_by_key(|target| (target.table, target.path));
        targets
    }

    fn restrict(&self, filter: &[Level], names: &[&str], table: TableId) -> Option<KeyFilter> {
        for (index, name) in names.iter().enumerate() {
            match filter.get(index)? {
                Level::Rest => return Some(KeyFilter::all()),
                Level::One => {}
                Level::Name(own) if **own == **name => {}
                Level::Name(_) => return None,
            }
        }
        let rest = &filter[names.len()..];
        if rest.iter().any(|level| !matches!(level, Level::Name(_))) {
            return Some(KeyFilter::Pattern(rest.into()));
        }
        let names: Vec<&str> = rest
            .iter()
            .map(|level| match level {
                Level::Name(name) => &**name,
                _ => "",
            })
            .collect();
        // A trailing empty level (`T/`) is no key.
        if names == [""] { None } else { KeyFilter::exact(&names.join("/"), *self.codecs.get(&table)?) }
    }
}

/// Finds what is registered under filters that match a key, in one walk over the key's levels.
pub struct Tree<T> {
    root: Node<T>,
}

struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    one: Option<Box<Node<T>>>,
    rest: Option<T>,
    here: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { children: HashMap::new(), one: None, rest: None, here: None }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.one.is_none() && self.rest.is_none() && self.here.is_none()
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree { root: Node::default() }
    }
}

impl<T: Default> Tree<T> {
    /// What is registered under exactly this filter; made if absent.
    pub fn entry(&mut self, filter: &KeyFilter) -> &mut T {
        let mut node = Some(&mut self.root);
        let mut rest = false;
        filter.for_each_level(|level| {
            let Some(here) = node.take() else { return };
            node = Some(match level {
                LevelRef::Name(name) => here.children.entry(name.into()).or_default(),
                LevelRef::One => here.one.get_or_insert_default(),
                LevelRef::Rest => {
                    rest = true;
                    here
                }
            });
        });
        let node = node.expect("the walk always ends at a node");
        if rest { node.rest.get_or_insert_default() } else { node.here.get_or_insert_default() }
    }

    /// Changes what is registered under exactly this filter, and takes it out where `body` says that nothing is left.
    pub fn edit(&mut self, filter: &KeyFilter, body: impl FnOnce(&mut T) -> bool) {
        fn walk<T>(node: &mut Node<T>, levels: &[Level], body: impl FnOnce(&mut T) -> bool) {
            fn slot<T>(slot: &mut Option<T>, body: impl FnOnce(&mut T) -> bool) {
                if let Some(value) = slot
                    && body(value)
                {
                    *slot = None;
                }
            }
            match levels.split_first() {
                None => slot(&mut node.here, body),
                Some((Level::Rest, _)) => slot(&mut node.rest, body),
                Some((Level::One, levels)) => {
                    if let Some(child) = &mut node.one {
                        walk(child, levels, body);
                        if child.is_empty() {
                            node.one = None;
                        }
                    }
                }
                Some((Level::Name(name), levels)) => {
                    if let Some(child) = node.children.get_mut(name) {
                        walk(child, levels, body);
                        if child.is_empty() {
                            node.children.remove(name);
                        }
                    }
                }
            }
        }
        match filter {
            KeyFilter::Pattern(pattern) => walk(&mut self.root, pattern, body),
            KeyFilter::Exact { text, .. } => {
                let names: Vec<Level> = levels(text).map(|name| Level::Name(name.into())).collect();
                walk(&mut self.root, &names, body);
            }
        }
    }

    /// Calls `body` for everything registered under a filter that matches the key `text`. Depth is bounded by the
    /// levels of filters, which [`parse_filter`] bounds.
    pub fn visit<'t>(&'t mut self, text: &str, body: &mut impl FnMut(&'t mut T)) {
        fn walk<'t, T>(node: &'t mut Node<T>, text: Option<&str>, body: &mut impl FnMut(&'t mut T)) {
            if let Some(rest) = &mut node.rest {
                body(rest);
            }
            let Some(text) = text else {
                if let Some(here) = &mut node.here {
                    body(here);
                }
                return;
            };
            let (level, left) = match text.split_once('/') {
                Some((level, left)) => (level, Some(left)),
                None => (text, None),
            };
            if !node.children.is_empty()
                && let Some(child) = node.children.get_mut(level)
            {
                walk(child, left, body);
            }
            if let Some(child) = &mut node.one {
                walk(child, left, body);
            }
        }
        walk(&mut self.root, (!text.is_empty()).then_some(text), body);
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

#[cfg(test)]
mod tests;
