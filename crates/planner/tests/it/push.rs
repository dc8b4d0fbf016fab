//! What a push keeps, sets and unsets.

use realm_manifest::{ComponentSpec, identity::Artifact};
use realm_planner::PushPatch;

#[test]
fn what_is_not_named_stays_and_what_is_named_is_set_or_unset() {
    let first = PushPatch {
        source: Some(Some("./web.wasm".into())),
        deadline_ms: Some(Some(500)),
        fuel: Some(9),
        replicas: Some(Some(3)),
        ..PushPatch::default()
    };
    let spec = first.apply(Artifact::of(b"one"), None);
    assert_eq!(spec.source.as_deref(), Some("./web.wasm"));
    assert_eq!(spec.limits.deadline_ms, Some(500));

    let two = Artifact::of(b"two");
    let kept = PushPatch::default().apply(two, Some(&spec));
    let expected = ComponentSpec {
        artifact: two,
        ..spec.clone()
    };
    assert_eq!(kept, expected);

    let unset = PushPatch {
        source: Some(None),
        deadline_ms: Some(None),
        replicas: Some(None),
        ..PushPatch::default()
    };
    let spec = unset.apply(two, Some(&spec));
    assert_eq!((spec.source, spec.limits.deadline_ms), (None, None));
    assert_eq!((spec.replicas, spec.limits.fuel), (None, 9));
}
