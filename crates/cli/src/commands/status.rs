//! `realm status`: what runs where, what is away, and why.

use std::{collections::BTreeSet, convert::Infallible, ops::ControlFlow, time::Duration};

use realm_agent::status::Picture;
use realm_manifest::units::size_text;
use realm_rpc::status::{Alarm, CellState, Component, Drift, Node, Status};

use crate::{
    commands::Session,
    connection,
    error::{CliError, Context as _, ExitCode, Result},
    head,
    output::{self, Output, Page, on_terminal},
    survey::{self, Follower},
};

/// How long `--watch` looks for another node when the one that it asks is gone.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm status\n  realm status web --watch\n  realm status -o json"
)]
pub struct Args {
    /// Only this component, in full; as JSON in the form of the whole status.
    pub name: Option<String>,
    /// Show every change until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Exit with 3 when anything is not as asked.
    #[arg(long)]
    pub exit_code: bool,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        if args.watch {
            let mut follower = Follower::new(session, &realm, &connection, PATIENCE);
            return watch(args, &mut follower, &session.output).await;
        }
        let (status, head) = survey::status_and_head(&connection, &realm, &session.output).await?;
        connection::remember(&connection, &realm, &status);
        page(args, &status, &session.output)?.write(&session.output)?;
        let mark = realm.mark()?;
        if status.revision < mark && !status.forked {
            session.output.say(format!(
                "warning: this node is at revision {}, you have seen {mark}; ask another one: --via ADDR",
                status.revision
            ));
        }
        if !status.forked && realm.contradicts(status.revision, head)? {
            let another = head::another(&connection, status.revision, "you have seen");
            session
                .output
                .say(format!("warning: {}", another.in_one_line()));
        }
        let as_asked = |one: &Component| {
            use realm_rpc::status::ComponentState as Is;
            matches!(one.state, Is::Running | Is::Done | Is::Stopped)
        };
        let differs =
            !status.drift.is_empty() || status.forked || !status.components.iter().all(as_asked);
        Ok(if args.exit_code && differs {
            ExitCode::Differs
        } else {
            ExitCode::Ok
        })
    })
}

async fn watch(args: &Args, follower: &mut Follower<'_>, output: &Output) -> Result<ExitCode> {
    let mut last = None;
    let show = |now: Picture| -> Result<ControlFlow<Infallible>> {
        let page = page(args, &now.status, output)?;
        if output.redraws() {
            page.draw(output)?;
        } else if last.as_ref() != Some(&page) {
            // A pipe keeps every picture: one like the last says nothing.
            page.write(output)?;
            last = Some(page);
        }
        Ok(ControlFlow::Continue(()))
    };
    match follower.follow(show).await? {}
}

fn page(args: &Args, status: &Status, output: &Output) -> Result<Page> {
    let one = args
        .name
        .as_deref()
        .map(|name| component(status, name))
        .transpose()?;
    let mut page = Page::default();
    if output.json() {
        // One form for both, so that whoever reads it needs no second way.
        let status = match one {
            Some(one) => &about(one, status),
            None => status,
        };
        let text = match args.watch {
            true => serde_json::to_string(status),
            false => serde_json::to_string_pretty(status),
        };
        page.text(&output::harmless(&text.context("cannot write JSON")?));
        return Ok(page);
    }
    match one {
        Some(one) => show_one(status, one, &mut page),
        None => show_all(status, &mut page),
    }
    Ok(page)
}

/// The status without the other components.
fn about(one: &Component, status: &Status) -> Status {
    let mut only = status.clone();
    only.components.retain(|other| other.name == one.name);
    only.drift.retain(|drift| drift.component == one.name);
    only
}

