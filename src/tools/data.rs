//! A data directory that is only read, what can go wrong with it, and how its parts are shown.

use super::ToolError;
use shards::clock::Version;
use shards::document::Date;
use shards::manifest::{DataDirectory, DataError, Manifest, shard_folder};
use shards::schema::TableId;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Data that was acknowledged cannot be read (`EX_DATAERR` of sysexits.h).
pub const EXIT_DAMAGED: u8 = 65;

/// A data directory that is only read.
pub struct Data {
    pub path: PathBuf,
    pub manifest: Manifest,
}

impl Data {
    pub fn open(path: &Path) -> Result<Data, ToolError> {
        match DataDirectory::peek(path) {
            Ok(manifest) => Ok(Data { path: path.to_owned(), manifest }),
            Err(DataError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(ToolError::Refused(format!("{}: no data directory (it has no manifest.json)", path.display())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The directory of a shard, inside the data directory.
    pub fn shard_name(&self, shard: u16) -> String {
        shard_folder(shard, self.manifest.layout)
    }

    pub fn shard_path(&self, shard: u16) -> PathBuf {
        self.path.join(self.shard_name(shard))
    }

    /// `Sensors`, or `database.Sensors`.
    pub fn table_name(&self, table: TableId) -> String {
        match self.manifest.tables.get(usize::from(table.0)) {
            Some(table) if table.database == "data" => table.name.clone(),
            Some(table) => format!("{}.{}", table.database, table.name),
            None => format!("table {}", table.0),
        }
    }
}

/// `2026-11-21T22:53:36.123456Z`.
pub fn version_text(version: Version) -> String {
    date_text(version.0)
}

/// Of microseconds since 1970.
pub fn date_text(micros: u64) -> String {
    let mut text = String::new();
    shards::date::write_iso(Date::from_micros(micros), &mut text);
    text
}

/// A key as text, and in hexadecimal digits where it is not plain text already. The schema of the data is not known
/// here, so that the form is told by its bytes (`shards::key`): no text key begins with a control character, and hardly
/// an integer is a text.
pub fn key_text(key: &[u8]) -> (String, Option<String>) {
    use shards::key::KeyCodec;
    let mut scratch = String::new();
    let plain = std::str::from_utf8(key).ok().filter(|text| !text.chars().any(char::is_control));
    if let Some(plain) = plain {
        return (plain.to_owned(), None);
    }
    let text = match key {
        [1, 0 | 1] | [2, _, _, _, _, _, _, _, _] => KeyCodec::Auto.text(key, &mut scratch).to_owned(),
        [3, text @ ..] if std::str::from_utf8(text).is_ok() => KeyCodec::Auto.text(key, &mut scratch).to_owned(),
        [_, _, _, _, _, _, _, _] => KeyCodec::Integer.text(key, &mut scratch).to_owned(),
        _ => String::from_utf8_lossy(key).into_owned(),
    };
    let text = text.chars().map(|character| if character.is_control() { '.' } else { character }).collect();
    (text, Some(key.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// `1 record`, `2 records`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a line to standard output; whoever has closed it wants no more.
pub fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use shards::key::KeyCodec;

    #[test]
    fn keys_are_shown_without_their_schema() {
        let cases = [
            (KeyCodec::Text, "sensor 1", None),
            (KeyCodec::Text, "ä/b", None),
            (KeyCodec::Integer, "-5", Some("7ffffffffffffffb")),
            (KeyCodec::Integer, "70000", Some("8000000000011170")),
            (KeyCodec::Auto, "true", Some("0101")),
            (KeyCodec::Auto, "2.5", Some("02c004000000000000")),
            (KeyCodec::Auto, "abc", Some("03616263")),
        ];
        for (codec, text, hex) in cases {
            let mut key = Vec::new();
            codec.encode_text(text, &mut key).expect("a key");
            assert_eq!(key_text(&key), (text.to_owned(), hex.map(str::to_owned)), "{codec:?}");
        }
    }
}
