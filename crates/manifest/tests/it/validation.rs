//! What a spec is told before it is signed.

use realm_identity::Artifact;
use realm_manifest::{
    Call, ComponentSpec, HttpSpec, MAX_REPLICAS, Outbound, OutboundHost, Problems, Scheme, Volume,
    VolumeMode, VolumeSource,
    payload::{MAX_PAYLOAD_BYTES, Payload, Push},
};

use crate::scene::{full_spec, key, plain_spec, tag};

fn fields(spec: &ComponentSpec) -> Vec<String> {
    let Problems(problems) = spec.validate().expect_err("must be refused");
    problems.into_iter().map(|problem| problem.field).collect()
}

fn changed(change: impl FnOnce(&mut ComponentSpec)) -> Vec<String> {
    let mut spec = plain_spec();
    change(&mut spec);
    fields(&spec)
}

#[test]
fn good_specs_pass() {
    plain_spec().validate().unwrap();
    full_spec().validate().unwrap();
}

#[test]
fn each_bound_is_named() {
    assert_eq!(changed(|spec| spec.artifact = Artifact::of(b"")), ["file"]);
    assert_eq!(
        changed(|spec| spec.replicas = Some(MAX_REPLICAS + 1)),
        ["replicas"]
    );
    assert_eq!(
        changed(|spec| spec.limits.memory_max_mb = 0),
        ["limits.memory_max_mb"]
    );
    assert_eq!(
        changed(|spec| spec.limits.memory_max_mb = 65_537),
        ["limits.memory_max_mb"]
    );
    assert_eq!(
        changed(|spec| spec.limits.epoch_ms = 0),
        ["limits.epoch_ms"]
    );
    assert_eq!(
        changed(|spec| spec.limits.epoch_ms = 10_001),
        ["limits.epoch_ms"]
    );
    assert_eq!(
        changed(|spec| spec.limits.deadline_ms = Some(0)),
        ["limits.deadline_ms"]
    );
    assert_eq!(
        changed(|spec| spec.limits.max_concurrency = 0),
        ["limits.max_concurrency"]
    );
    assert_eq!(
        changed(|spec| spec.limits.output_bytes_per_sec = 0),
        ["limits.output_bytes_per_sec"]
    );
    assert_eq!(
        changed(|spec| spec.source = Some(String::new())),
        ["source"]
    );
    assert_eq!(
        changed(|spec| spec.grants.args = vec!["\0".into()]),
        ["args"]
    );
    assert_eq!(
        changed(|spec| spec.secrets = vec!["Not A Name".into()]),
        ["secrets"]
    );
    let http = HttpSpec {
        host: None,
        path: "x".into(),
    };
    assert_eq!(changed(|spec| spec.http = Some(http)), ["http.path"]);
}

#[test]
fn sets_are_sorted_and_each_once() {
    let (low, high) = (
        ("A".to_owned(), "1".to_owned()),
        ("B".to_owned(), "2".to_owned()),
    );
    let env = vec![high.clone(), low.clone()];
    assert_eq!(changed(|spec| spec.grants.env = env), ["env"]);
    let vars = vec![low.clone(), ("A".to_owned(), "other".to_owned())];
    assert_eq!(changed(|spec| spec.grants.vars = vars), ["vars"]);
    assert_eq!(
        changed(|spec| spec.placement.tags = vec![tag("b"), tag("a")]),
        ["placement.tags"]
    );
    let node = key(3).public();
    assert_eq!(
        changed(|spec| spec.placement.nodes = vec![node, node]),
        ["placement.nodes"]
    );
    let rule: Outbound = "tcp://a.b:1".parse().unwrap();
    let rules = vec![rule.clone(), rule];
    assert_eq!(
        changed(|spec| spec.grants.allowed_outbound = rules),
        ["allowed_outbound"]
    );
    let volumes = ["a:/x", "b:/x"].map(|text| text.parse::<Volume>().unwrap());
    assert_eq!(
        changed(|spec| spec.grants.volumes = volumes.into()),
        ["volumes"]
    );
    let call = |component: &str| Call {
        import: "a:b/c".into(),
        component: component.into(),
    };
    assert_eq!(
        changed(|spec| spec.calls = vec![call("a"), call("b")]),
        ["calls"]
    );
}

