//! The reactor's contract, held against both drivers: each test is one function that runs on either. Nothing here waits
//! by the clock: tests poll until something is seen, up to a deadline, and prove that something does *not* come by a
//! later message on another connection that does.

use super::epoll::Epoll;
use super::uring::Uring;
use super::{Commit, Completion, EventFd, Reactor, Slot, bind};
use bytes::Bytes;
use shards::limits::{ACCEPTS_AT_ONCE, ACCEPTS_PER_TURN, DESCRIPTORS_KEPT_SHARE};
use shards::link::Wake;
use shards::outbox::{SendBuffer, Splice};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

trait Driver: Reactor + Sized {
    /// `None` where the system forbids this driver.
    fn make(wake: Arc<EventFd>) -> Option<Self>;
}

impl Driver for Epoll {
    fn make(wake: Arc<EventFd>) -> Option<Epoll> {
        Some(Epoll::new(wake).expect("an epoll reactor"))
    }
}

impl Driver for Uring {
    fn make(wake: Arc<EventFd>) -> Option<Uring> {
        let forbidden = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS));
        match io_uring::IoUring::new(8) {
            Err(error) if forbidden(&error) => {
                eprintln!("skipped: io_uring is forbidden here: {error}");
                None
            }
            _ => Some(Uring::new(wake).expect("an io_uring reactor")),
        }
    }
}

macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod on_uring {
            $(#[test] fn $name() { if let Some(host) = super::Host::<super::Uring>::new() { super::$name(host) } })*
        }
        mod on_epoll {
            $(#[test] fn $name() { if let Some(host) = super::Host::<super::Epoll>::new() { super::$name(host) } })*
        }
    };
}

on_both_drivers![
    echo,
    large_send_to_a_slow_reader,
    many_large_sends_to_a_fast_reader,
    more_bytes_than_buffers_from_many_connections,
    a_hot_connection_starves_nobody,
    pause_stops_receiving,
    pausing_and_resuming_loses_nothing,
    the_peers_end_comes_once,
    a_broken_connection_ends_once,
    finish_leaves_the_other_direction_open,
    finish_comes_after_the_send_under_way,
    close_fails_a_stuck_send,
    close_lets_the_last_send_arrive,
    a_slot_is_released_before_it_is_used_again,
    a_wake_ends_the_wait,
    the_wait_has_an_end,
    an_empty_send_is_complete,
    commit_writes_at_its_offset,
    commit_of_a_read_only_file_fails,
    stop_listening_accepts_what_waits,
    two_reactors_share_an_address,
    a_dropped_reactor_leaves_its_memory_alone,
    connections_beyond_the_rate_come_later,
];

/// A reactor on one listening address, and all that it has reported.
struct Host<R> {
    reactor: R,
    wake: Arc<EventFd>,
    address: SocketAddr,
    completions: Vec<Completion>,
    /// Slots in use, by index: a second use before the release is a fault of the driver.
    live: HashMap<u32, u32>,
    accepted: Vec<Slot>,
    received: HashMap<Slot, Vec<u8>>,
    /// The bytes of the last poll alone.
    received_in_poll: usize,
    ended: Vec<Slot>,
    sent: Vec<(Slot, SendBuffer, io::Result<()>)>,
    released: Vec<Slot>,
    committed: Vec<io::Result<()>>,
    woken: usize,
    polls: usize,
}

impl<R: Driver> Host<R> {
    fn new() -> Option<Host<R>> {
        Host::at(bind("127.0.0.1:0".parse().unwrap()).unwrap())
    }

    fn at(listener: TcpListener) -> Option<Host<R>> {
        let wake = Arc::new(EventFd::new().unwrap());
        let mut reactor = R::make(wake.clone())?;
        let address = listener.local_addr().unwrap();
        reactor.listen(listener).unwrap();
        Some(Host {
            reactor,
            wake,
            address,
            completions: Vec::new(),
            live: HashMap::new(),
            accepted: Vec::new(),
            received: HashMap::new(),
            received_in_poll: 0,
            ended: Vec::new(),
            sent: Vec::new(),
            released: Vec::new(),
            committed: Vec::new(),
            woken: 0,
            polls: 0,
        })
    }

