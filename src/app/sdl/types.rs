//! Fields of a syntax tree → attributes of a table or nested object: kinds, roles, and the bounds that keep nested
//! types from growing without end. Called by `define`.

use super::directives::find;
use super::parser::{Field, Name, Shape, Type, TypeDefinition};
use crate::diagnostic::{Diagnostics, suggestion};
use shards::schema::{Attribute, Element, Kind, Object, Role};
use std::collections::{HashMap, HashSet};

/// Nested objects inside nested objects: bounds the stack here and wherever a document is checked.
const DEPTH_MAX: usize = 16;
/// Attributes of all tables with nested ones counted at each use: types that use each other twice double per level.
const ATTRIBUTES_MAX: usize = 16_384;

const SCALARS: &[(&str, Kind)] = &[
    ("ID", Kind::Id),
    ("Int", Kind::Int),
    ("Long", Kind::Long),
    ("Float", Kind::Float),
    ("String", Kind::String),
    ("Boolean", Kind::Boolean),
    ("Date", Kind::Date),
    ("BigInt", Kind::BigInt),
    ("Bytes", Kind::Bytes),
    ("Blob", Kind::Blob),
    ("Any", Kind::Any),
];

pub struct Types<'d, 'a> {
    by_name: HashMap<&'a str, &'d TypeDefinition<'a>>,
    attributes_left: usize,
}

/// What a type is used for decides what its directives mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Table,
    Nested,
}

impl<'d, 'a> Types<'d, 'a> {
    pub fn new(by_name: HashMap<&'a str, &'d TypeDefinition<'a>>) -> Types<'d, 'a> {
        Types { by_name, attributes_left: ATTRIBUTES_MAX }
    }

    /// One attribute per field, in order.
    pub fn table_attributes(&mut self, table: &TypeDefinition<'a>, diagnostics: &mut Diagnostics) -> Vec<Attribute> {
        self.attributes(table, Owner::Table, &mut vec![table.name.text], diagnostics)
    }

    /// `path`: the types that are being expanded, outermost first.
    fn attributes(
        &mut self,
        of: &TypeDefinition<'a>,
        owner: Owner,
        path: &mut Vec<&'a str>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        let mut names = HashSet::new();
        for field in &of.fields {
            if !names.insert(field.name.text) {
                let message = format!("{} has two attributes named {}", of.name.text, field.name.text);
                diagnostics.error(field.name.place, message);
            }
            if self.attributes_left == 0 {
                let message = format!("too many attributes (expected at most {ATTRIBUTES_MAX}, nested ones included)");
                diagnostics.error(of.name.place, message);
                return attributes;
            }
            self.attributes_left -= 1;
            attributes.push(self.attribute(field, owner, path, diagnostics));
        }
        attributes
    }

    fn attribute(
        &mut self,
        field: &Field<'a>,
        owner: Owner,
        path: &mut Vec<&'a str>,
        diagnostics: &mut Diagnostics,
    ) -> Attribute {
        let role = match owner {
            Owner::Table => role(field, diagnostics),
            Owner::Nested => nested_role(field, diagnostics),
        };
        let kind = match role {
            // A join names a table and a computed value is not stored: there is no value to check.
            Role::Virtual => Kind::Any,
            _ => self.kind(&field.ty, path, diagnostics),
        };
        let is_plain_index = find(&field.directives, "indexed").is_some_and(|it| it.arguments.is_empty());
        Attribute {
            name: field.name.text.to_owned(),
            kind,
            required: field.ty.required && role != Role::Virtual,
            indexed: owner == Owner::Table && (is_plain_index || role == Role::ExpiresAt),
            role,
            description: field.description.clone(),
        }
    }

    fn kind(&mut self, ty: &Type<'a>, path: &mut Vec<&'a str>, diagnostics: &mut Diagnostics) -> Kind {
        match &ty.shape {
            Shape::List(element) => {
                let kind = self.kind(element, path, diagnostics);
                Kind::Array(Box::new(Element { kind, required: element.required }))
            }
            Shape::Named(name) => match SCALARS.iter().find(|(scalar, _)| *scalar == name.text) {
                Some((_, kind)) => kind.clone(),
                None => self.object(*name, path, diagnostics),
            },
        }
    }

    fn object(&mut self, name: Name<'a>, path: &mut Vec<&'a str>, diagnostics: &mut Diagnostics) -> Kind {
        let text = name.text;
        let unchecked = |diagnostics: &mut Diagnostics, why: String| {
            diagnostics.warning(name.place, format!("{why}: its values are not checked"));
            Kind::Any
        };
        let Some(definition) = self.by_name.get(text).copied() else {
            let known = SCALARS.iter().map(|(scalar, _)| *scalar).chain(self.by_name.keys().copied());
            return unchecked(diagnostics, format!("type {text} is not known{}", suggestion(text, known)));
        };
        if path.contains(&text) {
            return unchecked(diagnostics, format!("type {text} contains itself"));
        }
        if find(&definition.directives, "table").is_some() {
            return unchecked(
                diagnostics,
                format!("type {text} is a table (records of it are joined by @relationship)"),
            );
        }
        if path.len() > DEPTH_MAX {
            let message = format!("type {text} is nested too deeply (expected at most {DEPTH_MAX} levels)");
            diagnostics.error(name.place, message);
            return Kind::Any;
        }
        path.push(text);
        let attributes = self.attributes(definition, Owner::Nested, path, diagnostics);
        path.pop();
        Kind::Object(Object { attributes, sealed: find(&definition.directives, "sealed").is_some() })
    }
}

const ROLES: &[(&str, Role)] = &[
    ("createdTime", Role::CreatedTime),
    ("updatedTime", Role::UpdatedTime),
    ("expiresAt", Role::ExpiresAt),
    ("relationship", Role::Virtual),
    ("computed", Role::Virtual),
];

fn role(field: &Field<'_>, diagnostics: &mut Diagnostics) -> Role {
    let mut found: Option<(&str, Role)> = None;
    for directive in &field.directives {
        let Some(&(name, role)) = ROLES.iter().find(|(name, _)| *name == directive.name.text) else { continue };
        match found {
            Some((earlier, _)) if earlier != name => {
                let message = format!("{} cannot be both @{earlier} and @{name}", field.name.text);
                diagnostics.error(directive.name.place, message);
            }
            _ => found = Some((name, role)),
        }
    }
    match (found, field.name.text) {
        (Some((_, role)), _) => role,
        (None, "__createdtime__") => Role::CreatedTime,
        (None, "__updatedtime__") => Role::UpdatedTime,
        (None, _) => Role::Plain,
    }
}

/// Keys, times and indexes exist per record, not inside one.
fn nested_role(field: &Field<'_>, diagnostics: &mut Diagnostics) -> Role {
    for directive in &field.directives {
        let name = directive.name.text;
        match name {
            "relationship" | "computed" => {
                if name == "relationship" {
                    let message = "@relationship has no effect in a type without @table, ignored";
                    diagnostics.warning(directive.name.place, message);
                }
                return Role::Virtual;
            }
            "primaryKey" | "indexed" | "createdTime" | "updatedTime" | "expiresAt" => {
                diagnostics
                    .warning(directive.name.place, format!("@{name} has no effect in a type without @table, ignored"));
            }
            _ => {}
        }
    }
    Role::Plain
}
