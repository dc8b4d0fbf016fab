//! Cells from outside: guests that meet each limit, and what is seen of it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step fails the test"
)]

mod bombs;
mod cache;
mod callers;
mod calls;
mod compile;
mod ends;
mod examples;
mod file_acts;
mod file_races;
mod file_shapes;
mod granted;
mod guests;
mod host_memory;
mod inspect;
mod interfaces;
mod leaks;
mod limits;
mod malformed;
mod neighbours;
mod outbound;
mod outbound_addresses;
mod scene;
mod sockets_p3;
mod stack;
mod text;
mod time_bombs;
mod turns;
mod vars;
mod volumes;
