//! The query string of a URL (compat §6.4) as a [`Query`] of a table. The same text asks over REST, SSE, WebSocket and
//! MQTT.
//!
//! ```text
//! query      = item *("&" item) / item *("|" item)
//! item       = comparison / "(" query ")" / "[" query "]" / function / parameter
//! comparison = path operator value
//! operator   = "=" / "===" / "!==" / "==" / "!=" / "<" / "<=" / ">" / ">=" / "=lt=" and the like
//! function   = ("select" / "limit" / "sort") "(" arguments ")"
//! ```
//!
//! Values of `=`, `===` and `!==` are taken as they stand and made what the attribute is declared to be; those of the
//! others may also be `null`, or say what they are (`number:`, `boolean:`, `date:`, `string:`).

pub mod object;
pub mod relation;
mod select;
mod value;

use super::percent;
use relation::{Expansion, Join};
use shards::query::plan::Plan;
use shards::query::{Comparison, Condition, Path, Query, Scalar, SortKey, Test};
use shards::schema::{Attribute, Kind, Role, TableDef};
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

/// Nesting of groups.
const DEPTH_MAX: usize = 16;
/// Earlier states that a stream may begin with (compat §5).
const PREVIOUS_MAX: usize = 1000;
/// What `maxRate` may be.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=100_000.0;
/// Comparisons of one query.
const TESTS_MAX: usize = 128;

/// What is wrong with a query, and where: an offset in bytes.
#[derive(Debug, PartialEq)]
pub struct QueryError {
    pub at: usize,
    pub what: String,
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "query, position {}: {}", self.at, self.what)
    }
}

/// What a query string asks for beside records.
#[derive(Debug, Default, PartialEq)]
pub struct Parameters {
    /// Not the records, but how they would be found.
    pub explain: bool,
    /// The client of a WebSocket means what it says.
    pub duplex: bool,
    /// A stream tells what has changed, after the first full state.
    pub patch: bool,
    /// `maxRate=…`: how many events of a stream there may be in a second.
    pub max_rate: Option<f64>,
    /// `startTime=…`: where a stream begins.
    pub start_time: Option<String>,
    /// `min=…`: a place in the history that the answer must not be older than.
    pub min: Option<String>,
    /// `at=…`: when the record is to be read.
    pub at: Option<String>,
    /// `previousCount=…`: how many earlier states of a record a stream begins with.
    pub previous_count: Option<usize>,
    /// What must be asked of other tables beforehand, in this order; `Comparison::Joined` has their numbers.
    pub joins: Vec<Join>,
    /// What of other tables is to be selected.
    pub expansions: Vec<Expansion>,
}

/// All tables of an app, by their numbers.
pub type Tables = [Option<Arc<TableDef>>];

/// Reads a query string. `tables`: what it may reach through relations.
///
/// # Errors
/// It is none, or does not fit the table.
pub fn parse(text: &str, table: &TableDef, tables: &Tables) -> Result<(Query, Parameters), QueryError> {
    if text.is_empty() {
        return Ok(Default::default());
    }
    let mut parser = Parser::new(text, table, tables);
    let condition = parser.items(0)?;
    if parser.at < text.len() {
        return Err(parser.error(format!("expected the end of the query, found `{}`", &text[parser.at..])));
    }
    parser.query.condition = condition;
    Ok((parser.query, parser.parameters))
}

fn has_fiql(text: &str) -> bool {
    text.match_indices('=').any(|(at, _)| fiql(&text[at..]).is_some())
}

/// The name in `=lt=` at the beginning of a text.
fn fiql(text: &str) -> Option<&str> {
    let name = text.strip_prefix('=')?.split('=').next()?;
    let is_name = (1..=2).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_name && text[1 + name.len()..].starts_with('=')).then_some(name)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    table: &'a TableDef,
    tables: &'a Tables,
    is_plain: bool,
    query: Query,
    parameters: Parameters,
    tests: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    /// As the value stands.
    Strict,
    StrictNot,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    StartsWith,
    EndsWith,
}

