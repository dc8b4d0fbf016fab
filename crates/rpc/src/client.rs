//! The caller's side of one connection.

use std::rc::Rc;

use capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side};
use futures::{AsyncRead, AsyncWrite};
use realm_identity::{
    GraftChallenge, PublicKey, RealmId, Signed, VERSION, challenge::GRAFT_DOMAIN,
};
use tokio::task::JoinHandle;

use crate::{
    ErrorCode, Limits, Operator, PublicInfo, RpcError, convert,
    gate::Network,
    membrane::OPERATOR,
    schema::{
        membrane_capnp::{membrane, signer},
        operator_capnp::operator,
    },
};

/// A connection to a node. It lasts as long as this value or an [`Operator`] obtained through it.
#[derive(Clone)]
pub struct Client {
    membrane: membrane::Client,
    limits: Limits,
    driver: Rc<Driver>,
}

/// What a graft gave: who is there, and what the key may do, if anything.
#[derive(Debug)]
pub struct Graft {
    pub info: PublicInfo,
    pub operator: Option<Operator>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the node does not answer")]
    Rpc(#[from] RpcError),
    #[error("the node says it is {said}, the connection is to {dialled}")]
    OtherNode { said: PublicKey, dialled: PublicKey },
}

/// Runs the connection; stops it when dropped.
pub(crate) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Speaks to the node at the other end of `stream`. Must be called on a [`tokio::task::LocalSet`].
pub fn connect<S>(stream: S, limits: Limits) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (network, _) = Network::new(stream, Side::Client, limits);
    let mut system = RpcSystem::new(Box::new(network), None);
    let membrane = system.bootstrap(Side::Server);
    let driver = tokio::task::spawn_local(async move {
        if let Err(error) = system.await {
            tracing::debug!(%error, "the connection ended");
        }
    });
    Client {
        membrane,
        limits,
        driver: Rc::new(Driver(driver)),
    }
}

impl Client {
    /// What the node tells anyone.
    pub async fn info(&self) -> Result<PublicInfo, RpcError> {
        let answer = within(self.limits, self.membrane.info_request().send().promise).await?;
        convert::read_info(answer.get()?.get_info()?)
    }

    /// Proves `signer`'s key to the node, which must be `node`, and of `realm` if that is given.
    pub async fn graft<S>(
        &self,
        signer: Rc<S>,
        node: PublicKey,
        realm: Option<RealmId>,
    ) -> Result<Graft, ConnectError>
    where
        S: realm_identity::Signer + 'static,
    {
        let mut request = self.membrane.graft_request();
        request
            .get()
            .set_signer(capnp_rpc::new_client(SignerServer {
                signer,
                node,
                realm,
            }));
        let answer = within(self.limits, request.send().promise).await?;
        let answer = answer.get().map_err(RpcError::from)?;
        if answer.has_error() {
            return Err(convert::read_error(answer.get_error().map_err(RpcError::from)?)?.into());
        }
        let info = convert::read_info(answer.get_info().map_err(RpcError::from)?)?;
        if info.node != node {
            return Err(ConnectError::OtherNode {
                said: info.node,
                dialled: node,
            });
        }
        let mut operator = None;
        for export in answer.get_exports().map_err(RpcError::from)? {
            if convert::text(export.get_name())? == OPERATOR {
                let cap: operator::Client = export
                    .get_cap()
                    .get_as_capability()
                    .map_err(RpcError::from)?;
                operator = Some(Operator::new(cap, self.limits, self.driver.clone()));
            }
        }
        Ok(Graft { info, operator })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Waits for an answer, not for ever. The node has deadlines of its own; this one is for nodes that lie.
pub(crate) async fn within<T>(
    limits: Limits,
    call: impl Future<Output = Result<T, capnp::Error>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(limits.call, call).await {
        Ok(answer) => answer.map_err(RpcError::from),
        Err(_) => Err(RpcError::deadline()),
    }
}

/// Signs the challenge of the node that was dialled, and nothing else.
struct SignerServer<S> {
    signer: Rc<S>,
    node: PublicKey,
    realm: Option<RealmId>,
}

impl<S: realm_identity::Signer> SignerServer<S> {
    fn sign(&self, params: &signer::SignParams) -> Result<Vec<u8>, RpcError> {
        let challenge = params.get()?.get_challenge()?;
        let refuse = |message: &str| Err(RpcError::new(ErrorCode::NotAuthorised, message));
        if challenge.get_version() != VERSION
            || convert::text(challenge.get_domain())? != GRAFT_DOMAIN
        {
            return refuse("this is not a challenge that a graft signs");
        }
        if convert::key(challenge.get_node()?)? != self.node {
            return refuse("the challenge names another node than the one that was dialled");
        }
        let realm = convert::optional_hash(challenge.get_realm()?)?;
        if realm.is_some() && self.realm.is_some() && realm != self.realm {
            return refuse("the node belongs to another realm");
        }
        let nonce = challenge
            .get_nonce()?
            .try_into()
            .map_err(|_| RpcError::malformed("nonce"))?;
        let client = self.signer.public();
        let challenge = GraftChallenge::new(realm, self.node, client, nonce, challenge.get_epoch());
        match Signed::sign(challenge, &*self.signer) {
            Ok(signed) => Ok(signed.to_wire()),
            Err(_) => refuse("the key did not sign"),
        }
    }
}

impl<S: realm_identity::Signer + 'static> signer::Server for SignerServer<S> {
    async fn sign(
        self: Rc<Self>,
        params: signer::SignParams,
        mut results: signer::SignResults,
    ) -> Result<(), capnp::Error> {
        match Self::sign(&self, &params) {
            Ok(proof) => results.get().set_proof(&proof),
            Err(error) => convert::write_error(results.get().init_error(), &error),
        }
        Ok(())
    }
}
