//! The twin of [`super::uring`] where io_uring is forbidden: edge-triggered readiness by `mio`, the same contract.
//!
//! Readiness is remembered, not waited for again: a connection that may have bytes stands in a list until a read finds
//! the end of them, so an edge is never lost to a pause or to a budget. Received bytes lie in one arena that is used
//! from the start again after every [`Reactor::recycle`]. A write to disk blocks, so one helper thread does it.

use super::{AcceptRate, Commit, Completion, EventFd, Reactor, Received, Slot, accepts, shutdown};
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use shards::limits::{ACCEPTS_PER_SECOND, ACCEPTS_PER_TURN, DESCRIPTORS_RETRY_US};
use shards::link::Wake;
use shards::outbox::SendBuffer;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Events that one poll takes from the kernel; the kernel keeps the others.
const EVENTS: usize = 1024;
/// All that one poll receives.
const ARENA_BYTES: usize = 256 * 1024;
/// The most that one read asks for.
const PIECE_BYTES: usize = 16 * 1024;
/// With less room than this in the arena, reading waits for the next poll.
const PIECE_BYTES_MIN: usize = 4 * 1024;
/// What one connection may receive in one poll, so that it leaves room for others.
const RECEIVE_BYTES_PER_CONNECTION: usize = 2 * PIECE_BYTES;
/// After this many bytes in one poll, a connection's send lets others go first.
const SEND_BYTES_PER_CONNECTION: usize = 256 * 1024;
/// Completions that one poll hands over, so that the turn behind them comes round.
const COMPLETIONS_PER_POLL: usize = 4096;
/// Unread bytes that closing throws away, so that the peer can read what was sent last; see [`discard`].
const DISCARD_BYTES: usize = 64 * 1024;

/// The generation in tokens that are no connection's.
const NO_GENERATION: u32 = 0;
const WAKE: Slot = Slot { index: u32::MAX, generation: NO_GENERATION };

// A token carries slot and generation.
const _: () = assert!(usize::BITS == 64);

fn token(slot: Slot) -> Token {
    Token((u64::from(slot.generation) << 32 | u64::from(slot.index)) as usize)
}

fn slot_of(token: Token) -> Slot {
    let token = token.0 as u64;
    Slot { index: token as u32, generation: (token >> 32) as u32 }
}

struct Sending {
    buffer: SendBuffer,
    total: usize,
    sent: usize,
}

struct Connection {
    stream: TcpStream,
    generation: u32,
    /// There may be bytes: set by an event, cleared by the read that finds the end of them.
    readable: bool,
    /// The stream's end is among what is to be read: a short read is not the last one.
    hung_up: bool,
    /// Stands in [`Epoll::readers`].
    reading: bool,
    /// Stands in [`Epoll::writers`].
    writing: bool,
    paused: bool,
    /// The end was reported.
    ended: bool,
    /// Nothing more will be sent: the peer is told after the send under way.
    finishing: bool,
    sending: Option<Sending>,
}

impl Connection {
    /// Whether it is to be put into the list of readers, where it counts as standing from now on.
    fn joins_readers(&mut self) -> bool {
        let joins = self.readable && !self.reading && !self.paused && !self.ended;
        self.reading |= joins;
        joins
    }

    fn joins_writers(&mut self) -> bool {
        let joins = self.sending.is_some() && !self.writing;
        self.writing |= joins;
        joins
    }
}

struct Listener {
    socket: TcpListener,
    /// Connections may wait.
    waiting: bool,
}

pub struct Epoll {
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u32,
    /// Connections that may have bytes and are not paused, each at most once.
    readers: VecDeque<Slot>,
    /// Connections whose send can go on, each at most once.
    writers: VecDeque<Slot>,
    arena: Vec<u8>,
    /// Bytes of the arena that completions refer to.
    used: usize,
    commits: Sender<Commit>,
    committed: Receiver<io::Result<()>>,
    committing: bool,
    wake: Arc<EventFd>,
    accept_rate: AcceptRate,
    accept_retry: Option<Instant>,
    /// Completions made between polls.
    made: VecDeque<Completion>,
}

