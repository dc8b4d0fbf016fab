//! A word in a file with its checksum: a digit that changed on disk is damage, not another number.

use realm_identity::Hash;

/// The word as it is written.
pub fn seal(word: &str) -> String {
    format!("{} {word}\n", checksum(word))
}

fn checksum(word: &str) -> String {
    format!("sha256:{}", Hash::of(word.as_bytes()))
}

/// The word that was sealed; None where it changed since. Earlier versions wrote the word alone, which
/// no part of a sealed one looks like: the checksum comes first.
pub fn unseal(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let Some((found, word)) = text.split_once(' ') else {
        return Some(text.trim_end());
    };
    let word = word.strip_suffix('\n')?;
    (found == checksum(word)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_word_turns_over_unseen() {
        let word = "1234567";
        let sealed = seal(word).into_bytes();
        assert_eq!(unseal(&sealed), Some(word));
        assert_eq!(unseal(word.as_bytes()), Some(word));
        for at in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let number = unseal(&flipped).and_then(|word| word.parse::<u64>().ok());
            assert_eq!(number, None, "bit {at}");
        }
        for length in 0..sealed.len() {
            let number = unseal(&sealed[..length]).and_then(|word| word.parse::<u64>().ok());
            assert_eq!(number, None, "cut at {length}");
        }
    }
}
