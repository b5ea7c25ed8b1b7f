//! Reads the layers of the settings and says what is wrong with them. Called by `cli`.

use super::{Address, ClientAuth, Key, Mode, SETTINGS, Settings};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, suggestion};
use crate::yaml::{self, Entry, Node, Value};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Read if it is there and no other file is named.
const DEFAULT_FILE: &str = "tablecast.yaml";
const PREFIX: &str = "TABLECAST_";
/// Of a settings file, and of a file that a `…_FILE` variable names.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the operator said, before it is understood.
#[derive(Debug, Default)]
pub struct Layers {
    /// Where `tablecast.yaml` is looked for.
    pub folder: PathBuf,
    /// `--config`
    pub file: Option<PathBuf>,
    /// All variables; those of other programs are passed over.
    pub environment: Vec<(String, String)>,
    /// Flag without dashes, value.
    pub flags: Vec<(&'static str, String)>,
}

impl Layers {
    /// # Errors
    /// Everything that is wrong in any layer.
    pub fn read(&self, mode: Mode) -> Result<Settings, Vec<Diagnostic>> {
        let mut reader = Reader { settings: Settings::defaults(mode), diagnostics: Diagnostics::default() };
        self.read_file(&mut reader);
        self.read_environment(&mut reader);
        for (flag, value) in &self.flags {
            if let Some(key) = SETTINGS.iter().find(|key| key.flag == *flag) {
                reader.set(key, &format!("--{flag}"), value.trim(), Place::whole("command line"));
            }
        }
        reader.check_tls();
        reader.check_listeners();
        let Reader { settings, diagnostics } = reader;
        diagnostics.finish(settings).map(|(settings, _)| settings)
    }

    fn read_file(&self, reader: &mut Reader) {
        let default = self.folder.join(DEFAULT_FILE);
        let (path, shown) = match &self.file {
            Some(path) => (path.as_path(), path.display().to_string()),
            None if default.exists() => (default.as_path(), DEFAULT_FILE.to_owned()),
            None => return,
        };
        match read_bounded(path) {
            Ok(text) => {
                if let Some(root) = yaml::parse(&shown, &text, &mut reader.diagnostics) {
                    reader.file(&root);
                }
            }
            Err(error) => reader.diagnostics.error(Place::whole(&shown), error.to_string()),
        }
    }

    fn read_environment(&self, reader: &mut Reader) {
        let place = Place::whole("environment");
        for (name, value) in self.environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let known = |name: &str| SETTINGS.iter().find(|key| key.variable() == name);
            if let Some(key) = known(name) {
                reader.set(key, name, value.trim(), place);
            } else if let Some((plain, key)) = name.strip_suffix("_FILE").and_then(|it| Some((it, known(it)?))) {
                if self.environment.iter().any(|(other, _)| other == plain) {
                    reader.diagnostics.error(place, format!("both {plain} and {name} are set (expected one of them)"));
                }
                match read_bounded(Path::new(value)) {
                    Ok(text) => reader.set(key, name, text.trim(), place),
                    Err(error) => reader.diagnostics.error(place, format!("{name}: {value}: {error}")),
                }
            } else if !is_service_variable(name) {
                let hint = suggestion(name, SETTINGS.iter().map(Key::variable));
                reader.diagnostics.error(place, format!("unknown variable {name}{hint}"));
            }
        }
    }
}

/// Kubernetes sets these in every container of a namespace that has a service called `tablecast…`.
fn is_service_variable(name: &str) -> bool {
    !name.contains("__") && (name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_"))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("is too large (expected at most {FILE_BYTES_MAX} bytes)")));
    }
    Ok(text)
}

struct Reader {
    settings: Settings,
    diagnostics: Diagnostics,
}

impl Reader {
    fn set(&mut self, key: &Key, name: &str, value: &str, place: Place<'_>) {
        if let Err(expected) = (key.set)(&mut self.settings, value) {
            // Of a text of several lines only the first: the others may be a secret that went astray.
            let value = value.lines().next().unwrap_or_default();
            self.diagnostics.error(place, format!("{name}: `{value}` is not valid ({expected})"));
        }
    }

