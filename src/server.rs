//! Start here: configuration → data directory → shards → listeners → signals → drain. Called by the command line.

use crate::addresses::Addresses;
use crate::app::App;
use crate::auth::NoUsers;
use crate::connection::Kind;
use crate::progress::Shown;
use crate::protocol::Catalog;
use crate::protocol::frames::FrameEncoder;
use crate::protocol::http::health::Health;
use crate::reactor::uring::Uring;
use crate::reactor::{self, EventFd, Reactor};
use crate::settings::{Address, DeletePayload, Driver, Mode, Settings};
use crate::shard_thread::{DRAIN, Failure, Parts, STOP, ShardThread, Shared, describe, now_us};
use crate::sys_topics::{SysTopics, Tally};
use crate::tls::{Tls, TlsError};
use shards::limits::Limits;
use shards::link::{Links, Wake, mesh};
use shards::log::recover::{self, RecoveryError};
use shards::manifest::{DataDirectory, DataError};
use shards::progress::Progress;
use shards::reshard::{ReshardError, reshard};
use shards::schema::{TableDef, TableId};
use shards::session::system_tables;
use shards::shard::{self, Shard};
use shards::storage::{Directory, FileName};
use shards::topic::Routes;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use tracing::{error, info, warn};

#[derive(Debug)]
pub enum ServerError {
    Data(DataError),
    Reshard(ReshardError),
    Recovery {
        shard: u16,
        error: RecoveryError,
    },
    Listen {
        address: String,
        error: io::Error,
    },
    Io {
        what: &'static str,
        error: io::Error,
    },
    /// A certificate or key.
    Tls(TlsError),
    /// `--io uring` where io_uring does not work.
    Driver(String),
    /// A flush failed.
    Disk(io::Error),
    /// A thread panicked: a fault of this program.
    Bug,
}

impl ServerError {
    /// See `tablecast --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServerError::Driver(_) | ServerError::Tls(_) => 2,
            ServerError::Data(DataError::Io(..) | DataError::NoShard(_) | DataError::NoManifest(_))
            | ServerError::Reshard(_)
            | ServerError::Recovery { .. }
            | ServerError::Disk(_) => 74,
            _ => 1,
        }
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServerError::Data(error) => write!(f, "{error}"),
            ServerError::Reshard(error) => write!(f, "changing the number of shards: {error}"),
            ServerError::Recovery { shard, error } => write!(f, "shard {shard}: {error}"),
            ServerError::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            ServerError::Io { what, error } => write!(f, "{what}: {error}"),
            ServerError::Tls(error) => write!(f, "TLS: {error}"),
            ServerError::Driver(why) => write!(f, "--io uring: {why}"),
            ServerError::Disk(error) => write!(f, "the disk failed: {error}"),
            ServerError::Bug => f.write_str("a thread panicked; the server cannot go on without it"),
        }
    }
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::Io { what, error }
}

/// A socket that one shard listens on.
struct Listening {
    kind: Kind,
    address: SocketAddr,
}

