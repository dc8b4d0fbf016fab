//! What the owner must look at: nothing solves it by itself.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{PublicKey, WitnessedClaim};
use realm_manifest::report::Reason;
use realm_rpc::status::Alarm;

/// Alarms of one kind in a status; more than these say nothing new.
const MAX_OF_A_KIND: usize = 16;

/// Nodes that wait for the owner because each has used an invite that another one used as well.
/// `decided` says of a node whether the owner has let it in or kept it out.
pub fn contested(
    claims: &[WitnessedClaim],
    decided: impl Fn(&PublicKey) -> bool,
) -> BTreeSet<PublicKey> {
    let users = used_twice(claims).into_iter().flatten();
    users.filter(|node| !decided(node)).collect()
}

/// One alarm for each invite that several nodes have used, until the owner has decided on each of them.
pub fn invites(claims: &[WitnessedClaim], decided: impl Fn(&PublicKey) -> bool) -> Vec<Alarm> {
    let open = used_twice(claims)
        .into_iter()
        .filter(|users| !users.iter().all(&decided));
    let alarm = |users: BTreeSet<PublicKey>| {
        Alarm {
        code: "invite-used-twice".into(),
        message: format!(
            "one invite was used by several nodes, and counts for none of them: {}",
            list(&users)
        ),
        help: "let the right one in by its key: realm nodes approve KEY; keep each other out: realm nodes revoke KEY".into(),
        nodes: users.into_iter().collect(),
    }
    };
    open.map(alarm).take(MAX_OF_A_KIND).collect()
}

/// For each invite that several nodes used: which.
fn used_twice(claims: &[WitnessedClaim]) -> Vec<BTreeSet<PublicKey>> {
    let mut users: BTreeMap<PublicKey, BTreeSet<PublicKey>> = BTreeMap::new();
    for claim in claims {
        let users = users.entry(claim.claim.key).or_default();
        users.insert(claim.claim.node);
    }
    users
        .into_values()
        .filter(|users| users.len() > 1)
        .collect()
}

/// One alarm for each name that several approved nodes have.
pub fn names(names: impl Iterator<Item = (PublicKey, String)>) -> Vec<Alarm> {
    let mut bearers: BTreeMap<String, BTreeSet<PublicKey>> = BTreeMap::new();
    for (node, name) in names {
        bearers.entry(name).or_default().insert(node);
    }
    let alarm = |(name, nodes): (String, BTreeSet<PublicKey>)| Alarm {
        code: "name-used-twice".into(),
        message: format!("several nodes are called {name}: {}", list(&nodes)),
        help: "give one of them another name: realm nodes rename KEY NAME".into(),
        nodes: nodes.into_iter().collect(),
    };
    let shared = bearers.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    shared.map(alarm).take(MAX_OF_A_KIND).collect()
}

/// One alarm for each problem of a node itself, by its own word.
pub fn problems<'a>(nodes: impl Iterator<Item = (PublicKey, String, &'a [Reason])>) -> Vec<Alarm> {
    let alarms = nodes.flat_map(|(node, name, problems)| {
        problems.iter().map(move |problem| Alarm {
            code: problem.code.clone(),
            message: format!("{name}: {}", problem.message),
            help: problem
                .help
                .clone()
                .unwrap_or_else(|| format!("see the log of the agent on {name}")),
            nodes: vec![node],
        })
    });
    alarms.take(MAX_OF_A_KIND).collect()
}

fn list(nodes: &BTreeSet<PublicKey>) -> String {
    let keys: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::tests::{NOW, claim, key};

    #[test]
    fn an_invite_used_twice_alarms_until_each_node_is_decided_on() {
        let claims = [
            claim(50, 10, 10, NOW),
            claim(51, 11, 10, NOW),
            claim(51, 12, 10, NOW),
        ];
        let both: BTreeSet<PublicKey> = [11, 12].map(|seed| key(seed).public()).into();
        let after = |decided: &[u8]| {
            let decided =
                |node: &PublicKey| decided.iter().any(|seed| key(*seed).public() == *node);
            (invites(&claims, decided), contested(&claims, decided))
        };

        let (alarms, waiting) = after(&[]);
        assert_eq!(alarms.len(), 1);
        assert_eq!(alarms[0].code, "invite-used-twice");
        assert_eq!(alarms[0].nodes, both.iter().copied().collect::<Vec<_>>());
        assert_eq!(waiting, both);

        let (alarms, waiting) = after(&[11]);
        assert_eq!(alarms.len(), 1, "the other one is still at the door");
        assert_eq!(waiting, BTreeSet::from([key(12).public()]));

        let (alarms, waiting) = after(&[11, 12]);
        assert!(alarms.is_empty() && waiting.is_empty());
    }

    #[test]
    fn a_name_alarms_where_several_have_it() {
        let called = |name: &str, seed: u8| (key(seed).public(), name.to_owned());
        let unique = [called("one", 1), called("two", 2)];
        assert!(names(unique.clone().into_iter()).is_empty());
        let alarms = names(unique.into_iter().chain([called("one", 3)]));
        assert_eq!(alarms.len(), 1);
        assert_eq!(alarms[0].code, "name-used-twice");
        assert_eq!(alarms[0].nodes.len(), 2);
        assert!(alarms[0].message.contains("called one"));
    }
}