const OPERATORS: [(&str, Operator); 8] = [
    ("===", Operator::Strict),
    ("!==", Operator::StrictNot),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

const FIQL: [(&str, Operator); 9] = [
    ("eq", Operator::Equal),
    ("ne", Operator::NotEqual),
    ("lt", Operator::Less),
    ("le", Operator::LessOrEqual),
    ("gt", Operator::Greater),
    ("ge", Operator::GreaterOrEqual),
    ("ct", Operator::Contains),
    ("sw", Operator::StartsWith),
    ("ew", Operator::EndsWith),
];

/// An attribute that a query names: its path, and what its values are.
struct Named<'t> {
    path: Path,
    kind: &'t Kind,
    role: Role,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, table: &'a TableDef, tables: &'a Tables) -> Parser<'a> {
        let is_plain =
            !text.contains(['(', ')', '[', ']', '|', '!', '<', '>']) && !text.contains("==") && !has_fiql(text);
        let (query, parameters) = (Query::default(), Parameters::default());
        Parser { text, at: 0, table, tables, is_plain, query, parameters, tests: 0 }
    }

    fn error(&self, what: impl Into<String>) -> QueryError {
        QueryError { at: self.at, what: what.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn takes(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Everything up to one of these characters.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let rest = self.rest();
        let found = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += found.len();
        found
    }

    fn decode(&self, at: usize, text: &str) -> Result<String, QueryError> {
        let text = if self.is_plain { text.replace('+', " ") } else { text.to_owned() };
        let decoded = percent::decode(&text).map(Cow::into_owned);
        decoded.ok_or_else(|| QueryError { at, what: format!("`{text}` is not valid percent-encoded UTF-8") })
    }

    /// Items joined by `&` or by `|`, up to a closing bracket or the end.
    fn items(&mut self, depth: usize) -> Result<Option<Condition>, QueryError> {
        let mut found: Vec<Condition> = Vec::new();
        let mut joint = None;
        loop {
            self.item(depth, joint == Some('|'), &mut found)?;
            match self.rest().chars().next() {
                Some(next @ ('&' | '|')) => {
                    if joint.is_some_and(|joint| joint != next) {
                        return Err(
                            self.error("`&` and `|` beside each other: expected parentheses around one of them")
                        );
                    }
                    joint = Some(next);
                    self.at += 1;
                }
                _ => break,
            }
        }
        Ok(match (found.len(), joint) {
            (0, _) => None,
            (1, _) => found.pop(),
            (_, Some('|')) => Some(any_of(found)),
            _ => Some(Condition::All(found)),
        })
    }

    fn item(&mut self, depth: usize, is_any: bool, found: &mut Vec<Condition>) -> Result<(), QueryError> {
        for (open, close) in [("(", ")"), ("[", "]")] {
            if self.takes(open) {
                if depth >= DEPTH_MAX {
                    return Err(self.error(format!("groups are nested deeper than {DEPTH_MAX}")));
                }
                let inner = self.items(depth + 1)?;
                if !self.takes(close) {
                    return Err(self.error(format!("expected `{close}`")));
                }
                found.extend(inner);
                return Ok(());
            }
        }
        let start = self.at;
        let name = self.until(&['=', '<', '>', '!', '(', ')', '[', ']', '&', '|']);
        if self.rest().starts_with('(') {
            if depth > 0 || is_any {
                self.at = start;
                return Err(self.error(format!("{name}() stands at the outermost level, joined by `&`")));
            }
            return self.function(start, name);
        }
        if self.rest().starts_with("[]=") {
            self.at += 2; // `name[]=value` is equality
        }
        let operator_at = self.at;
        let Some(operator) = self.operator()? else {
            return match name {
                "" if self.text.is_empty() => Ok(()),
                "explain" | "duplex" | "patch" => {
                    self.parameters.explain |= name == "explain";
                    self.parameters.duplex |= name == "duplex";
                    self.parameters.patch |= name == "patch";
                    Ok(())
                }
                "" => Err(self.error("expected an attribute")),
                _ => Err(self.error(format!("expected an operator after `{name}`"))),
            };
        };
        let value_at = self.at;
        let value = self.until(&['&', '|', ')', ']']);
        let value = self.decode(value_at, value)?;
        // `price=gt=100&lt=200` and `price=gt=100&=lt=200`: the second bound of the same attribute.
        let chained = match name {
            "" if operator_at == start => Some(operator),
            "lt" | "le" | "gt" | "ge" if operator == Operator::Strict && !self.is_attribute(name) => {
                FIQL.iter().find(|(own, _)| *own == name).map(|(_, operator)| *operator)
            }
            _ => None,
        };
        if let Some(operator) = chained {
            if is_any {
                return Err(QueryError { at: start, what: "a second bound is joined by `&`".into() });
            }
            return self.chain(start, operator, value_at, &value, found);
        }
        let name = self.decode(start, name)?;
        match name.as_str() {
            name if self.is_attribute(name) => {}
            "startTime" => {
                self.parameters.start_time = Some(value);
                return Ok(());
            }
            "min" => {
                self.parameters.min = Some(value);
                return Ok(());
            }
            "at" => {
                self.parameters.at = Some(value);
                return Ok(());
            }
            "maxRate" => {
                let rate = value.parse().ok().filter(|rate| RATES.contains(rate));
                let what = format!("expected events per second, from {} to {}", RATES.start(), RATES.end());
                self.parameters.max_rate = Some(rate.ok_or(QueryError { at: value_at, what })?);
                return Ok(());
            }
            "previousCount" => {
                let count = value.parse().ok().filter(|count| (1..=PREVIOUS_MAX).contains(count));
                let expected =
                    || QueryError { at: value_at, what: format!("expected a number from 1 to {PREVIOUS_MAX}") };
                self.parameters.previous_count = Some(count.ok_or_else(expected)?);
                return Ok(());
            }
            _ => {}
        }
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(QueryError { at: start, what: format!("more than {TESTS_MAX} comparisons") });
        }
        let (steps, named) = self.reach(start, &name)?;
        let comparison = self.comparison(&named, operator, operator_at, value_at, &value)?;
        let test = self.joined(steps, Test { path: named.path, comparison });
        found.push(Condition::Test(test));
        Ok(())
    }

    fn is_attribute(&self, name: &str) -> bool {
        self.table.attributes.iter().any(|attribute| attribute.name == name)
    }

    fn operator(&mut self) -> Result<Option<Operator>, QueryError> {
        if let Some(name) = fiql(self.rest()) {
            let Some((_, operator)) = FIQL.iter().find(|(own, _)| *own == name) else {
                let known = FIQL.map(|(name, _)| name).join(", ");
                return Err(self.error(format!("`={name}=` is no operator; expected one of {known}")));
            };
            self.at += name.len() + 2;
            return Ok(Some(*operator));
        }
        if let Some((text, operator)) = OPERATORS.iter().find(|(text, _)| self.rest().starts_with(text)) {
            self.at += text.len();
            return Ok(Some(*operator));
        }
        Ok(self.takes("=").then_some(Operator::Strict))
    }

    /// An attribute by its name in the query: names of nested ones are joined by dots.
    fn attribute(&self, at: usize, name: &str) -> Result<Named<'a>, QueryError> {
        attribute(self.table, at, name)
    }

    fn comparison(
        &self,
        named: &Named<'_>,
        operator: Operator,
        operator_at: usize,
        value_at: usize,
        value: &str,
    ) -> Result<Comparison, QueryError> {
        let error = |what: String| QueryError { at: value_at, what };
        if operator == Operator::Equal
            && let Some(star) = value.find('*')
        {
            if star + 1 < value.len() {
                return Err(error(format!("`{value}`: `*` stands only at the end")));
            }
            return Ok(Comparison::StartsWith(value[..star].into()));
        }
        let is_text = matches!(named.kind, Kind::String | Kind::Id | Kind::Any | Kind::Object(_) | Kind::Blob);
        match operator {
            Operator::Contains | Operator::StartsWith | Operator::EndsWith if !is_text => {
                let what = format!("{} is no text: this operator compares texts", named.path.join("."));
                return Err(QueryError { at: operator_at, what });
            }
            Operator::Contains => return Ok(Comparison::Contains(value.into())),
            Operator::StartsWith => return Ok(Comparison::StartsWith(value.into())),
            Operator::EndsWith => return Ok(Comparison::EndsWith(value.into())),
            _ => {}
        }
        let coerces = !matches!(operator, Operator::Strict | Operator::StrictNot);
        let scalar = value::scalar(value, named.kind, named.role, coerces)
            .map_err(|expected| error(format!("`{value}`: {} is {expected}", named.path.join("."))))?;
        Ok(match operator {
            Operator::StrictNot | Operator::NotEqual => Comparison::NotEqual(scalar),
            Operator::Less => Comparison::Range(Bound::Unbounded, Bound::Excluded(scalar)),
            Operator::LessOrEqual => Comparison::Range(Bound::Unbounded, Bound::Included(scalar)),
            Operator::Greater => Comparison::Range(Bound::Excluded(scalar), Bound::Unbounded),
            Operator::GreaterOrEqual => Comparison::Range(Bound::Included(scalar), Bound::Unbounded),
            _ => Comparison::Equal(scalar),
        })
    }

    /// The other bound of the comparison before.
    fn chain(
        &mut self,
        start: usize,
        operator: Operator,
        value_at: usize,
        value: &str,
        found: &mut [Condition],
    ) -> Result<(), QueryError> {
        let error = |what: &str| QueryError { at: start, what: what.into() };
        let Some(Condition::Test(test)) = found.last_mut() else {
            return Err(error("expected an attribute: there is no comparison before that this could belong to"));
        };
        let name = test.path.join(".");
        let named = self.attribute(start, &name)?;
        let Comparison::Range(lower, upper) = &mut test.comparison else {
            return Err(error("a second bound goes with a first one, `gt`, `ge`, `lt` or `le`"));
        };
        match self.comparison(&named, operator, start, value_at, value)? {
            Comparison::Range(own, Bound::Unbounded) if *lower == Bound::Unbounded => *lower = own,
            Comparison::Range(Bound::Unbounded, own) if *upper == Bound::Unbounded => *upper = own,
            _ => return Err(error("one lower and one upper bound can be chained")),
        }
        Ok(())
    }

    fn function(&mut self, start: usize, name: &str) -> Result<(), QueryError> {
        self.at += 1;
        let unknown = format!("`{name}` is no function; expected select, limit or sort");
        match name {
            "select" => {
                self.query.select = self.select_arguments()?;
            }
            "limit" => {
                let at = self.at;
                let arguments = self.until(&[')']);
                let number = |text: &str| text.trim().parse::<u64>().ok();
                let numbers: Option<Vec<u64>> = arguments.split(',').map(number).collect();
                let (offset, limit) = match numbers.as_deref() {
                    Some([count]) => (0, *count),
                    Some([from, to]) if to >= from => (*from, to - from),
                    _ => {
                        let what = format!("limit({arguments}): expected one number, or a start and an end behind it");
                        return Err(QueryError { at, what });
                    }
                };
                (self.query.offset, self.query.limit) = (offset, Some(limit));
            }
            "sort" => {
                let mut at = self.at;
                for part in self.until(&[')']).split(',') {
                    if self.query.sort.len() >= DEPTH_MAX {
                        return Err(QueryError { at, what: format!("more than {DEPTH_MAX} attributes to sort by") });
                    }
                    let text = self.decode(at, part)?;
                    let text = text.trim();
                    let descending = text.starts_with('-');
                    let named = self.attribute(at, text.trim_start_matches(['+', '-']))?;
                    self.query.sort.push(SortKey { path: named.path, descending });
                    at += part.len() + 1;
                }
            }
            _ => return Err(QueryError { at: start, what: unknown }),
        }
        if !self.takes(")") {
            return Err(self.error("expected `)`"));
        }
        Ok(())
    }
}