/// Serves an app until a signal ends it.
pub fn run(app: App, settings: Settings, mode: Mode) -> Result<(), ServerError> {
    reactor::raise_descriptor_limit();
    let tls = Tls::load(&settings.tls).map_err(ServerError::Tls)?.map(Arc::new);
    let uring = choose_driver(settings.io.driver)?;
    let cores: Arc<[usize]> = reactor::allowed_cores().into();
    let limits = limits(&settings);
    let mut data = open_data(&settings)?;
    let declared: Vec<TableDef> = app.tables.into_iter().chain(system_tables()).collect();
    let ids = data.register(declared.iter()).map_err(ServerError::Data)?;
    let tables: Vec<(TableId, Arc<TableDef>)> = ids.into_iter().zip(declared.into_iter().map(Arc::new)).collect();
    let figures = tables.last().map(|(id, _)| *id);
    let count = data.manifest.shards;
    info!(app = app.name, %mode, shards = count, io = if uring { "io_uring" } else { "epoll" }, "starting");

    let wakes = (0..count)
        .map(|_| EventFd::new().map(Arc::new))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io_error("eventfd"))?;
    let links = mesh(&wakes.iter().map(|wake| wake.clone() as Arc<dyn Wake>).collect::<Vec<_>>());
    let directories = (0..count)
        .map(|shard| Directory::open(&data.shard_path(shard)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io_error("data directory"))?;
    let null_on_delete = settings.mqtt.delete_payload == DeletePayload::Null;
    let opening = Opening { tables: &tables, limits, directories: &directories, null_on_delete };
    let health = Arc::new(Health::new(usize::from(count)));
    let mut opened = opening.open_shards(links, settings.data.strict, &health)?;
    start_generated_keys(&mut opened, &tables);

    let wanted = [
        (Kind::Http, settings.http.address.clone()),
        (Kind::Mqtt, settings.mqtt.address.clone()),
        (Kind::Https, settings.https_address()),
        (Kind::Mqtts, settings.mqtts_address()),
    ];
    let catalog = Arc::new(catalog(tables, app.static_files, app.web_socket_echo, settings.http.cors, health));
    let listeners = bind_all(&wanted, count)?;
    let shared = Arc::new(Shared::new(
        Tally::new(opened.iter().map(Shard::counters)),
        Addresses::new(settings.limits.connections_per_address),
    ));
    let (sender, events) = mpsc::channel();
    let mut threads = Vec::new();
    let addresses: Vec<(Kind, SocketAddr)> = listeners[0].iter().map(|(own, _)| (own.kind, own.address)).collect();
    for ((shard, listeners), (directory, wake)) in
        opened.into_iter().zip(listeners).zip(directories.into_iter().zip(wakes.iter().cloned()))
    {
        let core = settings.shards.pin.then(|| cores[usize::from(shard.index()) % cores.len()]);
        let kinds = listeners.iter().map(|(own, _)| own.kind).collect();
        let is_first = shard.index() == 0;
        let parts = Parts {
            shard,
            catalog: catalog.clone(),
            directory,
            wake,
            shared: shared.clone(),
            kinds,
            tls: tls.clone(),
            cores: cores.clone(),
            accepts_per_second: settings.limits.accepts_per_second,
            sys_topics: figures
                .filter(|_| is_first && settings.mqtt.sys_interval_s > 0)
                .map(|table| SysTopics::new(table, settings.mqtt.sys_interval_s * 1_000_000)),
        };
        let sockets = listeners.into_iter().map(|(_, socket)| socket).collect();
        threads.push(start_thread(parts, sockets, core, uring, sender.clone())?);
    }
    supervise(&events, &shared, &wakes, &addresses, &sender, tls.as_deref())?;
    for thread in threads {
        let _ = thread.join(); // its result has come over the channel
    }
    info!("stopped");
    Ok(())
}

pub(crate) fn limits(settings: &Settings) -> Limits {
    Limits {
        packet_bytes_max: settings.limits.packet_bytes_max,
        outbox_bytes_max: settings.limits.outbox_bytes_max,
        subscriptions_max: settings.limits.subscriptions_per_connection,
        sessions_max: settings.limits.sessions_max,
        ..Limits::default()
    }
}

/// Opens the data directory, with the number of shards that the settings ask for.
pub(crate) fn open_data(settings: &Settings) -> Result<DataDirectory, ServerError> {
    let default_shards = reactor::allowed_cores().len().clamp(1, shards::limits::SHARDS_MAX) as u16;
    let asked = settings.shards.count;
    let mut data =
        DataDirectory::open(&settings.data.directory, asked.unwrap_or(default_shards)).map_err(ServerError::Data)?;
    if let Some(asked) = asked.filter(|asked| *asked != data.manifest.shards) {
        let from = data.manifest.shards;
        info!("rewriting the data directory for {asked} shards instead of {from}");
        let progress = Arc::new(Progress::default());
        let _shown = Shown::start("rewriting", progress.clone());
        reshard(&mut data, asked, limits(settings).segment_sizes(), &progress).map_err(ServerError::Reshard)?;
    }
    Ok(data)
}

/// What the main thread waits for.
enum Event {
    Ready,
    /// A thread is done.
    Ended(Result<(), ServerError>),
    Signal(i32),
}

fn choose_driver(asked: Driver) -> Result<bool, ServerError> {
    match (asked, Uring::probe()) {
        (Driver::Epoll, _) => {
            info!("io driver: epoll, as asked for");
            Ok(false)
        }
        (_, Ok(())) => {
            info!("io driver: io_uring");
            Ok(true)
        }
        (Driver::Uring, Err(why)) => Err(ServerError::Driver(why)),
        (Driver::Auto, Err(why)) => {
            warn!("io driver: epoll, because io_uring is not available ({why})");
            Ok(false)
        }
    }
}

/// What all shards are opened with.
pub(crate) struct Opening<'a> {
    pub tables: &'a [(TableId, Arc<TableDef>)],
    pub limits: Limits,
    pub directories: &'a [Directory],
    pub null_on_delete: bool,
}

