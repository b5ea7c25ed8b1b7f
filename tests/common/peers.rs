//! Subscribers: every foreign library and tool behind one type. A [`Subscriber`] is a child process that speaks the
//! contract of `tests/clients` (one JSON line for each message), `mosquitto_sub`, or rumqttc in a thread.

use super::clients;
use super::codec::{Format, normal};
use super::lines::{self, Tail};
use super::{Endpoints, rumq};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::collections::VecDeque;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How a client talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    WebSocket,
    Sse,
    Rest,
}

/// A subscribing client; the number is the MQTT level: 4 for 3.1.1, 5 for 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriberKind {
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
    /// The websockets package of Python.
    Websockets,
    /// The ws package of Node.
    Ws,
    BrowserWs,
    SseClientPy,
    EventSource,
    BrowserSse,
}

pub const ALL_SUBSCRIBERS: &[SubscriberKind] = &[
    SubscriberKind::Paho4,
    SubscriberKind::Paho5,
    SubscriberKind::PahoWs4,
    SubscriberKind::PahoWs5,
    SubscriberKind::MqttJs4,
    SubscriberKind::MqttJs5,
    SubscriberKind::MqttJsWs4,
    SubscriberKind::MqttJsWs5,
    SubscriberKind::Mosquitto4,
    SubscriberKind::Mosquitto5,
    SubscriberKind::Rumqttc4,
    SubscriberKind::Rumqttc5,
    SubscriberKind::Websockets,
    SubscriberKind::Ws,
    SubscriberKind::BrowserWs,
    SubscriberKind::SseClientPy,
    SubscriberKind::EventSource,
    SubscriberKind::BrowserSse,
];

impl SubscriberKind {
    pub fn transport(self) -> Transport {
        use SubscriberKind::*;
        match self {
            Paho4 | Paho5 | MqttJs4 | MqttJs5 | Mosquitto4 | Mosquitto5 | Rumqttc4 | Rumqttc5 => Transport::Mqtt,
            PahoWs4 | PahoWs5 | MqttJsWs4 | MqttJsWs5 => Transport::MqttWs,
            Websockets | Ws | BrowserWs => Transport::WebSocket,
            SseClientPy | EventSource | BrowserSse => Transport::Sse,
        }
    }

    /// 4 or 5; none if it does not speak MQTT.
    pub fn mqtt_level(self) -> Option<u8> {
        use SubscriberKind::*;
        match self {
            Paho4 | PahoWs4 | MqttJs4 | MqttJsWs4 | Mosquitto4 | Rumqttc4 => Some(4),
            Paho5 | PahoWs5 | MqttJs5 | MqttJsWs5 | Mosquitto5 | Rumqttc5 => Some(5),
            _ => None,
        }
    }

    /// The formats it can ask for: MQTT 5 by user property, WebSockets by Accept (the browser by suffix).
    pub fn formats(self) -> &'static [Format] {
        match (self.transport(), self.mqtt_level()) {
            (Transport::Sse, _) | (Transport::Mqtt, Some(4)) => &[Format::Json],
            _ => super::codec::ALL_FORMATS,
        }
    }

    /// The interpreter's program and fixed flags; none for those that are no program of ours.
    pub(super) fn program(self) -> Option<(&'static str, &'static [&'static str])> {
        use SubscriberKind::*;
        Some(match self {
            Paho4 => ("paho_sub.py", &[]),
            Paho5 => ("paho_sub.py", &["--mqtt-version", "5"]),
            PahoWs4 => ("paho_sub.py", &["--websocket"]),
            PahoWs5 => ("paho_sub.py", &["--websocket", "--mqtt-version", "5"]),
            MqttJs4 => ("mqttjs_sub.mjs", &[]),
            MqttJs5 => ("mqttjs_sub.mjs", &["--mqtt-version", "5"]),
            MqttJsWs4 => ("mqttjs_sub.mjs", &["--websocket"]),
            MqttJsWs5 => ("mqttjs_sub.mjs", &["--websocket", "--mqtt-version", "5"]),
            Websockets => ("websockets_sub.py", &[]),
            Ws => ("ws_sub.mjs", &[]),
            BrowserWs => ("browser.mjs", &["--websocket"]),
            SseClientPy => ("sseclient_sub.py", &[]),
            EventSource => ("eventsource_sub.mjs", &[]),
            BrowserSse => ("browser.mjs", &[]),
            Mosquitto4 | Mosquitto5 | Rumqttc4 | Rumqttc5 => return None,
        })
    }
}

