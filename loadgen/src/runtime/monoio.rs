//! [`Runtime`] on monoio: io_uring, or epoll where that is forbidden.

use super::{READ_BYTES, Reader, Runtime, Writer};
use bytes::BytesMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use std::future::Future;
use std::io;
use std::time::Duration;

#[derive(Clone, Copy)]
pub struct Monoio;

pub struct Incoming {
    half: TcpOwnedReadHalf,
    buffer: Option<Vec<u8>>,
}

pub struct Outgoing(TcpOwnedWriteHalf);

impl Runtime for Monoio {
    type Reader = Incoming;
    type Writer = Outgoing;

    fn run<F: Future<Output = ()> + 'static>(
        core: usize,
        main: impl FnOnce() -> F + Send + 'static,
    ) -> std::thread::JoinHandle<()> {
        let thread = std::thread::Builder::new().name(format!("loadgen-{core}"));
        let run = move || {
            if let Err(error) = monoio::utils::bind_to_cpu_set([core]) {
                eprintln!("loadgen: cannot stay on core {core}: {error}");
            }
            let build = |ring| {
                let builder = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096);
                builder.uring_builder(ring).enable_timer().build()
            };
            // Completions when they are asked for, and no interrupts; kernels before 6.1 cannot.
            let mut ring = io_uring::IoUring::builder();
            ring.setup_single_issuer().setup_defer_taskrun();
            let built = build(ring).or_else(|_| build(io_uring::IoUring::builder()));
            built.expect("a runtime on io_uring or epoll").block_on(main());
        };
        thread.spawn(run).expect("start a thread")
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }

    async fn sleep(duration: Duration) {
        monoio::time::sleep(duration).await;
    }

    fn adopt(stream: std::net::TcpStream) -> io::Result<(Incoming, Outgoing)> {
        stream.set_nonblocking(true)?;
        let (read, write) = monoio::net::TcpStream::from_std(stream)?.into_split();
        Ok((Incoming { half: read, buffer: None }, Outgoing(write)))
    }
}

impl Reader for Incoming {
    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let buffer = self.buffer.take().unwrap_or_else(|| Vec::with_capacity(READ_BYTES));
        let (result, mut buffer) = self.half.read(buffer).await;
        if let Ok(count) = result {
            into.extend_from_slice(&buffer[..count]);
        }
        buffer.clear();
        self.buffer = Some(buffer);
        result
    }
}

impl Writer for Outgoing {
    async fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let (result, mut back) = self.0.write_all(std::mem::take(bytes)).await;
        back.clear();
        *bytes = back;
        result.map(drop)
    }
}
