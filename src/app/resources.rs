//! `jsResource` modules. There is no JavaScript in this server: a module may only re-export tables under other names,
//! as the demos do, and anything else is an error that says so. Called by `app::App::load` after the schema is known.

use crate::diagnostic::{Diagnostics, Place, suggestion};
use shards::schema::{Export, TableDef};

/// Adds a path to a table for each re-export in the module.
pub fn apply(file: &str, text: &str, tables: &mut [TableDef], diagnostics: &mut Diagnostics) {
    let tokens = lex(file, text);
    let mut module =
        Module { tokens: &tokens, at: 0, roots: Vec::new(), bindings: Vec::new(), exports: Vec::new(), diagnostics };
    module.read();
    let Module { bindings, exports, diagnostics, .. } = module;
    for export in exports {
        let table = match export.what {
            Reference::Table(table) => table,
            // `export { X }` may stand before the declaration of X.
            Reference::Local(local) => match bindings.iter().rev().find(|(name, _)| *name == local.text) {
                Some((_, table)) => *table,
                None => {
                    diagnostics.error(local.place, unsupported(local.text));
                    continue;
                }
            },
        };
        add_path(export.path, table, tables, diagnostics);
    }
}

fn unsupported(found: &str) -> String {
    format!("only re-exports of tables are supported; found {found}")
}

fn add_path(path: &str, table: Word<'_>, tables: &mut [TableDef], diagnostics: &mut Diagnostics) {
    // In Harper, `tables` are those of the default database.
    let Some(index) = tables.iter().position(|it| it.name == table.text && it.database == "data") else {
        let hint = suggestion(table.text, tables.iter().map(|table| table.name.as_str()));
        diagnostics.error(table.place, format!("there is no table {}{hint}", table.text));
        return;
    };
    match tables.iter().position(|table| table.exports.iter().any(|export| export.path == path)) {
        None => {
            let path = path.to_owned();
            tables[index].exports.push(Export { path, rest: true, sse: true, ws: true, mqtt: true });
        }
        Some(owner) if owner == index => {}
        Some(owner) => {
            let message = format!("`/{path}` is taken by table {} (expected a free path)", tables[owner].name);
            diagnostics.error(table.place, message);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Word,
    Text,
    Other,
    End,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    /// A string without its quotes.
    text: &'a str,
    place: Place<'a>,
}

fn lex<'a>(file: &'a str, text: &'a str) -> Vec<Token<'a>> {
    let mut tokens = Vec::new();
    let mut place = Place { file, line: 1, column: 1 };
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
        let (length, kind) = match c {
            _ if c.is_whitespace() => (c.len_utf8(), None),
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => (until(2, "*/"), None),
            '"' | '\'' => (until(1, &rest[..1]), Some(Kind::Text)),
            _ if is_word(c) => (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), Some(Kind::Word)),
            _ => (c.len_utf8(), Some(Kind::Other)),
        };
        let (taken, left) = rest.split_at(length);
        match kind {
            Some(Kind::Text) => {
                let text = taken[1..].strip_suffix(c).unwrap_or(&taken[1..]);
                tokens.push(Token { kind: Kind::Text, text, place });
            }
            Some(kind) => tokens.push(Token { kind, text: taken, place }),
            None => {}
        }
        for c in taken.chars() {
            (place.line, place.column) = if c == '\n' { (place.line + 1, 1) } else { (place.line, place.column + 1) };
        }
        rest = left;
    }
    tokens.push(Token { kind: Kind::End, text: "the end of the file", place });
    tokens
}

type Word<'a> = Token<'a>;

/// What an export names.
enum Reference<'a> {
    Table(Word<'a>),
    Local(Word<'a>),
}

struct Reexport<'a> {
    /// Empty: the default export, mounted at the root.
    path: &'a str,
    what: Reference<'a>,
}

/// The error is in the diagnostics; reading goes on with the next statement.
struct Reported;

type Parsed<T> = Result<T, Reported>;

