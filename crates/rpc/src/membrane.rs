//! The membrane: proves a key, then hands out what the key may hold.

use std::{cell::Cell, rc::Rc};

use futures::future::LocalBoxFuture;
use realm_identity::{GraftChallenge, PublicKey, RealmId};

use crate::{
    Control, ErrorCode, Limits, PublicInfo, RpcError, convert,
    operator::{OperatorServer, Uploads},
    schema::{
        membrane_capnp::{membrane, signer},
        operator_capnp::operator,
    },
};

/// The name under which an operator's capability is exported.
pub(crate) const OPERATOR: &str = "operator";

/// Most proofs tried on one connection: a client needs one.
const MAX_GRAFTS: u32 = 16;

/// The node behind a connection.
pub trait Host {
    /// What anyone may know.
    fn info(&self) -> PublicInfo;

    /// The realm that proofs must name; None before there is one.
    fn realm(&self) -> Option<RealmId>;

    /// Rises whenever authority that was given out ends.
    fn epoch(&self) -> u64;

    /// Returns once `epoch` is no longer the present one.
    fn epoch_ended(&self, epoch: u64) -> LocalBoxFuture<'_, ()>;

    /// What `key`, which was proven, may do here; None for a key without rights.
    fn authorise(
        &self,
        key: PublicKey,
    ) -> LocalBoxFuture<'_, Result<Option<Rc<dyn Control>>, RpcError>>;
}

pub(crate) struct MembraneServer {
    host: Rc<dyn Host>,
    limits: Limits,
    grafts: Cell<u32>,
    uploads: Uploads,
}

impl MembraneServer {
    pub(crate) fn new(host: Rc<dyn Host>, limits: Limits) -> Self {
        Self {
            host,
            limits,
            grafts: Cell::new(0),
            uploads: Uploads::new(limits.uploads),
        }
    }

    /// Has the signer prove its key, and asks the host what that key may hold.
    async fn admit(&self, signer: signer::Client) -> Result<Option<operator::Client>, RpcError> {
        let tried = self.grafts.get() + 1;
        if tried > MAX_GRAFTS {
            return Err(RpcError::new(
                ErrorCode::Limit,
                "too many proofs on one connection",
            ));
        }
        self.grafts.set(tried);
        let epoch = self.host.epoch();
        let key = self.prove(signer, epoch).await?;
        let Some(control) = self.host.authorise(key).await? else {
            return Ok(None);
        };
        let server = OperatorServer {
            control,
            host: self.host.clone(),
            epoch,
            limits: self.limits,
            uploads: self.uploads.clone(),
        };
        Ok(Some(capnp_rpc::new_client(server)))
    }

    /// Each challenge has a nonce of its own and is compared once: a proof is good for one graft.
    async fn prove(&self, signer: signer::Client, epoch: u64) -> Result<PublicKey, RpcError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|_| {
            RpcError::new(ErrorCode::Failed, "this machine gives no random numbers")
        })?;
        // The client's key is the one thing the challenge leaves open; the proof names it.
        let challenge = |client| {
            GraftChallenge::new(
                self.host.realm(),
                self.host.info().node,
                client,
                nonce,
                epoch,
            )
        };
        let sent = challenge(PublicKey::NONE);
        let mut request = signer.sign_request();
        let mut to = request.get().init_challenge();
        to.set_version(sent.v);
        to.set_domain(&*sent.domain);
        to.set_realm(
            sent.realm
                .as_ref()
                .map_or(&[], |realm| &realm.as_bytes()[..]),
        );
        to.set_node(sent.node.as_bytes());
        to.set_nonce(&sent.nonce);
        to.set_epoch(sent.epoch);
        let answer = request.send().promise.await?;
        let answer = answer.get()?;
        if answer.has_error() {
            return Err(convert::read_error(answer.get_error()?)?);
        }
        let proof = answer.get_proof()?;
        let refused = |_| {
            RpcError::new(
                ErrorCode::NotAuthorised,
                "the proof of the key does not verify",
            )
            .help("graft again; each proof is good once, for the node that asked for it")
        };
        let claimed = realm_identity::Signed::<GraftChallenge>::from_wire(proof)
            .map_err(|_| refused(()))?
            .client;
        challenge(claimed).verify(proof).map_err(|_| refused(()))?;
        Ok(claimed)
    }
}

impl membrane::Server for MembraneServer {
    async fn info(
        self: Rc<Self>,
        _: membrane::InfoParams,
        mut results: membrane::InfoResults,
    ) -> Result<(), capnp::Error> {
        convert::write_info(results.get().init_info(), &self.host.info());
        Ok(())
    }

    async fn graft(
        self: Rc<Self>,
        params: membrane::GraftParams,
        mut results: membrane::GraftResults,
    ) -> Result<(), capnp::Error> {
        let signer = params.get()?.get_signer()?;
        let admitted = tokio::time::timeout(self.limits.call, self.admit(signer)).await;
        convert::write_info(results.get().init_info(), &self.host.info());
        match admitted.unwrap_or_else(|_| Err(RpcError::deadline())) {
            Ok(Some(operator)) => {
                let mut export = results.get().init_exports(1).get(0);
                export.set_name(OPERATOR);
                export.init_cap().set_as_capability(operator.client.hook);
            }
            Ok(None) => {}
            Err(error) => convert::write_error(results.get().init_error(), &error),
        }
        Ok(())
    }
}
