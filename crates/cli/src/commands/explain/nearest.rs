//! The word that somebody meant who mistyped one.

/// Bytes of a word; a longer one is no mistyped code.
const MAX_CODE: usize = 64;

/// The code that somebody may have meant, in whichever letters and with whatever between its words.
pub fn to(code: &str, codes: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // No code is longer, and how much work it is grows with both lengths.
    if code.len() > MAX_CODE {
        return None;
    }
    let asked = letters(code);
    let distances = codes.map(|code| (distance(&asked, &letters(code)), code));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may be wrong: more than that is another word.
    (distance * 3 <= asked.len()).then_some(near)
}

/// Only these tell codes apart for who mistypes one.
fn letters(code: &str) -> Vec<char> {
    let letters = code.chars().filter(|one| one.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// How many letters must be put in, taken out or changed to make one of the other (Levenshtein).
fn distance(one: &[char], other: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut before = at;
        let mut left = at + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(other) {
            let changed = before + usize::from(letter != wanted);
            before = *cell;
            left = changed.min(before + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [&str; 5] = ["no-room", "no-match", "disk-full", "degraded", "backoff"];

    #[test]
    fn what_is_mistyped_is_guessed_and_what_is_no_code_is_not() {
        for (typed, meant) in [
            ("NO-ROOM", "no-room"),
            ("noroom", "no-room"),
            ("Disk_Full", "disk-full"),
            ("degradet", "degraded"),
            ("backof", "backoff"),
        ] {
            assert_eq!(to(typed, CODES.into_iter()), Some(meant), "{typed}");
        }
        assert_eq!(to("weather", CODES.into_iter()), None);
        assert_eq!(to(&"x".repeat(1000), CODES.into_iter()), None);
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
    }
}