impl Epoll {
    pub fn new(wake: Arc<EventFd>) -> io::Result<Epoll> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&wake.as_raw_fd()), token(WAKE), Interest::READABLE)?;
        let (commits, to_commit) = channel();
        let (results, committed) = channel();
        let signal = wake.clone();
        // Ends when the reactor, and with it the sender of commits, is dropped.
        std::thread::Builder::new().name("commit".into()).spawn(move || run_commits(&to_commit, &results, &signal))?;
        Ok(Epoll {
            poll,
            events: Events::with_capacity(EVENTS),
            listeners: Vec::new(),
            connections: Vec::new(),
            free: Vec::new(),
            generation: NO_GENERATION,
            readers: VecDeque::new(),
            writers: VecDeque::new(),
            arena: vec![0; ARENA_BYTES],
            used: 0,
            commits,
            committed,
            committing: false,
            wake,
            accept_rate: AcceptRate::new(ACCEPTS_PER_SECOND),
            accept_retry: None,
            made: VecDeque::new(),
        })
    }

    fn connection(&mut self, slot: Slot) -> Option<&mut Connection> {
        find(&mut self.connections, slot)
    }

    fn adopt(&mut self, mut stream: TcpStream) -> io::Result<Slot> {
        let generation = match self.generation.wrapping_add(1) {
            NO_GENERATION => NO_GENERATION + 1,
            generation => generation,
        };
        let index = self.free.last().copied().unwrap_or(self.connections.len() as u32);
        let slot = Slot { index, generation };
        // Both directions once and for all: what is ready already is reported by the next poll.
        self.poll.registry().register(&mut stream, token(slot), Interest::READABLE | Interest::WRITABLE)?;
        self.generation = generation;
        if self.free.pop().is_none() {
            self.connections.push(None);
        }
        self.connections[index as usize] = Some(Connection {
            stream,
            generation,
            readable: false,
            hung_up: false,
            reading: false,
            writing: false,
            paused: false,
            ended: false,
            finishing: false,
            sending: None,
        });
        Ok(slot)
    }

    /// Completions made between polls come first: a slot's release before its next use.
    fn hand_over(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        let room = limit.saturating_sub(completions.len()).min(self.made.len());
        completions.extend(self.made.drain(..room));
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let Epoll { events, connections, listeners, readers, writers, wake, .. } = self;
        for event in events.iter() {
            let slot = slot_of(event.token());
            if slot == WAKE {
                wake.clear(); // does not wait: nobody else takes the signal back
                completions.push(Completion::Woken);
            } else if slot.generation == NO_GENERATION {
                if let Some(listener) = listeners.get_mut(slot.index as usize) {
                    listener.waiting = true;
                }
            } else if let Some(connection) = find(connections, slot) {
                let hung_up = event.is_read_closed() || event.is_error();
                connection.hung_up |= hung_up;
                connection.readable |= hung_up || event.is_readable();
                if connection.joins_readers() {
                    readers.push_back(slot);
                }
                let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                if writable && connection.joins_writers() {
                    writers.push_back(slot);
                }
            }
        }
        Ok(())
    }

    /// Lets every connection in the list write once.
    fn write(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        for _ in 0..self.writers.len() {
            if completions.len() >= limit {
                return;
            }
            let Some(slot) = self.writers.pop_front() else { return };
            let Some(connection) = find(&mut self.connections, slot) else { continue };
            connection.writing = false;
            let Some(mut sending) = connection.sending.take() else { continue };
            match write_some(&mut connection.stream, &mut sending) {
                Progress::Finished(result) => {
                    completions.push(Completion::Sent { slot, buffer: sending.buffer, result });
                    if connection.finishing {
                        shutdown(connection.stream.as_raw_fd(), libc::SHUT_WR);
                    }
                }
                Progress::Blocked => connection.sending = Some(sending),
                Progress::Budget => {
                    connection.sending = Some(sending);
                    connection.writing = true;
                    self.writers.push_back(slot);
                }
            }
        }
    }

    fn accept(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        // What is still to be handed over may be the release of a slot that would be used again here.
        if self.accept_retry.is_some() || !self.made.is_empty() {
            return;
        }
        for number in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners[number].waiting || completions.len() >= limit {
                    break;
                }
                if let Err(until) = accepts(&self.accept_rate, self.wake.as_raw_fd()) {
                    self.accept_retry = Some(until);
                    return; // the connections wait on, without another event
                }
                let accepted = self.listeners[number].socket.accept();
                match accepted.and_then(|(stream, _)| self.adopt(stream)) {
                    Ok(slot) => {
                        self.accept_rate.spend(Instant::now());
                        completions.push(Completion::Accepted { listener: number, slot });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.listeners[number].waiting = false,
                    Err(error) if is_passing(&error) => {}
                    // Out of descriptors after all, or of memory.
                    Err(_) => {
                        self.accept_retry = Some(Instant::now() + Duration::from_micros(DESCRIPTORS_RETRY_US));
                        return;
                    }
                }
            }
        }
    }

    /// Reads every connection in the list once, as far as there is room.
    fn read(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        for _ in 0..self.readers.len() {
            if self.arena.len() - self.used < PIECE_BYTES_MIN || completions.len() >= limit {
                return;
            }
            let Some(slot) = self.readers.pop_front() else { return };
            let Some(connection) = find(&mut self.connections, slot) else { continue };
            connection.reading = false;
            if connection.paused || connection.ended {
                continue;
            }
            let mut left = RECEIVE_BYTES_PER_CONNECTION;
            while connection.readable && !connection.ended && left > 0 && completions.len() < limit {
                let room = (self.arena.len() - self.used).min(PIECE_BYTES).min(left);
                if room == 0 {
                    break;
                }
                match connection.stream.read(&mut self.arena[self.used..][..room]) {
                    Ok(length @ 1..) => {
                        let received = Received { buffer: self.used as u32, length: length as u32 };
                        completions.push(Completion::Received { slot, received });
                        self.used += length;
                        left -= length;
                        // A short read has emptied the socket: whatever comes now gives a new event. Not so the end,
                        // if the last event told of it already.
                        connection.readable = length == room || connection.hung_up;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => connection.readable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => {
                        connection.ended = true;
                        completions.push(Completion::Ended { slot });
                    }
                }
            }
            if connection.joins_readers() {
                self.readers.push_back(slot);
            }
        }
    }
}

