//! A realm of two: nobody else probes, and whoever is left has nobody to ask.

use realm_protocol::{Effect, Event, MemberState};

use crate::net::{Net, name, node};

/// By then both know each other.
const SETTLED: u64 = 5_000;
/// A probe begins within 400 ms, is over after 250, and the suspect has 850 ms to answer.
const LOST_WITHIN: u64 = 1_500;
/// The time of a suspect alone: nobody is lost sooner.
const LOST_AFTER: u64 = 850;
/// Each tells the other of itself at least this often while that is lost.
const BACK_WITHIN: u64 = 2_000;
/// Times within one round of probing, a probe being begun every 400 ms.
const TIMES: std::ops::Range<u64> = 0..20;
const APART: u64 = 20;

/// Milliseconds until `at` says so of the other one.
fn until(net: &mut Net, at: usize, state: MemberState) -> u64 {
    let begun = net.mono;
    while net.state(at, 1 - at) != Some(state) {
        assert!(net.mono < begun + 20_000, "{at} never says {state:?}");
        net.run(10);
    }
    net.mono - begun
}

fn settled(time: u64) -> Net {
    let mut net = Net::new(2);
    net.run(SETTLED + time * APART);
    for at in 0..2 {
        assert_eq!(net.state(at, 1 - at), Some(MemberState::Up));
    }
    net
}

fn losses(net: &Net) -> usize {
    net.saw(|effect| {
        matches!(
            effect,
            Effect::MemberChanged {
                state: MemberState::Lost,
                ..
            }
        )
    })
}

#[test]
fn the_one_that_dies_without_a_word_is_lost_to_the_other_and_comes_back() {
    for time in TIMES {
        for (left, dead) in [(0, 1), (1, 0)] {
            let mut net = settled(time);
            net.dead.insert(dead);
            let took = until(&mut net, left, MemberState::Lost);
            let what = format!("{dead} at {time}: {took} ms");
            assert!((LOST_AFTER..=LOST_WITHIN).contains(&took), "{what}");
            // It stays lost, and nobody else is: for as long as somebody takes to repair it.
            net.run(60_000);
            assert_eq!(net.state(left, dead), Some(MemberState::Lost), "{what}");
            assert_eq!(losses(&net), 1, "{what}");

            net.dead.remove(&dead);
            net.nodes[dead] = node(dead, net.mono);
            let nodes = (0..2).map(name).collect();
            net.give(dead, Event::Approved { nodes });
            net.give(left, Event::PeerDisconnected { peer: name(dead) });
            net.connect(dead);
            let took = until(&mut net, left, MemberState::Up);
            assert!(took <= BACK_WITHIN, "{what}, back after {took} ms");
            let took = until(&mut net, dead, MemberState::Up);
            assert!(took <= BACK_WITHIN, "{what}, sees it after {took} ms");
            net.run(SETTLED);
            assert_eq!(losses(&net), 1, "{what}");
        }
    }
}

#[test]
fn two_that_a_cut_parts_lose_each_other_and_find_each_other_again() {
    for time in TIMES {
        let mut net = settled(time);
        // The connection stays: packets alone are lost, and nobody hangs up.
        net.deaf.insert(1);
        let took = [0, 1].map(|at| until(&mut net, at, MemberState::Lost));
        let took = took[0] + took[1];
        assert!((LOST_AFTER..=LOST_WITHIN).contains(&took), "{took} ms");
        net.run(60_000);
        assert_eq!(losses(&net), 2);
        net.deaf.clear();
        let took = [0, 1].map(|at| until(&mut net, at, MemberState::Up));
        assert!(took[0] + took[1] <= BACK_WITHIN, "{took:?} ms");
        net.run(SETTLED);
        assert_eq!(losses(&net), 2, "and lose nobody again");
    }
}

#[test]
fn the_one_whose_words_alone_are_lost_is_lost_to_the_other() {
    for time in TIMES {
        let mut net = settled(time);
        net.cut.insert((1, 0));
        let took = until(&mut net, 0, MemberState::Lost);
        assert!((LOST_AFTER..=LOST_WITHIN).contains(&took), "{took} ms");
        net.cut.clear();
        let took = [0, 1].map(|at| until(&mut net, at, MemberState::Up));
        assert!(took[0] + took[1] <= BACK_WITHIN, "{took:?} ms");
    }
}
