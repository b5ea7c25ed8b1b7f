//! Heads and bodies with their outcome, requests that two readers could understand in two ways, and what must hold for
//! any bytes however they arrive.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const BODY_MAX: usize = 64 << 10;

/// One line of what was read: method, path, query, body; and what is left of the input.
fn outcome(input: &[u8]) -> Result<Option<(String, usize)>, u16> {
    match Reader::default().read(input, BODY_MAX) {
        Ok(Progress::Request(request, taken)) => Ok(Some((line(&request), input.len() - taken))),
        Ok(Progress::More { .. }) => Ok(None),
        Ok(Progress::Streamed(..)) => unreachable!("no sequence is among the cases"),
        Err(error) => Err(error.status),
    }
}

fn line(request: &Request<'_>) -> String {
    let body = if request.body.is_empty() { String::new() } else { format!(" {}", request.body.escape_ascii()) };
    let query = if request.query.is_empty() { String::new() } else { format!(" ?{}", request.query) };
    format!("{} {}{query}{body}", request.method, request.path)
}

#[test]
fn requests_are_read() {
    let cases: [(&str, &str, usize); 22] = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /", 0),
        ("GET /T/k?a=1&b=2 HTTP/1.1\r\nHost: a\r\n\r\nGET", "GET /T/k ?a=1&b=2", 3),
        ("GET /a?b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a ?b?c", 0),
        ("GET /%20? HTTP/1.1\r\nhost: a\r\n\r\n", "GET /%20", 0),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *", 0),
        ("GET http://a.b/c?d HTTP/1.1\r\nHost: a.b\r\n\r\n", "GET /c ?d", 0),
        ("GET HTTP://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n", "GET /", 0),
        ("GET / HTTP/1.0\r\n\r\n", "GET /", 0),
        // RFC 9112 §2.2: an empty line before the request line is stepped over.
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /", 0),
        // By length.
        ("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET", "PUT /a abc", 3),
        ("PUT /a HTTP/1.1\r\nHost: a\r\ncontent-length:  3 \r\n\r\nabc", "PUT /a abc", 0),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "PUT /a", 0),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc", "PUT /a abc", 0),
        ("PUT /a HTTP/1.0\r\nContent-Length: 1\r\n\r\na", "PUT /a a", 0),
        // In chunks.
        ("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "PUT /a", 0),
        (
            "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nG",
            "PUT /a abcde",
            1,
        ),
        (
            "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n",
            "PUT /a 0123456789",
            0,
        ),
        (
            "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;n=v;m=\"w\"\r\na\r\n0;x\r\n\r\n",
            "PUT /a a",
            0,
        ),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 ;n\r\na\r\n0\r\n\r\n", "PUT /a a", 0),
        (
            "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\n",
            "PUT /a a",
            0,
        ),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n", "PUT /a \\r\\n", 0),
        ("PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", "PUT /a a", 0),
    ];
    for (input, expected, left) in cases {
        assert_eq!(outcome(input.as_bytes()), Ok(Some((expected.to_owned(), left))), "{input:?}");
    }
}

