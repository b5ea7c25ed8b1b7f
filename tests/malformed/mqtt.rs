//! MQTT packets that no client may send, and those that this server refuses. Clauses are those of MQTT 5, or with
//! `3.1.1` those of MQTT 3.1.1.

use crate::common::wire::{
    Mqtt, connect, connect_as, no_properties, packet, puback, publish, subscribe, text, trickle, unsubscribe,
};
use crate::common::{Connection, Options};
use crate::{Bystander, each, to_close};

/// What must come back.
#[derive(Clone, Debug)]
enum Answer {
    /// The connection is closed without a word (all that 3.1.1 has).
    Closed,
    /// CONNACK with this code, then the end.
    Refused(u8),
    /// DISCONNECT with this reason, then the end (MQTT 5).
    Disconnect(u8),
    /// Exactly these bytes at first, and the connection goes on.
    Bytes(Vec<u8>),
}

use Answer::{Bytes, Closed, Disconnect, Refused};

struct Case {
    name: &'static str,
    level: u8,
    /// Whether a CONNECT comes first.
    connected: bool,
    bytes: Vec<u8>,
    answer: Answer,
}

fn fresh(name: &'static str, level: u8, bytes: Vec<u8>, answer: Answer) -> Case {
    Case { name, level, connected: false, bytes, answer }
}

fn after_connect(name: &'static str, level: u8, bytes: Vec<u8>, answer: Answer) -> Case {
    Case { name, level, connected: true, bytes, answer }
}

/// The same bytes in both versions; version 5 says why.
fn both(name: &'static str, bytes: impl Fn(u8) -> Vec<u8>, reason: u8) -> [Case; 2] {
    [after_connect(name, 4, bytes(4), Closed), after_connect(name, 5, bytes(5), Disconnect(reason))]
}

/// CONNECT of version 5 with a property list.
fn connect_with(list: &[u8]) -> Vec<u8> {
    connect(5, 2, 60, &[&[list.len() as u8][..], list, &text("p")].concat())
}

/// PUBLISH of version 5, QoS 0, with a property list.
fn publish_with(list: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text("Sensors/p")[..], &[list.len() as u8], list, b"{}"].concat())
}

/// SUBSCRIBE of version 5 with a property list.
fn subscribe_with(list: &[u8]) -> Vec<u8> {
    packet(0x82, &[&[0, 1, list.len() as u8][..], list, &text("Sensors/p"), &[0]].concat())
}

fn suback(level: u8, codes: &[u8]) -> Answer {
    Bytes(packet(0x90, &[&[0, 1][..], &no_properties(level), codes].concat()))
}

