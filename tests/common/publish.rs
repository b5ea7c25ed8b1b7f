//! Publishers: every foreign library and tool behind one type, as [`super::peers`] for subscribers.

use super::codec::Format;
use super::lines;
use super::peers::{self, Body, Transport};
use super::{Endpoints, rumq};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Output;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long a publisher may take to have one command acknowledged.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the program of a foreign client may take to start: dozens of them start at once.
const START: Duration = Duration::from_secs(90);

/// A publishing client; the number is the MQTT level: 4 for 3.1.1, 5 for 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublisherKind {
    Paho4,
    Paho5,
    PahoWs4,
    PahoWs5,
    MqttJs4,
    MqttJs5,
    MqttJsWs4,
    MqttJsWs5,
    Mosquitto4,
    Mosquitto5,
    Rumqttc4,
    Rumqttc5,
    /// The requests package of Python.
    Requests,
    /// Node's own fetch.
    Fetch,
    Curl,
}

pub const ALL_PUBLISHERS: &[PublisherKind] = &[
    PublisherKind::Paho4,
    PublisherKind::Paho5,
    PublisherKind::PahoWs4,
    PublisherKind::PahoWs5,
    PublisherKind::MqttJs4,
    PublisherKind::MqttJs5,
    PublisherKind::MqttJsWs4,
    PublisherKind::MqttJsWs5,
    PublisherKind::Mosquitto4,
    PublisherKind::Mosquitto5,
    PublisherKind::Rumqttc4,
    PublisherKind::Rumqttc5,
    PublisherKind::Requests,
    PublisherKind::Fetch,
    PublisherKind::Curl,
];

impl PublisherKind {
    pub fn transport(self) -> Transport {
        use PublisherKind::*;
        match self {
            Paho4 | Paho5 | MqttJs4 | MqttJs5 | Mosquitto4 | Mosquitto5 | Rumqttc4 | Rumqttc5 => Transport::Mqtt,
            PahoWs4 | PahoWs5 | MqttJsWs4 | MqttJsWs5 => Transport::MqttWs,
            Requests | Fetch | Curl => Transport::Rest,
        }
    }

    /// 4 or 5; none if it does not speak MQTT.
    pub fn mqtt_level(self) -> Option<u8> {
        use PublisherKind::*;
        match self {
            Paho4 | PahoWs4 | MqttJs4 | MqttJsWs4 | Mosquitto4 | Rumqttc4 => Some(4),
            Paho5 | PahoWs5 | MqttJs5 | MqttJsWs5 | Mosquitto5 | Rumqttc5 => Some(5),
            _ => None,
        }
    }

    /// The formats the server can tell apart by what this client sends with each publish. (MQTT 3.1.1 over WebSocket
    /// can have one for its whole connection: [`Publish::format`].)
    pub fn formats(self) -> &'static [Format] {
        if self.mqtt_level() == Some(4) { &[Format::Json] } else { super::codec::ALL_FORMATS }
    }

    /// The operations this client's protocol has. REST's `message` is sent all the same (POST to the record's URL).
    pub fn ops(self) -> &'static [Op] {
        if self.mqtt_level().is_some() {
            &[Op::Put, Op::Message, Op::Delete]
        } else {
            &[Op::Put, Op::Patch, Op::Delete]
        }
    }

    fn program(self) -> Option<(&'static str, &'static [&'static str])> {
        use PublisherKind::*;
        Some(match self {
            Paho4 => ("paho_pub.py", &[]),
            Paho5 => ("paho_pub.py", &["--mqtt-version", "5"]),
            PahoWs4 => ("paho_pub.py", &["--websocket"]),
            PahoWs5 => ("paho_pub.py", &["--websocket", "--mqtt-version", "5"]),
            MqttJs4 => ("mqttjs_pub.mjs", &[]),
            MqttJs5 => ("mqttjs_pub.mjs", &["--mqtt-version", "5"]),
            MqttJsWs4 => ("mqttjs_pub.mjs", &["--websocket"]),
            MqttJsWs5 => ("mqttjs_pub.mjs", &["--websocket", "--mqtt-version", "5"]),
            Requests => ("requests_pub.py", &[]),
            Fetch => ("fetch_pub.mjs", &[]),
            Mosquitto4 | Mosquitto5 | Rumqttc4 | Rumqttc5 | Curl => return None,
        })
    }
}