fn component<'a>(status: &'a Status, name: &str) -> Result<&'a Component> {
    let found = status
        .components
        .iter()
        .find(|component| component.name == name);
    found.ok_or_else(|| {
        let left = status.drift.iter().filter(|drift| drift.component == name);
        let left: BTreeSet<&str> = left.filter_map(|drift| drift.node.as_deref()).collect();
        let mut message = format!("no component {name:?}");
        if !left.is_empty() {
            let left: Vec<&str> = left.into_iter().collect();
            message = format!(
                "{message}: it is removed, and still runs on {}",
                left.join(", ")
            );
        }
        CliError::new(ExitCode::NotFound, message).help("list them: realm status")
    })
}

fn show_all(status: &Status, page: &mut Page) {
    let drift = if status.drift.is_empty() {
        "none".into()
    } else {
        status.drift.len().to_string()
    };
    page.line(&format!(
        "realm {}  {}  revision {}  drift: {drift}",
        status.realm.name,
        status.realm.id.short(),
        status.revision
    ));
    if status.forked {
        page.line(
            "FORKED: two intents have one revision; nothing new is taken until they are merged: realm history merge",
        );
    }
    alarms(&status.alarms, page);
    nodes(&status.nodes, page);
    let gone = leftovers(status);
    if status.components.is_empty() {
        if gone.is_empty() {
            page.say("no components yet. Next: realm push NAME FILE");
        }
        return drifts(&gone, page);
    }
    page.line("");
    let rows = status.components.iter().map(|one| {
        let running = one.cells.iter();
        let running = running.filter(|cell| cell.state == Some(CellState::Running));
        vec![
            one.name.clone(),
            one.state.to_string(),
            format!("{}/{}", one.running, one.desired),
            restarts(one).to_string(),
            one.digest.short(),
            on_nodes(&one.desired_nodes, running.map(|cell| &cell.node)),
            one.reason
                .as_ref()
                .map(|reason| reason.message.clone())
                .unwrap_or_default(),
        ]
    });
    let header = [
        "COMPONENT",
        "STATE",
        "RUNNING",
        "RESTARTS",
        "DIGEST",
        "NODES",
        "REASON",
    ];
    page.table(&header, rows.collect());
    drifts(&gone, page)
}

/// The nodes that it is to run on, and then those where more of it runs than is asked.
fn on_nodes<'s>(desired: &'s [String], running: impl Iterator<Item = &'s String>) -> String {
    let mut nodes: Vec<&str> = Vec::new();
    for node in desired.iter().chain(running) {
        if !nodes.contains(&&**node) {
            nodes.push(node);
        }
    }
    nodes.join(",")
}

/// What is not as asked of components that are gone, and so have no row.
fn leftovers(status: &Status) -> Vec<&Drift> {
    let known: BTreeSet<&str> = status
        .components
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let drift = status.drift.iter();
    drift
        .filter(|drift| !known.contains(drift.component.as_str()))
        .collect()
}

fn drifts(gone: &[&Drift], page: &mut Page) {
    if gone.is_empty() {
        return;
    }
    page.line("");
    for drift in gone {
        let line = drift_line(drift);
        page.line(&format!("{} is removed; {line}", drift.component));
        let help = drift.reason.as_ref().and_then(|why| why.help.as_ref());
        if let Some(help) = help {
            page.line(&format!("  help: {help}"));
        }
    }
}

fn drift_line(drift: &Drift) -> String {
    let node = drift.node.as_deref().unwrap_or("no node");
    let why = drift.reason.as_ref().map_or("", |reason| &*reason.message);
    let line = format!("{node}: wants {}, has {}  {why}", drift.want, drift.have);
    line.trim_end().to_owned()
}

