//! A log on a real directory, flushed by hand; damage made with a pen.

use super::*;
use crate::clock::Version;
use crate::log::format::RecordHead;
use crate::log::format::RecordKind;
use crate::log::{Location, Position, Room};
use crate::schema::TableId;
use crate::storage::{Directory, StorageCompletion, StorageRequest};
use std::os::unix::fs::FileExt;

type Seen = Vec<(Vec<u8>, Vec<u8>)>;

fn open_log(directory: &Directory) -> Result<(Log, Recovery, Seen), RecoveryError> {
    let (log, recovery) = open(directory, 0, 42, SegmentSizes::default(), &Progress::default())?;
    let mut seen = Vec::new();
    log.history(&mut |_, record| seen.push((record.key.to_vec(), record.document.to_vec())));
    Ok((log, recovery, seen))
}

fn append(log: &mut Log, key: &[u8], document: &[u8]) -> Location {
    assert_eq!(log.room(key.len() + document.len()), Room::Yes);
    let write = |_, out: &mut Vec<u8>| {
        out.extend_from_slice(document);
        Ok::<_, ()>(None)
    };
    let head = RecordHead {
        kind: RecordKind::Put,
        table: TableId(1),
        version: Version(5),
        may_expire: false,
        qos: 0,
        publisher: 0,
        key,
        properties: &[],
    };
    log.append(&head, write).unwrap().location
}

/// Does what the log asks of the disk, until it asks no more.
fn serve(log: &mut Log, directory: &Directory) {
    while let Some(request) = log.request(0) {
        log.complete(request.run(directory), 0).unwrap();
    }
}

fn fixture() -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    (folder, directory)
}

#[test]
fn what_was_flushed_is_there_again_and_the_epoch_rises() {
    let (_folder, directory) = fixture();
    let (mut log, _, seen) = open_log(&directory).unwrap();
    assert_eq!((seen.len(), log.position()), (0, Position { epoch: 1, seq: 0 }));
    let first = append(&mut log, b"a", b"1");
    serve(&mut log, &directory);
    let second = append(&mut log, b"b", b"2");
    assert_eq!(log.read(first).unwrap().document, b"1");
    assert_eq!(log.read(second).unwrap().document, b"2", "read from the open batch");
    assert!(!log.is_clean());
    serve(&mut log, &directory);
    assert_eq!((log.durable_seq(), log.is_clean()), (2, true));
    drop(log);
    let (log, recovery, seen) = open_log(&directory).unwrap();
    assert_eq!(seen, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
    assert_eq!((recovery.cut, log.position()), (None, Position { epoch: 2, seq: 2 }));
    assert_eq!(log.read(first).unwrap().document, b"1");
    drop(log);
    let (log, ..) = open_log(&directory).unwrap();
    assert_eq!(log.position().epoch, 3, "an epoch without writes counts too");
}

#[test]
fn segments_roll_and_everything_stays_readable() {
    let (_folder, directory) = fixture();
    let (mut log, ..) = open_log(&directory).unwrap();
    let document = vec![7; 100_000];
    let mut locations = Vec::new();
    for number in 0..300u32 {
        while log.room(4 + document.len()) == Room::Wait {
            serve(&mut log, &directory);
        }
        locations.push(append(&mut log, &number.to_le_bytes(), &document));
        if number % 7 == 0 {
            serve(&mut log, &directory);
        }
    }
    assert!(locations.last().unwrap().segment > locations[0].segment + 1);
    for (number, location) in locations.iter().enumerate() {
        assert_eq!(log.read(*location).unwrap().key, (number as u32).to_le_bytes());
    }
    serve(&mut log, &directory);
    drop(log);
    let (_, _, seen) = open_log(&directory).unwrap();
    assert_eq!(seen.len(), 300);
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_tears() {
    for torn in (0..200).step_by(8) {
        let (_folder, directory) = fixture();
        let (mut log, ..) = open_log(&directory).unwrap();
        append(&mut log, b"kept", b"x");
        serve(&mut log, &directory);
        append(&mut log, b"torn", &[9; 100]);
        let Some(StorageRequest::Commit { segment, offset, data }) = log.request(0) else { panic!() };
        // Only the first bytes reach the disk.
        directory.write(FileName::Segment(segment), offset, &data[..torn.min(data.len() - 8)]).unwrap();
        drop(log);
        let (mut log, recovery, seen) = open_log(&directory).unwrap();
        assert_eq!(seen.len(), 1, "torn at {torn}");
        assert_eq!(recovery.cut.is_some(), torn > 0, "torn at {torn}");
        append(&mut log, b"after", b"y");
        serve(&mut log, &directory);
        drop(log);
        let (log, recovery, seen) = open_log(&directory).unwrap();
        assert_eq!((seen.len(), log.position().seq), (2, 2));
        assert_eq!(recovery.cut, None, "a cut is judged once");
    }
}

#[test]
fn damage_to_promised_data_is_corruption_never_a_shorter_log() {
    let (folder, directory) = fixture();
    let (mut log, ..) = open_log(&directory).unwrap();
    let mut places = Vec::new();
    for number in 0..3u8 {
        places.push(append(&mut log, &[number], &[number; 50]));
        serve(&mut log, &directory);
    }
    drop(log);
    // The last flush is named by no later header: a known limit. Everything before it is.
    for place in &places[..2] {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let copied = Directory::open(copy.path()).unwrap();
        let file = copied.open_segment(place.segment).unwrap();
        file.write_all_at(&[0xff], u64::from(place.offset) + 30).unwrap();
        match open_log(&copied) {
            Err(RecoveryError::Corrupt { at, seq, durable_seq }) => {
                assert_eq!(at.segment, place.segment);
                assert!(at.offset <= u64::from(place.offset) && seq <= durable_seq);
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a shorter log was accepted"),
        }
        assert!(copied.path(FileName::Segment(place.segment)).exists(), "nothing is deleted from a damaged log");
    }
}

#[test]
fn a_failed_flush_fences() {
    let (_folder, directory) = fixture();
    let (mut log, ..) = open_log(&directory).unwrap();
    append(&mut log, b"a", b"1");
    assert!(matches!(log.request(0), Some(StorageRequest::Commit { .. })));
    assert!(log.complete(StorageCompletion::Committed(Err(io::Error::other("EIO"))), 0).is_err());
    assert_eq!((log.room(1), log.durable_seq()), (Room::Fenced, 0));
    assert!(log.request(0).is_none());
}

#[test]
fn a_full_disk_refuses_until_a_segment_can_be_made() {
    let (_folder, directory) = fixture();
    let (mut log, ..) = open_log(&directory).unwrap();
    let document = vec![1; 200_000];
    let mut full = 0;
    for _ in 0..40 {
        match log.room(document.len() + 1) {
            Room::Yes => {
                append(&mut log, b"k", &document);
            }
            Room::Full => full += 1,
            _ => {}
        }
        while let Some(request) = log.request(0) {
            let _ = match request {
                StorageRequest::Create { segment, .. } => log.complete(
                    StorageCompletion::Created { segment, result: Err(io::Error::from_raw_os_error(libc::ENOSPC)) },
                    0,
                ),
                other => log.complete(other.run(&directory), 0),
            };
        }
    }
    assert!(full > 10);
    let retry = log.deadline_us().unwrap();
    let Some(StorageRequest::Create { segment, bytes }) = log.request(retry) else { panic!() };
    log.complete(
        StorageCompletion::Created { segment, result: directory.create(FileName::Segment(segment), bytes) },
        retry,
    )
    .unwrap();
    assert_eq!(log.room(document.len()), Room::Yes);
}
