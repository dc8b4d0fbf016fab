//! Cells from outside: guests that meet each limit, and what is seen of it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step fails the test"
)]

mod compile;
mod examples;
mod guests;
mod inspect;
mod limits;
mod scene;
