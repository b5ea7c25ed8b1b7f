//! Syntax tree → table definitions: what the directives mean, and what two tables may not have in common. Called by
//! `app::App::load` with all schema files of an app.

use super::directives::{On, check, find};
use super::parser::{Directive, Document, Field, Shape, TypeDefinition};
use super::types::Types;
use crate::diagnostic::{Diagnostics, Place, suggestion};
use shards::schema::{Attribute, Deliver, Durability, Export, Kind, Relation, Role, TableDef};
use std::collections::HashMap;

/// Far above any real app; well inside the range of table ids.
const TABLES_MAX: usize = 4096;

pub fn define(documents: &[Document<'_>], diagnostics: &mut Diagnostics) -> Vec<TableDef> {
    let mut by_name: HashMap<&str, &TypeDefinition<'_>> = HashMap::new();
    let mut tables = Vec::new();
    for definition in documents.iter().flat_map(|document| &document.types) {
        let is_table = find(&definition.directives, "table").is_some();
        let name = definition.name;
        // Operation types: our users' schemas may carry them, for GraphQL tools.
        if !is_table && matches!(name.text, "Query" | "Mutation" | "Subscription") {
            continue;
        }
        if let Some(earlier) = by_name.get(name.text) {
            let message = format!("type {} is defined twice (first at {})", name.text, earlier.name.place);
            diagnostics.error(name.place, message);
            continue;
        }
        by_name.insert(name.text, definition);
        check_directives(definition, is_table, diagnostics);
        if is_table {
            tables.push(definition);
        }
    }
    if let Some(first_too_many) = tables.get(TABLES_MAX) {
        diagnostics.error(first_too_many.name.place, format!("too many tables (expected at most {TABLES_MAX})"));
        return Vec::new();
    }
    let mut types = Types::new(by_name);
    let mut unique = Unique::default();
    let mut defined: Vec<TableDef> =
        tables.iter().map(|definition| table(definition, &mut types, &mut unique, diagnostics)).collect();
    for (at, definition) in tables.iter().enumerate() {
        for field in &definition.fields {
            let Some(directive) = find(&field.directives, "relationship") else { continue };
            match relation(field, directive, at, &tables, &defined) {
                Ok(relation) => defined[at].relations.push(relation),
                Err((place, what)) => diagnostics.warning(place, format!("@relationship is ignored: {what}")),
            }
        }
    }
    defined
}

/// What a `@relationship` joins; otherwise what is wrong with it, and where.
fn relation<'a>(
    field: &Field<'a>,
    directive: &Directive<'a>,
    at: usize,
    definitions: &[&TypeDefinition<'a>],
    tables: &[TableDef],
) -> Result<Relation, (Place<'a>, String)> {
    let (many, name) = match &field.ty.shape {
        Shape::Named(name) => (false, *name),
        Shape::List(element) => match &element.shape {
            Shape::Named(name) => (true, *name),
            Shape::List(_) => return Err((directive.name.place, "found a list of lists (expected a table)".into())),
        },
    };
    let Some(other) = definitions.iter().position(|definition| definition.name.text == name.text) else {
        let hint = suggestion(name.text, definitions.iter().map(|definition| definition.name.text));
        return Err((name.place, format!("{} is no table{hint}", name.text)));
    };
    let (own, other) = (&tables[at], &tables[other]);
    let side = |argument: &str, table: &TableDef| match directive.text(argument) {
        Some(text) if table.attributes.iter().any(|it| it.name == text && it.role != Role::Virtual) => {
            Ok(text.to_owned())
        }
        Some(text) => {
            let place = directive.argument(argument).map_or(directive.name.place, |argument| argument.place);
            let hint = suggestion(text, table.attributes.iter().map(|it| it.name.as_str()));
            Err((place, format!("{text} is no attribute of {}{hint}", table.name)))
        }
        None => match table.primary_key {
            Some(key) => Ok(table.attributes[key].name.clone()),
            None => Err((directive.name.place, format!("{} has no @primaryKey", table.name))),
        },
    };
    if directive.argument("from").is_none() && directive.argument("to").is_none() {
        return Err((directive.name.place, "neither `from` nor `to` is given".into()));
    }
    Ok(Relation {
        attribute: field.name.text.to_owned(),
        database: other.database.clone(),
        table: other.name.clone(),
        own: side("from", own)?,
        other: side("to", other)?,
        many,
    })
}

fn check_directives(definition: &TypeDefinition<'_>, is_table: bool, diagnostics: &mut Diagnostics) {
    check(&definition.directives, On::Type, diagnostics);
    for field in &definition.fields {
        check(&field.directives, On::Field, diagnostics);
    }
    if let Some(export) = find(&definition.directives, "export").filter(|_| !is_table) {
        diagnostics.warning(export.name.place, "@export has no effect on a type without @table, ignored");
    }
}

/// Names that only one table of an app may have, with the place of the first.
#[derive(Default)]
struct Unique<'a> {
    tables: HashMap<(String, String), Place<'a>>,
    paths: HashMap<String, Place<'a>>,
}

