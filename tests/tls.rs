//! TLS as clients see it: HTTPS with all that is spoken over it, MQTT over TLS, certificates on both sides, and what
//! happens when they are replaced, wrong, or never come (promises 14 and 19).

mod common;

use common::clients;
use common::http::Connection;
use common::tls::{Ca, Pair};
use common::wire::{self, Mqtt, Sse, WebSocket};
use common::{Options, PATIENCE, Server, eventually, poll};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion};
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const SHARDS: [usize; 3] = [1, 2, 4];
/// How long a handshake may take, and half a second more.
const HANDSHAKE: Duration = Duration::from_millis(5500);

/// Options of a server with this certificate.
fn options(pair: &Pair) -> Options {
    options_at("127.0.0.1:0", pair)
}

fn options_at(address: &str, pair: &Pair) -> Options {
    let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
    let listeners = ["--https", address, "--mqtts", address];
    Options::default().args(&["--tls-certificate", &certificate, "--tls-key", &key]).args(&listeners)
}

fn with_clients(options: Options, ca: &Ca, whether: &str) -> Options {
    options.args(&["--tls-client-ca", &ca.file().display().to_string(), "--tls-client-auth", whether])
}

fn start(ca: &Ca, shards: usize) -> Server {
    Server::start(options(&ca.server("server")).shards(shards))
}

fn https(server: &Server) -> SocketAddr {
    server.listener("https")
}

