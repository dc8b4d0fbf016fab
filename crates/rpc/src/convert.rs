//! Between the types of this crate and the messages of the schema.

use realm_identity::{Artifact, Hash, PublicKey, Timestamp};

use crate::{
    Branch, ErrorCode, Event, Fork, Head, HeadId, Intent, LogLine, LogQuery, LogStream,
    PendingNode, PublicInfo, RpcError,
    error::VERSION,
    schema::{membrane_capnp as m, operator_capnp as o},
};

type Read<T> = Result<T, RpcError>;

/// The schema has no optional numbers: this stands for none.
const NO_BOUND: u64 = u64::MAX;

pub(crate) fn write_error(mut to: m::error::Builder<'_>, error: &RpcError) {
    let error = error.shortened();
    to.set_version(VERSION);
    to.set_code(error.code.as_str());
    to.set_message(&*error.message);
    to.set_help(error.help.as_deref().unwrap_or_default());
}

pub(crate) fn read_error(from: m::error::Reader<'_>) -> Read<RpcError> {
    let help = text(from.get_help())?;
    Ok(RpcError {
        code: ErrorCode::from(&*text(from.get_code())?),
        message: text(from.get_message())?,
        help: (!help.is_empty()).then_some(help),
    })
}

pub(crate) fn write_info(mut to: m::public_info::Builder<'_>, info: &PublicInfo) {
    to.set_version(VERSION);
    to.set_node(info.node.as_bytes());
    to.set_agent(&*info.version);
    to.set_realm(
        info.realm
            .as_ref()
            .map_or(&[], |realm| &realm.as_bytes()[..]),
    );
    to.set_name(info.name.as_deref().unwrap_or_default());
}

pub(crate) fn read_info(from: m::public_info::Reader<'_>) -> Read<PublicInfo> {
    Ok(PublicInfo {
        node: key(from.get_node()?)?,
        version: text(from.get_agent())?,
        realm: optional_hash(from.get_realm()?)?,
        name: Some(text(from.get_name())?).filter(|name| !name.is_empty()),
    })
}

pub(crate) fn write_head(mut to: o::head::Builder<'_>, head: &Head) {
    to.set_seq(head.seq);
    to.set_entry(&head.entry);
    to.set_parent_state(&head.parent_state);
    to.set_payload(&head.payload);
    let mut named = to.init_named(length(&head.named));
    for (index, intent) in (0..).zip(&head.named) {
        write_intent(named.reborrow().get(index), intent);
    }
}

pub(crate) fn read_head(from: o::head::Reader<'_>) -> Read<Head> {
    Ok(Head {
        seq: from.get_seq(),
        entry: from.get_entry()?.to_vec(),
        parent_state: from.get_parent_state()?.to_vec(),
        payload: from.get_payload()?.to_vec(),
        named: from
            .get_named()?
            .iter()
            .map(read_intent)
            .collect::<Read<_>>()?,
    })
}

pub(crate) fn write_head_id(mut to: o::head_id::Builder<'_>, head: &HeadId) {
    to.set_seq(head.seq);
    to.set_hash(head.hash.as_bytes());
}

pub(crate) fn read_head_id(from: o::head_id::Reader<'_>) -> Read<HeadId> {
    Ok(HeadId {
        seq: from.get_seq(),
        hash: hash(from.get_hash()?)?,
    })
}

pub(crate) fn write_intent(mut to: o::intent::Builder<'_>, intent: &Intent) {
    to.set_entry(&intent.entry);
    to.set_payload(intent.payload.as_deref().unwrap_or_default());
}

pub(crate) fn read_intent(from: o::intent::Reader<'_>) -> Read<Intent> {
    let payload = from.get_payload()?;
    Ok(Intent {
        entry: from.get_entry()?.to_vec(),
        // No payload is empty: each is at least an empty map.
        payload: (!payload.is_empty()).then(|| payload.to_vec()),
    })
}

pub(crate) fn write_fork(mut to: o::fork::Builder<'_>, fork: &Fork) {
    to.set_seq(fork.seq);
    let mut branches = to.init_branches(length(&fork.branches));
    for (index, branch) in (0..).zip(&fork.branches) {
        let mut entries = branches
            .reborrow()
            .get(index)
            .init_entries(length(&branch.entries));
        for (index, intent) in (0..).zip(&branch.entries) {
            write_intent(entries.reborrow().get(index), intent);
        }
    }
}

pub(crate) fn read_fork(from: o::fork::Reader<'_>) -> Read<Fork> {
    let mut branches = Vec::new();
    for branch in from.get_branches()? {
        let entries = branch
            .get_entries()?
            .iter()
            .map(read_intent)
            .collect::<Read<_>>()?;
        branches.push(Branch { entries });
    }
    Ok(Fork {
        seq: from.get_seq(),
        branches,
    })
}

