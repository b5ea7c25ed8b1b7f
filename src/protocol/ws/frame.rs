//! Reads what a client sends: frames, unmasked and put together to messages. Strict by RFC 6455: masked, no reserved
//! bits, shortest lengths, whole control frames, UTF-8 text.

use crate::protocol::framing::{Opcode, write_header};
use tungstenite::protocol::frame::coding::CloseCode;

/// Close codes that this server gives (RFC 6455 §7.4.1).
pub mod close {
    pub const NORMAL: u16 = 1000;
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const INVALID: u16 = 1007;
    pub const TOO_BIG: u16 = 1009;
    /// The server restarts: come back.
    pub const RESTART: u16 = 1012;
    /// The client reads too slowly.
    pub const TRY_AGAIN: u16 = 1013;
}

/// Why the connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: u16,
    pub what: &'static str,
}

fn violation(code: u16, what: &'static str) -> Violation {
    Violation { code, what }
}

/// What a client said.
#[derive(Debug, PartialEq)]
pub enum Message {
    Text,
    Binary,
    Ping,
    Pong,
    /// The code to answer with.
    Close(u16),
    /// A part of a message; the rest follows.
    Fragment,
}

/// Puts a message together that comes in fragments, or in more than one piece of input. The bytes of the last message or
/// control frame are in `data`.
#[derive(Default)]
pub struct Reader {
    /// The message so far, where it comes in parts.
    gathered: Vec<u8>,
    /// So many bytes of it are known to be whole characters, where it is text.
    characters: usize,
    /// Opcode of a message whose last frame has not come.
    fragmented: Option<Opcode>,
    /// The data frame whose payload has come in part.
    begun: Option<Begun>,
}

struct Head {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head, and of the payload behind it.
    head: usize,
    payload: usize,
}

/// What is to come of a data frame.
struct Begun {
    kind: Opcode,
    fin: bool,
    /// Turned so that it begins with the byte for what comes next.
    mask: [u8; 4],
    /// Bytes of the payload that are missing.
    missing: usize,
}

/// The head of the frame at the start of `input`; `None`: more bytes are needed (§5.2).
fn head(input: &[u8], bytes_max: usize) -> Result<Option<Head>, Violation> {
    let (Some(&first), Some(&second)) = (input.first(), input.get(1)) else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(violation(close::PROTOCOL, "a reserved bit is set without an extension"));
    }
    if second & 0x80 == 0 {
        return Err(violation(close::PROTOCOL, "a frame from a client must be masked")); // §5.1
    }
    let fin = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(violation(close::PROTOCOL, "a reserved opcode")),
    };
    let short = second & 0x7f;
    let (length, extra, least) = match short {
        126 => {
            let Some(bytes) = input.get(2..4) else { return Ok(None) };
            (u64::from(u16::from_be_bytes([bytes[0], bytes[1]])), 2, 126)
        }
        127 => {
            let Some(bytes) = input.get(2..10) else { return Ok(None) };
            (u64::from_be_bytes(bytes.try_into().unwrap_or_default()), 8, 0x1_0000)
        }
        short => (u64::from(short), 0, 0),
    };
    if length < least {
        return Err(violation(close::PROTOCOL, "a length that is not in its shortest form"));
    }
    if matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) && (!fin || length > 125) {
        return Err(violation(close::PROTOCOL, "a control frame is short and whole")); // §5.5
    }
    if length > bytes_max as u64 {
        return Err(violation(close::TOO_BIG, "the message is larger than the server accepts"));
    }
    let Some(mask) = input.get(2 + extra..6 + extra) else { return Ok(None) };
    let mask = mask.try_into().unwrap_or_default();
    Ok(Some(Head { fin, opcode, mask, head: 6 + extra, payload: length as usize }))
}

