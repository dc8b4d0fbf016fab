//! Greets, repeats its arguments, and ends with success.

fn main() {
    println!("hello");
    for arg in std::env::args().skip(1) {
        println!("arg {arg}");
    }
}