    fn file(&mut self, root: &Node<'_>) {
        let Some(sections) = root.map() else {
            if !root.is_null() {
                let message = format!("found {} (expected a map of sections)", root.describe());
                self.diagnostics.error(root.place, message);
            }
            return;
        };
        for section in sections {
            let keys: Vec<&Key> = SETTINGS.iter().filter(|key| key.section == section.key).collect();
            if keys.is_empty() {
                let hint = suggestion(&section.key, SETTINGS.iter().map(|key| key.section));
                self.diagnostics.error(section.key_place, format!("unknown section {}{hint}", section.key));
            } else {
                self.section(section, &keys);
            }
        }
    }

    fn section(&mut self, section: &Entry<'_>, keys: &[&Key]) {
        let names = || keys.iter().map(|key| key.key);
        let Some(entries) = section.value.map() else {
            let found = section.value.describe();
            let expected = names().collect::<Vec<_>>().join(", ");
            let message = format!("{}: found {found} (expected a map with {expected})", section.key);
            self.diagnostics.error(section.value.place, message);
            return;
        };
        for entry in entries {
            match keys.iter().find(|key| key.key == entry.key) {
                Some(key) => self.entry(key, &entry.value),
                None => {
                    let hint = suggestion(&entry.key, names());
                    let message = format!("unknown key {}.{}{hint}", section.key, entry.key);
                    self.diagnostics.error(entry.key_place, message);
                }
            }
        }
    }

    fn entry(&mut self, key: &Key, node: &Node<'_>) {
        // `deletePayload: null` means the word: no setting has a null.
        let text = match &node.value {
            Value::Scalar { text, .. } => Some(text.clone()),
            Value::List(items) if key.is_list => {
                let texts: Option<Vec<&str>> = items.iter().map(Node::text).collect();
                texts.map(|texts| texts.join(","))
            }
            _ => None,
        };
        match text {
            Some(text) => self.set(key, &key.path(), text.trim(), node.place),
            None => {
                let expected = if key.is_list { "a value or a list of values" } else { "one value" };
                let message = format!("{}: found {} (expected {expected})", key.path(), node.describe());
                self.diagnostics.error(node.place, message);
            }
        }
    }

    /// What no single setting can know.
    fn check_tls(&mut self) {
        let tls = &self.settings.tls;
        let has_certificate = tls.certificate.is_some();
        let listens = |address: &Option<Address>| matches!(address, Some(Address::Listen { .. }));
        let asks = tls.client_auth() != ClientAuth::None;
        let needs = |name: &str, other: &str| format!("{name} is given without {other}");
        let problems = [
            (has_certificate && tls.key.is_none(), needs("tls.certificate", "tls.key")),
            (tls.key.is_some() && !has_certificate, needs("tls.key", "tls.certificate")),
            (tls.client_ca.is_some() && !has_certificate, needs("tls.clientCa", "tls.certificate")),
            (asks && tls.client_ca.is_none(), needs("tls.clientAuth", "tls.clientCa")),
            (listens(&self.settings.https.address) && !has_certificate, needs("https.address", "tls.certificate")),
            (listens(&self.settings.mqtts.address) && !has_certificate, needs("mqtts.address", "tls.certificate")),
        ];
        for (_, problem) in problems.into_iter().filter(|(is_so, _)| *is_so) {
            self.diagnostics.error(Place::whole("settings"), problem);
        }
    }

