//! `realm peer add`: where a node is reached.

use crate::{
    commands::Session,
    connection::{self, rpc_failed},
    error::{ExitCode, Result},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Have the node dial an address, and remember it here and there.
    Add {
        /// A multiaddr, such as /ip4/192.0.2.7/udp/2020/quic-v1.
        address: String,
    },
    /// List the addresses remembered here.
    Ls,
}

pub fn run(command: &Command, session: &Session) -> Result<ExitCode> {
    let realm = session.realm()?;
    match command {
        Command::Ls => {
            let peers = realm.peers()?;
            if session.output.json() {
                session.output.object(&peers)?;
            } else {
                for address in peers {
                    session.output.line(&address)?;
                }
            }
        }
        Command::Add { address } => connection::block_on(async {
            let connection = connection::open(session, &realm).await?;
            let added = connection.operator.peer_add(address).await;
            added.map_err(|error| rpc_failed("the node cannot reach this address", &error))?;
            realm.save_peers(std::slice::from_ref(address));
            session.output.say(format!("✓ added {address}"));
            Ok(())
        })?,
    }
    Ok(ExitCode::Ok)
}
