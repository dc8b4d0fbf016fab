//! Opens host resources and keeps them until the host refuses one more.
//!
//! The first argument chooses which: `pollables` (default) or `sockets`.

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// Far above any table a host should keep for one guest.
const MOST: usize = 10_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None | Some("pollables") => hoard(|| Ok(subscribe_duration(HOUR_NS))),
        Some("sockets") => hoard(|| {
            create_tcp_socket(IpAddressFamily::Ipv4).map_err(|error| error.name().to_owned())
        }),
        Some(other) => {
            eprintln!("unknown resource '{other}'");
            std::process::exit(2);
        }
    }
}

fn hoard<T>(open: impl Fn() -> Result<T, String>) {
    let mut held = Vec::new();
    while held.len() < MOST {
        match open() {
            Ok(handle) => held.push(handle),
            Err(error) => {
                println!("refused after {}: {error}", held.len());
                return;
            }
        }
        if held.len().is_power_of_two() {
            println!("holding {}", held.len());
        }
    }
    println!("never refused");
}
