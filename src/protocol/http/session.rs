//! The state machine of one HTTP connection: one request at a time; what a client sends ahead (pipelining) waits in the
//! receive buffer until its turn.

use super::bulk::Bulk;
use super::coding::{Coding, uncoded_tag};
use super::collection::{ChangeOrder, Changing, ListOrder, Listing};
use super::files::Lookup;
use super::joins::{Joining, Order};
use super::promise::Promised;
use super::records::Waiting;
use super::representation::{Accepted, JSON, Representation, negotiate};
use super::request::{Incoming, Progress, Reader, Request};
use super::response::{Body, Exchange, write_field};
use crate::protocol::format::Format;
use crate::protocol::path::{self, split_suffix};
use crate::protocol::{Context, Credentials, Flow, Session, Upgrade, query, target_of, watch};
use shards::command::Completion;
use shards::query::Query;
use shards::schema::TableId;
use shards::topic::Resolved;

/// How long a connection may stay without a request.
const IDLE_US: u64 = 30_000_000;
/// How long a request head may take to arrive.
const HEAD_US: u64 = 5_000_000;
/// How long a whole request may take to arrive.
const REQUEST_US: u64 = 60_000_000;

pub(super) const ALLOW_RECORD: &str = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";
pub(super) const ALLOW_COLLECTION: &str = "GET, HEAD, QUERY, POST, PUT, PATCH, DELETE, OPTIONS";
const ALLOW_TABLE: &str = "GET, HEAD, OPTIONS";
const ALLOW_ALL: &str = "GET, HEAD, QUERY, POST, PUT, DELETE, PATCH, OPTIONS";

pub(super) const NOT_ACCEPTABLE: &str = "nothing that Accept lists can be sent; supported: application/json, \
                                          application/cbor, application/x-msgpack, application/x-ndjson, text/yaml, \
                                          text/csv, text/event-stream";
/// WebSocket close code of a client that may not come in (compat §4).
const CLOSE_UNAUTHORIZED: u16 = 3000;

fn is_web_socket(request: &Request<'_>) -> bool {
    // An upgrade of HTTP/1.0 is not looked at (RFC 9110 §7.8).
    request.method == "GET"
        && request.minor == 1
        && request.lists("connection", "upgrade")
        && request.lists("upgrade", "websocket")
}

/// Whether a Host field names this machine as no stranger can: by address, or as localhost.
fn is_local_name(host: &str) -> bool {
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = port.map_or(host, |(name, _)| name);
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// What the current request waits for.
pub(super) enum Pending {
    Nothing,
    Record(Box<Waiting>),
    Promised(Box<Promised>),
    Joining(Box<Joining>),
    Listing(Box<Listing>),
    Changing(Box<Changing>),
    Bulk(Box<Bulk>),
}

pub struct HttpSession {
    reader: Reader,
    pub(super) pending: Pending,
    pub(super) exchange: Exchange,
    /// The body of the current request, if it is to be taken as it comes; and whether `100 Continue` is owed.
    pub(super) incoming: Option<(Incoming, bool)>,
    /// Since when it is idle, or reading the current request.
    pub(super) since_us: u64,
    pub(super) stopping: bool,
}

/// A request's path, resolved.
pub(super) struct Resource<'a> {
    pub table: TableId,
    /// The path without exported path and suffix.
    pub resolved: Resolved<'a>,
    pub representation: Option<Representation>,
    pub attribute: Option<&'a str>,
}

impl Resource<'_> {
    /// Whether the path ends with a slash: it names many records.
    pub fn is_collection(&self) -> bool {
        self.resolved.slash && (self.resolved.rest.is_empty() || self.resolved.rest.ends_with('/'))
    }

    fn is_record(&self) -> bool {
        !self.is_collection() && !self.is_table()
    }

    /// Whether the path is the exported path itself.
    fn is_table(&self) -> bool {
        !self.resolved.slash && self.resolved.rest.is_empty()
    }
}

impl HttpSession {
    pub fn new(ticks_us: u64) -> HttpSession {
        HttpSession {
            reader: Reader::default(),
            pending: Pending::Nothing,
            exchange: Exchange::broken(),
            incoming: None,
            since_us: ticks_us,
            stopping: false,
        }
    }

    /// What follows an answer.
    pub(super) fn answered(&mut self, context: &Context<'_>) -> Flow {
        self.pending = Pending::Nothing;
        self.since_us = context.ticks_us();
        if self.exchange.keep_alive && !self.stopping { Flow::Continue } else { Flow::Close }
    }

