//! `realm peer`: where nodes are reached.

use std::rc::Rc;

use crate::{
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    keystore,
    realms::Realm,
    search,
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
            let Some(connection) = node_to_ask(address, &realm, session).await? else {
                realm.save_peers(std::slice::from_ref(address));
                session.output.say(format!(
                    "✓ {address} is remembered: it is a node of this realm, and no other one answers"
                ));
                return Ok(());
            };
            let added = connection.operator.peer_add(address).await;
            added.map_err(|error| rpc_failed("the node cannot reach this address", &error))?;
            realm.save_peers(std::slice::from_ref(address));
            session.output.say(format!("✓ added {address}"));
            Ok(())
        })?,
    }
    Ok(ExitCode::Ok)
}

/// A node that is asked to dial `address`. Where none answers at what is remembered, as after all of them moved,
/// the address itself is tried; None where a node of the realm answers there.
async fn node_to_ask(
    address: &str,
    realm: &Realm,
    session: &Session,
) -> Result<Option<Connection>> {
    if session.settings.value("via").is_some() {
        return connection::open(session, realm).await.map(Some);
    }
    let owner = Rc::new(keystore::load(
        &session.settings.key_path(),
        &session.passphrase,
    )?);
    let mut error = match search::any(session, realm, &owner).await {
        Ok(connection) => {
            realm.save_peers(&[connection.address().to_owned()]);
            return Ok(Some(connection));
        }
        Err(error) if error.code == ExitCode::NoAgent => error,
        Err(error) => return Err(error),
    };
    let transport = match connection::dial_via(address).await {
        Ok(transport) => transport,
        Err(unanswered) => {
            let causes = unanswered.causes.iter();
            for cause in causes.map(|cause| format!("{address}: {cause}")) {
                // It may be remembered already.
                if !error.causes.contains(&cause) {
                    error.causes.push(cause);
                }
            }
            let message =
                format!("no node answers where nodes are remembered, nor does one at {address}");
            let failed = CliError::new(error.code, message).help(
                "name a node that answers, and it dials this address: realm peer add ADDRESS --via ADDR; see what is remembered: realm peer ls",
            );
            return Err(CliError {
                causes: error.causes,
                ..failed
            });
        }
    };
    connection::prove(owner, realm, transport)
        .await
        .map(|_| None)
}
