//! One of everything that is signed, every field of it filled in. The same bytes every time.

use realm_identity::{
    Artifact, Body, Claim, Entry, Genesis, GraftChallenge, Hash, Invite, Kind, Message,
    SealingCertificate, SealingSecret, SecretKey, Signed, Target, Timestamp, VerifiedClaim,
    WitnessedClaim,
};
use realm_manifest::{
    Call, ComponentName, ComponentSpec, Grants, Health, HealthProbe, HttpSpec, ImageSpec, Limits,
    NativeSpec, NodeName, Placement, RestartPolicy, Rollout, Tag,
    payload::{Merge, NodeFacts, Note, Payload, Push, Restart, Run, Scale},
    report::{
        Capacity, CellReport, CellState, Declined, Held, NodeReport, NodeState, Reason, Retry,
        StatusDigest,
    },
};

/// 2026-01-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn owner() -> SecretKey {
    key(1)
}

pub fn node() -> SecretKey {
    key(3)
}

pub fn sign<T: Message>(value: T, key: &SecretKey) -> Signed<T> {
    Signed::sign(value, key).unwrap()
}

pub fn genesis() -> Signed<Genesis> {
    sign(
        Genesis::new(owner().public(), "home".to_owned(), [9; 32]),
        &owner(),
    )
}

pub fn invite() -> Signed<Invite> {
    let invite = Invite {
        v: 1,
        realm: genesis().hash(),
        genesis: genesis().to_wire(),
        owner: owner().public(),
        key: key(2).public(),
        name: Some("pi".to_owned()),
        tags: vec!["edge".to_owned()],
        not_after: NOW.plus_millis(3_600_000),
        issued_at: NOW,
        addresses: vec!["/ip4/192.0.2.1/udp/2020/quic-v1".to_owned()],
    };
    sign(invite, &owner())
}

pub fn sealing() -> Signed<SealingCertificate> {
    let key = SealingSecret::from_bytes(&[5; 32]).public();
    sign(SealingCertificate::new(node().public(), key, NOW), &node())
}

pub fn witnessed() -> WitnessedClaim {
    let claim = Claim::sign(&invite(), &key(2), &node(), NOW).unwrap();
    let claim = VerifiedClaim::new(claim, genesis().hash(), &[owner().public()]).unwrap();
    claim.witness(&key(4), NOW).unwrap()
}

pub fn challenge() -> Signed<GraftChallenge> {
    let (realm, node) = (Some(genesis().hash()), node().public());
    sign(
        GraftChallenge::new(realm, node, owner().public(), [5; 32], 3),
        &owner(),
    )
}

pub fn name(text: &str) -> ComponentName {
    ComponentName::new(text).unwrap()
}

pub fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

/// What `realm push` makes of a file and no flags.
pub fn plain_spec() -> ComponentSpec {
    ComponentSpec::new(Artifact::of(b"(component)"))
}

/// Every field filled in, in order, and valid.
pub fn full_spec() -> ComponentSpec {
    let mut spec = ComponentSpec {
        artifact: Artifact::of(b"(component)"),
        source: Some("./web.wasm".to_owned()),
        world: Some("wasi:cli/command".to_owned()),
        replicas: Some(2),
        placement: Placement {
            nodes: vec![node().public(), key(4).public()],
            tags: vec![tag("edge"), tag("zone=a")],
            spread: Some("zone".to_owned()),
        },
        limits: Limits {
            memory_max_mb: 128,
            fuel: 1_000_000,
            fuel_per_sec: 50_000,
            epoch_ms: 20,
            deadline_ms: Some(5_000),
            max_concurrency: 8,
            output_bytes_per_sec: 65_536,
        },
        grants: Grants {
            args: vec!["--port".to_owned(), "80".to_owned()],
            env: vec![("LOG".to_owned(), "info".to_owned())],
            vars: vec![("greeting".to_owned(), "hello".to_owned())],
            allowed_outbound: [
                "https://*.example.com",
                "postgres://10.0.0.0/8",
                "udp://[fd00::/8]:53",
            ]
            .map(|text| text.parse().unwrap())
            .into(),
            volumes: vec![
                "data:/data:rw".parse().unwrap(),
                "/srv/www:/www".parse().unwrap(),
            ],
        },
        restart: RestartPolicy::Always,
        http: Some(HttpSpec {
            host: Some("example.com".to_owned()),
            path: "/".to_owned(),
        }),
        image: Some(ImageSpec {
            layers: vec![Artifact::of(b"layer")],
            entry: Some("/bin/main".to_owned()),
        }),
        native: Some(NativeSpec {
            command: vec!["/bin/true".to_owned()],
        }),
        rollout: Some(Rollout {
            max_surge: 1,
            max_unavailable: 1,
            auto_revert: true,
        }),
        health: Some(Health {
            probe: HealthProbe::Http("/healthz".to_owned()),
            interval_ms: 1_000,
            failures: 3,
        }),
        secrets: vec!["db".to_owned()],
        calls: vec![Call {
            import: "math:add/ops".to_owned(),
            component: "math".to_owned(),
        }],
    };
    spec.normalize();
    spec
}

