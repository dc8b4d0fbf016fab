//! What intents do to the state.

use realm_manifest::{
    identity::{Entry, Hash, Target, Timestamp},
    payload::{Merge, NodeFacts, Note, Payload, Restart, Run, Scale},
};
use realm_planner::{FoldError, SetBy, Standing, State, fold as folding, next_entry};

use super::{fold, genesis, key, owner, push, target};

#[test]
fn a_component_is_pushed_scaled_stopped_restarted_and_removed() {
    let pushed = fold(&genesis(), target("web"), &push(Some(2))).unwrap();
    let web = "web".parse().unwrap();
    assert_eq!(
        (pushed.revision, pushed.components[&web].spec.replicas),
        (1, Some(2))
    );
    assert!(pushed.components[&web].run);

    let scaled = fold(
        &pushed,
        target("web"),
        &Payload::Scale(Scale {
            replicas: Some(5),
            note: None,
        }),
    )
    .unwrap();
    assert_eq!(scaled.components[&web].spec.replicas, Some(5));
    let stopped = fold(
        &scaled,
        target("web"),
        &Payload::Run(Run {
            run: false,
            note: None,
        }),
    )
    .unwrap();
    assert!(!stopped.components[&web].run);
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    let restarted = fold(&stopped, target("web"), &restart).unwrap();
    assert_eq!(restarted.components[&web].generation, 1);
    let again = fold(&restarted, target("web"), &push(None)).unwrap();
    let came = (
        again.components[&web].created,
        again.components[&web].revision,
    );
    assert_eq!(came, (1, 5), "changes do not make it younger");
    assert!(matches!(
        fold(&restarted, target("web"), &restart),
        Err(FoldError::Generation { .. })
    ));
    let removed = fold(&restarted, target("web"), &Payload::Remove(Note::default())).unwrap();
    assert!(removed.components.is_empty());
    assert_eq!(removed.revision, 5);
    let anew = fold(&removed, target("web"), &push(None)).unwrap();
    assert_eq!(anew.components[&web].created, 6, "it comes anew");
    assert!(matches!(
        fold(&removed, target("web"), &Payload::Remove(Note::default())),
        Err(FoldError::NoComponent(_))
    ));
}

#[test]
fn the_same_push_again_changes_nothing() {
    let pushed = fold(&genesis(), target("web"), &push(Some(2))).unwrap();
    assert!(!folding::would_change(&pushed, &target("web"), &push(Some(2))).unwrap());
    assert!(folding::would_change(&pushed, &target("web"), &push(None)).unwrap());
    assert!(folding::would_change(&pushed, &target("api"), &push(Some(2))).unwrap());
}

#[test]
fn the_state_round_trips_and_other_encodings_are_refused() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let bytes = state.encode();
    assert_eq!(State::decode(&bytes).unwrap(), state);
    assert!(State::decode(&[bytes, vec![0]].concat()).is_err());
}

#[test]
fn what_others_write_and_what_was_written_for_elsewhere_is_refused() {
    let state = genesis();
    let payload = push(None);
    let entry = |author, state: &State| {
        next_entry(
            state,
            Hash::of(b"p"),
            author,
            target("web"),
            &payload,
            Timestamp(1),
        )
    };
    let apply = |entry: &Entry| folding::apply(&state, entry, &payload.encode());

    assert!(matches!(
        apply(&entry(key(9).public(), &state)),
        Err(FoldError::Authority(_))
    ));
    let mut later = state.clone();
    later.revision = 4;
    let mut skipped = entry(owner(), &later);
    skipped.body.as_mut().unwrap().state = state.digest();
    assert!(matches!(
        apply(&skipped),
        Err(FoldError::Sequence { found: 5, at: 0 })
    ));
    let mut foreign = state.clone();
    foreign.realm = Hash::of(b"elsewhere");
    assert!(matches!(
        apply(&entry(owner(), &foreign)),
        Err(FoldError::ForeignRealm)
    ));
    let mut other = state.clone();
    other.name = "other".into();
    assert!(matches!(
        apply(&entry(owner(), &other)),
        Err(FoldError::StateMismatch { .. })
    ));
    let mut unknown = entry(owner(), &state);
    unknown.body.as_mut().unwrap().kind = 999;
    assert!(matches!(
        apply(&unknown),
        Err(FoldError::Incompatible { revision: 1 })
    ));
    assert!(matches!(
        folding::apply(&state, &entry(owner(), &state), b"not cbor"),
        Err(FoldError::Payload(_))
    ));
}