fn connect_cases() -> Vec<Case> {
    let v4 = |flags: u8, rest: &[&[u8]]| connect(4, flags, 60, &[&text("c")[..], &rest.concat()].concat());
    let v5 = |flags: u8, rest: &[&[u8]]| connect(5, flags, 60, &[&[0][..], &text("c"), &rest.concat()].concat());
    let named = |name: &str, level: u8| packet(0x10, &[&text(name)[..], &[level, 2, 0, 60], &text("c")].concat());
    let will = [&text("Sensors/w")[..], &text("{}")].concat();
    vec![
        fresh("[MQTT-3.1.0-1] first packet PINGREQ", 4, vec![0xc0, 0], Closed),
        fresh("[MQTT-3.1.0-1] first packet PUBLISH", 4, publish(4, "Sensors/a", b"{}", (0, false), 0), Closed),
        fresh("[MQTT-3.1.0-1] first packet SUBSCRIBE", 4, subscribe(4, 1, &[("Sensors/a", 0)]), Closed),
        fresh("[MQTT-3.1.0-1] HTTP on the MQTT port", 4, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Closed),
        after_connect("[MQTT-3.1.0-2] second CONNECT", 4, connect_as(4, "again"), Closed),
        after_connect("[MQTT-3.1.0-2] second CONNECT", 5, connect_as(5, "again"), Disconnect(0x82)),
        fresh("[MQTT-2.1.3-1] CONNECT with fixed header flags", 4, vec![0x11, 2, 0, 0], Closed),
        fresh("[MQTT-3.1.2-1] protocol name MQTX", 4, named("MQTX", 4), Refused(1)),
        fresh("[MQTT-3.1.2-1] protocol name MQIsdp (3.1)", 4, named("MQIsdp", 3), Bytes(vec![0x20, 2, 0, 0])),
        fresh("[MQTT-3.1.2-1] protocol name MQIsdp, level 4", 4, named("MQIsdp", 4), Refused(1)),
        fresh("[MQTT-3.1.2-2] protocol level 3", 4, named("MQTT", 3), Refused(1)),
        fresh("[MQTT-3.1.2-2] protocol level 6", 4, named("MQTT", 6), Refused(1)),
        fresh("[MQTT-3.1.2-2] protocol level 0x84 (bridge)", 4, named("MQTT", 0x84), Refused(1)),
        fresh("[MQTT-3.1.2-3] reserved CONNECT flag", 4, v4(3, &[]), Closed),
        fresh("[MQTT-3.1.2-3] reserved CONNECT flag", 5, v5(3, &[]), Refused(0x81)),
        fresh("[MQTT-3.1.2-11] will QoS without a will", 4, v4(0x0a, &[]), Closed),
        fresh("[MQTT-3.1.2-11] will QoS without a will", 5, v5(0x0a, &[]), Refused(0x81)),
        fresh("[MQTT-3.1.2-12] will QoS 3", 4, v4(0x1e, &[&will]), Closed),
        fresh("[MQTT-3.1.2-12] will QoS 3", 5, v5(0x1e, &[&[0], &will]), Refused(0x81)),
        fresh("[MQTT-3.1.2-13] will retain without a will", 4, v4(0x22, &[]), Closed),
        fresh("[MQTT-3.1.2-13] will retain without a will", 5, v5(0x22, &[]), Refused(0x81)),
        fresh("[MQTT-3.1.3-10] will flag, no will in the payload", 4, v4(0x06, &[]), Closed),
        fresh("[MQTT-3.1.3-11] will topic is not UTF-8", 4, v4(0x06, &[&text(b"\xff"), &text("")]), Closed),
        fresh(
            "[MQTT-4.7.1-1] wildcard in the will topic",
            5,
            v5(6, &[&[0], &text("Sensors/#"), &text("")]),
            Refused(0x90),
        ),
        fresh("3.1.1 [MQTT-3.1.2-22] password without user name", 4, v4(0x42, &[&text("p")]), Closed),
        fresh("[MQTT-3.1.3-12] user name is not UTF-8", 5, v5(0x82, &[&text(b"\xc3\x28")]), Refused(0x81)),
        fresh("[MQTT-3.1.3-4] client id is not UTF-8", 4, connect(4, 2, 60, &text(b"\xc0\x80")), Closed),
        fresh("[MQTT-1.5.4-1] surrogate in the client id", 4, connect(4, 2, 60, &text(b"\xed\xa0\x80")), Closed),
        fresh(
            "[MQTT-1.5.4-2] U+0000 in the client id",
            5,
            connect(5, 2, 60, &[&[0][..], &text("a\0b")].concat()),
            Refused(0x81),
        ),
        fresh("a client id with a wildcard", 4, connect_as(4, "a/#"), Refused(2)),
        fresh("a client id with a wildcard", 5, connect_as(5, "+"), Refused(0x85)),
        fresh("3.1.1 [MQTT-3.1.3-8] clean session 0 without a client id", 4, connect(4, 0, 60, &text("")), Refused(2)),
        fresh("[MQTT-3.1.3-1] CONNECT without a client id field", 4, connect(4, 2, 60, &[]), Closed),
        fresh("bytes after the payload of CONNECT", 4, v4(2, &[b"x"]), Closed),
        fresh("bytes after the payload of CONNECT", 5, v5(2, &[b"x"]), Refused(0x81)),
        fresh("[MQTT-1.5.5-1] remaining length of five bytes", 4, vec![0x10, 0xff, 0xff, 0xff, 0xff, 1], Closed),
        fresh("[MQTT-1.5.5-1] remaining length longer than needed", 4, vec![0x10, 0x80, 0], Closed),
        fresh(
            "[MQTT-4.12.0-1] authentication method",
            5,
            connect_with(&[&[21][..], &text("SCRAM")].concat()),
            Refused(0x8c),
        ),
        fresh("receive maximum 0 (3.1.2.11.3)", 5, connect_with(&[33, 0, 0]), Refused(0x82)),
        fresh("maximum packet size 0 (3.1.2.11.4)", 5, connect_with(&[39, 0, 0, 0, 0]), Refused(0x82)),
        fresh(
            "session expiry given twice (3.1.2.11.2)",
            5,
            connect_with(&[17, 0, 0, 0, 0, 17, 0, 0, 0, 0]),
            Refused(0x82),
        ),
        fresh("request problem information 2 (3.1.2.11.7)", 5, connect_with(&[23, 2]), Refused(0x82)),
        fresh("property of another packet (2.2.2.2)", 5, connect_with(&[35, 0, 1]), Refused(0x81)),
        fresh("unknown property 0x7f (2.2.2.2)", 5, connect_with(&[0x7f]), Refused(0x81)),
        fresh("a property list that is longer than the packet", 5, connect(5, 2, 60, &[0x20, 17]), Refused(0x81)),
        fresh("larger than the server accepts, before CONNECT", 4, vec![0x10, 0xff, 0xff, 0xff, 0x7f], Closed),
    ]
}