/// What to subscribe to, and how.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// For WebSocket and SSE: the URL's path without the first slash; may have a query.
    pub path: String,
    /// For MQTT.
    pub filter: String,
    /// The exported path of the table, to take the id out of a topic; none: the filter's first level.
    pub table: Option<String>,
    pub format: Format,
    pub qos: u8,
    pub client_id: Option<String>,
    /// Not a clean session (MQTT 5: with a Session Expiry Interval of an hour).
    pub keep_session: bool,
    /// Connect again when the connection is lost, instead of ending.
    pub reconnect: bool,
    pub credentials: Option<(String, String)>,
    /// More arguments for the program (`--page /index.html` for the browser, `--ws-path /` for MQTT over WebSocket).
    pub extra: Vec<String>,
    /// How long it may take until the subscription is live.
    pub within: Duration,
}

impl Subscribe {
    /// One record (`Sensors/101`) or, with a slash at the end, a collection (`Sensors/`; in MQTT `Sensors/#`).
    pub fn to(path: &str) -> Self {
        let filter = path.split('?').next().unwrap_or("");
        let all = if filter.is_empty() || filter.ends_with('/') { "#" } else { "" };
        Subscribe {
            path: path.to_owned(),
            filter: format!("{filter}{all}"),
            table: None,
            format: Format::Json,
            qos: 1,
            client_id: None,
            keep_session: false,
            reconnect: false,
            credentials: None,
            extra: Vec::new(),
            within: Duration::from_secs(30),
        }
    }

    pub fn filter(mut self, filter: &str) -> Self {
        self.filter = filter.to_owned();
        self
    }

    pub fn table(mut self, table: &str) -> Self {
        self.table = Some(table.to_owned());
        self
    }

    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// A session that outlives the connection.
    pub fn session(mut self, client_id: &str) -> Self {
        self.client_id = Some(client_id.to_owned());
        self.keep_session = true;
        self
    }

    pub fn reconnecting(mut self) -> Self {
        self.reconnect = true;
        self
    }

    pub fn credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    pub fn extra(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(|a| a.to_string()));
        self
    }

    /// The id in a topic: what follows the table.
    pub(super) fn id_of(&self, topic: &str) -> Value {
        let first = self.filter.split('/').next().unwrap_or("");
        let table = self.table.as_deref().unwrap_or(if ["+", "#", "$share"].contains(&first) { "" } else { first });
        if !table.is_empty() {
            if topic == table {
                return Value::Null;
            }
            if let Some(id) = topic.strip_prefix(table).and_then(|rest| rest.strip_prefix('/')) {
                return id.into();
            }
        }
        topic.strip_prefix('/').unwrap_or(topic).into()
    }
}

/// One message as a client saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// MQTT only.
    pub topic: Option<String>,
    /// Of the envelope, or out of the topic (then always text).
    pub id: Value,
    /// Of the envelope: put, delete, message, …
    pub kind: Option<String>,
    pub retain: Option<bool>,
    pub qos: Option<u8>,
    pub sse_id: Option<String>,
    /// The decoded value: the envelope's, or the whole payload; null if there is none or it decodes to nothing. Whole
    /// numbers are integers ([`super::codec::normal`]).
    pub value: Value,
    /// The payload's, frame's or `data:` line's bytes.
    pub raw: Vec<u8>,
    pub envelope: bool,
    /// MQTT 5's property; for WebSocket and SSE the format the frame was decoded by.
    pub content_type: Option<String>,
}

