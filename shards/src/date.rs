//! ISO 8601 text ⇄ [`Date`]: what JSON carries for a date (RFC 3339, and JavaScript's `toISOString`).

use crate::document::Date;

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `2026-11-21T22:53:36.123Z`; more digits where the date has them.
pub fn write_iso(date: Date, out: &mut String) {
    use std::fmt::Write;
    let (year, month, day) = civil_from_days(date.seconds.div_euclid(86_400));
    let second = date.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let _ = if (0..=9999).contains(&year) {
        write!(out, "{year:04}")
    } else {
        write!(out, "{}{:06}", if year < 0 { '-' } else { '+' }, year.abs())
    };
    let _ = write!(out, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let _ = match date.nanos {
        nanos if nanos % 1_000_000 == 0 => write!(out, ".{:03}Z", nanos / 1_000_000),
        nanos if nanos % 1000 == 0 => write!(out, ".{:06}Z", nanos / 1000),
        nanos => write!(out, ".{nanos:09}Z"),
    };
}

/// Reads a date, or a date and time with `Z` or an offset (none: UTC).
pub fn parse_iso(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let (year_digits, sign, start) = match bytes.first()? {
        b'+' => (6, 1, 1),
        b'-' => (6, -1, 1),
        _ => (4, 1, 0),
    };
    let digits = |from: usize, count: usize| -> Option<i64> {
        let slice = bytes.get(from..from + count)?;
        slice.iter().all(u8::is_ascii_digit).then(|| slice.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let year = sign * digits(start, year_digits)?;
    let mut at = start + year_digits;
    if !is(at, b'-') || !is(at + 3, b'-') {
        return None;
    }
    let (month, day) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
    if !(1..=12).contains(&month) || civil_from_days(days_from_civil(year, month, day)) != (year, month, day) {
        return None;
    }
    let mut seconds = days_from_civil(year, month, day) * 86_400;
    let mut nanos = 0;
    at += 6;
    if at == bytes.len() {
        return Some(Date { seconds, nanos });
    }
    if !matches!(bytes[at], b'T' | b't' | b' ') || !is(at + 3, b':') {
        return None;
    }
    let (hour, minute) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
    at += 6;
    let mut second = 0;
    if is(at, b':') {
        second = digits(at + 1, 2)?;
        at += 3;
        if is(at, b'.') {
            let count = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&count) {
                return None;
            }
            nanos = digits(at + 1, count)? as u32 * 10u32.pow(9 - count as u32);
            at += 1 + count;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    seconds += hour * 3600 + minute * 60 + second;
    match bytes.get(at..)? {
        b"" | b"Z" | b"z" => {}
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let offset = digits(at + 1, 2)? * 3600 + digits(at + 4, 2)? * 60;
            seconds -= if *sign == b'+' { offset } else { -offset };
        }
        _ => return None,
    }
    Some(Date { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts() {
        let cases = [
            ("1970-01-01", Some((0, 0))),
            ("2000-02-29T12:30:15.5Z", Some((951_827_415, 500_000_000))),
            ("2026-11-21T22:53:36.123456+01:00", Some((1_795_298_016, 123_456_000))),
            ("2026-11-21T22:53", Some((1_795_301_580, 0))),
            ("1969-12-31T23:59:59Z", Some((-1, 0))),
            ("2001-02-29", None),
            ("2026-13-01", None),
            ("2026-11-21T25:00Z", None),
            ("2026-11-21T22:53:36.Z", None),
            ("hello", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_iso(text).map(|date| (date.seconds, date.nanos)), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn written_dates_read_back(seconds in -8_640_000_000_000i64..8_640_000_000_000, nanos in 0u32..1_000_000_000) {
            let date = Date { seconds, nanos };
            let mut text = String::new();
            write_iso(date, &mut text);
            proptest::prop_assert_eq!(parse_iso(&text), Some(date));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = parse_iso(&text);
        }
    }
}
