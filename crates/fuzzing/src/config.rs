//! Config files of an agent and settings of commands.

use std::fs;

use realm_agent::Config;
use realm_manifest::report::MAX_CELLS;

use crate::scratch;

pub fn feed(input: &[u8]) {
    let temp = scratch::dir();
    let path = temp.path().join("10-config.toml");
    fs::write(&path, input).expect("a file in a temporary directory");

    let fresh = || Config::new("/data".into(), "/bin/realm".into());
    let mut config = fresh();
    match config.read_file(&path) {
        Ok(read) => {
            assert!(read, "the file is there");
            assert!(
                config.max_cells <= MAX_CELLS,
                "more cells than a report holds"
            );
            assert!(config.enroll.is_none(), "a file has no token");
            assert!(config.trust_first_use.is_none(), "a file opens no window");
            for address in config.listen.iter().chain(&config.bootstrap) {
                let _ = realm_p2p::check_listen_address(address);
            }
            let mut by_dir = fresh();
            assert!(by_dir.read_dir(temp.path()).is_ok());
            assert_eq!(
                format!("{by_dir:?}"),
                format!("{config:?}"),
                "read otherwise"
            );
        }
        Err(error) => {
            let path = path.display().to_string();
            assert!(error.to_string().contains(&path), "{error} names no file");
            assert_eq!(
                format!("{config:?}"),
                format!("{:?}", fresh()),
                "half of it counts"
            );
        }
    }
    let _ = realm::fuzzing::settings(&path);
}
