//! Sleeps for the seconds given as the first argument, or for ever, without using the processor.

use std::time::Duration;

fn main() {
    println!("sleeping");
    match std::env::args().nth(1).and_then(|arg| arg.parse().ok()) {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        None => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
    }
    println!("awake");
}
