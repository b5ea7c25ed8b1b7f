//! `GET /health`: which shards serve, and what the others have lost. Filled in by the server, read by every shard.

use std::sync::OnceLock;

/// One place for each shard, empty while all is well.
pub struct Health {
    shards: Vec<OnceLock<Damage>>,
}

/// Something that was acknowledged cannot be read.
pub struct Damage {
    /// In the data directory.
    pub file: String,
    pub offset: u64,
    /// In words.
    pub detail: String,
}

impl Health {
    pub fn new(shards: usize) -> Health {
        Health { shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    /// The first damage of a shard is the one that counts.
    pub fn report(&self, shard: u16, damage: Damage) {
        let _ = self.shards[usize::from(shard)].set(damage);
    }

    /// The body of the answer: JSON. It is sent with status 200 in any case: the server is there, and what is well
    /// serves.
    pub fn to_json(&self) -> String {
        let shard = |(number, place): (usize, &OnceLock<Damage>)| match place.get() {
            None => format!(r#"{{"shard":{number},"status":"ok"}}"#),
            Some(Damage { file, offset, detail }) => {
                let (file, detail) = (escape(file), escape(detail));
                format!(
                    r#"{{"shard":{number},"status":"damaged","file":"{file}","offset":{offset},"detail":"{detail}"}}"#
                )
            }
        };
        let is_damaged = self.shards.iter().any(|place| place.get().is_some());
        let shards: Vec<String> = self.shards.iter().enumerate().map(shard).collect();
        format!(r#"{{"status":"{}","shards":[{}]}}"#, if is_damaged { "damaged" } else { "ok" }, shards.join(","))
    }
}

/// For a JSON string.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_named() {
        let health = Health::new(2);
        assert!(health.to_json().starts_with(r#"{"status":"ok""#));
        for (offset, detail) in [(64, "events 3 to 9"), (1, "later")] {
            health.report(1, Damage { file: "shard-01/00000002.log".into(), offset, detail: detail.into() });
        }
        let expected = concat!(
            r#"{"status":"damaged","shards":[{"shard":0,"status":"ok"},{"shard":1,"status":"damaged","#,
            r#""file":"shard-01/00000002.log","offset":64,"detail":"events 3 to 9"}]}"#
        );
        assert_eq!(health.to_json(), expected);
    }
}
