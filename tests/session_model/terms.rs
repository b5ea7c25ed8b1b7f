//! How clients connect.

use crate::world::Chance;

pub const TOPICS: [&str; 6] = ["a/b", "a/c", "a/b/e", "d", "s/x", "s/y"];

/// How to connect.
#[derive(Clone, Debug)]
pub struct Terms {
    pub is_clean: bool,
    pub expiry_s: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub alias_maximum: u16,
    /// Topic, QoS and delay.
    pub will: Option<(&'static str, u8, u32)>,
}

impl Terms {
    pub fn any(chance: &mut Chance) -> Terms {
        Terms {
            is_clean: chance.one_in(4),
            expiry_s: [Some(0), Some(5), Some(3600), Some(3600), None][chance.below(5)],
            receive_maximum: [None, Some(1), Some(2), Some(5), Some(20)][chance.below(5)],
            alias_maximum: [0, 0, 3][chance.below(3)],
            will: chance
                .one_in(4)
                .then(|| (TOPICS[chance.below(4)], chance.below(3) as u8, [0, 0, 3, 30][chance.below(4)])),
        }
    }
}