fn packet_cases() -> Vec<Case> {
    let mut all = Vec::new();
    let topic = |name: &'static str| move |level: u8| publish(level, name, b"{}", (0, false), 0);
    let raw_topic =
        |bytes: &'static [u8]| move |level: u8| packet(0x30, &[&text(bytes)[..], &no_properties(level)].concat());
    let filter = |name: &'static str| move |level: u8| subscribe(level, 1, &[(name, 0)]);
    let raw = |bytes: &'static [u8]| move |_: u8| bytes.to_vec();
    all.extend(both("[MQTT-2.1.3-1] PINGREQ with flags", raw(&[0xc1, 0]), 0x81));
    all.extend(both("[MQTT-2.1.3-1] DISCONNECT with flags", raw(&[0xe2, 0]), 0x81));
    all.extend(both("[MQTT-3.8.1-1] SUBSCRIBE with flags 0", raw(&[0x80, 5, 0, 1, 0, 0, 0]), 0x81));
    all.extend(both("[MQTT-3.10.1-1] UNSUBSCRIBE with flags 0", raw(&[0xa0, 2, 0, 1]), 0x81));
    all.extend(both("[MQTT-3.6.1-1] PUBREL with flags 0", raw(&[0x60, 2, 0, 1]), 0x81));
    all.extend(both("[MQTT-2.1.3-1] PUBACK with flags", raw(&[0x42, 2, 0, 1]), 0x81));
    all.extend(both("packet type 0 (2.1.2)", raw(&[0x00, 0]), 0x81));
    all.extend(both("CONNACK from a client", raw(&[0x20, 2, 0, 0]), 0x82));
    all.extend(both("SUBACK from a client", raw(&[0x90, 3, 0, 1, 0]), 0x82));
    all.extend(both("UNSUBACK from a client", raw(&[0xb0, 2, 0, 1]), 0x82));
    all.extend(both("PINGRESP from a client", raw(&[0xd0, 0]), 0x82));
    for (level, code) in [(4, &[][..]), (5, &[0x92, 0][..])] {
        let answer = |first: u8| Bytes(packet(first, &[&[0, 1][..], code].concat()));
        all.push(after_connect("[MQTT-4.3.3-7] PUBREC for nothing", level, vec![0x50, 2, 0, 1], answer(0x62)));
        all.push(after_connect("[MQTT-4.3.3-11] PUBREL for nothing", level, vec![0x62, 2, 0, 1], answer(0x70)));
        let then_ping = vec![0x70, 2, 0, 1, 0x40, 2, 0, 1, 0xc0, 0];
        all.push(after_connect("PUBCOMP and PUBACK for nothing", level, then_ping, Bytes(vec![0xd0, 0])));
    }
    all.extend(both("PINGREQ with a body", raw(&[0xc0, 1, 0]), 0x81));
    all.extend(both("[MQTT-1.5.5-1] remaining length of five bytes", raw(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]), 0x81));
    all.extend(both("[MQTT-1.5.5-1] remaining length longer than needed", raw(&[0xc0, 0x80, 0]), 0x81));
    all.extend(both("[MQTT-3.3.1-4] QoS 3", raw(&[0x36, 5, 0, 1, b'a', 0, 1]), 0x81));
    all.extend(both("[MQTT-3.3.1-2] DUP with QoS 0", raw(&[0x38, 3, 0, 1, b'a']), 0x81));
    all.extend(both("[MQTT-2.2.1-3] PUBLISH with packet id 0", |level| publish(level, "a", b"", (1, false), 0), 0x82));
    all.extend(both("[MQTT-2.2.1-3] SUBSCRIBE with packet id 0", |level| subscribe(level, 0, &[("a", 0)]), 0x82));
    all.extend(both("[MQTT-2.2.1-3] UNSUBSCRIBE with packet id 0", |level| unsubscribe(level, 0, "a"), 0x82));
    all.extend(both("PUBACK with packet id 0", |_| puback(0), 0x82));
    all.extend(both("[MQTT-3.3.2-1] topic is not UTF-8", raw_topic(b"\xff\xfe"), 0x81));
    all.extend(both("[MQTT-1.5.4-2] U+0000 in the topic", raw_topic(b"a\0b"), 0x81));
    all.extend(both("[MQTT-1.5.4-1] a surrogate in the topic", raw_topic(b"a\xed\xbf\xbf"), 0x81));
    all.extend(both("[MQTT-3.3.2-2] # in a topic name", topic("Sensors/#"), 0x90));
    all.extend(both("[MQTT-3.3.2-2] + in a topic name", topic("Sensors/+/a"), 0x90));
    all.extend(both("[MQTT-4.7.3-1] an empty topic name", topic(""), 0x82));
    all.extend(both("a PUBLISH that ends inside its topic", raw(&[0x30, 3, 0, 9, b'a']), 0x81));
    all.extend(both("a PUBLISH of QoS 1 that ends before its id", raw(&[0x32, 3, 0, 1, b'a']), 0x81));
    all.extend(both("[MQTT-3.8.3-2] SUBSCRIBE without a filter", |level| subscribe(level, 1, &[]), 0x82));
    let no_filter = |level| packet(0xa2, &[&[0, 1][..], &no_properties(level)].concat());
    all.extend(both("[MQTT-3.10.3-2] UNSUBSCRIBE without a filter", no_filter, 0x82));
    all.extend(both("[MQTT-3.8.3-4] SUBSCRIBE with QoS 3", |level| subscribe(level, 1, &[("a", 3)]), 0x81));
    all.extend(both("[MQTT-3.8.3-5] reserved subscription options", |level| subscribe(level, 1, &[("a", 0xc0)]), 0x81));
    let without_options = |level| packet(0x82, &[&[0, 1][..], &no_properties(level), &text("a")].concat());
    all.extend(both("a filter without options", without_options, 0x81));
    let not_utf8 = |level| packet(0x82, &[&[0, 1][..], &no_properties(level), &text(b"\xff"), &[0]].concat());
    all.extend(both("[MQTT-3.8.3-1] filter is not UTF-8", not_utf8, 0x81));
    all.extend(both("larger than the server accepts", raw(&[0x30, 0xff, 0xff, 0xff, 0x7f]), 0x95));
    for level in [4, 5] {
        let refused = |v5: u8| suback(level, &[if level == 5 { v5 } else { 0x80 }]);
        all.push(after_connect("[MQTT-4.7.1-1] # not last", level, filter("Sensors/#/a")(level), refused(0x8f)));
        all.push(after_connect("[MQTT-4.7.1-1] # inside a level", level, filter("Sensors/a#")(level), refused(0x8f)));
        all.push(after_connect("[MQTT-4.7.1-2] + inside a level", level, filter("Sensors/a+")(level), refused(0x8f)));
        all.push(after_connect("[MQTT-4.7.3-1] an empty filter", level, filter("")(level), refused(0x8f)));
        for (name, wrong) in [("no filter", "$share/group"), ("no name", "$share//a"), ("a wildcard", "$share/+/a")] {
            let name = Box::leak(format!("[MQTT-4.8.2-1] shared subscription: {name}").into_boxed_str());
            all.push(after_connect(name, level, filter(wrong)(level), refused(0x8f)));
        }
        let mixed = subscribe(level, 1, &[("Sensors/a", 1), ("Sensors/#/a", 1), ("Sensors/b", 2)]);
        let codes = [1, if level == 5 { 0x8f } else { 0x80 }, 2];
        all.push(after_connect("[MQTT-3.8.4-6] one wrong filter of three", level, mixed, suback(level, &codes)));
        let unknown = packet(0xb0, if level == 5 { &[0, 7, 0, 0x11] } else { &[0, 7] });
        let none = unsubscribe(level, 7, "Sensors/none");
        all.push(after_connect("[MQTT-3.10.4-5] UNSUBSCRIBE of nothing", level, none, Bytes(unknown)));
        let stray = [puback(99), vec![0xc0, 0]].concat();
        all.push(after_connect("a PUBACK for nothing is passed over", level, stray, Bytes(vec![0xd0, 0])));
    }
    all
}

