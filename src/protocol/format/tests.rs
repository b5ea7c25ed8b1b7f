//! Any document survives any pair of formats; other people's codecs agree with ours.

use super::*;
use proptest::prelude::*;
use shards::document::{Date, Writer};

/// Appends a random document; `level` bounds the nesting.
pub fn value(level: u32) -> BoxedStrategy<Vec<u8>> {
    let scalar = |write: fn(&mut Vec<u8>, u64)| {
        move |number: u64| {
            let mut out = Vec::new();
            write(&mut out, number);
            out
        }
    };
    let leaf = prop_oneof![
        Just(vec![0xc0]),
        any::<u64>().prop_map(scalar(|out, n| out.write_bool(n % 2 == 0))),
        any::<u64>().prop_map(scalar(|out, n| out.write_int(n as i64 >> (n % 64)))),
        any::<u64>().prop_map(scalar(|out, n| out.write_uint(n))),
        any::<f64>().prop_filter("JSON has none", |x| x.is_finite()).prop_map(|x| {
            let mut out = Vec::new();
            out.write_float(x);
            out
        }),
        ".{0,40}".prop_map(|text| {
            let mut out = Vec::new();
            out.write_str(&text);
            out
        }),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
            let mut out = Vec::new();
            out.write_bytes(&bytes);
            out
        }),
    ];
    if level == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        3 => leaf,
        1 => proptest::collection::vec(value(level - 1), 0..5).prop_map(|items| {
            let mut out = Vec::new();
            out.write_array(items.len() as u32);
            items.iter().for_each(|item| out.extend_from_slice(item));
            out
        }),
        1 => document(level - 1),
    ]
    .boxed()
}

/// A random map.
pub fn document(level: u32) -> BoxedStrategy<Vec<u8>> {
    proptest::collection::btree_map("[a-zA-Z0-9_ä\"\\\\]{0,8}", value(level), 0..6)
        .prop_map(|pairs| {
            let mut out = Vec::new();
            out.write_map(pairs.len() as u32);
            for (key, value) in pairs {
                out.write_str(&key);
                out.extend_from_slice(&value);
            }
            out
        })
        .boxed()
}

fn transcode(decoder: &mut Decoder, format: Format, document: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(format, document, &mut bytes);
    let mut back = Vec::new();
    decoder.decode(format, &bytes, &mut back).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    back
}

proptest! {
    #[test]
    fn any_document_survives_any_pair_of_formats(document in document(3)) {
        let mut decoder = Decoder::default();
        for first in Format::ALL {
            for second in Format::ALL {
                let once = transcode(&mut decoder, first, &document);
                let twice = transcode(&mut decoder, second, &once);
                prop_assert_eq!(&twice, &document, "{:?} then {:?}", first, second);
            }
        }
    }

    #[test]
    fn dates_survive_the_binary_formats(seconds in -60_000_000_000i64..60_000_000_000, nanos in 0u32..1_000_000_000) {
        let mut decoder = Decoder::default();
        for nanos in [nanos, nanos / 1000 * 1000, nanos / 1_000_000 * 1_000_000, 0] {
            let mut document = Vec::new();
            document.write_date(Date { seconds, nanos });
            for format in [Format::Cbor, Format::MessagePack] {
                prop_assert_eq!(&transcode(&mut decoder, format, &document), &document);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::default();
        for format in Format::ALL {
            let mut out = Vec::new();
            if decoder.decode(format, &bytes, &mut out).is_ok() {
                prop_assert!(document::is_well_formed(&out));
                encode(Format::Json, &out, &mut Vec::new());
            }
        }
    }

    /// serde_json, ciborium and rmp-serde each read what we write, and the last two read the same.
    #[test]
    fn foreign_codecs_agree(document in document(2)) {
        let mut json = Vec::new();
        encode(Format::Json, &document, &mut json);
        let ours: serde_json::Value = serde_json::from_slice(&json).expect("serde_json reads it");
        let mut again = Vec::new();
        Decoder::default().decode(Format::Json, &serde_json::to_vec(&ours).unwrap(), &mut again).unwrap();
        let mut cbor = Vec::new();
        encode(Format::Cbor, &document, &mut cbor);
        let foreign: ciborium::Value = ciborium::from_reader(cbor.as_slice()).expect("ciborium reads it");
        let same: ciborium::Value = rmp_serde::from_slice(&document).expect("rmp-serde reads the canonical form");
        prop_assert_eq!(&same, &foreign);
        let mut written = Vec::new();
        ciborium::into_writer(&foreign, &mut written).unwrap();
        let mut back = Vec::new();
        Decoder::default().decode(Format::Cbor, &written, &mut back).expect("we read ciborium's");
        prop_assert_eq!(&back, &document);
    }
}

#[test]
fn known_cbor_is_read() {
    // RFC 8949 appendix A, and what cbor-x sends.
    let cases: [(&[u8], &str); 14] = [
        (&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "18446744073709551615"),
        (&[0x39, 0x03, 0xe7], "-1000"),
        (&[0xf9, 0x3c, 0x00], "1.0"),
        (&[0xf9, 0x00, 0x01], "5.960464477539063e-8"),
        (&[0xf9, 0x7c, 0x00], "null"),
        (&[0xfa, 0x47, 0xc3, 0x50, 0x00], "100000.0"),
        (&[0xf7], "null"),
        (&[0xc1, 0x1a, 0x51, 0x4b, 0x67, 0xb0], "\"2013-03-21T20:04:00.000Z\""),
        (&[0xc2, 0x42, 0x01, 0x00], "256"),
        (&[0x5f, 0x41, 1, 0x41, 2, 0xff], "{\"type\":\"Buffer\",\"data\":[1,2]}"),
        (&[0x9f, 0x01, 0x82, 0x02, 0x03, 0xff], "[1,[2,3]]"),
        (&[0xbf, 0x61, 0x61, 0x01, 0xff], "{\"a\":1}"),
        (&[0xa1, 0x01, 0x02], "{\"1\":2}"),
        (&[0xd9, 0xd9, 0xf7, 0x80], "[]"),
    ];
    for (bytes, expected) in cases {
        let mut out = Vec::new();
        Decoder::default().decode(Format::Cbor, bytes, &mut out).unwrap();
        let mut json = Vec::new();
        encode(Format::Json, &out, &mut json);
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}

#[test]
fn wrong_input_is_refused_with_its_place() {
    let deep = "[".repeat(100) + &"]".repeat(100);
    let cases: [(Format, &[u8], usize); 9] = [
        (Format::Json, b"{bad", 1),
        (Format::Json, b"", 0),
        (Format::Json, b"  ", 0),
        (Format::Json, b"[1,]", 3),
        (Format::Cbor, &[0x82, 0x01], 1),
        (Format::Cbor, &[0x01, 0x02], 1),
        (Format::Cbor, &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 9),
        (Format::MessagePack, &[0x92, 0x01], 2),
        (Format::MessagePack, &[0xc1], 1),
    ];
    for (format, bytes, at) in cases {
        let mut out = vec![1, 2];
        let error = Decoder::default().decode(format, bytes, &mut out).unwrap_err();
        assert_eq!((error.at, out.as_slice()), (at, &[1, 2][..]), "{error}");
    }
    assert!(Decoder::default().decode(Format::Json, deep.as_bytes(), &mut Vec::new()).is_err());
    assert!(Decoder::default().decode(Format::Json, b"{\"a\":1} x", &mut Vec::new()).is_err());
}