fn show_one(status: &Status, one: &Component, page: &mut Page) {
    let rest = format!(
        "{}/{}  sha256:{}  revision {}",
        one.running, one.desired, one.digest, one.set_by.revision
    );
    page.headline(&one.name, &one.state.to_string(), &rest);
    if let Some(reason) = &one.reason {
        page.line(&format!("  {}: {}", reason.code, reason.message));
        if let Some(help) = &reason.help {
            page.line(&format!("  help: {help}"));
        }
    }
    let rows = one.cells.iter().map(|cell| {
        vec![
            cell.id.clone(),
            cell.state
                .map_or_else(|| "-".to_owned(), |state| state.to_string()),
            cell.restarts.to_string(),
            memory(cell.memory_bytes, cell.memory_max_bytes),
            cell.exit_code
                .map(|code| code.to_string())
                .unwrap_or_else(|| "-".into()),
            cell.reason
                .as_ref()
                .map(|reason| reason.message.clone())
                .unwrap_or_default(),
        ]
    });
    page.table(
        &["CELL", "STATE", "RESTARTS", "MEMORY", "EXIT", "REASON"],
        rows.collect(),
    );
    for drift in status
        .drift
        .iter()
        .filter(|drift| drift.component == one.name)
    {
        page.line(&format!("  {}", drift_line(drift)));
    }
}

/// What the owner must look at, also of `realm nodes ls`.
pub fn alarms(alarms: &[Alarm], page: &mut Page) {
    for alarm in alarms {
        page.line(&format!("ALARM: {}", alarm.message));
        page.line(&format!("  help: {}", alarm.help));
    }
}

/// The table of nodes, also of `realm nodes ls`.
pub fn nodes(nodes: &[Node], page: &mut Page) {
    let rows = nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            node_state(node),
            node.key.short(),
            node.tags.join(","),
            node.link
                .map(|link| link.to_string())
                .unwrap_or_else(|| "-".into()),
            node.rtt_ms
                .map(|rtt| format!("{rtt:.1}ms"))
                .unwrap_or_else(|| "-".into()),
            node.cpu_percent
                .map(|cpu| format!("{cpu:.0}%"))
                .unwrap_or_else(|| "-".into()),
            memory(node.memory_bytes, None),
            node.cell_count
                .map(|count| count.to_string())
                .unwrap_or_else(|| "-".into()),
            node.last_seen.map_or_else(|| "-".into(), seen),
        ]
    });
    let header = [
        "NODE", "STATE", "KEY", "TAGS", "LINK", "RTT", "CPU", "MEMORY", "CELLS", "SEEN",
    ];
    page.table(&header, rows.collect())
}

/// Of today a person needs the time of day alone, which leaves a narrow terminal room; a program gets all.
fn seen(at: jiff::Timestamp) -> String {
    let whole = format!("{at:.0}");
    let today = format!("{:.0}", jiff::Timestamp::now());
    match (whole.split_once('T'), today.split_once('T')) {
        (Some((day, time)), Some((today, _))) if day == today && on_terminal() => time.to_owned(),
        _ => whole,
    }
}

/// What keeps it from doing its part is said beside its state.
fn node_state(node: &Node) -> String {
    let problems = node.problems.iter().map(|problem| problem.code.as_str());
    let words = std::iter::once(node.state.to_string()).chain(problems.map(str::to_owned));
    words.collect::<Vec<_>>().join(",")
}

fn restarts(component: &Component) -> u64 {
    component.cells.iter().map(|cell| cell.restarts).sum()
}

fn memory(used: Option<u64>, max: Option<u64>) -> String {
    match (used, max) {
        (None, _) => "-".into(),
        (Some(used), None) => size_text(used),
        (Some(used), Some(max)) => format!("{}/{}", size_text(used), size_text(max)),
    }
}

#[cfg(test)]
mod tests {
    use super::on_nodes;

    #[test]
    fn where_more_runs_than_is_asked_is_shown_too() {
        let [one, two, six] = ["one", "two", "six"].map(str::to_owned);
        let desired = [one, two.clone()];
        let shown = |running: &[&String]| on_nodes(&desired, running.iter().copied());
        assert_eq!(shown(&[]), "one,two");
        assert_eq!(shown(&[&two, &six, &two, &six]), "one,two,six");
    }
}
