//! Any text as the query of a table that has an attribute of each type: no panic, every mistake at a place of the text;
//! what is understood is asked of records, which gives documents, and the condition means the same inside parentheses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::clock::Version;
use shards::document::is_well_formed;
use shards::key::KeyCodec;
use shards::query::Scratch;
use shards::query::project::Subject;
use shards::schema::TableDef;
use std::sync::LazyLock;
use tablecast::app::sdl;
use tablecast::diagnostic::Diagnostics;
use tablecast::protocol::format::{Decoder, Format};
use tablecast::protocol::query::parse;

const SCHEMA: &str = "type T @table { id: ID @primaryKey i: Int l: Long g: BigInt f: Float s: String b: Boolean \
                      d: Date y: Bytes o: Blob tags: [String] numbers: [Int] any: Any object: Object place: Place \
                      places: [Place] } type Place { city: String zip: Int at: Date }";

const RECORDS: [&str; 4] = [
    r#"{"id":"a","i":3,"l":-9007199254740993,"g":123456789012345678901234567890,"f":1.5,"s":"aé","b":true,"d":1704067200000,
        "tags":["a","b"],"numbers":[1,-1],"any":35,"object":{"x":{"y":[null,1]}},"place":{"city":"Ulm","zip":89073},
        "places":[{"city":"B"},{"zip":1}]}"#,
    r#"{"id":"b","i":null,"f":-0.0,"s":"","b":false,"tags":[],"any":"3","places":[]}"#,
    r#"{"id":"","any":[1,[2,{"i":3}],"x"],"place":null,"s":"a*b","f":1e300}"#,
    "{}",
];

static TABLE: LazyLock<TableDef> = LazyLock::new(|| {
    let mut diagnostics = Diagnostics::default();
    let table = sdl::define(&[sdl::parse("s", SCHEMA, &mut diagnostics)], &mut diagnostics).remove(0);
    assert!(!diagnostics.has_errors());
    table
});

static DOCUMENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let decode = |json: &&str| {
        let mut document = Vec::new();
        Decoder::default().decode(Format::Json, json.as_bytes(), &mut document).expect("JSON");
        document
    };
    RECORDS.iter().map(decode).collect()
});

fuzz_target!(|text: &str| {
    let (query, parameters) = match parse(text, &TABLE, &[]) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(text.is_char_boundary(error.at) && !error.what.is_empty(), "{error}");
            return;
        }
    };
    let mut scratch = Scratch::default();
    for document in DOCUMENTS.iter() {
        let wanted = query.matches(document, &mut scratch);
        assert!(wanted || query.condition.is_some());
        query.place(b"key", document, &mut Vec::new());
        let version = Version(1 << 40);
        let subject = Subject { codec: KeyCodec::Text, key: b"key", version, expires_ms: Some(1), document };
        let mut selected = Vec::new();
        query.select.project(&subject, &mut selected);
        assert!(is_well_formed(&selected), "{selected:x?}");
    }
    // A text with brackets reads `+` as it stands.
    let nests = text.matches(['(', '[']).count() < 8 && !text.is_empty() && !text.contains('+');
    if nests && let Ok((grouped, again)) = parse(&format!("({text})"), &TABLE, &[]) {
        assert_eq!((grouped.condition, again), (query.condition, parameters));
    }
});
