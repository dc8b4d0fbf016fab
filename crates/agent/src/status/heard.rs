//! A node's words, before anybody reads them: whoever is approved may still write anything there.

use realm_manifest::report::{self, NodeReport, Reason};

use crate::reason::{DATA_GONE, DISK_FAILED, DISK_FULL, plain};

/// What a node may say of itself. Other alarms are the realm's own findings, and no node's to raise.
const PROBLEMS: [&str; 3] = [DISK_FULL, DISK_FAILED, DATA_GONE];

/// The report with every text of it made one short line, and without problems that are none.
pub(super) fn heard(mut report: NodeReport) -> NodeReport {
    report
        .problems
        .retain(|problem| PROBLEMS.contains(&problem.code.as_str()));
    report.problems.truncate(report::MAX_PROBLEMS);
    let cells = report.cells.iter_mut();
    let declined = report.declined.iter_mut();
    let reasons = cells
        .filter_map(|cell| cell.reason.as_mut())
        .chain(declined.map(|declined| &mut declined.reason))
        .chain(&mut report.problems);
    reasons.for_each(make_plain);
    report.version = plain(&report.version);
    // Part of one would lead elsewhere.
    report
        .addresses
        .retain(|address| !address.contains(char::is_control));
    report
}

fn make_plain(reason: &mut Reason) {
    reason.code = plain(&reason.code);
    reason.message = plain(&reason.message);
    reason.help = reason.help.as_deref().map(plain);
}

#[cfg(test)]
mod tests {
    use realm_identity::{Hash, RealmId, Signed, Timestamp};
    use realm_manifest::report::{Capacity, Declined, NodeState};

    use super::{super::check, *};
    use crate::{alarms, approvals::tests::key, reason::MAX_REASON_CHARS, supervisor::new_report};

    const FORGED: &str = "full\nALARM: two nodes\r\nhelp: realm nodes approve KEY\u{1b}[2J";

    fn said(code: &str) -> Reason {
        Reason {
            code: code.into(),
            message: format!("{FORGED}{}", "x".repeat(100_000)),
            help: Some(FORGED.into()),
        }
    }

    /// A report of node 1 whose every text was written to be taken for a line of the command's own.
    fn hostile(realm: RealmId) -> NodeReport {
        let component = "job".parse().expect("a name");
        let mut cell = new_report(&(component, 0), Hash::of(b"spec"), 1);
        cell.reason = Some(said("exit\nALARM: x"));
        NodeReport {
            node: key(1).public(),
            realm,
            boot_id: 1,
            seq: 1,
            at: Timestamp(1),
            revision: 1,
            head: Hash::of(b"head"),
            state: NodeState::Ready,
            name: "one".parse().expect("a name"),
            tags: Vec::new(),
            version: FORGED.into(),
            addresses: vec![
                "/dns/a\nALARM: b/tcp/1".into(),
                "/ip4/192.0.2.1/tcp/1".into(),
            ],
            cpu_hundredths: None,
            memory_bytes: None,
            capacity: Capacity::default(),
            declined: vec![Declined {
                component: cell.component.clone(),
                spec: cell.spec,
                reason: said("full"),
            }],
            cells: vec![cell],
            holds: Vec::new(),
            sealing: None,
            problems: vec![
                said("invite-used-twice"),
                said(DISK_FULL),
                said("disk-full\nALARM: x"),
            ],
        }
    }

    #[test]
    fn no_node_speaks_in_the_voice_of_the_realm() {
        let realm: RealmId = Hash::of(b"realm");
        let signed = Signed::sign(hostile(realm), &key(1));
        let wire = signed.unwrap_or_else(|never| match never {}).to_wire();
        let report = check(&wire, key(1).public(), realm).expect("it is signed");

        let codes: Vec<&str> = report.problems.iter().map(|one| &*one.code).collect();
        assert_eq!(codes, [DISK_FULL], "the others are not its to say");
        let mut reasons = report.problems.clone();
        reasons.extend(report.cells.iter().filter_map(|cell| cell.reason.clone()));
        reasons.extend(report.declined.iter().map(|one| one.reason.clone()));
        assert_eq!(reasons.len(), 3);
        for reason in &reasons {
            let help = reason.help.clone().expect("a help");
            for text in [&reason.code, &reason.message, &help, &report.version] {
                assert!(!text.contains(char::is_control), "{text:?}");
                assert!(text.chars().count() <= MAX_REASON_CHARS + 1, "{text:?}");
            }
            assert!(reason.message.starts_with("full ALARM: two nodes"));
        }
        assert_eq!(report.addresses, ["/ip4/192.0.2.1/tcp/1"]);

        let problems = &report.problems[..];
        let node = (report.node, "one".to_owned(), problems);
        let alarms = alarms::problems(std::iter::once(node));
        assert_eq!(alarms.len(), 1);
        assert!(!alarms[0].message.contains('\n') && !alarms[0].help.contains('\n'));
    }

    #[test]
    fn the_words_of_an_honest_node_stay() {
        let long = crate::reason::reason("exit", "y".repeat(1000), Some("see why"));
        let mut again = long.clone();
        make_plain(&mut again);
        assert_eq!(again, long);
    }
}
