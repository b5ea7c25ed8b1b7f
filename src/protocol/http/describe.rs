//! What the server offers, for people and programs: the description of a table at its exported path (compat §6.1), and of
//! all of them at `/openapi` (OpenAPI 3.1).

use super::representation::Representation;
use super::response::Body;
use super::session::{HttpSession, Resource};
use crate::protocol::format::Format;
use crate::protocol::{Catalog, Context, Flow};
use serde_json::{Map, Value, json};
use shards::schema::{Attribute, Kind, Role, TableDef};

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Any => "Any",
        Kind::Id => "ID",
        Kind::Int => "Int",
        Kind::Long => "Long",
        Kind::Float => "Float",
        Kind::String => "String",
        Kind::Boolean => "Boolean",
        Kind::Date => "Date",
        Kind::BigInt => "BigInt",
        Kind::Bytes => "Bytes",
        Kind::Blob => "Blob",
        Kind::Array(_) => "array",
        Kind::Object(_) => "object",
    }
}

fn attribute(own: &Attribute, is_key: bool) -> Value {
    let mut described = json!({ "name": own.name, "type": type_name(&own.kind) });
    let role = match own.role {
        Role::Plain | Role::Virtual => None,
        Role::CreatedTime => Some("assignCreatedTime"),
        Role::UpdatedTime => Some("assignUpdatedTime"),
        Role::ExpiresAt => Some("expiresAt"),
    };
    let flags = [
        ("isPrimaryKey", is_key),
        ("indexed", own.indexed),
        ("required", own.required),
        ("computed", own.role == Role::Virtual),
    ];
    for name in flags.iter().filter(|(_, on)| *on).map(|(name, _)| *name).chain(role) {
        described[name] = true.into();
    }
    if let Some(text) = &own.description {
        described["description"] = text.as_str().into();
    }
    match &own.kind {
        Kind::Array(element) => described["elements"] = type_name(&element.kind).into(),
        Kind::Object(object) => {
            described["properties"] = object.attributes.iter().map(|it| attribute(it, false)).collect()
        }
        _ => {}
    }
    described
}

impl HttpSession {
    /// GET of the exported path itself: what the table is.
    pub(super) fn describe(
        &mut self,
        context: &mut Context<'_>,
        resource: &Resource<'_>,
        representation: Representation,
    ) -> Flow {
        let table = context.catalog.table(resource.table);
        let attributes = table.attributes.iter().enumerate();
        let mut described = json!({
            "records": "./",
            "name": table.name,
            "database": table.database,
            "sealed": table.sealed,
            "attributes": attributes.map(|(at, it)| attribute(it, table.primary_key == Some(at))).collect::<Value>(),
        });
        if let Some(text) = &table.description {
            described["description"] = text.as_str().into();
        }
        // Keys are spread evenly: of this shard's share the others' can be told.
        let (own, shards) = (context.shard.table(resource.table).len() as u64, context.shard.shards() as u64);
        described["recordCount"] = (own * shards).into();
        if shards > 1 {
            let spread = 3 * ((own * shards * (shards - 1)) as f64).sqrt().ceil() as u64;
            described["estimatedRecordRange"] =
                json!([own.max((own * shards).saturating_sub(spread)), own * shards + spread]);
        }
        let mut document = Vec::new();
        let decoded = context.scratch.decoder.decode(Format::Json, described.to_string().as_bytes(), &mut document);
        debug_assert!(decoded.is_ok(), "{described}");
        self.exchange.document(context, 200, representation, &document, None, |_| {});
        self.answered(context)
    }

    pub(super) fn openapi(&mut self, context: &mut Context<'_>) -> Flow {
        let json = openapi(context.catalog).to_string();
        self.exchange.respond(context, 200, |_| {}, Some(Body::new("application/json", json.as_bytes())));
        self.answered(context)
    }
}

/// What the values of an attribute are (JSON Schema 2020-12).
fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Any => json!({}),
        Kind::Id => json!({ "type": ["string", "integer"] }),
        Kind::Int => json!({ "type": "integer", "format": "int32" }),
        Kind::Long => json!({ "type": "integer", "format": "int64" }),
        Kind::BigInt => json!({ "type": "integer" }),
        Kind::Float => json!({ "type": "number", "format": "double" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Date => json!({ "type": "string", "format": "date-time" }),
        Kind::Bytes | Kind::Blob => json!({ "type": "object", "description": "{\"type\":\"Buffer\",\"data\":[…]}" }),
        Kind::Array(element) => json!({ "type": "array", "items": schema_of(&element.kind) }),
        Kind::Object(object) => object_schema(&object.attributes, object.sealed),
    }
}