#[test]
fn after_a_rotation_only_the_new_owner_writes() {
    let new = key(2).public();
    let rotated = fold(
        &genesis(),
        Target::Owner(new),
        &Payload::OwnerRotate(Note::default()),
    )
    .unwrap();
    assert_eq!(
        (rotated.owner, rotated.past_owners.clone()),
        (new, vec![(owner(), 1)])
    );
    let payload = push(None);
    let old = next_entry(
        &rotated,
        Hash::of(b"p"),
        owner(),
        target("web"),
        &payload,
        Timestamp(1),
    );
    assert!(matches!(
        folding::apply(&rotated, &old, &payload.encode()),
        Err(FoldError::Authority(_))
    ));
    assert!(fold(&rotated, target("web"), &payload).is_ok());
    assert!(matches!(
        fold(
            &rotated,
            Target::Owner(owner()),
            &Payload::OwnerRotate(Note::default())
        ),
        Err(FoldError::OldOwner(_))
    ));
}

#[test]
fn node_names_are_unique_and_a_revoked_key_never_returns() {
    let facts = |name: &str| {
        let tags = vec![
            "b".parse().unwrap(),
            "a".parse().unwrap(),
            "a".parse().unwrap(),
        ];
        Payload::NodeApprove(NodeFacts {
            name: name.parse().unwrap(),
            tags,
            drain: false,
            note: None,
        })
    };
    let (one, two) = (key(10).public(), key(11).public());
    let state = fold(&genesis(), Target::Node(one), &facts("one")).unwrap();
    assert_eq!(state.nodes[&one].tags.len(), 2);
    assert!(matches!(
        fold(&state, Target::Node(two), &facts("one")),
        Err(FoldError::NameTaken(_))
    ));
    let state = fold(
        &state,
        Target::Node(one),
        &Payload::NodeRevoke(Note::default()),
    )
    .unwrap();
    assert!(matches!(
        fold(&state, Target::Node(one), &facts("one")),
        Err(FoldError::Revoked(_))
    ));
    assert!(
        fold(&state, Target::Node(two), &facts("one")).is_ok(),
        "the name is free again"
    );
}

/// A fork of two: `kept` has `api` on top of the base, the other scales `web` and what is not there.
struct Fork {
    state: State,
    heads: Vec<Entry>,
    lost: Vec<(Entry, Vec<u8>)>,
    merge: Merge,
}

impl Fork {
    fn new() -> Self {
        let base = fold(&genesis(), target("web"), &push(Some(1))).unwrap();
        let entry = |payload: &Payload, at: Target| {
            next_entry(&base, Hash::of(b"base"), owner(), at, payload, Timestamp(1))
        };
        let scale = Payload::Scale(Scale {
            replicas: Some(3),
            note: None,
        });
        let first = entry(&scale, target("web"));
        let mut second = entry(&scale, target("gone"));
        (second.seq, second.prev) = (3, folding::entry_hash(&first));
        let kept = entry(&push(None), target("api"));
        let state = folding::apply(&base, &kept, &push(None).encode()).unwrap();
        let keep = folding::entry_hash(&kept);
        let mut heads = vec![kept, second.clone()];
        heads.sort_by_key(folding::entry_hash);
        let merge = Merge {
            heads: heads.iter().map(folding::entry_hash).collect(),
            keep,
            reapply: vec![folding::entry_hash(&first), folding::entry_hash(&second)],
            note: None,
        };
        let lost = vec![(first, scale.encode()), (second, scale.encode())];
        Self {
            state,
            heads,
            lost,
            merge,
        }
    }

