//! Any bytes as MQTT packets of both versions: no panic, no packet out of a part of one, and what a server passes on of a
//! message is read back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tablecast::protocol::mqtt::packet::{Packet, Publish, PublishHead, Version, decode, packet_length};
use tablecast::protocol::mqtt::property::{Properties, content_type_of, payload_format_of, without_format};

const MAX: usize = 1 << 20;

/// All that can be asked for.
fn look_at(p: &Properties<'_>) {
    let numbers = [
        p.message_expiry_interval(),
        p.subscription_identifier(),
        p.session_expiry_interval(),
        p.maximum_packet_size(),
        p.will_delay_interval(),
        p.receive_maximum().map(u32::from),
        p.topic_alias_maximum().map(u32::from),
        p.topic_alias().map(u32::from),
        p.request_problem_information().map(u32::from),
        p.request_response_information().map(u32::from),
    ];
    let texts = [p.content_type(), p.response_topic(), p.authentication_method(), p.reason_string(), p.user("k")];
    let given = p.payload_format().is_some()
        || p.correlation_data().is_some()
        || numbers.iter().any(Option::is_some)
        || texts.iter().any(Option::is_some);
    assert!(!given || !p.is_empty());
}

/// The same message goes out, once as it was stored and once with its type given beside it.
fn pass_on(publish: &Publish<'_>) {
    let p = &publish.properties;
    let mut stored = Vec::new();
    p.forwarded(&mut stored);
    assert_eq!((payload_format_of(&stored), content_type_of(&stored)), (p.payload_format(), p.content_type()));
    let verbatim = PublishHead {
        version: Version::V5,
        qos: publish.qos,
        dup: publish.dup,
        retain: publish.retain,
        topic: (publish.topic, "", ""),
        topic_alias: p.topic_alias(),
        payload_format: None,
        content_type: None,
        message_expiry: p.message_expiry_interval(),
        properties: &stored,
        subscription_identifiers: &[],
        payload_bytes: publish.payload.len(),
    };
    let given = PublishHead {
        payload_format: p.payload_format(),
        content_type: p.content_type(),
        properties: without_format(&stored),
        ..verbatim
    };
    for head in [verbatim, given] {
        let mut out = Vec::new();
        let at = head.write(&mut out);
        assert_eq!(at.is_some(), publish.qos > 0);
        if let Some(at) = at {
            out[at..at + 2].copy_from_slice(&publish.packet_id.to_be_bytes());
        }
        out.extend_from_slice(publish.payload);
        assert_eq!(out.len(), head.packet_bytes());
        let Ok(Some((Packet::Publish(again), _))) = decode(&out, Version::V5, usize::MAX) else { panic!("{out:x?}") };
        let q = &again.properties;
        let message = |publish: &Publish<'_>| (publish.qos, publish.dup, publish.retain, publish.packet_id);
        assert_eq!(message(&again), message(publish));
        assert_eq!((again.topic, again.payload), (publish.topic, publish.payload));
        assert_eq!((q.payload_format(), q.content_type()), (p.payload_format(), p.content_type()));
        assert_eq!((q.response_topic(), q.correlation_data()), (p.response_topic(), p.correlation_data()));
        assert_eq!((q.topic_alias(), q.message_expiry_interval()), (p.topic_alias(), p.message_expiry_interval()));
        let mut once_more = Vec::new();
        q.forwarded(&mut once_more);
        assert_eq!(once_more, stored);
    }
}

fn read(bytes: &[u8], version: Version) {
    let Ok(Some((packet, length))) = decode(bytes, version, MAX) else { return };
    assert_eq!(packet_length(bytes, MAX), Ok(Some(length)));
    assert_eq!(decode(&bytes[..length - 1], version, MAX), Ok(None));
    match &packet {
        Packet::Connect(connect) => {
            look_at(&connect.properties);
            connect.will.iter().for_each(|will| look_at(&will.properties));
        }
        Packet::Publish(publish) => {
            look_at(&publish.properties);
            pass_on(publish);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            look_at(&ack.properties);
        }
        Packet::Subscribe { properties, filters, .. } => {
            look_at(properties);
            assert!(!filters.is_empty());
        }
        Packet::Unsubscribe { properties, filters, .. } => {
            look_at(properties);
            assert!(!filters.is_empty());
        }
        Packet::Disconnect { properties, .. } | Packet::Auth { properties, .. } => look_at(properties),
        Packet::PingReq => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, content)) = bytes.split_first() else { return };
    let stored = without_format(content);
    assert!(content.ends_with(stored));
    let _ = (content_type_of(content), payload_format_of(content));
    // As they are, and as the content behind a sound length, so that the content is reached.
    let length = [content.len() as u8 & 0x7f | 0x80, (content.len() >> 7) as u8 & 0x7f];
    let length = if content.len() < 0x80 { &[content.len() as u8][..] } else { &length };
    let whole = [&[*first], length, content].concat();
    for version in [Version::V4, Version::V5] {
        read(bytes, version);
        read(&whole, version);
    }
});
