//! Durations, sizes and pairs as people write them in flags and files.

use bytesize::ByteSize;

/// Most pairs in one env file or on one command line; the payload's bound comes first in practice.
pub const MAX_PAIRS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("{0:?} is not a duration: write a number and ms, s, m, h or d, such as 100ms or 10m")]
    Duration(String),
    #[error("{0:?} is finer than a millisecond")]
    TooFine(String),
    #[error("{0:?} is not a size: write a number and KiB, MiB or GiB, such as 64MiB")]
    Size(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    // The value may be a secret: it is not repeated.
    #[error("a pair is written KEY=VALUE, and this one has no '='")]
    NoEquals,
    #[error("{0:?} is not a key: it is empty, or has a blank, '=' or a zero byte")]
    Key(String),
    #[error("the value of {0:?} has a zero byte")]
    Value(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("more than {MAX_PAIRS} pairs")]
    TooMany,
    #[error("line {line}")]
    Line { line: usize, source: Box<PairError> },
}

/// Milliseconds of a duration with its unit: `100ms`, `5s`, `10m`, `1h 30m`.
pub fn duration_ms(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Duration(text.to_owned());
    let duration = humantime::parse_duration(text.trim()).map_err(|_| error())?;
    if text.trim().bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(UnitError::TooFine(text.to_owned()));
    }
    u64::try_from(duration.as_millis()).map_err(|_| error())
}

/// Bytes of a size with its unit: `64MiB`, `1GB` (decimal), `512KiB`, `100B`.
pub fn size_bytes(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Size(text.to_owned());
    let text = text.trim();
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    let starts_well = text.starts_with(|first: char| first.is_ascii_digit());
    match text.parse::<ByteSize>() {
        Ok(size) if has_unit && starts_well && size.0 < u64::MAX => Ok(size.0),
        _ => Err(error()),
    }
}

/// Bytes as people read them: `812 B`, `66 KiB`, `1.5 MiB`; below a MiB rounded up to whole KiB.
pub fn size_text(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = KIB * KIB;
    const GIB: u64 = MIB * KIB;
    let tenths = |unit: u64, name: &str| {
        let tenths = u128::from(bytes) * 10 / u128::from(unit);
        match tenths % 10 {
            0 => format!("{} {name}", tenths / 10),
            part => format!("{}.{part} {name}", tenths / 10),
        }
    };
    match bytes {
        0..KIB => format!("{bytes} B"),
        // What rounds up to a MiB is one.
        KIB..MIB if bytes.div_ceil(KIB) < KIB => format!("{} KiB", bytes.div_ceil(KIB)),
        KIB..MIB => "1 MiB".to_owned(),
        MIB..GIB => tenths(MIB, "MiB"),
        GIB.. => tenths(GIB, "GiB"),
    }
}

/// Parts `KEY=VALUE` at the first `=`.
pub fn pair(text: &str) -> Result<(String, String), PairError> {
    let (key, value) = text.split_once('=').ok_or(PairError::NoEquals)?;
    check_pair(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks a pair as it stands in a spec.
pub(crate) fn check_pair(key: &str, value: &str) -> Result<(), PairError> {
    if key.is_empty() || key.contains(['=', '\0']) || key.contains(char::is_whitespace) {
        return Err(PairError::Key(key.to_owned()));
    }
    if value.contains('\0') {
        return Err(PairError::Value(key.to_owned()));
    }
    Ok(())
}

/// Sorts pairs by key, as specs keep them; a key given twice is an error.
pub fn sorted_pairs(
    pairs: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(String, String)>, PairError> {
    let mut sorted: Vec<_> = pairs.into_iter().take(MAX_PAIRS + 1).collect();
    if sorted.len() > MAX_PAIRS {
        return Err(PairError::TooMany);
    }
    sorted.sort();
    match sorted.windows(2).find(|two| two[0].0 == two[1].0) {
        Some(two) => Err(PairError::Twice(two[0].0.clone())),
        None => Ok(sorted),
    }
}

/// Reads an env file: `KEY=VALUE` lines, blank lines, and lines that begin with `#`.
///
/// A value is all that follows the first `=`, without the blanks at the line's end; nothing is unquoted or expanded.
pub fn env_file(text: &str) -> Result<Vec<(String, String)>, PairError> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    let pairs = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let pairs = pairs.map(|(line, text)| {
        pair(text).map_err(|source| PairError::Line {
            line,
            source: Box::new(source),
        })
    });
    sorted_pairs(pairs.collect::<Result<Vec<_>, _>>()?)
}

/// Whether an environment variable's name says that its value is a secret.
///
/// For a warning: a spec is signed and stored in the clear on every node. `DB_PASSWORD_FILE`
/// names a file, not a secret.
pub fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "credentials",
        "apikey",
    ];
    const KEYS: [&str; 7] = [
        "api",
        "access",
        "private",
        "signing",
        "encryption",
        "secret",
        "auth",
    ];
    let lower = name.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(['_', '-', '.']).collect();
    if matches!(parts.last(), Some(&("file" | "path" | "dir"))) {
        return false;
    }
    parts
        .iter()
        .any(|part| WORDS.iter().any(|word| part.ends_with(word)))
        || parts
            .windows(2)
            .any(|two| two[1] == "key" && KEYS.contains(&two[0]))
}