/// How a publisher connects.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    pub client_id: Option<String>,
    pub credentials: Option<(String, String)>,
    /// MQTT over WebSocket: Content-Type and Accept of the upgrade request, unless JSON.
    pub format: Format,
    /// More arguments for the program.
    pub extra: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// PUT, or PUBLISH with the retain flag.
    Put,
    /// PUBLISH without the retain flag, or POST to the record's URL.
    Message,
    /// PATCH; not in MQTT.
    Patch,
    /// DELETE, or an empty PUBLISH with the retain flag.
    Delete,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Message => "message",
            Op::Patch => "patch",
            Op::Delete => "delete",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Op::Put => "PUT",
            Op::Message => "POST",
            Op::Patch => "PATCH",
            Op::Delete => "DELETE",
        }
    }
}

/// One thing to publish.
#[derive(Clone, Debug)]
pub struct Command {
    pub op: Op,
    /// The topic; with a slash before it, the URL's path.
    pub path: String,
    pub value: Value,
    pub format: Format,
    /// Opaque bytes, instead of the value.
    pub raw: Option<Vec<u8>>,
    pub qos: u8,
}

impl Command {
    pub fn new(op: Op, path: &str, value: &Value) -> Self {
        Command { op, path: path.to_owned(), value: value.clone(), format: Format::Json, raw: None, qos: 1 }
    }

    /// Opaque bytes.
    pub fn raw(op: Op, path: &str, bytes: &[u8]) -> Self {
        Command { raw: Some(bytes.to_vec()), ..Self::new(op, path, &Value::Null) }
    }

    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// The bytes to send: none for a delete.
    pub(super) fn payload(&self) -> Vec<u8> {
        match (&self.raw, self.op) {
            (_, Op::Delete) => Vec::new(),
            (Some(raw), _) => raw.clone(),
            (None, _) => self.format.encode(&self.value),
        }
    }

    /// MQTT 5's Content Type: for CBOR and MessagePack only, as JSON is what the server assumes.
    pub(super) fn mqtt_content_type(&self) -> Option<&'static str> {
        let named = self.raw.is_none() && self.op != Op::Delete && self.format != Format::Json;
        named.then(|| self.format.content_type())
    }

    fn line(&self) -> String {
        json!({
            "op": self.op.name(),
            "path": self.path,
            "value": self.value,
            "format": self.format.name(),
            "raw_base64": self.raw.as_ref().map(|raw| BASE64_STANDARD.encode(raw)),
            "qos": self.qos,
        })
        .to_string()
    }
}

/// What came back: `status` is the HTTP status, or the code of the MQTT acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub ok: bool,
    pub status: Option<u16>,
    pub error: Option<String>,
}

impl Reply {
    pub(super) fn ok(status: u16) -> Reply {
        Reply { ok: true, status: Some(status), error: None }
    }

    pub(super) fn failed(status: Option<u16>, error: impl ToString) -> Reply {
        Reply { ok: false, status, error: Some(error.to_string()) }
    }
}

enum How {
    Program {
        body: Body,
        answers: Receiver<String>,
    },
    Rumqttc(rumq::Publishing),
    /// A process for each command.
    Mosquitto,
    Curl,
}

/// A connected publisher.
pub struct Publisher {
    kind: PublisherKind,
    at: Endpoints,
    options: Publish,
    how: How,
}

