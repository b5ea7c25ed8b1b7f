//! What subscribers are sent: each event is encoded once per kind of frame here, and the bytes are shared by all
//! subscribers of that kind.

use super::format::{self, Format, write_json_text, write_merge_patch};
use super::framing::{Opcode, write_chunk, write_header};
use super::mqtt::packet::{PublishHead, Version};
use super::mqtt::property;
use super::payload::OCTET_STREAM;
use shards::document::{self, Writer};
use shards::event::EventKind;
use shards::log::Position;
use shards::outbox::{Encoded, FrameKind};
use shards::shard::{Encoder, FrameContext};

/// Protocol and format of a subscription, as the engine carries it in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    pub protocol: Protocol,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    MqttV4 = 0,
    MqttV5 = 1,
    MqttV4OverWebSocket = 2,
    MqttV5OverWebSocket = 3,
    Sse = 4,
    WebSocket = 5,
    /// With several subscriptions: the envelope names the path.
    WebSocketDuplex = 6,
}

const PROTOCOLS: [Protocol; 7] = [
    Protocol::MqttV4,
    Protocol::MqttV5,
    Protocol::MqttV4OverWebSocket,
    Protocol::MqttV5OverWebSocket,
    Protocol::Sse,
    Protocol::WebSocket,
    Protocol::WebSocketDuplex,
];

impl Encoding {
    pub fn code(self) -> u8 {
        (self.protocol as u8) << 2 | self.format as u8
    }

    fn of_code(code: u8) -> Encoding {
        let format = Format::ALL[usize::from(code & 3).min(2)];
        Encoding { protocol: PROTOCOLS[usize::from(code >> 2).min(PROTOCOLS.len() - 1)], format }
    }
}

/// Encodes events for the subscribers of one shard.
pub struct FrameEncoder {
    /// What an MQTT subscriber gets for a delete: nothing, or JSON `null` (compat §3.5).
    pub null_on_delete: bool,
    payload: Vec<u8>,
    packet: Vec<u8>,
    patch: Vec<u8>,
}

impl FrameEncoder {
    pub fn new(null_on_delete: bool) -> FrameEncoder {
        FrameEncoder { null_on_delete, payload: Vec::new(), packet: Vec::new(), patch: Vec::new() }
    }