/// Each would be read in another way by some other server, or is no HTTP at all.
#[test]
fn what_is_ambiguous_or_wrong_is_refused() {
    let with = |field: &str| format!("PUT /a HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let chunked = |body: &str| with("Transfer-Encoding: chunked") + body;
    let cases: Vec<(String, u16)> = vec![
        // Two lengths.
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3"), 400),
        (with("Content-Length: 3\r\nContent-Length: 3"), 400),
        (with("Content-Length: 3\r\nContent-Length: 4"), 400),
        (with("Content-Length: 3, 3"), 400),
        (with("Content-Length: +3"), 400),
        (with("Content-Length: -1"), 400),
        (with("Content-Length: 0x3"), 400),
        (with("Content-Length: 3a"), 400),
        (with("Content-Length: 1 2"), 400),
        (with("Content-Length:"), 400),
        (with("Content-Length: 99999999999999999999"), 400),
        // Transfer codings.
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked, chunked"), 501),
        (with("Transfer-Encoding: gzip, chunked"), 501),
        (with("Transfer-Encoding: chunked, gzip"), 400),
        (with("Transfer-Encoding: identity"), 400),
        (with("Transfer-Encoding: xchunked"), 400),
        (with("Transfer-Encoding: \x0bchunked"), 400),
        (with("Transfer-Encoding:"), 400),
        (with("Transfer-Encoding : chunked"), 400),
        ("PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        // Lines.
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), 400),
        (with("X y: z"), 400),
        (with("X\0: z"), 400),
        (with("X: \0"), 400),
        (with(": z"), 400),
        (with("no colon"), 400),
        // Hosts.
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), 400),
        // Request lines.
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET /\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), 505),
        // Chunks.
        (chunked("x\r\n"), 400),
        (chunked("\r\n"), 400),
        (chunked("-1\r\n"), 400),
        (chunked("0x1\r\na\r\n"), 400),
        (chunked("1\na\r\n0\r\n\r\n"), 400),
        (chunked("1 1\r\na\r\n"), 400),
        (chunked("1\r\nab\r\n"), 400),
        (chunked("1;a\rb\r\na\r\n"), 400),
        (chunked("000000001\r\na\r\n"), 400),
        (chunked("ffffffffffffffff\r\n"), 400),
        (chunked("0\r\nno colon\r\n\r\n"), 400),
        (chunked("0\r\nX: y\n\r\n"), 400),
        // Limits.
        (with(&format!("Content-Length: {}", BODY_MAX + 1)), 413),
        (chunked(&format!("{:x}\r\n", BODY_MAX + 1)), 413),
        (chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(400))), 400),
        (chunked(&format!("0\r\nX: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX))), 400),
        (chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000))), 431),
        (with(&format!("X: {}", "y".repeat(HEAD_BYTES_MAX))), 431),
        ("G".repeat(HEAD_BYTES_MAX + 1), 431),
        (with(&"X: y\r\n".repeat(FIELDS_MAX)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(TARGET_BYTES_MAX)), 414),
        (with("Expect: 200-ok"), 417),
    ];
    for (input, status) in cases {
        let shown: String = input.chars().take(120).collect();
        assert_eq!(outcome(input.as_bytes()), Err(status), "{shown:?}");
    }
}

#[test]
fn continue_is_owed_once_and_only_to_those_who_wait() {
    let head = b"PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut reader = Reader::default();
    let owed = |progress: Result<Progress<'_>, RequestError>| match progress.unwrap() {
        Progress::More { send_continue } => Some(send_continue),
        Progress::Request(..) | Progress::Streamed(..) => None,
    };
    assert_eq!(owed(reader.read(&head[..20], BODY_MAX)), Some(false));
    assert!(reader.has_begun() && !reader.has_head());
    assert_eq!(owed(reader.read(head, BODY_MAX)), Some(true));
    assert!(reader.has_head());
    assert_eq!(owed(reader.read(head, BODY_MAX)), Some(false));
    let whole = [&head[..], b"ab"].concat();
    assert_eq!(owed(reader.read(&whole, BODY_MAX)), None);
    // Part of the body has come already.
    assert_eq!(owed(Reader::default().read(&whole[..whole.len() - 1], BODY_MAX)), Some(false));
}

#[test]
fn connections_persist_by_version_and_wish() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: a, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
    ];
    for (input, expected) in cases {
        let mut reader = Reader::default();
        let Ok(Progress::Request(request, _)) = reader.read(input.as_bytes(), BODY_MAX) else { panic!("{input}") };
        assert_eq!(request.keeps_alive(), expected, "{input}");
    }
}

