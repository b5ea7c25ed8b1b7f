//! Content codings (RFC 9110 §8.4.1): gzip, Brotli and Zstandard, for answers that are large enough to gain by it.

use std::io::Write;

/// Smaller answers are sent as they are: a packet they are anyway.
pub const CODED_BYTES_MIN: usize = 1 << 10;
/// Fast rather than small: the shard does nothing else meanwhile.
const GZIP_LEVEL: u32 = 4;
const BROTLI_QUALITY: u32 = 3;
const ZSTD_LEVEL: i32 = 1;
/// How far back repetitions are looked for, as a power of two: each answer that is on its way holds so much.
const WINDOW: u32 = 17;
const BROTLI_BUFFER: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    /// The cheapest one on the shard comes first.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// What the members of Accept-Encoding like best (RFC 9110 §12.5.3); `None`: the answer as it is.
    pub fn negotiate<'a>(members: impl Iterator<Item = &'a str>) -> Option<Coding> {
        let mut liked: [Option<f32>; 3] = [None; 3];
        let (mut others, mut as_it_is) = (None, 0.0);
        for member in members {
            let (name, parameter) = member.split_once(';').unwrap_or((member, ""));
            let quality = parameter.trim().strip_prefix("q=").map_or(1.0, |text| text.trim().parse().unwrap_or(0.0));
            match Coding::ALL.iter().position(|own| own.name().eq_ignore_ascii_case(name.trim())) {
                Some(at) => liked[at] = Some(quality),
                None if name.trim() == "*" => others = Some(quality),
                None if name.trim().eq_ignore_ascii_case("identity") => as_it_is = quality,
                None => {}
            }
        }
        let quality = |at: usize| liked[at].or(others).unwrap_or(0.0);
        // The first of those that are liked best.
        let best = (0..3).rev().max_by(|a, b| quality(*a).total_cmp(&quality(*b)))?;
        (quality(best) > 0.0 && quality(best) >= as_it_is).then_some(Coding::ALL[best])
    }

    /// Whether content of this type shrinks.
    pub fn is_for(content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.starts_with("text/")
            || ["json", "xml", "cbor", "msgpack", "ndjson", "javascript", "wasm", "yaml"]
                .iter()
                .any(|end| essence.ends_with(end))
    }

    pub fn encode(self, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(self);
        encoder.write(bytes);
        encoder.finish()
    }

    /// An entity tag of what is coded so: other bytes than those of what is not (RFC 9110 §8.8.3.3).
    pub fn tag(self, etag: &str) -> String {
        format!("{}.{}\"", etag.trim_end_matches('"'), self.name())
    }
}

/// The entity tag of what a coding was applied to.
pub fn uncoded_tag(etag: &str) -> String {
    let coding = Coding::ALL.iter().find_map(|coding| etag.strip_suffix(&format!(".{}\"", coding.name())));
    coding.map_or_else(|| etag.to_owned(), |start| format!("{start}\""))
}

/// Encodes what comes in pieces.
pub enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Writing to memory does not fail, and neither does setting up an encoder with the levels above.
const NEVER: &str = "encoders write to memory";

impl Encoder {
    pub fn new(coding: Coding) -> Encoder {
        match coding {
            Coding::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => Encoder::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                WINDOW,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).expect(NEVER);
                encoder.window_log(WINDOW).expect(NEVER);
                Encoder::Zstd(encoder)
            }
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
        .expect(NEVER);
    }

    /// What has come out since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        })
    }

    pub fn finish(self) -> Vec<u8> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish().expect(NEVER),
            Encoder::Brotli(encoder) => encoder.into_inner(),
            Encoder::Zstd(encoder) => encoder.finish().expect(NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_coding_is_chosen() {
        let cases = [
            ("", None),
            ("identity", None),
            ("gzip, deflate", Some(Coding::Gzip)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0, gzip", Some(Coding::Gzip)),
            ("zstd;q=0, *;q=0.1", Some(Coding::Brotli)),
            ("gzip;q=0", None),
        ];
        for (field, expected) in cases {
            assert_eq!(Coding::negotiate(field.split(',').map(str::trim)), expected, "{field}");
        }
    }

    #[test]
    fn tags_of_coded_answers_lead_back() {
        for coding in Coding::ALL {
            assert_eq!(uncoded_tag(&coding.tag("\"abc-c\"")), "\"abc-c\"");
        }
        assert_eq!(uncoded_tag("\"abc\""), "\"abc\"");
    }
}
