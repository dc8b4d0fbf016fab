//! Which nodes count as approved: those the owner's log names, and those that took up an invite.

use std::collections::{BTreeMap, HashMap, HashSet};

use realm_identity::{Hash, PublicKey, RealmId, VerifiedClaim, WitnessedClaim};
use realm_manifest::{NodeName, Tag};
use realm_planner::{Standing, State};
use realm_protocol::Expulsion;

/// What the owner said of an approved node, in the log or in the invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// None where the invite left the name to the node.
    pub name: Option<NodeName>,
    pub tags: Vec<Tag>,
}

/// The chain's side of approval, taken from the folded state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByChain {
    pub approved: BTreeMap<PublicKey, Approval>,
    /// Taken out, for now or for good, with the revision that did: no claim brings them back.
    pub expelled: BTreeMap<PublicKey, u64>,
}

impl ByChain {
    pub fn of(state: &State) -> Self {
        let mut chain = Self::default();
        for (key, node) in &state.nodes {
            match node.standing {
                Standing::Removed | Standing::Revoked => {
                    chain.expelled.insert(*key, node.revision);
                }
                Standing::Approved => {
                    let approval = Approval {
                        name: Some(node.name.clone()),
                        tags: node.tags.clone(),
                    };
                    chain.approved.insert(*key, approval);
                }
            }
        }
        chain
    }
}

/// The nodes that the chain took out, as the protocol is told of them.
pub fn expulsions(state: &State) -> BTreeMap<PublicKey, Expulsion> {
    let nodes = state.nodes.iter();
    let out = nodes.filter(|(_, node)| node.standing != Standing::Approved);
    out.map(|(key, node)| {
        let expulsion = Expulsion {
            revision: node.revision,
            for_good: node.standing == Standing::Revoked,
        };
        (*key, expulsion)
    })
    .collect()
}

/// Every approved node, by chain or by claim, without those that the chain has taken out.
///
/// A claim needs a witness that is in the realm itself, so the set grows from the chain's nodes and
/// from those that began the realm and vouched for themselves. The protocol takes such claims only
/// until the owner wrote the first entry. An invite that two nodes claimed counts for neither.
///
/// Who was taken out is gone, and those that it let in stay: the owner's invite approved them, a
/// witness only told the time. The protocol takes no new claim of such a witness from strangers.
pub fn approved(
    realm: RealmId,
    owners: &[PublicKey],
    chain: &ByChain,
    claims: &[WitnessedClaim],
) -> BTreeMap<PublicKey, Approval> {
    Checked::default().approved(realm, owners, chain, claims)
}

/// What was found of claims, each checked once: every new one changes who is in, and a node that comes
/// into a large realm learns of hundreds.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    realm: Option<RealmId>,
    owners: Vec<PublicKey>,
    /// By the claim and its witness; None did not verify.
    found: BTreeMap<(Hash, Hash), Option<VerifiedClaim>>,
}

impl Checked {
    /// Who is approved, as [`approved`] says.
    pub fn approved(
        &mut self,
        realm: RealmId,
        owners: &[PublicKey],
        chain: &ByChain,
        claims: &[WitnessedClaim],
    ) -> BTreeMap<PublicKey, Approval> {
        if (self.realm, self.owners.as_slice()) != (Some(realm), owners) {
            (self.realm, self.owners) = (Some(realm), owners.to_vec());
            self.found.clear();
        }
        let id = |claim: &WitnessedClaim| (claim.claim.hash(), claim.witness.hash());
        for claim in claims {
            let verify = || claim.verify(realm, owners, |_| true).ok();
            self.found.entry(id(claim)).or_insert_with(verify);
        }
        let mut users: HashMap<PublicKey, HashSet<PublicKey>> = HashMap::new();
        for claim in claims {
            users
                .entry(claim.claim.key)
                .or_default()
                .insert(claim.claim.node);
        }
        let sound = claims
            .iter()
            .filter(|claim| users[&claim.claim.key].len() == 1);
        let sound = sound.filter_map(|claim| Some((claim, self.found[&id(claim)].as_ref()?)));
        by_claims(chain, &sound.collect::<Vec<_>>())
    }
}

