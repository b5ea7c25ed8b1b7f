//! Every setting, described once: this table drives the YAML file, the environment, the flags, the help text and the
//! messages. Called by `layers` and by `cli` (for its flags).

use super::{Address, ClientAuth, DeletePayload, Driver, LogFormat, Settings};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// One setting.
pub struct Key {
    /// In YAML: section and key.
    pub section: &'static str,
    pub key: &'static str,
    /// Without the dashes.
    pub flag: &'static str,
    /// For `--help`.
    pub value_name: &'static str,
    pub help: &'static str,
    /// May be a list: in YAML a list, elsewhere separated by commas.
    pub is_list: bool,
    /// Takes the value over, or says what was expected of it.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Key {
    /// As YAML paths are written: `http.address`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// `TABLECAST_HTTP__ADDRESS`, `TABLECAST_MQTT__DELETE_PAYLOAD`.
    pub fn variable(&self) -> String {
        let mut name = format!("TABLECAST_{}__", self.section.to_uppercase());
        for c in self.key.chars() {
            if c.is_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

pub const SETTINGS: &[Key] = &[
    Key {
        section: "http",
        key: "address",
        flag: "http",
        value_name: "ADDRESS",
        help: "Where to listen for HTTP, WebSocket and SSE: port, host:port or off [default: localhost:9926]",
        is_list: false,
        set: |settings, text| address(text).map(|value| settings.http.address = value),
    },
    Key {
        section: "http",
        key: "cors",
        flag: "cors",
        value_name: "ORIGINS",
        help: "Origins whose pages may read answers, separated by commas; * for all, empty for none \
               [default: * for dev, none for run]",
        is_list: true,
        set: |settings, text| origins(text).map(|value| settings.http.cors = value),
    },
    Key {
        section: "mqtt",
        key: "address",
        flag: "mqtt",
        value_name: "ADDRESS",
        help: "Where to listen for MQTT: port, host:port or off [default: localhost:1883]",
        is_list: false,
        set: |settings, text| address(text).map(|value| settings.mqtt.address = value),
    },
    Key {
        section: "mqtt",
        key: "deletePayload",
        flag: "mqtt-delete-payload",
        value_name: "PAYLOAD",
        help: "What MQTT subscribers get when a record is deleted: empty or null [default: empty]",
        is_list: false,
        set: |settings, text| {
            let choices = [("empty", DeletePayload::Empty), ("null", DeletePayload::Null)];
            choice(text, &choices).map(|value| settings.mqtt.delete_payload = value)
        },
    },
    Key {
        section: "mqtt",
        key: "sysInterval",
        flag: "mqtt-sys-interval",
        value_name: "SECONDS",
        help: "Time between two updates of the figures below $SYS, 0 for none of them: 0 to 3600 [default: 10]",
        is_list: false,
        set: |settings, text| count(text, 0..=3600).map(|value| settings.mqtt.sys_interval_s = value as u64),
    },
    Key {
        section: "https",
        key: "address",
        flag: "https",
        value_name: "ADDRESS",
        help: "Where to listen for HTTPS, if there is a certificate: port, host:port or off [default: localhost:9927]",
        is_list: false,
        set: |settings, text| address(text).map(|value| settings.https.address = Some(value)),
    },
    Key {
        section: "mqtts",
        key: "address",
        flag: "mqtts",
        value_name: "ADDRESS",
        help: "Where to listen for MQTT over TLS, if there is a certificate: port, host:port or off \
               [default: localhost:8883]",
        is_list: false,
        set: |settings, text| address(text).map(|value| settings.mqtts.address = Some(value)),
    },
    Key {
        section: "tls",
        key: "certificate",
        flag: "tls-certificate",
        value_name: "FILE",
        help: "The server's certificate, followed by those between it and its CA, in PEM; read again on SIGHUP",
        is_list: false,
        set: |settings, text| file(text).map(|value| settings.tls.certificate = Some(value)),
    },
    Key {
        section: "tls",
        key: "key",
        flag: "tls-key",
        value_name: "FILE",
        help: "The private key of the server's certificate, in PEM",
        is_list: false,
        set: |settings, text| file(text).map(|value| settings.tls.key = Some(value)),
    },
    Key {
        section: "tls",
        key: "clientCa",
        flag: "tls-client-ca",
        value_name: "FILE",
        help: "Certificates that sign those of clients, in PEM",
        is_list: false,
        set: |settings, text| file(text).map(|value| settings.tls.client_ca = Some(value)),
    },
    Key {
        section: "tls",
        key: "clientAuth",
        flag: "tls-client-auth",
        value_name: "MODE",
        help: "Whether clients must show a certificate: none, optional or required [default: optional with a client CA, \
               else none]",
        is_list: false,
        set: |settings, text| {
            let choices =
                [("none", ClientAuth::None), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];
            choice(text, &choices).map(|value| settings.tls.client_auth = Some(value))
        },
    },
    Key {
        section: "data",
        key: "directory",
        flag: "data",
        value_name: "FOLDER",
        help: "Where the data is kept [default: ./tablecast-data]",
        is_list: false,
        set: |settings, text| match text {
            "" => Err("expected the path of a folder".to_owned()),
            _ => {
                settings.data.directory = text.into();
                Ok(())
            }
        },
    },
    Key {
        section: "data",
        key: "strict",
        flag: "strict",
        value_name: "BOOLEAN",
        help: "Whether not to start where stored data is damaged, instead of serving the other shards: true or false \
               [default: false]",
        is_list: false,
        set: |settings, text| {
            choice(text, &[("true", true), ("false", false)]).map(|value| settings.data.strict = value)
        },
    },
    Key {
        section: "shards",
        key: "count",
        flag: "shards",
        value_name: "COUNT",
        help: "Number of shards, each with its own thread: 1 to 64 or auto [default: auto, one per core]",
        is_list: false,
        set: |settings, text| match text {
            "auto" => {
                settings.shards.count = None;
                Ok(())
            }
            _ => match text.parse() {
                Ok(count @ 1..=64) => {
                    settings.shards.count = Some(count);
                    Ok(())
                }
                _ => Err("expected 1..=64 or auto".to_owned()),
            },
        },
    },
    Key {
        section: "shards",
        key: "pin",
        flag: "pin",
        value_name: "BOOLEAN",
        help: "Whether each shard's thread stays on its core: true or false [default: true]",
        is_list: false,
        set: |settings, text| {
            choice(text, &[("true", true), ("false", false)]).map(|value| settings.shards.pin = value)
        },
    },
    Key {
        section: "io",
        key: "driver",
        flag: "io",
        value_name: "DRIVER",
        help: "How to talk to the kernel: auto, uring or epoll [default: auto, uring where it is allowed]",
        is_list: false,
        set: |settings, text| {
            let choices = [("auto", Driver::Auto), ("uring", Driver::Uring), ("epoll", Driver::Epoll)];
            choice(text, &choices).map(|value| settings.io.driver = value)
        },
    },
    Key {
        section: "log",
        key: "level",
        flag: "log-level",
        value_name: "LEVEL",
        help: "Least severe messages to log: error, warn, info, debug or trace [default: info]",
        is_list: false,
        set: |settings, text| {
            use tracing::Level;
            let choices = [
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("info", Level::INFO),
                ("debug", Level::DEBUG),
                ("trace", Level::TRACE),
            ];
            choice(text, &choices).map(|value| settings.log.level = value)
        },
    },
    Key {
        section: "log",
        key: "format",
        flag: "log-format",
        value_name: "FORMAT",
        help: "How to log, to standard error: text or json [default: text]",
        is_list: false,
        set: |settings, text| {
            choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                .map(|value| settings.log.format = value)
        },
    },
    Key {
        section: "limits",
        key: "packetBytesMax",
        flag: "packet-bytes-max",
        value_name: "SIZE",
        help: "Largest MQTT packet, WebSocket message or request body: 1KiB to 16MiB [default: 1MiB]",
        is_list: false,
        set: |settings, text| {
            let (min, max) = (("1KiB", 1 << 10), ("16MiB", shards::limits::PACKET_BYTES_CEILING));
            size(text, min, max).map(|value| settings.limits.packet_bytes_max = value)
        },
    },
    Key {
        section: "limits",
        key: "outboxBytesMax",
        flag: "outbox-bytes-max",
        value_name: "SIZE",
        help: "Bytes that may wait for one slow reader: 64KiB to 1GiB [default: 4MiB]",
        is_list: false,
        set: |settings, text| {
            let (min, max) = (("64KiB", 64 << 10), ("1GiB", 1 << 30));
            size(text, min, max).map(|value| settings.limits.outbox_bytes_max = value)
        },
    },
    Key {
        section: "limits",
        key: "connectionsPerAddress",
        flag: "connections-per-address",
        value_name: "COUNT",
        help: "Connections that one client address may have: 1 to 1000000 \
               [default: 256, and any number from this machine itself]",
        is_list: false,
        set: |settings, text| {
            count(text, 1..=1_000_000).map(|value| settings.limits.connections_per_address = Some(value))
        },
    },
    Key {
        section: "limits",
        key: "acceptsPerSecond",
        flag: "accepts-per-second",
        value_name: "COUNT",
        help: "Connections that each shard accepts in a second; others wait: 1 to 100000 [default: 5000]",
        is_list: false,
        set: |settings, text| count(text, 1..=100_000).map(|value| settings.limits.accepts_per_second = value as u32),
    },
    Key {
        section: "limits",
        key: "subscriptionsPerConnection",
        flag: "subscriptions-per-connection",
        value_name: "COUNT",
        help: "Subscriptions that one MQTT connection may have: 1 to 10000 [default: 100]",
        is_list: false,
        set: |settings, text| {
            let range = 1..=shards::limits::SUBSCRIPTIONS_PER_CONNECTION_CEILING;
            count(text, range).map(|value| settings.limits.subscriptions_per_connection = value)
        },
    },
    Key {
        section: "limits",
        key: "sessionsMax",
        flag: "sessions-max",
        value_name: "COUNT",
        help: "MQTT sessions that are kept beyond their connections: 1 to 1000000 [default: 1000000]",
        is_list: false,
        set: |settings, text| {
            count(text, 1..=shards::limits::SESSIONS_MAX).map(|value| settings.limits.sessions_max = value)
        },
    },
];

fn count(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let found = text.parse().ok().filter(|found| range.contains(found));
    found.ok_or_else(|| format!("expected {}..={}", range.start(), range.end()))
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).ok_or_else(|| format!("expected {}", Address::EXPECTED))
}

fn file(text: &str) -> Result<PathBuf, String> {
    // What is meant to be a path may be the contents of the file, by mistake.
    if text.is_empty() || text.contains('\n') { Err("expected the path of a file".to_owned()) } else { Ok(text.into()) }
}

/// Origins as browsers send them (RFC 6454 §6.1): scheme, host and port, nothing after.
fn origins(text: &str) -> Result<Vec<String>, String> {
    let mut origins = Vec::new();
    for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
        let is_plain =
            |host: &str| !host.is_empty() && !host.contains(|c: char| "/?#*@".contains(c) || c.is_whitespace());
        if origin != "*" && !origin.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && is_plain(host))
        {
            return Err("expected * or origins such as https://example.org".to_owned());
        }
        origins.push(origin.to_owned());
    }
    Ok(origins)
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("expected {}", names.join(", ")))
        }
    }
}

/// `1MiB`, `64 KiB` or a number of bytes, within bounds that are given as (text, bytes).
fn size(text: &str, min: (&str, usize), max: (&str, usize)) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor: usize| number.parse::<usize>().ok()?.checked_mul(factor));
    match bytes {
        Some(bytes) if (min.1..=max.1).contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("expected {}..={}", min.0, max.0)),
        None => Err(format!("expected {}..={}, as bytes or with KiB, MiB or GiB", min.0, max.0)),
    }
}