fn mqtts(server: &Server) -> SocketAddr {
    server.listener("mqtts")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    clients::setup();
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// What curl prints for a request to the server's HTTPS port.
#[track_caller]
fn curl(server: &Server, ca: &Ca, path: &str, arguments: &[&str]) -> Output {
    let url = format!("https://localhost:{}{path}", https(server).port());
    let file = ca.file().display().to_string();
    run("curl", &[&["-sS", "--max-time", "20", "--cacert", &file, &url], arguments].concat())
}

#[track_caller]
fn printed(output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.into_owned()
}

#[test]
fn curl_speaks_https() {
    let ca = Ca::new();
    for shards in SHARDS {
        let server = start(&ca, shards);
        let large = json!({ "text": "x".repeat(1_000_000) });
        let file = ca.folder().join("large.json");
        fs::write(&file, large.to_string()).expect("write a document");
        let versions: [&[&str]; 2] = [&["--tlsv1.2", "--tls-max", "1.2"], &["--tlsv1.3"]];
        for (at, version) in versions.into_iter().enumerate() {
            let path = format!("/Sensors/curl-{at}");
            let put = ["-X", "PUT", "-H", "Content-Type: application/json", "-w", "%{http_code}", "--data-binary"];
            let body = format!("{{\"temp\":{at}}}");
            let put = |body: &str| printed(curl(&server, &ca, &path, &[&put[..], &[body], version].concat()));
            assert_eq!(put(&body), "204");
            let got: Value = serde_json::from_str(&printed(curl(&server, &ca, &path, version))).expect("JSON");
            assert_eq!(got["temp"], at);
            assert_eq!(put(&format!("@{}", file.display())), "204");
            let got: Value = serde_json::from_str(&printed(curl(&server, &ca, &path, version))).expect("JSON");
            assert_eq!(got["text"], large["text"]);
        }
        // Events of a stream come out of curl as they happen: it is ended by its time, which is not an error here.
        let url = format!("https://localhost:{}/Sensors/live", https(&server).port());
        let mut stream = Command::new("curl")
            .args(["-sSN", "--max-time", "20", "--cacert", &ca.file().display().to_string(), &url])
            .args(["-H", "Accept: text/event-stream"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("curl");
        let lines = common::lines::lines(stream.stdout.take().expect("piped"));
        let mut writer = Connection::open_tls(https(&server), &ca.config());
        let mut seen = Vec::new();
        // Until the stream is there, writes are not events but its first state.
        poll(PATIENCE, || {
            let body = json!({ "n": seen.len() }).to_string();
            assert_eq!(writer.request("PUT", "/Sensors/live", JSON, body.as_bytes()).status, 204);
            seen.extend(lines.try_iter().filter(|line| line.starts_with("data: ")));
            (seen.len() >= 5).then_some(())
        });
        stream.kill().expect("end curl");
        stream.wait().expect("curl");
        assert!(seen.len() >= 5 && seen.iter().all(|line| line.contains("\"id\":\"live\"")), "{seen:?}");
    }
}

#[test]
fn mosquitto_speaks_mqtts() {
    let ca = Ca::new();
    let file = ca.file().display().to_string();
    for shards in SHARDS {
        let server = start(&ca, shards);
        let port = mqtts(&server).port().to_string();
        for version in ["tlsv1.2", "tlsv1.3"] {
            let common = ["-h", "localhost", "-p", &port, "--cafile", &file, "--tls-version", version, "-q", "1"];
            let publish = |id: &str, more: &[&str]| {
                let topic = format!("Sensors/{version}-{id}");
                let arguments = ["-t", &topic, "-r", "-m", "{\"temp\":7}"];
                run("mosquitto_pub", &[&common[..], &arguments, more].concat())
            };
            printed(publish("a", &["-V", "5"]));
            printed(publish("b", &["-V", "311"]));
            let filter = ["-t", "Sensors/#", "-v", "-C", "2", "-W", "20"];
            let text = printed(run("mosquitto_sub", &[&common[..], &filter].concat()));
            assert_eq!(text.lines().filter(|line| line.contains("\"temp\":7")).count(), 2, "{text}");
        }
    }
}

const PAHO: &str = r#"
import sys, paho.mqtt.client as mqtt
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport=sys.argv[3], protocol=mqtt.MQTTv5)
c.tls_set(ca_certs=sys.argv[2])
c.on_connect = lambda c, *_: c.subscribe("Sensors/paho", 1)
c.on_subscribe = lambda c, *_: c.publish("Sensors/paho", '{"by":"paho"}', qos=1, retain=True)
def on_message(c, _, m):
    print(m.payload.decode())
    c.disconnect()
c.on_message = on_message
c.connect("localhost", int(sys.argv[1]))
c.loop_forever()
"#;

const MQTT_JS: &str = r#"
import mqtt from 'mqtt';
import WebSocket from 'ws';
import fs from 'node:fs';
const [port, file] = process.argv.slice(1);
const ca = fs.readFileSync(file);
const records = new WebSocket(`wss://localhost:${port}/Sensors/js`, { ca });
await new Promise(open => records.once('open', open));
const client = await mqtt.connectAsync(`wss://localhost:${port}/mqtt`, { ca });
const seen = new Promise(seen => records.on('message', data => seen(JSON.parse(data))));
await client.subscribeAsync('Sensors/js', { qos: 1 });
const got = new Promise(got => client.on('message', (_, payload) => got(payload)));
await client.publishAsync('Sensors/js', '{"by":"mqtt.js"}', { qos: 1, retain: true });
console.log(JSON.stringify([JSON.parse(await got).by, (await seen).value.by]));
await client.endAsync();
records.close();
"#;

#[test]
fn mqtt_and_records_over_secure_web_sockets() {
    let ca = Ca::new();
    let clients = clients::setup();
    let file = ca.file().display().to_string();
    for shards in SHARDS {
        let server = start(&ca, shards);
        let (https, mqtts) = (https(&server).port().to_string(), mqtts(&server).port().to_string());
        let python = clients.python.display().to_string();
        for (port, transport) in [(&https, "websockets"), (&mqtts, "tcp")] {
            let text = printed(run(&python, &["-c", PAHO, port, &file, transport]));
            assert!(text.contains("\"by\":\"paho\""), "{text}");
        }
        let mut node = Command::new("node");
        node.args(["--input-type=module", "-e", MQTT_JS, &https, &file]).current_dir(&clients.node);
        assert_eq!(printed(node.output().expect("node")), "[\"mqtt.js\",\"mqtt.js\"]\n");
    }
}

/// Sizes around the edges of records and of what one send holds, in both versions.
#[test]
fn bodies_of_every_size() {
    let ca = Ca::new();
    let server = start(&ca, 2);
    for version in rustls::ALL_VERSIONS {
        let config = Arc::new(ca.config_with(&[version], None));
        let mut rest = Connection::open_tls(https(&server), &config);
        let mut mqtt = Mqtt::over(Connection::open_tls(mqtts(&server), &config), 5, "sizes");
        let mut watcher = Mqtt::over(Connection::open_tls(mqtts(&server), &config), 4, "watcher");
        assert_eq!(watcher.subscribe(1, &[(&format!("Sensors/{:?}/+", version.version), 0)]), [0]);
        for (n, size) in [1, 4_000, 16_300, 16_384, 16_500, 65_536, 70_000, 131_072, 1_000_000].into_iter().enumerate()
        {
            let id = format!("{:?}/{size}", version.version);
            let body = json!({ "text": "y".repeat(size) }).to_string();
            let path = format!("/Sensors/{id}");
            assert_eq!(rest.request("PUT", &path, JSON, body.as_bytes()).status, 204);
            assert_eq!(rest.request("GET", &path, &[], b"").json()["text"].as_str().map(str::len), Some(size));
            let message = watcher.expect_message();
            assert!(message.topic.ends_with(&id) && message.payload.len() > size, "{}", message.topic);
            mqtt.put(&format!("Sensors/{id}"), body.as_bytes(), n as u16 + 1);
            assert!(watcher.expect_message().payload.len() > size);
        }
        // Many requests in one piece: their answers are more than one send.
        let path = format!("/Sensors/{:?}/70000", version.version);
        let many = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(100);
        rest.within(PATIENCE).send(many.as_bytes());
        for _ in 0..100 {
            assert_eq!(rest.response(false).expect("an answer").json()["text"].as_str().map(str::len), Some(70_000));
        }
    }
}

#[test]
fn versions_protocols_and_tickets() {
    let ca = Ca::new();
    let server = start(&ca, 2);
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        for (addr, protocol, other) in [(https(&server), "http/1.1", "mqtt"), (mqtts(&server), "mqtt", "http/1.1")] {
            let mut config = ca.config_with(&[version], None);
            // Each is refused that is meant for another protocol; who names none is not.
            config.alpn_protocols = vec![other.into()];
            assert!(Connection::try_open_tls(addr, &Arc::new(config.clone())).is_err(), "{other} at {protocol}");
            assert_eq!(
                Connection::open_tls(addr, &Arc::new(ca.config_with(&[version], None))).tls().alpn_protocol(),
                None
            );
            config.alpn_protocols = vec!["h2".into(), protocol.into()];
            let config = Arc::new(config);
            let mut kinds = Vec::new();
            for _ in 0..3 {
                let mut connection = Connection::open_tls(addr, &config);
                assert_eq!(connection.tls().protocol_version(), Some(expected));
                assert_eq!(connection.tls().alpn_protocol(), Some(protocol.as_bytes()));
                kinds.push(connection.tls().handshake_kind());
                // Tickets of 1.3 come with what follows the handshake.
                if protocol == "mqtt" {
                    Mqtt::over(connection, 4, "tickets").ping();
                } else {
                    assert_eq!(connection.request("GET", "/Sensors/none", &[], b"").status, 404);
                }
            }
            use HandshakeKind::{Full, Resumed};
            assert_eq!(kinds, [Some(Full), Some(Resumed), Some(Resumed)], "{expected:?} {protocol}");
        }
    }
}

#[test]
fn a_thousand_subscribers_get_everything() {
    const SUBSCRIBERS: usize = 1000;
    const MESSAGES: usize = 20;
    tablecast::reactor::raise_descriptor_limit();
    let ca = Ca::new();
    for shards in SHARDS {
        let server = start(&ca, shards);
        let config = ca.config();
        let memory = || {
            let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
            let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
            line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).expect("a number")
        };
        let before = memory();
        let mut subscribers: Vec<Mqtt> = (0..SUBSCRIBERS)
            .map(|n| Mqtt::over(Connection::open_tls(mqtts(&server), &config), 4, &format!("subscriber-{n}")))
            .collect();
        let idle = (memory().saturating_sub(before)) as f64 / SUBSCRIBERS as f64;
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.subscribe(1, &[("Sensors/+", 0)]), [0]);
        }
        let mut publisher = Mqtt::over(Connection::open_tls(mqtts(&server), &config), 4, "publisher");
        let started = Instant::now();
        for n in 0..MESSAGES {
            let padding = "z".repeat(if n == 7 { 100_000 } else { 100 });
            publisher.put("Sensors/all", json!({ "n": n, "padding": padding }).to_string().as_bytes(), n as u16 + 1);
        }
        for subscriber in &mut subscribers {
            for n in 0..MESSAGES {
                let message: Value = serde_json::from_slice(&subscriber.expect_message().payload).expect("JSON");
                assert_eq!(message["n"], n);
            }
        }
        println!("{shards} shards: {idle:.1} KiB a connection, {:?} for all", started.elapsed());
    }
}

