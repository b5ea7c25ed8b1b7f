//! The mark file: how far the log is known to be on disk, for the last flush, which no later batch names. Two slots,
//! written in turn, so that a torn write leaves the other; refreshed at most once a second and when the server stops.
//!
//! A slot is a page of 4 KiB, of which 32 bytes are used:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | magic `TCM1` |
//! | 4  | 2 | format version |
//! | 6  | 2 | shard |
//! | 8  | 8 | durable seq |
//! | 16 | 12 | zero |
//! | 28 | 4 | checksum of bytes 0..28 |

use super::format::{FORMAT_VERSION, FORMAT_VERSION_LEAST, u16_at, u32_at, u64_at};

const MAGIC: u32 = u32::from_le_bytes(*b"TCM1");
const MARK_BYTES: usize = 32;
const CHECKED: usize = MARK_BYTES - 4;
pub const SLOT_BYTES: u64 = 4096;

/// What the mark file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// 0: nothing.
    pub durable_seq: u64,
    /// The slot that says so. The other one is written next.
    pub slot: u64,
}

impl Mark {
    /// The bytes of the slot.
    pub fn encode(&self, shard: u16) -> [u8; MARK_BYTES] {
        let mut out = [0; MARK_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&shard.to_le_bytes());
        out[8..16].copy_from_slice(&self.durable_seq.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// The higher of the slots that are sound.
pub fn decode(file: &[u8], shard: u16) -> Mark {
    let slot = |slot: &[u8]| {
        let mark = slot.get(..MARK_BYTES)?;
        let sound = u32_at(mark, 0) == MAGIC
            && (FORMAT_VERSION_LEAST..=FORMAT_VERSION).contains(&u16_at(mark, 4))
            && u16_at(mark, 6) == shard
            && crc32c::crc32c(&mark[..CHECKED]) == u32_at(mark, CHECKED);
        sound.then(|| u64_at(mark, 8))
    };
    let slots = file.chunks(SLOT_BYTES as usize).take(2).enumerate();
    let sound = slots.filter_map(|(number, bytes)| Some(Mark { durable_seq: slot(bytes)?, slot: number as u64 }));
    sound.max_by_key(|mark| mark.durable_seq).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_sound_slot_counts() {
        let mut file = vec![0; SLOT_BYTES as usize + MARK_BYTES];
        assert_eq!((decode(&[], 1), decode(&file, 1)), (Mark::default(), Mark::default()));
        file[..MARK_BYTES].copy_from_slice(&Mark { durable_seq: 7, slot: 0 }.encode(1));
        file[SLOT_BYTES as usize..].copy_from_slice(&Mark { durable_seq: 9, slot: 1 }.encode(1));
        assert_eq!(decode(&file, 1), Mark { durable_seq: 9, slot: 1 });
        assert_eq!(decode(&file, 2), Mark::default(), "another shard's");
        file[SLOT_BYTES as usize + 9] ^= 1;
        assert_eq!(decode(&file, 1), Mark { durable_seq: 7, slot: 0 });
    }
}
