//! Claims whose witness nobody knows yet: whose wait, how many, and what they count for then.

use std::collections::BTreeSet;

use realm_identity::{Kind, Target};
use realm_protocol::{Event, Expulsion, limits};

use crate::{
    expelled::claimed,
    forged::claims_frame,
    net::{Net, frame, name},
};

fn approve(net: &mut Net, nodes: &[usize]) {
    let nodes: BTreeSet<_> = nodes.iter().copied().map(name).collect();
    net.give(0, Event::Approved { nodes });
}

/// A node to which an approved one, 1, and a stranger, 9, are connected.
fn with_a_stranger(is_in: bool, has_begun: bool) -> Net {
    let mut net = Net::new(1);
    if has_begun {
        net.submit(b"the realm has begun");
    }
    approve(&mut net, if is_in { &[0, 1] } else { &[1] });
    for peer in [1, 9].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    net
}

fn bring(net: &mut Net, from: usize, claim: &[u8]) {
    net.give(0, frame(from, claims_frame(claim)));
}

fn claims(net: &Net) -> usize {
    net.nodes[0].claims().count()
}

#[test]
fn what_a_stranger_brings_waits_until_the_realm_has_begun_with_this_node_in_it() {
    for (is_in, has_begun) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut net = with_a_stranger(is_in, has_begun);
        bring(&mut net, 9, &claimed(50, 61, 60));
        bring(&mut net, 1, &claimed(51, 62, 60));
        assert_eq!(claims(&net), 0, "nobody knows the witness");
        approve(&mut net, &[0, 1, 60]);
        let waited = match is_in && has_begun {
            true => 1,
            false => 2,
        };
        assert_eq!(claims(&net), waited, "in {is_in}, begun {has_begun}");
    }
}

#[test]
fn so_many_claims_wait_and_no_more() {
    let mut net = with_a_stranger(true, true);
    for node in 0..=limits::MAX_WAITING_CLAIMS as u64 {
        bring(&mut net, 1, &claimed(1_000 + node, 2_000 + node, 60));
    }
    approve(&mut net, &[0, 1, 60]);
    assert_eq!(claims(&net), limits::MAX_WAITING_CLAIMS);
}

#[test]
fn who_vouches_for_itself_counts_while_the_realm_begins_and_no_longer() {
    for (others, has_begun) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut net = Net::new(1);
        if has_begun {
            net.submit(b"the realm has begun");
        }
        approve(&mut net, if others { &[0, 1] } else { &[0] });
        let claim = claimed(50, 60, 60);
        net.give(0, Event::AddClaim { claim });
        let counts = !(others && has_begun);
        assert_eq!(
            claims(&net),
            usize::from(counts),
            "others {others}, begun {has_begun}"
        );
        // Who lets another one in is somebody else already.
        let claim = claimed(51, 61, 62);
        net.give(0, Event::AddClaim { claim });
        assert_eq!(claims(&net), usize::from(counts));
    }
}

#[test]
fn a_claim_that_waits_counts_by_the_word_of_the_approved_node_that_brought_it_too() {
    // Its witness is out by now: approved nodes know whom it let in before, strangers do not count.
    for (brought_by, counts) in [(&[1, 9][..], 1), (&[9, 1], 1), (&[1], 1), (&[9], 0)] {
        let mut net = Net::new(1);
        net.say(Kind::NodeApprove, Target::Node(name(60)));
        net.say(Kind::NodeRevoke, Target::Node(name(60)));
        approve(&mut net, &[1]);
        for peer in [1, 9].map(name) {
            net.give(0, Event::PeerConnected { peer });
        }
        for from in brought_by {
            bring(&mut net, *from, &claimed(50, 61, 60));
        }
        assert_eq!(claims(&net), 0);
        let out = Expulsion {
            revision: 2,
            for_good: true,
        };
        let nodes = [(name(60), out)].into();
        net.give(0, Event::Expelled { nodes });
        assert_eq!(claims(&net), counts, "{brought_by:?}");
    }
}