#[test]
fn a_server_of_another_ca_is_refused_by_its_clients() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut server = start(&ca, 1);
    let output = curl(&server, &other, "/Sensors/", &[]);
    assert_eq!(output.status.code(), Some(60), "curl refuses the certificate: {output:?}");
    let port = mqtts(&server).port().to_string();
    let file = other.file().display().to_string();
    let publish = ["-h", "localhost", "-p", &port, "--cafile", &file, "-t", "Sensors/x", "-m", "{}"];
    assert!(!run("mosquitto_pub", &publish).status.success());
    // Their alerts end the connections, and are said.
    eventually("the reason in the log", PATIENCE, || server.stderr().contains("UnknownCA").then_some(()));
    assert!(server.alive());
}

#[test]
fn clients_show_certificates() {
    let (ca, other) = (Ca::new(), Ca::new());
    let pair = ca.server("server");
    let configs = |own: Option<&Pair>| {
        [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| Arc::new(ca.config_with(&[version], own)))
    };
    let admits = |server: &Server, config: &Arc<ClientConfig>| {
        // With 1.3 the client learns of the server's refusal only when it reads.
        let Ok(mut rest) = Connection::try_open_tls(https(server), config) else { return false };
        let answer = rest.try_request("GET", "/Sensors/none", &[], b"");
        answer.is_ok_and(|answer| answer.status == 404) && {
            Mqtt::over(Connection::open_tls(mqtts(server), config), 5, "client").ping();
            true
        }
    };
    for (whether, expected_without) in [("required", false), ("optional", true), ("none", true)] {
        let server = Server::start(with_clients(options(&pair), &ca, whether));
        let cases = [
            (configs(Some(&ca.client("device-7", 2100))), true),
            (configs(None), expected_without),
            // One that is shown and not valid is worse than none.
            (configs(Some(&ca.client("old", 2001))), whether == "none"),
            (configs(Some(&other.client("stranger", 2100))), whether == "none"),
            (configs(Some(&pair)), whether == "none"),
        ];
        for (n, (configs, expected)) in cases.iter().enumerate() {
            for config in configs {
                // Twice: the second time the session is taken up again.
                for _ in 0..2 {
                    assert_eq!(admits(&server, config), *expected, "{whether}, case {n}");
                }
            }
        }
    }
    let server = Server::start(with_clients(options(&pair), &ca, "required"));
    assert!(!curl(&server, &ca, "/Sensors/none", &[]).status.success());
    let own = ca.client("curl", 2100);
    let (certificate, key) = (own.certificate.display().to_string(), own.key.display().to_string());
    let text = printed(curl(&server, &ca, "/Sensors/none", &["--cert", &certificate, "--key", &key, "-o", "-", "-I"]));
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
}

