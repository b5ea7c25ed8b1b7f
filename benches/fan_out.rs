//! What it costs the engine to hand one event to one subscriber: the whole turn of a shard (write, log, encode, copy to
//! outboxes, hand out and take back the send buffers, for QoS 1 and 2 also the acknowledgements), without sockets or
//! disk. Over MQTT, and at QoS 0 over SSE and WebSocket.
//! Read "time per element": nanoseconds per subscriber and event. Aim: at most 60 at QoS 0 (16 events a turn).

#[path = "common/world.rs"]
mod world;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tablecast::protocol::frames::Protocol;
use world::World;

fn fan_out(criterion: &mut Criterion) {
    let mqtt = [(0, 16), (0, 1), (1, 16), (2, 16)].map(|(qos, events)| ("", Protocol::MqttV4, qos, events));
    let others = [("sse, ", Protocol::Sse), ("web socket, ", Protocol::WebSocket)];
    let others = others.into_iter().flat_map(|(name, protocol)| [16, 1].map(|events| (name, protocol, 0, events)));
    for (name, protocol, qos, events) in mqtt.into_iter().chain(others) {
        let mut group = criterion.benchmark_group(format!("fan_out/{name}qos {qos}, {events} events a turn"));
        for subscribers in [1, 100, 1_000, 10_000] {
            let mut world = World::new(1, subscribers, qos, protocol);
            let sent = world.turn(events, qos);
            assert_eq!(sent % subscribers as usize, 0, "all are sent the same");
            let frame_bytes = sent as f64 / f64::from(subscribers) / f64::from(events);
            match (protocol, qos) {
                (Protocol::MqttV4, 0) => assert_eq!(frame_bytes, 138.0),
                (Protocol::MqttV4, _) => assert_eq!(frame_bytes, 140.0),
                // An envelope is around the document; how long it is depends on the time and the position.
                _ => assert!((200.0..260.0).contains(&frame_bytes), "{frame_bytes}"),
            }
            group.throughput(Throughput::Elements(u64::from(subscribers) * u64::from(events)));
            group.bench_function(format!("{subscribers} subscribers"), |bencher| {
                bencher.iter(|| world.turn(events, qos));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = fan_out
}
criterion_main!(benches);
