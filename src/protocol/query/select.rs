//! `select(…)`: `a` for bare values, `a,b` for objects, `[a,b]` for arrays, `a{x,y}` for parts of what is nested.

use super::{Parser, QueryError};
use shards::query::project::{Field, Select, Source};

/// Nesting of `a{b{c}}`.
const DEPTH_MAX: usize = 8;

impl Parser<'_> {
    pub(super) fn select_arguments(&mut self) -> Result<Select, QueryError> {
        if self.takes("[") {
            let (fields, _) = self.fields(&[']'], 0)?;
            if !self.takes("]") {
                return Err(self.error("expected `]`"));
            }
            return Ok(Select::Array(fields));
        }
        let (mut fields, is_object) = self.fields(&[')'], 0)?;
        Ok(match fields.pop() {
            Some(field) if fields.is_empty() && !is_object => Select::Value(field),
            last => {
                fields.extend(last);
                Select::Object(fields)
            }
        })
    }

    /// Fields, and whether a comma stands behind the last one.
    fn fields(&mut self, ends: &[char], depth: usize) -> Result<(Vec<Field>, bool), QueryError> {
        let mut fields = Vec::new();
        let at_end = |parser: &Self| parser.rest().starts_with(ends);
        loop {
            fields.push(self.field(depth)?);
            if !self.takes(",") {
                return Ok((fields, false));
            }
            if at_end(self) {
                return Ok((fields, true));
            }
        }
    }

    fn field(&mut self, depth: usize) -> Result<Field, QueryError> {
        let at = self.at;
        let text = self.until(&[',', '{', '}', '[', ']', '(', ')', '&', '|', '=']);
        let name = self.decode(at, text)?;
        if name.is_empty() {
            return Err(self.error("expected the name of an attribute"));
        }
        let source = match name.as_str() {
            "$id" => Source::Key,
            "$updatedtime" => Source::Version,
            "$expiresAt" => Source::Expires,
            name if name.starts_with('$') => {
                let what = format!("{name}: expected $id, $updatedtime, $expiresAt or an attribute");
                return Err(QueryError { at, what });
            }
            // Within another one the table says nothing of what there is.
            name if depth > 0 => Source::Path([name.into()].into()),
            name => Source::Path(self.attribute(at, name)?.path),
        };
        let mut select = Select::All;
        if self.takes("{") {
            if depth >= DEPTH_MAX {
                return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
            }
            let (fields, _) = self.fields(&['}'], depth + 1)?;
            if !self.takes("}") {
                return Err(self.error("expected `}`"));
            }
            select = Select::Object(fields);
        }
        Ok(Field { name: name.into(), source, select: Box::new(select) })
    }
}
