//! Transcoding a document of about 200 bytes: every pair of formats by way of the canonical form, as a write in one
//! and its delivery in the other do; beside it serde_json → ciborium through a tree.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tablecast::protocol::format::{Decoder, Format, encode};

const JSON: &[u8] = br#"{"id":"101","temp":21.5,"location":"hall 4, north","publisher":"sensor-17","timestamp":"2026-01-02T03:04:05.678Z","tags":["a","b","c"],"nested":{"ok":true,"count":12345,"ratio":0.125,"none":null}}"#;

fn documents(criterion: &mut Criterion) {
    let mut decoder = Decoder::default();
    let mut canonical = Vec::new();
    decoder.decode(Format::Json, JSON, &mut canonical).unwrap();
    let mut group = criterion.benchmark_group(format!("documents/{} bytes of JSON", JSON.len()));
    for from in Format::ALL {
        let mut input = Vec::new();
        encode(from, &canonical, &mut input);
        for to in Format::ALL {
            let (mut between, mut out) = (Vec::new(), Vec::new());
            group.bench_function(format!("{from:?} to {to:?}"), |bencher| {
                bencher.iter(|| {
                    between.clear();
                    out.clear();
                    decoder.decode(from, black_box(&input), &mut between).unwrap();
                    encode(to, &between, &mut out);
                    black_box(&out);
                });
            });
        }
    }
    let mut out = Vec::new();
    group.bench_function("serde_json::Value to ciborium", |bencher| {
        bencher.iter(|| {
            out.clear();
            let value: serde_json::Value = serde_json::from_slice(black_box(JSON)).unwrap();
            ciborium::into_writer(&value, &mut out).unwrap();
            black_box(&out);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600));
    targets = documents
}
criterion_main!(benches);
