//! What the realm needs of this person: a key, a node that answers, clocks that agree, one version.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use realm_identity::{Hash, PublicKey, Signed};
use realm_manifest::report::NodeReport;
use realm_rpc::{
    Survey,
    status::{NodeState, Status},
};

use super::{Finding, State, reach};
use crate::{
    clock,
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{ExitCode, Result},
    head,
    keystore::{self, Protection},
    realms::Realm,
    survey,
};

/// A report is up to half a minute old, and is on its way for a moment.
const BEHIND_MS: u64 = 60_000;
/// Nobody's report is from later than now but by a clock's error.
const AHEAD_MS: u64 = 2_000;

const KEY_HELP: &str =
    "put the file back from a backup; or name another one: --key FILE; see it: realm key show";
const REALM_HELP: &str = "see which realms can be read: realm ls; take this one anew from a node: realm adopt --via ADDR";
const NODE_HELP: &str =
    "start one here: realm agent; or name one's address: --via /ip4/HOST/udp/2020/quic-v1";
const NODES_HELP: &str = "try again, or ask another node: --via ADDR";
const CLOCK_HELP: &str = "set the clock of this machine: timedatectl set-ntp true";

pub(super) async fn look(session: &Session) -> Vec<Finding> {
    let mut findings = vec![key(session)];
    let realm = match session.realm() {
        Ok(realm) => realm,
        Err(error) if error.code == ExitCode::NotFound => {
            let help = error.help.as_deref().unwrap_or("make one: realm init");
            findings.push(Finding::new("realm", State::Skipped, error.message).help(help));
            return findings;
        }
        Err(error) => {
            findings.push(Finding::failed("realm", &error, REALM_HELP));
            return findings;
        }
    };
    let named = format!("{} {}", realm.genesis.name, realm.id.short());
    findings.push(Finding::new("realm", State::Ok, named));
    let begun = Instant::now();
    let connection = match connection::open(session, &realm).await {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(Finding::failed("node", &error, NODE_HELP));
            return findings;
        }
    };
    let found = format!(
        "{} answers at {} within {} ms",
        connection.node().short(),
        connection.address(),
        begun.elapsed().as_millis()
    );
    findings.push(Finding::new("node", State::Ok, found));
    match asked(&connection, &realm, session).await {
        Ok((status, head, survey)) => {
            findings.push(nodes(&status));
            findings.push(reach::reach(&connection::agents_here(session), &status));
            findings.push(clocks(&status, &survey));
            findings.push(versions(&status));
            findings.push(match unseen(&connection, &realm, (&status, head)).await {
                Ok(unseen) => agreement(&status, unseen),
                Err(error) => Finding::failed("log", &error, NODES_HELP),
            });
            findings.extend(alarms(&status));
        }
        Err(error) => findings.push(Finding::failed("nodes", &error, NODES_HELP)),
    }
    findings
}

async fn asked(
    connection: &Connection,
    realm: &Realm,
    session: &Session,
) -> Result<(Status, Hash, Survey)> {
    let (status, head) = survey::status_and_head(connection, realm, &session.output).await?;
    let survey = connection.operator.survey().await;
    let survey = survey.map_err(|error| rpc_failed("the node does not tell its status", &error))?;
    Ok((status, head, survey))
}

fn key(session: &Session) -> Finding {
    let path = session.settings.key_path();
    let public = keystore::load_public(&path, &session.passphrase);
    match (public, keystore::check(&path)) {
        (Ok(public), Ok(protection)) => {
            let kept = match protection {
                Protection::None => "unencrypted",
                Protection::Passphrase => "encrypted",
                Protection::SshAgent => "held by the ssh-agent",
            };
            Finding::new("key", State::Ok, format!("{public}, {kept}"))
        }
        (Err(error), _) | (_, Err(error)) if error.code == ExitCode::NotFound => {
            Finding::new("key", State::Skipped, error.message)
                .help("make one: realm init; or bring yours: realm key import FILE")
        }
        (Err(error), _) | (_, Err(error)) => Finding::failed("key", &error, KEY_HELP),
    }
}

fn nodes(status: &Status) -> Finding {
    let mut away: Vec<&str> = Vec::new();
    let mut pending: Vec<&str> = Vec::new();
    let mut here = 0;
    for node in &status.nodes {
        match node.state {
            NodeState::Ready | NodeState::Draining | NodeState::Incompatible => here += 1,
            NodeState::Lost => away.push(&node.name),
            NodeState::Pending => pending.push(&node.name),
            _ => {}
        }
    }
    let mut found = format!("{here} here, {} away", away.len());
    let mut remedies = Vec::new();
    if !away.is_empty() {
        found.push_str(&format!(": {}", away.join(", ")));
        remedies.push(
            "see why: realm nodes show NAME; take one out that is gone for good: realm nodes rm NAME",
        );
    }
    if !pending.is_empty() {
        found.push_str(&format!(
            "; not approved, so nothing runs there: {}",
            pending.join(", ")
        ));
        remedies.push("let one in: realm nodes approve NODE");
    }
    match remedies.is_empty() {
        true => Finding::new("nodes", State::Ok, found),
        false => Finding::new("nodes", State::Warning, found).help(remedies.join("; ")),
    }
}