    pub(super) fn problem(&mut self, context: &mut Context<'_>, status: u16, code: &str, detail: &str) -> Flow {
        self.exchange.problem(context, status, code, detail);
        self.answered(context)
    }

    fn not_allowed(&mut self, context: &mut Context<'_>, method: &str, allow: &str) -> Flow {
        let detail = format!("{method} is not defined here; allowed: {allow}");
        self.exchange.problem_with(context, 405, "method_not_allowed", &detail, (0, &[]), |out| {
            write_field("Allow", allow, out)
        });
        self.answered(context)
    }

    fn request(&mut self, context: &mut Context<'_>, request: &Request<'_>) -> Flow {
        let origin = request.field("origin");
        let cors = &context.catalog.cors;
        let allowed = origin.filter(|origin| cors.iter().any(|own| own == "*" || own == origin));
        self.exchange = Exchange {
            minor: request.minor,
            // A body that nobody takes leaves no way to the next request.
            keep_alive: request.keeps_alive() && !self.stopping && self.incoming.is_none(),
            head_only: request.method == "HEAD",
            origin: allowed.map(str::to_owned),
            varies_by_origin: !cors.is_empty(),
            coding: Coding::negotiate(request.list("accept-encoding")),
            since_us: context.ticks_us(),
        };
        if let Some(flow) = self.refuse_stranger(context, request, origin) {
            return flow;
        }
        match request.method {
            "GET" | "HEAD" | "QUERY" | "PUT" | "PATCH" | "POST" | "DELETE" => {}
            "OPTIONS" => return self.options(context, request),
            "COPY" | "MOVE" | "TRACE" | "CONNECT" => return self.not_allowed(context, request.method, ALLOW_ALL),
            method => {
                let detail = format!("the method {method} is not implemented");
                return self.problem(context, 501, "not_implemented", &detail);
            }
        }
        let Some(decoded) = path::decode(request.path) else {
            return self.problem(context, 400, "bad_path", "the path is not valid percent-encoded UTF-8");
        };
        if is_web_socket(request) {
            return self.upgrade_to_web_socket(context, request, &decoded);
        }
        if matches!(request.method, "GET" | "HEAD") {
            if decoded == "/health" {
                let json = context.catalog.health.to_json();
                let body = Body::new("application/json", json.as_bytes());
                self.exchange.respond(context, 200, |out| write_field("Cache-Control", "no-store", out), Some(body));
                return self.answered(context);
            }
            if decoded == "/openapi" {
                return self.openapi(context);
            }
            if let Some(flow) = self.static_file(context, request, &decoded) {
                return flow;
            }
        }
        self.resource(context, request, &decoded)
    }

