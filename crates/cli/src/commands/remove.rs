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
        match told {
            Some(told) if told.revision >= revision => {
                let cells = names.iter().filter(|name| told.components.contains(**name));
                left.extend(cells.map(|name| format!("{node}/{name}")));
            }
            _ => left.push(format!("what {node} itself says of its cells")),
        }
    }
    left
}