/// From another address than loopback only who has a name in a certificate may come in.
#[test]
fn a_certificate_admits_from_elsewhere() {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let own = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
    let Some(own) = own.ok().filter(|own| !own.ip().is_loopback()) else {
        return println!("this machine has no address but loopback: nothing to see");
    };
    let ca = Ca::new();
    let public = options_at("0.0.0.0:0", &ca.server("server"));
    let refused = Server::try_start(with_clients(public.clone(), &ca, "optional"));
    let why = refused.expect_err("everybody could come");
    assert!(why.contains("https.address: 0.0.0.0:0") && why.contains("tls.clientAuth: required"), "{why}");
    let server = Server::start(with_clients(public, &ca, "required"));
    let addr = |listener: SocketAddr| SocketAddr::new(own.ip(), listener.port());
    for (name, status, code) in [("device-7", 404, 0), ("", 401, 4)] {
        let config = Arc::new(ca.config_with(rustls::DEFAULT_VERSIONS, Some(&ca.client(name, 2100))));
        for _ in 0..2 {
            let mut rest = Connection::open_tls(addr(https(&server)), &config);
            let request = [("Host", "localhost")];
            assert_eq!(rest.request("GET", "/Sensors/none", &request, b"").status, status, "{name:?}");
            let mut mqtt = Connection::open_tls(addr(mqtts(&server)), &config);
            mqtt.send(&wire::connect_as(4, "elsewhere"));
            assert_eq!(mqtt.take(4).expect("CONNACK"), [0x20, 2, 0, code], "{name:?}");
        }
    }
}