    /// One poll, its completions noted and checked.
    fn poll(&mut self, timeout: Option<Duration>) {
        self.reactor.poll(timeout, &mut self.completions).expect("poll");
        self.polls += 1;
        self.received_in_poll = 0;
        for completion in self.completions.drain(..) {
            match completion {
                Completion::Accepted { listener, slot } => {
                    assert_eq!(listener, 0);
                    assert_eq!(self.live.insert(slot.index, slot.generation), None, "used again before its release");
                    self.accepted.push(slot);
                }
                Completion::Received { slot, received } => {
                    assert_eq!(self.live.get(&slot.index), Some(&slot.generation), "received after the release");
                    assert!(!self.ended.contains(&slot), "received after the end");
                    let bytes = self.reactor.bytes(received);
                    assert!(!bytes.is_empty());
                    self.received_in_poll += bytes.len();
                    self.received.entry(slot).or_default().extend_from_slice(bytes);
                }
                Completion::Ended { slot } => {
                    assert_eq!(self.live.get(&slot.index), Some(&slot.generation), "ended after the release");
                    self.ended.push(slot);
                }
                Completion::Sent { slot, buffer, result } => {
                    assert_eq!(self.live.get(&slot.index), Some(&slot.generation), "sent after the release");
                    self.sent.push((slot, buffer, result));
                }
                Completion::Released { slot } => {
                    assert_eq!(self.live.remove(&slot.index), Some(slot.generation), "released what was not in use");
                    self.released.push(slot);
                }
                Completion::Committed(result) => self.committed.push(result),
                Completion::Woken => self.woken += 1,
            }
        }
        self.reactor.recycle();
    }

