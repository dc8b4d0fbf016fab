//! One figure: what was measured, in how many rounds, beside what, and what it should be.

use serde::{Deserialize, Serialize};

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    AtMost(f64),
    /// Of the figure divided by the peer's.
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

/// Which of its values a figure is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    #[default]
    Median,
    Worst,
}

/// Somebody else's program doing the same in the same rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub what: String,
    pub command: String,
    pub rounds: Vec<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub what: String,
    pub unit: String,
    pub command: String,
    /// One value for each round, in the order in which they were measured.
    pub rounds: Vec<f64>,
    pub peer: Option<Peer>,
    pub judged: Judged,
    /// The figure that resolves the issue.
    pub first: Option<Bound>,
    /// Where it is to go.
    pub aim: Option<Bound>,
}

impl Figure {
    pub fn new(what: &str, unit: &str, command: &str, rounds: Vec<f64>) -> Self {
        Self {
            what: what.into(),
            unit: unit.into(),
            command: command.into(),
            rounds,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn beside(mut self, what: &str, command: &str, rounds: Vec<f64>) -> Self {
        self.peer = Some(Peer {
            what: what.into(),
            command: command.into(),
            rounds,
        });
        self
    }

    #[must_use]
    pub const fn should(mut self, first: Bound, aim: Bound) -> Self {
        self.first = Some(first);
        self.aim = Some(aim);
        self
    }

    /// For a figure with one bound, which has no further aim.
    #[must_use]
    pub const fn must(mut self, first: Bound) -> Self {
        self.first = Some(first);
        self
    }

    #[must_use]
    pub const fn by_its_worst(mut self) -> Self {
        self.judged = Judged::Worst;
        self
    }

    pub fn value(&self) -> Option<f64> {
        match self.judged {
            Judged::Median => median(&self.rounds),
            Judged::Worst => part(&self.rounds, 1.0),
        }
    }

    /// The median of the rounds' ratios where each round measured both, so that what slowed
    /// the machine down slowed both down.
    pub fn ratio(&self) -> Option<f64> {
        let peer = self.peer.as_ref()?;
        if peer.rounds.len() == self.rounds.len() && self.judged == Judged::Median {
            let pairs = self.rounds.iter().zip(&peer.rounds);
            let ratios: Vec<f64> = pairs.map(|(own, other)| own / other).collect();
            return median(&ratios);
        }
        Some(self.value()? / median(&peer.rounds)?)
    }

    /// None where that cannot be said, as without a peer.
    pub fn holds(&self, bound: Bound) -> Option<bool> {
        Some(match bound {
            Bound::AtMost(most) => self.value()? <= most,
            Bound::RatioAtMost(most) => self.ratio()? <= most,
            Bound::RatioAtLeast(least) => self.ratio()? >= least,
        })
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted.get(middle).copied(),
        _ => Some(f64::midpoint(
            *sorted.get(middle.checked_sub(1)?)?,
            sorted[middle],
        )),
    }
}

/// The smallest value that this part of all is not above; 1 is the largest of all.
pub fn part(values: &[f64], part: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_parts() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(part(&hundred, 0.99), Some(99.0));
        assert_eq!(part(&hundred, 1.0), Some(100.0));
        assert_eq!(part(&[], 0.99), None);
    }

    #[test]
    fn a_round_that_was_slow_for_both_spoils_no_ratio() {
        let figure = Figure::new("x", "ms", "", vec![2.0, 2.0, 40.0])
            .beside("y", "", vec![1.0, 1.0, 20.0])
            .should(Bound::RatioAtMost(2.0), Bound::RatioAtMost(1.0));
        assert_eq!(figure.ratio(), Some(2.0));
        assert_eq!(figure.holds(Bound::RatioAtMost(2.0)), Some(true));
        assert_eq!(figure.holds(Bound::RatioAtMost(1.0)), Some(false));
    }

    #[test]
    fn without_a_peer_nothing_is_claimed() {
        let figure = Figure::new("x", "ms", "", vec![1.0]).must(Bound::RatioAtMost(2.0));
        assert_eq!(figure.holds(Bound::RatioAtMost(2.0)), None);
        assert_eq!(figure.holds(Bound::AtMost(1.0)), Some(true));
    }

    #[test]
    fn the_worst_counts_where_that_was_asked() {
        let figure = Figure::new("x", "%", "", vec![0.1, 0.9, 0.1]).by_its_worst();
        assert_eq!(figure.holds(Bound::AtMost(0.5)), Some(false));
    }
}