/// The set that grows from the chain's nodes.
fn by_claims(
    chain: &ByChain,
    verified: &[(&WitnessedClaim, &VerifiedClaim)],
) -> BTreeMap<PublicKey, Approval> {
    let mut approved = chain.approved.clone();
    let may_witness = |approved: &BTreeMap<_, _>, node| {
        approved.contains_key(node) || chain.expelled.contains_key(node)
    };
    for (_, first) in verified.iter().filter(|(claim, _)| is_own_witness(claim)) {
        approved
            .entry(first.claim.node)
            .or_insert_with(|| approval(first));
    }
    loop {
        let before = approved.len();
        for (claim, verified) in verified {
            if may_witness(&approved, &claim.witness.node) {
                approved
                    .entry(claim.claim.node)
                    .or_insert_with(|| approval(verified));
            }
        }
        if approved.len() == before {
            break;
        }
    }
    approved.retain(|node, _| !chain.expelled.contains_key(node));
    approved
}

/// Whether the node vouched for itself, as those do that begin a realm.
fn is_own_witness(claim: &WitnessedClaim) -> bool {
    claim.witness.node == claim.claim.node
}

/// Whom a node serves: nobody before it has read the log, which says who is out.
pub fn served(approved: &BTreeMap<PublicKey, Approval>, is_caught_up: bool) -> HashSet<PublicKey> {
    match is_caught_up {
        true => approved.keys().copied().collect(),
        false => HashSet::new(),
    }
}

/// Whether a node may say now that `claimant` took up its invite: one that has not read the log may
/// not know that it was taken out. For itself it speaks at once, or no realm could begin.
pub fn may_vouch_for(claimant: &PublicKey, me: &PublicKey, is_caught_up: bool) -> bool {
    is_caught_up || claimant == me
}

