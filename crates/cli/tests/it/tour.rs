//! The README's tour: its very lines, in a network of their own, as somebody who just installed Realm.

use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use realm_identity::PublicKey;
use realm_testkit::{skipped, wait_for};

use crate::KilledAtTheEnd;

/// One command of the tour, and what it prints there.
struct Step {
    line: String,
    shown: Vec<String>,
}

/// Where the home of whoever reads the tour is.
const HOME: &str = "~";
/// Left out: lines, or the rest of a word.
const ELIDED: &str = "...";
/// "Within about two seconds", on a machine that runs other tests meanwhile.
const LOST_MS: i64 = 8_000;

/// The tour: what the README has indented, from one `$` to the next.
fn steps() -> Vec<Step> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, from) = readme.split_once("## The five-minute tour").unwrap();
    let (tour, _) = from.split_once("\n## ").unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in tour.lines().filter_map(|line| line.strip_prefix("    ")) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(line), _) => steps.push(Step {
                line: line.to_owned(),
                shown: Vec::new(),
            }),
            (None, Some(step)) => step.shown.push(line.to_owned()),
            (None, None) => panic!("printed by no command: {line}"),
        }
    }
    steps
}

/// What differs from one run to the next, by the look of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Key,
    ShortKey,
    Digest,
    Fingerprint,
    Percent,
    Milliseconds,
    Decimal,
}

impl Kind {
    /// Of a word in the README.
    fn of(word: &str) -> Option<Self> {
        let kinds = [
            Self::Time,
            Self::Key,
            Self::Digest,
            Self::Fingerprint,
            Self::Percent,
            Self::Milliseconds,
        ];
        let has = |is: fn(&char) -> bool| word.chars().any(|one| is(&one));
        let mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
        kinds
            .into_iter()
            .find(|kind| kind.fits(word))
            .or_else(|| (mixed && Self::ShortKey.fits(word)).then_some(Self::ShortKey))
            .or_else(|| (word.contains('.') && Self::Decimal.fits(word)).then_some(Self::Decimal))
    }

    fn fits(self, word: &str) -> bool {
        let is_number = |word: Option<&str>| word.is_some_and(|word| word.parse::<f64>().is_ok());
        match self {
            Self::Time => word
                .trim_end_matches(';')
                .parse::<jiff::Timestamp>()
                .is_ok(),
            Self::Key => word.starts_with("ed25519:") && word.parse::<PublicKey>().is_ok(),
            Self::ShortKey => {
                word.len() == 8 && word.chars().all(|one| one.is_ascii_alphanumeric())
            }
            Self::Digest => word.len() == 12 && word.chars().all(|one| one.is_ascii_hexdigit()),
            Self::Fingerprint => {
                let words: Vec<&str> = word.split('-').collect();
                let is_word = |word: &&str| word.chars().all(|one| one.is_ascii_lowercase());
                words.len() == 4 && words.iter().all(is_word)
            }
            // Not measured yet.
            Self::Percent if word == "-" => true,
            Self::Percent => is_number(word.strip_suffix('%')),
            Self::Milliseconds => is_number(word.strip_suffix("ms")),
            Self::Decimal => is_number(Some(word)),
        }
    }
}

fn word_fits(shown: &str, word: &str) -> bool {
    let begins = shown
        .strip_suffix(ELIDED)
        .is_some_and(|begin| word.starts_with(begin));
    shown == word || begins || Kind::of(shown).is_some_and(|kind| kind.fits(word))
}

fn line_fits(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (shown.split_whitespace(), printed.split_whitespace());
    let (shown, printed): (Vec<&str>, Vec<&str>) = (shown.collect(), printed.collect());
    let mut words = shown.iter().zip(&printed);
    shown.len() == printed.len() && words.all(|(shown, word)| word_fits(shown, word))
}

/// Whether lines are those of the README; the columns of a table may be wider.
fn fits(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == ELIDED => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, after)| line_fits(first, line) && fits(rest, after)),
    }
}

/// A machine without a network beyond itself, on which nothing of Realm was ever run.
struct Machine {
    home: tempfile::TempDir,
    /// Holds the network namespace.
    anchor: KilledAtTheEnd,
    unprivileged: bool,
}