/// An attribute of a table by its name in a query: names of nested ones are joined by dots.
fn attribute<'t>(table: &'t TableDef, at: usize, name: &str) -> Result<Named<'t>, QueryError> {
    const ANY: &Kind = &Kind::Any;
    let unknown = |name: &str| QueryError { at, what: format!("{name} is not a defined attribute") };
    let mut path: Vec<Box<str>> = Vec::new();
    let mut known: Option<(&[Attribute], bool)> = Some((&table.attributes, table.sealed));
    let (mut kind, mut role) = (ANY, Role::Plain);
    for part in name.split('.') {
        if part.is_empty() {
            return Err(QueryError { at, what: format!("`{name}`: expected the name of an attribute") });
        }
        (kind, role) = match known {
            None => (ANY, Role::Plain),
            Some((attributes, is_sealed)) => match attributes.iter().find(|attribute| attribute.name == part) {
                Some(attribute) => (&attribute.kind, attribute.role),
                None if is_sealed => return Err(unknown(part)),
                None => (ANY, Role::Plain),
            },
        };
        if role == Role::Virtual {
            let what = format!("{part} is not stored: it has no value to compare or to sort by");
            return Err(QueryError { at, what });
        }
        if let Kind::Array(element) = kind {
            kind = &element.kind;
        }
        known = match kind {
            Kind::Object(object) => Some((&object.attributes, object.sealed)),
            _ => None,
        };
        path.push(part.into());
    }
    Ok(Named { path: path.into(), kind, role })
}

