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
    /// `@table(deliver:)`.
    pub deliver: Deliver,
    /// `@table(expiration:)`: how long after its write a record vanishes, in milliseconds.
    pub expiration_ms: Option<u64>,
    /// `@table(retention:, retentionBytes:)`.
    pub retention: Retention,
    /// `@relationship`
    pub relations: Vec<Relation>,
    /// The type's docstring.
    pub description: Option<String>,
}

/// An attribute that stands for records of another table: those whose attribute `other` has the value, or one of the
/// values, of this table's attribute `own`.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub attribute: String,
    pub database: String,
    pub table: String,
    pub own: String,
    pub other: String,
    /// It is an array of records; otherwise the first of them, or null.
    pub many: bool,
}

impl TableDef {
    /// A table without attributes that is exported nowhere.
    pub fn new(name: &str) -> TableDef {
        TableDef {
            name: name.to_owned(),
            database: "data".to_owned(),
            exports: Vec::new(),
            attributes: Vec::new(),
            primary_key: None,
            sealed: false,
            durability: Durability::Disk,
            deliver: Deliver::Applied,
            expiration_ms: None,
            retention: Retention::default(),
            relations: Vec::new(),
            description: None,
        }
    }

    /// Whether its records may vanish by themselves.
    pub fn may_expire(&self) -> bool {
        self.expiration_ms.is_some() || self.attributes.iter().any(|attribute| attribute.role == Role::ExpiresAt)
    }
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

/// When subscribers hear of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// As soon as it is applied, before it is on disk. The default.
    Applied,
    /// Once it is on disk. Readers see what is on disk, too.
    Committed,
}

/// How long the history of a table is kept: messages, versions that were replaced, and deletes. The newest version of
/// each record is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// In microseconds.
    pub window_us: u64,
    /// Of history, over all shards; whichever bound is reached first counts.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { window_us: crate::limits::RETENTION_US, bytes: None }
    }
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