    /// Checks credentials and origin (compat §8). A page of another origin may change nothing unless it is listed:
    /// loopback clients are trusted, and a browser on this machine is one of them.
    fn refuse_stranger(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        origin: Option<&str>,
    ) -> Option<Flow> {
        let authorization = request.field("authorization");
        let basic = authorization.and_then(|value| {
            let (scheme, encoded) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())
        });
        let credentials =
            authorization.map(|value| Credentials { username: basic.unwrap_or_default(), password: value.as_bytes() });
        // `Og==`: empty name and empty password mean none (compat §8).
        let credentials = credentials.filter(|_| basic != Some("Og=="));
        if !context.catalog.authority.admits(context.address, context.identity, credentials) {
            if is_web_socket(request) {
                // Browsers are shown no status of a handshake that fails: accepted, then closed with the reason.
                let watch = Err((CLOSE_UNAUTHORIZED, "Login failed".to_owned()));
                return Some(
                    self.accept_web_socket(context, request, |_, _| Upgrade::WebSocket { watch, format: Format::Json }),
                );
            }
            let what = if basic.is_some() { "Login failed" } else { "invalid token" };
            let json = format!("{{\"error\":\"{what}\"}}");
            let body = Body::new("application/json", json.as_bytes());
            self.exchange.respond(
                context,
                401,
                |out| write_field("WWW-Authenticate", "Basic realm=\"tablecast\"", out),
                Some(body),
            );
            return Some(self.answered(context));
        }
        let host = request.field("host").unwrap_or_default();
        let same = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, own)| own == host));
        // A name that a stranger has pointed at this machine: his page would pass for one of ours (DNS rebinding).
        // Only pages in browsers can be misled so, and every browser names its languages.
        let open = context.catalog.cors.iter().any(|own| own == "*");
        let in_browser = origin.is_some() || request.field("accept-language").is_some();
        if in_browser && !open && self.exchange.origin.is_none() && !is_local_name(host) {
            let detail = "this server is reached by an address or as localhost; list other origins in http.cors";
            return Some(self.problem(context, 403, "host_not_allowed", detail));
        }
        let changes =
            !matches!(request.method, "GET" | "HEAD" | "QUERY" | "OPTIONS") || request.lists("upgrade", "websocket");
        if changes && !same && self.exchange.origin.is_none() {
            let detail = "pages of this origin are not allowed; list it in http.cors";
            return Some(self.problem(context, 403, "origin_not_allowed", detail));
        }
        None
    }

    fn options(&mut self, context: &mut Context<'_>, request: &Request<'_>) -> Flow {
        let is_preflight = self.exchange.origin.is_some() && request.field("access-control-request-method").is_some();
        if is_preflight {
            self.exchange.respond(
                context,
                200,
                |out| {
                    write_field("Access-Control-Allow-Methods", ALLOW_ALL, out);
                    let fields = "Accept, Content-Type, Authorization, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer";
                    write_field("Access-Control-Allow-Headers", fields, out);
                    write_field("Access-Control-Max-Age", "600", out);
                },
                None,
            );
        } else {
            self.exchange.respond(context, 204, |out| write_field("Allow", ALLOW_ALL, out), None);
        }
        self.answered(context)
    }

    fn static_file(&mut self, context: &mut Context<'_>, request: &Request<'_>, decoded: &str) -> Option<Flow> {
        let catalog = context.catalog;
        match catalog.static_files.get(decoded) {
            Lookup::None => return None,
            Lookup::RedirectToDirectory => {
                let location = format!("{}/", request.path);
                self.exchange.respond(context, 301, |out| write_field("Location", &location, out), None);
            }
            Lookup::File(file)
                if request.list("if-none-match").any(|tag| tag == "*" || uncoded_tag(tag) == file.etag) =>
            {
                self.exchange.respond(context, 304, |out| write_field("ETag", &file.etag, out), None);
            }
            Lookup::File(file) => self.exchange.respond_shared(context, file),
        }
        Some(self.answered(context))
    }

    fn resource(&mut self, context: &mut Context<'_>, request: &Request<'_>, decoded: &str) -> Flow {
        let catalog = context.catalog;
        let accepted = negotiate(request.list("accept"));
        let wants_stream = request.method == "GET" && accepted == Some(Accepted::EventStream);
        let routes = if wants_stream { &catalog.sse } else { &catalog.rest };
        let Some(resolved) = routes.resolve(decoded.strip_prefix('/').unwrap_or(decoded)) else {
            let detail = format!("no table is exported at {decoded}");
            return self.problem(context, 404, "not_found", &detail);
        };
        let reads = matches!(request.method, "GET" | "HEAD");
        let has_condition = ["if-match", "if-none-match"].iter().any(|name| request.field(name).is_some());
        if !reads
            && request.method != "QUERY"
            && has_condition
            && (resolved.rest.is_empty() || resolved.rest.ends_with('/'))
        {
            // A condition must not be passed over (RFC 9110 §13.1).
            return self.problem(context, 501, "not_implemented", "conditions are for writes of one record");
        }
        let (mut query, mut parameters) =
            match query::parse(request.query, catalog.table(resolved.table), &catalog.tables) {
                Ok(parsed) => parsed,
                Err(error) => return self.problem(context, 400, "bad_query", &error.to_string()),
            };
        let suffix = split_suffix(resolved.rest, catalog.table(resolved.table));
        let as_csv = resolved.rest.strip_suffix(".csv");
        let resource = Resource {
            table: resolved.table,
            resolved: Resolved { rest: as_csv.unwrap_or(suffix.rest), ..resolved },
            representation: as_csv.map(|_| Representation::Csv).or(suffix.format.map(Representation::Document)),
            attribute: suffix.attribute.filter(|_| as_csv.is_none()),
        };
        if parameters.duplex {
            return self.problem(context, 400, "bad_query", "duplex is for a WebSocket");
        }
        if wants_stream {
            return self.upgrade_to_sse(context, request, &resource, query, &parameters);
        }
        let representation = match (resource.representation, accepted, request.method) {
            (Some(representation), ..) | (None, Some(Accepted::Representation(representation)), _) => {
                Some(representation)
            }
            // What is stored opaque is sent as it is, whatever Accept says: that is seen when it is found.
            (None, None, "GET" | "HEAD") if resource.is_record() && parameters.expansions.is_empty() => None,
            (None, _, "GET" | "HEAD") => {
                return self.problem(context, 406, "not_acceptable", NOT_ACCEPTABLE);
            }
            _ => Some(JSON), // nothing to send, or only a problem
        };
        if request.method == "QUERY" && resource.is_collection() {
            match self.query_in(context, request, &resource) {
                Ok(found) if request.query.is_empty() => (query, parameters) = found,
                Ok(_) => {
                    let detail = "the query is in the body: the URL has none beside it";
                    return self.problem(context, 400, "bad_query", detail);
                }
                Err(flow) => return flow,
            }
        }
        if let Some(text) = &parameters.min
            && let Err((status, what)) = watch::check_min(context, text)
        {
            return self.problem(context, status, "bad_position", what);
        }
        let at = match parameters.at.as_deref().map(|text| (text, watch::start_of(text))) {
            None => None,
            Some((_, Some(start))) if reads && resource.is_record() => Some(start),
            Some((text, None)) => {
                let detail = format!("at: `{text}` is neither a position nor a time");
                return self.problem(context, 400, "bad_query", &detail);
            }
            Some(_) => return self.problem(context, 400, "bad_query", "at is for GET of one record"),
        };
        let of_streams = [
            parameters.previous_count.is_some(),
            parameters.start_time.is_some(),
            parameters.max_rate.is_some(),
            parameters.patch,
        ];
        if of_streams.contains(&true) {
            let detail =
                "startTime, previousCount, maxRate and patch are for streams: ask with Accept: text/event-stream";
            return self.problem(context, 400, "bad_query", detail);
        }
        let takes_query = resource.is_collection() && request.method != "POST";
        if !takes_query && !request.query.is_empty() {
            let only_selects = Query { select: query.select.clone(), ..Query::default() } == query;
            if !(reads && only_selects && resource.is_record()) {
                let detail = "a query asks for records of a collection, whose path ends with a slash";
                return self.problem(context, 400, "bad_query", detail);
            }
        }
        let (acceptable, representation) = (representation, representation.unwrap_or(JSON));
        match request.method {
            "GET" | "HEAD" if resource.is_table() => self.describe(context, &resource, representation),
            "GET" | "HEAD" | "QUERY"
                if resource.is_collection() || reads && resource.is_record() && !parameters.expansions.is_empty() =>
            {
                let Some(target) = target_of(resource.resolved, context.catalog) else {
                    return self.problem(context, 404, "not_found", "no record can have such a key");
                };
                let (is_explained, expansions) = (parameters.explain, parameters.expansions);
                let is_single = resource.is_record();
                let order = ListOrder { target, query, representation, is_explained, expansions, is_single };
                self.join(context, parameters.joins, Order::List(order))
            }
            "GET" | "HEAD" => match at {
                Some(upto) => self.read_past(context, &resource, acceptable, query.select, upto),
                None => self.read(context, request, &resource, acceptable, query.select),
            },
            "POST" | "PUT" if resource.is_collection() && resource.resolved.rest.is_empty() => {
                self.write_collection(context, request, &resource, representation)
            }
            "PATCH" | "DELETE"
                if resource.is_collection() && (request.method == "DELETE" || query.condition.is_some()) =>
            {
                let Some(target) = target_of(resource.resolved, context.catalog) else {
                    return self.problem(context, 404, "not_found", "no record can have such a key");
                };
                if let Some(flow) = self.refuse_name(context, request) {
                    return flow;
                }
                let patch = match self.patch_in(context, request, resource.table, &query) {
                    Ok(patch) => patch,
                    Err(flow) => return flow,
                };
                let order = ChangeOrder { target, query, representation, patch };
                self.join(context, parameters.joins, Order::Change(order))
            }
            "PUT" | "PATCH" | "DELETE" if resource.is_record() => {
                self.write(context, request, &resource, representation)
            }
            method if resource.is_table() => self.not_allowed(context, method, ALLOW_TABLE),
            method if resource.is_collection() => self.not_allowed(context, method, ALLOW_COLLECTION),
            method => self.not_allowed(context, method, ALLOW_RECORD),
        }
    }
}