pub(crate) fn write_artifact(mut to: o::artifact::Builder<'_>, artifact: &Artifact) {
    to.set_sha256(artifact.sha256.as_bytes());
    to.set_size(artifact.size);
    to.set_blake3(artifact.blake3.as_bytes());
}

pub(crate) fn read_artifact(from: o::artifact::Reader<'_>) -> Read<Artifact> {
    Ok(Artifact {
        sha256: hash(from.get_sha256()?)?,
        size: from.get_size(),
        blake3: hash(from.get_blake3()?)?,
    })
}

pub(crate) fn write_pending(mut to: o::pending_node::Builder<'_>, node: &PendingNode) {
    to.set_key(node.key.as_bytes());
    to.set_name(&*node.name);
    to.set_address(&*node.address);
    to.set_first_seen(node.first_seen.as_millis());
    let mut tags = to.init_tags(length(&node.tags));
    for (index, tag) in (0..).zip(&node.tags) {
        tags.set(index, &**tag);
    }
}

pub(crate) fn read_pending(from: o::pending_node::Reader<'_>) -> Read<PendingNode> {
    Ok(PendingNode {
        key: key(from.get_key()?)?,
        name: text(from.get_name())?,
        tags: from.get_tags()?.iter().map(text).collect::<Read<_>>()?,
        address: text(from.get_address())?,
        first_seen: Timestamp(from.get_first_seen()),
    })
}

pub(crate) fn write_query(mut to: o::log_query::Builder<'_>, query: &LogQuery) {
    to.set_component(query.component.as_deref().unwrap_or_default());
    to.set_tail(query.tail.unwrap_or(NO_BOUND));
    to.set_since(query.since.map_or(0, Timestamp::as_millis));
    to.set_follow(query.follow);
    to.set_previous(query.previous);
}

pub(crate) fn read_query(from: o::log_query::Reader<'_>) -> Read<LogQuery> {
    let named = |text: String| (!text.is_empty()).then_some(text);
    Ok(LogQuery {
        component: named(text(from.get_component())?),
        tail: Some(from.get_tail()).filter(|tail| *tail != NO_BOUND),
        since: Some(Timestamp(from.get_since())).filter(|since| since.as_millis() != 0),
        follow: from.get_follow(),
        previous: from.get_previous(),
    })
}

pub(crate) fn write_line(mut to: o::log_line::Builder<'_>, line: &LogLine, max: usize) {
    to.set_at(line.at.as_millis());
    to.set_component(&*line.component);
    to.set_node(&*line.node);
    to.set_index(line.index);
    to.set_stream(match line.stream {
        LogStream::Out => o::log_line::Stream::Out,
        LogStream::Err => o::log_line::Stream::Err,
        LogStream::Agent => o::log_line::Stream::Agent,
    });
    to.set_text(&line.text[..line.text.len().min(max)]);
}

pub(crate) fn read_line(from: o::log_line::Reader<'_>) -> Read<LogLine> {
    Ok(LogLine {
        at: Timestamp(from.get_at()),
        component: text(from.get_component())?,
        node: text(from.get_node())?,
        index: from.get_index(),
        stream: match from.get_stream() {
            Ok(o::log_line::Stream::Out) => LogStream::Out,
            Ok(o::log_line::Stream::Err) => LogStream::Err,
            // Also a stream of a later version: what is not the cell's own is the agent's.
            Ok(o::log_line::Stream::Agent) | Err(_) => LogStream::Agent,
        },
        text: from.get_text()?.to_vec(),
    })
}

pub(crate) fn write_event(mut to: o::event::Builder<'_>, event: &Event) {
    to.set_seq(event.seq);
    to.set_at(event.at.as_millis());
    to.set_kind(&*event.kind);
    to.set_subject(&*event.subject);
    to.set_message(&*event.message);
}

pub(crate) fn read_event(from: o::event::Reader<'_>) -> Read<Event> {
    Ok(Event {
        seq: from.get_seq(),
        at: Timestamp(from.get_at()),
        kind: text(from.get_kind())?,
        subject: text(from.get_subject())?,
        message: text(from.get_message())?,
    })
}

pub(crate) fn text(from: capnp::Result<capnp::text::Reader<'_>>) -> Read<String> {
    from?.to_string().map_err(|_| RpcError::malformed("text"))
}

pub(crate) fn hash(bytes: &[u8]) -> Read<Hash> {
    bytes
        .try_into()
        .map(Hash::from_bytes)
        .map_err(|_| RpcError::malformed("digest"))
}

/// Empty bytes are none.
pub(crate) fn optional_hash(bytes: &[u8]) -> Read<Option<Hash>> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        hash(bytes).map(Some)
    }
}

pub(crate) fn key(bytes: &[u8]) -> Read<PublicKey> {
    let bytes = bytes.try_into().map_err(|_| RpcError::malformed("key"))?;
    PublicKey::from_bytes(bytes).map_err(|_| RpcError::malformed("key"))
}

/// Lists in messages are bounded far below 2^32 by what a message may hold.
pub(crate) fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