struct Module<'m, 'a> {
    /// Ends with `Kind::End`.
    tokens: &'m [Token<'a>],
    at: usize,
    /// Names by which the imported object `tables` is known; it is a global too.
    roots: Vec<&'a str>,
    /// Local name, table.
    bindings: Vec<(&'a str, Word<'a>)>,
    exports: Vec<Reexport<'a>>,
    diagnostics: &'m mut Diagnostics,
}

impl<'a> Module<'_, 'a> {
    fn read(&mut self) {
        while self.token().kind != Kind::End {
            let (before, exports) = (self.at, self.exports.len());
            if self.statement().is_err() {
                self.exports.truncate(exports);
                self.skip_statement(before);
            }
        }
    }

    fn token(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn is(&self, text: &str) -> bool {
        let token = self.token();
        matches!(token.kind, Kind::Word | Kind::Other) && token.text == text
    }

    fn take(&mut self, text: &str) -> bool {
        let is = self.is(text);
        if is {
            self.advance();
        }
        is
    }

    fn unsupported<T>(&mut self) -> Parsed<T> {
        let Token { kind, text, place } = self.token();
        let found = match kind {
            Kind::End => text.to_owned(),
            Kind::Text => "a string".to_owned(),
            Kind::Word | Kind::Other => format!("`{text}`"),
        };
        self.diagnostics.error(place, unsupported(&found));
        Err(Reported)
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.take(text) { Ok(()) } else { self.unsupported() }
    }

    fn word(&mut self) -> Parsed<Word<'a>> {
        let token = self.token();
        if token.kind != Kind::Word {
            return self.unsupported();
        }
        self.advance();
        Ok(token)
    }

    fn statement(&mut self) -> Parsed<()> {
        if self.take(";") {
            return Ok(());
        }
        if self.take("import") {
            self.import()?;
        } else if self.take("export") {
            self.export()?;
        } else if self.take("class") {
            self.class()?;
            return Ok(());
        } else if self.is_declaration() {
            self.declaration()?;
        } else {
            return self.unsupported();
        }
        self.end_of_statement()
    }

    fn is_declaration(&self) -> bool {
        self.is("const") || self.is("let") || self.is("var")
    }

    /// A semicolon, a new line, or nothing where a block ended.
    fn end_of_statement(&mut self) -> Parsed<()> {
        let last = self.tokens[self.at.saturating_sub(1)];
        let token = self.token();
        let ends = last.text == "}" || token.kind == Kind::End || token.place.line > last.place.line;
        if self.take(";") || ends { Ok(()) } else { self.unsupported() }
    }

    /// `import { tables, Resource as R } from 'harperdb'`
    fn import(&mut self) -> Parsed<()> {
        self.expect("{")?;
        while !self.take("}") {
            let name = self.word()?;
            let local = if self.take("as") { self.word()? } else { name };
            if name.text == "tables" {
                self.roots.push(local.text);
            }
            if !self.is("}") {
                self.expect(",")?;
            }
        }
        self.expect("from")?;
        let source = self.token();
        let is_harper = matches!(source.text, "harperdb" | "harper") || source.text.starts_with("@harperfast/");
        if source.kind != Kind::Text || !is_harper {
            return self.unsupported();
        }
        self.advance();
        Ok(())
    }

    fn export(&mut self) -> Parsed<()> {
        if self.take("default") {
            let what = if self.take("class") { Reference::Table(self.default_class()?) } else { self.reference()? };
            self.exports.push(Reexport { path: "", what });
        } else if self.take("class") {
            let (name, table) = self.class()?;
            self.exports.push(Reexport { path: name, what: Reference::Table(table) });
        } else if self.is_declaration() {
            for (name, table) in self.declaration()? {
                self.exports.push(Reexport { path: name, what: Reference::Table(table) });
            }
        } else {
            self.export_list()?;
        }
        Ok(())
    }

    /// `{ Topics, Sensors as Measurements }`
    fn export_list(&mut self) -> Parsed<()> {
        self.expect("{")?;
        while !self.take("}") {
            let local = self.word()?;
            let path = match self.take("as") {
                true => self.word()?.text,
                false => local.text,
            };
            let path = if path == "default" { "" } else { path };
            self.exports.push(Reexport { path, what: Reference::Local(local) });
            if !self.is("}") {
                self.expect(",")?;
            }
        }
        Ok(())
    }

    /// `const Topics = tables.Topics` or `const { Topics, Sensors: Measurements } = tables`
    fn declaration(&mut self) -> Parsed<Vec<(&'a str, Word<'a>)>> {
        self.advance();
        let first = self.bindings.len();
        loop {
            if self.take("{") {
                let from = self.bindings.len();
                while !self.take("}") {
                    let table = self.word()?;
                    let local = if self.take(":") { self.word()? } else { table };
                    self.bindings.push((local.text, table));
                    if !self.is("}") {
                        self.expect(",")?;
                    }
                }
                self.expect("=")?;
                if !self.is_root() {
                    self.bindings.truncate(from);
                    return self.unsupported();
                }
                self.advance();
            } else {
                let local = self.word()?;
                self.expect("=")?;
                let table = self.table()?;
                self.bindings.push((local.text, table));
            }
            if !self.take(",") {
                return Ok(self.bindings[first..].to_vec());
            }
        }
    }

    /// `Topics extends tables.Topics {}`
    fn class(&mut self) -> Parsed<(&'a str, Word<'a>)> {
        let name = self.word()?;
        let table = self.heritage()?;
        self.bindings.push((name.text, table));
        Ok((name.text, table))
    }

    fn default_class(&mut self) -> Parsed<Word<'a>> {
        if !self.is("extends") {
            self.word()?;
        }
        self.heritage()
    }

    fn heritage(&mut self) -> Parsed<Word<'a>> {
        self.expect("extends")?;
        let table = self.table()?;
        self.expect("{")?;
        self.expect("}")?;
        Ok(table)
    }

    fn is_root(&self) -> bool {
        let token = self.token();
        token.kind == Kind::Word && (token.text == "tables" || self.roots.contains(&token.text))
    }

    /// `tables.Topics`, or a name bound earlier.
    fn table(&mut self) -> Parsed<Word<'a>> {
        if self.is_root() {
            self.advance();
            self.expect(".")?;
            return self.word();
        }
        let token = self.token();
        match self.bindings.iter().rev().find(|(name, _)| *name == token.text) {
            Some(&(_, table)) if token.kind == Kind::Word => {
                self.advance();
                Ok(table)
            }
            _ => self.unsupported(),
        }
    }

    fn reference(&mut self) -> Parsed<Reference<'a>> {
        if self.is_root() { self.table().map(Reference::Table) } else { self.word().map(Reference::Local) }
    }

    /// To the next line that begins, outside of brackets, with the keyword of a statement; always beyond `before`.
    fn skip_statement(&mut self, before: usize) {
        self.at = before;
        let mut depth = 0_usize;
        loop {
            match self.token().text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let line = self.token().place.line;
            self.advance();
            let starts = self.token().place.line > line
                && (self.is("import") || self.is("export") || self.is("class") || self.is_declaration());
            if self.token().kind == Kind::End || (depth == 0 && starts) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Vec<TableDef> {
        let export = |path: &str| Export { path: path.to_owned(), rest: true, sse: true, ws: true, mqtt: true };
        let table = |name: &str, exports| TableDef { exports, ..TableDef::new(name) };
        vec![table("Topics", vec![export("")]), table("Sensors", vec![export("Sensors")]), table("Hidden", vec![])]
    }

    /// Paths of the three tables after the module, and messages.
    fn applied(text: &str) -> (String, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let mut tables = tables();
        apply("r.js", text, &mut tables, &mut diagnostics);
        let paths = |table: &TableDef| {
            table.exports.iter().map(|export| format!("/{}", export.path)).collect::<Vec<_>>().join(",")
        };
        (tables.iter().map(paths).collect::<Vec<_>>().join(" "), diagnostics.lines())
    }

    #[test]
    fn re_exports() {
        for (text, expected) in [
            ("", "/ /Sensors "),
            ("// nothing\n/* at\nall */\n;;", "/ /Sensors "),
            ("const { Topics } = tables;\nexport { Topics };\n", "/,/Topics /Sensors "),
            ("export class Topics extends tables.Topics {}", "/,/Topics /Sensors "),
            ("import { tables } from 'harperdb';\nexport const Topics = tables.Topics;", "/,/Topics /Sensors "),
            ("import { Resource, tables as t, } from \"harper\"\nexport const A = t.Topics", "/,/A /Sensors "),
            ("import { tables } from '@harperfast/harper'\nexport let B = tables.Hidden", "/ /Sensors /B"),
            ("export var { Hidden, Sensors: S } = tables", "/ /Sensors,/S /Hidden"),
            ("export { A as X, B }\nconst A = tables.Topics, B = tables.Hidden", "/,/X /Sensors /B"),
            ("const { Hidden } = tables; class H extends Hidden { }\nexport { H }", "/ /Sensors /H"),
            ("export default tables.Topics;", "/ /Sensors "),
            ("const { Topics } = tables\nexport default Topics", "/ /Sensors "),
            ("export default class extends tables.Topics {}", "/ /Sensors "),
            ("export default class X extends tables.Topics {};", "/ /Sensors "),
            ("export const Sensors = tables.Sensors;", "/ /Sensors "),
            ("export { T as default }; const T = tables.Topics;", "/ /Sensors "),
        ] {
            assert_eq!(applied(text), (expected.to_owned(), vec![]), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let only = "error: only re-exports of tables are supported; found ";
        for (text, expected) in [
            ("export class T extends tables.Topics {\n  get() { return 1 }\n}", "r.js:2:3: {}`get`"),
            ("export class T extends Resource {}", "r.js:1:24: {}`Resource`"),
            ("import fs from 'fs';", "r.js:1:8: {}`fs`"),
            ("import { tables } from './x.js';", "r.js:1:24: {}a string"),
            ("console.log(1)", "r.js:1:1: {}`console`"),
            ("export function f() {}", "r.js:1:8: {}`function`"),
            ("export const A = 1", "r.js:1:18: {}`1`"),
            ("export const A = tables.Topics.search()", "r.js:1:31: {}`.`"),
            ("const { A } = databases.data", "r.js:1:15: {}`databases`"),
            ("export { A }", "r.js:1:10: {}A"),
            ("export default", "r.js:1:15: {}the end of the file"),
            ("'use strict'", "r.js:1:1: {}a string"),
            ("\"open", "r.js:1:1: {}a string"),
            ("\"", "r.js:1:1: {}a string"),
            ("'é", "r.js:1:1: {}a string"),
            ("/*/", ""),
            ("/* open", ""),
            ("export const A = tables.Topic", "r.js:1:25: error: there is no table Topic (did you mean Topics?)"),
            (
                "export const Sensors = tables.Topics",
                "r.js:1:31: error: `/Sensors` is taken by table Sensors (expected a free path)",
            ),
            ("export default tables.Sensors", "r.js:1:23: error: `/` is taken by table Topics (expected a free path)"),
        ] {
            let expected: Vec<String> =
                Some(expected.replace("{}", only)).filter(|text| !text.is_empty()).into_iter().collect();
            assert_eq!(applied(text), ("/ /Sensors ".to_owned(), expected), "{text:?}");
        }
        let (paths, lines) = applied(
            "foo({\n  const: 1\n})\nexport const A = tables.Topics\nexport function f() {\n  if (1) {}\n}\nexport const B = tables.Hidden",
        );
        assert_eq!((paths.as_str(), lines.len()), ("/,/A /Sensors /B", 2), "{lines:?}");
    }
}
