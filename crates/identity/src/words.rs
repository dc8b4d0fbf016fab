//! A key's fingerprint in words, to be read aloud.

use crate::{Hash, PublicKey};

/// Words in a fingerprint: 32 bits, to tell keys apart in talk. Never decide by them.
const COUNT: usize = 4;

impl PublicKey {
    /// Four words such as `apple-river-sable-quilt`, from the SHA-256 of the key.
    ///
    /// They help two people to see that they look at one key; whoever wants to fool them can
    /// search for a key with the same words, so nothing else may rest on them.
    pub fn words(&self) -> String {
        let digest = Hash::of(self.as_bytes());
        let words = digest.as_bytes()[..COUNT]
            .iter()
            .map(|byte| WORDS[usize::from(*byte)]);
        words.collect::<Vec<_>>().join("-")
    }
}

/// One word for each byte. Short, common, unlike each other. The order is part of the format.
#[rustfmt::skip]
const WORDS: [&str; 256] = [
    "acorn", "actor", "agate", "album", "alder", "algae", "almond", "alpine", "amber", "anchor", "angle", "ankle", "apple", "april", "apron", "arch",
    "arrow", "aspen", "atlas", "attic", "autumn", "badge", "bagel", "baker", "bamboo", "banjo", "barley", "basil", "basket", "beach", "beacon", "beaver",
    "beetle", "bell", "berry", "birch", "bison", "blanket", "bloom", "boat", "bonnet", "bottle", "bramble", "brass", "bread", "breeze", "brick", "bridge",
    "brook", "broom", "bubble", "bucket", "buffalo", "bugle", "butter", "button", "cabin", "cactus", "camel", "canal", "candle", "canoe", "canvas", "canyon",
    "carbon", "cargo", "carrot", "castle", "cedar", "cello", "chalk", "cherry", "chess", "cider", "cinema", "circle", "citrus", "clay", "cliff", "clock",
    "clover", "cobalt", "coconut", "comet", "copper", "coral", "cotton", "cousin", "coyote", "cradle", "crane", "crater", "cricket", "crown", "crystal", "cup",
    "daisy", "dancer", "delta", "denim", "desert", "diamond", "dolphin", "domino", "donkey", "dragon", "drum", "dune", "eagle", "earth", "easel", "echo",
    "eclipse", "elbow", "elder", "elm", "ember", "emerald", "engine", "fable", "falcon", "feather", "fern", "ferry", "fiddle", "field", "fig", "finch",
    "flame", "flint", "flute", "fog", "forest", "fossil", "fox", "frost", "galaxy", "garden", "garlic", "garnet", "gecko", "geyser", "ginger", "giraffe",
    "glacier", "glass", "globe", "goose", "granite", "grape", "guitar", "hammer", "harbor", "harp", "hazel", "helmet", "heron", "honey", "horizon", "husky",
    "igloo", "indigo", "ink", "iris", "island", "ivory", "ivy", "jacket", "jaguar", "jasmine", "jelly", "jewel", "jungle", "juniper", "kayak", "kettle",
    "kiwi", "koala", "ladder", "lagoon", "lantern", "laurel", "lava", "lemon", "lilac", "linen", "lion", "lizard", "llama", "lobster", "lotus", "lunar",
    "magnet", "mango", "maple", "marble", "meadow", "melon", "mirror", "mitten", "monkey", "moose", "mosaic", "moss", "muffin", "nectar", "needle", "noodle",
    "oasis", "ocean", "olive", "onion", "opal", "orbit", "orchid", "otter", "owl", "oyster", "paddle", "panda", "paper", "parrot", "peach", "pebble",
    "pepper", "piano", "pigeon", "pillow", "planet", "plum", "pocket", "prairie", "pumpkin", "puzzle", "quartz", "quilt", "rabbit", "radish", "raven", "river",
    "rocket", "sable", "saddle", "salmon", "saturn", "scarf", "silver", "spruce", "summit", "thistle", "tiger", "tulip", "velvet", "walnut", "willow", "zebra",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    #[test]
    fn every_byte_has_a_word_of_its_own() {
        assert!(
            WORDS.is_sorted_by(|a, b| a < b),
            "words are sorted, each once"
        );
        assert!(WORDS.iter().all(|word| (2..=8).contains(&word.len())));
    }

    #[test]
    fn words_of_a_key_do_not_change() {
        let key = SecretKey::from_seed(&[7; 32]).public();
        assert_eq!(key.words(), "willow-flint-bread-atlas");
    }
}
