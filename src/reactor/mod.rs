//! The only code that knows how bytes get in and out. A reactor belongs to one shard thread; its contract is a handful
//! of operations and their completions, the same for both drivers:
//!
//! - [`uring`]: one io_uring per shard; multishot receive, provided buffers, all sends of a turn submitted
//!   with one system call;
//! - [`epoll`]: its twin on `mio`, where io_uring is forbidden (default container profiles).
//!
//! The thread's loop: [`Reactor::poll`], look at each completion (received bytes are slices of the reactor's buffers),
//! [`Reactor::recycle`], take its turn, hand over what is to be sent, poll again. Buffers handed over stay with the
//! reactor until the completion gives them back; a connection's slot is used again only after everything about it is
//! final ([`Completion::Released`]).

pub mod epoll;
pub mod uring;

use shards::limits::{ACCEPTS_AT_ONCE, DESCRIPTORS_KEPT_MAX, DESCRIPTORS_KEPT_SHARE, DESCRIPTORS_RETRY_US};
use shards::link::Wake;
use shards::outbox::SendBuffer;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection of one reactor. The generation tells it from earlier ones in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub index: u32,
    pub generation: u32,
}

/// Where received bytes lie until [`Reactor::recycle`].
#[derive(Clone, Copy, Debug)]
pub struct Received {
    buffer: u32,
    length: u32,
}

pub enum Completion {
    /// A connection came in at the listener with this number.
    Accepted { listener: usize, slot: Slot },
    /// Bytes: see [`Reactor::bytes`].
    Received { slot: Slot, received: Received },
    /// The peer sends no more, or the connection broke.
    Ended { slot: Slot },
    /// A send is complete, or has failed; the buffer comes back.
    Sent { slot: Slot, buffer: SendBuffer, result: io::Result<()> },
    /// Nothing of this connection is under way any more; its descriptor is closed.
    Released { slot: Slot },
    /// Written and flushed to disk, or not.
    Committed(io::Result<()>),
    /// Another thread called [`Wake::wake`].
    Woken,
}

/// A write to a segment that is followed by fdatasync.
pub struct Commit {
    pub file: Arc<File>,
    pub offset: u64,
    pub data: Arc<Vec<u8>>,
}

/// How fast connections may come in: a bucket of tokens, kept as the time at which it will be full.
struct AcceptRate {
    /// In which one token comes.
    interval: Duration,
    full_at: Instant,
}

impl AcceptRate {
    fn new(per_second: u32) -> AcceptRate {
        AcceptRate { interval: Duration::from_secs(1) / per_second, full_at: Instant::now() }
    }

    /// A connection has come in.
    fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// How many may come in now; if none, the next may at the time that is the error.
    fn tokens(&self, now: Instant) -> Result<usize, Instant> {
        let missing = self.full_at.saturating_duration_since(now);
        match (self.interval * ACCEPTS_AT_ONCE).saturating_sub(missing).as_nanos() / self.interval.as_nanos() {
            0 => Err(self.full_at - self.interval * (ACCEPTS_AT_ONCE - 1)),
            tokens => Ok(tokens as usize),
        }
    }
}

/// How many connections may be accepted now. The error: until when none may, because they come too fast or too few
/// descriptors are left. `any`: an open descriptor.
fn accepts(rate: &AcceptRate, any: i32) -> Result<usize, Instant> {
    let now = Instant::now();
    let tokens = rate.tokens(now)?;
    if has_descriptors(any) { Ok(tokens) } else { Err(now + Duration::from_micros(DESCRIPTORS_RETRY_US)) }
}

/// Whether there are descriptors for connections; some are kept for other things.
fn has_descriptors(any: i32) -> bool {
    // SAFETY: plain system calls; the limit lives for the length of the call, and the new descriptor is closed at once.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        // The lowest free number tells how many are taken.
        let free = libc::fcntl(any, libc::F_DUPFD_CLOEXEC, 0);
        if free < 0 || libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return false;
        }
        libc::close(free);
        let kept = (limit.rlim_cur / DESCRIPTORS_KEPT_SHARE).min(DESCRIPTORS_KEPT_MAX);
        (free as u64) < limit.rlim_cur - kept
    }
}