    fn entry(&self) -> Entry {
        let payload = Payload::Merge(self.merge.clone());
        let (parent, realm) = (self.merge.keep, Target::Realm);
        let mut entry = next_entry(&self.state, parent, owner(), realm, &payload, Timestamp(2));
        entry.seq = 4;
        entry
    }

    fn fold(&self, entry: &Entry) -> Result<State, FoldError> {
        let payload = Payload::Merge(self.merge.clone()).encode();
        let heads: Vec<&Entry> = self.heads.iter().collect();
        let lost: Vec<(&Entry, &[u8])> = self
            .lost
            .iter()
            .map(|(entry, payload)| (entry, payload.as_slice()))
            .collect();
        folding::apply_merge(&self.state, entry, &payload, &heads, &lost)
    }
}

#[test]
fn a_merge_takes_over_what_still_makes_sense() {
    let fork = Fork::new();
    let merged = fork.fold(&fork.entry()).unwrap();
    assert_eq!((merged.revision, merged.components.len()), (4, 2));
    assert_eq!(
        merged.components[&"web".parse().unwrap()].spec.replicas,
        Some(3)
    );
    let payload = Payload::Merge(fork.merge.clone()).encode();
    let mut alone = fork.entry();
    alone.seq = fork.state.revision + 1;
    assert!(matches!(
        folding::apply(&fork.state, &alone, &payload),
        Err(FoldError::MergeAlone)
    ));
}

#[test]
fn a_merge_is_held_to_what_was_signed() {
    for seq in [0, 2, 3, 5, u64::MAX] {
        let fork = Fork::new();
        let mut entry = fork.entry();
        entry.seq = seq;
        assert!(matches!(
            fork.fold(&entry),
            Err(FoldError::Sequence { found, at: 3 }) if found == seq
        ));
    }
    let refused = |spoil: fn(&mut Fork)| {
        let mut fork = Fork::new();
        spoil(&mut fork);
        let entry = fork.entry();
        assert!(matches!(fork.fold(&entry), Err(FoldError::BadMerge(_))));
    };
    refused(|fork| fork.merge.keep = Hash::of(b"another head"));
    refused(|fork| fork.merge.keep = folding::entry_hash(&fork.lost[1].0));
    refused(|fork| fork.heads.reverse());
    refused(|fork| {
        fork.heads.pop();
    });
    refused(|fork| fork.lost.reverse());
    refused(|fork| {
        fork.lost.pop();
    });
    refused(|fork| {
        fork.lost.push(fork.lost[0].clone());
    });
    refused(|fork| fork.lost[0].1 = push(None).encode());

    let mut fork = Fork::new();
    let entry = fork.entry();
    fork.merge.note = Some("another".into());
    assert!(matches!(fork.fold(&entry), Err(FoldError::BadMerge(_))));

    let fork = Fork::new();
    let mut elsewhere = fork.entry();
    elsewhere.prev = Hash::of(b"another parent");
    assert!(matches!(fork.fold(&elsewhere), Err(FoldError::BadMerge(_))));
}

#[test]
fn scaling_leaves_a_component_to_apply_and_pushing_takes_it() {
    let web = "web".parse().unwrap();
    let mut state = fold(&genesis(), target("web"), &push(Some(2))).unwrap();
    state.components.get_mut(&web).unwrap().set_by = SetBy::Apply;
    let scale = Payload::Scale(Scale {
        replicas: Some(5),
        note: None,
    });
    let scaled = fold(&state, target("web"), &scale).unwrap();
    assert_eq!(scaled.components[&web].set_by, SetBy::Apply);
    let pushed = fold(&state, target("web"), &push(Some(2))).unwrap();
    assert_eq!(pushed.components[&web].set_by, SetBy::Push);
    assert_eq!(pushed.components[&web].revision, pushed.revision);
}

