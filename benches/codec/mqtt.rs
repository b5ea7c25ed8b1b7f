//! Our MQTT codec beside `mqttbytes` and that of `rumqttc`, interleaved in one run: nanoseconds per packet, each in the
//! best of many short rounds (what else the machine does can only make a round longer). What is read lies in a buffer already: theirs take packets out of a buffer that owns them, and
//! filling it is not counted. What is written goes into a buffer with room for it.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4 as rumqttc4;
use rumqttc::v5::mqttbytes::v5 as rumqttc5;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tablecast::protocol::mqtt::packet::{
    AckKind, ConnAck, PublishHead, Version, decode, write_ack, write_connack, write_disconnect, write_pingresp,
    write_suback, write_unsuback,
};

const MAX: usize = 1 << 20;
const PAYLOAD: &[u8] = &[b'x'; 128];
/// Packets in a buffer.
const PACKETS: u32 = 64;
const BUFFERS: u32 = 50;
const ROUNDS: usize = 100;

fn packet(first: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let (low, high) = (content.len() & 0x7f, content.len() >> 7);
    let mut bytes = if high > 0 { vec![first, low as u8 | 0x80, high as u8] } else { vec![first, low as u8] };
    bytes.extend_from_slice(&content);
    bytes
}

/// Reads or writes all packets of a buffer and says how long that took.
type Contender<'a> = (&'static str, Box<dyn FnMut() -> Duration + 'a>);

/// What each takes per packet, in nanoseconds.
fn best(contenders: &mut [Contender<'_>]) -> Vec<f64> {
    let mut best = vec![Duration::MAX; contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, contender), best) in contenders.iter_mut().zip(&mut best) {
            *best = (*best).min((0..BUFFERS).map(|_| contender()).sum());
        }
    }
    best.into_iter().map(|time| time.as_nanos() as f64 / f64::from(BUFFERS * PACKETS)).collect()
}

fn print(name: &str, mut contenders: Vec<Contender<'_>>) {
    let best = best(&mut contenders);
    print!("{name:44} {:6.1}", best[0]);
    for ((contender, _), time) in contenders.iter().zip(&best).skip(1) {
        print!("   {contender} {time:6.1} ({:4.1} x)", time / best[0]);
    }
    println!();
}

fn reading<'a>(bytes: &'a [u8], mut read: impl FnMut(&mut BytesMut) + 'a) -> Box<dyn FnMut() -> Duration + 'a> {
    Box::new(move || {
        let mut stream = BytesMut::from(bytes);
        let started = Instant::now();
        for _ in 0..PACKETS {
            read(black_box(&mut stream));
        }
        started.elapsed()
    })
}

fn writing<'a>(mut write: impl FnMut(&mut BytesMut) + 'a) -> Box<dyn FnMut() -> Duration + 'a> {
    let mut stream = BytesMut::with_capacity(1 << 16);
    Box::new(move || {
        stream.clear();
        let started = Instant::now();
        for _ in 0..PACKETS {
            write(black_box(&mut stream));
        }
        started.elapsed()
    })
}

fn compare_reading(name: &str, version: Version, packet: &[u8]) {
    let bytes = packet.repeat(PACKETS as usize);
    let ours = || {
        let started = Instant::now();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match &decode(black_box(rest), version, MAX) {
                Ok(Some((packet, length))) => {
                    black_box(packet);
                    rest = &rest[*length..];
                }
                other => unreachable!("{other:?}"),
            }
        }
        started.elapsed()
    };
    let max = Some(MAX as u32);
    let mut contenders: Vec<Contender<'_>> = vec![("ours", Box::new(ours))];
    match version {
        Version::V4 => {
            let read = |stream: &mut BytesMut| _ = black_box(mqttbytes::v4::read(stream, MAX).unwrap());
            contenders.push(("mqttbytes", reading(&bytes, read)));
            let read = |stream: &mut BytesMut| _ = black_box(rumqttc4::Packet::read(stream, MAX).unwrap());
            contenders.push(("rumqttc", reading(&bytes, read)));
        }
        Version::V5 => {
            let read = |stream: &mut BytesMut| _ = black_box(mqttbytes::v5::read(stream, MAX).unwrap());
            // It prints each UNSUBSCRIBE, and knows no DISCONNECT without content.
            if ![0xa2, 0xe0].contains(&packet[0]) {
                contenders.push(("mqttbytes", reading(&bytes, read)));
            }
            let read = |stream: &mut BytesMut| _ = black_box(rumqttc5::Packet::read(stream, max).unwrap());
            contenders.push(("rumqttc", reading(&bytes, read)));
        }
    }
    print(name, contenders);
}

