//! `realm peer`: where nodes are reached.

use crate::{
    commands::Session,
    connection::{self, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
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
    /// Forget an address here. Nodes keep what they know, and one that is used again is remembered again.
    #[command(alias = "remove")]
    Rm {
        /// As realm peer ls shows it.
        address: String,
    },
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
        Command::Rm { address } => {
            if !realm.forget_peer(address)? {
                let message = format!("{address} is not remembered here");
                return Err(
                    CliError::new(ExitCode::NotFound, message).help("list them: realm peer ls")
                );
            }
            session.output.say(format!("✓ forgot {address}"));
        }
        Command::Add { address } => connection::block_on(async {
            let address = &realm_p2p::check_dial_address(address)
                .context_code(ExitCode::Usage, "this is not an address to dial")
                .map_err(|error| {
                    error.help("for example: realm peer add /ip4/192.0.2.7/udp/2020/quic-v1")
                })?;
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
