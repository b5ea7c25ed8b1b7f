//! Any bytes as HTTP requests, one behind the other: no panic, the same requests whether the bytes come in one piece or in
//! several, and nothing in a request that its reader must refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tablecast::protocol::http::request::{FIELDS_MAX, Progress, Reader, Request};
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

/// Reads what has come whenever a piece has; the last is `None` if something cannot be read.
fn read(bytes: &[u8], cuts: &[usize]) -> Vec<Option<Seen>> {
    let (mut reader, mut seen, mut at) = (Reader::default(), Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        while at < end {
            match reader.read(&bytes[at..end], BODY_BYTES_MAX) {
                Ok(Progress::More { .. }) => break,
                Ok(Progress::Request(request, length)) => {
                    assert!(length > 0 && length <= end - at);
                    seen.push(Some(look_at(&request)));
                    at += length;
                }
                Err(error) => {
                    assert!((400..600).contains(&error.status) && !error.what.is_empty());
                    seen.push(None);
                    return seen;
                }
            }
        }
    }
    seen
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (one, other, bytes) = input;
    let mut cuts = [one, other].map(|cut| usize::from(cut) % (bytes.len() + 1));
    cuts.sort_unstable();
    assert_eq!(read(bytes, &[]), read(bytes, &cuts));
});