impl Message {
    fn of_line(line: &Value) -> Option<Message> {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        Some(Message {
            topic: text("topic"),
            id: line["id"].clone(),
            kind: text("type"),
            retain: line["retain"].as_bool(),
            qos: line["qos"].as_u64().map(|q| q as u8),
            sse_id: text("sse_id"),
            value: normal(line["value"].clone()),
            raw: BASE64_STANDARD.decode(line["raw_base64"].as_str()?).ok()?,
            envelope: line["envelope"].as_bool()?,
            content_type: text("content_type"),
        })
    }

    /// An MQTT message, its payload decoded as the programs of `tests/clients` do it.
    pub(super) fn mqtt(
        options: &Subscribe,
        level: u8,
        topic: String,
        raw: Vec<u8>,
        (qos, retain): (u8, bool),
        content_type: Option<String>,
    ) -> Message {
        let format = match &content_type {
            Some(text) => Format::of_content_type(text),
            None => Some(if level == 5 { options.format } else { Format::Json }),
        };
        let value = format.filter(|_| !raw.is_empty()).and_then(|f| f.decode(&raw)).unwrap_or(Value::Null);
        Message {
            id: options.id_of(&topic),
            topic: Some(topic),
            kind: None,
            retain: Some(retain),
            qos: Some(qos),
            sse_id: None,
            value: normal(value),
            raw,
            envelope: false,
            content_type,
        }
    }
}

/// What a client reports.
#[derive(Debug)]
pub(super) enum Event {
    Ready,
    Message(Message),
    /// Refused, or a fault on the way that does not end the client.
    Error {
        reason: String,
        code: Option<i64>,
    },
    Closed(String),
}

/// Why a subscription did not come to be. `code` is the HTTP status, or MQTT's return or reason code, if known.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: String,
    pub code: Option<i64>,
}

/// What runs behind a client.
pub(super) enum Body {
    Process { child: Child, stdin: Option<ChildStdin>, stderr: Tail },
    Thread(rumq::Stop),
}

impl Body {
    pub(super) fn stderr(&self) -> String {
        match self {
            Body::Process { stderr, .. } => stderr.text(),
            Body::Thread(_) => String::new(),
        }
    }

    /// The end the client itself makes: MQTT DISCONNECT, a WebSocket close, …
    pub(super) fn end(&mut self) {
        match self {
            Body::Process { child, stdin, .. } => {
                match stdin.take() {
                    Some(stdin) => drop(stdin),
                    None => lines::signal(child, libc::SIGTERM),
                }
                if lines::wait_exit(child, Duration::from_secs(5)).is_none() {
                    self.kill();
                }
            }
            Body::Thread(stop) => stop.stop(),
        }
    }

    pub(super) fn kill(&mut self) {
        match self {
            Body::Process { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Body::Thread(stop) => stop.stop(),
        }
    }
}

/// A subscribed client.
pub struct Subscriber {
    kind: SubscriberKind,
    body: Body,
    events: Receiver<Event>,
    waiting: VecDeque<Message>,
    errors: Vec<Refused>,
    readies: usize,
    closed: Option<String>,
}

impl Subscriber {
    /// Starts a client and waits until its subscription is live.
    #[track_caller]
    pub fn start(kind: SubscriberKind, at: &Endpoints, to: &Subscribe) -> Subscriber {
        Self::try_start(kind, at, to).unwrap_or_else(|r| panic!("{kind:?} on {}: {r:?}", to.path))
    }

