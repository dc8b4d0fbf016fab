//! Forms that people write: rules, volumes, units, pairs, names.

use std::net::IpAddr;

use realm_manifest::{
    ComponentName, Outbound, OutboundError, OutboundHost, RestartPolicy, Tag, Volume,
    units::{self, PairError, UnitError},
};

#[test]
fn outbound_rules_have_one_form() {
    let table = [
        ("https://api.example.com", "https://api.example.com"),
        ("https://API.Example.com.:443", "https://api.example.com"),
        ("http://example.com:8080", "http://example.com:8080"),
        ("http://example.com:*", "http://example.com:*"),
        ("tcp://example.com", "tcp://example.com"),
        ("tcp://example.com:*", "tcp://example.com"),
        (
            "postgres://db.internal?private",
            "tcp://db.internal:5432?private",
        ),
        ("postgres://db:6432", "tcp://db:6432"),
        ("redis://10.1.2.3", "tcp://10.1.2.3:6379"),
        ("tcp://10.0.0.0/8:5432", "tcp://10.0.0.0/8:5432"),
        ("tcp://10.1.2.3/32?private", "tcp://10.1.2.3"),
        ("udp://[::1]:53", "udp://[::1]:53"),
        ("udp://[fd00::/8]", "udp://[fd00::/8]"),
        ("tcp://[::ffff:10.0.0.1]:80", "tcp://10.0.0.1:80"),
        ("tcp://*:443", "tcp://*:443"),
        ("https://*.example.com", "https://*.example.com"),
        ("tcp://0.0.0.0/0", "tcp://0.0.0.0/0"),
        ("tcp://_srv.example.com:1", "tcp://_srv.example.com:1"),
    ];
    for (text, expected) in table {
        let rule: Outbound = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rule.to_string(), expected, "{text}");
        assert_eq!(expected.parse::<Outbound>().unwrap(), rule);
    }
}

#[test]
fn wrong_outbound_rules_say_what_is_wrong() {
    let of = |text: &str| text.parse::<Outbound>().unwrap_err();
    assert!(matches!(of("example.com:80"), OutboundError::Format(_)));
    assert!(matches!(of("tcp://[::1"), OutboundError::Format(_)));
    assert!(matches!(of("tcp://[::1]80"), OutboundError::Format(_)));
    assert!(matches!(
        of("gopher://example.com"),
        OutboundError::Scheme(_)
    ));
    assert!(matches!(of("HTTP://example.com"), OutboundError::Scheme(_)));
    for port in ["0", "65536", "+80", "http", "", "80:80"] {
        assert!(
            matches!(of(&format!("tcp://a.b:{port}")), OutboundError::Port(_)),
            "{port}"
        );
    }
    for host in [
        "",
        ".",
        "a..b",
        "-".repeat(64).as_str(),
        "a b",
        "a@b",
        "*.*.com",
        "a*.com",
        "[a.b]",
        "a/8",
        "é.com",
    ] {
        assert!(
            matches!(of(&format!("tcp://{host}")), OutboundError::Host(_)),
            "{host}"
        );
    }
    // Old ways to write an IPv4 address, which a resolver would take for one.
    for host in [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "10.0.0.0x1",
        "1.2.3.4.5",
    ] {
        assert!(
            matches!(of(&format!("tcp://{host}")), OutboundError::Host(_)),
            "{host}"
        );
    }
    for net in [
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "[fd00::1/8]",
        "[::/129]",
    ] {
        assert!(
            matches!(of(&format!("tcp://{net}")), OutboundError::Prefix(_)),
            "{net}"
        );
    }
    assert!(matches!(of("tcp://a.b?public"), OutboundError::Option(_)));
    assert!(matches!(of("http://a.b/path"), OutboundError::Host(_)));
}

#[test]
fn hosts_match_what_they_say() {
    let host = |text: &str| text.parse::<OutboundHost>().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(host("10.0.0.0/8").contains(ip("10.255.0.1")));
    assert!(host("10.0.0.0/8").contains(ip("::ffff:10.1.1.1")));
    assert!(!host("10.0.0.0/8").contains(ip("11.0.0.1")));
    assert!(host("0.0.0.0/0").contains(ip("1.2.3.4")));
    assert!(!host("0.0.0.0/0").contains(ip("::1")));
    assert!(host("[fd00::/8]").contains(ip("fd12::1")));
    assert!(!host("[fd00::/8]").contains(ip("fe80::1")));
    assert!(host("192.0.2.1").contains(ip("192.0.2.1")));
    assert!(!host("example.com").contains(ip("192.0.2.1")));
    assert!(host("example.com").matches_name("Example.COM."));
    assert!(!host("example.com").matches_name("a.example.com"));
    assert!(host("*.example.com").matches_name("a.b.example.com"));
    assert!(!host("*.example.com").matches_name("example.com"));
    assert!(!host("*.example.com").matches_name(".example.com"));
    assert!(!host("*.example.com").matches_name("badexample.com"));
    assert!(host("*").matches_name("anything"));
    assert!(!host("192.0.2.1").matches_name("192.0.2.1"));
}

