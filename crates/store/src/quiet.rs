//! Panics that are caught and told as errors are not printed as well.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `work`; None where it panicked. Nothing that `work` shares with others may be used then.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                told(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "REALM_TEST_QUIET_CHILD";

    /// Runs itself in a process of its own, whose whole output is seen.
    #[test]
    fn a_caught_panic_prints_nothing_and_another_one_does() {
        if std::env::var_os(CHILD).is_some() {
            assert_eq!(caught(|| 1), Some(1));
            assert_eq!(caught(|| -> u8 { panic!("unheard") }), None);
            let other = std::thread::spawn(|| panic!("heard"));
            assert!(other.join().is_err());
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["quiet::tests", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        assert!(
            said.contains("heard") && !said.contains("unheard"),
            "{said}"
        );
    }
}
