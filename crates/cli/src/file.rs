//! Files that must be whole or absent, and private to their owner.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno, process::geteuid};

/// Replaces `path` in one step: readers see the old bytes or the new, also after a crash.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path)?;
    create_dir(dir)?;
    let beside = Beside::write(path, bytes)?;
    fs::rename(&beside.path, path)
        .map_err(not_a_file)
        .or_else(|error| beside.discard(error))?;
    sync_dir(dir)
}

/// An error of a file, said with what to do where a directory has its place.
pub fn not_a_file(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::IsADirectory => io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a directory where a file belongs: move it away, and run the command again",
        ),
        _ => error,
    }
}

/// Opens a file that commands lock, and makes it where it is missing.
pub fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(not_a_file)
}

/// Renames durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    // The new name first: after a crash in between both are there, and not neither.
    sync_dir(parent(to)?)?;
    sync_dir(parent(from)?)
}

/// Removes a file; none is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file that must not exist yet; never overwrites.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path)?;
    create_dir(dir)?;
    let beside = Beside::write(path, bytes)?;
    name(&beside.path, path).or_else(|error| beside.discard(error))?;
    sync_dir(dir)
}

/// Gives a file the name `to`, which must be free.
fn name(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Network file systems cannot do it in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link(from, to),
        Err(error) => Err(error.into()),
    }
}

/// A hard link fails where the name is taken, and the file appears whole.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// A file that is written before it gets its name. There is one such name beside each path, so that
/// what a crash leaves there is used by the next write and does not pile up; who writes holds its
/// lock, so that commands that run at once take turns.
struct Beside {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

/// Looks at the file beside a path: others may take it away, or put theirs there, in between.
const TRIES: usize = 100;

impl Beside {
    fn write(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let path = Self::name(path)?;
        let mut file = Self::take(&path)?;
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| file.sync_all());
        let beside = Self { path, _file: file };
        match written {
            Ok(()) => Ok(beside),
            Err(error) => beside.discard(error),
        }
    }

    fn take(path: &Path) -> io::Result<File> {
        for _ in 0..TRIES {
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path);
            let file = match opened {
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                    fs::remove_file(path)?;
                    continue;
                }
                opened => opened.map_err(not_a_file)?,
            };
            let ours = file.metadata()?;
            // In a directory of several people another one may have made it, to read what comes.
            if ours.uid() != geteuid().as_raw() || ours.mode() & 0o077 != 0 {
                fs::remove_file(path)?;
                continue;
            }
            file.lock()?;
            let ours = file.metadata()?;
            let named = match fs::symlink_metadata(path) {
                Ok(named) => named,
                // Whoever had the lock before gave the file its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if (named.dev(), named.ino()) != (ours.dev(), ours.ino()) {
                continue;
            }
            if named.nlink() == 1 {
                return Ok(file);
            }
            // A crash between the two steps of a link: these bytes have their name already, and
            // must not be written over.
            fs::remove_file(path)?;
        }
        Err(io::Error::other(format!(
            "{} cannot be had for this command alone",
            path.display()
        )))
    }

    fn name(path: &Path) -> io::Result<PathBuf> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::other("a path without a file name"))?;
        Ok(parent(path)?.join(format!(".{}.new", name.to_string_lossy())))
    }

    /// The first error is the one to report; what stays is used by the next write.
    fn discard<T>(&self, error: io::Error) -> io::Result<T> {
        let _ = fs::remove_file(&self.path);
        Err(error)
    }
}

/// Removes what a crash left of a write to `path`; an error while another command writes there.
pub fn forget(path: &Path) -> io::Result<()> {
    let beside = Beside::name(path)?;
    match File::open(&beside) {
        Ok(file) => {
            file.try_lock()?;
            fs::remove_file(beside)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a whole file of at most `max` bytes; None when there is none.
pub fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(not_a_file)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(Some(bytes))
}

/// Makes a directory and those above it, durably: what is synced in a directory is lost with its name.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir)?;
    create_dir(above)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        // Another command was faster; whether it has synced the name is not known.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {
            sync_dir(above)
        }
        Err(error) => Err(error),
        Ok(()) => sync_dir(above),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(dir) => Ok(dir),
        None => Err(io::Error::other("a path without a directory")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_another_one_laid_beside_a_path_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("key"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, b"theirs").unwrap();
        let beside = Beside::name(&path).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &beside).unwrap();
        replace(&path, b"ours").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        // Open to all, and held open by whoever made it.
        let open = File::options().write(true).create_new(true).open(&beside);
        let mut theirs = open.unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"again").unwrap();
        theirs.write_all(b"theirs").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"again");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        fs::create_dir(&path).unwrap();
        let beside = dir.path().join("owner");
        fs::create_dir(Beside::name(&beside).unwrap()).unwrap();
        for error in [
            read(&path, 9).unwrap_err(),
            replace(&path, b"1").unwrap_err(),
            replace(&beside, b"1").unwrap_err(),
        ] {
            assert!(error.to_string().contains("move it away"), "{error}");
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn create_never_overwrites_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        create(&path, b"one").unwrap();
        assert_eq!(
            create(&path, b"two").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        replace(&path, b"three").unwrap();
        assert_eq!(read(&path, 5).unwrap().unwrap(), b"three");
        assert!(read(&path, 4).is_err());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_is_used_by_the_next_write_and_ends_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let beside = dir.path().join(".key.new");
        fs::write(&beside, b"of a command that was killed").unwrap();
        create(&path, b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(!beside.exists());
        // Killed between the two steps of a link: both names are one file.
        fs::hard_link(&path, &beside).unwrap();
        assert!(create(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::hard_link(&path, &beside).unwrap();
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_a_name_cannot_be_given_in_one_step_it_is_never_taken_from_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, b"one").unwrap();
        link(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"one");
        assert!(!from.exists());
        fs::write(&from, b"two").unwrap();
        let taken = link(&from, &to).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"one");
    }

    #[test]
    fn many_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        std::thread::scope(|scope| {
            for writer in 0..8u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, &[writer; 1000]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 1000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
