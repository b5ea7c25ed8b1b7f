//! How bytes are wrapped on their way out: WebSocket frames (RFC 6455 §5.2) and chunks of an HTTP body (RFC 9112
//! §7.1), shared by the protocols that travel in them.

/// How a connection's bytes are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// Each packet is one binary frame.
    WebSocket,
}

impl Framing {
    /// What it adds to a packet of this length.
    pub fn head_bytes(self, length: usize) -> usize {
        match (self, length) {
            (Framing::None, _) => 0,
            (Framing::WebSocket, 0..=125) => 2,
            (Framing::WebSocket, 126..=0xffff) => 4,
            (Framing::WebSocket, _) => 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Appends the head of an unfragmented server frame: never masked (§5.1).
pub fn write_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a chunk of a chunked body (RFC 9112 §7.1).
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[data.len() >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}
