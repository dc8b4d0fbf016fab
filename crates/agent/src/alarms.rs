//! What the owner must look at: nothing solves it by itself.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{PublicKey, Timestamp, WitnessedClaim};
use realm_manifest::report::Reason;
use realm_rpc::status::Alarm;

/// Alarms of one kind in a status; more than these say nothing new.
const MAX_OF_A_KIND: usize = 16;
const MINUTE_MS: u64 = 60 * 1000;
/// Clocks may differ by this much, in milliseconds; a report may be a minute old when it comes, in a
/// realm of a thousand nodes.
const CLOCKS_DIFFER_MS: u64 = 2 * MINUTE_MS;

/// In a realm of a thousand nodes reports come once a minute, and may be lost once.
pub const REPORTS_COME_MS: u64 = 3 * MINUTE_MS;

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

/// One alarm for each node whose clock differs from that of the node that was asked: by the time
/// inside its report, and the asked node's time when that came.
pub fn clocks(
    asked: &str,
    nodes: impl Iterator<Item = ((PublicKey, String), Timestamp, Timestamp)>,
) -> Vec<Alarm> {
    let alarms = nodes.filter_map(|((node, name), told, came)| {
        let (gap, side) = match told > came {
            true => (told.millis_since(came), "ahead of"),
            false => (came.millis_since(told), "behind"),
        };
        (gap > CLOCKS_DIFFER_MS).then(|| Alarm {
            code: "clock".into(),
            message: format!("the clock of {name} is {} {side} that of {asked}", rough(gap)),
            help: "set the one that is wrong, and have it kept right, as by chrony or systemd-timesyncd".into(),
            nodes: vec![node],
        })
    });
    alarms.take(MAX_OF_A_KIND).collect()
}

/// One alarm for each node that is here, and of which nothing new is heard: by how long ago its newest report
/// came. What its clock says is not known then.
pub fn unheard(nodes: impl Iterator<Item = ((PublicKey, String), u64)>) -> Vec<Alarm> {
    let alarms = nodes
        .filter(|(_, age)| *age > REPORTS_COME_MS)
        .map(|((node, name), age)| Alarm {
            code: "unheard".into(),
            message: format!(
                "{name} is here, and its newest report came {} ago: others remember a later start of it, as where an older copy of its data directory was put back",
                rough(age)
            ),
            help: format!("start the agent on {name} again; then see docs/operating/backup.md"),
            nodes: vec![node],
        });
    alarms.take(MAX_OF_A_KIND).collect()
}

/// One alarm for each node whose key two agents have.
pub fn twins(nodes: impl Iterator<Item = (PublicKey, String)>) -> Vec<Alarm> {
    let alarms = nodes.map(|(node, name)| Alarm {
        code: "twin".into(),
        message: format!(
            "two agents run with the key of {name}, as where its data directory was copied: others hear now one of them, now the other"
        ),
        help: format!(
            "stop one of the two; the copy may join as a node of its own: realm leave there, then realm enroll with a new invite. Where nobody made a copy, the key was stolen: realm nodes revoke {name}"
        ),
        nodes: vec![node],
    });
    alarms.take(MAX_OF_A_KIND).collect()
}

/// A time in its largest two units, to the nearest; at least a minute.
fn rough(millis: u64) -> String {
    let nearest = |unit: u64| millis.saturating_add(unit / 2) / unit;
    let minutes = nearest(MINUTE_MS);
    // From a day on the smaller unit is the hour; what rounds up to a day is one.
    let hours = match minutes < 24 * 60 {
        true => minutes / 60,
        false => nearest(60 * MINUTE_MS),
    };
    let (days, hours, minutes) = (hours / 24, hours % 24, minutes % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}min"),
        (0, _) => format!("{hours}h {minutes}min"),
        _ => format!("{days}d {hours}h"),
    }
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
    fn a_time_is_told_to_the_nearest_of_its_smaller_unit() {
        for (seconds, told) in [
            (598, "10min"),
            (569, "9min"),
            (3569, "59min"),
            (3570, "1h 0min"),
            (86_369, "23h 59min"),
            (86_370, "1d 0h"),
            (86_400 + 1_799, "1d 0h"),
            (86_400 + 1_800, "1d 1h"),
        ] {
            assert_eq!(rough(seconds * 1000), told, "{seconds}s");
        }
        assert!(rough(u64::MAX).ends_with('h'), "no time is too long");
    }

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

    #[test]
    fn a_node_that_is_here_and_says_nothing_new_alarms() {
        let at = |age| unheard(std::iter::once(((key(1).public(), "two".into()), age)));
        assert_eq!(at(REPORTS_COME_MS), []);
        let alarms = at(7 * 60_000);
        assert_eq!(alarms[0].code, "unheard");
        let words = "two is here, and its newest report came 7min ago";
        assert!(
            alarms[0].message.starts_with(words),
            "{}",
            alarms[0].message
        );
        assert!(alarms[0].help.contains("on two again"));
    }

    #[test]
    fn two_agents_with_one_key_are_named_with_what_to_do() {
        assert_eq!(twins(std::iter::empty()), []);
        let alarms = twins(std::iter::once((key(1).public(), "two".into())));
        assert_eq!(alarms[0].code, "twin");
        assert_eq!(alarms[0].nodes, [key(1).public()]);
        assert!(alarms[0].message.contains("with the key of two"));
        assert!(alarms[0].help.starts_with("stop one of the two; "));
    }

    #[test]
    fn a_clock_alarms_where_it_differs_by_more_than_reports_are_old() {
        let now = Timestamp(1_800_000_000_000);
        let told = |at| {
            let node = (key(1).public(), "two".to_owned());
            clocks("one", std::iter::once((node, at, now)))
        };
        let ahead = told(now.plus_millis(2 * 3_600_000 + 60_000));
        assert_eq!(
            ahead[0].message,
            "the clock of two is 2h 1min ahead of that of one"
        );
        assert_eq!(ahead[0].code, "clock");
        let behind = told(Timestamp(now.0 - 3 * 86_400_000));
        assert_eq!(
            behind[0].message,
            "the clock of two is 3d 0h behind that of one"
        );
        assert!(told(now.plus_millis(CLOCKS_DIFFER_MS)).is_empty());
        assert!(told(Timestamp(now.0 - CLOCKS_DIFFER_MS)).is_empty());
    }
}
