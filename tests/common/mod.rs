//! The harness of the end-to-end tests: the server as a child process ([`server`]), every foreign client behind one
//! interface ([`peers`]; [`clients`] installs them), plain HTTP and TCP ([`http`]), and codecs that are not the
//! server's own ([`codec`]).
//!
//! ```ignore
//! mod common;
//! let server = common::Server::start(common::Options::default());
//! let mut sub = Subscriber::start(SubscriberKind::MqttJs5, &server.endpoints(), &Subscribe::to("Sensors/101"));
//! let mut publisher = Publisher::start(PublisherKind::Curl, &server.endpoints(), &Publish::default());
//! publisher.put("Sensors/101", &json!({ "temp": 1.5 }));
//! assert_eq!(sub.expect_values(1, PATIENCE)[0]["temp"], 1.5);
//! ```
#![allow(dead_code, unused_imports)] // each test binary uses a part of it

pub mod clients;
pub mod codec;
pub mod http;
pub mod lines;
pub mod peers;
pub mod publish;
pub mod rumq;
pub mod seccomp;
pub mod server;
pub mod tls;
pub mod wire;

pub use codec::{ALL_FORMATS, Format, normal};
pub use http::{Connection, Response, get, http, http_raw, put_json};
pub use lines::{eventually, poll};
pub use peers::{ALL_SUBSCRIBERS, Message, Subscribe, Subscriber, SubscriberKind, Transport};
pub use publish::{ALL_PUBLISHERS, Command, Op, Publish, Publisher, PublisherKind, Reply};
pub use server::{Options, Server};

use std::net::SocketAddr;
use std::time::Duration;

/// The patience of a test that expects something to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
}

impl Endpoints {
    pub fn http_base(&self) -> String {
        format!("http://{}", self.http)
    }
}
