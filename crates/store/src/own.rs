//! Opens what is the agent's own. No link is followed there: whoever could write to its directory for a
//! moment would lead the agent, which may be root, to files of somebody else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::dir::sync_dir;

/// Nobody but the agent's user looks in.
const PRIVATE: u32 = 0o700;
/// What group and others may do.
pub(crate) const OTHERS: u32 = 0o077;
/// A directory that many write to, like /tmp.
const STICKY: u32 = 0o1000;

#[derive(Debug, thiserror::Error)]
#[error(
    "{path} is a symbolic link, and the agent follows none in its data directory: remove the link, and what can be made anew is, or put there what it leads to; another disk is mounted there instead"
)]
struct Link {
    path: PathBuf,
}

/// Opens a file with `options`.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open_with(options, OFlags::empty(), path)
}

/// Makes a file, in place of what a crash may have left there.
pub fn make(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    open(options.write(true).create_new(true).mode(mode), path)
}

/// Opens a directory, and makes it where it is missing.
pub fn dir(path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(PRIVATE).create(path) {
        // What is synced inside lasts only as long as its name.
        Ok(()) => sync_dir(path.parent().unwrap_or(Path::new(".")))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    open_with(OpenOptions::new().read(true), OFlags::DIRECTORY, path)
}

/// The same for the agent's user alone: one that is there and open to others is closed to them.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    close(&dir(path)?, path)
}

/// Closes an open directory to others. Not by its name, which may mean another one by now.
pub(crate) fn close(dir: &File, path: &Path) -> io::Result<()> {
    let metadata = dir.metadata()?;
    if !metadata.is_dir() {
        return Err(not_a_directory());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if mode & STICKY != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others write to this directory: choose one of the agent's own",
        ));
    }
    tracing::warn!(
        path = %path.display(),
        mode = format!("{mode:04o}"),
        "others could look into this directory of the agent: its mode is 0700 now"
    );
    dir.set_permissions(Permissions::from_mode(PRIVATE))
}

fn not_a_directory() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotADirectory,
        "it is a file where a directory belongs: move it away",
    )
}

/// An error of a file, said with what to do where a directory has its place.
pub(crate) fn not_a_file(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::IsADirectory => io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a directory where a file belongs: move it away, and put the file back from a backup where it is needed",
        ),
        _ => error,
    }
}

fn open_with(options: &mut OpenOptions, more: OFlags, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | more).bits().cast_signed();
    options.custom_flags(flags).open(path).map_err(|error| {
        // Which number the kernel gives for a link depends on the other flags.
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => io::Error::other(Link { path: path.into() }),
            Ok(found) if more.contains(OFlags::DIRECTORY) && !found.is_dir() => not_a_directory(),
            _ => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn a_directory_is_made_and_closed_and_a_link_to_one_is_neither() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("own");
        private_dir(&path).expect("made");
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("opened");
        private_dir(&path).expect("closed");
        assert_eq!(mode(&path), 0o700);

        let theirs = temp.path().join("theirs");
        fs::create_dir(&theirs).expect("made");
        fs::set_permissions(&theirs, Permissions::from_mode(0o755)).expect("opened");
        for (name, leads_to) in [("link", &theirs), ("dangling", &temp.path().join("none"))] {
            let link = temp.path().join(name);
            symlink(leads_to, &link).expect("linked");
            for error in [private_dir(&link).err(), dir(&link).err()] {
                let error = error.expect("refused").to_string();
                assert!(
                    error.contains(&format!("{name} is a symbolic link")),
                    "{error}"
                );
            }
        }
        assert_eq!(mode(&theirs), 0o755);
        assert!(!temp.path().join("none").exists());
        let file = temp.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(dir(&file).is_err());
    }

    #[test]
    fn a_file_is_opened_and_made_and_what_a_link_leads_to_is_not() {
        let temp = tempfile::tempdir().expect("a directory");
        let (theirs, link) = (temp.path().join("theirs"), temp.path().join("link"));
        fs::write(&theirs, "kept").expect("written");
        symlink(&theirs, &link).expect("linked");
        for options in [
            OpenOptions::new().read(true),
            OpenOptions::new().write(true).truncate(true),
            OpenOptions::new().write(true).create(true),
            OpenOptions::new().write(true).create_new(true),
        ] {
            let error = open(options, &link).expect_err("refused").to_string();
            assert!(error.contains("is a symbolic link"), "{error}");
        }
        // A name that is for the moment only is taken from whatever has it.
        make(&link, 0o600).expect("made");
        assert_eq!(mode(&link), 0o600);
        assert_eq!(fs::read_to_string(&theirs).expect("read"), "kept");
    }
}
