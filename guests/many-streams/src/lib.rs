//! Opens streams of WASI 0.3 and keeps them, for as long as the host gives more.
//!
//! The first argument chooses which, of the first directory that is granted: `listings`, or `reads` of the file `big` in
//! it. One item is read from each, so that the host has begun. The second argument says how many; with `hold` as the
//! third one they are kept for an hour, else it fails if there were fewer.

use wasip3::cli::environment::get_arguments;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip3::wit_bindgen::{FutureReader, StreamReader};

const HOUR_NS: u64 = 3_600_000_000_000;

wasip3::cli::command::export!(Hoard);

struct Hoard;

impl wasip3::exports::cli::run::Guest for Hoard {
    async fn run() -> Result<(), ()> {
        let args = get_arguments();
        let many = args.get(2).and_then(|many| many.parse().ok()).ok_or(())?;
        let hold = args.get(3).is_some_and(|arg| arg == "hold");
        let (directory, _) = get_directories().into_iter().next().ok_or(())?;
        match args[1].as_str() {
            "listings" => hoard(many, hold, || directory.read_directory()).await,
            "reads" => {
                let opened = directory.open_at(
                    PathFlags::empty(),
                    "big".into(),
                    OpenFlags::empty(),
                    DescriptorFlags::READ,
                );
                let file = opened.await.map_err(drop)?;
                hoard(many, hold, || file.read_via_stream(0)).await
            }
            _ => Err(()),
        }
    }
}

async fn hoard<T: 'static, E: 'static>(
    many: usize,
    hold: bool,
    open: impl Fn() -> (StreamReader<T>, FutureReader<Result<(), E>>),
) -> Result<(), ()> {
    let mut held = Vec::new();
    while held.len() < many {
        let (mut stream, _) = open();
        let (_, items) = stream.read(Vec::with_capacity(1)).await;
        if items.is_empty() {
            break;
        }
        held.push(stream);
    }
    if hold {
        wait_for(HOUR_NS).await;
    }
    if held.len() == many { Ok(()) } else { Err(()) }
}
