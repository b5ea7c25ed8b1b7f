//! WebSocket frames and handshakes that no client may send (RFC 6455), and what the server owes a good one.

use crate::common::wire::{Mqtt, WebSocket, connect_as, frame, handshake, trickle};
use crate::common::{Connection, Options};
use crate::{Bystander, each, to_close};
use std::net::SocketAddr;

/// The close code that must come, or the status of a refused handshake.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    code: u16,
}

fn case(name: &'static str, bytes: Vec<u8>, code: u16) -> Case {
    Case { name, bytes, code }
}

fn frames() -> Vec<Case> {
    let mut unmasked = frame(0x81, b"hi");
    unmasked[1] &= 0x7f;
    let status = |code: u16| code.to_be_bytes().to_vec();
    let reason = |code: u16, text: &[u8]| frame(0x88, &[&status(code)[..], text].concat());
    vec![
        case("5.1 an unmasked frame", unmasked, 1002),
        case("5.2 reserved bit 1", frame(0xc1, b""), 1002),
        case("5.2 reserved bit 2", frame(0xa1, b""), 1002),
        case("5.2 reserved bit 3", frame(0x91, b""), 1002),
        case("5.2 reserved opcode 3", frame(0x83, b""), 1002),
        case("5.2 reserved opcode 7", frame(0x87, b""), 1002),
        case("5.2 reserved control opcode 11", frame(0x8b, b""), 1002),
        case("5.2 reserved control opcode 15", frame(0x8f, b""), 1002),
        case("5.2 a length of 5 in two bytes", vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
        case("5.2 a length of 5 in eight bytes", vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0], 1002),
        case("5.2 the top bit of a length", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        case("7.4.1 a message of 2 MiB", vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0], 1009),
        case("5.5 a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        case("5.5 a close frame of 126 bytes", frame(0x88, &[3; 126]), 1002),
        case("5.5 a fragmented ping", frame(0x09, b""), 1002),
        case("5.4 a continuation of nothing", frame(0x80, b"x"), 1002),
        case("5.4 a new message inside a fragmented one", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        case("8.1 text is not UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        case("8.1 text is cut inside a character", frame(0x81, b"\xe2\x82"), 1007),
        case("8.1 a surrogate in text", frame(0x81, b"\xed\xa0\x80"), 1007),
        case("8.1 fragments make bad UTF-8", [frame(0x01, b"\xe2"), frame(0x80, b"\x28\xa1")].concat(), 1007),
        case("8.1 a fragment that no other can mend", frame(0x01, b"\xf4\x90"), 1007),
        case("8.1 the same in a frame that has not come whole", frame(0x81, b"\xf4\x90 and more")[..8].to_vec(), 1007),
        case("5.5.1 a close code of one byte", frame(0x88, &[3]), 1002),
        case("7.4.2 close code 999", reason(999, b""), 1002),
        case("7.4.1 close code 1004", reason(1004, b""), 1002),
        case("7.4.1 close code 1005", reason(1005, b""), 1002),
        case("7.4.1 close code 1006", reason(1006, b""), 1002),
        case("7.4.1 close code 1015", reason(1015, b""), 1002),
        case("7.4.2 close code 2999", reason(2999, b""), 1002),
        case("7.4.2 close code 5000", reason(5000, b""), 1002),
        case("5.5.1 a close reason that is not UTF-8", reason(1000, b"\xff"), 1007),
        case("5.5.1 close without a code", frame(0x88, b""), 1000),
        case("5.5.1 close 1000 is echoed", reason(1000, b"bye"), 1000),
        case("5.5.1 close 1001 is echoed", reason(1001, b""), 1001),
        case("7.4.2 close 3000 is echoed", reason(3000, b""), 3000),
        case("7.4.2 close 4999 is echoed", reason(4999, b"app"), 4999),
    ]
}

fn run(case: &Case, addr: SocketAddr, send: fn(&mut Connection, &[u8])) -> Result<(), String> {
    let mut web_socket = WebSocket::open(addr, "/Sensors/none");
    send(&mut web_socket.connection, &case.bytes);
    let (code, reason) = web_socket.expect_close();
    let rest = to_close(&mut web_socket.connection)?;
    match (code, rest.len()) {
        (code, 0) if code == case.code => Ok(()),
        _ => Err(format!("{code} {reason:?} and {} bytes instead of {}", rest.len(), case.code)),
    }
}

#[test]
fn every_violation_has_its_code() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    each(&frames(), 30, |case| case.name.into(), |case| run(case, addr, |connection, bytes| connection.send(bytes)));
    bystander.check();
}

#[test]
fn fragments_pings_and_bytes_that_trickle() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let mut web_socket = WebSocket::open(addr, "/Sensors/none");
    web_socket.connection.send(&frame(0x89, b"are you there"));
    assert_eq!(web_socket.expect(), (0x8a, b"are you there".to_vec()), "5.5.3 a ping is answered with its payload");
    web_socket.connection.send(&frame(0x89, &[7; 125]));
    assert_eq!(web_socket.expect(), (0x8a, vec![7; 125]));
    web_socket.connection.send(&frame(0x8a, b"unasked")); // 5.5.3: passed over
    let message = "{\"x\":\"ä€😀\"}".as_bytes();
    let cut = message.len() - 4; // inside a character: only the whole message must be UTF-8
    let mut bytes = frame(0x01, &message[..3]);
    bytes.extend(frame(0x89, b"between"));
    bytes.extend(frame(0x00, &message[3..cut]));
    bytes.extend(frame(0x00, b""));
    bytes.extend(frame(0x80, &message[cut..]));
    for send in [|connection: &mut Connection, bytes: &[u8]| connection.send(bytes), trickle] {
        send(&mut web_socket.connection, &bytes);
        assert_eq!(web_socket.expect(), (0x8a, b"between".to_vec()), "5.4: a control frame between fragments");
        let (first, answer) = web_socket.expect();
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!((first, &answer["status"]), (0x81, &501.into()), "a data frame is answered: this socket only sends");
    }
    web_socket.connection.send(&frame(0x88, &1000u16.to_be_bytes()));
    assert_eq!(web_socket.expect_close().0, 1000);
    bystander.check();
}

#[test]
fn handshakes() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let good = handshake(addr, "/Sensors/none", "");
    let without = |field: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(field));
        lines.collect::<String>()
    };
    let with = |from: &str, to: &str| good.replace(from, to);
    let cases = [
        case("4.4 version 8", with("13\r\n", "8\r\n").into(), 426),
        case("4.4 no version", without("Sec-WebSocket-Version").into(), 426),
        case("4.1 no key", without("Sec-WebSocket-Key").into(), 400),
        case("4.1 a key of 15 bytes", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j").into(), 400),
        case("4.1 a key that is not base64", with("dGhlIHNhbXBsZSBub25jZQ==", "!!!lIHNhbXBsZSBub25jZQ==").into(), 400),
        // RFC 9110 §7.8: an upgrade of HTTP/1.0 is not looked at, the request is answered as any other.
        case("4.1 HTTP/1.0", with("HTTP/1.1", "HTTP/1.0").into(), 404),
        case(
            "4.1 another origin, in run mode",
            handshake(addr, "/Sensors/", "Origin: http://evil.example\r\n").into(),
            403,
        ),
        case("4.1 a good one", good.clone().into(), 101),
    ];
    each(
        &cases,
        8,
        |case| case.name.into(),
        |case| {
            let mut connection = Connection::open(addr);
            connection.send(&case.bytes);
            let response = connection.response_head().map_err(|e| e.to_string())?;
            let version = response.header("sec-websocket-version");
            let ok = response.status == case.code && (case.code != 426 || version == Some("13"));
            if ok { Ok(()) } else { Err(format!("{response:?} instead of {}", case.code)) }
        },
    );
    bystander.check();
}

