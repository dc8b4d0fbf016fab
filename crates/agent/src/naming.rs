//! Names that the owner gave: in the log, or with an invite.

use realm_identity::{Invite, PublicKey, Signed, WitnessedClaim};
use realm_manifest::NodeName;
use realm_planner::{Standing, State};

/// The log's name for a node. Of one that only an invite had approved, the log notes no more than that
/// it was taken out.
pub fn recorded(state: &State, claims: &[WitnessedClaim], key: &PublicKey) -> Option<NodeName> {
    let record = state.nodes.get(key)?;
    let noted = match record.standing {
        Standing::Approved => None,
        Standing::Removed => Some("removed"),
        Standing::Revoked => Some("revoked"),
    };
    let is_claimed = claims.iter().any(|claim| claim.claim.node == *key);
    let is_known = noted != Some(record.name.as_str()) || !is_claimed;
    is_known.then(|| record.name.clone())
}

/// The name in the invite that the node used last, whether or not that made it a node of the realm.
pub fn invited(claims: &[WitnessedClaim], key: &PublicKey) -> Option<NodeName> {
    used_invite(claims, key)?.name.as_ref()?.parse().ok()
}

/// The invite that the node used last.
pub fn used_invite(claims: &[WitnessedClaim], key: &PublicKey) -> Option<Signed<Invite>> {
    let used = claims.iter().filter(|claim| claim.claim.node == *key);
    let last = used.max_by_key(|claim| claim.claim.at)?;
    Signed::from_wire(&last.claim.invite).ok()
}
