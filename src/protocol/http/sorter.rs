//! Rows that come in another order than the one that is wanted: the first of them, as many as are asked for, and never
//! more than memory that is bounded.

use std::collections::BinaryHeap;

/// Rows that are held at most, and their bytes.
const ROWS_MAX: usize = 100_000;
const BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct TooMany;

pub(super) enum Sorter {
    Gathering {
        /// The last of them on top.
        rows: BinaryHeap<(Vec<u8>, Vec<u8>)>,
        bytes: usize,
        wanted: u64,
    },
    Sorted(std::vec::IntoIter<Vec<u8>>),
}

impl Sorter {
    /// `wanted`: how many of the first are asked for.
    pub fn new(wanted: Option<u64>) -> Sorter {
        Sorter::Gathering { rows: BinaryHeap::new(), bytes: 0, wanted: wanted.unwrap_or(u64::MAX) }
    }

    /// Takes a row that stands at `place`.
    ///
    /// # Errors
    /// It would hold too much.
    pub fn add(&mut self, place: Vec<u8>, row: &[u8]) -> Result<(), TooMany> {
        let Sorter::Gathering { rows, bytes, wanted } = self else { return Ok(()) };
        let is_full = rows.len() as u64 >= *wanted;
        if is_full && rows.peek().is_none_or(|(last, _)| place >= *last) {
            return Ok(());
        }
        *bytes += place.len() + row.len();
        rows.push((place, row.to_vec()));
        if is_full && let Some((place, row)) = rows.pop() {
            *bytes -= place.len() + row.len();
        }
        if rows.len() > ROWS_MAX || *bytes > BYTES_MAX { Err(TooMany) } else { Ok(()) }
    }

    /// All rows have come: the first `offset` are left out.
    pub fn sort(&mut self, offset: u64) {
        if let Sorter::Gathering { rows, .. } = self {
            let sorted = std::mem::take(rows).into_sorted_vec().into_iter().map(|(_, row)| row);
            let rows: Vec<Vec<u8>> = sorted.skip(usize::try_from(offset).unwrap_or(usize::MAX)).collect();
            *self = Sorter::Sorted(rows.into_iter());
        }
    }
}
