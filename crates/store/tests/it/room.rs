//! What artifacts may take, what goes when there is no room, and what a full disk says.

use std::{
    collections::HashSet,
    fs::FileTimes,
    io::Read,
    path::Path,
    time::{Duration, SystemTime},
};

use realm_manifest::identity::{Artifact, Hash};
use realm_store::{BlobError, Blobs};

use super::blobs::bytes;

const MAX: u64 = 64 * 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn import(blobs: &Blobs, seed: u8) -> Artifact {
    blobs.import(bytes(100_000, seed).as_slice(), MAX).unwrap()
}

fn artifact(seed: u8) -> Artifact {
    Artifact::of(&bytes(100_000, seed))
}

/// Sets the time of everything whose name begins with `sha256` below `dir`.
fn set_age(dir: &Path, sha256: &Hash, age: Duration) {
    let then = SystemTime::now() - age;
    let mut set = 0;
    let shards = std::fs::read_dir(dir.join("blobs")).unwrap();
    let dirs = shards.map(|shard| shard.unwrap().path());
    for dir in dirs.chain([dir.join("partial")]) {
        for file in std::fs::read_dir(dir).unwrap() {
            let file = file.unwrap();
            if file
                .file_name()
                .to_string_lossy()
                .starts_with(&sha256.to_string())
            {
                let opened = std::fs::File::options().write(true).open(file.path());
                let times = FileTimes::new().set_modified(then);
                opened.unwrap().set_times(times).unwrap();
                set += 1;
            }
        }
    }
    assert!(set > 0, "nothing of {sha256} is there");
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir.join("partial"))
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_was_used_longest_ago_goes_and_what_is_pinned_stays() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), 350_000).unwrap();
    let [first, second, third] = [1, 2, 3].map(|seed| import(&blobs, seed));
    for (artifact, hours) in [(first, 9), (second, 5), (third, 7)] {
        set_age(
            temp.path(),
            &artifact.sha256,
            Duration::from_secs(hours * 3600),
        );
    }
    // Nobody said yet what is needed: nothing may go.
    let error = blobs.import(bytes(100_000, 4).as_slice(), MAX).unwrap_err();
    assert!(
        matches!(error, BlobError::Budget { used: 300_000, .. }),
        "{error}"
    );
    blobs.pin(HashSet::from([first.sha256]));
    let fourth = import(&blobs, 4);
    assert!(!blobs.has(&third), "the least recently used that is loose");
    assert!([first, second, fourth].iter().all(|one| blobs.has(one)));
    // The same for a pull.
    let held = blobs.begin(artifact(5)).unwrap();
    assert!(!blobs.has(&second) && blobs.has(&first) && blobs.has(&fourth));
    assert_eq!(blobs.used().unwrap(), 300_000);
    // Using it makes it young.
    blobs.open_path(&fourth).unwrap();
    let all = HashSet::from([first.sha256, fourth.sha256]);
    blobs.pin(all);
    assert!(matches!(
        blobs.begin(artifact(6)),
        Err(BlobError::Budget { .. })
    ));
    assert!(blobs.has(&first) && blobs.has(&fourth));
    drop(held);
}

#[test]
fn a_pull_counts_from_its_beginning() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), 250_000).unwrap();
    blobs.pin([1, 2].map(|seed| artifact(seed).sha256).into());
    let first = blobs.begin(artifact(1)).unwrap();
    let second = blobs.begin(artifact(2)).unwrap();
    assert_eq!(blobs.used().unwrap(), 200_000);
    let before = names(temp.path());
    assert!(matches!(
        blobs.begin(artifact(3)),
        Err(BlobError::Budget { used: 200_000, .. })
    ));
    assert!(matches!(
        blobs.import(bytes(100_000, 4).as_slice(), MAX),
        Err(BlobError::Budget { .. })
    ));
    assert_eq!(names(temp.path()), before, "checked before writing");
    drop((first, second));
    // It goes on being counted, and may be resumed without room for a second one.
    drop(blobs.begin(artifact(1)).unwrap());
    assert_eq!(blobs.used().unwrap(), 200_000);
}

