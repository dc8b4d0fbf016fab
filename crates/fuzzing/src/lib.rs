//! What the fuzzer feeds: one function for each kind of bytes that comes from outside.
//!
//! Each takes any bytes and panics where a promise is broken: what is decoded encodes to the same
//! bytes, what is accepted was signed by who it says, what was acknowledged is there after a restart.
//! `src/main.rs` gives them to libFuzzer; a test here feeds them the committed corpora and every input that
//! broke something once. Nothing that ships imports this crate.

mod config;
mod frames;
mod gossip;
mod inspection;
mod intents;
mod logs;
mod node;
mod record;
mod scene;
mod scratch;
mod script;
mod sessions;
mod state;
mod texts;
mod tokens;

pub use record::record;

/// One kind of bytes, and who reads them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub feed: fn(&[u8]),
}

/// Every target, by name.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "config",
        feed: config::feed,
    },
    Target {
        name: "frames",
        feed: frames::feed,
    },
    Target {
        name: "gossip",
        feed: gossip::feed,
    },
    Target {
        name: "inspection",
        feed: inspection::feed,
    },
    Target {
        name: "intents",
        feed: intents::feed,
    },
    Target {
        name: "logs",
        feed: logs::feed,
    },
    Target {
        name: "sessions",
        feed: sessions::feed,
    },
    Target {
        name: "state",
        feed: state::feed,
    },
    Target {
        name: "texts",
        feed: texts::feed,
    },
    Target {
        name: "tokens",
        feed: tokens::feed,
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