impl Publisher {
    #[track_caller]
    pub fn start(kind: PublisherKind, at: &Endpoints, options: &Publish) -> Publisher {
        Self::try_start(kind, at, options).unwrap_or_else(|e| panic!("{kind:?}: {e}"))
    }

    /// As [`Self::start`], for a connection that is expected to be refused.
    pub fn try_start(kind: PublisherKind, at: &Endpoints, options: &Publish) -> Result<Publisher, String> {
        let how = match (kind, kind.program()) {
            (_, Some((program, flags))) => {
                let mut command = peers::program_command(program, flags, at);
                command.args(["--format", options.format.name()]);
                if let Some(id) = &options.client_id {
                    command.args(["--client-id", id]);
                }
                if let Some((user, password)) = &options.credentials {
                    command.args(["--username", user, "--password", password]);
                }
                command.args(&options.extra);
                let (mut child, answers, stderr) = peers::spawn(command);
                let stdin = child.stdin.take();
                let mut body = Body::Process { child, stdin, stderr };
                let first = answers.recv_timeout(START).unwrap_or_else(|e| e.to_string());
                if serde_json::from_str::<Value>(&first).is_ok_and(|line| line["ready"] == true) {
                    How::Program { body, answers }
                } else {
                    body.kill();
                    return Err(format!("{first}\n{}", body.stderr()));
                }
            }
            (PublisherKind::Rumqttc4 | PublisherKind::Rumqttc5, _) => {
                How::Rumqttc(rumq::publisher(kind.mqtt_level() == Some(5), at, options)?)
            }
            (PublisherKind::Curl, _) => How::Curl,
            _ => How::Mosquitto,
        };
        Ok(Publisher { kind, at: *at, options: options.clone(), how })
    }

    pub fn kind(&self) -> PublisherKind {
        self.kind
    }

    /// Sends and waits for the acknowledgement.
    #[track_caller]
    pub fn publish(&mut self, command: &Command) -> Reply {
        if self.kind.mqtt_level().is_some() && command.op == Op::Patch {
            return Reply::failed(None, "MQTT has no patch");
        }
        match &mut self.how {
            How::Program { body, answers } => {
                let Body::Process { stdin: Some(stdin), .. } = body else {
                    unreachable!("programs have a standard input")
                };
                if let Err(e) = writeln!(stdin, "{}", command.line()).and_then(|()| stdin.flush()) {
                    return Reply::failed(None, format!("{e}\n{}", body.stderr()));
                }
                match answers.recv_timeout(DEADLINE) {
                    Ok(line) => reply_of_line(&line),
                    Err(e) => Reply::failed(None, format!("no answer: {e}\n{}", body.stderr())),
                }
            }
            How::Rumqttc(connection) => connection.publish(command, DEADLINE),
            How::Mosquitto => self.by_mosquitto(command),
            How::Curl => self.by_curl(command),
        }
    }

    /// [`Self::publish`] that must succeed.
    #[track_caller]
    pub fn send(&mut self, command: &Command) -> Reply {
        let reply = self.publish(command);
        assert!(reply.ok, "{:?}: {command:?}: {reply:?}", self.kind);
        reply
    }

    #[track_caller]
    pub fn put(&mut self, path: &str, value: &Value) -> Reply {
        self.send(&Command::new(Op::Put, path, value))
    }

    #[track_caller]
    pub fn message(&mut self, path: &str, value: &Value) -> Reply {
        self.send(&Command::new(Op::Message, path, value))
    }

    #[track_caller]
    pub fn patch(&mut self, path: &str, value: &Value) -> Reply {
        self.send(&Command::new(Op::Patch, path, value))
    }

    #[track_caller]
    pub fn delete(&mut self, path: &str) -> Reply {
        self.send(&Command::new(Op::Delete, path, &Value::Null))
    }

    /// Ends the client as it would itself.
    pub fn end(mut self) {
        match &mut self.how {
            How::Program { body, .. } => body.end(),
            How::Rumqttc(connection) => connection.stop(),
            How::Mosquitto | How::Curl => {}
        }
    }

