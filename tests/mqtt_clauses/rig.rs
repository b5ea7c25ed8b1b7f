//! Servers for the tests of this suite. Their application exports one table at the root, so that any topic is legal.

use crate::common::{Options, Server};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const SCHEMA: &str = "type Topics @table @export(name: \"\") {\n  id: ID @primaryKey\n}\n";

fn app() -> PathBuf {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-app", env!("CARGO_CRATE_NAME")));
        crate::common::server::write_app(&folder, SCHEMA);
        folder
    })
    .clone()
}

/// A server of one test's own.
#[track_caller]
pub fn own(shards: usize) -> Server {
    own_with(Options::default().shards(shards))
}

#[track_caller]
pub fn own_with(options: Options) -> Server {
    Server::start(Options { app: Some(app()), ..options })
}

/// The server that all tests of a version share: its MQTT and HTTP addresses.
/// MQTT_CLAUSES_BROKER names another broker, to try the tests themselves.
pub fn shared(level: u8) -> SocketAddr {
    match std::env::var("MQTT_CLAUSES_BROKER") {
        Ok(broker) => broker.parse().expect("an address"),
        Err(_) => shared_server(level).mqtt(),
    }
}

pub fn shared_http(level: u8) -> SocketAddr {
    shared_server(level).http()
}

fn shared_server(level: u8) -> &'static Server {
    static SERVERS: [OnceLock<(Server, Child)>; 2] = [OnceLock::new(), OnceLock::new()];
    let (server, _) = SERVERS[usize::from(level == 5)].get_or_init(|| {
        let server = own(2);
        // A static is never dropped: its end comes when standard input does, which is when this process ends.
        let watch = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\"; rm -rf \"$1\"", &server.pid().to_string()])
            .arg(server.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sh");
        (server, watch)
    });
    server
}

/// A name that no other test uses, for topics and client identifiers.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
