//! A node that answers from memory: what is read of its callers is what matters here.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use futures::{FutureExt as _, future::LocalBoxFuture};
use realm_identity::{Artifact, PublicKey, RealmId};
use realm_rpc::{
    Branch, Control, ErrorCode, Event, EventSink, Fork, Head, HeadId, Host, Intent, LogLine,
    LogQuery, LogSink, LogStream, PendingNode, PublicInfo, RpcError, Sighting, Submitted, Survey,
    SurveySink, Upload, View,
};

use super::AT;
use crate::scene::{self, NODES, key, scene};

type Answer<'a, T> = LocalBoxFuture<'a, Result<T, RpcError>>;

/// What an upload may hold here; a real node has its disk.
const MAX_UPLOAD: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Served {
    uploaded: Rc<RefCell<Vec<u8>>>,
}

pub(super) fn node() -> PublicKey {
    key(NODES[0]).public()
}

fn answer<'a, T: 'a>(value: T) -> Answer<'a, T> {
    async move { Ok(value) }.boxed_local()
}

impl Host for Served {
    fn info(&self) -> PublicInfo {
        PublicInfo {
            node: node(),
            version: "realm/0.1.0".into(),
            realm: self.realm(),
            name: Some("one".into()),
        }
    }

    fn realm(&self) -> Option<RealmId> {
        Some(scene().genesis.realm_id())
    }

    fn epoch(&self) -> u64 {
        1
    }

    fn epoch_ended(&self, _: u64) -> LocalBoxFuture<'_, ()> {
        std::future::pending().boxed_local()
    }

    fn authorise(
        &self,
        key: PublicKey,
    ) -> LocalBoxFuture<'_, Result<Option<Rc<dyn Control>>, RpcError>> {
        let control = (key == scene::owner().public()).then(|| Rc::new(Self::default()) as _);
        answer(control)
    }
}

fn intents() -> Vec<Intent> {
    let items = scene().log.iter();
    let intent = |item: &realm_protocol::Item| Intent {
        entry: item.entry.clone(),
        payload: item.payload.clone(),
    };
    items.map(intent).collect()
}

fn line() -> LogLine {
    LogLine {
        at: AT,
        component: "hello".into(),
        node: "one".into(),
        index: 0,
        stream: LogStream::Out,
        text: b"hello, world".to_vec(),
    }
}

fn head_id() -> HeadId {
    HeadId {
        seq: scene().state.revision,
        hash: scene().head,
    }
}

fn survey() -> Survey {
    let sighting = Sighting {
        view: View {
            present: true,
            settled: true,
            name: Some("one".into()),
            ..View::default()
        },
        report: Some(Arc::from(&b"report"[..])),
        claims: vec![scene().claim.to_wire()],
    };
    Survey {
        head: head_id(),
        forked: false,
        nodes: [(node(), sighting)].into(),
    }
}

impl Control for Served {
    fn head(&self) -> Answer<'_, Head> {
        let newest = intents().pop();
        answer(Head {
            seq: scene().state.revision,
            entry: newest
                .as_ref()
                .map(|it| it.entry.clone())
                .unwrap_or_default(),
            parent_state: scene().state.encode(),
            payload: newest.and_then(|it| it.payload).unwrap_or_default(),
            named: Vec::new(),
        })
    }

    fn heads(&self) -> Answer<'_, Vec<HeadId>> {
        answer(vec![head_id()])
    }

    fn submit(&self, entry: Vec<u8>, _: Vec<u8>) -> Answer<'_, Submitted> {
        if entry.is_empty() {
            let refused = RpcError::new(ErrorCode::Conflict, "the head is another").help("again");
            return async { Err(refused) }.boxed_local();
        }
        answer(Submitted {
            seq: 5,
            durable_on: 2,
        })
    }

    fn survey(&self) -> Answer<'_, Survey> {
        answer(survey())
    }

    fn watch(&self, mut sink: SurveySink) -> Answer<'_, ()> {
        async move {
            // Who left hears no more.
            let _ = sink.send(&survey()).await;
            Ok(())
        }
        .boxed_local()
    }

    fn logs(&self, _: LogQuery, sink: LogSink) -> Answer<'_, ()> {
        async move {
            let _ = sink.send(&[line(), line()]).await;
            Ok(())
        }
        .boxed_local()
    }

    fn events(&self, after: u64, _: bool, sink: EventSink) -> Answer<'_, ()> {
        let event = Event {
            seq: after.saturating_add(1),
            at: AT,
            kind: "joined".into(),
            subject: "two".into(),
            message: "two is here".into(),
        };
        async move {
            let _ = sink.send(&[event]).await;
            Ok(())
        }
        .boxed_local()
    }

    fn history(&self, _: u64, _: u64, max_bytes: usize) -> Answer<'_, Vec<Intent>> {
        assert!(max_bytes > 0, "no room for an answer");
        answer(intents())
    }

    fn forks(&self) -> Answer<'_, Vec<Fork>> {
        let entries = intents();
        let branches = vec![Branch { entries }];
        answer(vec![Fork { seq: 1, branches }])
    }

    fn upload(&self, artifact: Artifact) -> Answer<'_, Box<dyn Upload>> {
        let bytes = self.uploaded.clone();
        answer(Box::new(Uploading { artifact, bytes }) as Box<dyn Upload>)
    }

    fn claim(&self, claim: Vec<u8>) -> Answer<'_, Vec<u8>> {
        answer(claim)
    }

    fn pending(&self) -> Answer<'_, Vec<PendingNode>> {
        answer(vec![PendingNode {
            key: key(NODES[4]).public(),
            name: "five".into(),
            tags: vec!["edge".into()],
            address: "/ip4/192.0.2.1/tcp/2020".into(),
            first_seen: AT,
        }])
    }

    fn peer_add(&self, _: String) -> Answer<'_, ()> {
        answer(())
    }

    fn adopt(&self, _: Vec<u8>) -> Answer<'_, ()> {
        answer(())
    }

    fn standing(&self) -> Answer<'_, Vec<Vec<u8>>> {
        answer(vec![scene().claim.to_wire()])
    }
}

struct Uploading {
    artifact: Artifact,
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl Upload for Uploading {
    fn received(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Answer<'_, u64> {
        let mut kept = self.bytes.borrow_mut();
        if offset != kept.len() as u64 || kept.len() + bytes.len() > MAX_UPLOAD {
            let refused = RpcError::new(ErrorCode::Invalid, "not where the last write ended");
            return async { Err(refused) }.boxed_local();
        }
        kept.extend(bytes);
        answer(kept.len() as u64)
    }

    fn finish(&mut self) -> Answer<'_, ()> {
        let right = Artifact::of(&self.bytes.borrow()) == self.artifact;
        let wrong = RpcError::new(ErrorCode::Invalid, "other bytes than announced");
        async move { right.then_some(()).ok_or(wrong) }.boxed_local()
    }
}