    fn by_mosquitto(&self, command: &Command) -> Reply {
        let level = self.kind.mqtt_level();
        let mut tool = peers::mosquitto("mosquitto_pub", &self.at, level, &self.options.credentials);
        // -d tells of the PUBACK and its code.
        tool.args(["-d", "-t", &command.path, "-q", &command.qos.to_string()]);
        if command.op != Op::Message {
            tool.arg("-r");
        }
        let payload = command.payload();
        tool.arg(if payload.is_empty() { "-n" } else { "-s" });
        if let (Some(5), Some(content_type)) = (level, command.mqtt_content_type()) {
            tool.args(["-D", "publish", "content-type", content_type]);
        }
        if let Some(id) = &self.options.client_id {
            tool.args(["-i", id]);
        }
        tool.args(&self.options.extra);
        let output = match run(tool, &payload) {
            Ok(output) => output,
            Err(why) => return Reply::failed(None, why),
        };
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // "Client (null) received PUBACK (Mid: 1, RC:0)"
        let code = said.split("RC:").nth(1).and_then(|rest| rest.split(')').next()).and_then(|n| n.parse().ok());
        let code: u16 = code.unwrap_or(0);
        match output.status.success() && code < 0x80 {
            true => Reply::ok(code),
            false => Reply::failed(Some(code).filter(|c| *c >= 0x80), format!("{}: {said}", output.status)),
        }
    }

    fn by_curl(&self, command: &Command) -> Reply {
        super::clients::setup();
        let mut tool = std::process::Command::new("curl");
        tool.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "-X", command.op.method()]);
        tool.args(["--write-out", "\n%{http_code}"]);
        if let Some((user, password)) = &self.options.credentials {
            tool.args(["--user", &format!("{user}:{password}")]);
        }
        if command.op != Op::Delete {
            let content_type =
                if command.raw.is_some() { "application/octet-stream" } else { command.format.content_type() };
            tool.args(["-H", &format!("Content-Type: {content_type}"), "--data-binary", "@-"]);
        }
        tool.args(&self.options.extra).arg(format!("{}/{}", self.at.http_base(), command.path));
        let output = match run(tool, &command.payload()) {
            Ok(output) => output,
            Err(why) => return Reply::failed(None, why),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = said.rsplit_once('\n').unwrap_or(("", ""));
        match status.parse() {
            Ok(status @ 200..=299) => Reply::ok(status),
            Ok(status @ 100..) => Reply::failed(Some(status), body),
            _ => Reply::failed(None, String::from_utf8_lossy(&output.stderr)),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        match &mut self.how {
            How::Program { body, .. } => body.kill(),
            How::Rumqttc(connection) => connection.stop(),
            How::Mosquitto | How::Curl => {}
        }
    }
}

fn reply_of_line(line: &str) -> Reply {
    let json: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    match json["ok"].as_bool() {
        Some(ok) => Reply {
            ok,
            status: json["status"].as_u64().map(|s| s as u16),
            error: json["error"].as_str().map(str::to_owned),
        },
        None => Reply::failed(None, format!("a line outside the contract: {line}")),
    }
}

/// Runs a tool to its end with the payload on its standard input.
fn run(command: std::process::Command, input: &[u8]) -> Result<Output, String> {
    let (mut child, stdout, stderr) = peers::spawn(command);
    let mut stdin = child.stdin.take().expect("piped");
    // A tool that takes no input closes its end: then the write fails, and that is fine.
    let _ = stdin.write_all(input);
    drop(stdin);
    let Some(status) = lines::wait_exit(&mut child, DEADLINE) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("did not end within {DEADLINE:?}: {}", stderr.text()));
    };
    let lines: Vec<String> = stdout.iter().collect();
    Ok(Output { status, stdout: lines.join("\n").into_bytes(), stderr: stderr.text_at_end().into_bytes() })
}
