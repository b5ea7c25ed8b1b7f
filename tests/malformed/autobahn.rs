//! The Autobahn test suite, on the echo of `tests/apps/autobahn`: every case, run by
//! `tests/clients/python/autobahn_cases.py`. The handshake, the frames and the loop are those of every WebSocket.

use crate::common::wire::{WebSocket, frame};
use crate::common::{Options, PATIENCE, Server, clients};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Cases of the suite: 247 of conformance, 54 of size and speed, 216 of compression.
const CASES: usize = 517;

fn start() -> Server {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/autobahn");
    Server::start(Options { app: Some(app), ..Options::default() })
}

#[test]
fn the_suite_finds_no_fault() {
    let server = start();
    let clients = clients::setup();
    let output = Command::new(&clients.python)
        .arg("-B")
        .arg(clients.python_programs.join("autobahn_cases.py"))
        .args([&format!("ws://{}/", server.http()), "--at-once", "8"])
        .output()
        .expect("run Python");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (end, results) = lines.split_last().expect("results");
    assert_eq!((&end["done"], results.len()), (&CASES.into(), CASES));
    let is_fault = |result: &&Value| {
        let case = result["case"].as_str().expect("a number");
        // Compression is not offered, and a client that asks for it is served without.
        let compression = case.starts_with("12.") || case.starts_with("13.");
        let wanted: &[&str] = if compression { &["UNIMPLEMENTED"] } else { &["OK", "INFORMATIONAL"] };
        let is = |name: &str, wanted: &[&str]| result[name].as_str().is_some_and(|own| wanted.contains(&own));
        !is("behavior", wanted) || !is("behaviorClose", &["OK", "INFORMATIONAL"])
    };
    let faults: Vec<&Value> = results.iter().filter(is_fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A client that sends and does not read is not read from: one message at most waits for it in the server.
#[test]
fn what_is_not_read_is_not_taken() {
    const BYTES: usize = 16 << 20;
    const MESSAGES: usize = 8;
    let server = start();
    let mut web_socket = WebSocket::open(server.http(), "/");
    let payload: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
    let bytes = frame(0x82, &payload).repeat(MESSAGES);
    let mut sender = web_socket.connection.stream().try_clone().expect("a handle");
    sender.set_write_timeout(Some(Duration::from_secs(1))).expect("set a timeout");
    let mut sent = 0;
    while let Ok(more @ 1..) = sender.write(&bytes[sent..]) {
        sent += more;
    }
    // One waits to be sent, one has begun to come, and the kernel has some of both ways.
    assert!(sent < 4 * BYTES, "{sent} bytes were taken");
    sender.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
    std::thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&bytes[sent..]).expect("it goes on when it is read"));
        for _ in 0..MESSAGES {
            let (first, echo) = web_socket.expect();
            assert!(first == 0x82 && echo == payload, "{first:x}, {} bytes", echo.len());
        }
    });
    web_socket.connection.send(&frame(0x82, &[0; BYTES + 1])[..14]);
    assert_eq!(web_socket.expect_close().0, 1009);
}