    /// Each poll may wait until the deadline: one that sleeps though there is something to do is a fault that shows.
    fn until(&mut self, what: &str, mut seen: impl FnMut(&mut Host<R>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !seen(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not seen in time: {what}");
            self.poll(Some(left));
        }
    }

    /// A new connection: our end and the reactor's slot.
    fn connect(&mut self) -> (TcpStream, Slot) {
        let client = connect(self.address);
        let before = self.accepted.len();
        self.until("an accepted connection", |host| host.accepted.len() > before);
        (client, self.accepted[before])
    }

    fn received(&self, slot: Slot) -> &[u8] {
        self.received.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Goes on until everything that reached the reactor before this call was reported: a later message has.
    fn settle(&mut self, marker: &mut (TcpStream, Slot)) {
        let (client, slot) = marker;
        let before = self.received(*slot).len();
        client.write_all(b"m").unwrap();
        self.until("the marker", |host| host.received(*slot).len() > before);
        self.poll(Some(Duration::ZERO));
    }

    fn send(&mut self, slot: Slot, bytes: &[u8]) {
        self.reactor.send(slot, SendBuffer { bytes: bytes.to_vec(), ..SendBuffer::default() });
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_write_timeout(Some(DEADLINE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn set_int(socket: &impl AsRawFd, name: i32, value: i32) {
    // SAFETY: the value is an int that lives for the length of the call.
    let result = unsafe {
        let value: *const i32 = &value;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.cast(), size_of::<i32>() as u32)
    };
    assert_eq!(result, 0);
}

/// Closing resets the connection, whatever is on its way.
fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the value is a `linger` that lives for the length of the call.
    let result = unsafe {
        let value: *const libc::linger = &linger;
        let length = size_of::<libc::linger>() as u32;
        libc::setsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value.cast(), length)
    };
    assert_eq!(result, 0);
}

/// Bytes in which every place is told from every other.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn assert_same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "as many bytes");
    let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert_eq!(differs, None, "the first byte that differs");
}

/// A file that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(content: &[u8]) -> Scratch {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tablecast-reactor-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn echo<R: Driver>(mut host: Host<R>) {
    let (mut client, slot) = host.connect();
    assert_eq!(host.reactor.peer(slot), Some(client.local_addr().unwrap()));
    for round in 0..20 {
        let message = pattern(round, 100 + 977 * round as usize);
        client.write_all(&message).unwrap();
        host.until("the message", |host| host.received(slot).len() == message.len());
        let bytes = host.received.remove(&slot).unwrap();
        host.send(slot, &bytes);
        host.until("the send", |host| !host.sent.is_empty());
        let (of, buffer, result) = host.sent.pop().unwrap();
        assert_eq!(of, slot);
        assert_same(&buffer.bytes, &message);
        result.unwrap();
        let mut answer = vec![0; message.len()];
        client.read_exact(&mut answer).unwrap();
        assert_same(&answer, &message);
    }
}

fn large_send_to_a_slow_reader<R: Driver>(mut host: Host<R>) {
    const TOTAL: usize = 8 << 20;
    let (mut client, slot) = host.connect();
    set_int(&client, libc::SO_RCVBUF, 64 * 1024);
    let expected = pattern(1, TOTAL);
    // Pieces of every size, two of them at one place, one empty, and one at each end.
    let lengths = [3, 1, 0, 4096, 70_000, 1 << 20, 17, 2 << 20, 333_333];
    let plain = [0, 1, 0, 5000, 1, 1 << 20, 123_456, 9, 77];
    let mut buffer = SendBuffer::default();
    let mut at = 0;
    for (length, plain) in lengths.into_iter().zip(plain) {
        buffer.bytes.extend_from_slice(&expected[at..at + plain]);
        at += plain;
        let bytes = Bytes::copy_from_slice(&expected[at..at + length]);
        buffer.splices.push(Splice { at: buffer.bytes.len(), bytes });
        at += length;
    }
    // More pieces than one system call takes.
    for _ in 0..3000 {
        buffer.bytes.push(expected[at]);
        buffer
            .splices
            .push(Splice { at: buffer.bytes.len(), bytes: Bytes::copy_from_slice(&expected[at + 1..at + 9]) });
        at += 9;
    }
    buffer.bytes.extend_from_slice(&expected[at..TOTAL - 10]);
    let last = Bytes::copy_from_slice(&expected[TOTAL - 10..]);
    buffer.splices.push(Splice { at: buffer.bytes.len(), bytes: last });
    assert_eq!(buffer.len(), TOTAL);
    host.reactor.send(slot, buffer);
    // As far as it goes while nobody reads.
    for _ in 0..20 {
        host.poll(Some(Duration::from_millis(5)));
    }
    assert!(host.sent.is_empty(), "the peer has not read");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::with_capacity(TOTAL);
        let mut piece = [0; 5000];
        while got.len() < TOTAL {
            match client.read(&mut piece).unwrap() {
                0 => break,
                length => got.extend_from_slice(&piece[..length]),
            }
        }
        got
    });
    host.until("the send", |host| !host.sent.is_empty());
    let (_, buffer, result) = host.sent.pop().unwrap();
    result.unwrap();
    assert_eq!(buffer.len(), TOTAL, "the buffer comes back whole");
    assert_same(&reader.join().unwrap(), &expected);
}

fn many_large_sends_to_a_fast_reader<R: Driver>(mut host: Host<R>) {
    const SENDS: usize = 40;
    let (mut client, slot) = host.connect();
    let bytes = pattern(2, 4 << 20);
    let expected = bytes.clone();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        for _ in 0..SENDS {
            client.read_exact(&mut got).unwrap();
            assert!(got == expected);
        }
    });
    let mut buffer = SendBuffer { bytes, ..SendBuffer::default() };
    for _ in 0..SENDS {
        host.reactor.send(slot, buffer);
        host.until("the send", |host| !host.sent.is_empty());
        let (_, back, result) = host.sent.pop().unwrap();
        result.unwrap();
        buffer = back;
    }
    reader.join().unwrap();
}

