//! SDL tokens → syntax tree. Called by `app::App::load`; read by `define`. After an error it goes on with the next
//! field or definition, so that one run reports every mistake.

use super::lexer::{Lexeme, Token, lex};
use crate::diagnostic::{Diagnostics, Place};

/// Nesting of list types and of argument values: bounds the stack.
const DEPTH_MAX: usize = 32;

const KEYWORDS: &[&str] = &["type", "enum", "input", "scalar", "interface", "union", "directive", "extend", "schema"];

/// One schema file.
#[derive(Debug, Default)]
pub struct Document<'a> {
    pub types: Vec<TypeDefinition<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub text: &'a str,
    pub place: Place<'a>,
}

#[derive(Debug)]
pub struct TypeDefinition<'a> {
    pub description: Option<String>,
    pub name: Name<'a>,
    pub directives: Vec<Directive<'a>>,
    pub fields: Vec<Field<'a>>,
}

#[derive(Debug)]
pub struct Field<'a> {
    pub description: Option<String>,
    pub name: Name<'a>,
    pub ty: Type<'a>,
    pub directives: Vec<Directive<'a>>,
}

#[derive(Debug)]
pub struct Type<'a> {
    pub shape: Shape<'a>,
    pub required: bool,
}

#[derive(Debug)]
pub enum Shape<'a> {
    Named(Name<'a>),
    List(Box<Type<'a>>),
}

#[derive(Debug)]
pub struct Directive<'a> {
    pub name: Name<'a>,
    pub arguments: Vec<Argument<'a>>,
}

