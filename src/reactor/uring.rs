//! The main driver: our own completion loop on one io_uring (measurements.md §1 and §5).
//!
//! Memory that the kernel works on (send buffers, the data of a commit, provided buffers) is owned by this struct until
//! the operation's last completion. A slot is given out again only after its receive and its send are both final; user
//! data carries slot and generation, so that late completions of an earlier connection are told apart.

use super::{AcceptRate, Commit, Completion, EventFd, Reactor, Received, Slot, accepts, peer_of, shutdown};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use shards::limits::{ACCEPTS_PER_SECOND, ACCEPTS_PER_TURN, DESCRIPTORS_RETRY_US};
use shards::outbox::SendBuffer;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Entries of the submission queue; more operations in one turn cost another system call.
const SUBMISSIONS: u32 = 4096;
/// Several times the submissions: multishot operations complete without being submitted again.
const COMPLETIONS: u32 = 8 * SUBMISSIONS;
/// Provided receive buffers of a shard; an idle connection holds none.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 4096;
const BUFFER_GROUP: u16 = 0;
/// Completions that one poll hands over, so that the turn behind them comes round.
const COMPLETIONS_PER_POLL: usize = 4096;

/// The high byte of the user data.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum Tag {
    Ignore = 0,
    Accept,
    Receive,
    Send,
    Write,
    Sync,
    Wake,
}

const TAGS: [Tag; 7] = [Tag::Ignore, Tag::Accept, Tag::Receive, Tag::Send, Tag::Write, Tag::Sync, Tag::Wake];
const GENERATION_MASK: u32 = 0xff_ffff;

fn user_data(tag: Tag, slot: Slot) -> u64 {
    (tag as u64) << 56 | u64::from(slot.generation & GENERATION_MASK) << 32 | u64::from(slot.index)
}

const NO_SLOT: Slot = Slot { index: 0, generation: 0 };

/// A send under way. Boxed where it has several pieces: the kernel reads the vector while it runs.
struct Sending {
    buffer: SendBuffer,
    sent: usize,
    message: Option<Box<Message>>,
}

struct Message {
    header: libc::msghdr,
    vector: Vec<libc::iovec>,
}

struct Connection {
    fd: OwnedFd,
    generation: u32,
    /// The multishot receive is with the kernel.
    receiving: bool,
    paused: bool,
    /// The end was reported.
    ended: bool,
    closing: bool,
    /// Nothing more will be sent: the peer is told after the send under way.
    finishing: bool,
    sending: Option<Sending>,
}

struct Listener {
    socket: TcpListener,
    /// Accepts that are with the kernel: each takes one connection, so that a flood comes in portions.
    armed: usize,
}

struct Flush {
    commit: Commit,
    written: usize,
    error: Option<io::Error>,
}

/// Buffers that the kernel fills with received bytes: a ring of descriptions shared with it, and the bytes themselves.
struct BufferRing {
    entries: *mut types::BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl BufferRing {
    fn new(ring: &IoUring) -> io::Result<BufferRing> {
        let map = |length: usize| {
            // Populated: no page fault while receiving, and what a shard costs is paid at start.
            // SAFETY: a fresh private anonymous map; nothing else refers to it.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                    -1,
                    0,
                )
            };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
        };
        let entries = map(usize::from(BUFFERS) * size_of::<types::BufRingEntry>())?;
        let bytes = map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        // SAFETY: `entries` is page-aligned memory for that many entries, and lives as long as the ring: both are
        // leaked with the shard's thread, at the end of the process.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, BUFFER_GROUP, 0)? };
        let mut buffers = BufferRing { entries: entries.cast(), bytes: bytes.cast(), tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.give(id));
        buffers.publish();
        Ok(buffers)
    }

    /// Hands a buffer to the kernel, from the next [`BufferRing::publish`] on.
    fn give(&mut self, id: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `place` lies inside the ring; the kernel does not read entries beyond the published tail. `id` is
        // below BUFFERS, so the address lies inside the bytes.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.bytes.add(usize::from(id) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the first entry of the ring, which the kernel reads atomically.
        let tail = unsafe { &*types::BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn bytes(&self, id: u32, length: u32) -> &[u8] {
        assert!(id < u32::from(BUFFERS) && length as usize <= BUFFER_BYTES, "the kernel names its own buffers");
        // SAFETY: inside the bytes, filled by the kernel, not given back before the borrow of self ends.
        unsafe { std::slice::from_raw_parts(self.bytes.add(id as usize * BUFFER_BYTES), length as usize) }
    }
}

pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    listeners: Vec<Listener>,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u32,
    /// Receives that ended because no buffer was free; armed again after the next recycling.
    starved: Vec<Slot>,
    to_recycle: Vec<u16>,
    flush: Option<Flush>,
    wake: Arc<EventFd>,
    wake_count: Box<u64>,
    accept_rate: AcceptRate,
    /// Some accepts are not with the kernel that should be.
    is_disarmed: bool,
    accept_retry: Option<Instant>,
    /// Completions made up by this driver: connections that were released.
    made: VecDeque<Completion>,
}