#[test]
fn unknown_resources_are_closed_with_the_reason() {
    let app = tempfile::TempDir::new().expect("a folder");
    crate::common::server::write_app(app.path(), "type Sensors @table @export { id: ID @primaryKey }\n");
    let server = crate::common::Server::start(Options { app: Some(app.path().into()), ..Options::default() });
    for path in ["/Nowhere/1", "/"] {
        let mut web_socket = WebSocket::open(server.http(), path);
        let closed = web_socket.expect_close();
        assert_eq!(closed, (1011, format!("No resource was found to handle {path}")));
        assert_eq!(to_close(&mut web_socket.connection), Ok(Vec::new()));
    }
    let mut web_socket = WebSocket::open(server.http(), "/Sensors/?n=zz=1");
    let (code, reason) = web_socket.expect_close();
    assert!(code == 1011 && reason.contains("position 1"), "{code} {reason}");
}

/// MQTT over WebSocket: only binary frames carry it, and where frames are cut means nothing [MQTT-6.0.0-1, -2].
#[test]
fn mqtt_inside() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let open = || {
        let mut connection = Connection::open(addr);
        connection.send(handshake(addr, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").as_bytes());
        let head = connection.response_head().expect("an answer");
        assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("mqtt")), "[MQTT-6.0.0-4]");
        WebSocket { connection }
    };
    let connect = connect_as(4, "inside");
    let mut split = open();
    for byte in &connect {
        split.connection.send(&frame(0x82, &[*byte]));
    }
    assert_eq!(split.expect(), (0x82, vec![0x20, 2, 0, 0]));
    split.connection.send(&frame(0x82, &[0xc0, 0, 0xc0, 0]));
    assert_eq!((split.expect().1, split.expect().1), (vec![0xd0, 0], vec![0xd0, 0]));
    split.connection.send(&frame(0x82, &[0xc1, 0]));
    assert_eq!(split.expect_close().0, 1000, "a violation of MQTT ends the WebSocket");
    let mut as_text = open();
    as_text.connection.send(&frame(0x81, b"\x10"));
    assert_eq!(as_text.expect_close().0, 1003);
    let mut plain = Mqtt::open(bystander.server.mqtt(), 4, "outside");
    plain.ping();
    bystander.check();
}