fn find(connections: &mut [Option<Connection>], slot: Slot) -> Option<&mut Connection> {
    let connection = connections.get_mut(slot.index as usize)?.as_mut()?;
    (connection.generation == slot.generation).then_some(connection)
}

/// Errors of one accept that say nothing about the next.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

enum Progress {
    Finished(io::Result<()>),
    /// An event tells when it can go on.
    Blocked,
    /// It can go on, but it is others' turn.
    Budget,
}

fn write_some(stream: &mut TcpStream, sending: &mut Sending) -> Progress {
    let mut left = SEND_BYTES_PER_CONNECTION;
    while sending.sent < sending.total {
        if left == 0 {
            return Progress::Budget;
        }
        let written = if let Some(bytes) = sending.buffer.contiguous() {
            stream.write(&bytes[sending.sent..])
        } else {
            let mut slices = Vec::with_capacity(2 * sending.buffer.splices.len() + 1);
            sending.buffer.pieces(sending.sent, |piece| slices.push(IoSlice::new(piece)));
            // It takes as many slices as the system allows. Rust programs ignore SIGPIPE.
            stream.write_vectored(&slices)
        };
        match written {
            Ok(0) => return Progress::Finished(Err(ErrorKind::WriteZero.into())),
            Ok(length) => {
                sending.sent += length;
                left = left.saturating_sub(length);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Blocked,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Progress::Finished(Err(error)),
        }
    }
    Progress::Finished(Ok(()))
}

/// Reads and forgets what waits at a socket that is about to be closed: a socket closed with bytes unread resets its
/// connection, and what was sent last is lost where the peer has not read it yet. In the other driver, the receive that
/// is under way does this.
fn discard(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    let mut left = DISCARD_BYTES;
    while left > 0 {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => left = left.saturating_sub(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn run_commits(commits: &Receiver<Commit>, results: &Sender<io::Result<()>>, wake: &EventFd) {
    for Commit { file, offset, data } in commits {
        let result = file.write_all_at(&data, offset).and_then(|()| file.sync_data());
        // Given back before the reactor hears of it, as the other driver does.
        drop((file, data));
        if results.send(result).is_err() {
            return; // the reactor is gone
        }
        wake.wake();
    }
}

impl Reactor for Epoll {
    fn set_accept_rate(&mut self, per_second: u32) {
        self.accept_rate = AcceptRate::new(per_second);
    }

    fn listen(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut socket = TcpListener::from_std(listener);
        let number = Slot { index: self.listeners.len() as u32, generation: NO_GENERATION };
        self.poll.registry().register(&mut socket, token(number), Interest::READABLE)?;
        self.listeners.push(Listener { socket, waiting: false });
        Ok(())
    }

    fn stop_listening(&mut self) {
        // Closing a listener resets what it has not accepted: take everything that waits first.
        for (number, listener) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            loop {
                match listener.socket.accept().and_then(|(stream, _)| self.adopt(stream)) {
                    Ok(slot) => self.made.push_back(Completion::Accepted { listener: number, slot }),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
        }
        self.accept_retry = None;
    }

    fn send(&mut self, slot: Slot, buffer: SendBuffer) {
        let Some(connection) = self.connection(slot) else { return };
        assert!(connection.sending.is_none(), "one send per connection");
        let total = buffer.len();
        connection.sending = Some(Sending { buffer, total, sent: 0 });
        if connection.joins_writers() {
            self.writers.push_back(slot);
        }
    }

    fn pause(&mut self, slot: Slot) {
        if let Some(connection) = self.connection(slot) {
            connection.paused = true;
        }
    }

    fn resume(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.paused = false;
        // Events may have come meanwhile, and come only once.
        if connection.joins_readers() {
            self.readers.push_back(slot);
        }
    }

    fn finish(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.finishing = true;
        if connection.sending.is_none() {
            shutdown(connection.stream.as_raw_fd(), libc::SHUT_WR);
        }
    }

    fn close(&mut self, slot: Slot) {
        if self.connection(slot).is_none() {
            return;
        }
        let Some(mut connection) = self.connections[slot.index as usize].take() else { return };
        shutdown(connection.stream.as_raw_fd(), libc::SHUT_RDWR);
        discard(&mut connection.stream);
        if let Some(sending) = connection.sending.take() {
            let result = Err(io::Error::from_raw_os_error(libc::EPIPE));
            self.made.push_back(Completion::Sent { slot, buffer: sending.buffer, result });
        }
        // The kernel forgets a closed descriptor, and what stands in the lists is of an earlier generation: nothing of
        // the connection is under way any more.
        self.free.push(slot.index);
        self.made.push_back(Completion::Released { slot });
    }

    fn commit(&mut self, commit: Commit) {
        assert!(!self.committing, "one commit at a time");
        match self.commits.send(commit) {
            Ok(()) => self.committing = true,
            Err(_) => self.made.push_back(Completion::Committed(Err(ErrorKind::BrokenPipe.into()))),
        }
    }

    fn poll(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let before = completions.len();
        let limit = before + COMPLETIONS_PER_POLL;
        self.hand_over(completions, limit);
        self.write(completions, limit); // what was asked for since the last poll
        let mut timeout = timeout;
        if let Some(at) = self.accept_retry {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.accept_retry = None;
            } else {
                timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
            }
        }
        let accepting = self.accept_retry.is_none() && self.listeners.iter().any(|listener| listener.waiting);
        let listed = !self.readers.is_empty() || !self.writers.is_empty() || !self.made.is_empty();
        if completions.len() > before || accepting || listed {
            timeout = Some(Duration::ZERO);
        }
        self.wait(timeout, completions)?;
        if self.committing
            && let Ok(result) = self.committed.try_recv()
        {
            self.committing = false;
            completions.push(Completion::Committed(result));
        }
        self.write(completions, limit);
        self.accept(completions, limit);
        self.read(completions, limit);
        Ok(())
    }

    fn bytes(&self, received: Received) -> &[u8] {
        &self.arena[received.buffer as usize..][..received.length as usize]
    }

    fn recycle(&mut self) {
        self.used = 0;
    }

    fn peer(&self, slot: Slot) -> Option<SocketAddr> {
        let connection = self.connections.get(slot.index as usize)?.as_ref()?;
        if connection.generation == slot.generation { connection.stream.peer_addr().ok() } else { None }
    }
}
