//! Which compiler builds the guests: an installed one, one that rustup adds, or Debian's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::TARGETS;

/// Set to `debian` so that nothing is asked of rustup's server.
const ROUTE: &str = "REALM_GUEST_TOOLCHAIN";

/// How a compiler was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Toolchain {
    /// The one on the path has the targets.
    Active,
    /// `guests/toolchain` made this `rustc`.
    Debian(PathBuf),
}

impl Toolchain {
    pub(super) fn rustc(&self) -> &Path {
        match self {
            Self::Active => Path::new("rustc"),
            Self::Debian(rustc) => rustc,
        }
    }

    /// What the compiler says to a question such as `-V`, in one line.
    pub(super) fn says(&self, question: &[&str]) -> Result<String> {
        let rustc = self.rustc();
        let output = Command::new(rustc)
            .args(question)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", rustc.display()))?;
        if !output.status.success() {
            bail!(
                "{} {}: {}",
                rustc.display(),
                question.join(" "),
                output.status
            );
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Where to look. A test points it at commands of its own.
#[derive(Debug)]
pub(super) struct Search {
    root: PathBuf,
    debian: bool,
    path: Option<OsString>,
}

impl Search {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            debian: std::env::var_os(ROUTE).is_some_and(|route| route == "debian"),
            path: None,
        }
    }

    pub(super) fn find(&self) -> Result<Toolchain> {
        let missing = self.missing();
        if missing.is_empty() {
            eprintln!("xtask: the active toolchain has {}", TARGETS.join(" and "));
            return Ok(Toolchain::Active);
        }
        let wanted = missing.join(" and ");
        if self.debian {
            eprintln!("xtask: {wanted} not installed; {ROUTE} asks for Debian's compiler");
        } else if self.add(&missing) {
            eprintln!("xtask: rustup added {wanted}");
            return Ok(Toolchain::Active);
        } else {
            eprintln!("xtask: rustup cannot add {wanted}; trying Debian's compiler");
        }
        self.make()
    }

    /// Targets without a standard library. It is asked of `rustc`, because a distribution's
    /// compiler can have them without rustup.
    fn missing(&self) -> Vec<&'static str> {
        let installed = |target: &&str| {
            let output = self
                .command("rustc")
                .args(["--print", "target-libdir", "--target", target])
                .stderr(Stdio::null())
                .output();
            output.is_ok_and(|output| {
                output.status.success()
                    && has_library(Path::new(String::from_utf8_lossy(&output.stdout).trim()))
            })
        };
        TARGETS
            .into_iter()
            .filter(|target| !installed(target))
            .collect()
    }

    fn add(&self, missing: &[&str]) -> bool {
        eprintln!("xtask: rustup target add {}", missing.join(" "));
        let added = self
            .command("rustup")
            .args(["target", "add"])
            .args(missing)
            .status();
        match added {
            // Trusted only once the compiler on the path sees it: it may not be rustup's.
            Ok(status) => status.success() && self.missing().is_empty(),
            Err(error) => {
                eprintln!("xtask: cannot start rustup: {error}");
                false
            }
        }
    }

    fn make(&self) -> Result<Toolchain> {
        let output = self
            .command(self.root.join("guests/toolchain"))
            .args(TARGETS)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start guests/toolchain")?;
        if !output.status.success() {
            bail!(
                "no compiler for guests: guests/toolchain failed; where rustup reaches its \
                 server, `rustup target add {}` is enough",
                TARGETS.join(" ")
            );
        }
        let rustc = String::from_utf8(output.stdout)?;
        Ok(Toolchain::Debian(rustc.trim_end().into()))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }
}

