//! The digest of what is asked.

use super::Key;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// 128 bits by two keyed hashes (SipHash, whose keys are this process's secret): who does not know them cannot make two questions
/// that have one digest, and by chance no two ever have. A cryptographic hash of a prompt would cost several times as much as all
/// else that a hit costs.
#[derive(Clone)]
pub struct Digest(DefaultHasher, DefaultHasher);

impl Default for Digest {
    fn default() -> Digest {
        static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(|| (RandomState::new(), RandomState::new()));
        Digest(KEYS.0.build_hasher(), KEYS.1.build_hasher())
    }
}

impl Digest {
    /// Takes a part in, and where it ends.
    pub fn part(&mut self, bytes: &[u8]) {
        for hasher in [&mut self.0, &mut self.1] {
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
    }

    /// The digest of all parts.
    pub fn key(&self) -> Key {
        Key(u128::from(self.0.finish()) << 64 | u128::from(self.1.finish()))
    }

    /// The digest of one part.
    pub fn of(bytes: &[u8]) -> Key {
        let mut digest = Digest::default();
        digest.part(bytes);
        digest.key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_counts_and_where_its_parts_end() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::default();
            parts.iter().for_each(|part| digest.part(part.as_bytes()));
            digest.key()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab", ""]), of(&["ab"]));
        assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
        assert_ne!(of(&["a"]).0 as u64, (of(&["a"]).0 >> 64) as u64, "two hashes, not one twice");
    }
}