/// The others write what they have read of ours.
fn compare_writing(name: &str, version: Version, write: impl Fn(&mut Vec<u8>)) {
    let mut out = Vec::with_capacity(1 << 16);
    write(&mut out);
    let packet = BytesMut::from(&out[..]);
    let ours = || {
        out.clear();
        let started = Instant::now();
        for _ in 0..PACKETS {
            write(black_box(&mut out));
        }
        started.elapsed()
    };
    macro_rules! writing_of {
        ($module:ident: $($kind:ident)*) => {
            match mqttbytes::$module::read(&mut packet.clone(), MAX).unwrap() {
                $(mqttbytes::$module::Packet::$kind(packet) => writing(move |stream| {
                    black_box(&packet).write(stream).unwrap();
                }),)*
                mqttbytes::$module::Packet::PingResp => writing(|stream| {
                    mqttbytes::$module::PingResp.write(stream).unwrap();
                }),
                other => unreachable!("{other:?} is not compared"),
            }
        };
    }
    let mut contenders: Vec<Contender<'_>> = vec![("ours", Box::new(ours))];
    match version {
        Version::V4 => {
            contenders
                .push(("mqttbytes", writing_of!(v4: ConnAck Publish PubAck PubRec PubRel PubComp SubAck UnsubAck)));
            let packet = rumqttc4::Packet::read(&mut packet.clone(), MAX).unwrap();
            contenders.push(("rumqttc", writing(move |stream| _ = black_box(&packet).write(stream, MAX).unwrap())));
        }
        Version::V5 => {
            let written = writing_of!(v5: ConnAck Publish PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect);
            contenders.push(("mqttbytes", written));
            let packet = rumqttc5::Packet::read(&mut packet.clone(), Some(MAX as u32)).unwrap();
            let max = Some(MAX as u32);
            contenders.push(("rumqttc", writing(move |stream| _ = black_box(&packet).write(stream, max).unwrap())));
        }
    }
    print(name, contenders);
}

/// Content type, a user property, expiry, payload format: 4 properties.
const PROPERTIES: &[u8] = b"\x23\x03\0\x10application/json\x26\0\x01k\0\x01v\x02\0\0\0\x3c\x01\x01";
const RETURNED: &[u8] = b"\x08\0\x07replies\x09\0\x04\x01\x02\x03\x04\x26\0\x05trace\0\x081a2b3c4d";

