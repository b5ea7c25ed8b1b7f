//! Any bytes as HTTP requests, one behind the other: no panic, the same requests whether the bytes come in one piece or in
//! several, and nothing in a request that its reader must refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tablecast::protocol::http::request::{FIELDS_MAX, Incoming, Progress, Reader, Request, RequestError};
use tablecast::protocol::path;

const BODY_BYTES_MAX: usize = 1000;

/// A request as it can be compared: method, path, query, minor version, fields, body.
type Seen = (String, String, String, u8, Vec<(String, Vec<u8>)>, Vec<u8>);

fn look_at(request: &Request<'_>) -> Seen {
    assert!(request.path == "*" || request.path.starts_with('/'));
    assert!(!request.path.contains(['?', '#', ' ']) && !request.query.contains(['#', ' ']));
    assert!(request.body.len() <= BODY_BYTES_MAX && request.minor <= 1 && request.fields.len() <= FIELDS_MAX);
    let hosts = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
    assert!(hosts == 1 || (hosts == 0 && request.minor == 0), "RFC 9112 §3.2");
    for field in &request.fields {
        assert!(!field.name.is_empty() && !field.value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        let _ = (request.field(field.name), request.list(field.name).count());
    }
    let _ = (request.keeps_alive(), path::decode(request.path));
    let fields = request.fields.iter().map(|field| (field.name.to_owned(), field.value.to_owned())).collect();
    let texts = [request.method, request.path, request.query].map(str::to_owned);
    let [method, path, query] = texts;
    (method, path, query, request.minor, fields, request.body.to_owned())
}

fn refused(error: &RequestError) -> Option<Seen> {
    assert!((400..600).contains(&error.status) && !error.what.is_empty());
    None
}

/// Takes what is there of a body that comes in pieces; gives how many bytes of the input that took.
fn take(incoming: &mut Incoming, input: &[u8], body: &mut Vec<u8>) -> Result<usize, RequestError> {
    let mut taken = 0;
    while !incoming.is_at_end() {
        let piece = incoming.next(&input[taken..])?;
        assert!(piece.data.len() <= piece.taken && piece.taken <= input.len() - taken);
        if piece.taken == 0 {
            break;
        }
        body.extend_from_slice(piece.data);
        taken += piece.taken;
    }
    Ok(taken)
}

/// Reads what has come whenever a piece has; the last is `None` if something cannot be read. A sequence whose end has not
/// come is seen with what there is of it.
fn read(bytes: &[u8], cuts: &[usize]) -> Vec<Option<Seen>> {
    let (mut reader, mut seen, mut at) = (Reader::default(), Vec::new(), 0);
    let mut sequence: Option<(Seen, Incoming)> = None;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            if let Some((request, incoming)) = &mut sequence {
                match take(incoming, &bytes[at..end], &mut request.5) {
                    Ok(taken) => at += taken,
                    Err(error) => {
                        seen.push(refused(&error));
                        return seen;
                    }
                }
                if !incoming.is_at_end() {
                    break;
                }
                seen.extend(sequence.take().map(|(request, _)| Some(request)));
            }
            if at == end {
                break;
            }
            match reader.read(&bytes[at..end], BODY_BYTES_MAX) {
                Ok(Progress::More { .. }) => break,
                Ok(Progress::Request(request, length)) => {
                    assert!(length > 0 && length <= end - at);
                    seen.push(Some(look_at(&request)));
                    at += length;
                }
                Ok(Progress::Streamed(request, head_bytes, incoming, expects_continue)) => {
                    assert!(head_bytes > 0 && head_bytes <= end - at && request.body.is_empty());
                    assert!(!expects_continue || request.minor == 1);
                    sequence = Some((look_at(&request), incoming));
                    reader = Reader::default();
                    at += head_bytes;
                }
                Err(error) => {
                    seen.push(refused(&error));
                    return seen;
                }
            }
        }
    }
    seen.extend(sequence.map(|(request, _)| Some(request)));
    seen
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (one, other, bytes) = input;
    let mut cuts = [one, other].map(|cut| usize::from(cut) % (bytes.len() + 1));
    cuts.sort_unstable();
    assert_eq!(read(bytes, &[]), read(bytes, &cuts));
});
