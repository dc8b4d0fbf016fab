//! Places at relays, while nobody outside can reach this node.

use realm_identity::PublicKey;
use realm_protocol::Now;

use super::Core;
use crate::fold::chain;

/// Relays that accept connections for this node at once; one more than is needed.
const MAX_RELAYS: usize = 2;
/// A peer that did not relay is not asked again for this long.
const ASK_AGAIN_MS: u64 = 60_000;
/// How an address at a relay is told from others.
const CIRCUIT: &str = "/p2p-circuit";

impl Core {
    /// Asks approved peers, which are connected directly, for a place until there are enough. Those that
    /// are not reachable from outside themselves refuse.
    pub(super) fn find_relays(&mut self, now: Now) {
        let held = self.addresses.iter().filter(|at| at.contains(CIRCUIT));
        let missing = MAX_RELAYS.saturating_sub(held.count());
        if self.reached != Some(false) || missing == 0 {
            return;
        }
        let asked = self.relays_asked.iter();
        let recently: Vec<PublicKey> = asked
            .filter(|(_, at)| now.mono < **at + ASK_AGAIN_MS)
            .map(|(peer, _)| *peer)
            .collect();
        let candidates: Vec<(PublicKey, String)> = self
            .node
            .connected()
            .filter(|peer| self.approved.contains_key(peer) && !recently.contains(peer))
            .filter_map(|peer| Some((peer, self.direct_address(&peer)?)))
            .take(missing)
            .collect();
        for (peer, address) in candidates {
            self.relays_asked.insert(peer, now.mono);
            let network = self.network.clone();
            self.dials.spawn(async move {
                match network.relay_via(&address).await {
                    Ok(()) => tracing::debug!(%peer, "asked for a place at a relay"),
                    Err(error) => {
                        tracing::debug!(%peer, error = chain(&error), "does not relay");
                    }
                }
            });
        }
    }

    /// Where the peer says that it is reached without a relay.
    fn direct_address(&self, peer: &PublicKey) -> Option<String> {
        let report = &self.reports.get(peer)?.report;
        let mut direct = report.addresses.iter().filter(|at| !at.contains(CIRCUIT));
        direct.next().cloned()
    }
}
