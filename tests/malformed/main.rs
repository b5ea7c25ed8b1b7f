//! Wrong input anywhere gets a clear answer and disturbs nothing else: tables of bytes and answers for MQTT
//! ([`mqtt`], [`mqtt_time`] for deadlines and wills), HTTP ([`http`]) and WebSocket ([`websocket`]; [`autobahn`] runs
//! the test suite of that name). While a table is worked off, a [`Bystander`] of each protocol stays connected and must
//! get every change.

mod autobahn;
#[path = "../common/mod.rs"]
mod common;
mod http;
mod mqtt;
mod mqtt_time;
mod websocket;

use common::wire::{Mqtt, Sse, WebSocket, data_of};
use common::{Connection, Options, PATIENCE, Server};
use serde_json::Value;

/// One healthy connection of each protocol.
struct Bystander {
    server: Server,
    mqtt4: Mqtt,
    mqtt5: Mqtt,
    web_socket: WebSocket,
    sse: Sse,
    http: Connection,
    count: u64,
}

impl Bystander {
    fn new(options: Options) -> Bystander {
        let server = Server::start(options);
        let open = |level: u8| {
            let mut mqtt = Mqtt::open(server.mqtt(), level, &format!("bystander-{level}"));
            assert_eq!(mqtt.subscribe(1, &[("Sensors/bystander", 0)]), [0]);
            mqtt
        };
        let (mqtt4, mqtt5) = (open(4), open(5));
        let web_socket = WebSocket::open(server.http(), "/Sensors/bystander");
        let sse = Sse::open(server.http(), "/Sensors/bystander");
        let http = Connection::open(server.http());
        let mut all = Bystander { server, mqtt4, mqtt5, web_socket, sse, http, count: 0 };
        all.check();
        all
    }

    /// One more write over the same old connections: all of them see it.
    #[track_caller]
    fn check(&mut self) {
        self.count += 1;
        let body = format!("{{\"n\":{}}}", self.count);
        let json = [("Content-Type", "application/json")];
        let response = self.http.request("PUT", "/Sensors/bystander", &json, body.as_bytes());
        assert_eq!(response.status, 204, "{response:?}");
        for mqtt in [&mut self.mqtt4, &mut self.mqtt5] {
            let got: Value = serde_json::from_slice(&mqtt.expect_message().payload).expect("JSON");
            assert_eq!(got["n"], self.count);
        }
        let got: Value = serde_json::from_slice(&self.web_socket.expect().1).expect("JSON");
        assert_eq!(got["value"]["n"], self.count);
        let got: Value = serde_json::from_str(&self.sse.expect()).expect("JSON");
        assert_eq!(got["value"]["n"], self.count);
        assert!(self.server.alive(), "the server ended:\n{}", self.server.stderr());
    }
}

/// Works off a table and reports all wrong lines at once.
fn each<C>(cases: &[C], least: usize, name: impl Fn(&C) -> String, run: impl Fn(&C) -> Result<(), String>) {
    assert!(cases.len() >= least, "{} cases, {least} are promised", cases.len());
    let failures: Vec<String> =
        cases.iter().filter_map(|case| run(case).err().map(|why| format!("{}: {why}", name(case)))).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// What comes until the server closes; an error if it does not close.
fn to_close(connection: &mut Connection) -> Result<Vec<u8>, String> {
    connection.within(PATIENCE);
    let closed = connection.read_to_close();
    let all = connection.rest();
    if closed { Ok(all) } else { Err(format!("not closed, but sent {}", all.escape_ascii())) }
}

#[test]
fn a_comment_is_no_event() {
    assert_eq!(data_of(":\n\n"), None);
}
