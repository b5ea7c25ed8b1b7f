//! The log: nanoseconds to append a 200-byte record to the open batch; the same with write and fdatasync of whole
//! groups, through std fs; and how fast recovery reads records back.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shards::clock::Version;
use shards::limits::SegmentSizes;
use shards::log::format::RecordKind;
use shards::log::recover::{self, Recovery};
use shards::log::{Log, Room};
use shards::progress::Progress;
use shards::schema::TableId;
use shards::storage::{Directory, StorageCompletion, StorageRequest};
use std::time::Duration;

const RECORDS: u64 = 1_000;

fn open(directory: &Directory) -> (Log, Recovery) {
    recover::open(directory, 0, 7, SegmentSizes::default(), &Progress::default()).unwrap()
}

fn append(log: &mut Log, document: &[u8; 200]) {
    assert_eq!(log.room(208), Room::Yes);
    let write = |_, out: &mut Vec<u8>| {
        out.extend_from_slice(document);
        Ok::<_, ()>(None)
    };
    log.append(RecordKind::Put, TableId(0), Version(1), false, b"key/1234", write).unwrap();
}

/// Does what the log asks. Without `sync` the commits are only claimed.
fn serve(log: &mut Log, directory: &Directory, sync: bool) {
    while let Some(request) = log.request(0) {
        let completion = match request {
            StorageRequest::Commit { .. } if !sync => StorageCompletion::Committed(Ok(())),
            StorageRequest::Job(_) if !sync => continue,
            request => request.run(directory),
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
        let mut log = open(&directory).0;
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
    let mut log = open(&directory).0;
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
            let (log, recovery) = open(&directory);
            assert_eq!(log.position().seq, 20 * RECORDS);
            (log, recovery.segments)
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
