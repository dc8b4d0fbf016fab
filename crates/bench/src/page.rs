//! The page made of all reports.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    benchmark::ALL,
    figure::{Bound, Figure, Judged, part},
    report::Report,
};

const INTRODUCTION: &str = "\
# Benchmarks

Made by `make bench`, which fetches what it compares with, builds the optimised binary, and writes this page and the raw
values beside it in `docs/benchmarks/`; `make bench ONLY=push` measures one anew. Figures report, they never gate.

Subject and peer are measured in turns, in one run on one machine. A ratio is the median of the rounds' ratios where both
were measured in each round, and the ratio of the medians elsewhere. *First* is the figure that was asked for, *aim* is where
it is to go; a ratio without a peer in the same run is not claimed. Times are milliseconds by the wall clock.
";

/// Writes `benchmarks.md` from what lies in `benchmarks/`.
pub fn write(out: &Path) -> Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for one in ALL {
        if let Some(report) = Report::load(&out.join("benchmarks"), one.name)? {
            page.push_str(&section(&report));
        }
    }
    let path = out.join("benchmarks.md");
    fs::write(&path, page).with_context(|| path.display().to_string())
}

fn section(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!("\n## {}\n\n{}\n", report.title, table(report));
    for note in &report.notes {
        text.push_str(&format!("{note}\n\n"));
    }
    for figure in &report.figures {
        let mut line = format!(
            "- {}: `{}`, {} rounds",
            figure.what,
            figure.command,
            figure.rounds.len()
        );
        if let Some(peer) = &figure.peer {
            line.push_str(&format!(
                "; {}: `{}`, {} rounds",
                peer.what,
                peer.command,
                peer.rounds.len()
            ));
        }
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(&format!(
        "\n{}: {}, {} cores, {} MiB, Linux {}, load before {}. {}.",
        machine.date,
        machine.processor,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.load_before,
        machine.realm
    ));
    for version in &report.versions {
        text.push_str(&format!(" {version}."));
    }
    text + &format!(
        " Raw values: [{0}.json](benchmarks/{0}.json).\n",
        report.benchmark
    )
}

pub fn table(report: &Report) -> String {
    let mut table = String::from(
        "| | median | spread | p99 | peer | ratio | first | aim |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for figure in &report.figures {
        table.push_str(&row(figure));
    }
    table
}

fn row(figure: &Figure) -> String {
    let unit = &figure.unit;
    let shown = |value: Option<f64>| {
        value.map_or_else(|| "none".into(), |value| format!("{} {unit}", short(value)))
    };
    let of = |rounds: &[f64], at| part(rounds, at).map_or_else(String::new, short);
    let spread = format!("{} to {}", of(&figure.rounds, 0.0), of(&figure.rounds, 1.0));
    // Of fewer than a hundred rounds it is the largest, which the spread tells.
    let p99 = match figure.rounds.len() >= 100 {
        true => of(&figure.rounds, 0.99),
        false => String::new(),
    };
    let peer = figure.peer.as_ref().map_or_else(String::new, |peer| {
        let median = crate::figure::median(&peer.rounds).map_or_else(String::new, short);
        format!(
            "{median} ({} to {}) {unit}",
            of(&peer.rounds, 0.0),
            of(&peer.rounds, 1.0)
        )
    });
    let ratio = figure
        .ratio()
        .map_or_else(String::new, |ratio| format!("{}x", short(ratio)));
    let judged =
        |bound: Option<Bound>| bound.map_or_else(String::new, |bound| verdict(figure, bound));
    let worst = match figure.judged {
        Judged::Median => "",
        Judged::Worst => ", the worst counts",
    };
    format!(
        "| {}{worst} | {} | {spread} | {p99} | {peer} | {ratio} | {} | {} |\n",
        figure.what,
        shown(crate::figure::median(&figure.rounds)),
        judged(figure.first),
        judged(figure.aim),
    )
}

fn verdict(figure: &Figure, bound: Bound) -> String {
    let wanted = match bound {
        Bound::AtMost(most) => format!("<= {} {}", short(most), figure.unit),
        Bound::RatioAtMost(most) => format!("<= {}x", short(most)),
        Bound::RatioAtLeast(least) => format!(">= {}x", short(least)),
    };
    let met = match figure.holds(bound) {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "no peer",
    };
    format!("{wanted}: {met}")
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        one if one >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_met_and_what_was_not() {
        let figure = Figure::new("start", "ms", "realm run", vec![10.0, 20.0, 30.0])
            .beside("wasmtime", "wasmtime run", vec![100.0, 100.0, 100.0])
            .should(Bound::RatioAtMost(0.25), Bound::AtMost(1.0));
        assert_eq!(
            row(&figure),
            "| start | 20.0 ms | 10.0 to 30.0 |  | 100 (100 to 100) ms | 0.200x | <= 0.250x: met | <= 1.00 ms: **missed** |\n"
        );
    }
}