fn more_bytes_than_buffers_from_many_connections<R: Driver>(mut host: Host<R>) {
    const CONNECTIONS: usize = 300;
    const BYTES: usize = 48 * 1024;
    let mut clients: Vec<(TcpStream, Vec<u8>)> =
        (0..CONNECTIONS).map(|number| (connect(host.address), pattern(number as u64, BYTES))).collect();
    host.until("all connections", |host| host.accepted.len() == CONNECTIONS);
    // Thrice as much as the buffers of either driver hold, all there before the reactor is asked again.
    for (client, bytes) in &mut clients {
        for piece in bytes[..BYTES / 2].chunks(200) {
            client.write_all(piece).unwrap();
        }
    }
    let writer = std::thread::spawn(move || {
        for at in (BYTES / 2..BYTES).step_by(512) {
            for (client, bytes) in &mut clients {
                client.write_all(&bytes[at..at + 512]).unwrap();
            }
        }
        clients
    });
    host.until("all bytes", |host| host.received.values().map(Vec::len).sum::<usize>() >= CONNECTIONS * BYTES);
    let clients = writer.join().unwrap();
    let peers: HashMap<SocketAddr, Slot> =
        host.accepted.iter().map(|slot| (host.reactor.peer(*slot).unwrap(), *slot)).collect();
    for (client, bytes) in &clients {
        assert_same(host.received(peers[&client.local_addr().unwrap()]), bytes);
    }
    assert!(host.ended.is_empty());
}

fn a_hot_connection_starves_nobody<R: Driver>(mut host: Host<R>) {
    const TOTAL: usize = 32 << 20;
    let (mut hot, hot_slot) = host.connect();
    let (mut quiet, quiet_slot) = host.connect();
    let writer = std::thread::spawn(move || {
        let bytes = vec![7; 1 << 20];
        (0..TOTAL / bytes.len()).for_each(|_| hot.write_all(&bytes).unwrap());
        hot
    });
    host.until("the first bytes", |host| !host.received(hot_slot).is_empty());
    let mut rounds = 0;
    while host.received(hot_slot).len() < TOTAL / 2 {
        let before = host.received(quiet_slot).len();
        quiet.write_all(b"q").unwrap();
        let polls = host.polls;
        host.until("the quiet one's byte", |host| host.received(quiet_slot).len() > before);
        assert!(host.polls - polls <= 100, "waited {} polls", host.polls - polls);
        rounds += 1;
    }
    assert!(rounds > 1);
    host.until("all bytes", |host| host.received(hot_slot).len() == TOTAL);
    drop(writer.join().unwrap());
}

fn pause_stops_receiving<R: Driver>(mut host: Host<R>) {
    let (mut client, slot) = host.connect();
    let mut marker = host.connect();
    client.write_all(b"before").unwrap();
    host.until("the first bytes", |host| host.received(slot) == b"before");
    host.reactor.pause(slot);
    host.settle(&mut marker);
    client.write_all(b" after").unwrap();
    for _ in 0..3 {
        host.settle(&mut marker);
    }
    assert_eq!(host.received(slot), b"before");
    host.reactor.resume(slot);
    host.until("the other bytes", |host| host.received(slot) == b"before after");
    // A pause that is taken back before the reactor is asked changes nothing.
    host.reactor.pause(slot);
    host.reactor.resume(slot);
    host.settle(&mut marker);
    client.write_all(b"wards").unwrap();
    host.until("the bytes after it", |host| host.received(slot) == b"before afterwards");
    // The end waits as well.
    host.reactor.pause(slot);
    host.settle(&mut marker);
    client.write_all(b" end").unwrap();
    drop(client);
    for _ in 0..3 {
        host.settle(&mut marker);
    }
    assert_eq!((host.received(slot), host.ended.len()), (&b"before afterwards"[..], 0));
    host.reactor.resume(slot);
    host.until("the end", |host| !host.ended.is_empty());
    assert_eq!(host.received(slot), b"before afterwards end");
}

