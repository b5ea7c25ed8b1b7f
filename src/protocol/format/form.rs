//! The fields of an HTML form (`application/x-www-form-urlencoded`, WHATWG URL §5.1) as a document.

use crate::protocol::percent;
use shards::document::Writer;
use shards::limits::PROPERTIES_MAX;
use shards::schema::{Kind, TableDef};

/// Appends an object. A field becomes what its attribute is declared to be where its text can be that, and text
/// otherwise; one that is there several times is an array.
///
/// # Errors
/// A field is not valid percent-encoded UTF-8.
pub fn decode(body: &[u8], table: &TableDef, out: &mut Vec<u8>) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8")?;
    let plain = |text: &str| match percent::decode(&text.replace('+', " ")) {
        Some(decoded) => Ok(decoded.into_owned()),
        None => Err(format!("the form is not valid at `{text}`")),
    };
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for field in text.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let (name, value) = (plain(name)?, plain(value)?);
        match fields.iter().position(|(own, _)| *own == name) {
            Some(at) => fields[at].1.push(value),
            None if fields.len() < PROPERTIES_MAX => fields.push((name, vec![value])),
            None => return Err(format!("the form has more than {PROPERTIES_MAX} fields")),
        }
    }
    out.write_map(fields.len() as u32);
    for (name, values) in &fields {
        out.write_str(name);
        let attribute = table.attributes.iter().find(|attribute| attribute.name == *name);
        let kind = attribute.map_or(&Kind::String, |attribute| &attribute.kind);
        let (is_array, kind) = match kind {
            Kind::Array(element) => (true, &element.kind),
            kind => (values.len() > 1, kind),
        };
        if is_array {
            out.write_array(values.len() as u32);
        }
        values.iter().for_each(|value| write_value(value, kind, out));
    }
    Ok(())
}

fn write_value(text: &str, kind: &Kind, out: &mut Vec<u8>) {
    let is_text = matches!(kind, Kind::String | Kind::Id | Kind::Any);
    match kind {
        _ if text.is_empty() && !is_text => out.write_null(),
        Kind::Int | Kind::Long | Kind::BigInt | Kind::Float if text.parse::<i64>().is_ok() => {
            out.write_int(text.parse().unwrap_or_default());
        }
        Kind::Float if text.parse::<f64>().is_ok_and(f64::is_finite) => {
            out.write_float(text.parse().unwrap_or_default());
        }
        Kind::Boolean if matches!(text, "true" | "on" | "1") => out.write_bool(true),
        Kind::Boolean if matches!(text, "false" | "off" | "0") => out.write_bool(false),
        _ => out.write_str(text),
    }
}
