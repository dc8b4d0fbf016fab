//! What the network tells.

use realm_identity::PublicKey;
use realm_p2p::{NetworkEvent, Reachability};
use realm_protocol::{Event, Now};

use super::{Core, effects};
use crate::{
    offenders::{self, Sentence},
    whereabouts,
};

/// Nodes of the local network that are remembered.
const MAX_NEIGHBOURS: usize = 256;

impl Core {
    /// Holds against a peer what it did, and counts it by its name.
    pub(super) async fn offence(
        &mut self,
        peer: PublicKey,
        (name, weight): (&'static str, u64),
        what: &str,
        now: Now,
    ) {
        tracing::debug!(%peer, what, "a peer misbehaved");
        self.offenders.count(name);
        let approved = self.approved.contains_key(&peer);
        match self.offenders.note(peer, approved, weight, now.mono) {
            Sentence::Counted => {}
            Sentence::Told { count } => {
                let message = match count {
                    1 => format!("{peer}: {what}"),
                    _ => format!("{peer}: {what}, and {} offences before", count - 1),
                };
                self.events
                    .record(now.wall, "refused", self.node_name(&peer), message);
            }
            Sentence::Banned { count, told } => {
                let minutes = offenders::BAN.as_secs() / 60;
                let message = format!(
                    "{peer} is kept out for {minutes} minutes after {count} more offences, the last: {what}"
                );
                if told {
                    self.events
                        .record(now.wall, "banned", peer.short(), message);
                }
                if self.network.ban(peer, offenders::BAN).await.is_err() {
                    tracing::warn!("the network has stopped");
                }
            }
        }
    }

    /// Strangers of whom there were too many to name.
    pub(super) fn tell_untold(&mut self, now: Now) {
        if let Some(count) = self.offenders.untold(now.mono) {
            let message = format!(
                "{count} times more, by strangers that are not named here: realm_offences_total counts what they did"
            );
            self.events
                .record(now.wall, "refused", "strangers".to_owned(), message);
        }
    }

    pub(super) async fn network_event(&mut self, event: NetworkEvent, now: Now) {
        match event {
            NetworkEvent::PeerConnected { key, link } => {
                tracing::debug!(peer = %key, link = link.name(), "connected");
                self.node.handle(Event::PeerConnected { peer: key }, now);
                self.ask_for_later_start(key, now).await;
                self.publish_sources().await;
            }
            NetworkEvent::PeerDisconnected { key } => {
                tracing::debug!(peer = %key, "disconnected");
                self.node.handle(Event::PeerDisconnected { peer: key }, now);
                self.publish_sources().await;
            }
            NetworkEvent::Frame { from, bytes } => {
                self.look_for_later_start(from, &bytes, now);
                self.node.handle(
                    Event::Frame {
                        from,
                        bytes: bytes.to_vec(),
                    },
                    now,
                );
            }
            NetworkEvent::Gossip {
                id,
                source,
                topic,
                bytes,
            } => {
                let verdict = self
                    .node
                    .handle_gossip(source, effects::topic(topic), &bytes, now);
                let verdict = effects::verdict(verdict);
                if self.network.report_validation(id, verdict).await.is_err() {
                    tracing::warn!("the network has stopped");
                }
            }
            NetworkEvent::Listening { address } => {
                tracing::info!(address, "listening");
                if !self.addresses.contains(&address) {
                    self.addresses.push(address);
                    // The first one is what people and other machines are told.
                    whereabouts::sort(&mut self.addresses);
                    // It may be the one that its invite names.
                    self.begun = false;
                }
                self.publish_view().await;
            }
            NetworkEvent::NotListening { addresses, .. } => {
                self.addresses.retain(|known| !addresses.contains(known));
                self.publish_view().await;
            }
            NetworkEvent::Discovered { key, addresses } => {
                if self.neighbours.len() < MAX_NEIGHBOURS {
                    self.neighbours.insert(key);
                }
                for address in addresses {
                    if self.network.add_address(key, &address).await.is_err() {
                        tracing::debug!(address, "a discovered address is not one");
                    }
                }
                self.connect(key);
            }
            NetworkEvent::Malformed { from, reason } => {
                let framing = (offenders::FRAMING_NAME, offenders::FRAMING);
                self.offence(from, framing, &reason, now).await;
            }
            NetworkEvent::Reachability(Reachability::Private) => {
                tracing::info!("not reachable from outside: looking for a relay");
                self.reached = Some(false);
                self.find_relays(now);
                self.publish_view().await;
            }
            NetworkEvent::Reachability(Reachability::Public { address }) => {
                tracing::info!(address, "reachable from outside: serving as a relay");
                self.reached = Some(true);
                if self.network.set_relay(true).await.is_err() {
                    tracing::warn!("the network has stopped");
                }
                self.publish_view().await;
            }
            NetworkEvent::FramesDropped { to, count, reason } => {
                tracing::debug!(peer = %to, count, reason, "frames dropped");
            }
            NetworkEvent::Started { key, run } => {
                if self.approved.contains_key(&key) {
                    self.twins.saw(key, run, now.mono);
                }
            }
            NetworkEvent::Rtt { .. }
            | NetworkEvent::Identified { .. }
            | NetworkEvent::Reachability(_) => {}
        }
    }
}
