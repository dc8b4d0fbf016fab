//! Entries of every kind, as the owner of a scene's realm signs them next.

use realm_identity::{Body, Entry, Hash, Kind, Message, Signed, Target, Timestamp};
use realm_manifest::payload::{Merge, Note, Payload, Restart, Run, Scale};

use super::{
    host::{BYSTANDER, FOREIGNER, HEIR, Host, ME, OWNER, SENDER, STRANGER, Way, public, secret},
    mutate::{Class, Part},
    objects::{Original, sign},
    scenes::{self, Scene, component, facts, genesis_of, next, push},
};

pub fn entries(host: &Host, scene: Scene, way: Way) -> Vec<Original> {
    let note = Note::default;
    let bystander = || Target::Node(public(BYSTANDER));
    let web = || component("web");
    let restart = Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    };
    let scale = Scale {
        replicas: Some(3),
        note: None,
    };
    let run = Run {
        run: false,
        note: None,
    };
    let said = [
        (component("new"), push("new")),
        (web(), Payload::Remove(note())),
        (web(), Payload::Restart(restart)),
        (web(), Payload::Scale(scale)),
        (web(), Payload::Run(run)),
        (Target::Node(public(70)), Payload::NodeApprove(facts(70))),
        (bystander(), Payload::NodeRevoke(note())),
        (bystander(), Payload::NodeSet(facts(71))),
        (Target::Owner(public(103)), Payload::OwnerRotate(note())),
        (bystander(), Payload::NodeRemove(note())),
    ];
    let said = said.into_iter();
    said.map(|(target, payload)| {
        let name = format!("entry {}", payload.kind().name());
        let signed = next(host, &scene.owner(), target, &payload);
        entry(host, scene, way, name, signed)
    })
    .collect()
}

pub fn merge(host: &Host, way: Way) -> Original {
    let log = host.log();
    let tips = log.tips();
    let mut heads: Vec<_> = tips.iter().map(|tip| tip.hash).collect();
    heads.sort();
    let (keep, reapply) = (tips[0].hash, vec![tips[1].hash]);
    let payload = Payload::Merge(Merge {
        heads,
        keep,
        reapply,
        note: None,
    })
    .encode();
    let body = Body {
        state: Hash::of(&log.state_at(keep).unwrap()),
        kind: Kind::Merge.number(),
        target: Target::Realm,
        not_after: None,
        issued_at: Timestamp(1),
        payload: realm_identity::Artifact::of(&payload),
    };
    let seq = tips[0].seq + 1;
    let signed = sign(
        Entry::new(log.realm(), public(OWNER), seq, keep, body),
        &secret(OWNER),
    );
    let signed = scenes::Signature {
        wire: signed.to_wire(),
        hash: signed.hash(),
        payload,
    };
    entry(host, Scene::Forked, way, "entry merge".to_owned(), signed)
}

fn entry(host: &Host, scene: Scene, way: Way, name: String, signed: scenes::Signature) -> Original {
    let said = Signed::<Entry>::from_wire(&signed.wire).unwrap();
    let owner = scene.owner();
    let mut extra = Vec::new();
    let mut add = |class, change: &dyn Fn(&mut Entry, &mut Body)| {
        let mut entry = said.clone().into_inner();
        let mut body = entry.body.clone().unwrap();
        change(&mut entry, &mut body);
        entry.body = Some(body);
        extra.push((class, sign(entry, &owner).to_wire(), None));
    };
    // The owner itself cannot say it of anything else, nor at another place.
    let targets = [
        Target::Realm,
        component("web"),
        Target::Node(public(BYSTANDER)),
        Target::Owner(public(HEIR)),
    ];
    let of = |target: &Target| std::mem::discriminant(target);
    let own = of(&said.body.as_ref().unwrap().target);
    for target in targets.iter().filter(|target| of(target) != own) {
        add(Class::WrongTarget, &|_, body| body.target = target.clone());
    }
    let seq = said.seq;
    for other in [0, 1, seq - 1, seq + 1, seq + 1000, u64::MAX - 1, u64::MAX] {
        add(Class::WrongPlace, &|entry, _| entry.seq = other);
    }
    for hash in [Hash::of(b"nobody"), host.log().realm(), signed.hash] {
        add(Class::WrongPlace, &|entry, _| entry.prev = hash);
        add(Class::WrongPlace, &|_, body| body.state = hash);
        add(Class::WrongPlace, &|entry, body| {
            (entry.prev, body.state) = (hash, hash);
        });
    }
    let foreign = genesis_of(FOREIGNER).realm_id();
    add(Class::ForeignRealm, &|entry, _| entry.realm = foreign);
    // Another payload: with the entry as it is, and one that the owner signed and that says nothing.
    let (wire, payload) = (&signed.wire, &signed.payload);
    let others = [
        Vec::new(),
        [payload.clone(), vec![0]].concat(),
        push("other").encode(),
        Payload::NodeSet(facts(72)).encode(),
    ];
    for other in others.iter().filter(|other| *other != payload) {
        extra.push((Class::WrongPayload, wire.clone(), Some(other.clone())));
    }
    for at in 0..payload.len() {
        let mut other = payload.clone();
        other[at] ^= 1;
        extra.push((Class::WrongPayload, wire.clone(), Some(other)));
        let cut = payload[..at].to_vec();
        extra.push((Class::WrongPayload, wire.clone(), Some(cut)));
    }
    for garbage in [&b""[..], b"\xff", b"\x80", b"\xa1\x18\x63\x01"] {
        let mut entry = said.clone().into_inner();
        if let Some(body) = &mut entry.body {
            body.payload = realm_identity::Artifact::of(garbage);
        }
        let wire = sign(entry, &owner).to_wire();
        extra.push((Class::WrongPayload, wire, Some(garbage.to_vec())));
    }
    // What the log has, and what another realm's has.
    for (class, log) in [
        (Class::Stale, host.log()),
        (Class::ForeignRealm, foreign_realm().log()),
    ] {
        for (entry, payload) in log.agreed(1) {
            extra.push((class, entry.to_wire(), payload.map(<[u8]>::to_vec)));
        }
    }
    let part = Part {
        domain: Entry::DOMAIN,
        bytes: said.signed_bytes().to_vec(),
        signer: owner,
        author: &[2],
        others: scene.not_owners(),
        wrap: Box::new(<[u8]>::to_vec),
    };
    Original {
        name,
        way,
        from: match scene {
            Scene::Waiting => STRANGER,
            _ => SENDER,
        },
        before: Vec::new(),
        wire: signed.wire,
        payload: signed.payload,
        parts: vec![part],
        extra,
    }
}

pub fn foreign_realm() -> Host {
    scenes::realm_of(FOREIGNER, &[ME, SENDER])
}