fn object_schema(attributes: &[Attribute], sealed: bool) -> Value {
    let mut properties = Map::new();
    for own in attributes {
        let mut schema = schema_of(&own.kind);
        if let Some(text) = &own.description {
            schema["description"] = text.as_str().into();
        }
        if matches!(own.role, Role::CreatedTime | Role::UpdatedTime | Role::Virtual) {
            schema["readOnly"] = true.into();
        }
        properties.insert(own.name.clone(), schema);
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    let required: Vec<&str> = attributes.iter().filter(|own| own.required).map(|own| own.name.as_str()).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if sealed {
        schema["additionalProperties"] = false.into();
    }
    schema
}

/// The tables that are exported to REST, and what can be asked of each (OpenAPI 3.1.0).
fn openapi(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for table in catalog.tables.iter().flatten() {
        for export in table.exports.iter().filter(|export| export.rest) {
            let base = if export.path.is_empty() { String::new() } else { format!("/{}", export.path) };
            paths.insert(format!("{base}/"), collection_paths(table));
            paths.insert(format!("{base}/{{id}}"), record_paths(table));
            schemas.entry(table.name.as_str()).or_insert_with(|| record_schema(table));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "tablecast", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "Why the request was refused (RFC 9457)",
                    "content": { "application/problem+json": { "schema": { "type": "object" } } },
                },
            },
            "securitySchemes": { "basic": { "type": "http", "scheme": "basic" } },
        },
        "security": [{ "basic": [] }, {}],
    })
}

fn record_schema(table: &TableDef) -> Value {
    let mut schema = object_schema(&table.attributes, table.sealed);
    if let Some(text) = &table.description {
        schema["description"] = text.as_str().into();
    }
    schema
}

/// A body or an answer in every format that is served for it.
fn content(schema: &Value, also: &[&str]) -> Value {
    let types = Format::ALL.map(Format::media_type).into_iter().chain(also.iter().copied());
    types.map(|it| (it.to_owned(), json!({ "schema": schema }))).collect::<Map<String, Value>>().into()
}

fn operation(summary: &str, table: &TableDef, status: &str, answer: Option<Value>) -> Value {
    let mut success = json!({ "description": summary });
    if let Some(content) = answer {
        success["content"] = content;
    }
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    json!({ "summary": summary, "tags": [table.name], "responses": { status: success, "default": problem } })
}

fn collection_paths(table: &TableDef) -> Value {
    let record = json!({ "$ref": format!("#/components/schemas/{}", table.name) });
    let many = json!({ "type": "array", "items": record });
    let also = ["application/x-ndjson", "text/csv", "text/yaml"];
    let parameter = |own: &Attribute| {
        let description = "equal to this; other comparisons as in ?name=gt=value";
        json!({ "name": own.name, "in": "query", "description": description, "schema": schema_of(&own.kind) })
    };
    let stored = table.attributes.iter().filter(|own| own.role != Role::Virtual);
    let mut get = operation(
        "Records that a query finds, or all; a stream of changes with Accept: text/event-stream",
        table,
        "200",
        Some(content(&many, &also)),
    );
    get["parameters"] = stored.map(parameter).collect();
    let mut post = operation("Creates a record, or several", table, "201", Some(content(&json!({}), &[])));
    post["requestBody"] = json!({ "required": true, "content": content(&record, &also[..1]) });
    let mut put = operation("Writes many records by their keys", table, "204", None);
    put["requestBody"] = json!({ "required": true, "content": content(&many, &also[..1]) });
    let delete =
        operation("Deletes the records that a query finds, or all", table, "200", Some(content(&json!({}), &[])));
    let mut patch = operation("Changes the records that a query finds", table, "204", None);
    patch["requestBody"] = json!({ "required": true, "content": content(&record, &[]) });
    json!({ "get": get, "post": post, "put": put, "patch": patch, "delete": delete })
}

fn record_paths(table: &TableDef) -> Value {
    let record = json!({ "$ref": format!("#/components/schemas/{}", table.name) });
    let body = json!({ "required": true, "content": content(&record, &["application/x-www-form-urlencoded"]) });
    let get = operation("The record", table, "200", Some(content(&record, &["text/csv", "text/yaml"])));
    let mut put = operation("Creates or replaces the record", table, "204", None);
    put["requestBody"] = body.clone();
    let mut patch = operation("Changes attributes of the record, or creates it", table, "204", None);
    patch["requestBody"] = body;
    let delete = operation("Deletes the record", table, "200", Some(content(&json!({ "type": "boolean" }), &[])));
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
    json!({ "parameters": [id], "get": get, "put": put, "patch": patch, "delete": delete })
}
