//! The directives that a schema may use, in one table (compat §2.1, §2.2), and the check against it: names, arguments
//! and their types. Called by `define`, which afterwards reads only what is known to be well formed.

use super::parser::{Argument, Directive, Value};
use crate::diagnostic::{Diagnostics, suggestion};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    Type,
    Field,
}

#[derive(Clone, Copy)]
enum Want {
    Text,
    /// Text, with or without quotes.
    Name,
    Boolean,
    /// Not negative; what of.
    Number(&'static str),
}

struct Parameter {
    name: &'static str,
    want: Want,
    /// What to say when it is given.
    note: Option<&'static str>,
}

const fn parameter(name: &'static str, want: Want) -> Parameter {
    Parameter { name, want, note: None }
}

const fn noted(name: &'static str, want: Want, note: &'static str) -> Parameter {
    Parameter { name, want, note: Some(note) }
}

enum Support {
    Full(&'static [Parameter]),
    /// Arguments are not looked at: nothing would come of them.
    None,
}

struct Spec {
    name: &'static str,
    on: &'static [On],
    support: Support,
}

const EXPIRY: &str = "has no effect: records vanish when they expire";
const IGNORED: &str = "is not supported, ignored";

const TABLE: &[Parameter] = &[
    parameter("table", Want::Text),
    parameter("database", Want::Text),
    parameter("schema", Want::Text),
    parameter("durability", Want::Text),
    parameter("deliver", Want::Text),
    parameter("expiration", Want::Number("a number of seconds")),
    parameter("retention", Want::Number("a number of seconds")),
    parameter("retentionBytes", Want::Number("a number of bytes")),
    noted("eviction", Want::Number("a number of seconds"), EXPIRY),
    noted("scanInterval", Want::Number("a number of seconds"), EXPIRY),
    noted("audit", Want::Boolean, IGNORED),
    noted("replicate", Want::Boolean, IGNORED),
    noted("cacheControl", Want::Text, IGNORED),
];

const EXPORT: &[Parameter] = &[
    parameter("name", Want::Text),
    parameter("rest", Want::Boolean),
    parameter("sse", Want::Boolean),
    parameter("ws", Want::Boolean),
    parameter("mqtt", Want::Boolean),
];

const RELATIONSHIP: &[Parameter] = &[parameter("from", Want::Name), parameter("to", Want::Name)];

const fn full(name: &'static str, on: &'static [On], parameters: &'static [Parameter]) -> Spec {
    Spec { name, on, support: Support::Full(parameters) }
}

const fn unsupported(name: &'static str, on: &'static [On]) -> Spec {
    Spec { name, on, support: Support::None }
}

const SPECS: &[Spec] = &[
    full("table", &[On::Type], TABLE),
    full("export", &[On::Type], EXPORT),
    full("sealed", &[On::Type], &[]),
    full("primaryKey", &[On::Field], &[]),
    // Its arguments make a vector index: `define` reports those.
    full("indexed", &[On::Field], &[]),
    full("createdTime", &[On::Field], &[]),
    full("updatedTime", &[On::Field], &[]),
    full("expiresAt", &[On::Field], &[]),
    unsupported("splitSegments", &[On::Type]),
    unsupported("replicate", &[On::Type]),
    unsupported("hidden", &[On::Type, On::Field]),
    unsupported("allow", &[On::Type, On::Field]),
    full("relationship", &[On::Field], RELATIONSHIP),
    unsupported("computed", &[On::Field]),
    unsupported("embed", &[On::Field]),
    unsupported("enumerable", &[On::Field]),
];

/// Reports all that is wrong with the directives of one type or field.
pub fn check(directives: &[Directive<'_>], on: On, diagnostics: &mut Diagnostics) {
    for (index, directive) in directives.iter().enumerate() {
        let name = directive.name.text;
        let Some(spec) = SPECS.iter().find(|spec| spec.name == name) else {
            let here = SPECS.iter().filter(|spec| spec.on.contains(&on)).map(|spec| format!("@{}", spec.name));
            let name = format!("@{name}");
            diagnostics.error(directive.name.place, format!("unknown directive {name}{}", suggestion(&name, here)));
            continue;
        };
        if !spec.on.contains(&on) {
            let expected = if on == On::Field { "a type" } else { "a field" };
            diagnostics
                .error(directive.name.place, format!("@{name} does not belong here (expected after {expected})"));
            continue;
        }
        if directives[..index].iter().any(|earlier| earlier.name.text == name) {
            diagnostics.error(directive.name.place, format!("@{name} is given twice"));
        }
        match spec.support {
            Support::None => diagnostics.warning(directive.name.place, format!("@{name} {IGNORED}")),
            Support::Full(parameters) => check_arguments(directive, parameters, diagnostics),
        }
    }
}

fn check_arguments(directive: &Directive<'_>, parameters: &[Parameter], diagnostics: &mut Diagnostics) {
    if directive.name.text == "indexed" {
        if let Some(argument) = directive.arguments.first() {
            diagnostics
                .warning(argument.name.place, "@indexed with arguments (a vector index) is not supported, ignored");
        }
        return;
    }
    for (index, argument) in directive.arguments.iter().enumerate() {
        let name = argument.name.text;
        let full_name = format!("@{}({name}:)", directive.name.text);
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == name) else {
            let hint = suggestion(name, parameters.iter().map(|parameter| parameter.name));
            diagnostics.error(argument.name.place, format!("unknown argument {full_name}{hint}"));
            continue;
        };
        if directive.arguments[..index].iter().any(|earlier| earlier.name.text == name) {
            diagnostics.error(argument.name.place, format!("{full_name} is given twice"));
        }
        let expected = match (parameter.want, &argument.value) {
            (Want::Text | Want::Name, Value::Text(_)) | (Want::Boolean, Value::Boolean(_)) => None,
            (Want::Name, Value::Enum(_)) => None,
            (Want::Number(_), Value::Int(text) | Value::Float(text)) if !text.starts_with('-') => None,
            (Want::Text, _) => Some("a string"),
            (Want::Name, _) => Some("the name of an attribute"),
            (Want::Boolean, _) => Some("true or false"),
            (Want::Number(what), _) => Some(what),
        };
        match (expected, parameter.note) {
            (Some(expected), _) => {
                let found = argument.value.describe();
                diagnostics.error(argument.place, format!("{full_name}: found {found} (expected {expected})"));
            }
            (None, Some(note)) => diagnostics.warning(argument.name.place, format!("{full_name} {note}")),
            (None, None) => {}
        }
    }
}

/// The directive of that name, if it is there.
pub fn find<'d, 'a>(directives: &'d [Directive<'a>], name: &str) -> Option<&'d Directive<'a>> {
    directives.iter().find(|directive| directive.name.text == name)
}

impl<'a> Directive<'a> {
    pub fn argument(&self, name: &str) -> Option<&Argument<'a>> {
        self.arguments.iter().find(|argument| argument.name.text == name)
    }

    /// A text argument, or a name without quotes where that is allowed; `None` also where `check` has reported another type.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.argument(name)?.value {
            Value::Text(text) => Some(text),
            Value::Enum(name) => Some(name),
            _ => None,
        }
    }

    /// A number that is not negative; `None` also where `check` has reported something else.
    pub fn number(&self, name: &str) -> Option<f64> {
        match &self.argument(name)?.value {
            Value::Int(text) | Value::Float(text) => text.parse().ok().filter(|number| *number >= 0.0),
            _ => None,
        }
    }

    /// A switch that is on unless said otherwise.
    pub fn is_on(&self, name: &str) -> bool {
        self.argument(name).is_none_or(|argument| argument.value != Value::Boolean(false))
    }
}
