//! The TLS of one connection, between its socket and its session: ciphertext in, plaintext out, and back. No socket and
//! no clock. It holds a buffer only while part of a record waits for the rest, or something is being sent.

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use shards::outbox::SendBuffer;
use std::sync::Arc;

/// Received bytes that may wait for the rest of their message: the longest handshake message that rustls takes.
const PENDING_BYTES_MAX: usize = 64 << 10;
/// Plaintext of one send. What waits behind it stays shared with other connections, and a turn stays short.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Plaintext of one record (RFC 8446 §5.1), and more than encryption ever adds to it.
const RECORD_BYTES: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 64;
/// What someone gets who speaks plain HTTP to a port for HTTPS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 39\r\n\r\nThis port speaks HTTPS, not plain HTTP\n";

/// What comes out of received bytes.
pub enum Event<'a> {
    /// The handshake is over; whom the client's certificate names.
    Established {
        identity: Option<Arc<str>>,
    },
    Plain(&'a [u8]),
    /// close_notify: the peer sends no more.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// Nothing goes any more, but for what waits to be sent.
    Failed,
}

/// What the outbox gave to be sent.
struct Plain {
    buffer: SendBuffer,
    /// So many bytes of it have been encrypted.
    encrypted: usize,
    total: usize,
}

pub struct TlsStream {
    rustls: UnbufferedServerConnection,
    phase: Phase,
    speaks_http: bool,
    /// Received and not yet understood.
    pending: Vec<u8>,
    /// Ready to be sent.
    outgoing: Vec<u8>,
    plain: Option<Plain>,
    /// A send is under way.
    sending: bool,
    peer_ended: bool,
    said_goodbye: bool,
    /// It stands in its thread's list of those with something to send.
    pub queued: bool,
}

impl TlsStream {
    pub fn new(config: Arc<ServerConfig>, speaks_http: bool) -> Result<TlsStream, rustls::Error> {
        Ok(TlsStream {
            rustls: UnbufferedServerConnection::new(config)?,
            phase: Phase::Handshake,
            speaks_http,
            pending: Vec::new(),
            outgoing: Vec::new(),
            plain: None,
            sending: false,
            peer_ended: false,
            said_goodbye: false,
            queued: false,
        })
    }

    pub fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshake
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether no more should be received before [`TlsStream::advance`].
    pub fn has_much_pending(&self) -> bool {
        self.pending.len() > PENDING_BYTES_MAX
    }

    /// Keeps received bytes for [`TlsStream::advance`].
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.phase != Phase::Failed && !self.peer_ended {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Works through what was received.
    ///
    /// # Errors
    /// Why it cannot go on. What is to be sent then says it to the peer.
    pub fn advance(&mut self, on: &mut dyn FnMut(Event<'_>)) -> Result<(), String> {
        // Records begin with their type, 20 to 24; methods with a letter.
        let is_plain_http = self.speaks_http && self.pending.first().is_some_and(u8::is_ascii_uppercase);
        if is_plain_http && self.phase == Phase::Handshake && self.outgoing.is_empty() && !self.sending {
            self.outgoing.extend_from_slice(PLAIN_HTTP);
            self.fail();
            return Err("plain HTTP".to_owned());
        }
        self.drive(on, |_, _| Ok(()))?;
        if self.has_much_pending() {
            self.fail();
            return Err(format!("a message of more than {PENDING_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.phase = Phase::Failed;
        self.pending = Vec::new();
    }

    /// Lets rustls go on until it has understood all that is there; then `write` may encrypt, if it has come so far.
    fn drive(
        &mut self,
        on: &mut dyn FnMut(Event<'_>),
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> Result<(), EncryptError>,
    ) -> Result<(), String> {
        if self.phase == Phase::Failed {
            return Ok(());
        }
        let mut at = 0;
        let mut result = Ok(());
        let mut write = Some(write);
        loop {
            // Never with fewer bytes than it has left there: it remembers how far it has looked.
            let UnbufferedStatus { discard, state } = self.rustls.process_tls_records(&mut self.pending[at..]);
            let mut is_done = false;
            let mut established = false;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encoded = append(&mut self.outgoing, 0, |out| {
                        data.encode(out).map_err(|error| match error {
                            EncodeError::InsufficientSize(size) => EncryptError::InsufficientSize(size),
                            EncodeError::AlreadyEncoded => EncryptError::EncryptExhausted,
                        })
                    });
                    result = result.and(encoded.map_err(|error| error.to_string()));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    // It comes again after this, and is read when the end of the handshake has been told.
                    established = self.phase == Phase::Handshake;
                    while !established && let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => on(Event::Plain(record.payload)),
                            Err(error) => result = Err(error.to_string()),
                        }
                    }
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_ended = true;
                    on(Event::Ended);
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    is_done = true;
                    if let Some(write) = write.take() {
                        result = write(&mut traffic, &mut self.outgoing).map_err(|error| error.to_string());
                    }
                }
                // More has to come; or all is over.
                Ok(_) => is_done = true,
                Err(error) => {
                    self.phase = Phase::Failed;
                    result = Err(error.to_string());
                }
            }
            at += discard;
            // After an error it must not look at more, but the alert that says so may be there.
            is_done |= result.is_err() && !self.rustls.wants_write();
            if self.phase == Phase::Handshake && (established || !self.rustls.is_handshaking()) {
                self.phase = Phase::Open;
                let certificate = self.rustls.peer_certificates().and_then(<[_]>::first);
                match certificate.map_or(Ok(None), super::name_of) {
                    Ok(identity) => on(Event::Established { identity }),
                    Err(reason) => result = Err(reason.to_owned()),
                }
            }
            if is_done {
                break;
            }
        }
        if self.phase == Phase::Failed || at == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..at);
        }
        result
    }

