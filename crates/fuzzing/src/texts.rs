//! What people write in flags and files: addresses, durations, sizes, hosts, volumes, labels, digests.

use std::{fmt::Display, str::FromStr};

use realm_identity::{Hash, PublicKey, SealingKey};
use realm_manifest::{ComponentName, NodeName, Outbound, RestartPolicy, Tag, Volume, units};
use realm_p2p::{check_address, check_listen_address, is_here_only, relay_of};

/// A hundred years. Longer durations can be written in years, and not in milliseconds.
const LONG_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// Every reader of short texts, each with the whole input.
pub fn feed(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    again::<Outbound>(text);
    again::<Volume>(text);
    again::<Hash>(text);
    again::<PublicKey>(text);
    again::<SealingKey>(text);
    let _ = text.parse::<RestartPolicy>();
    names(text);
    addresses(text);
    numbers(text);
    pairs(text);
    outbound(text);
    // What a program writes is made harmless for a terminal, once and for all.
    let shown = realm_runtime::printable(text);
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\t'),
        "{shown:?}"
    );
}

/// What is read is written so that it reads the same.
fn again<T: FromStr + Display + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    let back = written.parse::<T>().ok();
    assert!(back.is_some_and(|back| back == value), "{written:?}");
}

fn names(text: &str) {
    if let Ok(name) = ComponentName::new(text.to_owned()) {
        assert!((1..=63).contains(&name.as_str().len()));
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = NodeName::new(text.to_owned()) {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.to_string(), text, "a tag is written otherwise");
    }
}

fn addresses(text: &str) {
    let here_only = is_here_only(text);
    let _ = relay_of(text);
    let Ok(address) = check_address(text) else {
        assert!(
            check_listen_address(text).is_err(),
            "listens where it cannot dial"
        );
        return;
    };
    assert_eq!(
        check_address(&address).as_ref(),
        Ok(&address),
        "it changes again"
    );
    assert_eq!(
        is_here_only(&address),
        here_only,
        "two answers for {address}"
    );
    if let Ok(listen) = check_listen_address(text) {
        assert_eq!(listen, address);
    }
    if let Some((_, relay)) = relay_of(&address) {
        // A relay is dialled, so it has to be an address itself, or none.
        let _ = check_address(&relay);
    }
}

fn numbers(text: &str) {
    if let Ok(millis) = units::duration_ms(text)
        && millis <= LONG_MS
    {
        assert_eq!(units::duration_ms(&format!("{millis}ms")), Ok(millis));
    }
    if let Ok(bytes) = units::size_bytes(text) {
        assert!(!units::size_text(bytes).is_empty());
        if bytes < 1 << 53 {
            assert_eq!(units::size_bytes(&format!("{bytes}B")), Ok(bytes));
        }
    }
}

fn pairs(text: &str) {
    if let Ok((key, value)) = units::pair(text) {
        assert_eq!(format!("{key}={value}"), text, "a pair is not what it was");
        let _ = units::looks_secret(&key);
    }
    if let Ok(pairs) = units::env_file(text) {
        assert!(pairs.len() <= units::MAX_PAIRS, "too many pairs");
        assert!(pairs.is_sorted(), "pairs are not sorted");
        let written: String = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        // Blanks at the ends of a line are no part of it; nothing else is lost.
        if pairs.iter().all(|(key, _)| !key.starts_with('#')) {
            assert_eq!(units::env_file(&written), Ok(pairs));
        }
    }
}

fn outbound(text: &str) {
    let Ok(rule) = text.parse::<Outbound>() else {
        return;
    };
    let private = ["127.0.0.1", "::1", "10.0.0.1", "fd00::1", "169.254.169.254"];
    let is_name = matches!(rule.host, realm_manifest::OutboundHost::Name(_));
    for address in private {
        let address = address.parse().expect("an address");
        assert!(
            !(is_name && rule.host.contains(address)),
            "a name is no net"
        );
    }
    assert!(is_name || !rule.private, "an address needs no leave");
}