    /// As [`Self::start`], for a subscription that is expected to be refused.
    pub fn try_start(kind: SubscriberKind, at: &Endpoints, to: &Subscribe) -> Result<Subscriber, Refused> {
        let (body, events) = match (kind, kind.program()) {
            (_, Some((program, flags))) => {
                let mut command = program_command(program, flags, at);
                contract_arguments(&mut command, to);
                run_contract(command)
            }
            (SubscriberKind::Rumqttc4 | SubscriberKind::Rumqttc5, _) => {
                rumq::subscribe(kind.mqtt_level() == Some(5), at, to)
            }
            _ => run_mosquitto_sub(kind, at, to),
        };
        let mut subscriber =
            Subscriber { kind, body, events, waiting: VecDeque::new(), errors: Vec::new(), readies: 0, closed: None };
        let end = Instant::now() + to.within;
        while subscriber.readies == 0 {
            let on_time = subscriber.step(end);
            if subscriber.readies == 0 && (!on_time || !subscriber.errors.is_empty() || subscriber.closed.is_some()) {
                let refused = subscriber.errors.pop().unwrap_or_else(|| Refused {
                    reason: subscriber.closed.clone().unwrap_or_else(|| format!("not live within {:?}", to.within)),
                    code: None,
                });
                // Not killed: a browser's driver, printing its refusal, is about to take the browser down with it.
                subscriber.body.end();
                let reason = format!("{}\n{}", refused.reason, subscriber.stderr());
                return Err(Refused { reason: reason.trim().to_owned(), ..refused });
            }
        }
        Ok(subscriber)
    }

    pub fn kind(&self) -> SubscriberKind {
        self.kind
    }

    /// Takes in one event: false when there was none before `end`.
    fn step(&mut self, end: Instant) -> bool {
        if self.closed.is_some() {
            return false;
        }
        match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Ready) => self.readies += 1,
            Ok(Event::Message(message)) => self.waiting.push_back(message),
            Ok(Event::Error { reason, code }) => self.errors.push(Refused { reason, code }),
            Ok(Event::Closed(reason)) => self.closed = Some(reason),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => self.closed = Some("the client ended".into()),
        }
        true
    }

    /// The next message; none when none came in time or the client has ended ([`Self::closed`]).
    pub fn next(&mut self, timeout: Duration) -> Option<Message> {
        let end = Instant::now() + timeout;
        while self.waiting.is_empty() {
            if !self.step(end) {
                return None;
            }
        }
        self.waiting.pop_front()
    }

    /// The next `n` messages.
    #[track_caller]
    pub fn expect(&mut self, n: usize, within: Duration) -> Vec<Message> {
        self.collect_until(|seen| seen.len() >= n, within)
    }

    /// The values of the next `n` messages.
    #[track_caller]
    pub fn expect_values(&mut self, n: usize, within: Duration) -> Vec<Value> {
        self.expect(n, within).into_iter().map(|m| m.value).collect()
    }

    /// All messages from here on until `done` is true of them.
    #[track_caller]
    pub fn collect_until(&mut self, mut done: impl FnMut(&[Message]) -> bool, within: Duration) -> Vec<Message> {
        let end = Instant::now() + within;
        let mut seen = Vec::new();
        while !done(&seen) {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Some(message) => seen.push(message),
                None => panic!(
                    "{:?}: not what was waited for within {within:?}; closed: {:?}; errors: {:?}; {} messages, the last of \
                     them {:#?}\n{}",
                    self.kind,
                    self.closed,
                    self.errors,
                    seen.len(),
                    &seen[seen.len().saturating_sub(5)..],
                    self.stderr()
                ),
            }
        }
        seen
    }

    /// Waits the whole time and panics if a message comes, or the client ends. Prefer a later message that shows that
    /// an earlier one did not come.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        if let Some(message) = self.next(time) {
            panic!("{:?}: unexpected {message:#?}", self.kind);
        }
        assert!(self.closed.is_none(), "{:?} ended: {:?}\n{}", self.kind, self.closed, self.stderr());
    }

    /// How often the subscription has become live: more than once for a client that reconnects.
    pub fn readies(&self) -> usize {
        self.readies
    }

    /// Waits until the subscription has become live `n` times in all.
    #[track_caller]
    pub fn expect_ready(&mut self, n: usize, within: Duration) {
        let end = Instant::now() + within;
        while self.readies < n {
            assert!(self.step(end), "{:?}: live {} times, not {n}; errors: {:?}", self.kind, self.readies, self.errors);
        }
    }

    /// Why the client has ended, if it is known to have.
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Waits until the client's connection is closed from outside, and why. Messages stay for [`Self::next`].
    #[track_caller]
    pub fn expect_closed(&mut self, within: Duration) -> String {
        let end = Instant::now() + within;
        loop {
            if let Some(reason) = &self.closed {
                return reason.clone();
            }
            assert!(self.step(end), "{:?}: still open after {within:?}", self.kind);
        }
    }

    pub fn stderr(&self) -> String {
        self.body.stderr()
    }

    /// What the client says beside messages, to its end.
    pub fn words(&self) -> Tail {
        match &self.body {
            Body::Process { stderr, .. } => stderr.clone(),
            Body::Thread(_) => Tail::default(),
        }
    }

    /// Ends the client as it would itself, with a DISCONNECT or a close frame, and gives what was not read yet.
    pub fn end(mut self) -> Vec<Message> {
        // Twice, at the moment of its signal, its last message was there two times; why is not known. It gets time to show
        // what it has; what it was sent stands in its words.
        if matches!(self.kind, SubscriberKind::Mosquitto4 | SubscriberKind::Mosquitto5) {
            let end = Instant::now() + Duration::from_millis(50);
            while self.step(end) {}
        }
        self.body.end();
        while self.step(Instant::now() + Duration::from_secs(2)) {}
        std::mem::take(&mut self.waiting).into()
    }

    /// Ends the client without a goodbye (rumqttc, being a thread, and the browser say goodbye all the same).
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // The browser would leave its profile and its children behind.
        if matches!(self.kind, SubscriberKind::BrowserSse | SubscriberKind::BrowserWs) {
            self.body.end();
        }
        self.body.kill();
    }
}

