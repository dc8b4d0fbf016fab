//! Computes for ever without calling the host.

fn main() {
    println!("spinning");
    let mut x = 0_u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
    }
}
