//! Allocates and touches memory until it is refused, then says how far it came.
//!
//! With the argument `hold` it then keeps the memory and waits.

use std::time::Duration;

const STEP: usize = 1 << 20;

fn main() {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(8192);
    while held.len() < held.capacity() {
        let mut step = Vec::new();
        if step.try_reserve_exact(STEP).is_err() {
            println!("refused after {} MiB", held.len());
            break;
        }
        step.resize(STEP, 1);
        held.push(std::hint::black_box(step));
    }
    if held.len() == held.capacity() {
        println!("never refused");
    }
    if std::env::args().any(|arg| arg == "hold") {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
            std::hint::black_box(&held);
        }
    }
}
