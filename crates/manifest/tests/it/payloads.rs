//! Payloads read back as they were, and nothing else is read.

use proptest::prelude::*;
use realm_identity::{Artifact, Hash, Kind, PublicKey, SecretKey, canonical};
use realm_manifest::{
    ComponentSpec, Grants, Limits, NodeName, Outbound, OutboundHost, RestartPolicy, Scheme, Tag,
    Volume, VolumeMode, VolumeSource,
    payload::{MAX_PAYLOAD_BYTES, Merge, NodeFacts, Note, Payload, Push, Restart, Run, Scale},
};

use crate::scene::payload;

#[test]
fn every_kind_has_a_payload_of_its_own() {
    for kind in Kind::ALL {
        let payload = payload(kind);
        assert_eq!(payload.kind(), kind);
        assert_eq!(Payload::decode(kind, &payload.encode()).unwrap(), payload);
    }
}

#[test]
fn cuts_and_additions_are_refused() {
    for kind in Kind::ALL {
        let bytes = payload(kind).encode();
        for length in 0..bytes.len() {
            assert!(
                Payload::decode(kind, &bytes[..length]).is_err(),
                "{} at {length}",
                kind.name()
            );
        }
        assert!(Payload::decode(kind, &[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    // A map with the keys 0 and 9: a later version's note.
    let bytes = [0xa2, 0x00, 0x61, b'x', 0x09, 0x01];
    let error = Payload::decode(Kind::Remove, &bytes).unwrap_err();
    assert!(matches!(error, canonical::Error::NotCanonical));
}

#[test]
fn too_large_is_refused() {
    let note = Some("x".repeat(MAX_PAYLOAD_BYTES));
    let bytes = Payload::Remove(Note { note }).encode();
    let error = Payload::decode(Kind::Remove, &bytes).unwrap_err();
    assert!(matches!(error, canonical::Error::TooLarge { .. }));
}

fn note() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".{0,40}")
}

fn node() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(|seed| SecretKey::from_seed(&seed).public())
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::from_bytes)
}

fn artifact() -> impl Strategy<Value = Artifact> {
    (hash(), any::<u64>(), hash()).prop_map(|(sha256, size, blake3)| Artifact {
        sha256,
        size,
        blake3,
    })
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[A-Z_]{1,12}", ".{0,20}", 0..6)
        .prop_map(|map| map.into_iter().collect())
}

fn outbound() -> impl Strategy<Value = Outbound> {
    let host = prop_oneof![
        "[a-z]{1,10}(\\.[a-z]{2,5}){0,3}".prop_map(OutboundHost::Name),
        any::<u32>().prop_map(|bits| OutboundHost::Net(std::net::Ipv4Addr::from(bits).into(), 32)),
        (1u8..=32).prop_map(|prefix| {
            let net = u32::MAX << (32 - u32::from(prefix));
            OutboundHost::Net(std::net::Ipv4Addr::from(net).into(), prefix)
        }),
        (1u8..=128).prop_map(|prefix| {
            let net = u128::MAX << (128 - u32::from(prefix));
            OutboundHost::Net(std::net::Ipv6Addr::from(net).into(), prefix)
        }),
    ];
    let scheme = prop::sample::select(vec![Scheme::Tcp, Scheme::Udp, Scheme::Http, Scheme::Https]);
    (scheme, host, prop::option::of(1u16..), any::<bool>()).prop_map(
        |(scheme, host, port, private)| {
            let private = private && matches!(host, OutboundHost::Name(_));
            Outbound {
                scheme,
                host,
                port,
                private,
            }
        },
    )
}