impl Uring {
    /// Must be called on the thread that uses it: the ring has a single issuer.
    pub fn new(wake: Arc<EventFd>) -> io::Result<Uring> {
        let ring = IoUring::builder()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = BufferRing::new(&ring)?;
        let mut reactor = Uring {
            ring,
            buffers,
            listeners: Vec::new(),
            connections: Vec::new(),
            free: Vec::new(),
            generation: 0,
            starved: Vec::new(),
            to_recycle: Vec::new(),
            flush: None,
            wake,
            wake_count: Box::new(0),
            accept_rate: AcceptRate::new(ACCEPTS_PER_SECOND),
            is_disarmed: false,
            accept_retry: None,
            made: VecDeque::new(),
        };
        reactor.arm_wake();
        Ok(reactor)
    }

    /// Whether everything this driver needs works here: the set-up flags, a buffer ring, and a multishot receive.
    pub fn probe() -> Result<(), String> {
        let say = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let wake = Arc::new(EventFd::new().map_err(say("eventfd"))?);
        let mut reactor = Uring::new(wake).map_err(say("io_uring set-up"))?;
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(say("socketpair"))?;
        let slot = reactor.adopt(OwnedFd::from(theirs));
        io::Write::write_all(&mut ours, b"probe").map_err(say("write"))?;
        let mut completions = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            reactor.poll(Some(Duration::from_millis(100)), &mut completions).map_err(say("io_uring enter"))?;
            for completion in completions.drain(..) {
                match completion {
                    Completion::Received { received, .. } if reactor.bytes(received) == b"probe" => return Ok(()),
                    Completion::Ended { slot: ended } if ended == slot => {
                        return Err("multishot receive into provided buffers is refused".into());
                    }
                    _ => {}
                }
            }
            reactor.recycle();
        }
        Err("multishot receive into provided buffers does not complete".into())
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: each operation's memory is owned by this struct until its final completion (see the module docs).
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            self.submit(); // the queue is full
        }
    }

    /// Hands over what is queued, now and not with the next poll. May have handed over nothing: EAGAIN is a shortage of
    /// memory that passes. (EBUSY, which would last until completions are reaped, is not given any more by the kernels
    /// that know deferred task runs.)
    fn submit(&mut self) {
        if let Err(error) = self.ring.submit()
            && !is_transient(&error)
        {
            panic!("io_uring refuses submissions: {error}");
        }
    }

    fn free_submissions(&mut self) -> usize {
        let queue = self.ring.submission();
        queue.capacity() - queue.len()
    }

    fn connection(&mut self, slot: Slot) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(slot.index as usize)?.as_mut()?;
        (connection.generation == slot.generation).then_some(connection)
    }

    /// The slot that the user data of a completion names, if it is still that connection.
    fn slot_of(&self, data: u64) -> Option<Slot> {
        let index = data as u32;
        let generation = (data >> 32) as u32 & GENERATION_MASK;
        let connection = self.connections.get(index as usize)?.as_ref()?;
        let same = connection.generation & GENERATION_MASK == generation;
        same.then_some(Slot { index, generation: connection.generation })
    }

    fn adopt(&mut self, fd: OwnedFd) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        self.generation = self.generation.wrapping_add(1);
        let slot = Slot { index, generation: self.generation };
        self.connections[index as usize] = Some(Connection {
            fd,
            generation: self.generation,
            receiving: false,
            paused: false,
            ended: false,
            closing: false,
            finishing: false,
            sending: None,
        });
        self.arm_receive(slot);
        slot
    }

    fn arm_receive(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        if connection.receiving || connection.paused || connection.ended || connection.closing {
            return;
        }
        connection.receiving = true;
        let fd = types::Fd(connection.fd.as_raw_fd());
        self.push(opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(user_data(Tag::Receive, slot)));
    }

    /// Hands accepts to the kernel, as many as may be.
    fn arm_accepts(&mut self) {
        let mut left = match accepts(&self.accept_rate, self.wake.as_raw_fd()) {
            Ok(left) => left,
            Err(until) => {
                self.accept_retry = Some(until);
                return;
            }
        };
        self.is_disarmed = false;
        for number in 0..self.listeners.len() {
            let listener = &mut self.listeners[number];
            let missing = ACCEPTS_PER_TURN - listener.armed;
            let count = missing.min(left);
            self.is_disarmed |= count < missing;
            listener.armed += count;
            left -= count;
            let fd = types::Fd(listener.socket.as_raw_fd());
            let data = user_data(Tag::Accept, Slot { index: number as u32, generation: 0 });
            for _ in 0..count {
                let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
                let accept = opcode::Accept::new(fd, address, length).flags(libc::SOCK_CLOEXEC).build();
                self.push(accept.user_data(data));
            }
        }
        self.accept_retry = self.is_disarmed.then(|| Instant::now() + self.accept_rate.interval);
    }

    fn arm_wake(&mut self) {
        let into: *mut u64 = &mut *self.wake_count;
        let fd = types::Fd(self.wake.as_raw_fd());
        let data = user_data(Tag::Wake, NO_SLOT);
        self.push(opcode::Read::new(fd, into.cast(), 8).build().user_data(data));
    }

    /// Submits what is left of a connection's send.
    fn push_send(&mut self, slot: Slot) {
        const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let Some(connection) = self.connection(slot) else { return };
        let fd = types::Fd(connection.fd.as_raw_fd());
        let Some(sending) = &mut connection.sending else { return };
        let data = user_data(Tag::Send, slot);
        let entry = if let Some(bytes) = sending.buffer.contiguous() {
            let rest = &bytes[sending.sent..];
            opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).flags(FLAGS).build()
        } else {
            let mut vector = Vec::new();
            sending.buffer.pieces(sending.sent, |piece| {
                let base = piece.as_ptr().cast_mut().cast();
                vector.push(libc::iovec { iov_base: base, iov_len: piece.len() });
            });
            // SAFETY: all zeros is a valid msghdr.
            let header: libc::msghdr = unsafe { std::mem::zeroed() };
            let mut message = Box::new(Message { header, vector });
            message.header.msg_iov = message.vector.as_mut_ptr();
            message.header.msg_iovlen = message.vector.len().min(libc::UIO_MAXIOV as usize);
            let header: *const libc::msghdr = &message.header;
            sending.message = Some(message);
            opcode::SendMsg::new(fd, header).flags(FLAGS as u32).build()
        };
        self.push(entry.user_data(data));
    }

    fn push_commit(&mut self) {
        let Some(flush) = &self.flush else { return };
        let fd = types::Fd(flush.commit.file.as_raw_fd());
        let rest = &flush.commit.data[flush.written..];
        let write = opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32)
            .offset(flush.commit.offset + flush.written as u64)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(user_data(Tag::Write, NO_SLOT));
        let sync =
            opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build().user_data(user_data(Tag::Sync, NO_SLOT));
        // Both halves of the link must be submitted together.
        while self.free_submissions() < 2 {
            self.submit();
        }
        self.push(write);
        self.push(sync);
    }

    /// Gives the slot up where nothing of the connection is under way.
    fn release(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        if connection.closing && !connection.receiving && connection.sending.is_none() {
            self.connections[slot.index as usize] = None; // closes the descriptor
            self.free.push(slot.index);
            self.made.push_back(Completion::Released { slot });
        }
    }

    fn on_accept(&mut self, number: usize, result: i32, completions: &mut Vec<Completion>) {
        if let Some(listener) = self.listeners.get_mut(number) {
            listener.armed -= 1;
            self.is_disarmed = true;
        }
        if result >= 0 {
            // SAFETY: the kernel has just given this descriptor to us.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            let slot = self.adopt(fd);
            self.accept_rate.spend(Instant::now());
            completions.push(Completion::Accepted { listener: number, slot });
        } else if !is_passing(&io::Error::from_raw_os_error(-result)) {
            // Out of descriptors after all, or of memory.
            self.accept_retry = Some(Instant::now() + Duration::from_micros(DESCRIPTORS_RETRY_US));
        }
    }

    fn on_receive(&mut self, slot: Slot, result: i32, flags: u32, completions: &mut Vec<Completion>) {
        let buffer = cqueue::buffer_select(flags);
        if let Some(id) = buffer {
            self.to_recycle.push(id);
        }
        let Some(connection) = self.connection(slot) else { return };
        if !cqueue::more(flags) {
            connection.receiving = false;
        }
        if let (true, Some(id), false) = (result > 0, buffer, connection.closing) {
            let received = Received { buffer: u32::from(id), length: result as u32 };
            completions.push(Completion::Received { slot, received });
        }
        if cqueue::more(flags) {
            return;
        }
        match result {
            _ if connection.closing => self.release(slot),
            1.. => self.arm_receive(slot),
            _ if result == -libc::ENOBUFS => self.starved.push(slot),
            // A pause took effect; or was taken back before it did.
            _ if result == -libc::ECANCELED => self.arm_receive(slot),
            _ => {
                connection.ended = true;
                completions.push(Completion::Ended { slot });
            }
        }
    }

    fn on_send(&mut self, slot: Slot, result: i32, completions: &mut Vec<Completion>) {
        let Some(connection) = self.connection(slot) else { return };
        let Some(sending) = &mut connection.sending else { return };
        if result > 0 {
            sending.sent += result as usize;
            if sending.sent < sending.buffer.len() {
                return self.push_send(slot);
            }
        }
        let result = match result {
            0.. if sending.sent == sending.buffer.len() => Ok(()),
            0.. => Err(io::ErrorKind::WriteZero.into()),
            error if -error == libc::EINTR || -error == libc::EAGAIN => return self.push_send(slot),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        if let Some(sending) = connection.sending.take() {
            completions.push(Completion::Sent { slot, buffer: sending.buffer, result });
        }
        if connection.finishing {
            shutdown(connection.fd.as_raw_fd(), libc::SHUT_WR);
        }
        self.release(slot);
    }

    fn on_write(&mut self, result: i32) {
        let Some(flush) = &mut self.flush else { return };
        match result {
            0 if !flush.commit.data.is_empty() => flush.error = Some(io::ErrorKind::WriteZero.into()),
            0.. => flush.written += result as usize,
            error => flush.error = Some(io::Error::from_raw_os_error(-error)),
        }
    }

    fn on_sync(&mut self, result: i32, completions: &mut Vec<Completion>) {
        let Some(flush) = &mut self.flush else { return };
        if let Some(error) = flush.error.take() {
            self.flush = None;
            return completions.push(Completion::Committed(Err(error)));
        }
        if flush.written < flush.commit.data.len() && (result >= 0 || result == -libc::ECANCELED) {
            return self.push_commit(); // a short write broke the link: the rest, then the flush
        }
        self.flush = None;
        let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) };
        completions.push(Completion::Committed(result));
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submit_and_wait(1),
            // Asking the kernel to wait for no time at all would set up a timer; and there may be nothing to ask.
            Some(Duration::ZERO) => {
                let queue = self.ring.submission();
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(());
                }
                drop(queue);
                self.ring.submit()
            }
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME))
}