#[test]
fn a_node_drains_until_its_facts_say_otherwise() {
    let node = key(10).public();
    let facts = |drain, tag: &str| {
        Payload::NodeSet(NodeFacts {
            name: "pi".parse().unwrap(),
            tags: vec![tag.parse().unwrap()],
            drain,
            note: None,
        })
    };
    let target = || Target::Node(node);
    let state = fold(&genesis(), target(), &facts(true, "a")).unwrap();
    assert!(state.is_draining(&node));
    assert!(!folding::would_change(&state, &target(), &facts(true, "a")).unwrap());
    assert!(folding::would_change(&state, &target(), &facts(true, "b")).unwrap());
    assert!(folding::would_change(&state, &target(), &facts(false, "a")).unwrap());
    let state = fold(&state, target(), &facts(false, "a")).unwrap();
    assert!(!state.is_draining(&node));
}

#[test]
fn a_removed_node_comes_back_when_it_is_approved_and_a_revoked_one_never() {
    let facts = |name: &str| NodeFacts {
        name: name.parse().unwrap(),
        tags: Vec::new(),
        drain: false,
        note: None,
    };
    let (one, two) = (key(10).public(), key(11).public());
    let remove = Payload::NodeRemove(Note::default());
    let revoke = Payload::NodeRevoke(Note::default());
    let approve = |name| Payload::NodeApprove(facts(name));
    let state = fold(&genesis(), Target::Node(one), &approve("one")).unwrap();
    let removed = fold(&state, Target::Node(one), &remove).unwrap();
    let record = &removed.nodes[&one];
    assert_eq!((record.standing, record.revision), (Standing::Removed, 2));
    assert!(!folding::would_change(&removed, &Target::Node(one), &remove).unwrap());
    assert!(matches!(
        fold(&removed, Target::Node(one), &Payload::NodeSet(facts("one"))),
        Err(FoldError::Removed(key)) if key == one
    ));
    assert!(
        fold(&removed, Target::Node(two), &approve("one")).is_ok(),
        "its name is free"
    );
    let back = fold(&removed, Target::Node(one), &approve("one")).unwrap();
    assert_eq!(back.nodes[&one].standing, Standing::Approved);

    let revoked = fold(&removed, Target::Node(one), &revoke).unwrap();
    assert_eq!(revoked.nodes[&one].standing, Standing::Revoked);
    for payload in [&remove, &approve("one"), &Payload::NodeSet(facts("one"))] {
        assert!(matches!(
            fold(&revoked, Target::Node(one), payload),
            Err(FoldError::Revoked(key)) if key == one
        ));
    }

    // An invite approved it, and the log never named it.
    let unknown = fold(&state, Target::Node(two), &remove).unwrap();
    assert_eq!(unknown.nodes[&two].standing, Standing::Removed);
    assert!(fold(&unknown, Target::Node(two), &approve("two")).is_ok());
}

#[test]
fn a_node_that_is_taken_out_drains_no_more() {
    let node = key(10).public();
    let facts = NodeFacts {
        name: "pi".parse().unwrap(),
        tags: Vec::new(),
        drain: true,
        note: None,
    };
    let state = fold(&genesis(), Target::Node(node), &Payload::NodeSet(facts)).unwrap();
    let remove = Payload::NodeRemove(Note::default());
    let state = fold(&state, Target::Node(node), &remove).unwrap();
    assert!(!state.is_draining(&node));
}

#[test]
fn sizes_of_a_realm_are_part_of_the_format() {
    let why = "needs a new entry version: docs/decisions/0007-limits-of-a-spec-are-consensus.md";
    assert_eq!(folding::MAX_COMPONENTS, 1000, "{why}");
    assert_eq!(folding::MAX_NODES, 4096, "{why}");
}