/// The certificate that a new connection is shown.
fn shown(server: &Server, ca: &Ca) -> Vec<u8> {
    let mut connection = Connection::open_tls(https(server), &ca.config());
    connection.tls().peer_certificates().expect("a certificate")[0].to_vec()
}

#[test]
fn certificates_are_replaced_while_it_runs() {
    let ca = Ca::new();
    let pair = ca.server("server");
    let mut server = Server::start(options(&pair));
    let mut mqtt = Mqtt::over(Connection::open_tls(mqtts(&server), &ca.config()), 5, "stays");
    let mut sse = Sse::over(Connection::open_tls(https(&server), &ca.config()), https(&server), "/Sensors/r");
    let first = shown(&server, &ca);
    let stays = |mqtt: &mut Mqtt, sse: &mut Sse, n: u16| {
        mqtt.put("Sensors/r", json!({ "n": n }).to_string().as_bytes(), n);
        assert!(sse.expect().contains(&format!("\"n\":{n}")), "{n}");
    };
    let log_after = |server: &Server, from: usize, text: &str| {
        eventually(text, PATIENCE, || server.stderr()[from..].contains(text).then_some(()));
    };
    stays(&mut mqtt, &mut sse, 1);

    let replaced = ca.server("server"); // the same files
    assert_eq!(replaced.certificate, pair.certificate);
    assert_eq!(shown(&server, &ca), first, "not before it is told to");
    server.signal(libc::SIGHUP);
    log_after(&server, 0, "read again");
    let second = shown(&server, &ca);
    assert_ne!(second, first);
    stays(&mut mqtt, &mut sse, 2);

    let (certificate, key) = (fs::read(&pair.certificate).expect("read"), fs::read(&pair.key).expect("read"));
    let name = pair.certificate.display().to_string();
    let cut = &certificate[..certificate.len() - 40];
    let other_key = fs::read(ca.client("other", 2100).key).expect("read");
    for (n, (content, other, expected)) in [
        (Some(&b""[..]), None, format!("{name}: holds no certificate")),
        (Some(cut), None, format!("{name}:1: BEGIN CERTIFICATE has no END")),
        (None, None, format!("{name}: No such file")),
        (Some(&certificate[..]), Some(other_key), format!("{}:1: is not the key", pair.key.display())),
    ]
    .into_iter()
    .enumerate()
    {
        let from = server.stderr().len();
        match content {
            Some(content) => fs::write(&pair.certificate, content).expect("write"),
            None => fs::remove_file(&pair.certificate).expect("remove"),
        }
        fs::write(&pair.key, other.as_ref().unwrap_or(&key)).expect("write");
        server.signal(libc::SIGHUP);
        log_after(&server, from, &expected);
        assert_eq!(shown(&server, &ca), second, "{expected}");
        stays(&mut mqtt, &mut sse, 3 + n as u16);
    }
    fs::write(&pair.certificate, &certificate).expect("write");
    fs::write(&pair.key, &key).expect("write");

    // No descriptor is free to open a file with.
    let limit = |limit: &str| {
        printed(run("prlimit", &["--pid", &server.pid().to_string(), &format!("--nofile={limit}:")]));
    };
    let from = server.stderr().len();
    ca.server("server");
    limit("4");
    server.signal(libc::SIGHUP);
    log_after(&server, from, "Too many open files");
    stays(&mut mqtt, &mut sse, 20);
    limit("4096");
    assert_eq!(shown(&server, &ca), second);
    let from = server.stderr().len();
    server.signal(libc::SIGHUP);
    log_after(&server, from, "read again");
    assert!(![first, second].contains(&shown(&server, &ca)));
    stays(&mut mqtt, &mut sse, 21);
    assert!(server.alive());
}

