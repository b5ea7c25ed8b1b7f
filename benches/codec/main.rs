//! Nanoseconds per packet: our MQTT codec beside two others, as a table; a WebSocket frame and an HTTP request head, with
//! criterion.

mod mqtt;

use criterion::{Criterion, criterion_group};
use std::hint::black_box;
use tablecast::protocol::http::request;
use tablecast::protocol::ws::frame;

const MAX: usize = 1 << 20;
const PAYLOAD: &[u8] = &[b'x'; 128];

fn web(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/web");
    let masked: Vec<u8> = PAYLOAD.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let bytes = [&[0x82, 0x80 | 126, 0, 128, 1, 2, 3, 4], &masked[..]].concat();
    let (mut reader, mut data) = (frame::Reader::default(), Vec::new());
    group.bench_function("WebSocket frame of 128 bytes", |bencher| {
        bencher.iter(|| black_box(reader.read(black_box(&bytes), MAX, &mut data).unwrap()));
    });
    let head = b"GET /Sensors/101 HTTP/1.1\r\nHost: localhost:9926\r\nUser-Agent: bench\r\nAccept: application/json\r\nConnection: keep-alive\r\n\r\n";
    group.bench_function("HTTP request head, 4 fields", |bencher| {
        bencher.iter(|| {
            let mut reader = request::Reader::default();
            let taken = match reader.read(black_box(head), MAX).unwrap() {
                request::Progress::Request(_, taken) => taken,
                request::Progress::More { .. } | request::Progress::Streamed(..) => unreachable!("the head is whole"),
            };
            black_box(taken)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(std::time::Duration::from_millis(150))
        .measurement_time(std::time::Duration::from_millis(400));
    targets = web
}

fn main() {
    mqtt::compare();
    benches();
}