/// Errors of one accept that say nothing about the next.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED | libc::ECONNRESET))
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel ends what is under way some time after the ring is closed. Until then it may read this memory (a
        // commit is being written by another thread of the kernel) and write to the counter.
        std::mem::forget(self.flush.take());
        self.connections.iter_mut().flatten().for_each(|connection| std::mem::forget(connection.sending.take()));
        std::mem::forget(std::mem::take(&mut self.wake_count));
    }
}

impl Reactor for Uring {
    fn set_accept_rate(&mut self, per_second: u32) {
        self.accept_rate = AcceptRate::new(per_second);
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        // The ring waits for connections only on a blocking socket; a non-blocking one would fail at once, again and again.
        listener.set_nonblocking(false)?;
        self.listeners.push(Listener { socket: listener, armed: 0 });
        self.is_disarmed = true;
        Ok(())
    }

    fn stop_listening(&mut self) {
        // An accept that is queued still names its listener by number, which another socket may get once that is closed.
        while !self.ring.submission().is_empty() {
            self.submit();
        }
        // Closing a listener resets what it has not accepted: take everything that waits first.
        for (number, listener) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            let _ = listener.socket.set_nonblocking(true);
            loop {
                match listener.socket.accept() {
                    Ok((stream, _)) => {
                        let slot = self.adopt(OwnedFd::from(stream));
                        self.made.push_back(Completion::Accepted { listener: number, slot });
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
            // Until the accept is final the kernel keeps the socket open, and would let in connections that it resets
            // in the end: this makes it deaf now.
            shutdown(listener.socket.as_raw_fd(), libc::SHUT_RDWR);
            let data = user_data(Tag::Accept, Slot { index: number as u32, generation: 0 });
            let all = types::CancelBuilder::user_data(data).all();
            self.push(opcode::AsyncCancel2::new(all).build().user_data(user_data(Tag::Ignore, NO_SLOT)));
        }
        self.is_disarmed = false;
        self.accept_retry = None;
    }

    fn send(&mut self, slot: Slot, buffer: SendBuffer) {
        let Some(connection) = self.connection(slot) else { return };
        // Not only in debug builds: the kernel reads the buffer that would be dropped here.
        assert!(connection.sending.is_none(), "one send per connection");
        connection.sending = Some(Sending { buffer, sent: 0, message: None });
        self.push_send(slot);
    }

    fn pause(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.paused = true;
        if connection.receiving {
            let data = user_data(Tag::Receive, slot);
            self.push(opcode::AsyncCancel::new(data).build().user_data(user_data(Tag::Ignore, NO_SLOT)));
        }
    }

    fn resume(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.paused = false;
        self.arm_receive(slot);
    }

    fn finish(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.finishing = true;
        if connection.sending.is_none() {
            shutdown(connection.fd.as_raw_fd(), libc::SHUT_WR);
        }
    }

    fn close(&mut self, slot: Slot) {
        let Some(connection) = self.connection(slot) else { return };
        connection.closing = true;
        // Ends the receive and fails a send that is stuck; their completions release the slot.
        shutdown(connection.fd.as_raw_fd(), libc::SHUT_RDWR);
        self.release(slot);
    }

    fn commit(&mut self, commit: Commit) {
        assert!(self.flush.is_none(), "one commit at a time");
        self.flush = Some(Flush { commit, written: 0, error: None });
        self.push_commit();
    }

    fn poll(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let mut timeout = timeout;
        if self.is_disarmed && self.accept_retry.is_none_or(|at| at <= Instant::now()) {
            self.arm_accepts();
        }
        if let Some(at) = self.accept_retry {
            let left = at.saturating_duration_since(Instant::now());
            timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
        }
        if !self.made.is_empty() || !self.ring.completion().is_empty() {
            timeout = Some(Duration::ZERO);
        }
        self.enter(timeout)?;
        completions.extend(self.made.drain(..));
        for _ in 0..COMPLETIONS_PER_POLL {
            let Some(entry) = self.ring.completion().next() else { break };
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let tag = TAGS.get((data >> 56) as usize).copied().unwrap_or(Tag::Ignore);
            match tag {
                Tag::Ignore => {}
                Tag::Accept => self.on_accept(data as u32 as usize, result, completions),
                Tag::Receive => match self.slot_of(data) {
                    Some(slot) => self.on_receive(slot, result, flags, completions),
                    None => self.to_recycle.extend(cqueue::buffer_select(flags)),
                },
                Tag::Send => {
                    if let Some(slot) = self.slot_of(data) {
                        self.on_send(slot, result, completions);
                    }
                }
                Tag::Write => self.on_write(result),
                Tag::Sync => self.on_sync(result, completions),
                Tag::Wake => {
                    self.arm_wake();
                    completions.push(Completion::Woken);
                }
            }
            // At once: the next entry may be a connection that gets the slot released by this one.
            completions.extend(self.made.drain(..));
        }
        Ok(())
    }

    fn bytes(&self, received: Received) -> &[u8] {
        self.buffers.bytes(received.buffer, received.length)
    }

    fn recycle(&mut self) {
        let Uring { buffers, to_recycle, .. } = self;
        if !to_recycle.is_empty() {
            to_recycle.drain(..).for_each(|id| buffers.give(id));
            buffers.publish();
        }
        for slot in std::mem::take(&mut self.starved) {
            self.arm_receive(slot);
        }
    }

    fn peer(&self, slot: Slot) -> Option<SocketAddr> {
        let connection = self.connections.get(slot.index as usize)?.as_ref()?;
        if connection.generation == slot.generation { peer_of(connection.fd.as_raw_fd()) } else { None }
    }
}