impl Opening<'_> {
    /// Recovers all shards at once. One whose data is damaged serves none of its records, unless `strict` says that
    /// nothing is to be served then.
    pub fn open_shards(&self, links: Vec<Links>, strict: bool, health: &Health) -> Result<Vec<Shard>, ServerError> {
        let progress = Arc::new(Progress::default());
        let _shown = Shown::start("reading the log", progress.clone());
        std::thread::scope(|scope| {
            let open = |(index, links)| {
                let progress = &*progress;
                scope.spawn(move || self.open_shard(index, links, strict, health, progress))
            };
            let threads: Vec<_> = links.into_iter().enumerate().map(open).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(ServerError::Bug))).collect()
        })
    }

    fn open_shard(
        &self,
        index: usize,
        links: Links,
        strict: bool,
        health: &Health,
        progress: &Progress,
    ) -> Result<Shard, ServerError> {
        let shard = index as u16;
        let salt = uuid::Uuid::new_v4().as_u64_pair().0;
        let encoder = Box::new(FrameEncoder::new(self.null_on_delete));
        let (tables, limits) = (self.tables, self.limits);
        let parts = shard::Parts { index: shard, limits, tables, links, encoder, salt, now_us: now_us() };
        let started = Instant::now();
        let found = recover::open(&self.directories[index], shard, salt, limits.segment_sizes(), progress);
        let (log, recovery) = match found {
            Ok(found) => found,
            Err(error) => {
                let Some(place) = error.place().filter(|_| !strict) else {
                    return Err(ServerError::Recovery { shard, error });
                };
                let damage = describe(&self.directories[index], place, error.to_string());
                error!(
                    shard,
                    file = damage.file,
                    offset = damage.offset,
                    "{error}; the shard serves none of its records, the others serve; see tablecast verify and repair"
                );
                health.report(shard, damage);
                return Ok(Shard::damaged(parts, place));
            }
        };
        if let Some(cut) = recovery.cut {
            warn!(
                shard,
                "{}: cut off what a crash left unfinished behind offset {}; nothing acknowledged was in it",
                FileName::Segment(cut.segment),
                cut.offset
            );
        }
        let opened = Shard::with_log(parts, log, progress);
        let (indexed, walked) = (recovery.indexed, recovery.walked);
        let milliseconds = started.elapsed().as_millis() as u64;
        info!(shard, segments = recovery.segments, indexed, walked, milliseconds, "log recovered");
        Ok(opened)
    }
}

/// Generated integer keys start above the largest one, wherever it is.
fn start_generated_keys(shards: &mut [Shard], tables: &[(TableId, Arc<TableDef>)]) {
    let count = shards.len();
    for (id, _) in tables {
        let largest = shards.iter().filter_map(|shard| shard.table(*id).largest_integer_key()).max().unwrap_or(0);
        for shard in shards.iter_mut() {
            let index = shard.index();
            shard.table_mut(*id).start_keys(largest, index, count);
        }
    }
}

/// What sessions are told of the app. Public for the tests that drive sessions without sockets.
#[doc(hidden)]
pub fn catalog(
    tables: Vec<(TableId, Arc<TableDef>)>,
    static_files: crate::protocol::http::files::StaticFiles,
    web_socket_echo: Option<String>,
    cors: Vec<String>,
    health: Arc<Health>,
) -> Catalog {
    let routes = |visible: fn(&shards::schema::Export) -> bool| {
        Routes::new(tables.iter().map(|(id, definition)| (*id, &**definition)), visible)
    };
    let (rest, sse) = (routes(|export| export.rest), routes(|export| export.sse));
    let (ws, mqtt) = (routes(|export| export.ws), routes(|export| export.mqtt));
    let mut by_number = Vec::new();
    for (id, definition) in tables {
        let at = usize::from(id.0);
        if at >= by_number.len() {
            by_number.resize(at + 1, None);
        }
        by_number[at] = Some(definition);
    }
    Catalog {
        tables: by_number,
        rest,
        sse,
        ws,
        mqtt,
        static_files,
        web_socket_echo,
        cors,
        authority: Box::new(NoUsers),
        health,
    }
}

/// One listening socket per address for each shard. Where the port is 0 the first socket decides it for all.
fn bind_all(wanted: &[(Kind, Address)], shards: u16) -> Result<Vec<Vec<(Listening, TcpListener)>>, ServerError> {
    let mut all: Vec<Vec<(Listening, TcpListener)>> = (0..shards).map(|_| Vec::new()).collect();
    for (kind, address) in wanted {
        let mut port = None;
        let sockets = address.sockets();
        for mut wanted in sockets.iter().copied() {
            if let Some(port) = port {
                wanted.set_port(port);
            }
            for own in all.iter_mut() {
                let listener = match reactor::bind(wanted) {
                    Ok(listener) => listener,
                    // A machine without IPv6: `localhost` is then 127.0.0.1 alone.
                    Err(error) if wanted.is_ipv6() && sockets.len() > 1 => {
                        info!("not listening on {wanted}: {error}");
                        break;
                    }
                    Err(error) => return Err(ServerError::Listen { address: wanted.to_string(), error }),
                };
                let bound = listener.local_addr().map_err(io_error("listening socket"))?;
                wanted = bound;
                port = Some(bound.port());
                own.push((Listening { kind: *kind, address: bound }, listener));
            }
        }
    }
    Ok(all)
}

