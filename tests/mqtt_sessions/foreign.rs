//! Foreign MQTT clients that do as they are told: `paho_session.py` and `mqttjs_session.mjs` of `tests/clients` take one
//! JSON command a line and print one JSON event a line; mosquitto's tools run once.
//!
//! Commands: `connect` (id, clean, expiry, receiveMaximum, aliasMaximum, will, manual for paho, reconnect and
//! assignAliases for mqtt.js), `again` (paho: the same client object once more), `subscribe` (filters, number), `publish`
//! (topic, payload, qos, retain, alias, expiry, user), `ack` (paho with `manual`), `disconnect`, `drop` (the TCP
//! connection only). Events: `connected`, `subscribed`, `published`, `message`, `disconnected`.

use crate::common::lines::{self, Tail};
use crate::common::peers::program_command;
use crate::common::{Endpoints, PATIENCE, Server};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Paho4,
    Paho5,
    MqttJs4,
    MqttJs5,
}

pub const ALL: [Kind; 4] = [Kind::Paho4, Kind::Paho5, Kind::MqttJs4, Kind::MqttJs5];
pub const VERSION_5: [Kind; 2] = [Kind::Paho5, Kind::MqttJs5];

impl Kind {
    pub fn is_5(self) -> bool {
        VERSION_5.contains(&self)
    }

    fn program(self) -> &'static str {
        if matches!(self, Kind::Paho4 | Kind::Paho5) { "paho_session.py" } else { "mqttjs_session.mjs" }
    }
}

pub struct Foreign {
    pub kind: Kind,
    child: Child,
    lines: Receiver<String>,
    stderr: Tail,
    waiting: VecDeque<Value>,
}

impl Foreign {
    pub fn start(kind: Kind, at: &Endpoints) -> Foreign {
        let flags: &[&str] = if kind.is_5() { &["--mqtt-version", "5"] } else { &[] };
        let mut command = program_command(kind.program(), flags, at);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start a client");
        let lines = lines::lines(child.stdout.take().expect("piped"));
        let stderr = lines::tail(child.stderr.take().expect("piped"));
        let ready = lines.recv_timeout(PATIENCE).unwrap_or_default();
        assert_eq!(ready, r#"{"ready":true}"#, "{kind:?}: {}", stderr.text());
        Foreign { kind, child, lines, stderr, waiting: VecDeque::new() }
    }

    #[track_caller]
    pub fn tell(&mut self, command: Value) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{command}").unwrap_or_else(|e| panic!("{:?}: {e}: {}", self.kind, self.stderr.text()));
    }

    /// The next event of this name; others wait.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        self.event_within(name, PATIENCE).unwrap_or_else(|| {
            panic!("{:?}: no event {name}; waiting {:?}; {}", self.kind, self.waiting, self.stderr.text())
        })
    }

    pub fn event_within(&mut self, name: &str, within: Duration) -> Option<Value> {
        let end = Instant::now() + within;
        let mut at = 0;
        loop {
            while at < self.waiting.len() {
                if self.waiting[at]["event"] == name {
                    return self.waiting.remove(at);
                }
                at += 1;
            }
            let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
            let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{:?} printed {line}: {e}", self.kind));
            self.waiting.push_back(event);
        }
    }

    /// Connects with these settings and gives what CONNACK said.
    #[track_caller]
    pub fn connect(&mut self, mut settings: Value) -> Value {
        settings["op"] = "connect".into();
        self.tell(settings);
        let connected = self.event("connected");
        assert_eq!(connected["code"], 0, "{connected}");
        connected
    }

    /// Connects to a session that outlives the connection, and checks whether it was there.
    #[track_caller]
    pub fn resume(&mut self, id: &str, present: bool) {
        let connected = self.connect(json!({ "id": id, "clean": false, "expiry": 3600 }));
        assert_eq!(connected["present"], present, "{:?}: {connected}", self.kind);
    }

    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        self.tell(json!({ "op": "subscribe", "filters": [[filter, qos]] }));
        assert_eq!(self.event("subscribed")["codes"], json!([qos]), "{filter}");
    }

    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8) {
        self.tell(json!({ "op": "publish", "topic": topic, "payload": payload, "qos": qos }));
        let code = self.event("published")["code"].as_u64().expect("a code");
        assert!(code < 0x80, "{:?}: {code:#x}", self.kind);
    }

    #[track_caller]
    pub fn message(&mut self) -> Value {
        self.event("message")
    }

    /// The payloads of the next messages.
    #[track_caller]
    pub fn payloads(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.message()["payload"].as_str().expect("text").to_owned()).collect()
    }

    /// No message comes for a while.
    #[track_caller]
    pub fn quiet(&mut self) {
        if let Some(message) = self.event_within("message", Duration::from_millis(400)) {
            panic!("{:?}: nothing was to come, but {message}", self.kind);
        }
    }

    #[track_caller]
    pub fn disconnect(&mut self) {
        self.tell(json!({ "op": "disconnect" }));
        self.event("disconnected");
    }

    #[track_caller]
    pub fn drop_line(&mut self) {
        self.tell(json!({ "op": "drop" }));
        self.event("disconnected");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of mosquitto's tools, with the server's address.
pub fn mosquitto(tool: &str, server: &Server, level: u8) -> Command {
    crate::common::clients::setup();
    let mut command = Command::new("stdbuf");
    command.args(["-oL", tool]);
    let at = server.mqtt();
    command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
    command.args(["-V", if level == 5 { "mqttv5" } else { "mqttv311" }]);
    command
}

/// Runs a tool to its end and gives its lines.
#[track_caller]
pub fn run(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