/// A program of `tests/clients` with the arguments all of them take.
pub fn program_command(program: &str, flags: &[&str], at: &Endpoints) -> Command {
    let clients = clients::setup();
    let mut command = if program.ends_with(".py") {
        let mut command = Command::new(&clients.python);
        command.arg("-B").arg(clients.python_programs.join(program));
        command
    } else {
        let mut command = Command::new("node");
        command.arg(clients.node.join(program));
        // Chromium leaves folders behind.
        command.env("TMPDIR", clients.node.join("tmp"));
        command
    };
    command.args(["--http", &at.http_base(), "--mqtt", &at.mqtt.to_string()]).args(flags);
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

fn contract_arguments(command: &mut Command, to: &Subscribe) {
    command.args(["--path", &to.path, "--filter", &to.filter]);
    command.args(["--format", to.format.name(), "--qos", &to.qos.to_string()]);
    for (name, value) in [("--table", &to.table), ("--client-id", &to.client_id)] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    for (name, on) in [("--keep-session", to.keep_session), ("--reconnect", to.reconnect)] {
        if on {
            command.arg(name);
        }
    }
    if let Some((user, password)) = &to.credentials {
        command.args(["--username", user, "--password", password]);
    }
    command.args(&to.extra);
}

/// Starts a child with everything piped.
pub(super) fn spawn(mut command: Command) -> (Child, Receiver<String>, Tail) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let lines = lines::lines(child.stdout.take().expect("piped"));
    let stderr = lines::tail(child.stderr.take().expect("piped"));
    (child, lines, stderr)
}

