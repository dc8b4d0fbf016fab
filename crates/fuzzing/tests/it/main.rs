//! What was found once stays found: the corpora and every input that broke something.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set its scene should say so and stop"
)]

mod replay;