fn pausing_and_resuming_loses_nothing<R: Driver>(mut host: Host<R>) {
    const TOTAL: usize = 8 << 20;
    let (mut client, slot) = host.connect();
    let expected = pattern(5, TOTAL);
    let bytes = expected.clone();
    let writer = std::thread::spawn(move || {
        let mut random = 1usize;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (1 + (random >> 40) % 20_000).min(rest.len());
            client.write_all(&rest[..length]).unwrap();
            rest = &rest[length..];
        }
        // Dropped: the end follows.
    });
    let begin = Instant::now();
    let mut round = 0;
    while host.ended.is_empty() {
        assert!(begin.elapsed() < DEADLINE);
        round += 1;
        // Every order of calls, some of them without a poll between.
        match round % 7 {
            0 | 3 => host.reactor.pause(slot),
            1 => {
                host.reactor.pause(slot);
                host.reactor.resume(slot);
            }
            5 => {
                host.reactor.resume(slot);
                host.reactor.pause(slot);
                host.poll(Some(Duration::ZERO));
                host.reactor.resume(slot);
            }
            _ => host.reactor.resume(slot),
        }
        host.poll(Some(Duration::from_millis(1)));
    }
    writer.join().unwrap();
    assert_same(host.received(slot), &expected);
}

fn the_peers_end_comes_once<R: Driver>(mut host: Host<R>) {
    let mut marker = host.connect();
    // The end together with bytes, and in both orders of being asked.
    for round in 0..20 {
        let mut client = connect(host.address);
        if round % 2 == 0 {
            let before = host.accepted.len();
            host.until("the connection", |host| host.accepted.len() > before);
        }
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        host.until("the end", |host| host.ended.len() > round);
        let slot = host.ended[round];
        assert_eq!(host.received(slot), b"last words");
        // Half closed: the other direction still works.
        host.send(slot, b"answer");
        let mut answer = String::new();
        host.until("the send", |host| host.sent.len() > round);
        host.reactor.resume(slot); // does not make it end again
        host.settle(&mut marker);
        host.reactor.close(slot);
        host.until("the release", |host| host.released.len() > round);
        assert_eq!(host.released[round], slot);
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(host.reactor.peer(slot), None);
    }
    host.settle(&mut marker);
    assert_eq!((host.ended.len(), host.released.len()), (20, 20));
}

fn a_broken_connection_ends_once<R: Driver>(mut host: Host<R>) {
    let (client, slot) = host.connect();
    let mut marker = host.connect();
    reset(client);
    host.until("the end", |host| !host.ended.is_empty());
    host.settle(&mut marker);
    host.send(slot, b"to nobody");
    host.until("the send", |host| !host.sent.is_empty());
    assert!(host.sent[0].2.is_err());
    host.reactor.close(slot);
    host.until("the release", |host| !host.released.is_empty());
    assert_eq!((host.ended.as_slice(), host.released.as_slice()), (&[slot][..], &[slot][..]));
}

fn finish_leaves_the_other_direction_open<R: Driver>(mut host: Host<R>) {
    let (mut client, slot) = host.connect();
    host.reactor.finish(slot);
    host.poll(Some(Duration::ZERO));
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    let bytes = pattern(3, 300_000);
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || client.write_all(&bytes));
    host.until("the end", |host| !host.ended.is_empty());
    writer.join().unwrap().unwrap();
    assert_same(host.received(slot), &expected);
    assert!(host.released.is_empty());
    host.reactor.close(slot);
    host.until("the release", |host| !host.released.is_empty());
}

fn finish_comes_after_the_send_under_way<R: Driver>(mut host: Host<R>) {
    let (mut client, slot) = host.connect();
    let bytes = pattern(4, 6 << 20);
    host.send(slot, &bytes);
    host.reactor.finish(slot);
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        (client, got)
    });
    host.until("the send", |host| !host.sent.is_empty());
    assert!(host.sent[0].2.is_ok());
    let (_client, got) = reader.join().unwrap();
    assert_same(&got, &bytes);
}

fn close_fails_a_stuck_send<R: Driver>(mut host: Host<R>) {
    let (client, slot) = host.connect();
    let mut marker = host.connect();
    host.send(slot, &vec![1; 32 << 20]);
    // Stuck: a poll that waits sees nothing.
    for _ in 0..20 {
        host.poll(Some(Duration::from_millis(5)));
    }
    assert!(host.sent.is_empty());
    host.reactor.close(slot);
    host.reactor.close(slot); // changes nothing
    host.until("the release", |host| !host.released.is_empty());
    let (of, buffer, result) = host.sent.pop().unwrap();
    assert_eq!((of, buffer.len()), (slot, 32 << 20));
    assert!(result.is_err());
    host.settle(&mut marker);
    assert_eq!(host.released, [slot]);
    assert!(host.ended.is_empty(), "no end after the close");
    drop(client);
}