/// Pieces of requests, some of them wrong, in any order that may hang together.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "PUT /T/k?q HTTP/1.1\r\n",
        "PUT /T/k HTTP/1.0\r\n",
        "\r\nDELETE http://a/b HTTP/1.1\r\n",
        "GET / HTTP/9.9\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Content-Type: application/x-ndjson\r\n",
        "X: y\r\n",
        "X : y\r\n",
        "Y: z\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "2;e=1\r\nab\r\n1\r\nc\r\n0\r\nT: t\r\n\r\n",
        "3\r\nabcd",
        "zz\r\n",
    ]);
    let request = (line, prop::collection::vec(field, 0..3), body);
    prop::collection::vec(request, 1..4).prop_map(|requests| {
        let whole =
            |(line, fields, body): (&str, Vec<&str>, &str)| format!("{line}Host: a\r\n{}\r\n{body}", fields.concat());
        requests.into_iter().map(whole).collect::<String>().into_bytes()
    })
}

/// Everything that a connection reads of a stream, whose bytes arrive in pieces of `step`.
fn read_all(input: &[u8], step: usize) -> Vec<Result<String, u16>> {
    let (mut reader, mut start, mut found) = (Reader::default(), 0, Vec::new());
    let mut end = 0;
    let mut sequence: Option<(String, Incoming)> = None;
    while end < input.len() {
        end = (end + step).min(input.len());
        loop {
            if let Some((text, incoming)) = &mut sequence {
                let piece = match incoming.next(&input[start..end]) {
                    Ok(piece) => piece,
                    Err(error) => {
                        found.push(Err(error.status));
                        return found;
                    }
                };
                text.push_str(&piece.data.escape_ascii().to_string());
                start += piece.taken;
                match (incoming.is_at_end(), piece.taken) {
                    (true, _) => found.extend(sequence.take().map(|(text, _)| Ok(text))),
                    (false, 0) => break,
                    (false, _) => {}
                }
                continue;
            }
            match reader.read(&input[start..end], BODY_MAX) {
                Ok(Progress::More { .. }) => break,
                Ok(Progress::Request(request, taken)) => {
                    found.push(Ok(line(&request)));
                    start += taken;
                }
                Ok(Progress::Streamed(request, taken, incoming, _)) => {
                    sequence = Some((line(&request), incoming));
                    start += taken;
                    reader = Reader::default();
                }
                Err(error) => {
                    found.push(Err(error.status));
                    return found;
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_does_not_matter_how_bytes_arrive(input in stream(), step in 2usize..40) {
        let whole = read_all(&input, input.len());
        prop_assert_eq!(&whole, &read_all(&input, 1));
        prop_assert_eq!(&whole, &read_all(&input, step));
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        input in stream(),
        at in any::<prop::sample::Index>(),
    ) {
        let _ = outcome(&bytes);
        let mut input = input;
        let at = at.index(input.len());
        input.splice(at..(at + bytes.len() % 4).min(input.len()), bytes.iter().copied());
        prop_assert_eq!(read_all(&input, input.len()), read_all(&input, 1));
    }
}

fn time(input: &[u8]) -> Duration {
    let once = || {
        let started = Instant::now();
        assert!(read_all(input, 16).iter().all(Result::is_ok));
        started.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap()
}

/// Ten times the input, in small pieces, takes about ten times as long: nothing is scanned twice. (Quadratic reading
/// would take a hundred times as long.)
#[test]
fn reading_is_linear() {
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(bytes));
    let chunks = |count: usize| {
        let chunks = "5\r\nabcde\r\n".repeat(count);
        format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    for (what, small, large) in [("head", head(700), head(7000)), ("chunks", chunks(500), chunks(5000))] {
        let (small, large) = (time(small.as_bytes()), time(large.as_bytes()));
        let bound = 30 * small + Duration::from_millis(1);
        assert!(large < bound, "{what}: {small:?}, and {large:?} for ten times as much");
    }
}

/// A line that is as long as it may be is taken wherever it is cut.
#[test]
fn a_longest_line_of_chunks_arrives_in_parts() {
    let line = format!("1;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX - 2));
    for cut in [line.len() - 2, line.len() - 1, line.len()] {
        let mut incoming = Incoming { next: Next::ChunkSize, left: 0, trailer: 0 };
        let taken = incoming.next(&line.as_bytes()[..cut]).map(|piece| piece.taken);
        assert_eq!(taken, Ok(if cut == line.len() { cut } else { 0 }), "{cut}");
    }
}