#[test]
fn a_pull_that_nothing_needs_goes_when_asked_or_when_it_ends() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), MAX).unwrap();
    let [needed, idle, running] = [1, 2, 3].map(artifact);
    drop(blobs.begin(needed).unwrap());
    drop(blobs.begin(idle).unwrap());
    let held = blobs.begin(running).unwrap();
    assert_eq!(
        blobs.used().unwrap(),
        300_000,
        "nobody said yet what is needed"
    );
    blobs.pin(HashSet::from([needed.sha256]));
    blobs.drop_loose_pulls();
    assert_eq!(blobs.used().unwrap(), 200_000, "only the idle one goes");
    // Whoever shares it keeps it alive.
    let shared = blobs.begin(running).unwrap();
    drop(held);
    assert_eq!(blobs.used().unwrap(), 200_000);
    drop(shared);
    assert_eq!(blobs.used().unwrap(), 100_000);
    let left = names(temp.path());
    let of = needed.sha256.to_string();
    assert!(left.iter().all(|name| name.starts_with(&of)), "{left:?}");
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_pull_nobody_goes_on_with_is_given_up_and_a_resumed_one_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let [forgotten, resumed, running] = [1, 2, 3].map(artifact);
    {
        let blobs = Blobs::open(temp.path(), MAX).unwrap();
        drop(blobs.begin(forgotten).unwrap());
        drop(blobs.begin(resumed).unwrap());
    }
    set_age(
        temp.path(),
        &forgotten.sha256,
        DAY - Duration::from_secs(600),
    );
    set_age(temp.path(), &resumed.sha256, DAY - Duration::from_secs(600));
    let blobs = Blobs::open(temp.path(), 350_000).unwrap();
    assert_eq!(blobs.used().unwrap(), 200_000, "not old enough");
    set_age(temp.path(), &resumed.sha256, DAY * 2);
    drop(blobs.begin(resumed).unwrap());
    set_age(temp.path(), &forgotten.sha256, DAY * 2);
    let held = blobs.begin(running).unwrap();
    set_age(temp.path(), &running.sha256, DAY * 2);
    // 300,000 bytes are in use: one has to go, and it is not one that somebody wants.
    let fourth = blobs.begin(artifact(4)).unwrap();
    assert_eq!(blobs.used().unwrap(), 300_000);
    let left = names(temp.path());
    let starts = |of: &Artifact| {
        left.iter()
            .any(|name| name.starts_with(&of.sha256.to_string()))
    };
    assert!(!starts(&forgotten) && starts(&resumed) && starts(&running));
    drop((held, fourth, blobs));
    set_age(temp.path(), &resumed.sha256, DAY * 2);
    set_age(temp.path(), &running.sha256, DAY * 2);
    let blobs = Blobs::open(temp.path(), 350_000).unwrap();
    assert_eq!(
        blobs.used().unwrap(),
        100_000,
        "collected at the start as well"
    );
}

#[test]
fn what_a_killed_import_left_goes_at_the_next_start() {
    let temp = tempfile::tempdir().unwrap();
    drop(Blobs::open(temp.path(), MAX).unwrap());
    std::fs::write(temp.path().join("partial/import-0.data"), b"half").unwrap();
    let blobs = Blobs::open(temp.path(), MAX).unwrap();
    assert!(names(temp.path()).is_empty());
    import(&blobs, 1);
    assert!(names(temp.path()).is_empty(), "a whole one leaves nothing");
    let error = blobs
        .import(bytes(10_000, 9).as_slice(), 9_999)
        .unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { max: 9_999 }));
    assert!(names(temp.path()).is_empty(), "nor does one that failed");
    assert_eq!(blobs.used().unwrap(), 100_000);
}

/// Gives bytes, and looks at the store while they are taken.
struct Watching<'a> {
    blobs: &'a Blobs,
    left: usize,
    most: u64,
}

impl Read for Watching<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.most = self.most.max(self.blobs.used().unwrap());
        let len = out.len().min(self.left);
        out[..len].fill(7);
        self.left -= len;
        Ok(len)
    }
}

#[test]
fn an_import_never_takes_more_than_its_budget_on_the_way() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), 10_000_000).unwrap();
    let mut reader = Watching {
        blobs: &blobs,
        left: 30_000_000,
        most: 0,
    };
    let error = blobs.import(&mut reader, MAX).unwrap_err();
    assert!(matches!(error, BlobError::Budget { .. }), "{error}");
    assert!(
        reader.most > 0 && reader.most <= 10_000_000,
        "{}",
        reader.most
    );
    assert!(reader.left > 15_000_000, "it stopped early");
    assert_eq!(blobs.used().unwrap(), 0);
    // What fits exactly is taken.
    let exact = blobs
        .import(&mut bytes(10_000_000, 1).as_slice(), MAX)
        .unwrap();
    assert_eq!(blobs.used().unwrap(), exact.size);
}

#[test]
fn an_unknown_length_is_no_reason_to_refuse_what_fits() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), 150_000).unwrap();
    import(&blobs, 1);
    let small = blobs.import(bytes(40_000, 2).as_slice(), MAX).unwrap();
    assert!(blobs.has(&small));
}