    /// Whether there is something that [`TlsStream::seal`] would give, beside what waits in the outbox.
    pub fn wants_send(&self, is_closing: bool) -> bool {
        let goodbye = is_closing && self.phase == Phase::Open && !self.said_goodbye;
        !self.sending && (!self.outgoing.is_empty() || self.plain.is_some() || goodbye)
    }

    /// Whether it takes another buffer of the outbox.
    pub fn wants_plain(&self) -> bool {
        self.phase == Phase::Open && self.plain.is_none() && !self.sending
    }

    pub fn give_plain(&mut self, buffer: SendBuffer) {
        let total = buffer.len();
        self.plain = Some(Plain { buffer, encrypted: 0, total });
    }

    /// What is to be sent now; `None`: nothing, or a send is under way. `is_last`: say goodbye, if nothing else is to
    /// be said.
    ///
    /// # Errors
    /// It cannot be encrypted.
    pub fn seal(&mut self, is_last: bool) -> Result<Option<SendBuffer>, String> {
        if self.sending {
            return Ok(None);
        }
        if self.phase == Phase::Open {
            if let Some(mut plain) = self.plain.take() {
                let from = plain.encrypted;
                let end = plain.total.min(from + SEND_BYTES_MAX);
                let encrypted = self.drive(&mut |_| {}, |traffic, out| {
                    let Plain { buffer, encrypted, .. } = &mut plain;
                    let mut result = Ok(());
                    buffer.pieces(from, |piece| {
                        let piece = &piece[..piece.len().min(end - *encrypted)];
                        if !piece.is_empty() && result.is_ok() {
                            result = encrypt(traffic, piece, out);
                            *encrypted += piece.len();
                        }
                    });
                    result
                });
                self.plain = Some(plain);
                encrypted?;
            } else if is_last && !self.said_goodbye {
                self.said_goodbye = true;
                self.drive(&mut |_| {}, |traffic, out| {
                    append(out, RECORD_OVERHEAD, |out| traffic.queue_close_notify(out))
                })?;
            }
        }
        if self.outgoing.is_empty() {
            return Ok(None);
        }
        self.sending = true;
        Ok(Some(SendBuffer { bytes: std::mem::take(&mut self.outgoing), ..SendBuffer::default() }))
    }

    /// A send is complete. Gives the outbox's buffer back if that was the last of it.
    pub fn sent(&mut self) -> Option<SendBuffer> {
        self.sending = false;
        let is_over = |plain: &mut Plain| plain.encrypted == plain.total || self.phase == Phase::Failed;
        self.plain.take_if(is_over).map(|plain| plain.buffer)
    }

    /// Whether a buffer of the outbox is on its way.
    pub fn is_sending_plain(&self) -> bool {
        self.plain.is_some()
    }

    /// Whether nothing is left to be said on a connection that closes. `drained`: nothing waits in the outbox.
    pub fn is_finished(&self, drained: bool) -> bool {
        let is_over = match self.phase {
            Phase::Open => drained && self.said_goodbye,
            Phase::Handshake | Phase::Failed => true,
        };
        is_over && !self.sending && self.outgoing.is_empty()
    }
}

fn encrypt(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let room = plain.len() + (1 + plain.len().div_ceil(RECORD_BYTES)) * RECORD_OVERHEAD;
    append(out, room, |out| traffic.encrypt(plain, out))
}

/// Lets `write` write behind what is in `out`, with more room if it says that it needs more.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), EncryptError> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
