//! The keys of a table's records as its index holds them: behind their first eight bytes as a word that is compared at
//! once, and short ones in place. A search in the index compares with some forty keys; each would otherwise be a look at
//! another part of memory and a call.

use ref_cast::RefCast;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cmp::Ordering;

const WORD_BYTES: usize = 8;
/// Word and key: up to this length they need no allocation of their own.
const INLINE_BYTES: usize = WORD_BYTES + 16;
/// The same of keys that are looked for.
const PROBE_BYTES: usize = WORD_BYTES + 120;

/// A key, owned: its first word, big-endian, then all of it.
pub struct RecordKey(SmallVec<[u8; INLINE_BYTES]>);

/// The same, borrowed. Ordered as keys are.
#[derive(RefCast)]
#[repr(transparent)]
pub struct KeyBytes([u8]);

/// A key that is looked for.
pub struct Probe(SmallVec<[u8; PROBE_BYTES]>);

fn behind_word<const N: usize>(key: &[u8]) -> SmallVec<[u8; N]>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    let mut bytes = SmallVec::with_capacity(WORD_BYTES + key.len());
    bytes.extend_from_slice(&first_word(key).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

impl Probe {
    pub fn new(key: &[u8]) -> Probe {
        Probe(behind_word(key))
    }

    pub fn key(&self) -> &KeyBytes {
        KeyBytes::ref_cast(&self.0)
    }
}

impl RecordKey {
    pub fn new(key: &[u8]) -> RecordKey {
        RecordKey(behind_word(key))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0[WORD_BYTES..]
    }
}

/// The first eight bytes as a number that is ordered as they are; a shorter key is filled up with zeros.
pub(crate) fn first_word(key: &[u8]) -> u64 {
    if let Some(word) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*word);
    }
    // Two halves that overlap: no loop, no call.
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        let missing = 8 * (8 - key.len() as u32);
        return u64::from(u32::from_be_bytes(*first)) << 32 | u64::from(u32::from_be_bytes(*last)) << missing;
    }
    key.iter().enumerate().fold(0, |word, (at, byte)| word | u64::from(*byte) << (56 - 8 * at))
}

impl KeyBytes {
    #[inline(always)]
    fn word(&self) -> u64 {
        self.0.first_chunk::<WORD_BYTES>().map_or(0, |word| u64::from_be_bytes(*word))
    }
}

impl Ord for KeyBytes {
    #[inline(always)]
    fn cmp(&self, other: &KeyBytes) -> Ordering {
        // Where the words differ, so do the keys, and in the same direction: a zero that fills one up is less than what
        // the other has there.
        self.word().cmp(&other.word()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &KeyBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &KeyBytes) -> bool {
        self.0 == other.0
    }
}

impl Eq for KeyBytes {}

impl Borrow<KeyBytes> for RecordKey {
    #[inline(always)]
    fn borrow(&self) -> &KeyBytes {
        KeyBytes::ref_cast(&self.0)
    }
}

impl Ord for RecordKey {
    fn cmp(&self, other: &RecordKey) -> Ordering {
        KeyBytes::ref_cast(&self.0).cmp(KeyBytes::ref_cast(&other.0))
    }
}

impl PartialOrd for RecordKey {
    fn partial_cmp(&self, other: &RecordKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RecordKey {
    fn eq(&self, other: &RecordKey) -> bool {
        self.0 == other.0
    }
}

impl Eq for RecordKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_ordered_as_their_bytes(
            common in proptest::collection::vec(0u8..3, 0..10),
            one in proptest::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..12),
            other in proptest::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..12),
        ) {
            let (one, other) = ([common.clone(), one].concat(), [common, other].concat());
            let keys = [RecordKey::new(&one), RecordKey::new(&other)];
            prop_assert_eq!([keys[0].bytes(), keys[1].bytes()], [&*one, &*other]);
            prop_assert_eq!(keys[0].cmp(&keys[1]), one.cmp(&other));
        }
    }
}