fn volume() -> impl Strategy<Value = Volume> {
    let source = prop_oneof![
        "[a-z0-9-]{1,20}".prop_map(VolumeSource::Named),
        "(/[a-z0-9._]{3,8}){1,4}".prop_map(VolumeSource::Host),
    ];
    let mode = prop::sample::select(vec![VolumeMode::Ro, VolumeMode::Rw]);
    (source, "(/[a-z0-9]{1,8}){1,4}", mode).prop_map(|(source, guest, mode)| Volume {
        source,
        guest,
        mode,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (any::<(u32, u64, u64, u32, Option<u64>, u32, u64)>()).prop_map(|values| Limits {
        memory_max_mb: values.0,
        fuel: values.1,
        fuel_per_sec: values.2,
        epoch_ms: values.3,
        deadline_ms: values.4,
        max_concurrency: values.5,
        output_bytes_per_sec: values.6,
    })
}

fn grants() -> impl Strategy<Value = Grants> {
    let args = prop::collection::vec(".{0,20}", 0..4);
    let outbound = prop::collection::vec(outbound(), 0..4);
    let volumes = prop::collection::vec(volume(), 0..4);
    (args, pairs(), pairs(), outbound, volumes).prop_map(
        |(args, env, vars, allowed_outbound, volumes)| Grants {
            args,
            env,
            vars,
            allowed_outbound,
            volumes,
        },
    )
}

fn spec() -> impl Strategy<Value = ComponentSpec> {
    let restart = prop::sample::select(RestartPolicy::ALL.to_vec());
    (
        artifact(),
        note(),
        any::<Option<u32>>(),
        limits(),
        grants(),
        restart,
    )
        .prop_map(|(artifact, source, replicas, limits, grants, restart)| {
            let plain = ComponentSpec::new(artifact);
            let mut spec = ComponentSpec {
                source,
                replicas,
                limits,
                grants,
                restart,
                ..plain
            };
            spec.normalize();
            spec
        })
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let facts = || {
        let tags = prop::collection::btree_set("[a-z]{1,9}(=[a-z]{1,9})?", 0..5);
        ("[a-z0-9-]{1,63}", tags, any::<bool>(), note()).prop_map(|(name, tags, drain, note)| {
            NodeFacts {
                name: NodeName::new(name).unwrap(),
                tags: tags.into_iter().map(|tag| Tag::new(tag).unwrap()).collect(),
                drain,
                note,
            }
        })
    };
    let hashes = || prop::collection::vec(hash(), 0..4);
    prop_oneof![
        (spec(), any::<Option<bool>>(), note()).prop_map(|(spec, run, note)| Payload::Push(Push {
            spec,
            run,
            note
        })),
        note().prop_map(|note| Payload::Remove(Note { note })),
        note().prop_map(|note| Payload::NodeRevoke(Note { note })),
        note().prop_map(|note| Payload::NodeRemove(Note { note })),
        note().prop_map(|note| Payload::OwnerRotate(Note { note })),
        (any::<u64>(), note(), prop::collection::vec(node(), 0..3)).prop_map(
            |(generation, note, nodes)| Payload::Restart(Restart {
                generation,
                note,
                nodes
            })
        ),
        (any::<Option<u32>>(), note())
            .prop_map(|(replicas, note)| Payload::Scale(Scale { replicas, note })),
        (any::<bool>(), note()).prop_map(|(run, note)| Payload::Run(Run { run, note })),
        facts().prop_map(Payload::NodeApprove),
        facts().prop_map(Payload::NodeSet),
        (hashes(), hash(), hashes(), note()).prop_map(|(heads, keep, reapply, note)| {
            Payload::Merge(Merge {
                heads,
                keep,
                reapply,
                note,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn any_payload_reads_back(payload in any_payload()) {
        let bytes = payload.encode();
        prop_assert_eq!(Payload::decode(payload.kind(), &bytes).unwrap(), payload);
    }

    #[test]
    fn what_is_read_writes_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for kind in Kind::ALL {
            if let Ok(payload) = Payload::decode(kind, &bytes) {
                prop_assert_eq!(payload.encode(), bytes.clone());
            }
        }
    }

    #[test]
    fn any_outbound_survives_its_text(rule in outbound()) {
        prop_assert_eq!(rule.to_string().parse::<Outbound>().unwrap(), rule);
    }

    #[test]
    fn any_volume_survives_its_text(volume in volume()) {
        prop_assert_eq!(volume.to_string().parse::<Volume>().unwrap(), volume);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~]{0,60}") {
        if let Ok(rule) = text.parse::<Outbound>() {
            prop_assert_eq!(rule.to_string().parse::<Outbound>().unwrap(), rule);
        }
        if let Ok(volume) = text.parse::<Volume>() {
            prop_assert_eq!(volume.to_string().parse::<Volume>().unwrap(), volume);
        }
    }
}
