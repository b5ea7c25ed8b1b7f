//! What a query asks of other tables through `@relationship` (compat §2.2, §6.4): conditions on related records, which
//! are asked for beforehand, and related records that are selected, which are asked for afterwards.

use super::{Named, Parser, QueryError, attribute};
use shards::document::{Reader, Token, Writer};
use shards::query::{Comparison, Condition, Path, Scalar, Test, order, values};
use shards::schema::{Relation, TableDef, TableId};
use std::collections::BTreeSet;

/// Tables that one name leads through.
const STEPS_MAX: usize = 8;

/// A query of another table, and the attribute of what it finds that this table's records are compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub table: TableId,
    pub condition: Condition,
    pub collect: Path,
}

/// Related records that become the value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Expansion {
    pub attribute: Box<str>,
    pub table: TableId,
    pub own: Path,
    pub other: Path,
    pub many: bool,
    /// Of the related records.
    pub nested: Vec<Expansion>,
}

/// A step from one table to another.
pub(super) struct Step<'t> {
    relation: &'t Relation,
    table: TableId,
}

impl<'a> Parser<'a> {
    /// The relation of that name, and the table that it leads to.
    pub(super) fn relation(&self, table: &'a TableDef, name: &str) -> Option<(&'a Relation, TableId, &'a TableDef)> {
        let relation = table.relations.iter().find(|relation| relation.attribute == name)?;
        let is_it = |own: &TableDef| own.name == relation.table && own.database == relation.database;
        let number = self.tables.iter().position(|own| own.as_deref().is_some_and(is_it))?;
        Some((relation, TableId(number as u16), self.tables[number].as_deref()?))
    }

    /// The attribute that a name leads to, and the tables on the way.
    pub(super) fn reach(&self, at: usize, name: &str) -> Result<(Vec<Step<'a>>, Named<'a>), QueryError> {
        let (mut table, mut rest, mut steps) = (self.table, name, Vec::new());
        loop {
            let (first, behind) = rest.split_once('.').unwrap_or((rest, ""));
            let Some((relation, number, other)) = self.relation(table, first) else { break };
            if behind.is_empty() {
                let what =
                    format!("`{name}` stands for records of {}: expected one of their attributes", relation.table);
                return Err(QueryError { at, what });
            }
            if steps.len() >= STEPS_MAX {
                return Err(QueryError { at, what: format!("`{name}` goes through more than {STEPS_MAX} tables") });
            }
            steps.push(Step { relation, table: number });
            (table, rest) = (other, behind);
        }
        Ok((steps, attribute(table, at, rest)?))
    }

    /// A test of a related record as one of this table's records.
    pub(super) fn joined(&mut self, steps: Vec<Step<'a>>, test: Test) -> Test {
        steps.into_iter().rev().fold(test, |test, Step { relation, table }| {
            let collect = [relation.other.as_str().into()].into();
            self.parameters.joins.push(Join { table, condition: Condition::Test(test), collect });
            let comparison = Comparison::Joined(self.parameters.joins.len() - 1);
            Test { path: [relation.own.as_str().into()].into(), comparison }
        })
    }

    /// What must be asked for to select a related attribute.
    pub(super) fn expansion(relation: &Relation, table: TableId, nested: Vec<Expansion>) -> Expansion {
        let path = |name: &str| Path::from([name.into()]);
        let (own, other) = (path(&relation.own), path(&relation.other));
        Expansion { attribute: relation.attribute.as_str().into(), table, own, other, many: relation.many, nested }
    }
}

/// The digits of a whole number: across tables it and they are the same key.
fn digits(token: Token<'_>) -> Option<String> {
    match token {
        Token::Int(number) => Some(number.to_string()),
        Token::Uint(number) => Some(number.to_string()),
        Token::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some((number as i64).to_string()),
        _ => None,
    }
}

fn encoded(token: Token<'_>) -> Option<Scalar> {
    let mut out = Vec::new();
    (token != Token::Null && order::encode(token, &mut out)).then(|| out.into())
}

/// The keys of a record at a path, in the one form in which they are compared here.
pub fn keys(document: &[u8], path: &Path) -> Vec<Scalar> {
    let mut found = Vec::new();
    values(document, path, &mut |token| match digits(token) {
        Some(digits) => found.extend(encoded(Token::Str(&digits))),
        None => found.extend(encoded(token)),
    });
    found
}

/// Adds what a record has at a path to values to compare with, numbers also as their digits and the other way around.
pub fn collect(document: &[u8], path: &Path, into: &mut BTreeSet<Scalar>) {
    values(document, path, &mut |token| {
        into.extend(encoded(token));
        into.extend(digits(token).and_then(|digits| encoded(Token::Str(&digits))));
        if let Token::Str(text) = token
            && let Ok(number) = text.parse::<i64>()
            && number.to_string() == text
        {
            into.extend(encoded(Token::Int(number)));
        }
    });
}

/// A record with one more attribute.
pub fn extended(document: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(document);
    let Some(Token::Map(count)) = reader.next() else { return document.to_vec() };
    let mut out = Vec::with_capacity(document.len() + name.len() + value.len() + 8);
    out.write_map(count + 1);
    out.extend_from_slice(&document[reader.position()..]);
    out.write_str(name);
    out.extend_from_slice(value);
    out
}