/// Compares the time in each node's newest report with the clock here.
fn clocks(status: &Status, survey: &Survey) -> Finding {
    let now = match clock::now() {
        Ok(now) => now.as_millis(),
        Err(error) => return Finding::failed("clock", &error, CLOCK_HELP),
    };
    let names: BTreeMap<PublicKey, &str> = status
        .nodes
        .iter()
        .map(|node| (node.key, node.name.as_str()))
        .collect();
    let unheard: BTreeSet<PublicKey> = status
        .alarms
        .iter()
        .filter(|alarm| alarm.code == "unheard")
        .flat_map(|alarm| alarm.nodes.iter().copied())
        .collect();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (key, sighting) in survey
        .nodes
        .iter()
        // An old report says nothing of a clock; that none is newer is an alarm of its own.
        .filter(|(key, sighting)| sighting.view.present && !unheard.contains(key))
    {
        let wire = sighting.report.as_deref().unwrap_or_default();
        let Ok(report) = Signed::<NodeReport>::from_wire(wire) else {
            continue;
        };
        compared += 1;
        let (name, at) = (
            names.get(key).copied().unwrap_or("?"),
            report.at.as_millis(),
        );
        if at > now + AHEAD_MS {
            wrong.push(format!(
                "{name} is {} s ahead of this machine",
                (at - now) / 1000
            ));
        } else if now > at + BEHIND_MS {
            wrong.push(format!(
                "{name} is {} s behind this machine",
                (now - at) / 1000
            ));
        }
    }
    if compared == 0 {
        return Finding::new("clock", State::Skipped, "no node has told its time yet");
    }
    if wrong.is_empty() {
        let found = format!("{compared} nodes and this machine agree within a minute");
        return Finding::new("clock", State::Ok, found);
    }
    Finding::new("clock", State::Warning, wrong.join("; ")).help(
        "invites and proofs of keys allow five minutes: set the clock, and keep it by NTP (timedatectl set-ntp true)",
    )
}

fn versions(status: &Status) -> Finding {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &status.nodes {
        if let Some(version) = &node.version {
            versions.entry(version).or_default().push(&node.name);
        }
    }
    let mine = env!("CARGO_PKG_VERSION");
    let is_mine = |version: &&str| version.trim_start_matches("realm/") == mine;
    if versions.is_empty() {
        return Finding::new(
            "versions",
            State::Skipped,
            "no node has told its version yet",
        );
    }
    if versions.keys().all(is_mine) {
        return Finding::new("versions", State::Ok, format!("all are {mine}"));
    }
    let listed: Vec<String> = versions
        .iter()
        .map(|(version, names)| format!("{version}: {}", names.join(", ")))
        .collect();
    Finding::new(
        "versions",
        State::Warning,
        format!("this command is {mine}; {}", listed.join("; ")),
    )
    .help("upgrade the nodes before the command line: docs/operating/upgrade.md")
}

/// What this person has seen, where no node that answers has it.
struct Unseen {
    mark: u64,
    newest: u64,
    asked: usize,
}

async fn unseen(
    connection: &Connection,
    realm: &Realm,
    (status, head): (&Status, Hash),
) -> Result<Option<Unseen>> {
    // A fork stays below what was seen, and is a finding of its own.
    if status.forked {
        return Ok(None);
    }
    if realm.contradicts(status.revision, head)? {
        let revision = status.revision;
        return Err(head::another(connection, revision, "you have seen"));
    }
    let mark = realm.mark()?;
    if status.revision >= mark {
        return Ok(None);
    }
    let others = head::elsewhere(connection, realm).await?;
    let revisions = others.iter().map(|other| other.base.state.revision);
    let newest = revisions.fold(status.revision, u64::max);
    Ok((newest < mark).then(|| Unseen {
        mark,
        newest,
        asked: others.len() + 1,
    }))
}

fn agreement(status: &Status, unseen: Option<Unseen>) -> Finding {
    if status.forked {
        return Finding::new(
            "log",
            State::Problem,
            format!("forked after revision {}", status.revision),
        )
        .help("see the branches and end it: realm history merge");
    }
    if let Some(Unseen {
        mark,
        newest,
        asked,
    }) = unseen
    {
        let found = format!(
            "you have seen revision {mark}, and no node that answers has it: {asked} asked, the newest is {newest}"
        );
        return Finding::new("log", State::Problem, found).help(
            "nothing is signed below what you have seen: bring back the node that has it; where it is gone for good: realm history accept-loss",
        );
    }
    let behind: Vec<&str> = status
        .nodes
        .iter()
        .filter(|node| node.state == NodeState::Incompatible)
        .map(|node| node.name.as_str())
        .collect();
    if !behind.is_empty() {
        let found = format!("not understood by older nodes: {}", behind.join(", "));
        return Finding::new("log", State::Warning, found)
            .help("upgrade them: docs/operating/upgrade.md");
    }
    Finding::new(
        "log",
        State::Ok,
        format!("one history, at revision {}", status.revision),
    )
}

fn alarms(status: &Status) -> impl Iterator<Item = Finding> {
    let alarms = status.alarms.iter();
    alarms.map(|alarm| {
        Finding::new("alarm", State::Problem, alarm.message.clone()).help(alarm.help.clone())
    })
}
