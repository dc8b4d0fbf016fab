//! The README's tour: its very lines, in a network of their own, as somebody who just installed Realm.

use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use realm_testkit::{skipped, wait_for};

use crate::KilledAtTheEnd;

/// What a line of the tour does, and words that it must print.
enum Then {
    Ends(&'static str),
    /// Goes on until somebody presses Ctrl-C.
    UntilCtrlC(&'static str),
    /// Goes on for the rest of the tour.
    Stays(&'static str),
}

/// Every line of the tour by its beginning, in its order.
const TOUR: &[(&str, Then)] = &[
    ("realm inspect", Then::Ends("wasi:cli")),
    ("realm run", Then::UntilCtrlC("me")),
    ("realm init", Then::Ends("realm")),
    ("realm invite --name one", Then::Ends("")),
    ("realm agent --enroll-file", Then::Stays("joined")),
    ("realm push ticker", Then::Ends("ticker")),
    ("realm status", Then::Ends("ticker")),
    ("realm logs ticker -f", Then::UntilCtrlC("me")),
    ("realm invite --name two", Then::Ends("")),
    // It is in once somebody has vouched for it.
    ("realm agent --data two", Then::Stays("subject=\"two\"")),
    ("realm nodes ls", Then::Ends("two")),
    ("realm scale ticker=3", Then::Ends("ticker")),
    ("realm nodes drain two", Then::Ends("two")),
    ("realm history", Then::Ends("one was not enough")),
];

/// The tour's commands: lines of the README that are indented and begin with the program's name.
fn lines() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, from) = readme.split_once("## The first ten minutes").unwrap();
    let (tour, _) = from.split_once("\n## ").unwrap();
    let lines = tour.lines().filter(|line| line.starts_with("    realm "));
    lines.map(|line| line.trim().to_owned()).collect()
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

    fn wait_printed(&self, index: usize, line: &str, words: &str, child: &mut KilledAtTheEnd) {
        wait_for(&format!("{words:?} of: {line}"), || {
            let printed = self.read(index);
            if let Some(ended) = child.0.try_wait().unwrap() {
                panic!("{line}\nended: {ended}\n{printed}");
            }
            printed.contains(words).then_some(())
        });
    }

    fn read(&self, index: usize) -> String {
        String::from_utf8_lossy(&std::fs::read(self.printed(index)).unwrap()).into_owned()
    }

    fn run(&self, index: usize, line: &str) -> String {
        let ended = self.start(index, line).0.wait().unwrap();
        let printed = self.read(index);
        assert!(ended.success(), "{line}\nended: {ended}\n{printed}");
        printed
    }
}

#[test]
fn the_tour_of_the_readme_does_what_it_says() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let lines = lines();
    let began: Vec<&str> = TOUR.iter().map(|(began, _)| *began).collect();
    assert_eq!(lines.len(), TOUR.len(), "{lines:#?}\n{began:#?}");
    let mut agents = Vec::new();
    for (index, (line, (began, then))) in lines.iter().zip(TOUR).enumerate() {
        assert!(line.starts_with(began), "{line} is not: {began}");
        match then {
            Then::Ends(words) => {
                let printed = machine.run(index, line);
                assert!(printed.contains(words), "{line}\n{printed}");
            }
            Then::UntilCtrlC(words) => {
                let mut child = machine.start(index, line);
                machine.wait_printed(index, line, words, &mut child);
                let pid = child.0.id().to_string();
                let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
                assert!(sent.success());
                let ended = child.0.wait().unwrap();
                assert_eq!(ended.code(), Some(130), "{line}\n{}", machine.read(index));
            }
            Then::Stays(words) => {
                let mut child = machine.start(index, line);
                machine.wait_printed(index, line, words, &mut child);
                agents.push(child);
            }
        }
    }

    // "Kill an agent and look at `realm status`: it is lost within about two seconds."
    drop(agents.pop());
    wait_for("the killed agent is lost", || {
        let status = machine.run(lines.len(), "realm status");
        status.contains("lost").then_some(())
    });
}
