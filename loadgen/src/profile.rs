//! Servers: how each is started, and where and how it is spoken to. A profile is a TOML file; the ready-made ones are
//! those of `perf/servers`.

use crate::process::family;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);

/// In all texts `{dir}` stands for a new folder, `{mqtt}`, `{websocket}`, `{http}` and `{redis}` for free ports, `{program}` for the
/// program, and `{shards}` for the number of its cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    pub description: String,
    /// What is started unless another program is named.
    pub program: String,
    /// Nothing: it is running already.
    pub command: Vec<String>,
    /// Files in the folder, with what is in them.
    pub files: BTreeMap<String, String>,
    /// One of these for each topic, in which `{topic}` is its number.
    pub topic_files: BTreeMap<String, String>,
    pub target: Target,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// The ready-made profiles, by name.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../perf/servers/", $name, ".toml")))),*];
    };
}

built_in!["tablecast", "floor", "mosquitto", "nats", "nchan", "nginx", "nginx-inline", "redis", "rmqtt", "rumqttd"];

/// A server that runs, and is ended when this is dropped.
pub struct Server {
    pub name: String,
    pub target: Target,
    /// Its process, if it was started here.
    pub process: Option<u32>,
    child: Option<Child>,
    folder: Option<Folder>,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // What it has started goes with it.
        let all: Vec<String> = family(child.id()).iter().rev().map(u32::to_string).collect();
        let _ = Command::new("kill").arg("-TERM").args(&all).stderr(Stdio::null()).status();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Which server, and how it differs from its profile.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Of a profile, or its file.
    pub profile: String,
    /// Started instead of the profile's program.
    pub program: Option<String>,
    /// More words for its command line.
    pub arguments: Vec<String>,
}

impl Choice {
    /// `profile`, or `profile=program`, each with more arguments behind it after spaces.
    pub fn parse(text: &str) -> Choice {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (profile, program) = match first.split_once('=') {
            Some((profile, program)) => (profile, Some(program.to_owned())),
            None => (first, None),
        };
        Choice { profile: profile.to_owned(), program, arguments: words.map(str::to_owned).collect() }
    }

    pub fn name(&self) -> String {
        let program = self.program.as_deref().map(|program| format!("={program}")).unwrap_or_default();
        [vec![format!("{}{program}", self.profile)], self.arguments.clone()].concat().join(" ")
    }

    fn load(&self) -> Result<Profile, String> {
        let name = &self.profile;
        let text = match BUILT_IN.iter().find(|(own, _)| own == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(name).map_err(|error| {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                format!("server {name}: {error}; ready-made profiles are {}", names.join(", "))
            })?,
        };
        toml::from_str(&text).map_err(|error| format!("server {name}: {error}"))
    }

    /// Starts it on these cores, and waits until it can be connected to.
    pub fn start(&self, cores: &[usize], topics: usize) -> Result<Server, String> {
        let profile = self.load()?;
        let problem = |what: String| format!("server {}: {what}", self.profile);
        let folder = std::env::temp_dir().join(format!("loadgen-{}-{}", std::process::id(), free_port()?));
        let program = self.program.clone().unwrap_or_else(|| profile.program.clone());
        let program = beside(&program).unwrap_or(program);
        let values = [
            ("dir", folder.to_string_lossy().into_owned()),
            ("program", program),
            ("mqtt", free_port()?.to_string()),
            ("websocket", free_port()?.to_string()),
            ("http", free_port()?.to_string()),
            ("redis", free_port()?.to_string()),
            ("shards", cores.len().to_string()),
        ];
        let fill = |text: &str| {
            values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
        };
        let target = Target {
            mqtt: profile.target.mqtt.as_deref().map(fill),
            mqtt_websocket: profile.target.mqtt_websocket.as_deref().map(fill),
            http: profile.target.http.as_deref().map(fill),
            redis: profile.target.redis.as_deref().map(fill),
            ..profile.target.clone()
        };
        if profile.command.is_empty() {
            return Ok(Server { name: self.name(), target, process: None, child: None, folder: None });
        }
        let folder = Folder(folder);
        let write = |name: &str, text: &str| {
            let path = folder.0.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text))
        };
        std::fs::create_dir_all(&folder.0).map_err(|error| problem(format!("{}: {error}", folder.0.display())))?;
        for (name, text) in &profile.files {
            write(name, &fill(text)).map_err(|error| problem(format!("{name}: {error}")))?;
        }
        for (name, text) in &profile.topic_files {
            for topic in 0..topics {
                let numbered = |text: &str| crate::target::numbered(text, topic);
                write(&numbered(name), &numbered(text)).map_err(|error| problem(format!("{name}: {error}")))?;
            }
        }
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let log = std::fs::File::create(folder.0.join("log")).map_err(|error| problem(error.to_string()))?;
        let error_log = log.try_clone().map_err(|error| problem(error.to_string()))?;
        let words: Vec<String> = profile.command.iter().map(|word| fill(word)).chain(self.arguments.clone()).collect();
        let child = Command::new("taskset")
            .args(["-c", &cores.join(",")])
            .args(&words)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .spawn()
            .map_err(|error| problem(format!("cannot start {}: {error}", words.join(" "))))?;
        let process = Some(child.id());
        let mut server = Server { name: self.name(), target, process, child: Some(child), folder: Some(folder) };
        server.wait().map_err(|what| {
            let log = server.folder.as_ref().map(|folder| read(&folder.0.join("log"))).unwrap_or_default();
            problem(format!("{what}; it says: {}", log.trim()))
        })?;
        Ok(server)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A program that was built together with this one.
fn beside(program: &str) -> Option<String> {
    let path = std::env::current_exe().ok()?.parent()?.join(program);
    (!program.contains('/') && path.is_file()).then(|| path.to_string_lossy().into_owned())
}

impl Server {
    fn wait(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        for address in self.target.addresses() {
            while TcpStream::connect(address).is_err() {
                if let Some(child) = &mut self.child
                    && let Ok(Some(status)) = child.try_wait()
                {
                    return Err(format!("it has ended with {status}"));
                }
                if Instant::now() > end {
                    return Err(format!("nothing listens on {address} after {START:?}"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}
