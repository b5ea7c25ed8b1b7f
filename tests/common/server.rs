//! The server as a child process: started on free ports of the loopback with data of its own, killed when dropped.

use super::Endpoints;
use super::lines::{self, Tail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start or a stop may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// The application of the demo this project is compatible with: a table for all topics at the root, and Sensors.
pub const DEMO_CONFIG: &str = "graphqlSchema:\n  files: \"schema.graphql\"\nrest: true\n";
pub const DEMO_SCHEMA: &str = r#"
type Topics @table @export(name: "") {
  id: ID @primaryKey
  data: Object
}

type Sensors @table @export {
  id: ID @primaryKey
  location: String
  temp: Float
}
"#;

/// Writes an application with this schema.
pub fn write_app(dir: &Path, schema: &str) {
    std::fs::create_dir_all(dir).expect("make the application's folder");
    std::fs::write(dir.join("config.yaml"), DEMO_CONFIG).expect("write config.yaml");
    std::fs::write(dir.join("schema.graphql"), schema).expect("write schema.graphql");
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// `run` or `dev`.
    pub command: &'static str,
    pub shards: usize,
    /// The application's folder; none: the demo's application, written beside the data.
    pub app: Option<PathBuf>,
    /// The application inside the binary instead.
    pub built_in: bool,
    /// The I/O driver, `uring` or `epoll`; none: that of the whole suite (TABLECAST_TEST_IO = `uring`, `epoll`, or
    /// `denied` by seccomp), or else the server's own choice.
    pub io: Option<&'static str>,
    /// The data folder; none: one that is removed with the [`Server`].
    pub data: Option<PathBuf>,
    /// The address of each port; port 0 takes a free one.
    pub http: String,
    pub mqtt: String,
    /// Whether the shards are pinned to cores (tests share the machine: not unless asked for).
    pub pin: bool,
    /// More arguments, after all others.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            command: "run",
            shards: 2,
            app: None,
            built_in: false,
            io: None,
            data: None,
            http: "127.0.0.1:0".into(),
            mqtt: "127.0.0.1:0".into(),
            pin: false,
            args: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl Options {
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| a.to_string()));
        self
    }

    /// The command line: the one place to change when the server's flags do.
    fn arguments(&self, app: &Path, data: &Path) -> Vec<String> {
        let mut all = vec![self.command.to_owned()];
        if !self.built_in {
            all.push(app.display().to_string());
        }
        let mut flag = |name: &str, value: &str| all.extend([name.to_owned(), value.to_owned()]);
        flag("--http", &self.http);
        flag("--mqtt", &self.mqtt);
        flag("--data", &data.display().to_string());
        flag("--shards", &self.shards.to_string());
        flag("--pin", &self.pin.to_string());
        if let Some(io) = self.io.map(str::to_owned).or_else(|| suite_io().filter(|io| io != DENIED)) {
            flag("--io", &io);
        }
        all.extend(self.args.iter().cloned());
        all
    }
}

/// The value of TABLECAST_TEST_IO with which io_uring is denied to every server by a seccomp filter.
const DENIED: &str = "denied";

fn suite_io() -> Option<String> {
    std::env::var("TABLECAST_TEST_IO").ok()
}

/// A running server.
pub struct Server {
    options: Options,
    /// Holds the application and the data that are this server's own.
    home: TempDir,
    child: Child,
    running: bool,
    listeners: BTreeMap<String, SocketAddr>,
    stdout: Tail,
    stderr: Tail,
}

