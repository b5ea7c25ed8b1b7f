//! What a table is declared to be: the result of reading `schema.graphql`, and all that the engine needs to validate a
//! write. Plain data: made by the root crate's `app` module, owned by each shard, never changed while a server runs.

/// Identifies a table inside one data directory. Given out once, kept in the manifest, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u16);

/// A declared table (`type T @table …`).
#[derive(Clone, Debug, PartialEq)]
pub struct TableDef {
    /// Type name, or the `table:` argument of `@table`.
    pub name: String,
    /// `database:` argument (alias `schema:`) of `@table`; default `data`.
    pub database: String,
    /// Where it is reachable. The first is the primary path; aliases follow. Empty: not reachable from outside.
    pub exports: Vec<Export>,
    /// In order of declaration.
    pub attributes: Vec<Attribute>,
    /// Index into `attributes`; `None`: keys are auto-cast and the key is not a property of the record.
    pub primary_key: Option<usize>,
    /// `@sealed`: undeclared attributes are refused.
    pub sealed: bool,
    /// `@table(durability:)`.
    pub durability: Durability,
    /// The type's docstring.
    pub description: Option<String>,
}

/// One path under which a table is exported (`@export(name:)`).
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// Without leading or trailing slash; may contain slashes; empty: the root, catch-all.
    pub path: String,
    pub rest: bool,
    pub sse: bool,
    pub ws: bool,
    pub mqtt: bool,
}

/// What an acknowledgement of a write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged after fdatasync. The default.
    Disk,
    /// Acknowledged once appended to the open batch.
    Memory,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub name: String,
    pub kind: Kind,
    /// `T!`
    pub required: bool,
    /// `@indexed`
    pub indexed: bool,
    pub role: Role,
    pub description: Option<String>,
}

/// What the server itself does with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Plain,
    /// `@createdTime`, or an attribute named `__createdtime__`: set on the first write, kept afterwards.
    CreatedTime,
    /// `@updatedTime`, or an attribute named `__updatedtime__`: set on every write.
    UpdatedTime,
    /// `@expiresAt`
    ExpiresAt,
    /// `@relationship` or `@computed`: not stored, assigning it is a validation error.
    Virtual,
}

/// The type of an attribute (compat §2.3).
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `Any`, and every type name that is not known: anything is accepted.
    Any,
    Id,
    Int,
    Long,
    Float,
    String,
    Boolean,
    Date,
    BigInt,
    Bytes,
    Blob,
    Array(Box<Element>),
    /// A nested object type (a type without `@table`).
    Object(Object),
}

/// The element of an array type: `[T]` or `[T!]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub kind: Kind,
    pub required: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub attributes: Vec<Attribute>,
    pub sealed: bool,
}
