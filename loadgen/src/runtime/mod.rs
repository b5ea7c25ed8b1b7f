//! The seam between the workloads and the runtime that carries them: sockets, tasks and a coarse sleep. Two runtimes
//! fill it, so that a figure or a fault can be told to be the server's: [`monoio`](https://docs.rs/monoio) (the one that
//! is used) and [`glommio`](https://docs.rs/glommio) (the cross-check).

pub mod glommio;
pub mod monoio;

use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of a connection that are read at once.
pub const READ_BYTES: usize = 32 << 10;

pub trait Reader: 'static {
    /// Appends what has come; 0: the other side has closed.
    fn read(&mut self, into: &mut BytesMut) -> impl Future<Output = io::Result<usize>>;
}

pub trait Writer: 'static {
    /// Sends all, and leaves `bytes` empty.
    fn write(&mut self, bytes: &mut Vec<u8>) -> impl Future<Output = io::Result<()>>;
}

pub trait Runtime: Copy + 'static {
    type Reader: Reader;
    type Writer: Writer;

    /// Runs a task, and whatever it spawns until it ends, on a thread of its own that stays on this core.
    fn run<F: Future<Output = ()> + 'static>(
        core: usize,
        main: impl FnOnce() -> F + Send + 'static,
    ) -> std::thread::JoinHandle<()>;

    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Precise to a millisecond.
    fn sleep(duration: Duration) -> impl Future<Output = ()>;

    /// Takes a connected socket over.
    fn adopt(stream: TcpStream) -> io::Result<(Self::Reader, Self::Writer)>;
}
