//! Nanoseconds per packet: our MQTT decoder beside `mqttbytes`, what we write, a WebSocket frame, an HTTP request head.

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tablecast::protocol::http::request;
use tablecast::protocol::mqtt::packet::{PublishHead, Version, decode, write_suback};
use tablecast::protocol::ws::frame;

const MAX: usize = 1 << 20;
const PAYLOAD: &[u8] = &[b'x'; 128];

fn packet(first: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let (low, high) = (content.len() & 0x7f, content.len() >> 7);
    let mut bytes = if high > 0 { vec![first, low as u8 | 0x80, high as u8] } else { vec![first, low as u8] };
    bytes.extend_from_slice(&content);
    bytes
}

/// Content type, a user property, expiry, payload format: 4 properties.
const PROPERTIES: &[u8] = b"\x23\x03\0\x10application/json\x26\0\x01k\0\x01v\x02\0\0\0\x3c\x01\x01";

fn mqtt(criterion: &mut Criterion) {
    let properties = [&[PROPERTIES.len() as u8 - 1], &PROPERTIES[1..]].concat();
    let cases = [
        ("PUBLISH 3.1.1 QoS 0", Version::V4, packet(0x30, &[b"\0\x0bSensors/101", PAYLOAD])),
        ("PUBLISH 3.1.1 QoS 1", Version::V4, packet(0x32, &[b"\0\x0bSensors/101\0\x01", PAYLOAD])),
        ("PUBLISH 5 QoS 0", Version::V5, packet(0x30, &[b"\0\x0bSensors/101\0", PAYLOAD])),
        (
            "PUBLISH 5 QoS 1, 4 properties",
            Version::V5,
            packet(0x32, &[b"\0\x0bSensors/101\0\x01", &properties, PAYLOAD]),
        ),
        ("SUBSCRIBE 3.1.1, 1 filter", Version::V4, packet(0x82, &[b"\0\x01\0\x09Sensors/#\x01"])),
        ("SUBSCRIBE 5, 1 filter", Version::V5, packet(0x82, &[b"\0\x01\0\0\x09Sensors/#\x01"])),
        ("CONNECT 3.1.1", Version::V4, packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3c\0\x0aclient-001"])),
        (
            "CONNECT 5",
            Version::V5,
            packet(0x10, &[b"\0\x04MQTT\x05\x02\0\x3c\x08\x11\0\0\0\x3c\x21\0\x14\0\x0aclient-001"]),
        ),
        ("PUBACK 3.1.1", Version::V4, packet(0x40, &[b"\0\x01"])),
    ];
    let mut group = criterion.benchmark_group("codec/decode");
    for (name, version, bytes) in &cases {
        group.bench_function(format!("{name}/ours"), |bencher| {
            bencher.iter(|| black_box(decode(black_box(bytes), *version, MAX).unwrap().unwrap().1));
        });
        // It takes packets out of a buffer that owns them: the copy into that buffer is part of its cost.
        let mut stream = BytesMut::with_capacity(4096);
        group.bench_function(format!("{name}/mqttbytes"), |bencher| {
            bencher.iter(|| {
                stream.extend_from_slice(black_box(bytes));
                match version {
                    Version::V4 => _ = black_box(mqttbytes::v4::read(&mut stream, MAX).unwrap()),
                    Version::V5 => _ = black_box(mqttbytes::v5::read(&mut stream, MAX).unwrap()),
                }
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("codec/encode");
    let mut out = Vec::with_capacity(4096);
    for version in [Version::V4, Version::V5] {
        group.bench_function(format!("PUBLISH {version:?} QoS 1/ours"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let head = PublishHead {
                    version,
                    qos: 1,
                    dup: false,
                    retain: false,
                    topic: black_box(("Sensors", "/", "101")),
                    topic_alias: None,
                    payload_is_text: false,
                    content_type: None,
                    message_expiry: None,
                    properties: &[],
                    subscription_identifiers: &[],
                    payload_bytes: PAYLOAD.len(),
                };
                head.write(&mut out);
                out.extend_from_slice(black_box(PAYLOAD));
            });
        });
    }
    let mut stream = BytesMut::with_capacity(4096);
    let mut publish = mqttbytes::v4::Publish::new("Sensors/101", mqttbytes::QoS::AtLeastOnce, PAYLOAD);
    publish.pkid = 1;
    group.bench_function("PUBLISH V4 QoS 1/mqttbytes", |bencher| {
        bencher.iter(|| {
            stream.clear();
            black_box(&publish).write(&mut stream).unwrap();
        });
    });
    group.bench_function("SUBACK V5/ours", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_suback(Version::V5, 1, black_box(&[1]), &mut out);
        });
    });
    group.finish();
}

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
                request::Progress::More { .. } => unreachable!("the head is whole"),
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
    targets = mqtt, web
}
criterion_main!(benches);