#[test]
fn what_no_text_says_is_malformed() {
    let host = OutboundHost::Name("UPPER.example".into());
    let rule = Outbound {
        scheme: Scheme::Tcp,
        host,
        port: None,
        private: false,
    };
    assert_eq!(
        changed(|spec| spec.grants.allowed_outbound = vec![rule]),
        ["allowed_outbound"]
    );
    let source = VolumeSource::Host("/a/../../etc".into());
    let volume = Volume {
        source,
        guest: "/a".into(),
        mode: VolumeMode::Rw,
    };
    assert_eq!(
        changed(|spec| spec.grants.volumes = vec![volume]),
        ["volumes"]
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = changed(|spec| {
        spec.replicas = Some(9_999);
        spec.limits.memory_max_mb = 0;
        spec.grants.env = vec![(String::new(), String::new())];
    });
    assert_eq!(problems, ["replicas", "limits.memory_max_mb", "env"]);
}

#[test]
fn problems_are_told_on_one_line_each_with_its_key() {
    let mut spec = plain_spec();
    spec.limits.memory_max_mb = 0;
    spec.grants.vars = ["B", "A", "A"].map(|key| (key.into(), "1".into())).into();
    assert_eq!(
        spec.validate().unwrap_err().to_string(),
        "limits.memory_max_mb: is 0, must be 1 to 65536; vars: \"A\" is out of order; \
         vars: \"A\" is given twice"
    );
}

#[test]
fn a_value_is_never_repeated_in_a_problem() {
    let mut spec = plain_spec();
    spec.grants.env = vec![
        ("A".into(), "hunter2\0".into()),
        ("A".into(), "hunter2".into()),
    ];
    let words = spec.validate().unwrap_err().to_string();
    assert!(words.contains("the value of \"A\""), "{words}");
    assert!(!words.contains("hunter2"), "{words}");
}

#[test]
fn what_passes_fits_a_payload_with_the_longest_note() {
    let mut spec = full_spec();
    let value = |size: usize| vec![("BIG".to_owned(), "x".repeat(size))];
    spec.grants.env = value(MAX_PAYLOAD_BYTES);
    assert_eq!(fields(&spec), ["component"]);
    let mut size = MAX_PAYLOAD_BYTES;
    while spec.validate().is_err() {
        size -= 1;
        spec.grants.env = value(size);
    }
    let note = Some("x".repeat(realm_manifest::MAX_NOTE_BYTES));
    let payload = Payload::Push(Push {
        spec,
        run: Some(false),
        note,
    });
    let encoded = payload.encode().len();
    assert!(
        encoded <= MAX_PAYLOAD_BYTES && encoded + 128 > MAX_PAYLOAD_BYTES,
        "{encoded}"
    );
}

#[test]
fn normal_specs_of_equal_content_have_equal_digests() {
    let mut one = plain_spec();
    one.placement.tags = vec![tag("b"), tag("a"), tag("a")];
    one.grants.env = vec![("B".into(), "2".into()), ("A".into(), "1".into())];
    let mut two = plain_spec();
    two.placement.tags = vec![tag("a"), tag("b")];
    two.grants.env = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
    assert_ne!(one.digest(), two.digest());
    one.normalize();
    two.normalize();
    assert_eq!(one.digest(), two.digest());
    one.validate().unwrap();
}

#[test]
fn parts_that_are_not_built_are_refused_by_name() {
    assert_eq!(plain_spec().unsupported(), Ok(()));
    let error = full_spec().unsupported().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`http` is not supported by this version of realm"
    );
}

/// The fold refuses what passes these, so nodes that differ in one stop agreeing about the log.
#[test]
fn bounds_are_part_of_the_format() {
    use realm_manifest::{
        MAX_CONCURRENCY, MAX_DEADLINE_MS, MAX_EPOCH_MS, MAX_GRANTS, MAX_MEMORY_MB, units,
    };

    let why = "needs a new entry version: docs/decisions/0007-limits-of-a-spec-are-consensus.md";
    assert_eq!(MAX_PAYLOAD_BYTES, 49_152, "{why}");
    assert_eq!((MAX_REPLICAS, MAX_MEMORY_MB), (1000, 65_536), "{why}");
    assert_eq!(
        (MAX_EPOCH_MS, MAX_DEADLINE_MS),
        (10_000, 604_800_000),
        "{why}"
    );
    assert_eq!((MAX_CONCURRENCY, MAX_GRANTS), (10_000, 64), "{why}");
    assert_eq!(units::MAX_PAIRS, 1024, "{why}");
    let longest_name = "a".repeat(63);
    assert!(
        longest_name
            .parse::<realm_manifest::ComponentName>()
            .is_ok(),
        "{why}"
    );
    let fits = |length| {
        let mut spec = plain_spec();
        spec.source = Some("x".repeat(length));
        spec.validate().is_ok()
    };
    assert!(fits(2048) && !fits(2049), "{why}");
    let fits = |length| {
        let mut spec = plain_spec();
        spec.grants.args = vec!["x".repeat(length)];
        spec.validate().is_ok()
    };
    assert!(fits(47_944) && !fits(47_945), "{why}");
}
