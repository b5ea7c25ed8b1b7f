//! The keys of a table's records as its index holds them: short ones in place, and compared by whole words. A search in
//! the index compares with some twenty keys; each would otherwise be a look at another part of memory and a call.

use ref_cast::RefCast;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cmp::Ordering;

/// Keys up to this length need no allocation of their own.
const INLINE_BYTES: usize = 16;

/// A key, owned.
pub struct RecordKey(SmallVec<[u8; INLINE_BYTES]>);

/// A key, borrowed. Ordered as its bytes are.
#[derive(RefCast)]
#[repr(transparent)]
pub struct KeyBytes([u8]);

impl RecordKey {
    pub fn new(key: &[u8]) -> RecordKey {
        RecordKey(SmallVec::from_slice(key))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl KeyBytes {
    pub fn new(key: &[u8]) -> &KeyBytes {
        KeyBytes::ref_cast(key)
    }
}

/// The first eight bytes as a number that is ordered as they are; a shorter key is filled up with zeros.
fn first_word(key: &[u8]) -> u64 {
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

impl Ord for KeyBytes {
    fn cmp(&self, other: &KeyBytes) -> Ordering {
        // Where the words differ, so do the keys, and in the same direction: a zero that fills one up is less than what
        // the other has there.
        first_word(&self.0).cmp(&first_word(&other.0)).then_with(|| self.0.cmp(&other.0))
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
    fn borrow(&self) -> &KeyBytes {
        KeyBytes::new(&self.0)
    }
}

impl Ord for RecordKey {
    fn cmp(&self, other: &RecordKey) -> Ordering {
        KeyBytes::new(&self.0).cmp(KeyBytes::new(&other.0))
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
            prop_assert_eq!(KeyBytes::new(&one).cmp(KeyBytes::new(&other)), one.cmp(&other));
            prop_assert_eq!(RecordKey::new(&one).cmp(&RecordKey::new(&other)), one.cmp(&other));
        }
    }
}