/// Alternatives; equalities of one attribute become one comparison, which an index can serve.
fn any_of(found: Vec<Condition>) -> Condition {
    let equal = |condition: &Condition| match condition {
        Condition::Test(Test { path, comparison: Comparison::Equal(value) }) => Some((path.clone(), value.clone())),
        _ => None,
    };
    let pairs: Option<Vec<(Path, Scalar)>> = found.iter().map(equal).collect();
    match pairs {
        Some(pairs) if pairs.iter().all(|(path, _)| *path == pairs[0].0) => {
            let path = pairs[0].0.clone();
            let mut values: Vec<Scalar> = pairs.into_iter().map(|(_, value)| value).collect();
            values.sort();
            values.dedup();
            Condition::Test(Test { path, comparison: Comparison::OneOf(values.into()) })
        }
        _ => Condition::Any(found),
    }
}

/// How a query would be carried out, as a document.
pub fn explain(plan: &Plan, out: &mut Vec<u8>) {
    use shards::document::Writer;
    use shards::query::plan::Order;
    out.write_map(6);
    out.write_str("by");
    let (by, attribute, parts) = match &plan.order {
        Order::Keys { lower, upper: None } if lower.is_empty() => ("scan", None, 1),
        Order::Points(points) => ("key", None, points.len()),
        Order::Keys { .. } => ("key", None, 1),
        Order::Index { name, ranges, .. } => ("index", Some(name), ranges.len()),
    };
    out.write_str(by);
    out.write_str("attribute");
    match attribute {
        Some(name) => out.write_str(name),
        None => out.write_null(),
    }
    out.write_str("ranges");
    out.write_uint(parts as u64);
    out.write_str("descending");
    out.write_bool(plan.descending);
    out.write_str("sorted");
    out.write_bool(plan.is_sorted);
    out.write_str("recordsPerShard");
    out.write_uint(plan.estimate as u64);
}

#[cfg(test)]
mod tests;