/// Sessions of before a reload are not taken up again, so that a client CA that was replaced vouches for nobody.
#[test]
fn a_client_ca_is_replaced() {
    let (ca, next) = (Ca::new(), Ca::new());
    let roots = ca.folder().join("clients.pem");
    fs::copy(ca.file(), &roots).expect("copy");
    let arguments = ["--tls-client-auth", "required", "--tls-client-ca", &roots.display().to_string()];
    let server = Server::start(options(&ca.server("server")).args(&arguments));
    let old = Arc::new(ca.config_with(rustls::DEFAULT_VERSIONS, Some(&ca.client("old", 2100))));
    let new = Arc::new(ca.config_with(rustls::DEFAULT_VERSIONS, Some(&next.client("new", 2100))));
    let admits = |config: &Arc<ClientConfig>| {
        let connection = Connection::try_open_tls(https(&server), config);
        connection.is_ok_and(|mut rest| rest.try_request("GET", "/Sensors/none", &[], b"").is_ok())
    };
    assert!(admits(&old) && admits(&old) && !admits(&new));
    fs::copy(next.file(), &roots).expect("copy");
    server.signal(libc::SIGHUP);
    eventually("read again", PATIENCE, || server.stderr().contains("read again").then_some(()));
    assert!(!admits(&old) && admits(&new));
}

/// The first bytes that a client sends.
fn hello(ca: &Ca) -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let mut tls = rustls::ClientConnection::new(ca.config(), name).expect("a client");
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// Whether the server closes within the time.
fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a time");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn slow_clients_are_cut() {
    let ca = Ca::new();
    let server = start(&ca, 2);
    let hello = hello(&ca);
    let started = Instant::now();
    let left = |started: Instant, time: Duration| time.saturating_sub(started.elapsed());
    let connect = |addr| TcpStream::connect(addr).expect("connect");
    // Nothing; a hello and no more; half of one; each to both ports.
    let mut waiting = Vec::new();
    for addr in [https(&server), mqtts(&server)] {
        for bytes in [&b""[..], &hello, &hello[..hello.len() / 2]] {
            let mut stream = connect(addr);
            stream.write_all(bytes).expect("send");
            waiting.push(stream);
        }
    }
    let dripping = std::thread::spawn({
        let (mut stream, addr) = (connect(https(&server)), https(&server));
        move || {
            for byte in hello.iter().cycle().take(12) {
                if stream.write_all(&[*byte]).is_err() || is_closed(&mut stream, Duration::from_secs(1)) {
                    return started.elapsed();
                }
            }
            panic!("{addr} lets a byte a second go on");
        }
    });
    // After the handshake it is the protocol's time that counts: a request head, a CONNECT, each within 5 s.
    let mut head = Connection::open_tls(https(&server), &ca.config());
    head.send(b"GET / HT");
    let mut connect_packet = Connection::open_tls(mqtts(&server), &ca.config());
    connect_packet.send(&[0x10]);
    let mut silent = Connection::open_tls(mqtts(&server), &ca.config());
    let mut served = Mqtt::over(Connection::open_tls(mqtts(&server), &ca.config()), 5, "served");
    for stream in &mut waiting {
        assert!(is_closed(stream, left(started, HANDSHAKE)), "still open after {:?}", started.elapsed());
    }
    assert!(started.elapsed() > Duration::from_secs(4), "not before its time: {:?}", started.elapsed());
    assert!(dripping.join().expect("the slow one") < HANDSHAKE + Duration::from_secs(1));
    for connection in [&mut head, &mut connect_packet, &mut silent] {
        assert!(connection.within(Duration::from_secs(2)).read_to_close(), "with close_notify, in time");
    }
    served.ping();
}

