//! Who gets what through the membrane.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use realm_identity::{Hash, PublicKey, SecretKey, Signature, Signer};
use realm_rpc::{ConnectError, ErrorCode, Limits};

use crate::scene::{key, node_key, owner, realm, run, scene};

#[test]
fn the_owner_gets_the_operator() {
    run(async {
        let scene = scene(Limits::default());
        let graft = scene.client.graft(owner(), node_key(), None).await.unwrap();
        assert_eq!(graft.info.realm, Some(realm()));
        assert!(graft.operator.is_some());
    });
}

#[test]
fn an_unknown_key_gets_public_facts_only() {
    run(async {
        let scene = scene(Limits::default());
        assert_eq!(scene.client.info().await.unwrap().version, "1.2.3");
        let graft = scene
            .client
            .graft(Rc::new(key(66)), node_key(), None)
            .await
            .unwrap();
        assert_eq!(graft.info.node, node_key());
        assert!(graft.operator.is_none());
    });
}

fn code(result: Result<realm_rpc::Graft, ConnectError>) -> ErrorCode {
    match result {
        Err(ConnectError::Rpc(error)) => error.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn nothing_is_signed_for_another_node_or_realm() {
    run(async {
        let scene = scene(Limits::default());
        let other = key(5).public();
        let refused = scene.client.graft(owner(), other, None).await;
        assert_eq!(code(refused), ErrorCode::NotAuthorised);
        let refused = scene
            .client
            .graft(owner(), node_key(), Some(Hash::of(b"other")))
            .await;
        assert_eq!(code(refused), ErrorCode::NotAuthorised);
    });
}

/// Says it is the owner, and signs with the key it has, or with an old signature.
struct Impostor {
    key: SecretKey,
    old: RefCell<Option<Signature>>,
}

impl Signer for Impostor {
    type Error = Infallible;

    fn public(&self) -> PublicKey {
        owner().public()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, Infallible> {
        let new = self.key.sign(message)?;
        Ok(*self.old.borrow_mut().get_or_insert(new))
    }
}

#[test]
fn a_wrong_key_and_a_replayed_signature_are_refused() {
    run(async {
        let scene = scene(Limits::default());
        let wrong = Impostor {
            key: key(66),
            old: RefCell::default(),
        };
        let refused = scene.client.graft(Rc::new(wrong), node_key(), None).await;
        assert_eq!(code(refused), ErrorCode::NotAuthorised);

        let replay = Rc::new(Impostor {
            key: key(2),
            old: RefCell::default(),
        });
        let first = scene.client.graft(replay.clone(), node_key(), None).await;
        assert!(first.unwrap().operator.is_some());
        let second = scene.client.graft(replay, node_key(), None).await;
        assert_eq!(code(second), ErrorCode::NotAuthorised);
    });
}

#[test]
fn authority_ends_with_its_epoch() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        operator.head().await.unwrap();
        scene.node.epoch.send_replace(4);
        assert_eq!(
            operator.head().await.unwrap_err().code,
            ErrorCode::NotAuthorised
        );
        assert!(scene.operator().await.head().await.is_ok());
    });
}

#[test]
fn proofs_on_one_connection_are_counted() {
    run(async {
        let scene = scene(Limits::default());
        for _ in 0..16 {
            scene
                .client
                .graft(Rc::new(key(66)), node_key(), None)
                .await
                .unwrap();
        }
        let refused = scene.client.graft(owner(), node_key(), None).await;
        assert_eq!(code(refused), ErrorCode::Limit);
    });
}
