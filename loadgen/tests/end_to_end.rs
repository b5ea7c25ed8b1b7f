//! The generator against the real server, on both runtimes; and against one that loses, doubles and swaps messages.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The server, beside the generator.
fn server() -> PathBuf {
    static BUILT: Once = Once::new();
    let path = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("tablecast");
    BUILT.call_once(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--bin", "tablecast", "--manifest-path", manifest]);
        if !path.parent().is_some_and(|folder| folder.ends_with("debug")) {
            command.arg("--release");
        }
        assert!(command.status().expect("run cargo").success());
    });
    path
}

fn loadgen(arguments: &[&str]) -> Output {
    server();
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().expect("run loadgen")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a scenario and gives its figures. It must be fine.
fn figures(scenario: &str, changes: &[&str], more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("figures.json");
    let mut arguments = vec!["run", scenario, "--json", json.to_str().expect("UTF-8")];
    changes.iter().for_each(|change| arguments.extend(["--set", change]));
    arguments.extend(["--set", "seconds=0.5", "--set", "warmup=0.2"]);
    arguments.extend(more);
    let output = loadgen(&arguments);
    assert!(output.status.success(), "{scenario}: {}", told(&output));
    let text = std::fs::read_to_string(json).expect("figures");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    figures[0].clone()
}

fn count(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} in {figures}"))
}

/// How long was measured.
fn seconds(figures: &Value) -> f64 {
    figures["seconds"].as_f64().expect("a time")
}

fn is_about(count: u64, expected: f64) -> bool {
    (0.75..1.25).contains(&(count as f64 / expected))
}

fn fan_out(more: &[&str], scenarios: &[&str]) {
    for scenario in scenarios {
        let found = figures(scenario, &["subscribers=50"], more);
        let (sent, delivered) = (count(&found, "sent"), count(&found, "delivered"));
        assert!(sent > 20 && delivered > 25 * sent, "{scenario}: {sent} sent, {delivered} delivered");
        assert!(found["operations_per_cpu_s"].as_f64().expect("a figure") > 0.0);
    }
}

#[test]
fn fan_out_by_every_protocol() {
    fan_out(&[], &["fan-out", "fan-out-sse", "fan-out-websocket", "fan-out-mqtt-websocket", "fan-out-qos1"]);
    fan_out(&[], &["fan-out-single"]);
}

/// A WebSocket's messages are acknowledged by their numbers, those of MQTT in one by their packet identifiers.
#[test]
fn publishers_in_web_sockets() {
    for protocol in ["web-socket", "mqtt4-web-socket", "mqtt5-web-socket"] {
        let publish = format!("publish=[\"{protocol}\"]");
        let found = figures("ingest", &[&publish, "publishers=4", "topics=100", "in_flight=16"], &[]);
        assert!(count(&found, "answered") > 100, "{protocol}: {found}");
        let found = figures("pairs", &[&publish, "publishers=5", "subscribers=5", "topics=5", "qos=2"], &[]);
        assert!(count(&found, "delivered") > 20, "{protocol}: {found}");
    }
}

#[test]
fn the_floor_does_the_least() {
    fan_out(&["--server", "floor"], &["fan-out", "fan-out-single"]);
}

#[test]
fn the_other_runtime_does_the_same() {
    let glommio = ["--runtime", "glommio"];
    fan_out(&glommio, &["fan-out-qos1", "fan-out-sse"]);
    assert!(count(&figures("reads", &[], &glommio), "answered") > 50);
    assert!(count(&figures("puts", &["rate=200"], &glommio), "answered") > 50);
}

#[test]
fn many_to_many_and_many_to_one() {
    for scenario in ["pairs", "pairs-qos1", "funnel"] {
        let found = figures(scenario, &["publishers=10", "topics=10"], &[]);
        assert!(count(&found, "delivered") > 100, "{scenario}: {found}");
    }
}

/// Publishers wait for deliveries though subscribers are on several threads, and though their topics have different
/// numbers of them.
#[test]
fn several_cores_and_topics_that_differ() {
    let cores = ["--cores", "0,1"];
    let uneven = ["publishers=2", "topics=5", "subscribers=7", "in_flight=8"];
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("fan-out", &["subscribers=51"], &cores),
        ("pairs", &["publishers=11", "topics=11", "subscribers=11"], &cores),
        ("funnel", &["publishers=10", "topics=10"], &cores),
        ("fan-out", &uneven, &[]),
    ];
    for (scenario, changes, more) in cases {
        let found = figures(scenario, changes, more);
        assert!(count(&found, "delivered") > 1000, "{scenario}: {found}");
        // Nothing waits for long (in microseconds) behind a window of 32.
        assert!(found["latency"]["max"].as_f64().expect("a time") < 5e5, "{scenario}: {found}");
    }
}