#[derive(Debug)]
pub struct Argument<'a> {
    pub name: Name<'a>,
    pub place: Place<'a>,
    pub value: Value<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Int(&'a str),
    Float(&'a str),
    Text(String),
    Boolean(bool),
    Null,
    Enum(&'a str),
    List(Vec<Value<'a>>),
    Object(Vec<(&'a str, Value<'a>)>),
}

impl Value<'_> {
    /// For messages: `found …`.
    pub fn describe(&self) -> String {
        match self {
            Value::Int(text) | Value::Float(text) | Value::Enum(text) => format!("`{text}`"),
            Value::Text(text) => format!("{text:?}"),
            Value::Boolean(value) => format!("`{value}`"),
            Value::Null => "`null`".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }
}

pub fn parse<'a>(file: &'a str, text: &'a str, diagnostics: &mut Diagnostics) -> Document<'a> {
    let lexemes = lex(file, text, diagnostics);
    let mut parser = Parser { lexemes: &lexemes, at: 0, diagnostics };
    let mut document = Document::default();
    while *parser.token() != Token::End {
        let before = parser.at;
        match parser.definition() {
            Ok(Some(definition)) => document.types.push(definition),
            Ok(None) => {}
            Err(Reported) => parser.skip_to_definition(before),
        }
    }
    document
}

/// The error is in the diagnostics; the caller looks for a place to go on.
struct Reported;

type Parsed<T> = Result<T, Reported>;

struct Parser<'p, 'a> {
    lexemes: &'p [Lexeme<'a>],
    at: usize,
    diagnostics: &'p mut Diagnostics,
}

impl<'p, 'a> Parser<'p, 'a> {
    fn lexeme(&self) -> &'p Lexeme<'a> {
        // `lex` ends every list with `End`, and `advance` stops there.
        &self.lexemes[self.at]
    }

    fn token(&self) -> &'p Token<'a> {
        &self.lexeme().token
    }

    fn following(&self) -> &'p Token<'a> {
        self.lexemes.get(self.at + 1).map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn advance(&mut self) {
        if self.at + 1 < self.lexemes.len() {
            self.at += 1;
        }
    }

    fn error<T>(&mut self, message: String) -> Parsed<T> {
        self.diagnostics.error(self.lexeme().place, message);
        Err(Reported)
    }

    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let found = self.token().describe();
        self.error(format!("found {found} (expected {expected})"))
    }

    fn is(&self, c: char) -> bool {
        *self.token() == Token::Punctuation(c)
    }

    fn take(&mut self, c: char) -> bool {
        let is = self.is(c);
        if is {
            self.advance();
        }
        is
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.take(c) { Ok(()) } else { self.unexpected(&format!("`{c}`")) }
    }

    fn name(&mut self, expected: &str) -> Parsed<Name<'a>> {
        let place = self.lexeme().place;
        match *self.token() {
            Token::Name(text) => {
                self.advance();
                Ok(Name { text, place })
            }
            _ => self.unexpected(expected),
        }
    }

    fn description(&mut self) -> Option<String> {
        let Token::Text(text) = self.token() else { return None };
        self.advance();
        Some(text.clone()).filter(|text| !text.is_empty())
    }

    /// `None`: something that is legal SDL and not a table or nested type.
    fn definition(&mut self) -> Parsed<Option<TypeDefinition<'a>>> {
        let description = self.description();
        let place = self.lexeme().place;
        match *self.token() {
            Token::Name("type") => self.advance(),
            Token::Name(keyword) if KEYWORDS.contains(&keyword) => {
                self.advance();
                let message = format!("`{keyword}` definitions have no effect, ignored");
                self.diagnostics.warning(place, message);
                if matches!(self.token(), Token::Name(_)) {
                    self.advance(); // its name, which may look like a keyword
                }
                return self.skip_definition().map(|()| None);
            }
            _ => return self.unexpected("`type` or another definition"),
        }
        let name = self.name("the name of the type")?;
        if *self.token() == Token::Name("implements") {
            self.advance();
            self.interfaces()?;
        }
        let directives = self.directives()?;
        let fields = if self.take('{') { self.fields(name)? } else { Vec::new() };
        Ok(Some(TypeDefinition { description, name, directives, fields }))
    }

    /// Nothing in a table depends on the interfaces of its type.
    fn interfaces(&mut self) -> Parsed<()> {
        self.take('&');
        self.name("the name of an interface")?;
        while self.take('&') {
            self.name("the name of an interface")?;
        }
        Ok(())
    }

    fn fields(&mut self, owner: Name<'a>) -> Parsed<Vec<Field<'a>>> {
        let mut fields = Vec::new();
        loop {
            if self.take('}') {
                return Ok(fields);
            }
            if *self.token() == Token::End || self.is_definition() {
                return self.unexpected(&format!("`}}` of type {}", owner.text));
            }
            let before = self.at;
            match self.field() {
                Ok(field) => fields.push(field),
                Err(Reported) => self.skip_to_field(before),
            }
        }
    }

    fn field(&mut self) -> Parsed<Field<'a>> {
        let description = self.description();
        let name = self.name("the name of a field or `}`")?;
        if self.is('(') {
            // Only queries have use for them; `type Query` is tolerated, so they are.
            self.skip_group()?;
        }
        self.expect(':')?;
        let ty = self.ty(DEPTH_MAX)?;
        let directives = self.directives()?;
        Ok(Field { description, name, ty, directives })
    }

    fn ty(&mut self, depth: usize) -> Parsed<Type<'a>> {
        if depth == 0 {
            return self.error(format!("the type is nested too deeply (expected at most {DEPTH_MAX} levels)"));
        }
        let shape = if self.take('[') {
            let element = self.ty(depth - 1)?;
            self.expect(']')?;
            Shape::List(Box::new(element))
        } else {
            Shape::Named(self.name("a type")?)
        };
        Ok(Type { shape, required: self.take('!') })
    }

    fn directives(&mut self) -> Parsed<Vec<Directive<'a>>> {
        let mut directives = Vec::new();
        while self.take('@') {
            let name = self.name("the name of a directive")?;
            let arguments = if self.take('(') { self.arguments()? } else { Vec::new() };
            directives.push(Directive { name, arguments });
        }
        Ok(directives)
    }

    fn arguments(&mut self) -> Parsed<Vec<Argument<'a>>> {
        let mut arguments = Vec::new();
        while !self.take(')') {
            let name = self.name("the name of an argument or `)`")?;
            self.expect(':')?;
            let place = self.lexeme().place;
            let value = self.value(DEPTH_MAX)?;
            arguments.push(Argument { name, place, value });
        }
        Ok(arguments)
    }

    fn value(&mut self, depth: usize) -> Parsed<Value<'a>> {
        if depth == 0 {
            return self.error(format!("the value is nested too deeply (expected at most {DEPTH_MAX} levels)"));
        }
        let value = match self.token() {
            Token::Int(text) => Value::Int(text),
            Token::Float(text) => Value::Float(text),
            Token::Text(text) => Value::Text(text.clone()),
            Token::Name("true") => Value::Boolean(true),
            Token::Name("false") => Value::Boolean(false),
            Token::Name("null") => Value::Null,
            Token::Name(text) => Value::Enum(text),
            Token::Punctuation('[') => return self.list(depth - 1),
            Token::Punctuation('{') => return self.object(depth - 1),
            _ => return self.unexpected("a value"),
        };
        self.advance();
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Parsed<Value<'a>> {
        self.advance();
        let mut values = Vec::new();
        while !self.take(']') {
            values.push(self.value(depth)?);
        }
        Ok(Value::List(values))
    }

    fn object(&mut self, depth: usize) -> Parsed<Value<'a>> {
        self.advance();
        let mut entries = Vec::new();
        while !self.take('}') {
            let name = self.name("a name or `}`")?;
            self.expect(':')?;
            entries.push((name.text, self.value(depth)?));
        }
        Ok(Value::Object(entries))
    }

    /// A bracketed group, brackets of all kinds inside it balanced by number.
    fn skip_group(&mut self) -> Parsed<()> {
        let open = self.lexeme().place;
        let mut depth = 0_usize;
        loop {
            match self.token() {
                Token::Punctuation('(' | '[' | '{') => depth += 1,
                Token::Punctuation(')' | ']' | '}') => depth = depth.saturating_sub(1),
                Token::End => {
                    self.diagnostics.error(open, "the bracket is not closed");
                    return Err(Reported);
                }
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// The rest of a definition that is ignored.
    fn skip_definition(&mut self) -> Parsed<()> {
        loop {
            match self.token() {
                Token::End | Token::Text(_) => return Ok(()),
                Token::Name(name) if KEYWORDS.contains(name) => return Ok(()),
                Token::Punctuation('(' | '[' | '{') => self.skip_group()?,
                _ => self.advance(),
            }
        }
    }

    /// Whether a definition seems to start here: a keyword at the start of a line and a name after it.
    fn is_definition(&self) -> bool {
        matches!(self.token(), Token::Name(name) if KEYWORDS.contains(name))
            && self.lexeme().first_of_line
            && matches!(self.following(), Token::Name(_))
    }

    /// Always beyond `before`.
    fn skip_to_definition(&mut self, before: usize) {
        while *self.token() != Token::End && (self.at == before || !self.is_definition()) {
            self.advance();
        }
    }

    /// Where a field seems to start (a name and `:` or `(` at the start of a line), or the end of the type. Always
    /// beyond `before`.
    fn skip_to_field(&mut self, before: usize) {
        if self.at == before {
            self.advance();
        }
        loop {
            let is_field = self.lexeme().first_of_line
                && matches!(self.token(), Token::Name(_))
                && matches!(self.following(), Token::Punctuation(':' | '('));
            if is_field || self.is('}') || self.is_definition() || *self.token() == Token::End {
                return;
            }
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let document = parse("s", text, &mut diagnostics);
        let types: Vec<String> = document.types.iter().map(shown).collect();
        (types.join(" "), diagnostics.lines())
    }

    /// `Name@directive(argument)[field:[Type!]@directive]`
    fn shown(definition: &TypeDefinition<'_>) -> String {
        fn ty(of: &Type<'_>) -> String {
            let shape = match &of.shape {
                Shape::Named(name) => name.text.to_owned(),
                Shape::List(element) => format!("[{}]", ty(element)),
            };
            shape + if of.required { "!" } else { "" }
        }
        let directives = |list: &[Directive<'_>]| -> String {
            let argument = |argument: &Argument<'_>| format!("{}={:?}", argument.name.text, argument.value);
            let arguments = |list: &[Argument<'_>]| list.iter().map(argument).collect::<Vec<_>>().join(",");
            list.iter().map(|it| format!("@{}({})", it.name.text, arguments(&it.arguments))).collect()
        };
        let description = |text: &Option<String>| text.as_ref().map(|text| format!("{text:?}")).unwrap_or_default();
        let field = |field: &Field<'_>| {
            let before = description(&field.description);
            format!("{before}{}:{}{}", field.name.text, ty(&field.ty), directives(&field.directives))
        };
        let fields: Vec<String> = definition.fields.iter().map(field).collect();
        let before = description(&definition.description);
        format!("{before}{}{}[{}]", definition.name.text, directives(&definition.directives), fields.join(" "))
    }

    #[test]
    fn valid() {
        for (text, expected) in [
            ("", ""),
            ("type A", "A[]"),
            ("type A {}", "A[]"),
            ("type A { a: Int, b: [ID!]! # c\n }", "A[a:Int b:[ID!]!]"),
            (
                "type T @table @export (name: \"\") { id: ID @primaryKey }",
                "T@table()@export(name=Text(\"\"))[id:ID@primaryKey()]",
            ),
            ("\"\"\" Doc \"\"\" type T { \"of x\" x: Int }", "\" Doc \"T[\"of x\"x:Int]"),
            ("type A implements B & C { type: Int input: String }", "A[type:Int input:String]"),
            ("type Query { f(a: Int = 1, b: [X!] = [{c: 2}]): String }", "Query[f:String]"),
            (
                "type A @d(a: 1, b: -2.5 c: true, d: null, e: E, f: [1 [2]], g: {h: \"i\"})",
                "A@d(a=Int(\"1\"),b=Float(\"-2.5\"),c=Boolean(true),d=Null,e=Enum(\"E\"),\
                 f=List([Int(\"1\"), List([Int(\"2\")])]),g=Object([(\"h\", Text(\"i\"))]))[]",
            ),
        ] {
            assert_eq!(parsed(text), (expected.to_owned(), vec![]), "{text:?}");
        }
    }

    #[test]
    fn other_definitions_are_ignored() {
        let text = "schema @x { query: Query }\nscalar D @specifiedBy(url: \"u\")\nenum E { type A }\n\
                    input I { a: Int = 1 }\ninterface N implements M { a: Int }\nunion U = | A | B\n\
                    \"doc\" directive @d(a: Int = 3) repeatable on OBJECT | FIELD\nextend type A @table { b: Int }\n\
                    type A { a: Int }";
        let (types, lines) = parsed(text);
        assert_eq!(types, "A[a:Int]");
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines[2], "s:3:1: warning: `enum` definitions have no effect, ignored");
    }

    #[test]
    fn errors_and_where_reading_goes_on() {
        let deep_type = format!("type A {{ a: {}Int{} }}", "[".repeat(40), "]".repeat(40));
        let deep_value = format!("type A @d(a: {}{})", "[".repeat(40), "]".repeat(40));
        for (text, expected, left) in [
            ("typ A {}\ntype B", "s:1:1: error: found `typ` (expected `type` or another definition)", "B[]"),
            ("type {}\ntype B", "s:1:6: error: found `{` (expected the name of the type)", "B[]"),
            ("type A { a Int\n b: Int }", "s:1:12: error: found `Int` (expected `:`)", "A[b:Int]"),
            ("type A { a: }", "s:1:13: error: found `}` (expected a type)", "A[]"),
            ("type A { a: [Int }", "s:1:18: error: found `}` (expected `]`)", "A[]"),
            ("type A {\n 3\n b: Int }", "s:2:2: error: found `3` (expected the name of a field or `}`)", "A[b:Int]"),
            ("type A { a: Int", "s:1:16: error: found the end of the file (expected `}` of type A)", ""),
            ("type A {\n a: Int\ntype B", "s:3:1: error: found `type` (expected `}` of type A)", "B[]"),
            ("type A @ {}", "s:1:10: error: found `{` (expected the name of a directive)", ""),
            ("type A @d(", "s:1:11: error: found the end of the file (expected the name of an argument or `)`)", ""),
            ("type A @d(a 1)", "s:1:13: error: found `1` (expected `:`)", ""),
            ("type A @d(a: $v)", "s:1:14: error: found `$` (expected a value)", ""),
            ("type A @d(a: {1: 2})", "s:1:15: error: found `1` (expected a name or `}`)", ""),
            ("type A @d(a: [1", "s:1:16: error: found the end of the file (expected a value)", ""),
            ("type A { f(a: Int: Int", "s:1:11: error: the bracket is not closed", ""),
            ("type A implements {}", "s:1:19: error: found `{` (expected the name of an interface)", ""),
            (&deep_type, "s:1:45: error: the type is nested too deeply (expected at most 32 levels)", "A[]"),
            (&deep_value, "s:1:46: error: the value is nested too deeply (expected at most 32 levels)", ""),
        ] {
            let (types, lines) = parsed(text);
            assert_eq!((types.as_str(), lines.first().map(String::as_str)), (left, Some(expected)), "{text:?}");
        }
    }

    #[test]
    fn every_error_is_reported() {
        let (types, lines) = parsed("type A {\n a Int\n b: Int\n c d\n}\nfoo\ntype B {\n e: !\n}\ntype C");
        assert_eq!(types, "A[b:Int] B[] C[]");
        assert_eq!(lines.iter().map(|line| &line[..5]).collect::<Vec<_>>(), ["s:2:4", "s:4:4", "s:6:1", "s:8:5"]);
    }
}