impl Session for HttpSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        if let Pending::Changing(changing) = &self.pending
            && changing.waits_for_room()
            && context.shard.has_room()
            && let Pending::Changing(changing) = std::mem::replace(&mut self.pending, Pending::Nothing)
        {
            return (0, self.continue_changing(context, changing));
        }
        if let Pending::Bulk(_) = &self.pending
            && let Pending::Bulk(bulk) = std::mem::replace(&mut self.pending, Pending::Nothing)
        {
            return self.continue_bulk(context, bulk, input);
        }
        if !matches!(self.pending, Pending::Nothing) || !context.shard.has_room() {
            return (0, Flow::Blocked);
        }
        // A client that asks on without reading the answers waits until it has read them.
        if context.shard.outboxes.stall(context.connection, None) {
            return (0, Flow::Blocked);
        }
        if input.is_empty() {
            return (0, Flow::Continue);
        }
        if !self.reader.has_begun() {
            self.since_us = context.ticks_us();
        }
        // The request borrows from the reader: it is put back afterwards.
        let mut reader = std::mem::take(&mut self.reader);
        let (consumed, flow) = match reader.read(input, context.shard.limits().packet_bytes_max) {
            Ok(Progress::More { send_continue }) => {
                if send_continue {
                    context.write(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
                }
                self.reader = reader;
                return (0, Flow::Continue);
            }
            Ok(Progress::Request(request, length)) => (length, self.request(context, &request)),
            Ok(Progress::Streamed(request, length, incoming, expects_continue)) => {
                self.incoming = Some((incoming, expects_continue));
                let flow = self.request(context, &request);
                self.incoming = None;
                (length, flow)
            }
            Err(error) => {
                self.exchange = Exchange::broken();
                let code = if error.status == 400 { "bad_request" } else { "refused" };
                (input.len(), self.problem(context, error.status, code, error.what))
            }
        };
        (consumed, flow)
    }

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        match (completion, std::mem::replace(&mut self.pending, Pending::Nothing)) {
            (Completion::Outcome { outcome, .. }, Pending::Record(waiting)) => {
                self.record_done(context, *waiting, outcome)
            }
            (Completion::Outcome { outcome, .. }, Pending::Promised(promised)) => {
                self.continue_promise(context, promised, outcome)
            }
            (Completion::ScanReady { .. }, Pending::Joining(joining)) => self.continue_joining(context, joining),
            (Completion::ScanReady { .. }, Pending::Listing(listing)) => self.continue_listing(context, listing),
            (Completion::ScanReady { .. }, Pending::Changing(changing)) => self.continue_changing(context, changing),
            (Completion::Outcome { outcome, .. }, Pending::Changing(changing)) => {
                self.changed_one(context, changing, &outcome)
            }
            (Completion::Outcome { token, outcome }, Pending::Bulk(bulk)) => {
                self.wrote_one(context, bulk, token.tag, &outcome)
            }
            (Completion::Overflowed { .. }, _) => Flow::Close,
            // What was left over by the request before.
            (_, Pending::Bulk(bulk)) => self.continue_bulk(context, bulk, &[]).1,
            (_, pending) => {
                let idle = matches!(pending, Pending::Nothing);
                self.pending = pending;
                if idle { Flow::Continue } else { Flow::Blocked }
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        match &self.pending {
            Pending::Bulk(bulk) if bulk.waits_for_input() => Some(self.since_us + REQUEST_US),
            Pending::Nothing if self.reader.has_head() => Some(self.since_us + REQUEST_US),
            Pending::Nothing if self.reader.has_begun() => Some(self.since_us + HEAD_US),
            Pending::Nothing => Some(self.since_us + IDLE_US),
            _ => None,
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        let is_sending = self.reader.has_begun() || matches!(self.pending, Pending::Bulk(_));
        if !is_sending && context.shard.outboxes.bytes(context.connection) > 0 {
            self.since_us = context.ticks_us(); // it is not idle: the last answer is still on its way
            return Flow::Continue;
        }
        if is_sending {
            self.exchange = Exchange::broken();
            self.exchange.problem(context, 408, "timeout", "the request did not arrive in time");
        }
        Flow::Close
    }

    fn stop(&mut self, _: &mut Context<'_>) -> Flow {
        self.stopping = true;
        self.exchange.keep_alive = false; // the answer that is under way says so
        let idle = matches!(self.pending, Pending::Nothing) && !self.reader.has_begun();
        if idle { Flow::Close } else { Flow::Continue }
    }

    fn end(&mut self, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Joining(joining) => joining.close(context),
            Pending::Listing(listing) => listing.close(context),
            Pending::Changing(changing) => context.shard.close_scan(changing.scan),
            Pending::Nothing | Pending::Record(_) | Pending::Promised(_) | Pending::Bulk(_) => {}
        }
    }
}
