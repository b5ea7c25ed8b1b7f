//! Secondary indexes (`@indexed`): for each value of an attribute the keys of the records that hold it, in order; arrays
//! by element, what is absent as null. An index is in memory and made anew after a start, a bounded number of records a
//! turn. It names candidates: what they are now decides (`Table::chunk`).
//!
//! A version of a record is in the index from its write until no reader sees it any more: entries count how many
//! versions they stand for.

use crate::query::order;
use crate::query::{Path, values};
use crate::schema::{Kind, Role, TableDef};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// The values in `[lower, upper)`, as they stand in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub lower: Box<[u8]>,
    pub upper: Box<[u8]>,
}

impl Range {
    /// All that begins with these bytes.
    pub fn beginning(prefix: Vec<u8>) -> Range {
        let upper = after(&prefix);
        Range { lower: prefix.into(), upper }
    }

    pub fn contains(&self, value: &[u8]) -> bool {
        *self.lower <= *value && *value < *self.upper
    }
}

/// The first bytes behind all that begin with `prefix`.
pub fn after(prefix: &[u8]) -> Box<[u8]> {
    // No text and no encoded value is all 255.
    let end = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |at| at + 1);
    let mut out = prefix[..end].to_vec();
    if let Some(last) = out.last_mut() {
        *last += 1;
    }
    out.into()
}

pub struct Index {
    path: Path,
    /// Each record has one value here: the index is in the order of all records.
    pub is_total: bool,
    entries: BTreeMap<Box<[u8]>, u32>,
}

impl Index {
    pub fn name(&self) -> &str {
        &self.path[0]
    }

    fn change(&mut self, key: &[u8], document: &[u8], by: i32) {
        let mut entry = Vec::new();
        let Index { path, entries, .. } = self;
        values(document, path, &mut |token| {
            entry.clear();
            if !order::encode_cut(token, &mut entry) {
                return;
            }
            entry.extend_from_slice(key);
            if by > 0 {
                match entries.get_mut(entry.as_slice()) {
                    Some(count) => *count += 1,
                    None => _ = entries.insert(entry.as_slice().into(), 1),
                }
            } else if let Entry::Occupied(mut found) = entries.entry(entry.as_slice().into()) {
                *found.get_mut() -= 1;
                if *found.get() == 0 {
                    found.remove();
                }
            }
        });
    }

    /// The entries in a range behind (or, descending, before) one of them: each a value and the key behind it.
    pub fn entries<'a>(
        &'a self,
        range: &'a Range,
        from: Option<&'a [u8]>,
        descending: bool,
    ) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        let (mut lower, mut upper) = (Bound::Included(&*range.lower), Bound::Excluded(&*range.upper));
        match from {
            Some(from) if descending && from < &*range.upper => upper = Bound::Excluded(from),
            Some(from) if !descending && from >= &*range.lower => lower = Bound::Excluded(from),
            _ => {}
        }
        let is_empty = match (lower, upper) {
            (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            _ => false,
        };
        if is_empty {
            return Box::new(std::iter::empty());
        }
        let found = self.entries.range::<[u8], _>((lower, upper)).map(|(entry, _)| &**entry);
        if descending { Box::new(found.rev()) } else { Box::new(found) }
    }

    /// How many entries are in a range; counted up to `most`.
    pub fn count(&self, range: &Range, most: usize) -> usize {
        self.entries(range, None, false).take(most).count()
    }
}

/// The indexes of one shard's slice of a table.
#[derive(Default)]
pub struct Indexes {
    list: Vec<Index>,
    /// While they are made: records up to here are in them.
    upto: Option<Box<[u8]>>,
    is_built: bool,
}

impl Indexes {
    pub fn new(definition: &TableDef) -> Indexes {
        let has_index = |index: usize| definition.attributes[index].indexed && definition.primary_key != Some(index);
        let indexed = (0..definition.attributes.len()).filter(|index| has_index(*index));
        let list = indexed
            .map(|index| &definition.attributes[index])
            .filter(|attribute| attribute.role != Role::Virtual)
            .map(|attribute| Index {
                path: [attribute.name.as_str().into()].into(),
                is_total: !matches!(attribute.kind, Kind::Array(_) | Kind::Any | Kind::Object(_)),
                entries: BTreeMap::new(),
            })
            .collect();
        Indexes { list, upto: None, is_built: false }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there is nothing left to be made.
    pub fn is_built(&self) -> bool {
        self.is_built || self.list.is_empty()
    }

    /// The index of an attribute, if it can be used.
    pub fn of(&self, name: &str) -> Option<(u16, &Index)> {
        let at = self.list.iter().position(|index| index.name() == name).filter(|_| self.is_built)?;
        Some((at as u16, &self.list[at]))
    }

    pub fn get(&self, number: u16) -> Option<&Index> {
        self.list.get(usize::from(number)).filter(|_| self.is_built)
    }

    /// Whether a version of this key has its place already.
    fn covers(&self, key: &[u8]) -> bool {
        self.is_built || self.upto.as_deref().is_some_and(|upto| key <= upto)
    }

    /// A version is there.
    pub fn insert(&mut self, key: &[u8], document: &[u8]) {
        if self.covers(key) {
            self.list.iter_mut().for_each(|index| index.change(key, document, 1));
        }
    }

    /// Nobody sees a version any more.
    pub fn remove(&mut self, key: &[u8], document: &[u8]) {
        if self.covers(key) {
            self.list.iter_mut().for_each(|index| index.change(key, document, -1));
        }
    }

    /// Where making them has got to.
    pub fn built_upto(&self) -> Option<&[u8]> {
        self.upto.as_deref()
    }

    /// Takes over versions of the keys up to `upto` while they are made; `None`: that was all.
    pub fn build(&mut self, upto: Option<Box<[u8]>>, versions: &[(Box<[u8]>, Vec<u8>)]) {
        for (key, document) in versions {
            self.list.iter_mut().for_each(|index| index.change(key, document, 1));
        }
        match upto {
            Some(upto) => self.upto = Some(upto),
            None => self.is_built = true,
        }
    }
}
