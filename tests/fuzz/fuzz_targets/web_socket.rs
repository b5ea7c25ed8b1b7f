//! Any bytes as WebSocket frames: no panic, the same messages and the same end whether the bytes come in one piece or in
//! several, and a message that is sent on in fragments is read back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tablecast::protocol::framing::{Opcode, write_header};
use tablecast::protocol::ws::frame::{Message, Reader, write_close};

const MESSAGE_BYTES_MAX: usize = 70_000;

/// Everything but fragments, with its bytes; and the close code of what may not be sent.
fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<(Message, Vec<u8>)>, Option<u16>) {
    let (mut reader, mut data) = (Reader::default(), Vec::new());
    let (mut seen, mut at) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            match reader.read(&bytes[at..end], MESSAGE_BYTES_MAX, &mut data) {
                Ok(None) => break,
                Ok(Some((message, length))) => {
                    assert!(length > 0 && length <= end - at);
                    at += length;
                    look_at(&message, &data);
                    if message != Message::Fragment {
                        seen.push((message, data.clone()));
                    }
                }
                Err(violation) => {
                    assert!(matches!(violation.code, 1002 | 1007 | 1009) && !violation.what.is_empty());
                    return (seen, Some(violation.code));
                }
            }
        }
    }
    (seen, None)
}

fn look_at(message: &Message, data: &[u8]) {
    match message {
        Message::Text => assert!(std::str::from_utf8(data).is_ok()),
        Message::Binary => assert!(data.len() <= MESSAGE_BYTES_MAX),
        Message::Ping | Message::Pong => assert!(data.len() <= 125),
        Message::Close(code) => {
            let mut answer = Vec::new();
            write_close(*code, "", &mut answer);
            assert!((1000..5000).contains(code) && answer.len() == 4);
        }
        Message::Fragment => {}
    }
}

fn append(fin: bool, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let (start, mask) = (out.len(), [0x5a, 0, 0xff, payload.len() as u8]);
    write_header(opcode, payload.len(), out);
    out[start] = u8::from(fin) << 7 | opcode as u8;
    out[start + 1] |= 0x80;
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (one, other, bytes) = input;
    let mut cuts = [one, other].map(|cut| usize::from(cut) % (bytes.len() + 1));
    cuts.sort_unstable();
    assert_eq!(read(bytes, &[]), read(bytes, &cuts));

    let kind = if std::str::from_utf8(bytes).is_ok() { Opcode::Text } else { Opcode::Binary };
    let mut frames = Vec::new();
    append(false, kind, &bytes[..cuts[0]], &mut frames);
    append(true, Opcode::Ping, b"between", &mut frames);
    append(false, Opcode::Continuation, &bytes[cuts[0]..cuts[1]], &mut frames);
    append(true, Opcode::Continuation, &bytes[cuts[1]..], &mut frames);
    let message = if kind == Opcode::Text { Message::Text } else { Message::Binary };
    let wanted = vec![(Message::Ping, b"between".to_vec()), (message, bytes.to_vec())];
    assert_eq!(read(&frames, &cuts), (wanted, None));
});
