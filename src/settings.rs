//! The server's settings. From lowest to highest precedence: built-in defaults, a YAML file, the environment
//! (`TABLECAST_SECTION__KEY`), command-line flags. Made by `cli`, given to `server::run`. Every setting is described
//! once, in `keys`; `layers` reads the sources.

mod address;
mod keys;
mod layers;

pub use address::Address;
pub use keys::{Key, SETTINGS};
pub use layers::Layers;

use shards::limits;
use std::fmt;
use std::path::PathBuf;

/// `tablecast dev` or `tablecast run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For development: answers scripts of every origin, unless configured otherwise.
    Dev,
    Run,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub http: HttpSettings,
    pub mqtt: MqttSettings,
    pub https: SecureSettings,
    pub mqtts: SecureSettings,
    pub tls: TlsSettings,
    pub data: DataSettings,
    pub shards: ShardSettings,
    pub io: IoSettings,
    pub log: LogSettings,
    pub limits: LimitSettings,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    pub address: Address,
    /// Origins whose scripts may read answers; `*`: all of them; empty: none.
    pub cors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MqttSettings {
    pub address: Address,
    pub delete_payload: DeletePayload,
    /// Seconds between two updates of the figures below `$SYS`; 0: there are none.
    pub sys_interval_s: u64,
}

/// A listener that speaks TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecureSettings {
    /// `None`: the usual port of localhost, if there is a certificate.
    pub address: Option<Address>,
}

/// Files in PEM; read at start and again on SIGHUP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    /// The server's certificate, and those between it and a well-known one.
    pub certificate: Option<PathBuf>,
    /// Its private key. Given if and only if the certificate is.
    pub key: Option<PathBuf>,
    /// Certificates that sign those of clients.
    pub client_ca: Option<PathBuf>,
    /// `None`: [`ClientAuth::Optional`] if there is a `client_ca`.
    pub client_auth: Option<ClientAuth>,
}

/// Whether clients show certificates of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is not valid is refused.
    Optional,
    /// Without one there is no connection.
    Required,
}

impl TlsSettings {
    pub fn client_auth(&self) -> ClientAuth {
        let default = if self.client_ca.is_some() { ClientAuth::Optional } else { ClientAuth::None };
        self.client_auth.unwrap_or(default)
    }
}

/// What subscribers of a record get when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePayload {
    /// No bytes, as MQTT does for a retained message that is cleared (and Harper 4).
    Empty,
    /// The JSON text `null`, as Harper 5.
    Null,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DataSettings {
    pub directory: PathBuf,
    /// Whether the server stops where data of a shard is damaged, instead of serving the others.
    pub strict: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShardSettings {
    /// `None`: one per core that this process may use.
    pub count: Option<u16>,
    /// Whether each shard's thread stays on its core.
    pub pin: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IoSettings {
    pub driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel and the container allow it, else epoll.
    Auto,
    Uring,
    Epoll,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub level: tracing::Level,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LimitSettings {
    /// Largest MQTT packet, WebSocket message or HTTP request body.
    pub packet_bytes_max: usize,
    /// Bytes that wait for one slow reader.
    pub outbox_bytes_max: usize,
    /// `None`: the default for strangers, and no limit for clients on this machine.
    pub connections_per_address: Option<usize>,
    /// Of each shard.
    pub accepts_per_second: u32,
    /// Of an MQTT connection.
    pub subscriptions_per_connection: usize,
    /// MQTT sessions that outlive their connections.
    pub sessions_max: usize,
}

impl Settings {
    /// The lowest layer. `dev` lets pages of every origin in, so that a front-end served from elsewhere just works.
    pub fn defaults(mode: Mode) -> Settings {
        let cors = match mode {
            Mode::Dev => vec!["*".to_owned()],
            Mode::Run => Vec::new(),
        };
        Settings {
            http: HttpSettings { address: Address::localhost(9926), cors },
            mqtt: MqttSettings {
                address: Address::localhost(1883),
                delete_payload: DeletePayload::Empty,
                sys_interval_s: limits::SYS_INTERVAL_S,
            },
            https: SecureSettings::default(),
            mqtts: SecureSettings::default(),
            tls: TlsSettings::default(),
            data: DataSettings { directory: PathBuf::from("./tablecast-data"), strict: false },
            shards: ShardSettings { count: None, pin: true },
            io: IoSettings { driver: Driver::Auto },
            log: LogSettings { level: tracing::Level::INFO, format: LogFormat::Text },
            limits: LimitSettings {
                packet_bytes_max: limits::PACKET_BYTES_MAX,
                outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
                connections_per_address: None,
                accepts_per_second: limits::ACCEPTS_PER_SECOND,
                subscriptions_per_connection: limits::SUBSCRIPTIONS_PER_CONNECTION,
                sessions_max: limits::SESSIONS_MAX,
            },
        }
    }

    /// Where HTTPS is spoken.
    pub fn https_address(&self) -> Address {
        self.secure_address(&self.https, 9927)
    }

    /// Where MQTT over TLS is spoken.
    pub fn mqtts_address(&self) -> Address {
        self.secure_address(&self.mqtts, 8883)
    }

    fn secure_address(&self, own: &SecureSettings, port: u16) -> Address {
        let default = if self.tls.certificate.is_some() { Address::localhost(port) } else { Address::Off };
        own.address.clone().unwrap_or(default)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Dev => "dev",
            Mode::Run => "run",
        })
    }
}