#[test]
fn no_tls_at_all() {
    let ca = Ca::new();
    let mut server = start(&ca, 1);
    // Plain HTTP is told so, in words that it understands.
    let mut plain = Connection::open(https(&server));
    let answer = plain.request("GET", "/Sensors/", &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (400, "This port speaks HTTPS, not plain HTTP\n"));
    assert!(plain.read_to_close());
    // Others get an alert, which is not TLS's alone to understand, and the end.
    let garbage = [&wire::connect_as(4, "plain")[..], &[0; 64], b"\x16\x03\x01\xff\xff", &[0xff; 3000]];
    for (at, bytes) in garbage.iter().enumerate() {
        for addr in [https(&server), mqtts(&server)] {
            let mut connection = Connection::open(addr);
            connection.within(Duration::from_secs(4)).send(bytes);
            assert!(connection.read_to_close(), "{at} at {addr}");
            let rest = connection.rest();
            assert!(rest.is_empty() || rest[0] == 21, "{at}: {}", rest.escape_ascii());
        }
    }
    // Bytes that are spoilt on their way, after the handshake.
    let mut mqtt = Mqtt::over(Connection::open_tls(mqtts(&server), &ca.config()), 5, "spoilt");
    mqtt.ping();
    mqtt.connection
        .stream()
        .write_all(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
        .expect("send");
    let error = mqtt.next().expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    assert!(server.alive());
}

/// The server must see each end of a connection for what it is.
#[test]
fn ends_are_announced() {
    let ca = Ca::new();
    let server = start(&ca, 2);
    let config = ca.config();
    // The client's close_notify ends its half: what it asked for before is still answered, and the answer is closed.
    let mut rest = Connection::open_tls(https(&server), &config);
    rest.send(b"PUT /Sensors/half HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET /Sensors/half HTTP/1.1\r\nHost: a\r\n\r\n");
    rest.tls().send_close_notify();
    rest.send(b"");
    assert_eq!(rest.within(PATIENCE).response(false).expect("an answer").status, 204);
    assert_eq!(rest.response(false).expect("an answer").status, 200);
    assert!(!rest.fill().expect("close_notify of the server"));
    // The same with all of it in one piece behind the handshake, and the end of the socket behind that.
    for round in 0..20 {
        let mut rest = Connection::open_tls(https(&server), &config);
        rest.send(b"GET /Sensors/half HTTP/1.1\r\nHost: a\r\n\r\n");
        rest.tls().send_close_notify();
        rest.send(b"");
        rest.stream().shutdown(std::net::Shutdown::Write).expect("end");
        assert_eq!(rest.within(PATIENCE).response(false).expect("an answer").status, 200, "{round}");
        assert!(!rest.fill().expect("close_notify of the server"));
    }
    // The server's own end: HTTP says so first.
    let mut rest = Connection::open_tls(https(&server), &config);
    let answer = rest.request("GET", "/Sensors/half", &[("Connection", "close")], b"");
    assert_eq!((answer.status, rest.fill().expect("close_notify")), (200, false));

    // A will is published if the end was not announced by DISCONNECT; also not if TLS's end was missing.
    let mut watcher = Mqtt::over(Connection::open_tls(mqtts(&server), &config), 4, "watcher");
    assert_eq!(watcher.subscribe(1, &[("Sensors/wills", 1)]), [1]);
    let with_will = |name: &str| {
        let mut connection = Connection::open_tls(mqtts(&server), &config);
        let will = [wire::text(name), wire::text("Sensors/wills"), wire::text(format!("{{\"of\":\"{name}\"}}"))];
        connection.send(&wire::connect(4, 2 | 4, 60, &will.concat()));
        assert_eq!(connection.take(4).expect("CONNACK"), [0x20, 2, 0, 0]);
        connection
    };
    let mut polite = with_will("polite");
    polite.send(&[0xe0, 0]);
    polite.tls().send_close_notify();
    polite.send(b"");
    assert!(!polite.within(PATIENCE).fill().expect("close_notify of the server"));
    let cut = with_will("cut");
    cut.stream().shutdown(std::net::Shutdown::Write).expect("cut it off");
    let message = watcher.expect_message();
    assert!(message.payload.starts_with(b"{\"of\":\"cut\""), "{message:?}");
    // Cut off in the middle, a pipelined request is not answered: nobody can know what was to follow.
    let mut rest = Connection::open_tls(https(&server), &config);
    rest.send(b"PUT /Sensors/cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{}");
    rest.stream().shutdown(std::net::Shutdown::Write).expect("cut it off");
    let end = rest.within(PATIENCE).fill();
    assert!(!matches!(end, Ok(true)), "no answer");
    // What was sent before is not lost on the way.
    let mut rest = Connection::open_tls(https(&server), &config);
    assert_eq!(rest.request("GET", "/Sensors/cut", &[], b"").status, 404);
}

#[test]
fn goodbyes_at_the_end_of_the_server() {
    let ca = Ca::new();
    let mut server = start(&ca, 2);
    let config = ca.config();
    let mut mqtt = Mqtt::over(Connection::open_tls(mqtts(&server), &config), 5, "five");
    let mut sse = Sse::over(Connection::open_tls(https(&server), &config), https(&server), "/Sensors/");
    let mut web_socket = WebSocket::over(Connection::open_tls(https(&server), &config), https(&server), "/Sensors/");
    let mut idle = Connection::open_tls(https(&server), &config);
    assert_eq!(idle.request("GET", "/Sensors/none", &[], b"").status, 404);
    let mut stuck = TcpStream::connect(https(&server)).expect("connect");
    stuck.write_all(&hello(&ca)[..20]).expect("send");
    mqtt.ping();
    server.signal(libc::SIGTERM);
    let (first, body) = mqtt.expect();
    assert_eq!((first, body[0]), (0xe0, 0x8b));
    assert!(!mqtt.connection.within(PATIENCE).fill().expect("close_notify"));
    assert_eq!(web_socket.expect_close().0, 1012);
    sse.connection.within(PATIENCE);
    assert_eq!(sse.next().expect("the last chunk"), None);
    assert!(!idle.within(PATIENCE).fill().expect("close_notify"));
    drop((mqtt, sse, web_socket, idle));
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
}

#[test]
fn bad_files_are_named_at_the_start() {
    let ca = Ca::new();
    let pair = ca.server("server");
    let file = |name: &str, content: &[u8]| {
        let path = ca.folder().join(name);
        fs::write(&path, content).expect("write");
        path
    };
    let certificate = fs::read(&pair.certificate).expect("read");
    let spoilt = String::from_utf8_lossy(&certificate).replacen('\n', "\n$\n", 1);
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let with = |certificate: &std::path::Path, key: &std::path::Path| {
        options(&Pair { certificate: certificate.to_owned(), key: key.to_owned() })
    };
    for (options, expected) in [
        (with(&ca.folder().join("none.pem"), &pair.key), "none.pem: No such file or directory"),
        (with(&file("empty.pem", b""), &pair.key), "empty.pem: holds no certificate in PEM"),
        (with(&file("spoilt.pem", spoilt.as_bytes()), &pair.key), "spoilt.pem:2: is not base64"),
        (with(&file("odd.pem", no_certificate.as_bytes()), &pair.key), "odd.pem:1: is not a certificate"),
        (with(&pair.certificate, &pair.certificate), "server.certificate.pem: holds no private key in PEM"),
        (with(&pair.certificate, &file("enc.pem", encrypted.as_bytes())), "enc.pem:1: the key is encrypted"),
        (with(&pair.certificate, &ca.client("other", 2100).key), "other.key.pem:1: is not the key of the first"),
        (
            options(&pair).args(&["--tls-client-ca", &ca.folder().join("no-ca.pem").display().to_string()]),
            "no-ca.pem: No such file or directory",
        ),
        (Options::default().args(&["--https", "127.0.0.1:0"]), "https.address is given without tls.certificate"),
    ] {
        let why = Server::try_start(options).expect_err("it cannot start");
        assert!(why.contains(expected) && why.contains("exit status: 2"), "{expected}: {why}");
    }
    // A key that others may read is used, and said.
    let open = file("open.pem", &fs::read(&pair.key).expect("read"));
    let server = Server::start(with(&pair.certificate, &open));
    let warning = "open.pem: the private key is open to other users (mode 644, expected 600)";
    assert!(server.stderr().contains(warning), "{}", server.stderr());
    let quiet = Server::start(options(&pair));
    assert!(!quiet.stderr().contains("open to other users"), "{}", quiet.stderr());
}

/// The suites are the ones that are safe today; nothing older than TLS 1.2 is spoken.
#[test]
fn old_versions_are_refused() {
    let ca = Ca::new();
    let server = start(&ca, 1);
    let mut connection = Connection::open_tls(https(&server), &ca.config());
    let suite = connection.tls().negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
    let output = curl(&server, &ca, "/", &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]);
    assert_eq!(output.status.code(), Some(35), "{output:?}");
}
