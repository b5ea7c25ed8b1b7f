//! The least that a server can do: takes MQTT 3.1.1 messages at QoS 0 and writes them to every subscriber, whatever its
//! filter, with one `write` for each for all that has come at once. It has no tables, topics, queues or disk. What is
//! between it and a server is the server's; what it needs itself is the kernel's.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 << 10;

struct Client {
    stream: TcpStream,
    /// The beginning of a packet.
    incoming: Vec<u8>,
    subscribes: bool,
}

/// Serves until it is killed.
pub fn serve(address: SocketAddr) -> Result<bool, String> {
    let problem = |error: std::io::Error| format!("floor on {address}: {error}");
    let mut poll = Poll::new().map_err(problem)?;
    let mut listener = TcpListener::bind(address).map_err(problem)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(problem)?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let (mut read, mut messages) = (vec![0; READ_BYTES], Vec::new());
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(problem(error)),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true).map_err(problem)?;
                    let token = Token(clients.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE).map_err(problem)?;
                    clients.push(Some(Client { stream, incoming: Vec::new(), subscribes: false }));
                }
                continue;
            }
            let place = &mut clients[event.token().0];
            if let Some(client) = place
                && !hear(client, &mut read, &mut messages)
            {
                *place = None;
            }
        }
        if !messages.is_empty() {
            for place in &mut clients {
                if let Some(client) = place
                    && client.subscribes
                    && !is_whole(client.stream.write(&messages), messages.len())
                {
                    *place = None; // it does not keep up, and there is no queue
                }
            }
            messages.clear();
        }
    }
}

fn is_whole(written: std::io::Result<usize>, length: usize) -> bool {
    written.is_ok_and(|written| written == length)
}

/// Reads what a client has sent, and answers it. False: it is gone.
fn hear(client: &mut Client, read: &mut [u8], messages: &mut Vec<u8>) -> bool {
    loop {
        match client.stream.read(read) {
            Ok(0) => return false,
            Ok(count) => client.incoming.extend_from_slice(&read[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    let mut at = 0;
    while let Some(length) = packet(&client.incoming[at..]) {
        let packet = &client.incoming[at..at + length];
        let answer: &[u8] = match packet[0] >> 4 {
            1 => &[0x20, 2, 0, 0],
            3 => {
                messages.extend_from_slice(packet);
                &[]
            }
            8 => {
                client.subscribes = true;
                // The identifier follows the length, which takes one byte in so short a packet.
                &[0x90, 3, packet[2], packet[3], 0]
            }
            12 => &[0xd0, 0],
            _ => &[],
        };
        if !answer.is_empty() && !is_whole(client.stream.write(answer), answer.len()) {
            return false;
        }
        at += length;
    }
    client.incoming.drain(..at);
    true
}

/// The length of the packet at the start of the bytes, if it is whole (MQTT 3.1.1 §2.2.3).
fn packet(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for place in 0..4 {
        let byte = *bytes.get(1 + place)?;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let whole = 2 + place + length;
            return (whole >= 4 || bytes[0] >> 4 >= 12).then_some(whole).filter(|whole| bytes.len() >= *whole);
        }
    }
    None
}