fn note() -> Option<String> {
    Some("because".to_owned())
}

fn facts() -> NodeFacts {
    let tags = vec![tag("edge"), tag("zone=a")];
    NodeFacts {
        name: NodeName::new("pi").unwrap(),
        tags,
        drain: true,
        note: note(),
    }
}

/// A payload of `kind`. The match has no wildcard: a kind without one does not compile.
pub fn payload(kind: Kind) -> Payload {
    match kind {
        Kind::Push => Payload::Push(Push {
            spec: full_spec(),
            run: Some(true),
            note: note(),
        }),
        Kind::Remove => Payload::Remove(Note { note: note() }),
        Kind::Restart => Payload::Restart(Restart {
            generation: 3,
            note: note(),
            nodes: Vec::new(),
        }),
        Kind::Scale => Payload::Scale(Scale {
            replicas: Some(5),
            note: note(),
        }),
        Kind::Run => Payload::Run(Run {
            run: true,
            note: note(),
        }),
        Kind::NodeApprove => Payload::NodeApprove(facts()),
        Kind::NodeRevoke => Payload::NodeRevoke(Note { note: note() }),
        Kind::NodeSet => Payload::NodeSet(facts()),
        Kind::NodeRemove => Payload::NodeRemove(Note { note: note() }),
        Kind::OwnerRotate => Payload::OwnerRotate(Note { note: note() }),
        Kind::Merge => Payload::Merge(Merge {
            heads: vec![Hash::of(b"one"), Hash::of(b"two")],
            keep: Hash::of(b"one"),
            reapply: vec![Hash::of(b"two")],
            note: note(),
        }),
    }
}

fn target(kind: Kind) -> Target {
    match kind {
        Kind::Push | Kind::Remove | Kind::Restart | Kind::Scale | Kind::Run => {
            Target::Component("web".to_owned())
        }
        Kind::NodeApprove | Kind::NodeRevoke | Kind::NodeSet | Kind::NodeRemove => {
            Target::Node(node().public())
        }
        Kind::OwnerRotate => Target::Owner(key(8).public()),
        Kind::Merge => Target::Realm,
    }
}

pub fn entry(kind: Kind) -> Signed<Entry> {
    let body = Body {
        state: Hash::of(b"state"),
        kind: kind.number(),
        target: target(kind),
        not_after: Some(NOW.plus_millis(60_000)),
        issued_at: NOW,
        payload: Artifact::of(&payload(kind).encode()),
    };
    sign(
        Entry::new(
            genesis().hash(),
            owner().public(),
            7,
            Hash::of(b"parent"),
            body,
        ),
        &owner(),
    )
}

fn reason() -> Reason {
    Reason {
        code: "memory-limit".to_owned(),
        message: "used 64 MiB".to_owned(),
        help: Some("raise --memory-max-mb".to_owned()),
    }
}

pub fn report() -> Signed<NodeReport> {
    let cell = CellReport {
        component: name("web"),
        index: 1,
        spec: full_spec().digest(),
        generation: 2,
        state: CellState::Backoff,
        reason: Some(reason()),
        restarts: 4,
        memory_bytes: 65_536,
        fuel_used: Some(1_000),
        preemptions: 12,
        started_at: Some(NOW),
        exit_code: Some(-7),
        retry: Some(Retry {
            crashes: 3,
            at: Some(NOW),
        }),
    };
    let declined = Declined {
        component: name("db"),
        spec: Hash::of(b"db"),
        reason: reason(),
    };
    let report = NodeReport {
        node: node().public(),
        realm: genesis().hash(),
        boot_id: 11,
        seq: 12,
        at: NOW,
        revision: 7,
        head: Hash::of(b"head"),
        state: NodeState::Ready,
        name: NodeName::new("pi").unwrap(),
        tags: vec![tag("edge")],
        version: "0.1.0".to_owned(),
        addresses: vec!["/ip4/192.0.2.1/tcp/2020".to_owned()],
        cpu_hundredths: Some(250),
        memory_bytes: Some(30_000_000),
        capacity: Capacity {
            memory_mb: 1024,
            cells: 100,
        },
        cells: vec![cell],
        declined: vec![declined],
        holds: vec![Held {
            component: name("db"),
            cells: 2,
        }],
        sealing: Some(sealing().to_wire().into()),
        problems: vec![reason()],
    };
    sign(report, &node())
}

pub fn status() -> Signed<StatusDigest> {
    let status = StatusDigest {
        node: node().public(),
        realm: genesis().hash(),
        boot_id: 11,
        seq: 12,
        at: NOW,
        revision: 7,
        head: Hash::of(b"head"),
        state: NodeState::Ready,
        report: report().hash(),
        cells_running: 1,
        cells_wanted: 2,
        problems: vec!["memory-limit".to_owned()],
    };
    sign(status, &node())
}
