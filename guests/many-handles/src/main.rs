//! Opens host resources and keeps them until the host refuses one more.
//!
//! The first argument chooses which: `pollables` (default) or `sockets`; `listings`, `reads` and `writes` are of the
//! first directory that is granted, and of the file `big` in it; `nothing` is written to many streams of output, over and over; and
//! `polls` asks for one pollable as often as the second argument says, in one call.

use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::io::poll::poll;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// Far above any table a host should keep for one guest.
const MOST: usize = 10_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;
/// What a host may be asked to hold for one stream.
const CHUNK: usize = 64 * 1024;
/// Streams of output that are full at once.
const FULL: usize = 1_000;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None | Some("pollables") => hoard(|| Ok(subscribe_duration(HOUR_NS))),
        Some("sockets") => hoard(|| {
            create_tcp_socket(IpAddressFamily::Ipv4).map_err(|error| error.name().to_owned())
        }),
        Some("listings") => {
            let dir = directory();
            hoard(|| {
                dir.read_directory()
                    .map_err(|error| error.name().to_owned())
            });
        }
        Some("reads") => {
            let file = big(DescriptorFlags::READ);
            hoard(|| {
                let stream = file
                    .read_via_stream(0)
                    .map_err(|error| error.name().to_owned())?;
                // Begun, and never fetched.
                match stream.read(CHUNK as u64) {
                    Ok(_) => Ok(stream),
                    Err(error) => Err(format!("{error:?}")),
                }
            });
        }
        Some("writes") => {
            let file = big(DescriptorFlags::WRITE);
            let chunk = vec![1; CHUNK];
            hoard(|| {
                let stream = file
                    .write_via_stream(0)
                    .map_err(|error| error.name().to_owned())?;
                let permitted = stream.check_write().map_err(|error| format!("{error:?}"))?;
                match stream.write(&chunk[..permitted.min(CHUNK as u64) as usize]) {
                    Ok(()) => Ok(stream),
                    Err(error) => Err(format!("{error:?}")),
                }
            });
        }
        Some("nothing") => nothing(),
        Some("polls") => polls(),
        Some(other) => {
            eprintln!("unknown resource '{other}'");
            std::process::exit(2);
        }
    }
}

fn directory() -> Descriptor {
    let mut granted = get_directories();
    assert!(!granted.is_empty(), "no directory is granted");
    granted.swap_remove(0).0
}

fn big(flags: DescriptorFlags) -> Descriptor {
    directory()
        .open_at(PathFlags::empty(), "big", OpenFlags::CREATE, flags)
        .expect("the file `big` opens")
}

/// Writes to streams that are full what needs no room.
fn nothing() {
    let streams: Vec<_> = (0..FULL).map(|_| get_stdout()).collect();
    for stream in &streams {
        let room = stream.check_write().expect("output is open");
        stream
            .write(&vec![b'x'; room as usize])
            .expect("there is room");
    }
    loop {
        for stream in &streams {
            stream.write(&[]).expect("output is open");
        }
    }
}

fn polls() {
    let count = std::env::args()
        .nth(2)
        .and_then(|count| count.parse().ok())
        .expect("a number");
    let ready = subscribe_duration(0);
    let list = vec![&ready; count];
    println!("{} of {count} ready", poll(&list).len());
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
