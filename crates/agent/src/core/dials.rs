//! Ways to other nodes: addresses that are remembered, and dialling.

use realm_identity::PublicKey;

use super::Core;

/// Connections that are being opened at once because the protocol asked for them.
const MAX_DIALS: usize = 64;

impl Core {
    /// Where another node says it is reached, for when it must be dialled.
    pub(crate) async fn learn_addresses(&self, key: PublicKey, addresses: &[String]) {
        if key == self.key.public() {
            return;
        }
        // What is learnt last is tried first, and the node names its best one first.
        for address in addresses.iter().rev() {
            if let Err(error) = self.network.add_address(key, address).await {
                tracing::debug!(
                    address,
                    error = crate::fold::chain(&error),
                    "not an address"
                );
            }
        }
    }

    pub(crate) fn connect(&mut self, key: PublicKey) {
        if key == self.key.public() {
            return;
        }
        if self.dials.len() >= MAX_DIALS {
            return;
        }
        let network = self.network.clone();
        self.dials.spawn(async move {
            if let Err(error) = network.connect(key).await {
                tracing::debug!(peer = %key, error = crate::fold::chain(&error), "not connected");
            }
        });
    }

    pub(crate) fn dial(&mut self, address: String) {
        let network = self.network.clone();
        self.dials.spawn(async move {
            if let Err(error) = network.dial(&address).await {
                tracing::debug!(address, error = crate::fold::chain(&error), "not connected");
            }
        });
    }
}