#[test]
fn writes_reads_and_connections() {
    for scenario in ["ingest", "puts", "reads", "connect"] {
        let found = figures(scenario, &["topics=100"], &[]);
        assert!(count(&found, "answered") > 50, "{scenario}: {found}");
    }
    let found = figures("reads", &["rate=2000", "in_flight=8"], &[]);
    assert!(is_about(count(&found, "answered"), 2000.0 * seconds(&found)), "{found}");
    let idle = figures("idle", &["subscribers=500"], &[]);
    assert!((1.0..50_000.0).contains(&idle["bytes_per_connection"].as_f64().expect("a figure")), "{idle}");
    let resumed = figures("resume", &["subscribers=10", "messages=200"], &[]);
    assert_eq!(count(&resumed, "delivered"), 2000);
}

#[test]
fn qos_2_and_all_protocols_at_once() {
    let found = figures("pairs", &["publishers=5", "subscribers=5", "topics=5", "qos=2"], &[]);
    assert!(count(&found, "delivered") > 20, "{found}");
    let found = figures("mixed", &["rate=300", "subscribers=42"], &[]);
    // Each topic has six subscribers.
    let (sent, delivered) = (count(&found, "sent"), count(&found, "delivered"));
    assert!(is_about(sent, 300.0 * seconds(&found)) && is_about(delivered, 6.0 * sent as f64), "{found}");
}

#[test]
fn a_schedule_is_kept_and_lost_connections_are_made_again() {
    let found = figures("fan-out-latency", &["subscribers=20", "rate=1000", "burst=10"], &[]);
    assert!(is_about(count(&found, "sent"), 1000.0 * seconds(&found)), "{found}");
    let stormy = ["subscribers=20", "cut_every=0.2"];
    let found = figures("storm", &stormy, &["--set", "seconds=1.5"]);
    assert!(count(&found, "reconnects") > 20, "{found}");
    // Streams of events go on where they were: nothing is missing, and nothing comes twice.
    let streams = ["subscribe=[\"sse\"]", "promise=exactly-once", "subscribers=20", "cut_every=0.2"];
    let found = figures("storm", &streams, &["--set", "seconds=1.5"]);
    assert!(count(&found, "reconnects") > 20, "{found}");
    let slow = ["subscribers=10", "slow_readers=2", "stuck_readers=2", "rate=200"];
    let found = figures("slow", &slow, &[]);
    assert!(found["slow"]["delivered"].as_u64().expect("a count") < count(&found, "delivered") / 2, "{found}");
}

/// What stands between the generator and the server, and what it does to every so many messages.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Lose,
    Double,
    Swap,
    Damage,
}

/// The length of the packet at the start of the bytes, if it is whole.
fn packet(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            return Some(index + 1 + length).filter(|end| *end <= bytes.len());
        }
    }
    None
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, fault: Option<Fault>, seen: &AtomicU64) -> std::io::Result<()> {
    let (mut bytes, mut part, mut kept) = (Vec::new(), [0; 4096], Vec::new());
    loop {
        let count = from.read(&mut part)?;
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        bytes.extend_from_slice(&part[..count]);
        while let Some(end) = packet(&bytes) {
            let own: Vec<u8> = bytes.drain(..end).collect();
            let is_due = own[0] >> 4 == 3 && seen.fetch_add(1, Ordering::Relaxed) % 40 == 20;
            match fault.filter(|_| is_due) {
                Some(Fault::Lose) => {}
                Some(Fault::Double) => to.write_all(&own.repeat(2))?,
                Some(Fault::Swap) => kept = own,
                Some(Fault::Damage) => {
                    let at = own.len() - 5;
                    to.write_all(&[&own[..at], b"!", &own[at + 1..]].concat())?;
                }
                None => {
                    to.write_all(&own)?;
                    to.write_all(&std::mem::take(&mut kept))?;
                }
            }
        }
    }
}

fn proxy(server: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).expect("connect to the server");
            let (client_too, server_too) = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
            thread::spawn(move || pass_on(client, server, None, &AtomicU64::new(0)));
            thread::spawn(move || pass_on(server_too, client_too, Some(fault), &AtomicU64::new(0)));
        }
    });
    address
}

