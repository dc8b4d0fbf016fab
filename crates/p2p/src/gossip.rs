//! Gossipsub as Realm uses it: two topics a realm, nothing forwarded before it was validated, peers scored.

use std::time::Duration;

use libp2p::gossipsub::{
    AllowAllSubscriptionFilter, Behaviour, ConfigBuilder, IdentTopic, IdentityTransform,
    MaxCountSubscriptionFilter, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode,
};
use realm_identity::{Hash, RealmId};

use crate::Topic;

/// Largest gossip message. Whatever is larger is pulled over a stream.
pub(crate) const MESSAGE_MAX: usize = 16 * 1024;
/// The topic's name and the framing around a message of the largest size.
const ENVELOPE_MAX: usize = 512;
/// A realm has two topics; more is a peer that wants our memory.
pub(crate) const TOPICS_PER_PEER: usize = 8;
/// Peers that a message is handed on to. With the library's six to twelve an idle node of a small realm
/// did little but drop what it knew.
const MESH: usize = 4;
const MESH_LOW: usize = 3;
const MESH_HIGH: usize = 6;
/// Peers outside of it that are told what a node has, at each heartbeat: so many, or this part of them.
/// A message that the mesh lost is found so; the log has ways of its own.
const TOLD_OF: usize = 2;
const TOLD_OF_PART: f64 = 0.05;
const PRUNE_BACKOFF: Duration = Duration::from_secs(5);
/// How long a peer that is gone is remembered: about as long as its penalty lasts while it is here. The library
/// remembers strangers, too, and those that come with a new key each time are many.
const RETAIN_SCORE: Duration = Duration::from_secs(60);
/// Below the graylist threshold, so that a stranger neither gets nor gives gossip.
const SCORE_STRANGER: f64 = -1000.0;

/// What a peer scores before it did anything.
pub(crate) fn score(approved: bool) -> f64 {
    if approved { 0.0 } else { SCORE_STRANGER }
}

pub(crate) type Gossip =
    Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

pub(crate) fn build(heartbeat: Duration) -> Result<Gossip, String> {
    let config = ConfigBuilder::default()
        .validate_messages()
        // What is gossiped carries its author's signature inside.
        .validation_mode(ValidationMode::Anonymous)
        .max_transmit_size(MESSAGE_MAX + ENVELOPE_MAX)
        .message_id_fn(|message| {
            let hash =
                Hash::of(&[message.topic.as_str().as_bytes(), b"\0", &message.data].concat());
            MessageId::new(hash.as_bytes())
        })
        // Peers learn of an approval at different times: whoever was turned away as a stranger asks again soon.
        .prune_backoff(PRUNE_BACKOFF)
        .graft_flood_threshold(PRUNE_BACKOFF / 2)
        // Its author's mesh carries a message on: told to all of its peers by itself, most of what a
        // node hears would be what it knows.
        .flood_publish(false)
        .heartbeat_interval(heartbeat)
        .heartbeat_initial_delay(heartbeat)
        .gossip_lazy(TOLD_OF)
        .gossip_factor(TOLD_OF_PART)
        .mesh_outbound_min(1)
        .mesh_n_low(MESH_LOW)
        .mesh_n(MESH)
        .mesh_n_high(MESH_HIGH)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: TOPICS_PER_PEER,
        max_subscriptions_per_request: TOPICS_PER_PEER,
    };
    let mut gossip =
        Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)?;
    gossip.with_peer_score(scores(), PeerScoreThresholds::default())?;
    Ok(gossip)
}

/// The library's defaults are for Ethereum's busy topics: they reward mere presence
/// and punish every honest peer of a quiet one.
fn scores() -> PeerScoreParams {
    PeerScoreParams {
        app_specific_weight: 1.0,
        // Machines behind one address are normal; the connection limits count addresses.
        ip_colocation_factor_weight: 0.0,
        retain_score: RETAIN_SCORE,
        ..PeerScoreParams::default()
    }
}

fn topic_scores() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Two invalid messages mute a peer, three shut it out.
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: 0.97,
        ..TopicScoreParams::default()
    }
}

/// The topics of one realm.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub realm: RealmId,
    heads: IdentTopic,
    status: IdentTopic,
}

impl Topics {
    pub fn new(realm: RealmId) -> Self {
        Self {
            realm,
            heads: IdentTopic::new(format!("realm/{realm}/heads")),
            status: IdentTopic::new(format!("realm/{realm}/status")),
        }
    }

    pub fn topic(&self, topic: Topic) -> &IdentTopic {
        match topic {
            Topic::Heads => &self.heads,
            Topic::Status => &self.status,
        }
    }

    pub fn find(&self, hash: &TopicHash) -> Option<Topic> {
        [Topic::Heads, Topic::Status]
            .into_iter()
            .find(|topic| self.topic(*topic).hash() == *hash)
    }

    pub fn subscribe(&self, gossip: &mut Gossip) -> Result<(), String> {
        for topic in [&self.heads, &self.status] {
            gossip.subscribe(topic).map_err(|error| error.to_string())?;
            gossip.set_topic_params(topic.clone(), topic_scores())?;
        }
        Ok(())
    }

    pub fn unsubscribe(&self, gossip: &mut Gossip) {
        for topic in [&self.heads, &self.status] {
            gossip.unsubscribe(topic);
        }
    }
}
