//! Texts of a query as values to compare with.

use shards::date::parse_iso;
use shards::document::{Date, Token};
use shards::query::{Scalar, order};
use shards::schema::{Kind, Role};

fn encoded(token: Token<'_>) -> Scalar {
    let mut out = Vec::new();
    order::encode(token, &mut out);
    out.into()
}

fn number(text: &str) -> Option<Token<'static>> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Token::Int(whole));
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(Token::Uint(whole));
    }
    // Not `inf` and `nan`, which are no numbers to a client.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse::<f64>().ok().filter(|number| is_number && number.is_finite()).map(Token::Float)
}

fn date(text: &str) -> Option<Date> {
    parse_iso(text).or_else(|| text.parse::<f64>().ok().and_then(Date::from_millis))
}

fn boolean(text: &str) -> Option<Token<'static>> {
    text.parse().ok().map(Token::Bool)
}

/// A number whose digits are those of base 36, behind a `$`.
fn any_number(text: &str) -> Option<Token<'static>> {
    match text.strip_prefix('$') {
        Some(digits) => i64::from_str_radix(digits, 36).ok().map(Token::Int),
        None => number(text),
    }
}

/// The value to compare an attribute of this kind with. `coerces`: the text may say what it is.
///
/// # Errors
/// What was expected.
pub fn scalar(text: &str, kind: &Kind, role: Role, coerces: bool) -> Result<Scalar, &'static str> {
    let said = if coerces { text.split_once(':') } else { None };
    let said = said.filter(|(name, _)| matches!(*name, "number" | "boolean" | "date" | "string"));
    let is_text = matches!(kind, Kind::String | Kind::Id);
    if text == "null" && (coerces || !is_text && !matches!(kind, Kind::Any | Kind::Object(_))) {
        return Ok(encoded(Token::Null));
    }
    let (said, text) = said.map_or((None, text), |(name, rest)| (Some(name), rest));
    let is_time = matches!(role, Role::CreatedTime | Role::UpdatedTime);
    match kind {
        Kind::String | Kind::Id => Ok(encoded(Token::Str(text))),
        Kind::Int | Kind::Long | Kind::Float | Kind::BigInt => {
            let of_date = || date(text).filter(|_| said == Some("date") || is_time).map(|date| date.as_millis());
            let found = any_number(text).or_else(|| of_date().map(Token::Float));
            found.map(encoded).ok_or("a number")
        }
        Kind::Boolean => boolean(text).map(encoded).ok_or("true or false"),
        Kind::Date => date(text).map(|date| encoded(Token::Date(date))).ok_or("a date: ISO 8601, or milliseconds"),
        Kind::Bytes => Ok(encoded(Token::Bytes(text.as_bytes()))),
        Kind::Array(element) => scalar(text, &element.kind, role, coerces),
        Kind::Any | Kind::Blob | Kind::Object(_) => match said {
            Some("number") => any_number(text).map(encoded).ok_or("to be compared with a number"),
            Some("boolean") => boolean(text).map(encoded).ok_or("to be compared with true or false"),
            Some("date") if is_time => date(text).map(|date| encoded(Token::Float(date.as_millis()))).ok_or("a date"),
            Some("date") => date(text).map(|date| encoded(Token::Date(date))).ok_or("to be compared with a date"),
            Some(_) => Ok(encoded(Token::Str(text))),
            None if coerces => Ok(encoded(boolean(text).or_else(|| number(text)).unwrap_or(Token::Str(text)))),
            None => Ok(encoded(Token::Str(text))),
        },
    }
}
