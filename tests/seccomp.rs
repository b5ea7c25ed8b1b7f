//! Where io_uring is forbidden, as in most containers, the server runs on epoll: a seccomp filter in the child answers
//! `io_uring_setup` with EPERM, as the default profiles of container runtimes do.

mod common;

use common::lines;
use common::wire::{Mqtt, Sse};
use common::{PATIENCE, http};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The program without io_uring.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command.env_remove("TABLECAST_TEST_IO");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(common::seccomp::forbid_io_uring) };
    command
}

/// Killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_io_uring_epoll_serves() {
    let home = tempfile::TempDir::new().expect("a folder");
    let data = home.path().join("data").display().to_string();
    let args =
        ["dev", "--data", &data, "--shards", "2", "--pin", "false", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];
    let mut server = Running(command(&args).spawn().expect("start the server"));
    let stderr = lines::tail(server.0.stderr.take().expect("piped"));
    let stdout = lines::lines(server.0.stdout.take().expect("piped"));
    let (mut rest, mut mqtt) = (None::<SocketAddr>, None::<SocketAddr>);
    loop {
        let line = stdout.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("not ready: {e}\n{}", stderr.text()));
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["listening", "http", address] => rest = address.parse().ok(),
            ["listening", "mqtt", address] => mqtt = address.parse().ok(),
            ["ready"] => break,
            _ => panic!("printed {line:?}"),
        }
    }
    let (rest, mqtt) = (rest.expect("http"), mqtt.expect("mqtt"));
    let log = stderr.text();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("io driver")).collect();
    assert_eq!(told.len(), 1, "one line says which driver it is:\n{log}");
    assert!(told[0].contains("epoll") && told[0].contains("io_uring is not available"), "{log}");

    let mut subscriber = Mqtt::open(mqtt, 5, "subscriber");
    assert_eq!(subscriber.subscribe(1, &[("Sensors/+", 1)]), [1]);
    let mut stream = Sse::open(rest, "/Sensors/s");
    for n in 1..=50 {
        let body = format!("{{\"n\":{n}}}");
        if n % 2 == 0 {
            Mqtt::open(mqtt, 4, "publisher").put("Sensors/s", body.as_bytes(), 1);
        } else {
            let json = [("Content-Type", "application/json")];
            assert_eq!(http(rest, "PUT", "/Sensors/s", &json, body.as_bytes()).status, 204);
        }
        let message = subscriber.expect_message();
        subscriber.connection.send(&common::wire::puback(message.id.expect("QoS 1")));
        assert_eq!(message.payload, format!("{{\"n\":{n},\"id\":\"s\"}}").as_bytes());
        let event: serde_json::Value = serde_json::from_str(&stream.expect()).expect("JSON");
        assert_eq!(event["value"]["n"], n);
    }
    lines::signal(&server.0, libc::SIGTERM);
    let status = lines::wait_exit(&mut server.0, PATIENCE).expect("the server ends");
    assert_eq!(status.code(), Some(0), "{}", stderr.text());
}

#[test]
fn io_uring_by_name_is_refused() {
    let home = tempfile::TempDir::new().expect("a folder");
    let data = home.path().join("data").display().to_string();
    let args = ["dev", "--data", &data, "--io", "uring", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];
    let output = command(&args).output().expect("run the server");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--io uring") && stderr.contains("not permitted"), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing is announced");
}
