//! CBOR and MessagePack to and from `serde_json::Value`, written for the tests so that the server's own codecs are
//! judged by other ones. Byte strings decode to `{"type":"Buffer","data":[…]}` and times to ISO 8601 text, as the
//! foreign clients print them.

use serde_json::{Map, Number, Value, json};

/// A representation on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    #[default]
    Json,
    Cbor,
    MsgPack,
}

pub const ALL_FORMATS: &[Format] = &[Format::Json, Format::Cbor, Format::MsgPack];

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Cbor => "cbor",
            Format::MsgPack => "msgpack",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Cbor => "application/cbor",
            Format::MsgPack => "application/x-msgpack",
        }
    }

    /// The format of a content type, parameters ignored; none for any other type.
    pub fn of_content_type(text: &str) -> Option<Format> {
        let bare = text.split(';').next().unwrap_or("").trim();
        ALL_FORMATS.iter().copied().find(|f| f.content_type().eq_ignore_ascii_case(bare))
    }

    pub fn encode(self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Format::Json => return serde_json::to_vec(value).expect("a value is always JSON"),
            Format::Cbor => cbor_write(value, &mut out),
            Format::MsgPack => msgpack_write(value, &mut out),
        }
        out
    }

    /// The value if the bytes are exactly one of them.
    pub fn decode(self, bytes: &[u8]) -> Option<Value> {
        let mut reader = Reader { bytes, depth: 0 };
        let value = match self {
            Format::Json => return serde_json::from_slice(bytes).ok(),
            Format::Cbor => reader.cbor()?,
            Format::MsgPack => reader.msgpack()?,
        };
        reader.bytes.is_empty().then_some(value)
    }

    /// All values of a sequence without separators (MessagePack search results are one).
    pub fn decode_sequence(self, bytes: &[u8]) -> Option<Vec<Value>> {
        let mut reader = Reader { bytes, depth: 0 };
        let mut all = Vec::new();
        while !reader.bytes.is_empty() {
            all.push(match self {
                Format::Json => {
                    return serde_json::Deserializer::from_slice(bytes).into_iter().collect::<Result<_, _>>().ok();
                }
                Format::Cbor => reader.cbor()?,
                Format::MsgPack => reader.msgpack()?,
            });
        }
        Some(all)
    }
}

/// The value with every float that is a whole number as an integer. JavaScript has one kind of number, so that its
/// libraries print 70.0 as 70 and send large integers as floats; [`super::Message`] values are in this form.
pub fn normal(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0 => json!(f as i64),
            _ => Value::Number(n),
        },
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, normal(v))).collect(),
        other => other,
    }
}

/// A byte string as the foreign clients print one.
pub fn buffer(bytes: &[u8]) -> Value {
    json!({ "type": "Buffer", "data": bytes })
}

