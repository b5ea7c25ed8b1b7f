//! The log: nanoseconds to append a 200-byte record to the open batch; the same with write and fdatasync of whole
//! groups, through std fs; and how fast recovery reads records back.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shards::clock::Version;
use shards::log::format::RecordKind;
use shards::log::{Log, Room, recover};
use shards::schema::TableId;
use shards::storage::{Directory, Storage, StorageCompletion, StorageRequest};
use std::time::Duration;

const RECORDS: u64 = 1_000;
const PACKET_BYTES_MAX: usize = 1 << 20;

fn open(directory: &Directory, records: &mut u64) -> Log {
    recover::open(directory, 0, 7, PACKET_BYTES_MAX, &mut |_, _| *records += 1).unwrap().0
}

fn append(log: &mut Log, document: &[u8; 200]) {
    assert_eq!(log.room(208), Room::Yes);
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(document);
        Ok::<(), ()>(())
    };
    log.append(RecordKind::Put, TableId(0), Version(1), b"key/1234", write).unwrap();
}

/// Does what the log asks. Without `sync` the commits are only claimed.
fn serve(log: &mut Log, directory: &Directory, sync: bool) {
    while let Some(request) = log.request(0) {
        let completion = match request {
            StorageRequest::Create { segment, bytes } => {
                StorageCompletion::Created { segment, result: directory.create(segment, bytes) }
            }
            StorageRequest::Commit { segment, offset, data } => {
                StorageCompletion::Committed(if sync { directory.write(segment, offset, &data) } else { Ok(()) })
            }
        };
        log.complete(completion, 0).unwrap();
    }
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("log/{RECORDS} records of 200 bytes"));
    group.throughput(Throughput::Elements(RECORDS));
    for (name, sync) in [("append to the open batch", false), ("append, write, fdatasync as one group", true)] {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let mut log = open(&directory, &mut 0);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..RECORDS {
                    append(&mut log, &[7; 200]);
                }
                serve(&mut log, &directory, sync);
            });
        });
    }
    group.finish();

    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let mut log = open(&directory, &mut 0);
    for _ in 0..20 {
        for _ in 0..RECORDS {
            append(&mut log, &[7; 200]);
        }
        serve(&mut log, &directory, true);
    }
    let mut group = criterion.benchmark_group("log/recovery");
    group.throughput(Throughput::Elements(20 * RECORDS));
    group.bench_function("20,000 records of 200 bytes, with a new segment", |bencher| {
        let reopen = |directory: Directory| {
            let mut records = 0;
            let log = open(&directory, &mut records);
            assert_eq!(records, 20 * RECORDS);
            log
        };
        bencher.iter_batched(|| directory.clone(), reopen, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = log
}
criterion_main!(benches);
