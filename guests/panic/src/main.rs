//! Panics with the message given in its arguments.

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!("about to panic");
    panic!("{}", words.join(" "));
}
