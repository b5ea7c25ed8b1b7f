//! [`Runtime`] on glommio. Needs io_uring and locked memory (`ulimit -l`).

use super::{READ_BYTES, Reader, Runtime, Writer};
use bytes::BytesMut;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use glommio::net::TcpStream;
use glommio::{LocalExecutorBuilder, Placement};
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

#[derive(Clone, Copy)]
pub struct Glommio;

pub struct Incoming {
    half: ReadHalf<TcpStream>,
    buffer: Box<[u8]>,
}

pub struct Outgoing(WriteHalf<TcpStream>);

impl Runtime for Glommio {
    type Reader = Incoming;
    type Writer = Outgoing;

    fn run<F: Future<Output = ()> + 'static>(
        core: usize,
        main: impl FnOnce() -> F + Send + 'static,
    ) -> std::thread::JoinHandle<()> {
        let run = move || {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(core)).make();
            executor.expect("a runtime on io_uring").run(async move { main().await });
        };
        std::thread::Builder::new().name(format!("loadgen-{core}")).spawn(run).expect("start a thread")
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }

    async fn sleep(duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    fn adopt(stream: std::net::TcpStream) -> io::Result<(Incoming, Outgoing)> {
        // SAFETY: the descriptor is a connected stream socket that nobody else owns any more.
        let stream = unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) };
        let (read, write) = futures_lite::io::split(stream);
        Ok((Incoming { half: read, buffer: vec![0; READ_BYTES].into() }, Outgoing(write)))
    }
}

impl Reader for Incoming {
    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let count = self.half.read(&mut self.buffer).await?;
        into.extend_from_slice(&self.buffer[..count]);
        Ok(count)
    }
}

impl Writer for Outgoing {
    async fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let result = self.0.write_all(bytes).await;
        bytes.clear();
        result
    }
}