impl Server {
    /// Starts a server and waits until it says that it is ready; panics with its standard error if it does not.
    #[track_caller]
    pub fn start(options: Options) -> Server {
        Self::try_start(options).unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Self::start`], for a server that is expected to refuse: the error holds its standard error.
    pub fn try_start(options: Options) -> Result<Server, String> {
        let home = TempDir::with_prefix("tablecast-test-").expect("make a temporary folder");
        if options.app.is_none() {
            write_app(&home.path().join("app"), DEMO_SCHEMA);
        }
        let (child, listeners, stdout, stderr) = spawn(&options, home.path())?;
        Ok(Server { options, home, child, running: true, listeners, stdout, stderr })
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints { http: self.http(), mqtt: self.mqtt() }
    }

    #[track_caller]
    pub fn http(&self) -> SocketAddr {
        self.listener("http")
    }

    #[track_caller]
    pub fn mqtt(&self) -> SocketAddr {
        self.listener("mqtt")
    }

    /// The address of any `listening <name> <address>` line.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("the server announced no listener {name}: {self:?}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data(&self) -> PathBuf {
        data_of(&self.options, self.home.path())
    }

    /// The folder that holds what is this server's own.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn app(&self) -> PathBuf {
        app_of(&self.options, self.home.path())
    }

    /// The options of the next [`Self::restart`].
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        self.running && self.child.try_wait().expect("wait for the server").is_none()
    }

    /// Ends the process as a power cut would, as far as a signal can.
    pub fn kill9(&mut self) {
        if self.running {
            let _ = self.child.kill();
            self.child.wait().expect("wait for the server");
            self.running = false;
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        assert!(self.running, "the server has ended");
        lines::signal(&self.child, signal);
    }

    /// SIGTERM, and the exit status; panics if the server does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits until the process ends by itself (a refused start, a fault); panics if it does not.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        match lines::wait_exit(&mut self.child, DEADLINE) {
            Some(status) => {
                self.running = false;
                status
            }
            None => {
                self.kill9();
                panic!("the server did not end within {DEADLINE:?}; its standard error:\n{}", self.stderr());
            }
        }
    }

    /// Starts again on the same data and application (SIGTERM first if it still runs). The ports are new ones.
    #[track_caller]
    pub fn restart(&mut self) {
        if self.running {
            let status = self.terminate();
            assert!(status.success(), "stopped by SIGTERM with {status}; its standard error:\n{}", self.stderr());
        }
        let (child, listeners, stdout, stderr) =
            spawn(&self.options, self.home.path()).unwrap_or_else(|why| panic!("restart: {why}"));
        (self.child, self.listeners, self.stdout, self.stderr) = (child, listeners, stdout, stderr);
        self.running = true;
    }

    /// [`Self::restart`] on the ports of before, for clients that reconnect.
    #[track_caller]
    pub fn restart_on_same_ports(&mut self) {
        let (http, mqtt) = (self.http().to_string(), self.mqtt().to_string());
        let before = (std::mem::replace(&mut self.options.http, http), std::mem::replace(&mut self.options.mqtt, mqtt));
        self.restart();
        (self.options.http, self.options.mqtt) = before;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server {} at {:?}, data {}", self.child.id(), self.listeners, self.data().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended_alone = self.running && matches!(self.child.try_wait(), Ok(Some(_)));
        self.kill9();
        if thread::panicking() || ended_alone {
            eprintln!("--- {self:?}; standard error:\n{}---", self.stderr());
        }
    }
}

fn data_of(options: &Options, home: &Path) -> PathBuf {
    options.data.clone().unwrap_or_else(|| home.join("data"))
}

fn app_of(options: &Options, home: &Path) -> PathBuf {
    options.app.clone().unwrap_or_else(|| home.join("app"))
}

type Started = (Child, BTreeMap<String, SocketAddr>, Tail, Tail);

fn spawn(options: &Options, home: &Path) -> Result<Started, String> {
    let arguments = options.arguments(&app_of(options, home), &data_of(options, home));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tablecast"));
    if options.io.is_none() && suite_io().as_deref() == Some(DENIED) {
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe; nothing is allocated.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, super::seccomp::forbid_io_uring) };
    }
    let mut child = command
        .args(&arguments)
        .env_remove("TABLECAST_TEST_IO")
        .envs(options.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start {}: {e}", env!("CARGO_BIN_EXE_tablecast")))?;
    let stderr = lines::tail(child.stderr.take().expect("piped"));
    let from = lines::lines(child.stdout.take().expect("piped"));
    let stdout = Tail::default();
    let mut listeners = BTreeMap::new();
    let end = Instant::now() + DEADLINE;
    let why = loop {
        let line = match from.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => break format!("was not ready within {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => break "ended".to_owned(),
        };
        stdout.push(line.as_bytes());
        stdout.push(b"\n");
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("listening"), Some(name), Some(address)) => match address.parse() {
                Ok(address) => drop(listeners.insert(name.to_owned(), address)),
                Err(e) => break format!("printed {line:?}: {e}"),
            },
            (Some("ready"), ..) => {
                let rest = stdout.clone();
                thread::spawn(move || {
                    for line in from {
                        rest.push(line.as_bytes());
                        rest.push(b"\n");
                    }
                });
                return Ok((child, listeners, stdout, stderr));
            }
            _ => {}
        }
    };
    let _ = child.kill();
    let status = child.wait().map(|s| s.signal().map_or(s.to_string(), |n| format!("signal {n}")));
    Err(format!(
        "tablecast {} {why} ({status:?}).\n--- standard output:\n{}--- standard error:\n{}---",
        arguments.join(" "),
        stdout.text(),
        stderr.text_at_end()
    ))
}