fn close_lets_the_last_send_arrive<R: Driver>(_: Host<R>) {
    const BYTES: usize = 150_000;
    // Accepted sockets inherit room for the whole send; the peer's is small, so most of it still waits at the close.
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    set_int(&listener, libc::SO_SNDBUF, 200_000);
    set_int(&listener, libc::SO_RCVBUF, 200_000);
    let mut host = Host::<R>::at(listener).unwrap();
    // Few rounds: the kernel takes its time to fill a small window again.
    for round in 0..3 {
        let (mut client, slot) = host.connect();
        set_int(&client, libc::SO_RCVBUF, 16_384);
        let bytes = pattern(round as u64, BYTES);
        host.send(slot, &bytes);
        host.until("the send", |host| host.sent.len() > round);
        assert!(host.sent[round].2.is_ok());
        // Not read when the connection is closed: the kernel must not answer that with a reset.
        client.write_all(&[0; 30_000]).unwrap();
        host.reactor.close(slot);
        host.until("the release", |host| host.released.len() > round);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_same(&got, &bytes);
    }
}

fn a_slot_is_released_before_it_is_used_again<R: Driver>(mut host: Host<R>) {
    let (mut old, mut old_slot) = host.connect();
    for _ in 0..50 {
        // Both are there when the reactor is asked next; `Host::poll` checks the order.
        host.reactor.close(old_slot);
        let new = connect(host.address);
        let before = (host.accepted.len(), host.released.len());
        host.until("both", |host| host.accepted.len() > before.0 && host.released.len() > before.1);
        let new_slot = *host.accepted.last().unwrap();
        assert_ne!(new_slot, old_slot);
        if new_slot.index == old_slot.index {
            assert_ne!(new_slot.generation, old_slot.generation);
        }
        // What is asked for the old one does not reach the new one.
        host.send(old_slot, b"stray");
        host.reactor.pause(old_slot);
        host.reactor.finish(old_slot);
        host.reactor.close(old_slot);
        assert_eq!(host.reactor.peer(old_slot), None);
        drop(old);
        (old, old_slot) = (new, new_slot);
        old.write_all(b"hello").unwrap();
        host.until("the bytes", |host| host.received(old_slot) == b"hello");
        host.send(old_slot, b"hi");
        host.until("the send", |host| !host.sent.is_empty());
        assert!(host.sent.pop().unwrap().2.is_ok());
        let mut answer = [0; 2];
        old.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hi");
    }
    assert!(host.live.keys().all(|index| *index < 2), "slots are used again: {:?}", host.live);
}

fn a_wake_ends_the_wait<R: Driver>(mut host: Host<R>) {
    for round in 1..=50 {
        let wake = host.wake.clone();
        let waker = std::thread::spawn(move || wake.wake());
        host.until("the wake", |host| {
            if host.woken < round {
                host.poll(None); // would wait for ever
            }
            host.woken >= round
        });
        waker.join().unwrap();
    }
    // Before the wait, and several at once.
    host.wake.wake();
    host.wake.wake();
    let before = host.woken;
    host.poll(None);
    assert!(host.woken > before);
    // Taken back: it does not wake again.
    let woken = host.woken;
    host.poll(Some(Duration::from_millis(20)));
    assert_eq!(host.woken, woken);
}

fn the_wait_has_an_end<R: Driver>(mut host: Host<R>) {
    host.poll(Some(Duration::ZERO));
    for milliseconds in [1, 20, 70] {
        let timeout = Duration::from_millis(milliseconds);
        let begin = Instant::now();
        host.poll(Some(timeout));
        let passed = begin.elapsed();
        assert!(passed >= timeout, "{passed:?} is less than {timeout:?}");
        assert!(passed < DEADLINE);
    }
}

fn an_empty_send_is_complete<R: Driver>(mut host: Host<R>) {
    let (_client, slot) = host.connect();
    host.reactor.send(slot, SendBuffer::default());
    host.until("the send", |host| !host.sent.is_empty());
    assert!(host.sent[0].2.is_ok());
}