pub fn compare() {
    use Version::{V4, V5};
    let properties = [&[PROPERTIES.len() as u8 - 1], &PROPERTIES[1..]].concat();
    println!("MQTT, reading: ns per packet");
    compare_reading("CONNECT 3.1.1", V4, &packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3c\0\x0aclient-001"]));
    let connect: [&[u8]; 2] =
        [b"\0\x04MQTT\x05\xc2\0\x3c\x08\x11\0\0\0\x3c\x21\0\x14", b"\0\x0aclient-001\0\x01u\0\x01p"];
    compare_reading("CONNECT 5, 2 properties, user and password", V5, &packet(0x10, &connect));
    for qos in 0..3u8 {
        let (first, id): (u8, &[u8]) = (0x30 | qos << 1, if qos > 0 { b"\0\x01" } else { b"" });
        let topic = b"\0\x0bSensors/101";
        let name = |rest: &str| format!("PUBLISH {rest}QoS {qos}");
        compare_reading(&name("3.1.1 "), V4, &packet(first, &[topic, id, PAYLOAD]));
        compare_reading(&name("5 "), V5, &packet(first, &[topic, id, b"\0", PAYLOAD]));
        compare_reading(&name("5, 4 properties, "), V5, &packet(first, &[topic, id, &properties, PAYLOAD]));
    }
    let alias: [&[u8]; 2] = [b"\0\0\0\x01\x03\x23\0\x07", PAYLOAD];
    compare_reading("PUBLISH 5, topic alias, QoS 1", V5, &packet(0x32, &alias));
    let long: [&[u8]; 2] = [b"\0\x3cplants/north/hall-4/line-17/machine-0042/sensors/temperature", PAYLOAD];
    compare_reading("PUBLISH 3.1.1, topic of 60 bytes, QoS 0", V4, &packet(0x30, &long));
    compare_reading("PUBACK 3.1.1", V4, &packet(0x40, &[b"\0\x01"]));
    compare_reading("PUBACK 5", V5, &packet(0x40, &[b"\0\x01"]));
    compare_reading("PUBREC 5, reason code", V5, &packet(0x50, &[b"\0\x01\x10\0"]));
    compare_reading("PUBREL 3.1.1", V4, &packet(0x62, &[b"\0\x01"]));
    compare_reading("PUBCOMP 5", V5, &packet(0x70, &[b"\0\x01"]));
    compare_reading("SUBSCRIBE 3.1.1, 1 filter", V4, &packet(0x82, &[b"\0\x01\0\x09Sensors/#\x01"]));
    let filters: [&[u8]; 2] =
        [b"\0\x01\x02\x0b\x07\0\x09Sensors/#\x01\0\x09Sensors/+\x02", b"\0\x07Rooms/1\0\0\x07Rooms/2\0"];
    compare_reading("SUBSCRIBE 5, identifier, 4 filters", V5, &packet(0x82, &filters));
    compare_reading("UNSUBSCRIBE 3.1.1, 1 filter", V4, &packet(0xa2, &[b"\0\x01\0\x09Sensors/#"]));
    compare_reading("UNSUBSCRIBE 5, 1 filter", V5, &packet(0xa2, &[b"\0\x01\0\0\x09Sensors/#"]));
    compare_reading("PINGREQ", V4, &packet(0xc0, &[]));
    compare_reading("DISCONNECT 5, reason code", V5, &packet(0xe0, &[b"\x04\0"]));

    println!("MQTT, writing: ns per packet");
    let accepted = ConnAck {
        receive_maximum: Some(64),
        maximum_packet_size: Some(1 << 20),
        assigned_client_id: Some("0123456789abcdef0123456789abcdef"),
        ..ConnAck::default()
    };
    compare_writing("CONNACK 3.1.1", V4, |out| write_connack(V4, black_box(&accepted), out));
    compare_writing("CONNACK 5, 3 properties", V5, |out| write_connack(V5, black_box(&accepted), out));
    let plain = PublishHead {
        version: V4,
        qos: 0,
        dup: false,
        retain: false,
        topic: ("Sensors", "/", "101"),
        topic_alias: None,
        payload_format: None,
        content_type: None,
        message_expiry: None,
        properties: &[],
        subscription_identifiers: &[],
        payload_bytes: PAYLOAD.len(),
    };
    let rich = PublishHead {
        version: V5,
        payload_format: Some(1),
        content_type: Some("application/json"),
        message_expiry: Some(60),
        properties: RETURNED,
        subscription_identifiers: &[7],
        ..plain
    };
    for qos in 0..3 {
        let write = |head: PublishHead<'static>| {
            move |out: &mut Vec<u8>| {
                if let Some(at) = black_box(&head).write(out) {
                    out[at + 1] = 1;
                }
                out.extend_from_slice(black_box(PAYLOAD));
            }
        };
        compare_writing(&format!("PUBLISH 3.1.1 QoS {qos}"), V4, write(PublishHead { qos, ..plain }));
        compare_writing(&format!("PUBLISH 5 QoS {qos}"), V5, write(PublishHead { version: V5, qos, ..plain }));
        compare_writing(&format!("PUBLISH 5, 7 properties, QoS {qos}"), V5, write(PublishHead { qos, ..rich }));
    }
    for (name, kind) in [("PUBACK", AckKind::PubAck), ("PUBREL", AckKind::PubRel)] {
        compare_writing(&format!("{name} 3.1.1"), V4, |out| write_ack(kind, V4, black_box(1), 0, None, out));
        compare_writing(&format!("{name} 5"), V5, |out| write_ack(kind, V5, black_box(1), 0, None, out));
    }
    let text = Some("the outbox is full");
    compare_writing("PUBACK 5, reason string", V5, |out| write_ack(AckKind::PubAck, V5, black_box(1), 0x97, text, out));
    compare_writing("SUBACK 3.1.1", V4, |out| write_suback(V4, 1, black_box(&[1]), out));
    compare_writing("SUBACK 5", V5, |out| write_suback(V5, 1, black_box(&[1]), out));
    compare_writing("UNSUBACK 5", V5, |out| write_unsuback(V5, 1, black_box(&[0]), out));
    compare_writing("PINGRESP", V4, write_pingresp);
    compare_writing("DISCONNECT 5, reason string", V5, |out| write_disconnect(black_box(0x8d), text, out));
}