fn version_5_cases() -> Vec<Case> {
    let case = |name, bytes, answer| after_connect(name, 5, bytes, answer);
    let wrong = |name, bytes| after_connect(name, 5, bytes, Disconnect(0x82));
    vec![
        case("[MQTT-3.3.2-8] topic alias 0", publish_with(&[35, 0, 0]), Disconnect(0x94)),
        case("[MQTT-3.3.2-9] topic alias above the maximum", publish_with(&[35, 0, 33]), Disconnect(0x94)),
        wrong("topic alias twice", publish_with(&[35, 0, 1, 35, 0, 1])),
        wrong("payload format indicator 2 (3.3.2.3.2)", publish_with(&[1, 2])),
        wrong("payload format indicator twice", publish_with(&[1, 1, 1, 1])),
        wrong("content type twice (3.3.2.3.9)", publish_with(&[3, 0, 1, b'a', 3, 0, 1, b'a'])),
        wrong("[MQTT-3.3.2-14] wildcard in the response topic", publish_with(&[8, 0, 1, b'#'])),
        case("[MQTT-3.3.4-6] subscription identifier in PUBLISH", publish_with(&[11, 1]), Disconnect(0x81)),
        case("receive maximum in PUBLISH", publish_with(&[33, 0, 9]), Disconnect(0x81)),
        case("a property that ends too early", publish_with(&[2, 0, 0]), Disconnect(0x81)),
        case("[MQTT-1.5.7-1] user property is not UTF-8", publish_with(&[38, 0, 1, 0xff, 0, 0]), Disconnect(0x81)),
        case("a property identifier of two bytes", publish_with(&[0x81, 1]), Disconnect(0x81)),
        wrong("subscription identifier 0 (3.8.2.1.2)", subscribe_with(&[11, 0])),
        case("content type in SUBSCRIBE", subscribe_with(&[3, 0, 1, b'a']), Disconnect(0x81)),
        wrong("retain handling 3 (3.8.3.1)", subscribe(5, 1, &[("Sensors/a", 0x30)])),
        wrong("[MQTT-3.14.2-2] DISCONNECT raises the session expiry", vec![0xe0, 7, 0, 5, 17, 0, 0, 0, 9]),
        case("server reference in DISCONNECT", vec![0xe0, 6, 0, 4, 28, 0, 1, b'a'], Disconnect(0x81)),
        wrong("[MQTT-4.12.0-1] AUTH without a method agreed upon", vec![0xf0, 0]),
        case("[MQTT-3.15.1-1] AUTH with flags", vec![0xf1, 0], Disconnect(0x81)),
        case("an unknown table is a code in PUBACK", publish(5, "$SYS/x", b"{}", (1, false), 9), Bytes(vec![0x40])),
    ]
}