fn commit_writes_at_its_offset<R: Driver>(mut host: Host<R>) {
    let scratch = Scratch::new(b"0123456789");
    let file = Arc::new(OpenOptions::new().read(true).write(true).open(&scratch.0).unwrap());
    let mut offset = 4;
    for (round, length) in [1, 100_000, 0, 3 << 20].into_iter().enumerate() {
        let data = Arc::new(pattern(round as u64, length));
        host.reactor.commit(Commit { file: file.clone(), offset, data: data.clone() });
        let begin = Instant::now();
        while host.committed.len() <= round {
            assert!(begin.elapsed() < DEADLINE);
            host.poll(Some(DEADLINE)); // its completion ends the wait
        }
        assert!(host.committed[round].is_ok());
        assert_eq!(Arc::strong_count(&data), 1, "the data is given back");
        let mut got = vec![0; length];
        file.read_exact_at(&mut got, offset).unwrap();
        assert_same(&got, &data);
        offset += length as u64;
    }
    assert_eq!(std::fs::read(&scratch.0).unwrap()[..4], *b"0123");
    assert_eq!(file.metadata().unwrap().len(), offset);
}

fn commit_of_a_read_only_file_fails<R: Driver>(mut host: Host<R>) {
    let scratch = Scratch::new(b"0123456789");
    let read_only = Arc::new(File::open(&scratch.0).unwrap());
    host.reactor.commit(Commit { file: read_only, offset: 0, data: Arc::new(b"abc".to_vec()) });
    host.until("the commit", |host| !host.committed.is_empty());
    assert_eq!(host.committed[0].as_ref().unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(std::fs::read(&scratch.0).unwrap(), b"0123456789");
    // The next one is not affected.
    let file = Arc::new(OpenOptions::new().write(true).open(&scratch.0).unwrap());
    host.reactor.commit(Commit { file, offset: 0, data: Arc::new(b"abc".to_vec()) });
    host.until("the commit", |host| host.committed.len() == 2);
    assert!(host.committed[1].is_ok());
    assert_eq!(std::fs::read(&scratch.0).unwrap(), b"abc3456789");
}

fn stop_listening_accepts_what_waits<R: Driver>(mut host: Host<R>) {
    let (_early, _) = host.connect();
    let clients: Vec<TcpStream> = (0..200).map(|_| connect(host.address)).collect();
    host.reactor.stop_listening();
    // From here on, and not from the next poll on.
    assert_eq!(TcpStream::connect(host.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    host.until("all connections", |host| host.accepted.len() == 201);
    for mut client in clients {
        client.write_all(b"x").unwrap();
    }
    host.until("their bytes", |host| host.received.len() == 200);
    assert_eq!(TcpStream::connect(host.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    host.until("their ends", |host| host.ended.len() == 200);

    // Asked before the accept was ever handed to the kernel.
    let mut host = Host::<R>::new().unwrap();
    let client = connect(host.address);
    host.reactor.stop_listening();
    assert_eq!(TcpStream::connect(host.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    host.until("the connection", |host| host.accepted.len() == 1);
    assert_eq!(host.reactor.peer(host.accepted[0]), Some(client.local_addr().unwrap()));
}

fn two_reactors_share_an_address<R: Driver>(mut one: Host<R>) {
    const CONNECTIONS: usize = 64;
    let mut other = Host::<R>::at(bind(one.address).unwrap()).unwrap();
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(one.address)).collect();
    for client in &mut clients {
        client.write_all(b"to whom").unwrap();
    }
    let deadline = Instant::now() + DEADLINE;
    while one.sent.len() + other.sent.len() < CONNECTIONS {
        assert!(Instant::now() < deadline);
        for host in [&mut one, &mut other] {
            host.poll(Some(Duration::from_millis(1)));
            let complete: Vec<Slot> =
                host.received.iter().filter(|(_, bytes)| bytes.len() == 7).map(|(slot, _)| *slot).collect();
            for slot in complete {
                let bytes = host.received.remove(&slot).unwrap();
                host.send(slot, &bytes);
            }
        }
    }
    assert!(!one.accepted.is_empty() && !other.accepted.is_empty(), "the kernel spreads them");
    for client in &mut clients {
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"to whom");
    }
}

fn a_dropped_reactor_leaves_its_memory_alone<R: Driver>(mut host: Host<R>) {
    // Everything under way at once, then no reactor any more: nothing may crash, and the peer is told.
    let (mut client, slot) = host.connect();
    let scratch = Scratch::new(b"");
    let file = Arc::new(OpenOptions::new().write(true).open(&scratch.0).unwrap());
    host.send(slot, &vec![1; 16 << 20]);
    host.reactor.commit(Commit { file, offset: 0, data: Arc::new(vec![2; 4 << 20]) });
    host.poll(Some(Duration::ZERO));
    let Host { reactor, wake, .. } = host;
    drop(reactor);
    wake.wake();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => assert!(bytes[..length].iter().all(|byte| *byte == 1)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            // The kernel winds the ring up by work of this thread, which it interrupts for that.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs out of descriptors, so it has a process of its own: the limit is the process's. Some are kept for other things,
/// and accepts that are under way may use of those.
fn out_of_descriptors<R: Driver>(mut host: Host<R>) {
    const CLIENTS: usize = 4 * ACCEPTS_PER_TURN;
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(host.address)).collect();
    let highest = clients.iter().map(AsRawFd::as_raw_fd).max().unwrap() as libc::rlim_t;
    let kept = (highest + 4).div_ceil(DESCRIPTORS_KEPT_SHARE - 1);
    // SAFETY: all zeros is a valid rlimit; both calls get one that lives for their length.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = highest + 4 + kept;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    host.until("as many as there are descriptors", |host| host.accepted.len() >= 3);
    let (begin, polls) = (Instant::now(), host.polls);
    while begin.elapsed() < Duration::from_millis(350) {
        host.poll(Some(Duration::from_millis(100)));
    }
    assert!(host.polls - polls <= 20, "it does not spin: {} polls", host.polls - polls);
    let most = 3 + ACCEPTS_PER_TURN;
    assert!((3..=most).contains(&host.accepted.len()), "{} of {CLIENTS}", host.accepted.len());
    let mut closed = 0;
    while closed < CLIENTS {
        for slot in host.accepted.split_off(closed) {
            host.reactor.close(slot);
            host.accepted.push(slot);
        }
        closed = host.accepted.len();
        if closed < CLIENTS {
            host.until("the next ones", |host| host.accepted.len() > closed);
        }
    }
}

fn connections_beyond_the_rate_come_later<R: Driver>(mut host: Host<R>) {
    const RATE: u32 = 100;
    host.reactor.set_accept_rate(RATE);
    let at_once = ACCEPTS_AT_ONCE as usize;
    let begin = Instant::now();
    let clients: Vec<TcpStream> = (0..at_once + 40).map(|_| connect(host.address)).collect();
    host.until("those that may come at once", |host| host.accepted.len() >= at_once);
    let polls = host.polls;
    host.until("all", |host| host.accepted.len() == clients.len());
    // Accepts that are under way when the bucket is empty may be that many more.
    let least = Duration::from_secs(40 - ACCEPTS_PER_TURN as u64) / RATE;
    assert!(begin.elapsed() >= least, "{:?} is too fast", begin.elapsed());
    assert!(host.polls - polls <= 400, "it does not spin: {} polls", host.polls - polls);
}

mod with_few_descriptors {
    const CHILD: &str = "TABLECAST_TEST_FEW_DESCRIPTORS";

    fn in_own_process(name: &str, test: impl FnOnce()) {
        if std::env::var_os(CHILD).is_some() {
            return test();
        }
        let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn uring_waits_for_free_ones() {
        in_own_process("uring_waits_for_free_ones", || {
            if let Some(host) = super::Host::<super::Uring>::new() {
                super::out_of_descriptors(host);
            }
        });
    }

    #[test]
    fn epoll_waits_for_free_ones() {
        in_own_process("epoll_waits_for_free_ones", || {
            super::out_of_descriptors(super::Host::<super::Epoll>::new().unwrap());
        });
    }
}
