//! A query as an object: the body of QUERY, as Harper's operations write it.
//!
//! ```text
//! {"conditions": [{"attribute": "temp", "comparator": "greater_than", "value": 30},
//!                 {"operator": "or", "conditions": […]}],
//!  "operator": "and", "select": ["id", "temp"], "sort": {"attribute": "temp", "descending": true, "next": {…}},
//!  "offset": 0, "limit": 10}
//! ```

use super::{DEPTH_MAX, Named, Parameters, Parser, TESTS_MAX, Tables, any_of, value};
use shards::document::{Reader, Token, attribute};
use shards::query::project::Select;
use shards::query::{Comparison, Condition, Query, Scalar, SortKey, Test, order};
use shards::schema::TableDef;
use std::ops::Bound;

/// Values of one `in`.
const VALUES_MAX: usize = 10_000;

/// Reads a query of a table from a document.
///
/// # Errors
/// What was expected, and where.
pub fn read(document: &[u8], table: &TableDef, tables: &Tables) -> Result<(Query, Parameters), String> {
    let mut parser = Parser::new("", table, tables);
    let mut reader = Reader::new(document);
    let Some(Token::Map(count)) = reader.next() else { return Err("the query: expected an object".into()) };
    let mut query = Query::default();
    for _ in 0..count {
        let (Some(name), Some(value)) = (reader.key(), reader.value()) else { break };
        match name {
            "conditions" | "operator" => {}
            "select" => query.select = select(&mut parser, value)?,
            "sort" => sort(&parser, value, &mut query.sort)?,
            "limit" | "offset" => {
                let number = match Reader::new(value).next() {
                    Some(Token::Int(number)) => u64::try_from(number).ok(),
                    Some(Token::Uint(number)) => Some(number),
                    _ => None,
                };
                let number = number.ok_or_else(|| format!("{name}: expected a number from 0 on"))?;
                if name == "limit" { query.limit = Some(number) } else { query.offset = number }
            }
            _ => return Err(format!("`{name}`: expected conditions, operator, select, sort, limit or offset")),
        }
    }
    query.condition = group(&mut parser, document, "", 0, &mut 0)?;
    Ok((query, parser.parameters))
}

fn text(value: &[u8]) -> Option<&str> {
    match Reader::new(value).next()? {
        Token::Str(text) => Some(text),
        _ => None,
    }
}

fn elements(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader::new(value);
    match reader.next()? {
        Token::Array(count) => (0..count).map(|_| reader.value()).collect(),
        _ => None,
    }
}

/// A path: a name with dots, or an array of names.
fn name(value: Option<&[u8]>, place: &str) -> Result<String, String> {
    let name = value.and_then(|value| match elements(value) {
        Some(parts) => parts.into_iter().map(text).collect::<Option<Vec<&str>>>().map(|parts| parts.join(".")),
        None => text(value).map(str::to_owned),
    });
    name.ok_or_else(|| format!("{place}attribute: expected the name of an attribute"))
}

fn group(
    parser: &mut Parser<'_>,
    document: &[u8],
    place: &str,
    depth: usize,
    tests: &mut usize,
) -> Result<Option<Condition>, String> {
    let Some(conditions) = attribute(document, "conditions") else { return Ok(None) };
    let conditions = elements(conditions).ok_or_else(|| format!("{place}conditions: expected an array"))?;
    let is_any = match attribute(document, "operator").map(text) {
        None => false,
        Some(Some(operator)) if operator.eq_ignore_ascii_case("and") => false,
        Some(Some(operator)) if operator.eq_ignore_ascii_case("or") => true,
        Some(_) => return Err(format!("{place}operator: expected \"and\" or \"or\"")),
    };
    if depth > DEPTH_MAX {
        return Err(format!("{place}conditions: nested deeper than {DEPTH_MAX}"));
    }
    let mut found = Vec::new();
    for (number, condition) in conditions.into_iter().enumerate() {
        let place = format!("{place}conditions[{number}].");
        if attribute(condition, "conditions").is_some() {
            found.extend(group(parser, condition, &place, depth + 1, tests)?);
            continue;
        }
        *tests += 1;
        if *tests > TESTS_MAX {
            return Err(format!("{place}: more than {TESTS_MAX} comparisons"));
        }
        found.push(test(parser, condition, &place)?);
    }
    Ok(match found.len() {
        0 => None,
        1 => found.pop(),
        _ if is_any => Some(any_of(found)),
        _ => Some(Condition::All(found)),
    })
}

