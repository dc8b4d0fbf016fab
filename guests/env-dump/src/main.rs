//! Prints every argument and variable it was given, so that a test can see that there is no more.

fn main() {
    for (index, arg) in std::env::args().enumerate() {
        println!("arg {index} {arg}");
    }
    for (key, value) in std::env::vars() {
        println!("env {key}={value}");
    }
}