#[test]
fn volumes_have_one_form() {
    let table = [
        ("data:/data", "data:/data:ro"),
        ("data:/data:rw", "data:/data:rw"),
        ("/srv//www/.:/www/", "/srv/www:/www:ro"),
        ("/:/host:ro", "/:/host:ro"),
    ];
    for (text, expected) in table {
        let volume: Volume = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(volume.to_string(), expected);
    }
    for wrong in [
        "",
        "data",
        "data:",
        "data:rel",
        ":/data",
        "./a:/a",
        "Data:/a",
        "/a/../b:/a",
        "d:/a/../b",
        "d:/a:rx",
        "d:/a:rw:x",
        "d:/a\0b",
    ] {
        assert!(wrong.parse::<Volume>().is_err(), "{wrong}");
    }
}

#[test]
fn restart_policies_have_names() {
    for policy in RestartPolicy::ALL {
        assert_eq!(policy.to_string().parse::<RestartPolicy>().unwrap(), policy);
    }
    assert!("sometimes".parse::<RestartPolicy>().is_err());
}

#[test]
fn durations_carry_a_unit() {
    for (text, expected) in [
        ("100ms", 100),
        ("5s", 5_000),
        ("10m", 600_000),
        ("1h 30m", 5_400_000),
        ("2d", 172_800_000),
        ("0s", 0),
    ] {
        assert_eq!(units::duration_ms(text), Ok(expected), "{text}");
    }
    for wrong in [
        "",
        "100",
        "0",
        "s",
        "-5s",
        "5 parsecs",
        "99999999999999999999s",
    ] {
        assert!(
            matches!(units::duration_ms(wrong), Err(UnitError::Duration(_))),
            "{wrong}"
        );
    }
    assert!(matches!(
        units::duration_ms("10us"),
        Err(UnitError::TooFine(_))
    ));
}

#[test]
fn sizes_carry_a_unit() {
    for (text, expected) in [
        ("64MiB", 64 << 20),
        ("1GB", 1_000_000_000),
        ("512 KiB", 512 << 10),
        ("100B", 100),
        ("0B", 0),
    ] {
        assert_eq!(units::size_bytes(text), Ok(expected), "{text}");
    }
    for wrong in [
        "",
        "64",
        "MiB",
        "-1MiB",
        "1XB",
        "1 MiB of",
        "1e400GiB",
        "99999999999999999999PiB",
    ] {
        assert!(units::size_bytes(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn pairs_part_at_the_first_equals_sign() {
    assert_eq!(units::pair("A=b=c"), Ok(("A".into(), "b=c".into())));
    assert_eq!(units::pair("A="), Ok(("A".into(), String::new())));
    assert_eq!(units::pair("A"), Err(PairError::NoEquals));
    assert!(matches!(units::pair("=x"), Err(PairError::Key(_))));
    assert!(matches!(units::pair("A B=x"), Err(PairError::Key(_))));
    assert!(matches!(units::pair("A=x\0"), Err(PairError::Value(_))));
    let twice = units::sorted_pairs([("A".into(), "1".into()), ("A".into(), "2".into())]);
    assert_eq!(twice, Err(PairError::Twice("A".into())));
}

#[test]
fn an_env_file_is_lines_of_pairs() {
    let pairs = units::env_file("# comment\r\n\nB=2\r\n  A = 1\n").unwrap_err();
    assert!(matches!(pairs, PairError::Line { line: 4, .. }));
    let pairs = units::env_file("# comment\r\n\nB=2\r\n  A=1 # kept\n").unwrap();
    assert_eq!(
        pairs,
        [("A".into(), "1 # kept".into()), ("B".into(), "2".into())]
    );
}

#[test]
fn names_of_secrets_are_noticed() {
    for name in [
        "DB_PASSWORD",
        "dbpassword",
        "API_KEY",
        "apikey",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "SSH_PRIVATE_KEY",
        "pass-phrase.passphrase",
    ] {
        assert!(units::looks_secret(name), "{name}");
    }
    for name in [
        "LOG",
        "PORT",
        "KEY",
        "PRIMARY_KEY",
        "TOKENIZER",
        "DB_PASSWORD_FILE",
        "SECRET_PATH",
        "MONKEY",
        "PUBLIC_KEY",
    ] {
        assert!(!units::looks_secret(name), "{name}");
    }
}

#[test]
fn names_are_safe_everywhere() {
    for wrong in ["", "a/b", "A", "a@b", "..", "a_b", &"a".repeat(64)] {
        assert!(ComponentName::new(wrong).is_err(), "{wrong}");
    }
    for right in ["a", "web-1", &"a".repeat(63)] {
        assert!(ComponentName::new(right).is_ok(), "{right}");
    }
    for wrong in ["", "=", "a=", "=a", "a=b=c", "a b"] {
        assert!(Tag::new(wrong).is_err(), "{wrong}");
    }
    assert!(Tag::new("zone=eu-1").is_ok());
}

#[test]
fn sizes_are_told_in_units_that_fit() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (67_000, "66 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        (1 << 20, "1 MiB"),
        (3 << 19, "1.5 MiB"),
        (64 << 20, "64 MiB"),
        (5 << 29, "2.5 GiB"),
    ] {
        assert_eq!(units::size_text(bytes), expected);
    }
    assert!(units::size_text(u64::MAX).ends_with(" GiB"));
}