fn run_contract(command: Command) -> (Body, Receiver<Event>) {
    let (mut child, lines, stderr) = spawn(command);
    let stdin = child.stdin.take();
    let (send, events) = mpsc::channel();
    thread::spawn(move || {
        for line in lines {
            if send.send(contract_event(&line)).is_err() {
                return;
            }
        }
    });
    (Body::Process { child, stdin, stderr }, events)
}

fn contract_event(line: &str) -> Event {
    let json: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    if json["ready"] == true {
        Event::Ready
    } else if let Some(reason) = json["closed"].as_str() {
        Event::Closed(reason.to_owned())
    } else if let Some(reason) = json["error"].as_str() {
        Event::Error { reason: reason.to_owned(), code: json["code"].as_i64() }
    } else if let Some(message) = Message::of_line(&json) {
        Event::Message(message)
    } else {
        Event::Error { reason: format!("a line outside the contract: {line}"), code: None }
    }
}

/// The arguments both mosquitto tools take.
pub(super) fn mosquitto(
    tool: &str,
    at: &Endpoints,
    level: Option<u8>,
    credentials: &Option<(String, String)>,
) -> Command {
    clients::setup();
    let mut command = Command::new("stdbuf");
    command.args(["-oL", tool, "-h", &at.mqtt.ip().to_string(), "-p", &at.mqtt.port().to_string()]);
    command.args(["-V", if level == Some(5) { "mqttv5" } else { "mqttv311" }]);
    if let Some((user, password)) = credentials {
        command.args(["-u", user, "-P", password]);
    }
    command
}

fn run_mosquitto_sub(kind: SubscriberKind, at: &Endpoints, to: &Subscribe) -> (Body, Receiver<Event>) {
    let level = kind.mqtt_level();
    let mut command = mosquitto("mosquitto_sub", at, level, &to.credentials);
    // -d tells of the SUBACK. In the format: QoS, retain flag, payload in hexadecimal, content type, topic.
    command.args(["-d", "-t", &to.filter, "-q", &to.qos.to_string(), "-F", ">|%q|%r|%x|%C|%t"]);
    if level == Some(5) {
        command.args(["-D", "subscribe", "user-property", "format", to.format.name()]);
    }
    if let Some(id) = &to.client_id {
        command.args(["-i", id]);
    }
    if to.keep_session {
        command.arg("-c");
        if level == Some(5) {
            command.args(["-x", "3600"]);
        }
    }
    command.args(&to.extra);
    let (child, lines, stderr) = spawn(command);
    let (send, events) = mpsc::channel();
    let (to, words) = (to.clone(), stderr.clone());
    thread::spawn(move || {
        for line in lines {
            words.push(format!("{line}\n").as_bytes()); // of each packet that it gets, too
            if let Some(event) = mosquitto_event(&line, level.unwrap_or(4), &to)
                && send.send(event).is_err()
            {
                return;
            }
        }
        // mosquitto_sub reconnects by itself, so its end is a refusal or ours.
        let _ = send.send(Event::Closed("mosquitto_sub ended".into()));
    });
    (Body::Process { child, stdin: None, stderr }, events)
}

fn mosquitto_event(line: &str, level: u8, to: &Subscribe) -> Option<Event> {
    if let Some(rest) = line.strip_prefix(">|") {
        let mut fields = rest.splitn(5, '|');
        let qos = fields.next()?.parse().ok()?;
        let retain = fields.next()? == "1";
        let raw = unhex(fields.next()?)?;
        let content_type = Some(fields.next()?.to_owned()).filter(|t| !t.is_empty());
        let topic = fields.next()?.to_owned();
        return Some(Event::Message(Message::mqtt(to, level, topic, raw, (qos, retain), content_type)));
    }
    // "Subscribed (mid: 1): 0"
    let code: i64 =
        line.strip_prefix("Subscribed (mid: ")?.split_once("): ")?.1.split(',').next()?.trim().parse().ok()?;
    Some(if code < 0x80 {
        Event::Ready
    } else {
        Event::Error { reason: "subscription refused".into(), code: Some(code) }
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