    fn check_listeners(&mut self) {
        let settings = &self.settings;
        let listeners = [
            ("http.address", settings.http.address.clone()),
            ("mqtt.address", settings.mqtt.address.clone()),
            ("https.address", settings.https_address()),
            ("mqtts.address", settings.mqtts_address()),
        ];
        let mut problems = Vec::new();
        if listeners.iter().all(|(_, address)| *address == Address::Off) {
            problems.push("http.address and mqtt.address are both off".to_owned());
        }
        for (at, (name, address)) in listeners.iter().enumerate() {
            let is_fixed = matches!(address, Address::Listen { port: 1.., .. });
            for (earlier, _) in listeners[..at].iter().filter(|(_, other)| is_fixed && other == address) {
                problems.push(format!("{earlier} and {name} are both {address} (expected different ports)"));
            }
        }
        for problem in problems {
            self.diagnostics.error(Place::whole("settings"), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::Diagnostic;

    struct Case {
        folder: tempfile::TempDir,
        layers: Layers,
    }

    /// `yaml`: contents of `tablecast.yaml`, none if empty.
    fn case(yaml: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Case {
        let folder = tempfile::tempdir().expect("tempdir");
        if !yaml.is_empty() {
            std::fs::write(folder.path().join("tablecast.yaml"), yaml).expect("write");
        }
        let layers = Layers {
            folder: folder.path().to_owned(),
            file: None,
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            flags: flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect(),
        };
        Case { folder, layers }
    }

    fn read(yaml: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Settings, Vec<String>> {
        let case = case(yaml, environment, flags);
        case.layers.read(Mode::Run).map_err(|list| list.iter().map(Diagnostic::to_string).collect())
    }

    #[test]
    fn precedence() {
        const YAML: &str = "http: {address: 1001}";
        const VARIABLE: (&str, &str) = ("TABLECAST_HTTP__ADDRESS", "1002");
        let flag = ("http", "1003");
        for (yaml, environment, flags, expected) in [
            ("", &[][..], &[][..], "localhost:9926"),
            (YAML, &[], &[], "localhost:1001"),
            (YAML, &[VARIABLE], &[], "localhost:1002"),
            (YAML, &[VARIABLE], &[flag], "localhost:1003"),
            (YAML, &[], &[flag], "localhost:1003"),
        ] {
            let settings = read(yaml, environment, flags).expect("valid");
            assert_eq!(settings.http.address.to_string(), expected);
        }
    }

    #[test]
    fn defaults_by_mode() {
        let read = |mode, yaml| case(yaml, &[], &[]).layers.read(mode).expect("valid").http.cors;
        assert_eq!(read(Mode::Dev, ""), ["*"]);
        assert!(read(Mode::Run, "").is_empty());
        assert_eq!(read(Mode::Dev, "http: {cors: [https://a.org]}"), ["https://a.org"]);
        assert!(read(Mode::Dev, "http: {cors: []}").is_empty());
    }

    #[test]
    fn every_setting_in_every_layer() {
        let yaml = "http:\n  address: 127.0.0.1:80\n  cors: ['https://a.org', 'http://localhost:3000']\n\
                    mqtt:\n  address: off\n  deletePayload: null\n  sysInterval: 30\nhttps: {address: 443}\nmqtts: {address: 0}\n\
                    tls:\n  certificate: c.pem\n  key: /k/k.pem\n  clientCa: ca.pem\n  clientAuth: required\ndata: {directory: /d, strict: true}\n\
                    shards:\n  count: 64\n  pin: false\nio: {driver: epoll}\nlog: {level: debug, format: json}\n\
                    limits:\n  packetBytesMax: 1KiB\n  outboxBytesMax: 1 GiB\n  connectionsPerAddress: 7\n  \
                    acceptsPerSecond: 50\n  subscriptionsPerConnection: 10000\n  sessionsMax: 1\n";
        let values = [
            "127.0.0.1:80",
            "https://a.org, http://localhost:3000",
            "off",
            "null",
            "30",
            "443",
            "0",
            "c.pem",
            "/k/k.pem",
            "ca.pem",
            "required",
            "/d",
            "true",
            "64",
            "false",
            "epoll",
            "debug",
            "json",
            "1024",
            "1073741824",
            "7",
            "50",
            "10000",
            "1",
        ];
        let expected = Settings {
            http: HttpSettings {
                address: Address::Listen { host: "127.0.0.1".to_owned(), port: 80 },
                cors: vec!["https://a.org".to_owned(), "http://localhost:3000".to_owned()],
            },
            mqtt: MqttSettings { address: Address::Off, delete_payload: DeletePayload::Null, sys_interval_s: 30 },
            https: SecureSettings { address: Some(Address::localhost(443)) },
            mqtts: SecureSettings { address: Some(Address::localhost(0)) },
            tls: TlsSettings {
                certificate: Some("c.pem".into()),
                key: Some("/k/k.pem".into()),
                client_ca: Some("ca.pem".into()),
                client_auth: Some(ClientAuth::Required),
            },
            data: DataSettings { directory: "/d".into(), strict: true },
            shards: ShardSettings { count: Some(64), pin: false },
            io: IoSettings { driver: Driver::Epoll },
            log: LogSettings { level: tracing::Level::DEBUG, format: LogFormat::Json },
            limits: LimitSettings {
                packet_bytes_max: 1 << 10,
                outbox_bytes_max: 1 << 30,
                connections_per_address: Some(7),
                accepts_per_second: 50,
                subscriptions_per_connection: 10_000,
                sessions_max: 1,
            },
        };
        assert_eq!(read(yaml, &[], &[]), Ok(expected.clone()));
        let names: Vec<String> = SETTINGS.iter().map(Key::variable).collect();
        let environment: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
        assert_eq!(read("", &environment, &[]), Ok(expected.clone()));
        let flags: Vec<(&'static str, &str)> = SETTINGS.iter().map(|key| key.flag).zip(values).collect();
        assert_eq!(read("", &[], &flags), Ok(expected));
        assert!(names.contains(&"TABLECAST_MQTT__DELETE_PAYLOAD".to_owned()), "{names:?}");
    }

    #[test]
    fn mistakes_in_the_file() {
        for (yaml, expected) in [
            ("htp: {}\n", "tablecast.yaml:1:1: error: unknown section htp (did you mean http?)"),
            ("http:\n  adress: 1\n", "tablecast.yaml:2:3: error: unknown key http.adress (did you mean address?)"),
            ("shards: 4\n", "tablecast.yaml:1:9: error: shards: found `4` (expected a map with count, pin)"),
            (
                "shards:\n  count: 65\n",
                "tablecast.yaml:2:10: error: shards.count: `65` is not valid (expected 1..=64 or auto)",
            ),
            (
                "shards: {count: 0}\n",
                "tablecast.yaml:1:17: error: shards.count: `0` is not valid (expected 1..=64 or auto)",
            ),
            ("shards: {pin: 3}\n", "tablecast.yaml:1:15: error: shards.pin: `3` is not valid (expected true, false)"),
            ("io: {driver: [auto]}\n", "tablecast.yaml:1:14: error: io.driver: found a list (expected one value)"),
            (
                "http: {cors: [{}]}\n",
                "tablecast.yaml:1:14: error: http.cors: found a list (expected a value or a list of values)",
            ),
            (
                "http: {cors: https://a.org/}\n",
                "tablecast.yaml:1:14: error: http.cors: `https://a.org/` is not valid (expected * or origins such as https://example.org)",
            ),
            (
                "mqtt: {address: example.org:1}\n",
                "tablecast.yaml:1:17: error: mqtt.address: `example.org:1` is not valid (expected a port, localhost:port, IP address:port, or off)",
            ),
            (
                "data: {directory: ''}\n",
                "tablecast.yaml:1:19: error: data.directory: `` is not valid (expected the path of a folder)",
            ),
            (
                "limits: {packetBytesMax: 512}\n",
                "tablecast.yaml:1:26: error: limits.packetBytesMax: `512` is not valid (expected 1KiB..=16MiB)",
            ),
            (
                "limits: {sessionsMax: 0}\n",
                "tablecast.yaml:1:23: error: limits.sessionsMax: `0` is not valid (expected 1..=1000000)",
            ),
            (
                "limits: {outboxBytesMax: 4MB}\n",
                "tablecast.yaml:1:26: error: limits.outboxBytesMax: `4MB` is not valid \
                 (expected 64KiB..=1GiB, as bytes or with KiB, MiB or GiB)",
            ),
            (
                "limits: {outboxBytesMax: 99999999999GiB}\n",
                "tablecast.yaml:1:26: error: limits.outboxBytesMax: `99999999999GiB` is not valid \
                 (expected 64KiB..=1GiB, as bytes or with KiB, MiB or GiB)",
            ),
            ("- 1\n", "tablecast.yaml:1:1: error: found a list (expected a map of sections)"),
            (
                "http: {address: off}\nmqtt: {address: off}\n",
                "settings: error: http.address and mqtt.address are both off",
            ),
            (
                "tls: {certificate: c.pem, key: k.pem}\nmqtts: {address: 9927}\n",
                "settings: error: https.address and mqtts.address are both localhost:9927 (expected different ports)",
            ),
            ("tls: {certificate: c.pem}\n", "settings: error: tls.certificate is given without tls.key"),
            ("tls: {key: k.pem}\n", "settings: error: tls.key is given without tls.certificate"),
            ("tls: {clientAuth: required}\n", "settings: error: tls.clientAuth is given without tls.clientCa"),
            ("https: {address: 443}\n", "settings: error: https.address is given without tls.certificate"),
            (
                "tls: {certificate: ''}\n",
                "tablecast.yaml:1:20: error: tls.certificate: `` is not valid (expected the path of a file)",
            ),
            (
                "http: {address: 1883}\n",
                "settings: error: http.address and mqtt.address are both localhost:1883 (expected different ports)",
            ),
        ] {
            assert_eq!(read(yaml, &[], &[]), Err(vec![expected.to_owned()]), "{yaml}");
        }
        assert_eq!(read("a: 1\nhttp: {address: x, b: 2}\n", &[], &[("io", "x")]).map_err(|list| list.len()), Err(4));
    }

    #[test]
    fn mistakes_elsewhere() {
        for (name, value, expected) in [
            (
                "TABLECAST_HTTP__ADDRES",
                "1",
                "environment: error: unknown variable TABLECAST_HTTP__ADDRES (did you mean TABLECAST_HTTP__ADDRESS?)",
            ),
            ("TABLECAST_X", "1", "environment: error: unknown variable TABLECAST_X"),
            (
                "TABLECAST_IO__DRIVER",
                "iouring",
                "environment: error: TABLECAST_IO__DRIVER: `iouring` is not valid (expected auto, uring, epoll)",
            ),
            (
                "TABLECAST_IO__DRIVER_FILE",
                "/nonexistent",
                "environment: error: TABLECAST_IO__DRIVER_FILE: /nonexistent: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(read("", &[(name, value)], &[]), Err(vec![expected.to_owned()]), "{name}");
        }
        let expected = "command line: error: --shards: `-1` is not valid (expected 1..=64 or auto)";
        assert_eq!(read("", &[], &[("shards", "-1")]), Err(vec![expected.to_owned()]));
        for name in ["HOME", "TABLECAST_SERVICE_HOST", "TABLECAST_PORT", "TABLECAST_MQTT_PORT_1883_TCP_ADDR"] {
            assert!(read("", &[(name, "10.0.0.1")], &[]).is_ok(), "{name} is not ours");
        }
    }

    #[test]
    fn tls_listeners() {
        const FILES: &str = "tls: {certificate: c.pem, key: k.pem}\n";
        let addresses = |yaml: &str| {
            let settings = read(yaml, &[], &[]).expect("valid");
            (settings.https_address().to_string(), settings.mqtts_address().to_string(), settings.tls.client_auth())
        };
        let off = || "off".to_owned();
        assert_eq!(addresses(""), (off(), off(), ClientAuth::None));
        assert_eq!(addresses("https: {address: off}"), (off(), off(), ClientAuth::None));
        assert_eq!(addresses(FILES), ("localhost:9927".to_owned(), "localhost:8883".to_owned(), ClientAuth::None));
        let with_ca = "tls: {certificate: c.pem, key: k.pem, clientCa: ca.pem}\nhttps: {address: off}\n";
        assert_eq!(addresses(with_ca), (off(), "localhost:8883".to_owned(), ClientAuth::Optional));
        assert!(read(&format!("{FILES}http: {{address: off}}\nmqtt: {{address: off}}"), &[], &[]).is_ok());
        // A key instead of its path: what is secret about it is not shown.
        let key = "-----BEGIN PRIVATE KEY-----\nMIGH";
        let expected = "environment: error: TABLECAST_TLS__KEY: `-----BEGIN PRIVATE KEY-----` is not valid (expected \
                        the path of a file)";
        assert_eq!(read("", &[("TABLECAST_TLS__KEY", key)], &[]), Err(vec![expected.to_owned()]));
    }

    #[test]
    fn values_from_files() {
        let mut case = case("http: {address: 1}", &[], &[]);
        let file = case.folder.path().join("value");
        std::fs::write(&file, "2\n").expect("write");
        let variable = ("TABLECAST_HTTP__ADDRESS_FILE".to_owned(), file.display().to_string());
        case.layers.environment = vec![variable];
        let settings = case.layers.read(Mode::Run).expect("valid");
        assert_eq!(settings.http.address, Address::localhost(2));
        case.layers.environment.push(("TABLECAST_HTTP__ADDRESS".to_owned(), "3".to_owned()));
        assert!(case.layers.read(Mode::Run).is_err(), "both forms are given");

        case.layers.environment.clear();
        case.layers.file = Some(file.clone());
        std::fs::write(&file, "mqtt: {address: off}").expect("write");
        let settings = case.layers.read(Mode::Run).expect("valid");
        assert_eq!(settings.http.address, Address::localhost(9926), "the named file replaces tablecast.yaml");
        case.layers.file = Some("/nonexistent.yaml".into());
        assert!(case.layers.read(Mode::Run).is_err(), "a named file must exist");
    }
}