impl Machine {
    fn new() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
        symlink(guests, home.path().join("guests")).unwrap();
        let begin = |options: &[&str]| {
            let ready = home.path().join("network");
            let script = "ip link set lo up && touch \"$0\" && exec sleep 600";
            let mut anchor = Command::new("unshare");
            anchor
                .args(options)
                .args(["--net", "sh", "-c", script])
                .arg(&ready)
                .stderr(Stdio::null());
            let mut anchor = KilledAtTheEnd(anchor.spawn().ok()?);
            wait_for("the network is there, or cannot be", || {
                let gone = anchor.0.try_wait().unwrap().is_some();
                (gone || ready.exists()).then_some(())
            });
            ready.exists().then_some(anchor)
        };
        let as_root = begin(&[]);
        let unprivileged = as_root.is_none();
        let anchor = as_root.or_else(|| begin(&["--user", "--map-root-user"]));
        let Some(anchor) = anchor else {
            skipped("a network of its own needs root or user namespaces, and iproute2");
            return None;
        };
        Some(Self {
            home,
            anchor,
            unprivileged,
        })
    }

    fn printed(&self, index: usize) -> PathBuf {
        self.home.path().join(format!("{index}.printed"))
    }

    /// Starts one line as a shell would; what it prints goes to a file, unless the line says otherwise.
    fn start(&self, index: usize, line: &str) -> KilledAtTheEnd {
        let exe = Path::new(env!("CARGO_BIN_EXE_realm")).parent().unwrap();
        let path = format!("{}:{}", exe.display(), std::env::var("PATH").unwrap());
        let printed = File::create(self.printed(index)).unwrap();
        let mut command = Command::new("nsenter");
        if self.unprivileged {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .args(["--net", "-t", &self.anchor.0.id().to_string()])
            .args(["sh", "-c", &format!("exec {line}")])
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed);
        KilledAtTheEnd(command.spawn().unwrap())
    }

    /// Whether a step has printed what the README shows.
    fn fits(&self, index: usize, step: &Step) -> bool {
        let printed = self.read(index);
        let lines: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
        fits(&step.shown, &lines)
    }

    fn wait_printed(&self, index: usize, step: &Step, child: &mut KilledAtTheEnd) {
        let what = format!("{}\n{}\n", step.line, step.shown.join("\n"));
        let mut before = String::new();
        wait_for(&what, || {
            if let Some(ended) = child.0.try_wait().unwrap() {
                panic!("{what}ended: {ended}\n{}", self.read(index));
            }
            let (printed, fits) = (self.read(index), self.fits(index, step));
            if !fits && printed != before {
                eprintln!("not yet:\n{printed}");
                before = printed;
            }
            fits.then_some(())
        });
    }

    /// Whoever looks at what goes on may have to look again.
    fn look(&self, index: usize, step: &Step) {
        let what = format!("{}\n{}\n", step.line, step.shown.join("\n"));
        wait_for(&what, || {
            let printed = self.run(index, &step.line);
            let fits = self.fits(index, step);
            if !fits {
                eprintln!("not yet:\n{printed}");
            }
            fits.then_some(())
        });
    }

    fn read(&self, index: usize) -> String {
        let printed = std::fs::read(self.printed(index)).unwrap();
        let home = self.home.path().display().to_string();
        String::from_utf8_lossy(&printed).replace(&home, HOME)
    }

    fn run(&self, index: usize, line: &str) -> String {
        let ended = self.start(index, line).0.wait().unwrap();
        let printed = self.read(index);
        assert!(ended.success(), "{line}\nended: {ended}\n{printed}");
        printed
    }
}

#[test]
fn the_tour_of_the_readme_prints_what_it_says() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let steps = steps();
    assert_eq!(steps.len(), 15);
    let mut agents = Vec::new();
    let mut killed = None;
    for (index, step) in steps.iter().enumerate() {
        assert!(!step.shown.is_empty(), "{} shows nothing", step.line);
        let line = step.line.as_str();
        if index + 1 == steps.len() {
            // "Kill an agent, here that of `two`".
            killed = Some(jiff::Timestamp::now());
            drop(agents.pop());
        }
        if line.starts_with("realm agent ") {
            let mut child = machine.start(index, line);
            machine.wait_printed(index, step, &mut child);
            agents.push(child);
        } else if line.ends_with("# until Ctrl-C") {
            let mut child = machine.start(index, line);
            machine.wait_printed(index, step, &mut child);
            let pid = child.0.id().to_string();
            let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
            assert!(sent.success());
            let ended = child.0.wait().unwrap();
            assert_eq!(ended.code(), Some(130), "{line}\n{}", machine.read(index));
        } else if ["realm status", "realm nodes ls"].contains(&line) {
            machine.look(index, step);
        } else {
            let printed = machine.run(index, line);
            let shown = step.shown.join("\n");
            assert!(
                machine.fits(index, step),
                "{line}\n{shown}\nis not:\n{printed}"
            );
        }
    }

    let is_agent = |step: &Step| step.line.starts_with("realm agent ");
    let first = machine.read(steps.iter().position(is_agent).unwrap());
    let mut lines = first.lines().rev();
    let lost = lines.find(|line| line.ends_with("kind=\"lost\" subject=\"two\""));
    let (at, _) = lost.unwrap().split_once(' ').unwrap();
    let took = at.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let took = took - killed.unwrap().as_millisecond();
    eprintln!("figure: lost after {took} ms");
    assert!((0..LOST_MS).contains(&took), "lost after {took} ms");
}

#[test]
fn other_words_than_those_of_the_readme_do_not_fit() {
    let shown = [
        "one ready F6VoAVoL - 1% 70.9 MiB 2026-11-23T09:42:02Z",
        ELIDED,
        "sha256:... 3/3",
    ];
    let shown = shown.map(str::to_owned);
    let first = "one   ready  2kTwxFzx - - 81.2 MiB 2027-01-01T00:00:00.5Z";
    assert!(fits(&shown, &[first, "sha256:ab 3/3"]));
    assert!(fits(&shown, &[first, "in between", "sha256:ab 3/3"]));
    for other in [
        vec![first, "sha256:ab 2/3"],
        vec![first, "sha256:ab 3/3", "more"],
        vec!["before", first, "sha256:ab 3/3"],
        vec![
            "one lost 2kTwxFzx - - 81.2 MiB 2027-01-01T00:00:00Z",
            "sha256:ab 3/3",
        ],
        vec![
            "one ready 2kTwxFz - - 81.2 MiB 2027-01-01T00:00:00Z",
            "sha256:ab 3/3",
        ],
        vec![
            "one ready 2kTwxFzx 0 - 81.2 MiB 2027-01-01T00:00:00Z",
            "sha256:ab 3/3",
        ],
        vec!["one ready 2kTwxFzx - - 81.2 MiB never", "sha256:ab 3/3"],
        vec![
            "one ready 2kTwxFzx - - 81.2 KiB 2027-01-01T00:00:00Z",
            "sha256:ab 3/3",
        ],
    ] {
        assert!(!fits(&shown, &other), "{other:?}");
    }
}