/// Sends a case's bytes and compares what comes back.
fn run(case: &Case, addr: std::net::SocketAddr, send: fn(&mut Connection, &[u8])) -> Result<(), String> {
    let mut connection =
        if case.connected { Mqtt::open(addr, case.level, "").connection } else { Connection::open(addr) };
    send(&mut connection, &case.bytes);
    let seen = match &case.answer {
        Bytes(wanted) => {
            let got = connection.take(wanted.len()).map_err(|e| format!("{e}; got {:?}", connection.seen()))?;
            return if got == *wanted { Ok(()) } else { Err(format!("{got:02x?} instead of {wanted:02x?}")) };
        }
        _ => to_close(&mut connection)?,
    };
    let ok = match &case.answer {
        Closed => seen.is_empty(),
        // The code is the second byte of the body; nothing follows the packet.
        Refused(code) => seen.len() >= 4 && seen[0] == 0x20 && seen[3] == *code && seen[1] as usize + 2 == seen.len(),
        Disconnect(reason) => seen.len() >= 3 && (seen[0], seen[2]) == (0xe0, *reason),
        Bytes(_) => true,
    };
    if ok { Ok(()) } else { Err(format!("{seen:02x?} instead of {:02x?}", case.answer)) }
}

fn cases() -> Vec<Case> {
    [connect_cases(), packet_cases(), version_5_cases()].into_iter().flatten().collect()
}