/// ISO 8601 with milliseconds of a time in seconds since 1970.
fn iso(seconds: f64) -> Value {
    let millis = (seconds * 1000.0).round() as i64;
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Days to a civil date, after Howard Hinnant.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    Value::String(format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z"))
}

/// JSON's text keys: text as it is, everything else as its JSON.
fn key(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn cbor_head(major: u8, n: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match n {
        0..=23 => out.push(major | n as u8),
        24..=0xff => out.extend([major | 24, n as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

fn cbor_write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(b) => out.push(0xf4 | u8::from(*b)),
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), ..) => cbor_head(0, n, out),
            (_, Some(n), _) => cbor_head(1, !(n as u64), out),
            (.., f) => {
                out.push(0xfb);
                out.extend(f.unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Value::String(text) => {
            cbor_head(3, text.len() as u64, out);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            cbor_head(4, items.len() as u64, out);
            items.iter().for_each(|item| cbor_write(item, out));
        }
        Value::Object(map) => {
            cbor_head(5, map.len() as u64, out);
            for (k, v) in map {
                cbor_head(3, k.len() as u64, out);
                out.extend(k.as_bytes());
                cbor_write(v, out);
            }
        }
    }
}

fn msgpack_write(value: &Value, out: &mut Vec<u8>) {
    let head = |out: &mut Vec<u8>, n: usize, fix: u8, fix_below: usize, wide: u8| {
        if n < fix_below {
            out.push(fix | n as u8);
        } else if let Ok(n) = u16::try_from(n) {
            out.push(wide);
            out.extend(n.to_be_bytes());
        } else {
            out.push(wide + 1);
            out.extend((n as u32).to_be_bytes());
        }
    };
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(b) => out.push(0xc2 | u8::from(*b)),
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n @ 0..=0x7f), ..) => out.push(n as u8),
            (Some(n), ..) => {
                out.push(0xcf);
                out.extend(n.to_be_bytes());
            }
            (_, Some(n @ -32..=-1), _) => out.push(n as u8),
            (_, Some(n), _) => {
                out.push(0xd3);
                out.extend(n.to_be_bytes());
            }
            (.., f) => {
                out.push(0xcb);
                out.extend(f.unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Value::String(text) => {
            head(out, text.len(), 0xa0, 32, 0xda);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            head(out, items.len(), 0x90, 16, 0xdc);
            items.iter().for_each(|item| msgpack_write(item, out));
        }
        Value::Object(map) => {
            head(out, map.len(), 0x80, 16, 0xde);
            for (k, v) in map {
                head(out, k.len(), 0xa0, 32, 0xda);
                out.extend(k.as_bytes());
                msgpack_write(v, out);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(taken)
    }

    fn uint(&mut self, size: usize) -> Option<u64> {
        Some(self.take(size)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn int(&mut self, size: usize) -> Option<i64> {
        let shift = 64 - 8 * size as u32;
        Some(((self.uint(size)? << shift) as i64) >> shift)
    }

    fn text(&mut self, n: usize) -> Option<String> {
        String::from_utf8(self.take(n)?.to_vec()).ok()
    }

    /// Runs `read` one level deeper; none beyond 200 levels.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let result = if self.depth > 200 { None } else { read(self) };
        self.depth -= 1;
        result
    }

    fn at_break(&mut self) -> bool {
        let found = self.bytes.first() == Some(&0xff);
        if found {
            self.bytes = &self.bytes[1..];
        }
        found
    }

    fn cbor(&mut self) -> Option<Value> {
        self.deeper(Self::cbor_item)
    }

    fn cbor_item(&mut self) -> Option<Value> {
        let first = self.take(1)?[0];
        let (major, low) = (first >> 5, first & 0x1f);
        // None: of indefinite length.
        let n = match low {
            0..=23 => Some(u64::from(low)),
            24..=27 => Some(self.uint(1 << (low - 24))?),
            31 => None,
            _ => return None,
        };
        let left = |count: &mut u64| {
            let more = *count > 0;
            *count = count.saturating_sub(1);
            more
        };
        match major {
            0 => Some(json!(n?)),
            1 => Some(i64::try_from(n?).map_or_else(|_| float(-1.0 - n.unwrap_or(0) as f64), |n| json!(-1 - n))),
            2 | 3 => {
                let mut whole = Vec::new();
                match n {
                    Some(n) => whole.extend(self.take(usize::try_from(n).ok()?)?),
                    None => {
                        while !self.at_break() {
                            let head = self.take(1)?[0];
                            let size = match (head >> 5 == major, head & 0x1f) {
                                (true, low @ 0..=23) => u64::from(low),
                                (true, low @ 24..=27) => self.uint(1 << (low - 24))?,
                                _ => return None,
                            };
                            whole.extend(self.take(usize::try_from(size).ok()?)?);
                        }
                    }
                }
                if major == 2 { Some(buffer(&whole)) } else { String::from_utf8(whole).ok().map(Value::String) }
            }
            4 => {
                let mut items = Vec::new();
                let mut count = n.unwrap_or(u64::MAX);
                while !(n.is_none() && self.at_break()) && left(&mut count) {
                    items.push(self.cbor()?);
                }
                Some(Value::Array(items))
            }
            5 => {
                let mut map = Map::new();
                let mut count = n.unwrap_or(u64::MAX);
                while !(n.is_none() && self.at_break()) && left(&mut count) {
                    let k = key(self.cbor()?);
                    map.insert(k, self.cbor()?);
                }
                Some(Value::Object(map))
            }
            6 => {
                let inner = self.cbor()?;
                if n == Some(1) { inner.as_f64().map(iso) } else { Some(inner) }
            }
            _ => match low {
                20 => Some(json!(false)),
                21 => Some(json!(true)),
                22 | 23 => Some(Value::Null),
                25 => Some(float(half(n? as u16))),
                26 => Some(float(f64::from(f32::from_bits(n? as u32)))),
                27 => Some(float(f64::from_bits(n?))),
                _ => None,
            },
        }
    }

    fn msgpack(&mut self) -> Option<Value> {
        self.deeper(Self::msgpack_item)
    }

    fn msgpack_array(&mut self, n: u64) -> Option<Value> {
        (0..n).map(|_| self.msgpack()).collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn msgpack_map(&mut self, n: u64) -> Option<Value> {
        (0..n).map(|_| Some((key(self.msgpack()?), self.msgpack()?))).collect::<Option<Map<_, _>>>().map(Value::Object)
    }

    fn msgpack_ext(&mut self, n: usize) -> Option<Value> {
        let kind = self.take(1)?[0] as i8;
        let mut data = Reader { bytes: self.take(n)?, depth: 0 };
        if kind != -1 {
            return Some(json!({ "ext": kind, "data": data.bytes }));
        }
        let (nanos, seconds) = match n {
            4 => (0, data.uint(4)? as i64),
            8 => {
                let both = data.uint(8)?;
                (both >> 34, (both & 0x3_ffff_ffff) as i64)
            }
            12 => (data.uint(4)?, data.int(8)?),
            _ => return None,
        };
        Some(iso(seconds as f64 + nanos as f64 / 1e9))
    }

    fn msgpack_item(&mut self) -> Option<Value> {
        let first = self.take(1)?[0];
        match first {
            0x00..=0x7f => Some(json!(first)),
            0xe0..=0xff => Some(json!(first as i8)),
            0x80..=0x8f => self.msgpack_map(u64::from(first & 0x0f)),
            0x90..=0x9f => self.msgpack_array(u64::from(first & 0x0f)),
            0xa0..=0xbf => self.text(usize::from(first & 0x1f)).map(Value::String),
            0xc0 => Some(Value::Null),
            0xc1 => None,
            0xc2 => Some(json!(false)),
            0xc3 => Some(json!(true)),
            0xc4..=0xc6 => {
                let n = self.uint(1 << (first - 0xc4))?;
                self.take(n as usize).map(buffer)
            }
            0xc7..=0xc9 => {
                let n = self.uint(1 << (first - 0xc7))?;
                self.msgpack_ext(n as usize)
            }
            0xca => Some(float(f64::from(f32::from_bits(self.uint(4)? as u32)))),
            0xcb => Some(float(f64::from_bits(self.uint(8)?))),
            0xcc..=0xcf => self.uint(1 << (first - 0xcc)).map(|n| json!(n)),
            0xd0..=0xd3 => self.int(1 << (first - 0xd0)).map(|n| json!(n)),
            0xd4..=0xd8 => self.msgpack_ext(1 << (first - 0xd4)),
            0xd9..=0xdb => {
                let n = self.uint(1 << (first - 0xd9))?;
                self.text(n as usize).map(Value::String)
            }
            0xdc | 0xdd => {
                let n = self.uint(2 << (first - 0xdc))?;
                self.msgpack_array(n)
            }
            0xde | 0xdf => {
                let n = self.uint(2 << (first - 0xde))?;
                self.msgpack_map(n)
            }
        }
    }
}

/// A half-precision float, after RFC 8949 appendix D.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
