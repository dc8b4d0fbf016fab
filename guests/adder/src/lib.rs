//! A library: typed exports and no entry point.

wit_bindgen::generate!({ world: "adder", path: "wit" });

use exports::realm::adder::arithmetic::Guest;

struct Adder;

impl Guest for Adder {
    fn add(a: u32, b: u32) -> Result<u32, String> {
        a.checked_add(b)
            .ok_or_else(|| format!("{a} + {b} does not fit 32 bits"))
    }

    fn sum(terms: Vec<u32>) -> Result<u32, String> {
        terms.into_iter().try_fold(0, Self::add)
    }
}

export!(Adder);