/// Names and tags of an invite that are none are left out: the owner's tools never write such.
fn approval(claim: &VerifiedClaim) -> Approval {
    Approval {
        name: claim
            .invite
            .name
            .as_ref()
            .and_then(|name| name.parse().ok()),
        tags: claim
            .invite
            .tags
            .iter()
            .filter_map(|tag| tag.parse().ok())
            .collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use realm_identity::{Claim, Genesis, Invite, SecretKey, Signed, Timestamp, VERSION};
    use realm_planner::NodeRecord;

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp(1_000_000_000);

    pub(crate) fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn sign<T: realm_identity::Message>(value: T, key: &SecretKey) -> Signed<T> {
        Signed::sign(value, key).unwrap_or_else(|never| match never {})
    }

    fn genesis() -> Signed<Genesis> {
        let owner = key(1);
        sign(Genesis::new(owner.public(), "home".into(), [0; 32]), &owner)
    }

    pub(crate) fn claim(invite_seed: u8, node: u8, witness: u8, at: Timestamp) -> WitnessedClaim {
        let (owner, genesis) = (key(1), genesis());
        let invite = Invite {
            v: VERSION,
            realm: genesis.realm_id(),
            genesis: genesis.to_wire(),
            owner: owner.public(),
            key: key(invite_seed).public(),
            name: Some(format!("node-{node}")),
            tags: vec!["edge".into()],
            not_after: NOW.plus_millis(3_600_000),
            issued_at: NOW,
            addresses: Vec::new(),
        };
        let invite = sign(invite, &owner);
        let claim = Claim::sign(&invite, &key(invite_seed), &key(node), at)
            .unwrap_or_else(|never| match never {});
        VerifiedClaim::new(claim, genesis.realm_id(), &[owner.public()])
            .expect("the claim is sound")
            .witness(&key(witness), at)
            .expect("the claim is in time")
    }

    fn names(chain: &ByChain, claims: &[WitnessedClaim]) -> Vec<String> {
        let mut names: Vec<String> =
            approved(genesis().realm_id(), &[key(1).public()], chain, claims)
                .values()
                .map(|approval| {
                    approval
                        .name
                        .as_ref()
                        .map_or("-".into(), ToString::to_string)
                })
                .collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_node_vouches_for_itself_and_then_for_others() {
        let chain = ByChain::default();
        let first = claim(50, 10, 10, NOW);
        let second = claim(51, 11, 10, NOW.plus_millis(5));
        let third = claim(52, 12, 11, NOW.plus_millis(9));
        assert_eq!(
            names(&chain, &[third.clone(), second.clone(), first]),
            ["node-10", "node-11", "node-12"]
        );
        assert!(
            names(&chain, &[third, second]).is_empty(),
            "nobody vouches for the witness"
        );
    }

    #[test]
    fn what_was_checked_before_counts_only_under_the_same_owners() {
        let (realm, chain) = (genesis().realm_id(), ByChain::default());
        let (owner, other) = ([key(1).public()], [key(2).public()]);
        let claims = [claim(50, 10, 10, NOW), claim(51, 11, 10, NOW)];
        let twice = [&claims[..], &[claim(51, 12, 10, NOW)]].concat();
        let mut checked = Checked::default();
        let mut count = |owners: &[PublicKey], claims: &[WitnessedClaim]| {
            checked.approved(realm, owners, &chain, claims).len()
        };
        assert_eq!(count(&owner, &claims[..1]), 1);
        assert_eq!(count(&owner, &claims), 2);
        assert_eq!(count(&other, &claims), 0);
        assert_eq!(count(&owner, &claims), 2);
        assert_eq!(count(&owner, &twice), 1, "one invite, two nodes");
    }

    #[test]
    fn nodes_that_began_alone_become_one_realm() {
        let (first, second) = (
            claim(50, 10, 10, NOW),
            claim(51, 11, 11, NOW.plus_millis(1)),
        );
        let third = claim(52, 12, 11, NOW.plus_millis(9));
        assert_eq!(
            names(&ByChain::default(), &[third, second, first]),
            ["node-10", "node-11", "node-12"]
        );
    }

    #[test]
    fn the_first_node_stays_when_the_log_approves_others() {
        let approval = Approval {
            name: "boss".parse().ok(),
            tags: Vec::new(),
        };
        let chain = ByChain {
            approved: BTreeMap::from([(key(20).public(), approval)]),
            expelled: BTreeMap::new(),
        };
        let claims = [claim(50, 10, 10, NOW), claim(51, 11, 20, NOW)];
        assert_eq!(names(&chain, &claims), ["boss", "node-10", "node-11"]);
    }

    #[test]
    fn the_log_says_who_is_in_and_who_is_out_for_good() {
        let mut state = State::genesis(&genesis());
        for (seed, standing) in [
            (20, Standing::Approved),
            (21, Standing::Removed),
            (22, Standing::Revoked),
        ] {
            let record = NodeRecord {
                name: format!("node-{seed}").parse().expect("a name"),
                tags: vec!["edge".parse().expect("a tag")],
                standing,
                draining: false,
                revision: seed.into(),
            };
            state.nodes.insert(key(seed).public(), record);
        }
        let [stays, removed, revoked] = [20, 21, 22].map(|seed| key(seed).public());
        let chain = ByChain::of(&state);
        let approval = Approval {
            name: "node-20".parse().ok(),
            tags: "edge".parse().into_iter().collect(),
        };
        assert_eq!(chain.approved, BTreeMap::from([(stays, approval)]));
        assert_eq!(chain.expelled, [(removed, 21), (revoked, 22)].into());
        let out = |revision, for_good| Expulsion { revision, for_good };
        assert_eq!(
            expulsions(&state),
            [(removed, out(21, false)), (revoked, out(22, true))].into()
        );
    }

    #[test]
    fn those_that_a_node_let_in_stay_when_it_is_taken_out() {
        // The first node by its claim, another one by the log: both let somebody in.
        let claims = [
            claim(50, 10, 10, NOW),
            claim(51, 11, 10, NOW),
            claim(52, 12, 20, NOW),
            claim(53, 13, 11, NOW),
        ];
        let chain = ByChain {
            approved: BTreeMap::new(),
            expelled: BTreeMap::from([
                (key(10).public(), 3),
                (key(11).public(), 4),
                (key(20).public(), 5),
            ]),
        };
        assert_eq!(names(&chain, &claims), ["node-12", "node-13"]);
    }

    #[test]
    fn an_invite_claimed_twice_counts_for_neither_and_an_expelled_node_for_nothing() {
        let first = claim(50, 10, 10, NOW);
        let twice = [
            first.clone(),
            claim(51, 11, 10, NOW),
            claim(51, 12, 10, NOW),
        ];
        assert_eq!(names(&ByChain::default(), &twice), ["node-10"]);
        let chain = ByChain {
            approved: BTreeMap::new(),
            expelled: BTreeMap::from([(key(11).public(), 3)]),
        };
        assert_eq!(names(&chain, &[first, claim(51, 11, 10, NOW)]), ["node-10"]);
    }

    #[test]
    fn a_newcomer_serves_nobody_and_vouches_for_nobody_else() {
        let approval = Approval {
            name: None,
            tags: Vec::new(),
        };
        let [me, other] = [key(10).public(), key(11).public()];
        let approved = BTreeMap::from([(me, approval.clone()), (other, approval)]);
        assert!(served(&approved, false).is_empty());
        assert_eq!(served(&approved, true), HashSet::from([me, other]));
        assert!(may_vouch_for(&me, &me, false) && !may_vouch_for(&other, &me, false));
        assert!(may_vouch_for(&other, &me, true));
    }
}
