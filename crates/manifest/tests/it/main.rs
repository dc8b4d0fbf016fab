//! Manifest: every signed message byte by byte, payloads, text forms and validation.
#![allow(clippy::unwrap_used)]

mod cbor;
mod coverage;
mod golden;
mod messages;
mod payloads;
mod scene;
mod text;
mod validation;
