//! Any bytes through every decoder of the log: no panic, no read past the end, and what decodes encodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::log::format::{BatchHeader, Record, SegmentHeader};
use shards::log::index::SegmentIndex;
use shards::log::{job, mark};

fuzz_target!(|bytes: &[u8]| {
    if let Some(header) = SegmentHeader::decode(bytes) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Some(header));
    }
    if let Some((header, checksum)) = BatchHeader::decode(bytes) {
        assert_eq!(header.encode().1, checksum);
    }
    if let Some((record, length)) = Record::decode(bytes) {
        assert!(record.key.len() + record.document.len() <= length && length <= bytes.len());
    }
    mark::decode(bytes, 0);
    if let Some(index) = SegmentIndex::made(bytes.to_vec()) {
        for at in 0..index.len() {
            let entry = index.entry(at);
            let _ = index.find(entry.table, entry.key);
        }
        index.tables().for_each(drop);
    }
    let _ = job::check(1, bytes, None);
    let _ = job::index(1, bytes);
});