    fn mqtt(
        &mut self,
        version: Version,
        in_web_socket: bool,
        format: Format,
        kind: FrameKind,
        context: &FrameContext<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Encoded> {
        let path = context.table.exports.get(usize::from(kind.path)).map_or("", |export| export.path.as_str());
        let slash = if path.is_empty() || context.key_text.is_empty() { "" } else { "/" };
        let topic_bytes = path.len() + slash.len() + context.key_text.len();
        // A key that a client gave over REST may be no topic name [MQTT-3.3.2-2].
        let reserved = path.is_empty() && context.key_text.starts_with('$'); // [MQTT-4.7.2-1]
        if topic_bytes == 0 || reserved || context.key_text.contains(['+', '#', '\0']) {
            return None;
        }
        self.payload.clear();
        let mut is_text = false;
        // What the publisher has said of the payload holds as long as it is passed on as it is.
        let stored = context.properties;
        let mut content_type = property::content_type_of(stored);
        let mut payload_format = property::payload_format_of(stored);
        match (context.kind, document::opaque(context.document)) {
            (EventKind::Delete | EventKind::Leave, _) if self.null_on_delete => self.payload.extend_from_slice(b"null"),
            (EventKind::Delete | EventKind::Leave, _) => {}
            (_, _) if context.document.is_empty() => {}
            (_, Some((own_type, data))) => {
                content_type = content_type.or(Some(own_type).filter(|own_type| *own_type != OCTET_STREAM));
                self.payload.extend_from_slice(data);
            }
            (_, None) => {
                let is_same = content_type.and_then(Format::of_media_type) == Some(format);
                if !is_same {
                    content_type = Some(format.media_type()).filter(|_| format != Format::Json);
                    payload_format = payload_format.filter(|_| format == Format::Json);
                }
                is_text = format == Format::Json && !context.json.is_empty();
                if !is_text {
                    format::encode(format, context.document, &mut self.payload);
                }
            }
        }
        let payload = if is_text { context.json } else { &self.payload };
        let (topic_alias, is_known) =
            context.topic_alias.map_or((None, false), |(alias, is_known)| (Some(alias), is_known));
        let head = PublishHead {
            version,
            qos: kind.qos(),
            dup: kind.has(FrameKind::DUPLICATE),
            retain: kind.has(FrameKind::RETAIN),
            topic: if is_known { ("", "", "") } else { (path, slash, context.key_text) },
            topic_alias,
            payload_format,
            content_type,
            // Rounded up: what is left of a second is not nothing.
            message_expiry: context.expires_in_ms.map(|left| left.div_ceil(1000).min(u64::from(u32::MAX)) as u32),
            properties: property::without_format(stored),
            subscription_identifiers: context.identifiers,
            payload_bytes: payload.len(),
        };
        let start = out.len();
        if in_web_socket {
            write_header(Opcode::Binary, head.packet_bytes(), out);
        }
        let packet_id_at = head.write(out);
        out.extend_from_slice(payload);
        let packet_id_at = packet_id_at.map(|at| at - start);
        Some(Encoded { packet_id_at, payload_bytes: Some(payload.len()) })
    }

    fn sse(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Encoded {
        let frame = &mut self.packet;
        frame.clear();
        if kind.has(FrameKind::POSITION) {
            frame.extend_from_slice(b"id: ");
            write_positions(context.seen, frame);
            frame.push(b'\n');
        }
        frame.extend_from_slice(b"data: ");
        let patch = patch_in(kind, context, &mut self.patch);
        write_json_envelope(context, &More { patch, ..More::default() }, frame);
        frame.extend_from_slice(b"\n\n");
        write_chunk(frame, out);
        Encoded { packet_id_at: None, payload_bytes: None }
    }

    fn web_socket(
        &mut self,
        format: Format,
        names_path: bool,
        kind: FrameKind,
        context: &FrameContext<'_>,
        out: &mut Vec<u8>,
    ) -> Encoded {
        self.packet.clear();
        let export = context.table.exports.get(usize::from(kind.path)).filter(|_| names_path);
        let more = More {
            seen: Some(context.seen).filter(|_| kind.has(FrameKind::POSITION)),
            path: export.map(|export| export.path.as_str()),
            patch: patch_in(kind, context, &mut self.patch),
        };
        let opcode = match format {
            Format::Json => {
                write_json_envelope(context, &more, &mut self.packet);
                Opcode::Text
            }
            binary => {
                self.payload.clear();
                write_envelope(context, &more, &mut self.payload);
                format::encode(binary, &self.payload, &mut self.packet);
                Opcode::Binary
            }
        };
        write_header(opcode, self.packet.len(), out);
        out.extend_from_slice(&self.packet);
        Encoded { packet_id_at: None, payload_bytes: None }
    }
}

impl Encoder for FrameEncoder {
    fn encode(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded> {
        let Encoding { protocol, format } = Encoding::of_code(kind.encoding);
        match protocol {
            Protocol::MqttV4 => self.mqtt(Version::V4, false, format, kind, context, out),
            Protocol::MqttV5 => self.mqtt(Version::V5, false, format, kind, context, out),
            Protocol::MqttV4OverWebSocket => self.mqtt(Version::V4, true, format, kind, context, out),
            Protocol::MqttV5OverWebSocket => self.mqtt(Version::V5, true, format, kind, context, out),
            Protocol::Sse => Some(self.sse(kind, context, out)),
            Protocol::WebSocket => Some(self.web_socket(format, false, kind, context, out)),
            Protocol::WebSocketDuplex => Some(self.web_socket(format, true, kind, context, out)),
        }
    }
}

/// How far each shard has come: `epoch-seq`, joined by `_` in the order of shards.
pub fn write_positions(positions: &[Position], out: &mut Vec<u8>) {
    for (index, position) in positions.iter().enumerate() {
        if index > 0 {
            out.push(b'_');
        }
        out.extend_from_slice(itoa::Buffer::new().format(position.epoch).as_bytes());
        out.push(b'-');
        out.extend_from_slice(itoa::Buffer::new().format(position.seq).as_bytes());
    }
}

fn type_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
        EventKind::Message => "message",
        EventKind::Leave => "leave",
    }
}

/// What else an envelope tells.
#[derive(Default)]
struct More<'a> {
    /// The place of the stream behind it, where the protocol has no other way to say that: `position`.
    seen: Option<&'a [Position]>,
    /// The exported path.
    path: Option<&'a str>,
    /// A merge patch (RFC 7396) of what was shown before, instead of the value.
    patch: Option<&'a [u8]>,
}

