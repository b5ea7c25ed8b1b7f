//! `select(…)`: `a` for bare values, `a,b` for objects, `[a,b]` for arrays, `a{x,y}` for parts of what is nested.

use super::relation::Expansion;
use super::{Parser, QueryError, attribute};
use shards::query::project::{Field, Select, Source};
use shards::schema::TableDef;

/// Attributes beside each other.
const FIELDS_MAX: usize = 256;
/// Nesting of `a{b{c}}`.
const DEPTH_MAX: usize = 8;

/// Fields that are being read: of which table, if that is known, how deep, and what they ask of other tables.
struct Level<'t> {
    table: Option<&'t TableDef>,
    depth: usize,
    expansions: Vec<Expansion>,
}

impl<'a> Parser<'a> {
    pub(super) fn select_arguments(&mut self) -> Result<Select, QueryError> {
        let mut level = Level { table: Some(self.table), depth: 0, expansions: Vec::new() };
        let select = self.select_within(&mut level);
        self.parameters.expansions = level.expansions;
        select
    }

    fn select_within(&mut self, level: &mut Level<'a>) -> Result<Select, QueryError> {
        if self.takes("[") {
            let (fields, _) = self.fields(&[']'], level)?;
            if !self.takes("]") {
                return Err(self.error("expected `]`"));
            }
            return Ok(Select::Array(fields));
        }
        let (mut fields, is_object) = self.fields(&[')'], level)?;
        Ok(match fields.pop() {
            Some(field) if fields.is_empty() && !is_object => Select::Value(field),
            last => {
                fields.extend(last);
                Select::Object(fields)
            }
        })
    }

    /// Fields, and whether a comma stands behind the last one.
    fn fields(&mut self, ends: &[char], level: &mut Level<'a>) -> Result<(Vec<Field>, bool), QueryError> {
        let mut fields = Vec::new();
        let at_end = |parser: &Self| parser.rest().starts_with(ends);
        loop {
            if fields.len() >= FIELDS_MAX {
                return Err(self.error(format!("more than {FIELDS_MAX} attributes")));
            }
            fields.push(self.field(level)?);
            if !self.takes(",") {
                return Ok((fields, false));
            }
            if at_end(self) {
                return Ok((fields, true));
            }
        }
    }

    fn field(&mut self, level: &mut Level<'a>) -> Result<Field, QueryError> {
        let at = self.at;
        let text = self.until(&[',', '{', '}', '[', ']', '(', ')', '&', '|', '=']);
        let name = self.decode(at, text)?;
        if name.is_empty() {
            return Err(self.error("expected the name of an attribute"));
        }
        let relation = level.table.and_then(|table| self.relation(table, &name));
        let source = match name.as_str() {
            _ if relation.is_some() => Source::Path([name.as_str().into()].into()),
            "$id" => Source::Key,
            "$updatedtime" => Source::Version,
            "$expiresAt" => Source::Expires,
            name if name.starts_with('$') => {
                let what = format!("{name}: expected $id, $updatedtime, $expiresAt or an attribute");
                return Err(QueryError { at, what });
            }
            name => match level.table {
                Some(table) => Source::Path(attribute(table, at, name)?.path),
                // Within another attribute the table says nothing of what there is.
                None => Source::Path([name.into()].into()),
            },
        };
        let mut select = Select::All;
        let table = relation.map(|(_, _, other)| other);
        let mut within = Level { table, depth: level.depth + 1, expansions: Vec::new() };
        if self.takes("{") {
            if level.depth >= DEPTH_MAX {
                return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
            }
            let (fields, _) = self.fields(&['}'], &mut within)?;
            if !self.takes("}") {
                return Err(self.error("expected `}`"));
            }
            select = Select::Object(fields);
        }
        if let Some((relation, number, _)) = relation {
            if level.expansions.iter().any(|own| *own.attribute == *relation.attribute) {
                return Err(QueryError { at, what: format!("{name} is selected twice") });
            }
            level.expansions.push(Parser::expansion(relation, number, within.expansions));
        }
        Ok(Field { name: name.into(), source, select: Box::new(select) })
    }
}
