//! An intent in a few words, for tables and events. No value of env or vars is in them.

use realm_identity::{Entry, Kind, PublicKey, Target};

use crate::payload::Payload;

/// What it is about: a component's name, a key, or `realm`.
pub fn subject(entry: &Entry) -> String {
    match entry.body.as_ref().map(|body| &body.target) {
        None => "?".to_owned(),
        Some(Target::Realm) => "realm".to_owned(),
        Some(Target::Component(name)) => name.clone(),
        Some(Target::Node(key) | Target::Owner(key)) => key.to_string(),
    }
}

/// What it is about and what becomes of that, such as `web=3`. `payload` is None where it is not kept
/// or not understood.
pub fn gist(entry: &Entry, payload: Option<&Payload>) -> String {
    match payload {
        Some(Payload::NodeApprove(node) | Payload::NodeSet(node)) => {
            let tags: Vec<String> = node.tags.iter().map(ToString::to_string).collect();
            let key = match entry.body.as_ref().map(|body| &body.target) {
                Some(Target::Node(key)) => key.short(),
                _ => subject(entry),
            };
            let mut gist = format!("{} {key}", node.name);
            if !tags.is_empty() {
                gist.push_str(&format!(" [{}]", tags.join(",")));
            }
            if node.drain {
                gist.push_str(", drained");
            }
            gist
        }
        Some(Payload::Scale(scale)) => {
            let count = scale
                .replicas
                .map_or("each".into(), |count| count.to_string());
            format!("{}={count}", subject(entry))
        }
        Some(Payload::Restart(restart)) if !restart.nodes.is_empty() => {
            let nodes: Vec<String> = restart.nodes.iter().map(PublicKey::short).collect();
            format!("{} on {}", subject(entry), nodes.join(", "))
        }
        _ => subject(entry),
    }
}

/// The name of its kind, as scripts get it.
pub fn kind_name(entry: &Entry) -> &'static str {
    entry.kind().map_or("unknown", Kind::name)
}

/// The same for people: what was done with the program, where the kind leaves that open.
pub fn verb(entry: &Entry, payload: Option<&Payload>) -> &'static str {
    match payload {
        Some(Payload::Run(run)) if run.run => "start",
        Some(Payload::Run(_)) => "stop",
        _ => kind_name(entry),
    }
}