impl<'a> More<'a> {
    fn type_and_value(&self, context: &FrameContext<'a>) -> (&'static str, &'a [u8]) {
        self.patch.map_or((type_of(context.kind), context.document), |patch| ("patch", patch))
    }
}

/// What has changed since the frame before, where the subscriber wants no more and that can be said.
fn patch_in<'p>(kind: FrameKind, context: &FrameContext<'_>, patch: &'p mut Vec<u8>) -> Option<&'p [u8]> {
    if !kind.has(FrameKind::PATCH) {
        return None;
    }
    patch.clear();
    write_merge_patch(context.previous, context.document, patch).map(|()| patch.as_slice())
}

/// The envelope of compat §4: `{id, localTime, value, version, type}`; and `skipped`, where events were left out since
/// the last one.
fn write_json_envelope<'a>(context: &FrameContext<'a>, more: &More<'a>, out: &mut Vec<u8>) {
    let (kind, value) = more.type_and_value(context);
    out.extend_from_slice(b"{\"id\":");
    let mut id = Vec::new();
    match context.codec {
        _ if context.key.is_empty() => out.extend_from_slice(b"null"),
        shards::key::KeyCodec::Text => write_json_text(context.key_text, out),
        codec => {
            codec.write_value(context.key, &mut id);
            format::write_json(&id, out);
        }
    }
    out.extend_from_slice(b",\"localTime\":");
    format::write_float(context.version.as_millis(), out);
    out.extend_from_slice(b",\"value\":");
    match (more.patch, context.json) {
        (None, text @ [_, ..]) => out.extend_from_slice(text),
        _ if value.is_empty() => out.extend_from_slice(b"null"),
        _ => format::write_json(value, out),
    }
    out.extend_from_slice(b",\"version\":");
    format::write_float(context.version.as_millis(), out);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if context.skipped > 0 {
        out.extend_from_slice(b",\"skipped\":");
        out.extend_from_slice(itoa::Buffer::new().format(context.skipped).as_bytes());
    }
    if let Some(path) = more.path {
        out.extend_from_slice(b",\"path\":");
        write_json_text(path, out);
    }
    if let Some(seen) = more.seen {
        out.extend_from_slice(b",\"position\":\"");
        write_positions(seen, out);
        out.push(b'"');
    }
    out.push(b'}');
}

/// The same as a canonical document.
fn write_envelope<'a>(context: &FrameContext<'a>, more: &More<'a>, out: &mut Vec<u8>) {
    let (kind, value) = more.type_and_value(context);
    let others = [context.skipped > 0, more.path.is_some(), more.seen.is_some()];
    out.write_map(5 + others.map(u32::from).iter().sum::<u32>());
    out.write_str("id");
    if context.key.is_empty() {
        out.write_null();
    } else {
        context.codec.write_value(context.key, out);
    }
    out.write_str("localTime");
    out.write_float(context.version.as_millis());
    out.write_str("value");
    if value.is_empty() {
        out.write_null();
    } else {
        out.extend_from_slice(value);
    }
    out.write_str("version");
    out.write_float(context.version.as_millis());
    out.write_str("type");
    out.write_str(kind);
    if context.skipped > 0 {
        out.write_str("skipped");
        out.write_uint(context.skipped);
    }
    if let Some(path) = more.path {
        out.write_str("path");
        out.write_str(path);
    }
    if let Some(seen) = more.seen {
        let mut text = Vec::new();
        write_positions(seen, &mut text);
        out.write_str("position");
        out.write_str(std::str::from_utf8(&text).unwrap_or_default());
    }
}
