//! A connection to the server: dialling, and the exchange of events and bytes.

use crate::runtime::{Reader, Runtime, Writer};
use crate::shared::Shared;
use crate::wire::{Event, Opening, Protocol, Wire};
use bytes::BytesMut;
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

/// Connections from one source address, where there are several to choose from: ports run out at about 28,000.
const PER_SOURCE: usize = 20_000;
/// 127.0.0.1 and those behind it.
const SOURCES: usize = 60_000;
/// Of a reader that is to be slow: little waits in the kernel for it.
const SLOW_BUFFER_BYTES: usize = 16 << 10;

pub struct Link<R: Runtime> {
    reader: R::Reader,
    writer: R::Writer,
    incoming: BytesMut,
    pub out: Vec<u8>,
    /// When the last bytes came, in nanoseconds since the run began.
    pub read_ns: u64,
}

/// What is known of a connection that stands.
pub struct Opened<R: Runtime> {
    pub link: Link<R>,
    /// The server has kept the session.
    pub is_resumed: bool,
    /// See [`Event::Open`].
    pub receive_max: u16,
}

/// Who is dialling.
#[derive(Clone, Copy)]
pub struct Caller {
    pub protocol: Protocol,
    /// Of all connections of the run, those that have ended, too.
    pub number: usize,
    pub is_slow: bool,
}

/// Begins to connect; what is written waits until the connection stands.
fn dial(address: SocketAddr, caller: Caller) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip().is_loopback() && address.is_ipv4() && caller.number >= PER_SOURCE {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + (caller.number / PER_SOURCE % SOURCES) as u32);
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    if caller.is_slow {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

impl<R: Runtime> Link<R> {
    pub fn dial(shared: &Shared, caller: Caller) -> Result<Link<R>, String> {
        let (address, _) = shared.address(caller.protocol)?;
        let adopted = dial(address, caller).and_then(R::adopt);
        let (reader, writer) = adopted.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        Ok(Link { reader, writer, incoming: BytesMut::new(), out: Vec::new(), read_ns: 0 })
    }

    /// Dials and waits until the connection stands.
    pub async fn open(
        shared: &Shared,
        caller: Caller,
        wire: &mut Wire,
        opening: &Opening<'_>,
    ) -> Result<Opened<R>, String> {
        let mut link = Link::dial(shared, caller)?;
        wire.open(opening, &mut link.out);
        if !wire.is_greeted() {
            return Ok(Opened { link, is_resumed: false, receive_max: u16::MAX });
        }
        link.flush().await.map_err(|what| format!("cannot connect to {}: {what}", opening.host))?;
        match link.next(shared, wire).await? {
            Event::Open { is_resumed, receive_max } => Ok(Opened { link, is_resumed, receive_max }),
            other => Err(format!("{other:?} before the connection stood")),
        }
    }

    /// The next event. What the protocol wants in return is sent before it has to wait.
    pub async fn next(&mut self, shared: &Shared, wire: &mut Wire) -> Result<Event, String> {
        loop {
            if let Some(event) = wire.decode(&mut self.incoming, &mut self.out)? {
                return Ok(event);
            }
            self.flush().await?;
            self.fill(shared).await?;
        }
    }

    pub async fn flush(&mut self) -> Result<(), String> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.writer.write(&mut self.out).await.map_err(|error| format!("cannot send: {error}"))
    }

    /// Waits for bytes.
    async fn fill(&mut self, shared: &Shared) -> Result<(), String> {
        let count = self.reader.read(&mut self.incoming).await.map_err(|error| format!("cannot receive: {error}"))?;
        self.read_ns = shared.now_ns();
        if count == 0 { Err("the server has closed the connection".into()) } else { Ok(()) }
    }

    /// Reader with what it has read, and writer.
    pub fn split(self) -> (Receiving<R>, R::Writer) {
        (Receiving { reader: self.reader, incoming: self.incoming }, self.writer)
    }
}

/// The half of a connection that receives.
pub struct Receiving<R: Runtime> {
    reader: R::Reader,
    incoming: BytesMut,
}

impl<R: Runtime> Receiving<R> {
    /// The next event, and what is to be sent in return; `None`: there are no more for now, `receive` waits for them.
    pub fn next(&mut self, wire: &mut Wire, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        wire.decode(&mut self.incoming, replies)
    }

    pub async fn receive(&mut self) -> Result<(), String> {
        match self.reader.read(&mut self.incoming).await {
            Ok(0) => Err("the server has closed the connection".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot receive: {error}")),
        }
    }
}