fn start_thread(
    parts: Parts,
    sockets: Vec<TcpListener>,
    core: Option<usize>,
    uring: bool,
    events: mpsc::Sender<Event>,
) -> Result<std::thread::JoinHandle<()>, ServerError> {
    let name = format!("shard-{}", parts.shard.index());
    let body = move || {
        if let Some(core) = core
            && let Err(error) = reactor::run_on(&[core])
        {
            warn!(shard = parts.shard.index(), core, "not pinned: {error}");
        }
        let wake = parts.wake.clone();
        let life = || {
            if uring {
                Uring::new(wake).map_err(io_error("io_uring")).and_then(|own| turn(own, parts, sockets, &events))
            } else {
                let own = reactor::epoll::Epoll::new(wake).map_err(io_error("epoll"));
                own.and_then(|own| turn(own, parts, sockets, &events))
            }
        };
        // A server that has lost a shard must not look alive.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life)).unwrap_or(Err(ServerError::Bug));
        let _ = events.send(Event::Ended(result));
    };
    std::thread::Builder::new().name(name).spawn(body).map_err(io_error("thread"))
}

/// The life of a shard's thread.
fn turn<R: Reactor>(
    mut reactor: R,
    parts: Parts,
    sockets: Vec<TcpListener>,
    events: &mpsc::Sender<Event>,
) -> Result<(), ServerError> {
    reactor.set_accept_rate(parts.accepts_per_second);
    for socket in sockets {
        reactor.listen(socket).map_err(io_error("listening socket"))?;
    }
    let mut thread = ShardThread::new(reactor, parts);
    thread.begin();
    let _ = events.send(Event::Ready);
    thread.run().map_err(|failure| match failure {
        Failure::Disk(error) => ServerError::Disk(error),
        Failure::Reactor(error) => ServerError::Io { what: "reactor", error },
    })
}

/// Announces the server, and sees it through to its end.
fn supervise(
    events: &mpsc::Receiver<Event>,
    shared: &Shared,
    wakes: &[Arc<EventFd>],
    addresses: &[(Kind, SocketAddr)],
    sender: &mpsc::Sender<Event>,
    tls: Option<&Tls>,
) -> Result<(), ServerError> {
    watch_signals(sender.clone(), tls.is_some())?;
    let stop = |phase: u8| {
        shared.phase.fetch_max(phase, Ordering::AcqRel);
        wakes.iter().for_each(|wake| wake.wake());
    };
    let (mut ready, mut ended) = (0, 0);
    let mut outcome = Ok(());
    while ended < wakes.len() {
        let Ok(event) = events.recv() else { break };
        match event {
            Event::Ready => {
                ready += 1;
                if ready == wakes.len() {
                    announce(addresses);
                }
            }
            Event::Signal(SIGHUP) => match tls.map_or(Ok(()), Tls::reload) {
                Ok(()) => info!("SIGHUP: certificates and key read again; new connections use them"),
                Err(error) => error!("SIGHUP: {error}; certificates and key stay as they were"),
            },
            Event::Signal(signal) => {
                let is_term = signal == SIGTERM;
                if shared.phase.load(Ordering::Acquire) == STOP {
                    std::process::exit(128 + signal); // asked twice
                }
                stop(if is_term { DRAIN } else { STOP });
            }
            Event::Ended(result) => {
                ended += 1;
                if let Err(error) = result {
                    // The others must not acknowledge on behalf of a server that is about to stop: no flush, no wait.
                    outcome = Err(error);
                    break;
                }
            }
        }
    }
    outcome
}

/// `reloads`: SIGHUP has something to read again; otherwise it ends the process, as it does when a terminal is closed.
fn watch_signals(events: mpsc::Sender<Event>, reloads: bool) -> Result<(), ServerError> {
    let watched = [SIGTERM, SIGINT].into_iter().chain(reloads.then_some(SIGHUP));
    let mut signals = signal_hook::iterator::Signals::new(watched).map_err(io_error("signals"))?;
    let watch = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(io_error("thread"))?;
    Ok(())
}

/// Tells on standard output where the server listens, one line per address, then `ready`.
fn announce(addresses: &[(Kind, SocketAddr)]) {
    let mut text = String::new();
    for (kind, address) in addresses {
        text.push_str(&format!("listening {} {address}\n", kind.name()));
    }
    text.push_str("ready\n");
    let mut out = io::stdout().lock();
    // Nobody may be reading; the server serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