fn has_library(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose `rustc`, `rustup` and `guests/toolchain` write down how they are called.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(rustup: &str) -> Result<Self> {
            let dir = tempfile::tempdir()?;
            std::fs::create_dir_all(dir.path().join("guests"))?;
            let machine = Self(dir);
            machine.stub("rustc", "echo \"$dir/lib/$4\"")?;
            machine.stub("rustup", rustup)?;
            machine.stub("guests/toolchain", "echo /debian/rustc")?;
            Ok(machine)
        }

        /// The stub reads its part from a file: a script that was just written may be refused as
        /// busy, because another test's child can still hold it open.
        fn stub(&self, name: &str, script: &str) -> Result<()> {
            let here = self.0.path();
            let stub = crate::root()?.join("xtask/src/guests/stub");
            std::os::unix::fs::symlink(stub, here.join(name))?;
            let script = format!(
                "dir='{}'\necho \"{name} $*\" >>\"$dir/calls\"\n{script}\n",
                here.display()
            );
            Ok(std::fs::write(here.join(format!("{name}.sh")), script)?)
        }

        fn install(&self, target: &str) -> Result<()> {
            let lib = self.0.path().join("lib").join(target);
            std::fs::create_dir_all(&lib)?;
            Ok(std::fs::write(lib.join("libstd-0.rlib"), "")?)
        }

        fn find(&self, debian: bool) -> Result<Toolchain> {
            Search {
                root: self.0.path().to_owned(),
                debian,
                path: Some(self.0.path().into()),
            }
            .find()
        }

        /// Every call that was not a question to `rustc`.
        fn calls(&self) -> Result<Vec<String>> {
            let calls = std::fs::read_to_string(self.0.path().join("calls"))?;
            let told = calls.lines().filter(|call| !call.starts_with("rustc "));
            Ok(told.map(str::to_owned).collect())
        }
    }

    const ADD: &str = "rustup target add wasm32-wasip2 wasm32-wasip1";
    const MAKE: &str = "guests/toolchain wasm32-wasip2 wasm32-wasip1";
    const SUCCEEDS: &str = "shift 2; for target; do /bin/mkdir -p \"$dir/lib/$target\"; \
                            : >\"$dir/lib/$target/libstd-0.rlib\"; done";

    fn debian() -> Toolchain {
        Toolchain::Debian("/debian/rustc".into())
    }

    #[test]
    fn an_installed_target_is_used_as_it_is() -> Result<()> {
        let machine = Machine::new(SUCCEEDS)?;
        TARGETS.into_iter().try_for_each(|it| machine.install(it))?;
        assert_eq!(machine.find(false)?, Toolchain::Active);
        assert_eq!(machine.find(true)?, Toolchain::Active);
        assert!(machine.calls()?.is_empty());
        Ok(())
    }

    #[test]
    fn rustup_adds_what_is_missing_and_only_that() -> Result<()> {
        let machine = Machine::new(SUCCEEDS)?;
        assert_eq!(machine.find(false)?, Toolchain::Active);
        assert_eq!(machine.calls()?, [ADD]);

        let machine = Machine::new(SUCCEEDS)?;
        machine.install("wasm32-wasip2")?;
        assert_eq!(machine.find(false)?, Toolchain::Active);
        assert_eq!(machine.calls()?, ["rustup target add wasm32-wasip1"]);
        Ok(())
    }

    #[test]
    fn debian_is_the_last_resort() -> Result<()> {
        // The server is out of reach; or another compiler than rustup's is on the path.
        for rustup in ["exit 1", "exit 0"] {
            let machine = Machine::new(rustup)?;
            assert_eq!(machine.find(false)?, debian());
            assert_eq!(machine.calls()?, [ADD, MAKE]);
        }
        let machine = Machine::new("exit 0")?;
        std::fs::remove_file(machine.0.path().join("rustup"))?;
        assert_eq!(machine.find(false)?, debian());
        assert_eq!(machine.calls()?, [MAKE]);
        Ok(())
    }

    #[test]
    fn debian_by_wish_asks_rustup_for_nothing() -> Result<()> {
        let machine = Machine::new(SUCCEEDS)?;
        assert_eq!(machine.find(true)?, debian());
        assert_eq!(machine.calls()?, [MAKE]);
        Ok(())
    }

    #[test]
    fn without_any_compiler_the_error_says_what_helps() -> Result<()> {
        let machine = Machine::new("exit 1")?;
        std::fs::write(machine.0.path().join("guests/toolchain.sh"), "exit 1")?;
        let error = machine.find(false).err().context("it fails")?;
        assert!(error.to_string().contains("rustup target add"), "{error}");
        Ok(())
    }
}
