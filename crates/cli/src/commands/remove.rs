//! `realm rm`: takes components out of the realm.

use std::{collections::BTreeSet, time::Duration};

use realm_agent::status::Picture;
use realm_identity::Target;
use realm_manifest::{
    ComponentName,
    payload::{Note, Payload},
};

use crate::{
    commands::{
        Session,
        lifecycle::{check_known, report},
        until::Until,
    },
    connection,
    error::{ExitCode, Result},
    head,
    intent::{self, Durable},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  realm rm web\n  realm rm web worker --wait")]
pub struct Args {
    /// The components; where one is not known, none is removed.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<ComponentName>,
    /// Return once no node that is here has a cell of them.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 30s.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    let note = Note {
        note: args.note.clone(),
    };
    let durable = if args.wait {
        Durable::OnTwo(args.timeout)
    } else {
        Durable::OnOne
    };
    // Said twice is meant once.
    let names: BTreeSet<&ComponentName> = args.names.iter().collect();
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        let asked = (&connection, &realm);
        intent::resend(&connection, &realm, &session.output).await?;
        let state = head::base(&connection, &realm).await?.state;
        for name in &names {
            check_known(name, &state)?;
        }
        let mut revision = 0;
        for name in &names {
            let outcome = intent::submit(asked, durable, &session.output, |state| {
                check_known(name, state)?;
                let target = Target::Component(name.as_str().to_owned());
                Ok((target, Payload::Remove(note.clone())))
            })
            .await?;
            report(outcome, name.as_str(), session)?;
            revision = outcome.revision();
        }
        if args.wait {
            let gone = Until {
                timeout: args.timeout,
                done: "no cell is left on any node that is here",
                late: "still there",
                help: "it goes on: see what nodes say with realm nodes ls",
            };
            let left = |now: &Picture| still_there(&names, revision, now);
            return gone.nothing_is(left, asked, session).await;
        }
        Ok(ExitCode::Ok)
    })
}

fn still_there(names: &BTreeSet<&ComponentName>, revision: u64, now: &Picture) -> Vec<String> {
    let mut left = Vec::new();
    for (node, told) in &now.told {
        let Some(told) = told else {
            left.push(format!("{node} has not told of its cells yet"));
            continue;
        };
        // It says nothing of what it was not asked yet.
        if let Some(reason) = told.not_taken(node, revision) {
            left.push(reason.message);
            continue;
        }
        let cells = names.iter().filter(|name| told.components.contains(**name));
        left.extend(cells.map(|name| format!("{node}/{name}")));
    }
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use realm_agent::status::Told;
    use realm_identity::Hash;
    use realm_rpc::status::{API_VERSION, Realm, Status};

    use super::*;

    #[test]
    fn a_node_that_is_behind_is_named_with_the_revision_it_lacks() {
        let web: ComponentName = "web".parse().unwrap();
        let told = |revision| Told {
            revision,
            components: BTreeSet::from([web.clone()]),
            problem: None,
            incompatible: false,
        };
        let nodes = [("a0", Some(told(33))), ("a1", Some(told(35))), ("a2", None)];
        let now = Picture {
            status: Status {
                api_version: API_VERSION.into(),
                realm: Realm {
                    id: Hash::of(b"realm"),
                    name: "home".into(),
                },
                revision: 35,
                forked: false,
                nodes: Vec::new(),
                components: Vec::new(),
                drift: Vec::new(),
                alarms: Vec::new(),
            },
            unsigned: Vec::new(),
            told: nodes
                .map(|(name, told)| (name.to_owned(), told))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        };
        assert_eq!(
            still_there(&BTreeSet::from([&web]), 35, &now),
            [
                "a0 is at revision 33, and has not taken revision 35 yet",
                "a1/web",
                "a2 has not told of its cells yet",
            ]
        );
    }
}