/// Appends the payload without its mask, eight bytes at a time (§5.3).
fn unmask(payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(payload);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = out[start..].chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of 8")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

impl Reader {
    /// Reads the frame at the start of `input` into `data`, or what has come of a data frame; gives what it is and how
    /// long it was. `None`: more bytes are needed.
    pub fn read(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        data: &mut Vec<u8>,
    ) -> Result<Option<(Message, usize)>, Violation> {
        if let Some(begun) = self.begun.take() {
            return self.gather(begun, input, data);
        }
        let Some(head) = head(input, bytes_max)? else { return Ok(None) };
        if matches!(head.opcode, Opcode::Continuation | Opcode::Text | Opcode::Binary) {
            return self.data_frame(&head, input, bytes_max, data);
        }
        let length = head.head + head.payload;
        let Some(payload) = input.get(head.head..length) else { return Ok(None) };
        data.clear();
        unmask(payload, head.mask, data);
        let message = match head.opcode {
            Opcode::Ping => Message::Ping,
            Opcode::Pong => Message::Pong,
            _ => Message::Close(closing(data)?),
        };
        Ok(Some((message, length)))
    }

    fn data_frame(
        &mut self,
        head: &Head,
        input: &[u8],
        bytes_max: usize,
        data: &mut Vec<u8>,
    ) -> Result<Option<(Message, usize)>, Violation> {
        let kind = match (head.opcode, self.fragmented) {
            (Opcode::Continuation, Some(kind)) => kind,
            (Opcode::Continuation, None) => {
                return Err(violation(close::PROTOCOL, "a continuation of nothing")); // §5.4
            }
            (_, Some(_)) => return Err(violation(close::PROTOCOL, "a new message inside a fragmented one")),
            (kind, None) => kind,
        };
        if self.gathered.len() + head.payload > bytes_max {
            return Err(violation(close::TOO_BIG, "the message is larger than the server accepts"));
        }
        let length = head.head + head.payload;
        if head.fin
            && self.fragmented.is_none()
            && let Some(payload) = input.get(head.head..length)
        {
            data.clear();
            unmask(payload, head.mask, data);
            if kind == Opcode::Text && std::str::from_utf8(data).is_err() {
                return Err(NOT_UTF8);
            }
            return Ok(Some((message(kind), length)));
        }
        let begun = Begun { kind, fin: head.fin, mask: head.mask, missing: head.payload };
        let gathered = self.gather(begun, &input[head.head..], data)?;
        let (message, taken) = gathered.unwrap_or((Message::Fragment, 0));
        Ok(Some((message, head.head + taken)))
    }

    /// Adds to the message what has come of a frame's payload. Text that is none is refused as soon as that is seen.
    fn gather(
        &mut self,
        mut begun: Begun,
        input: &[u8],
        data: &mut Vec<u8>,
    ) -> Result<Option<(Message, usize)>, Violation> {
        let taken = begun.missing.min(input.len());
        unmask(&input[..taken], begun.mask, &mut self.gathered);
        begun.mask.rotate_left(taken % 4);
        begun.missing -= taken;
        let is_whole = begun.missing == 0 && begun.fin;
        if begun.kind == Opcode::Text {
            self.check_text(is_whole)?;
        }
        let kind = begun.kind;
        if is_whole {
            self.fragmented = None;
            self.characters = 0;
            *data = std::mem::take(&mut self.gathered);
            return Ok(Some((message(kind), taken)));
        }
        if begun.missing > 0 {
            self.begun = Some(begun);
            return Ok((taken > 0).then_some((Message::Fragment, taken)));
        }
        self.fragmented = Some(kind);
        Ok(Some((Message::Fragment, taken)))
    }

    /// Fails on what no more bytes can make UTF-8 (§8.1).
    fn check_text(&mut self, is_whole: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.gathered[self.characters..]) {
            Ok(text) => self.characters += text.len(),
            Err(error) if error.error_len().is_none() && !is_whole => self.characters += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }
}

const NOT_UTF8: Violation = Violation { code: close::INVALID, what: "the text is not UTF-8" };

fn message(kind: Opcode) -> Message {
    if kind == Opcode::Text { Message::Text } else { Message::Binary }
}

/// The code with which a Close frame is answered (§5.5.1, §7.4).
fn closing(payload: &[u8]) -> Result<u16, Violation> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return match payload {
            [] => Ok(close::NORMAL),
            _ => Err(violation(close::PROTOCOL, "a close code of one byte")),
        };
    };
    let code = u16::from_be_bytes([code[0], code[1]]);
    if !CloseCode::from(code).is_allowed() {
        return Err(violation(close::PROTOCOL, "a close code that must not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err(violation(close::INVALID, "the reason of a close is not UTF-8")),
    }
}

/// Appends the answer to a Ping (§5.5.3).
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_header(Opcode::Pong, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a Close frame; the reason is cut to what a control frame holds.
pub fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(123)];
    write_header(Opcode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    pub fn frame(fin: bool, opcode: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(Opcode::Binary, payload.len(), &mut out);
        out[0] = u8::from(fin) << 7 | opcode;
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    proptest! {
        #[test]
        fn messages_survive_masking_and_fragments(payload in proptest::collection::vec(any::<u8>(), 0..70_000),
                                                  mask in any::<[u8; 4]>(), cut in 0usize..70_000) {
            let cut = cut.min(payload.len());
            let mut reader = Reader::default();
            let mut data = Vec::new();
            let whole = frame(true, 2, mask, &payload);
            let read = reader.read(&whole, 1 << 20, &mut data).unwrap();
            prop_assert_eq!((read, &data), (Some((Message::Binary, whole.len())), &payload));
            let first = frame(false, 2, mask, &payload[..cut]);
            prop_assert_eq!(reader.read(&first, 1 << 20, &mut data).unwrap(), Some((Message::Fragment, first.len())));
            let ping = frame(true, 9, mask, b"x");
            prop_assert_eq!(reader.read(&ping, 1 << 20, &mut data).unwrap(), Some((Message::Ping, ping.len())));
            let last = frame(true, 0, mask, &payload[cut..]);
            prop_assert_eq!(reader.read(&last, 1 << 20, &mut data).unwrap(), Some((Message::Binary, last.len())));
            prop_assert_eq!(&data, &payload);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reader::default().read(&bytes, 1000, &mut Vec::new());
        }

        /// A Ping waits until it is whole; a message is taken as it comes.
        #[test]
        fn a_frame_may_come_in_pieces(payload in proptest::collection::vec(any::<u8>(), 0..300),
                                      mask in any::<[u8; 4]>(), cuts in proptest::collection::vec(0usize..310, 0..4)) {
            let ping = frame(true, 9, mask, &payload[..payload.len().min(125)]);
            let cut = cuts.first().map_or(0, |cut| cut % ping.len());
            prop_assert_eq!(Reader::default().read(&ping[..cut], 1000, &mut Vec::new()), Ok(None));
            let whole = frame(true, 2, mask, &payload);
            let (mut reader, mut data) = (Reader::default(), Vec::new());
            let (mut at, mut last) = (0, None);
            for end in cuts.iter().copied().chain([whole.len()]) {
                while let Some((message, taken)) = reader.read(&whole[at..end.clamp(at, whole.len())], 1000, &mut data).unwrap() {
                    at += taken;
                    last = Some(message);
                }
            }
            prop_assert_eq!((at, last, data), (whole.len(), Some(Message::Binary), payload));
        }
    }

    #[test]
    fn text_is_refused_as_soon_as_it_is_none() {
        let text = b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80x"; // U+110000: wrong from its second byte on
        let mask = [9, 8, 7, 6];
        let whole = frame(true, 1, mask, text);
        let mut reader = Reader::default();
        let mut data = Vec::new();
        assert_eq!(reader.read(&whole[..12], 100, &mut data), Ok(Some((Message::Fragment, 12))), "to the \\xf4");
        assert_eq!(reader.read(&[], 100, &mut data), Ok(None));
        assert_eq!(reader.read(&whole[12..13], 100, &mut data), Err(NOT_UTF8), "and its \\x90");

        let mut reader = Reader::default();
        let first = frame(false, 1, mask, &text[..6]);
        assert_eq!(reader.read(&first, 100, &mut data), Ok(Some((Message::Fragment, first.len()))));
        assert_eq!(reader.read(&frame(false, 0, mask, &text[6..7]), 100, &mut data), Err(NOT_UTF8));
    }

    #[test]
    fn the_bound_is_one_on_messages() {
        let mask = [1, 2, 3, 4];
        let mut reader = Reader::default();
        let first = frame(false, 2, mask, &[0; 600]);
        assert_eq!(reader.read(&first, 1000, &mut Vec::new()), Ok(Some((Message::Fragment, first.len()))));
        let head = &frame(true, 0, mask, &[0; 401])[..8];
        let refused = reader.read(head, 1000, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.code, close::TOO_BIG, "before any of the payload has come");
    }

    #[test]
    fn violations_have_their_codes() {
        let mask = [1, 2, 3, 4];
        let mut unmasked = frame(true, 1, mask, b"x");
        unmasked[1] &= 0x7f;
        let cases = [
            (unmasked, close::PROTOCOL),
            (frame(true, 3, mask, b""), close::PROTOCOL),
            (frame(true, 0, mask, b""), close::PROTOCOL),
            (frame(false, 9, mask, b""), close::PROTOCOL),
            (frame(true, 9, mask, &[0; 126]), close::PROTOCOL),
            (frame(true, 1, mask, &[0xff]), close::INVALID),
            (frame(true, 8, mask, &[3]), close::PROTOCOL),
            (frame(true, 8, mask, &1005u16.to_be_bytes()), close::PROTOCOL),
            (frame(true, 8, mask, &[0x03, 0xe8, 0xff]), close::INVALID),
            (frame(true, 2, mask, &[0; 2000]), close::TOO_BIG),
            (vec![0xc2, 0x80, 0, 0, 0, 0], close::PROTOCOL),
            (vec![0x82, 0xfe, 0, 5, 0, 0, 0, 0], close::PROTOCOL),
        ];
        for (bytes, code) in cases {
            let refused = Reader::default().read(&bytes, 1000, &mut Vec::new()).unwrap_err();
            assert_eq!(refused.code, code, "{bytes:?}");
        }
        assert_eq!(closing(&4000u16.to_be_bytes()), Ok(4000));
        assert_eq!(closing(&[]), Ok(close::NORMAL));
    }
}