fn test(parser: &mut Parser<'_>, condition: &[u8], place: &str) -> Result<Condition, String> {
    let name = name(attribute(condition, "attribute").or(attribute(condition, "search_attribute")), place)?;
    let (steps, named) = parser.reach(0, &name).map_err(|error| format!("{place}attribute: {}", error.what))?;
    let wanted = attribute(condition, "value").or(attribute(condition, "search_value")).unwrap_or(&[0xc0]);
    let comparator = attribute(condition, "comparator").or(attribute(condition, "search_type"));
    let comparator = match comparator {
        Some(comparator) => text(comparator).ok_or_else(|| format!("{place}comparator: expected a name"))?,
        None => "equals",
    };
    let scalar = |value: &[u8]| {
        scalar(value, &named).map_err(|expected| format!("{place}value: {} is {expected}", named.path.join(".")))
    };
    let part = || text(wanted).map(Into::into).ok_or_else(|| format!("{place}value: expected text"));
    let comparison = match comparator {
        "equals" | "equal" | "eq" => Comparison::Equal(scalar(wanted)?),
        "not_equal" | "ne" => Comparison::NotEqual(scalar(wanted)?),
        "greater_than" | "gt" => Comparison::Range(Bound::Excluded(scalar(wanted)?), Bound::Unbounded),
        "greater_than_equal" | "ge" => Comparison::Range(Bound::Included(scalar(wanted)?), Bound::Unbounded),
        "less_than" | "lt" => Comparison::Range(Bound::Unbounded, Bound::Excluded(scalar(wanted)?)),
        "less_than_equal" | "le" => Comparison::Range(Bound::Unbounded, Bound::Included(scalar(wanted)?)),
        "between" => match elements(wanted).as_deref() {
            Some([lower, upper]) => Comparison::Range(Bound::Included(scalar(lower)?), Bound::Included(scalar(upper)?)),
            _ => return Err(format!("{place}value: expected an array of two")),
        },
        "in" => {
            let values = elements(wanted).filter(|values| values.len() <= VALUES_MAX);
            let values =
                values.ok_or_else(|| format!("{place}value: expected an array of {VALUES_MAX} values at most"))?;
            let mut values = values.into_iter().map(scalar).collect::<Result<Vec<Scalar>, String>>()?;
            values.sort();
            values.dedup();
            Comparison::OneOf(values.into())
        }
        "starts_with" | "sw" => Comparison::StartsWith(part()?),
        "ends_with" | "ew" => Comparison::EndsWith(part()?),
        "contains" | "ct" => Comparison::Contains(part()?),
        other => {
            return Err(format!("{place}comparator: `{other}` is none; expected equals, greater_than and the like"));
        }
    };
    Ok(Condition::Test(parser.joined(steps, Test { path: named.path, comparison })))
}

/// A value as it is, but made what the attribute is where it is written as text.
fn scalar(value: &[u8], named: &Named<'_>) -> Result<Scalar, &'static str> {
    match Reader::new(value).next() {
        Some(Token::Str(text)) => value::scalar(text, named.kind, named.role, false),
        Some(Token::Int(number)) if matches!(named.kind, shards::schema::Kind::Date) => {
            value::scalar(&number.to_string(), named.kind, named.role, false)
        }
        Some(Token::Array(_) | Token::Map(_)) | None => {
            Err("compared with a text, a number, a date, true, false or null")
        }
        Some(token) => {
            let mut out = Vec::new();
            order::encode(token, &mut out);
            Ok(out.into())
        }
    }
}

/// Names, or one name for bare values; in them all that `select()` of a URL takes.
fn select(parser: &mut Parser<'_>, value: &[u8]) -> Result<Select, String> {
    let names = match elements(value) {
        Some(names) => names.into_iter().map(text).collect::<Option<Vec<&str>>>(),
        None => text(value).map(|name| vec![name]),
    };
    let names = names.ok_or("select: expected names of attributes")?;
    let joined = names.join(",") + if elements(value).is_some() { ",)" } else { ")" };
    let mut inner = Parser::new(&joined, parser.table, parser.tables);
    let select = inner.select_arguments().map_err(|error| format!("select: {}", error.what))?;
    if !inner.takes(")") {
        return Err("select: expected names of attributes".into());
    }
    parser.parameters.expansions = inner.parameters.expansions;
    Ok(select)
}

fn sort(parser: &Parser<'_>, value: &[u8], keys: &mut Vec<SortKey>) -> Result<(), String> {
    let name = name(attribute(value, "attribute"), "sort: ")?;
    let path = parser.attribute(0, &name).map_err(|error| format!("sort: {}", error.what))?.path;
    let descending = attribute(value, "descending").is_some_and(|value| *value == [0xc3]);
    keys.push(SortKey { path, descending });
    match attribute(value, "next").filter(|next| **next != [0xc0]) {
        Some(next) if keys.len() < DEPTH_MAX => sort(parser, next, keys),
        Some(_) => Err(format!("sort: more than {DEPTH_MAX} keys")),
        None => Ok(()),
    }
}