fn table<'a>(
    definition: &TypeDefinition<'a>,
    types: &mut Types<'_, 'a>,
    unique: &mut Unique<'a>,
    diagnostics: &mut Diagnostics,
) -> TableDef {
    let attributes = types.table_attributes(definition, diagnostics);
    let primary_key = primary_key(definition, &attributes, diagnostics);
    let mut result = TableDef {
        attributes,
        primary_key,
        sealed: find(&definition.directives, "sealed").is_some(),
        description: definition.description.clone(),
        ..TableDef::new(definition.name.text)
    };
    if let Some(directive) = find(&definition.directives, "table") {
        table_arguments(directive, &mut result, diagnostics);
    }
    let place = definition.name.place;
    match unique.tables.get(&(result.database.clone(), result.name.clone())) {
        Some(first) => {
            let message = format!("table {}.{} is declared twice (first at {first})", result.database, result.name);
            diagnostics.error(place, message);
        }
        None => {
            unique.tables.insert((result.database.clone(), result.name.clone()), place);
        }
    }
    if let Some(directive) = find(&definition.directives, "export") {
        result.exports.extend(export(directive, definition.name.text, unique, diagnostics));
    }
    result
}

fn table_arguments(directive: &Directive<'_>, table: &mut TableDef, diagnostics: &mut Diagnostics) {
    if let (Some(_), Some(alias)) = (directive.argument("database"), directive.argument("schema")) {
        diagnostics
            .error(alias.name.place, "@table(schema:) is another name of `database` (expected only one of them)");
    }
    for argument in ["table", "schema", "database"] {
        let Some(text) = directive.text(argument) else { continue };
        if text.is_empty() || text.contains(|c: char| c == '/' || c.is_control()) {
            let place = directive.argument(argument).map_or(directive.name.place, |argument| argument.place);
            diagnostics.error(place, format!("@table({argument}:): found {text:?} (expected a name without slashes)"));
        }
        text.clone_into(if argument == "table" { &mut table.name } else { &mut table.database });
    }
    if let (Some(text), Some(argument)) = (directive.text("durability"), directive.argument("durability")) {
        match text {
            "disk" => table.durability = Durability::Disk,
            "memory" => table.durability = Durability::Memory,
            _ => {
                let why = if text == "cluster" { " is not available yet" } else { " is not known" };
                let message = format!("@table(durability:): {text:?}{why} (expected \"disk\" or \"memory\")");
                diagnostics.error(argument.place, message);
            }
        }
    }
    if let (Some(text), Some(argument)) = (directive.text("deliver"), directive.argument("deliver")) {
        match text {
            "applied" => table.deliver = Deliver::Applied,
            "committed" => table.deliver = Deliver::Committed,
            _ => {
                let message =
                    format!("@table(deliver:): {text:?} is not known (expected \"applied\" or \"committed\")");
                diagnostics.error(argument.place, message);
            }
        }
    }
    // Harper: 0 means that nothing expires.
    let expiration = directive.number("expiration").filter(|seconds| *seconds > 0.0);
    table.expiration_ms = expiration.map(|seconds| (seconds * 1e3) as u64);
    if let Some(seconds) = directive.number("retention") {
        table.retention.window_us = (seconds * 1e6) as u64;
    }
    table.retention.bytes = directive.number("retentionBytes").map(|bytes| bytes as u64);
}

/// The first `@primaryKey`; others are only warned of, as in Harper.
fn primary_key(
    definition: &TypeDefinition<'_>,
    attributes: &[Attribute],
    diagnostics: &mut Diagnostics,
) -> Option<usize> {
    let mut key = None;
    for (index, (field, attribute)) in definition.fields.iter().zip(attributes).enumerate() {
        let Some(directive) = find(&field.directives, "primaryKey") else { continue };
        if key.is_some() {
            diagnostics.warning(directive.name.place, "a second @primaryKey, ignored");
            continue;
        }
        if matches!(attribute.kind, Kind::Array(_) | Kind::Object(_) | Kind::Blob | Kind::Bytes) {
            let message = format!("{} cannot be the primary key (expected a scalar type such as ID)", attribute.name);
            diagnostics.error(directive.name.place, message);
        }
        key = Some(index);
    }
    key
}

fn export<'a>(
    directive: &Directive<'a>,
    type_name: &str,
    unique: &mut Unique<'a>,
    diagnostics: &mut Diagnostics,
) -> Option<Export> {
    let path = directive.text("name").unwrap_or(type_name).trim_matches('/').to_owned();
    let place = directive.argument("name").map_or(directive.name.place, |argument| argument.place);
    if let Some(problem) = path_problem(&path) {
        diagnostics.error(place, format!("@export(name:): {path:?} {problem}"));
        return None;
    }
    if let Some(first) = unique.paths.get(&path) {
        diagnostics.error(place, format!("two tables are exported at `/{path}` (first at {first})"));
        return None;
    }
    unique.paths.insert(path.clone(), place);
    let on = |switch| directive.is_on(switch);
    Some(Export { path, rest: on("rest"), sse: on("sse"), ws: on("ws"), mqtt: on("mqtt") })
}

/// Why a path cannot begin a topic (MQTT 5, 4.7).
fn path_problem(path: &str) -> Option<&'static str> {
    if path.contains(['+', '#', '\0']) {
        Some("has a character that topics cannot have (expected a path without `+`, `#` and NUL)")
    } else if path.starts_with('$') {
        Some("is reserved for the server (expected a path that does not begin with `$`)")
    } else {
        None
    }
}
