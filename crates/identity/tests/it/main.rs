//! Identity: envelopes, invites, key formats and the pin, from outside.
#![allow(clippy::unwrap_used)]

mod bounds;
mod envelope;
mod formats;
mod joining;
mod pin;
mod scene;
mod sealing;
mod shown;
#[path = "../../../testkit/src/skipped.rs"]
mod skipped;
