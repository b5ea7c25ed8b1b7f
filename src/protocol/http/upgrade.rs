//! Connections that leave HTTP: for an event stream, a WebSocket, or MQTT over WebSocket.

use super::representation::{Accepted, Representation, negotiate};
use super::request::Request;
use super::response::write_field;
use super::session::{HttpSession, Resource};
use crate::protocol::format::Format;
use crate::protocol::path::split_suffix;
use crate::protocol::query::Parameters;
use crate::protocol::watch::Watch;
use crate::protocol::{Context, Flow, Upgrade};
use shards::query::Query;
use shards::topic::Resolved;

/// WebSocket close code for "the server cannot do that" (RFC 6455 §7.4.1; compat §4).
const CLOSE_UNEXPECTED: u16 = 1011;

impl HttpSession {
    /// The head goes out at once, whether or not there is anything to tell yet.
    pub(super) fn upgrade_to_sse(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        query: Query,
        parameters: &Parameters,
    ) -> Flow {
        if self.exchange.minor == 0 {
            return self.problem(context, 505, "http_version", "event streams need HTTP/1.1");
        }
        let last_event_id = request.field("last-event-id");
        let watch = match Watch::new(resource.resolved, query, parameters, last_event_id, context.catalog) {
            Ok(watch) => watch,
            Err(detail) => return self.problem(context, 400, "bad_stream", &detail),
        };
        self.exchange.keep_alive = true;
        self.exchange.respond_in_pieces(context, "text/event-stream", &[("Cache-Control", "no-cache")]);
        Flow::Upgrade(Box::new(Upgrade::Sse { watch }))
    }

    /// The opening handshake (RFC 6455 §4.2).
    pub(super) fn upgrade_to_web_socket(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        decoded: &str,
    ) -> Flow {
        self.accept_web_socket(context, request, |session, context| {
            let outgoing = match negotiate(request.list("accept")) {
                Some(Accepted::Representation(Representation::Document(format))) => Some(format),
                _ => None,
            };
            if request.list("sec-websocket-protocol").any(|offered| offered == "mqtt") {
                let incoming = request.field("content-type").and_then(Format::of_media_type);
                return Upgrade::MqttOverWebSocket { incoming, outgoing: outgoing.unwrap_or(Format::Json) };
            }
            if context.catalog.web_socket_echo.as_deref() == Some(decoded) {
                return Upgrade::WebSocketEcho;
            }
            session.web_socket_on_records(context, request, decoded, outgoing)
        })
    }

    /// Checks and answers the handshake; `upgrade` says what the connection is for.
    pub(super) fn accept_web_socket(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        upgrade: impl FnOnce(&HttpSession, &Context<'_>) -> Upgrade,
    ) -> Flow {
        if request.field("sec-websocket-version") != Some("13") {
            self.exchange.problem_with(
                context,
                426,
                "websocket_version",
                "WebSocket version 13 is served",
                (0, &[]),
                |out| {
                    write_field("Sec-WebSocket-Version", "13", out);
                    write_field("Upgrade", "websocket", out);
                    write_field("Connection", "Upgrade", out);
                },
            );
            return self.answered(context);
        }
        // 16 bytes in base64: 22 digits and two equal signs.
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let is_key = |key: &&str| key.len() == 24 && key.ends_with("==") && key[..22].bytes().all(is_digit);
        let Some(key) = request.field("sec-websocket-key").filter(is_key) else {
            return self.problem(context, 400, "websocket_key", "Sec-WebSocket-Key is not 16 bytes in base64");
        };
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let offered: Vec<&str> = request.list("sec-websocket-protocol").collect();
        // A browser gives up unless one of the subprotocols that it offered is chosen.
        let chosen = if offered.contains(&"mqtt") { Some("mqtt") } else { offered.first().copied() };
        let upgrade = upgrade(self, context);
        self.exchange.switch_protocols(context, &accept, chosen);
        Flow::Upgrade(Box::new(upgrade))
    }

    /// What cannot be served is accepted first and closed with the reason, as Harper's clients expect.
    fn web_socket_on_records(
        &self,
        context: &Context<'_>,
        request: &Request<'_>,
        decoded: &str,
        outgoing: Option<Format>,
    ) -> Upgrade {
        let catalog = context.catalog;
        let refuse = |what: String| Upgrade::WebSocket { watch: Err((CLOSE_UNEXPECTED, what)), format: Format::Json };
        let Some(resolved) = catalog.ws.resolve(decoded.strip_prefix('/').unwrap_or(decoded)) else {
            return refuse(format!("No resource was found to handle {decoded}"));
        };
        let suffix = split_suffix(resolved.rest, catalog.table(resolved.table));
        let resolved = Resolved { rest: suffix.rest, ..resolved };
        let watch = match Watch::parse(resolved, request.query, request.field("last-event-id"), catalog) {
            Ok(watch) => watch,
            Err(what) => return refuse(what),
        };
        match suffix.format.or(outgoing) {
            Some(format) => Upgrade::WebSocket { watch: Ok(watch), format },
            None => refuse("nothing that Accept lists can be sent".into()),
        }
    }
}