#[test]
fn broken_promises_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(server())
        .args(["run", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--mqtts", "off", "--https", "off", "--data"])
        .arg(folder.path().join("data"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start the server");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let address = lines.find_map(|line| line.expect("text").strip_prefix("listening mqtt ").map(str::to_owned));
    let address: SocketAddr = address.expect("an MQTT address").parse().expect("an address");
    let faults = [(Fault::Lose, "lost"), (Fault::Double, "duplicated"), (Fault::Swap, "out of order")];
    for (fault, word) in faults.into_iter().chain([(Fault::Damage, "came damaged")]) {
        let profile = folder.path().join("proxy.toml");
        let proxy = proxy(address, fault);
        let text = format!("[target]\nmqtt = \"{proxy}\"\ntopic = \"Sensors/{{topic}}\"\n");
        std::fs::write(&profile, text).expect("write the profile");
        let profile = profile.to_str().expect("UTF-8");
        let short = ["-s", "seconds=0.3", "-s", "warmup=0", "-s", "subscribers=3", "-s", "rate=500"];
        let promise = if fault == Fault::Lose { "promise=at-least-once" } else { "promise=exactly-once" };
        let output = loadgen(&[&["run", "fan-out", "--server", profile, "-s", promise], &short[..]].concat());
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let told = text.lines().skip_while(|line| !line.contains("PROMISE NOT KEPT") && !line.contains("PROBLEMS"));
        assert!(told.collect::<String>().contains(word), "{text}");
    }
    child.kill().and_then(|()| child.wait()).expect("end the server");
}

#[test]
fn reports_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (html, svg, hdr) = (path("page.html"), path("plots.svg"), path("latency.hlog"));
    let files = ["--html", &html, "--svg", &svg, "--hdr", &hdr];
    figures("fan-out-latency", &["subscribers=20"], &files);
    let read = |path: &str| std::fs::read_to_string(path).expect("a report");
    let page = read(&html);
    assert!(page.contains("Latency by percentile") && page.contains("Done per second") && page.ends_with("</html>\n"));
    let plots = read(&svg);
    assert!(plots.starts_with("<svg") && page.contains(&plots), "one picture, in the page as well");
    assert_eq!((plots.matches("<svg").count(), plots.matches("<g ").count(), plots.matches("</g>").count()), (1, 2, 2));
    // HdrHistogram's own format: a compressed histogram begins so in base 64.
    assert!(read(&hdr).contains("HISTFAAA"), "{}", read(&hdr));
}

#[test]
fn a_server_beside_itself_is_its_equal() {
    let server = format!("tablecast={}", server().display());
    let changes = ["-s", "seconds=0.3", "-s", "warmup=0.1", "-s", "subscribers=50", "--rounds", "5"];
    let budget = ["--budget", "per-cpu=3", "--budget", "p99=20"];
    let servers = ["compare", "fan-out-qos1", "--server", &server, "--server", "tablecast"];
    let output = loadgen(&[&servers[..], &changes, &budget].concat());
    let text = told(&output);
    assert!(output.status.success() && text.contains("with 94 % confidence"), "{text}");
}

/// The same server, slowed by an emulator, is over its budget.
#[test]
fn a_slowed_server_is_over_budget() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (slowed, bare) = (folder.path().join("slowed"), folder.path().join("bare"));
    // The emulator reads what there is for debuggers first, which takes long.
    assert!(Command::new("strip").arg(server()).arg("-o").arg(&bare).status().expect("run strip").success());
    let script = format!("#!/bin/sh\nexec valgrind --quiet --tool=none {} \"$@\" --io epoll\n", bare.display());
    std::fs::write(&slowed, script).expect("write the script");
    std::fs::set_permissions(&slowed, std::fs::Permissions::from_mode(0o755)).expect("make it a program");
    let server = format!("tablecast={}", slowed.display());
    let history = folder.path().join("history.csv");
    let history = history.to_str().expect("UTF-8");
    let servers = ["compare", "reads", "--server", &server, "--server", "tablecast", "--history", history];
    let short = ["-s", "seconds=0.3", "-s", "warmup=0.1", "-s", "subscribers=4", "--rounds", "5"];
    let output = loadgen(&[&servers[..], &short, &["--budget", "per-cpu=1.5"]].concat());
    let text = told(&output);
    assert!(output.status.code() == Some(1) && text.contains("OVER BUDGET"), "{text}");
    let svg = folder.path().join("history.svg");
    // A budget of what is not measured is no budget.
    let unmeasured = ["--rounds", "5", "-s", "seconds=0.1", "-s", "warmup=0", "--budget", "bytes-per-connection=2"];
    let output =
        loadgen(&[&["compare", "reads", "--server", "tablecast", "--server", "tablecast"], &unmeasured[..]].concat());
    let text = told(&output);
    assert!(output.status.code() == Some(2) && text.contains("does not come out of scenario reads"), "{text}");
    let output = loadgen(&["plot", history, svg.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", told(&output));
    let plot = std::fs::read_to_string(svg).expect("a plot");
    assert!(plot.contains("reads, per CPU second") && plot.contains("<polyline"), "{plot}");
}

#[test]
fn mistakes_are_named() {
    let cases: [(&[&str], &str); 6] = [
        (&["run", "nonsense"], "ready-made ones are"),
        (&["run", "fan-out", "-s", "qos=7"], "qos is 7"),
        (&["run", "fan-out", "--server", "nonsense"], "ready-made profiles are"),
        (&["run", "fan-out", "--server", "tablecast=/bin/false"], "it has ended"),
        (&["compare", "fan-out", "--server", "a", "--server", "b", "--budget", "x=2"], "expected figure=factor"),
        (
            &["compare", "reads", "--server", "a", "--server", "b", "--rounds", "4", "--budget", "p99=2"],
            "takes 5 rounds",
        ),
    ];
    for (arguments, expected) in cases {
        let output = loadgen(arguments);
        let text = told(&output);
        assert!(output.status.code() == Some(2) && text.contains(expected), "{arguments:?}: {text}");
    }
}
