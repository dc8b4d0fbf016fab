//! The `realm` binary: the library with its allocator.

/// Gives back what is free: decision 0010.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    realm::main()
}