fn name(case: &Case) -> String {
    format!("MQTT {}: {}", if case.level == 5 { "5" } else { "3.1.1" }, case.name)
}

#[test]
fn every_violation_has_its_answer() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.mqtt();
    let cases = cases();
    println!("{} cases", cases.len());
    each(&cases, 60, name, |case| run(case, addr, |connection, bytes| connection.send(bytes)));
    bystander.check();
}

/// [MQTT-6.0.0-2] in spirit: where a packet is cut means nothing.
#[test]
fn byte_at_a_time_equals_whole() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.mqtt();
    // After the byte that gives it away a violation is answered at once; sending on may then meet a closed socket.
    let whole_first = |case: &&Case| matches!(case.answer, Bytes(_) | Disconnect(0x82 | 0x90 | 0x9b));
    let cases: Vec<Case> = cases().into_iter().filter(|case| whole_first(&case) && case.bytes.len() < 64).collect();
    each(&cases, 20, name, |case| run(case, addr, trickle));
    let mut mqtt = Mqtt { connection: Connection::open(addr), level: 5 };
    trickle(&mut mqtt.connection, &connect_as(5, "slow"));
    assert_eq!(mqtt.expect().1[1], 0);
    trickle(&mut mqtt.connection, &subscribe(5, 1, &[("Sensors/slow", 0)]));
    assert_eq!(mqtt.expect().0, 0x90);
    trickle(&mut mqtt.connection, &publish(5, "Sensors/slow", b"{\"n\":1}", (0, true), 0));
    assert_eq!(mqtt.expect_message().payload, br#"{"n":1,"id":"slow"}"#);
    bystander.check();
}

/// A packet that never ends, at every length, then the end of the connection.
#[test]
fn truncated_packets_harm_nobody() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.mqtt();
    for level in [4, 5] {
        let whole = [connect_as(level, "cut"), publish(level, "Sensors/cut", b"{\"cut\":1}", (1, true), 1)].concat();
        for length in 0..whole.len() {
            let mut connection = Connection::open(addr);
            connection.send(&whole[..length]);
            connection.stream().shutdown(std::net::Shutdown::Write).expect("shut down");
            let seen = to_close(&mut connection).unwrap_or_else(|why| panic!("{length} bytes of level {level}: {why}"));
            assert!(seen.is_empty() || seen[0] == 0x20, "{length} bytes: {seen:02x?}");
        }
    }
    assert_eq!(crate::common::get(bystander.server.http(), "/Sensors/cut").status, 404, "nothing was stored");
    bystander.check();
}

/// [MQTT-3.8.4-3], [MQTT-3.8.4-5]: a filter that one SUBSCRIBE names twice is answered twice and subscribed once.
#[test]
fn a_filter_given_twice_is_one_subscription() {
    let mut bystander = Bystander::new(Options::default().shards(4));
    let addr = bystander.server.mqtt();
    for level in [4, 5] {
        let mut client = Mqtt::open(addr, level, &format!("twice{level}"));
        assert_eq!(client.subscribe(7, &[("Sensors/+", 0), ("Sensors/+", 1)]), [0, 1]);
        Mqtt::open(addr, level, "writer").put(&format!("Sensors/twice{level}"), b"{}", 1);
        while client.expect_message().topic != format!("Sensors/twice{level}") {}
        client.connection.send(&[0xc0, 0]);
        assert_eq!(client.expect(), (0xd0, Vec::new()), "nothing came twice");
    }
    bystander.check();
}
