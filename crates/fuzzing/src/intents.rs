//! Intents and everything else that is signed: the envelope, the content, and what it changes.

use realm_identity::{
    Claim, Consent, Entry, Genesis, GraftChallenge, Hash, Invite, Kind, Message,
    SealingCertificate, Signature, Signed, Target, Witness, WitnessedClaim, canonical,
};
use realm_manifest::{
    payload::{MAX_PAYLOAD_BYTES, Payload},
    report::{NodeReport, StatusDigest},
};
use realm_planner::{NodeView, Nodes, OwnCell, PlanInput, State, fold, plan, status};
use realm_protocol::{HeadAnnounce, JoinRequest};

use crate::{
    scene::{self, NODES, key, scene},
    script,
};

/// Entries of one input that are folded one after the other.
const MAX_ENTRIES: usize = 32;

/// All of it as one envelope; then as entries, each with its payload behind it, that the realm's owner
/// signed behind what came before.
pub fn feed(input: &[u8]) {
    envelopes(input);
    let mut state = scene().state.clone();
    let mut head = scene().head;
    let mut steps = script::steps(input).map(|step| step.bytes);
    for _ in 0..MAX_ENTRIES {
        let (Some(wire), payload) = (steps.next(), steps.next().unwrap_or_default()) else {
            break;
        };
        envelopes(wire);
        Kind::ALL
            .into_iter()
            .for_each(|kind| payload_of(kind, payload));
        let Some(wire) = scene::chained(wire, payload, &state, head) else {
            continue;
        };
        let entry = Signed::<Entry>::from_wire(&wire).expect("it was signed just now");
        let Ok(next) = fold::apply(&state, &entry, payload) else {
            continue;
        };
        changed(&state, &next, &entry, payload);
        (state, head) = (next, entry.hash());
    }
    looks(&state);
}

fn envelopes(wire: &[u8]) {
    envelope::<Entry>(wire);
    envelope::<Genesis>(wire);
    envelope::<Invite>(wire);
    envelope::<Consent>(wire);
    envelope::<Claim>(wire);
    envelope::<Witness>(wire);
    envelope::<SealingCertificate>(wire);
    envelope::<GraftChallenge>(wire);
    envelope::<NodeReport>(wire);
    envelope::<StatusDigest>(wire);
    envelope::<HeadAnnounce>(wire);
    envelope::<JoinRequest>(wire);
    for wire in [Some(wire.to_vec()), scene::witnessed_again(wire)] {
        let claim = wire.and_then(|wire| Some((WitnessedClaim::from_wire(&wire).ok()?, wire)));
        if let Some((claim, wire)) = claim {
            assert_eq!(claim.to_wire(), wire, "a claim has two encodings");
            let owners = [scene::owner().public()];
            let _ = claim.verify(scene().genesis.realm_id(), &owners, |_| true);
        }
    }
}

/// What verifies was signed by its author over exactly these bytes, told without the code that
/// verified it; and what is signed anew comes back.
fn envelope<T: Message>(wire: &[u8]) {
    if let Ok(signed) = Signed::<T>::from_wire(wire) {
        assert_eq!(signed.to_wire(), wire, "an envelope has two encodings");
        assert_eq!(
            signed.to_bytes(),
            signed.signed_bytes(),
            "signed other bytes"
        );
        let input = [
            b"realm/v1/",
            T::DOMAIN.as_bytes(),
            b"\0",
            signed.signed_bytes(),
        ]
        .concat();
        let last: [u8; 64] = *wire.last_chunk().expect("a signature is at the end");
        let signature = Signature::from_bytes(&last);
        assert!(
            signed.author().verify(&input, &signature),
            "accepted a forgery"
        );
        assert_eq!(signed.hash(), Hash::of(signed.signed_bytes()));
    }
    let again = scene::signed_again::<T>(wire);
    if let Some(again) = again.filter(|again| again.len() <= T::MAX_BYTES) {
        let signed = Signed::<T>::from_wire(&again).expect("it was signed just now");
        assert_eq!(signed.to_wire(), again, "an envelope has two encodings");
    }
}

fn payload_of(kind: Kind, bytes: &[u8]) {
    let Ok(payload) = Payload::decode(kind, bytes) else {
        return;
    };
    assert_eq!(payload.encode(), bytes, "a payload has two encodings");
    assert_eq!(payload.kind(), kind, "a payload of another kind");
    assert!(
        bytes.len() <= MAX_PAYLOAD_BYTES,
        "a payload beyond its bound"
    );
    if let Payload::Push(push) = payload {
        let mut spec = push.spec.clone();
        spec.normalize();
        let once = spec.digest();
        spec.normalize();
        assert_eq!(spec.digest(), once, "normalising twice is not once");
        if push.spec.validate().is_ok() {
            assert!(spec.validate().is_ok(), "normalising spoils a spec");
        }
        let bytes = canonical::encode(&push.spec);
        let back: Result<realm_manifest::ComponentSpec, _> =
            canonical::decode(&bytes, MAX_PAYLOAD_BYTES);
        assert_eq!(
            back.ok().as_ref(),
            Some(&push.spec),
            "a spec does not come back"
        );
    }
}

fn changed(before: &State, after: &State, entry: &Entry, payload: &[u8]) {
    assert_eq!(after.revision, before.revision + 1, "the revision jumped");
    assert_eq!(after.realm, before.realm, "another realm");
    let bytes = after.encode();
    let back = State::decode(&bytes);
    assert_eq!(
        back.ok().as_ref(),
        Some(after),
        "a state does not come back"
    );
    let again = fold::apply(before, entry, payload);
    assert_eq!(again.ok().as_ref(), Some(after), "two folds, two states");
    if after.owner != before.owner {
        assert_eq!(entry.kind(), Some(Kind::OwnerRotate), "who owns it changed");
        let target = entry.body.as_ref().map(|body| &body.target);
        assert_eq!(target, Some(&Target::Owner(after.owner)), "another owner");
    }
}

/// What is made of a state: placement, a plan and a status, the same each time.
fn looks(state: &State) {
    let view = NodeView {
        tags: Vec::new(),
        present: true,
        settled: true,
        boot_id: None,
        report: None,
    };
    let nodes: Nodes = NODES[..3]
        .iter()
        .map(|number| (key(*number).public(), view.clone()))
        .collect();
    let own: Vec<OwnCell> = Vec::new();
    let planned = || {
        plan(&PlanInput {
            state,
            me: key(NODES[0]).public(),
            nodes: &nodes,
            own: &own,
        })
    };
    assert_eq!(planned(), planned(), "two plans for one state");
    let told = status::components(state, &nodes);
    assert_eq!(
        told.len(),
        state.components.len(),
        "a component is left out"
    );
}