pub trait Reactor {
    /// Connections beyond so many a second wait in the kernel.
    fn set_accept_rate(&mut self, per_second: u32);
    /// Starts accepting. Completions carry the number of calls before this one.
    fn listen(&mut self, listener: TcpListener) -> io::Result<()>;
    /// Accepts what waits already, then closes all listeners.
    fn stop_listening(&mut self);
    /// Sends; at most one send per connection is under way.
    fn send(&mut self, slot: Slot, buffer: SendBuffer);
    /// Stops receiving, except what is on its way already.
    fn pause(&mut self, slot: Slot);
    fn resume(&mut self, slot: Slot);
    /// Tells the peer, after the send under way, that nothing more will be sent. Receiving goes on.
    fn finish(&mut self, slot: Slot);
    /// Breaks the connection off; [`Completion::Released`] follows.
    fn close(&mut self, slot: Slot);
    /// At most one commit is under way.
    fn commit(&mut self, commit: Commit);
    /// Submits what was asked for and gathers completions. Waits for one, up to `timeout`, if none is there.
    fn poll(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()>;
    fn bytes(&self, received: Received) -> &[u8];
    /// Takes back the buffers of all completions of the last poll.
    fn recycle(&mut self);
    /// The connection's peer, if it still has one.
    fn peer(&self, slot: Slot) -> Option<SocketAddr>;
}

/// An eventfd: how other threads wake a reactor.
pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: a plain system call; the descriptor it gives is owned by nobody else.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the signal back, so that the next one is seen. Waits where there is none.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: the buffer is eight writable bytes; the descriptor is open.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Wake for EventFd {
    fn wake(&self) {
        let one = 1u64;
        // SAFETY: the buffer is eight readable bytes; the descriptor is open. It fails only where the counter is at its
        // maximum, that is, where a signal waits already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

/// A listening socket of its own for one shard: the kernel spreads connections over all that share the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a plain system call; the descriptor it gives is owned by nobody else.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    if address.is_ipv6() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    // Accepted sockets inherit it.
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    let (storage, length) = encode_address(address);
    // SAFETY: `storage` is a socket address of `length` bytes.
    if unsafe { libc::bind(fd, (&raw const storage).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a plain system call on an open descriptor.
    if unsafe { libc::listen(fd, 4096) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

fn set_option(fd: i32, level: i32, name: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the value is an int that lives for the length of the call.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), size_of::<i32>() as u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn encode_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let encoded = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage has room and alignment for every socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(encoded) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let encoded = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(encoded) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// The address of a socket's peer.
fn peer_of(fd: i32) -> Option<SocketAddr> {
    // A `TcpStream` that does not own its descriptor: it is never dropped.
    // SAFETY: the descriptor is an open socket, and `ManuallyDrop` leaves it open.
    let stream = std::mem::ManuallyDrop::new(unsafe { std::net::TcpStream::from_raw_fd(fd) });
    stream.peer_addr().ok()
}

fn shutdown(fd: i32, how: i32) {
    // SAFETY: a plain system call on an open descriptor; that the peer is gone already does not matter.
    unsafe { libc::shutdown(fd, how) };
}

/// The cores that this process may run on.
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: all zeros is a valid, empty set; the call writes inside it; the macros read inside it.
    let allowed: Vec<usize> = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) < 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    };
    if allowed.is_empty() { vec![0] } else { allowed }
}

/// Lets the process have as many descriptors as the system allows it.
pub fn raise_descriptor_limit() {
    // SAFETY: the structure lives for the length of both calls. That the limit stays as it was does no harm.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Lets the calling thread run only when no other wants to. Where that is refused it runs as before.
pub fn give_way() {
    // SAFETY: a plain system call; on Linux it concerns the calling thread alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Keeps the calling thread on these cores.
pub fn run_on(cores: &[usize]) -> io::Result<()> {
    // SAFETY: all zeros is a valid, empty set; the macros of libc write inside it for core numbers below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(core % libc::CPU_SETSIZE as usize, &mut set);
        }
        if libc::sched_setaffinity(0, size_of_val(&set), &set) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
