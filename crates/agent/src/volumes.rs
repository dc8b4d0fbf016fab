//! Whose data is on this node: named volumes are `<volumes>/<component>/<name>/`.
//!
//! Beside them lies an empty file `.cell-<index>` for each cell that has started with them, so that
//! a node that starts anew knows how many cells belong to the data, and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use realm_manifest::ComponentName;
use realm_store::own;

/// No volume's name begins with a dot.
const MARK: &str = ".cell-";

/// The cells that data on this node belongs to.
#[derive(Debug)]
pub struct Volumes {
    path: PathBuf,
    cells: BTreeMap<ComponentName, BTreeSet<u32>>,
    /// Cells of these whose mark is not on disk yet.
    unmarked: BTreeSet<(ComponentName, u32)>,
}

impl Volumes {
    /// Looks at what is there; nothing at all is fine.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut cells = BTreeMap::new();
        for entry in entries(&path)? {
            let entry = entry?;
            // What has no component's name was not made here.
            let name = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(name) = name
                && entry.file_type()?.is_dir()
            {
                let found = cells_of(&entry.path())?;
                if !found.is_empty() {
                    cells.insert(name, found);
                }
            }
        }
        Ok(Self {
            path,
            cells,
            unmarked: BTreeSet::new(),
        })
    }

    /// A cell has started with its volumes. What a disk did not take is tried again at each call,
    /// and told of once.
    pub fn note(&mut self, component: &ComponentName, index: u32) -> io::Result<()> {
        let known = self.cells.entry(component.clone()).or_default();
        let is_new = known.insert(index);
        let cell = (component.clone(), index);
        if !is_new && !self.unmarked.contains(&cell) {
            return Ok(());
        }
        match self.mark(component, index) {
            Ok(()) => {
                self.unmarked.remove(&cell);
                Ok(())
            }
            Err(error) if self.unmarked.insert(cell) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Durable, with the directories that lead to it: the guest syncs only what it writes.
    fn mark(&self, component: &ComponentName, index: u32) -> io::Result<()> {
        let component = self.path.join(component.as_str());
        own::dir(&self.path)?;
        own::dir(&component)?;
        let mark = component.join(format!("{MARK}{index}"));
        own::open(fs::OpenOptions::new().append(true).create(true), &mark)?;
        for dir in [&component, &self.path] {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// The cell is not wanted here any more. The last one stays noted: the data does, too.
    pub fn forget(&mut self, component: &ComponentName, index: u32) -> io::Result<()> {
        let Some(known) = self
            .cells
            .get_mut(component)
            .filter(|known| known.len() > 1)
        else {
            return Ok(());
        };
        known.remove(&index);
        self.unmarked.remove(&(component.clone(), index));
        let mark = format!("{MARK}{index}");
        match fs::remove_file(self.path.join(component.as_str()).join(mark)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Components with data here, sorted, each with its number of cells.
    pub fn held(&self) -> impl Iterator<Item = (&ComponentName, u32)> {
        self.cells
            .iter()
            .map(|(component, cells)| (component, u32::try_from(cells.len()).unwrap_or(u32::MAX)))
    }
}

/// The cells that a component's data belongs to; data that nobody noted counts for one.
fn cells_of(component: &Path) -> io::Result<BTreeSet<u32>> {
    let (mut cells, mut data) = (BTreeSet::new(), false);
    for entry in entries(component)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str().and_then(|name| name.strip_prefix(MARK)) {
            Some(index) => cells.extend(index.parse::<u32>().ok()),
            None if entry.file_type()?.is_dir() => {
                data |= entries(&entry.path())?.next().is_some();
            }
            None => {}
        }
    }
    if cells.is_empty() && data {
        cells.insert(0);
    }
    Ok(cells)
}

/// What is in a directory; nothing where there is none.
fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(volumes: &Volumes) -> Vec<(String, u32)> {
        let held = volumes.held();
        held.map(|(name, cells)| (name.to_string(), cells))
            .collect()
    }

    #[test]
    fn data_and_cells_that_had_it_are_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("volumes");
        let open = || Volumes::open(path.clone()).expect("readable");
        assert!(held(&open()).is_empty());
        fs::create_dir_all(path.join("empty/data")).expect("a volume");
        fs::create_dir_all(path.join("full/data/inner")).expect("a volume");
        fs::create_dir_all(path.join("Not A Name/data/inner")).expect("a directory");
        assert_eq!(held(&open()), [("full".to_owned(), 1)]);

        let mut volumes = open();
        let web = "web".parse().expect("a name");
        for index in [0, 1, 1, 2] {
            volumes.note(&web, index).expect("writable");
        }
        let both = |cells| [("full".to_owned(), 1), ("web".to_owned(), cells)];
        assert_eq!(held(&volumes), both(3));
        assert_eq!(held(&open()), both(3));
        for index in [2, 1, 0] {
            volumes.forget(&web, index).expect("writable");
        }
        assert_eq!(held(&volumes), both(1), "the data is still there");
        assert_eq!(held(&open()), both(1));
    }

    #[test]
    fn a_mark_that_a_disk_did_not_take_is_written_when_it_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("volumes");
        let web = "web".parse().expect("a name");
        let mut volumes = Volumes::open(path.clone()).expect("readable");
        // A file where the directory should be stands for a disk that takes nothing.
        fs::write(&path, "").expect("writable");
        volumes.note(&web, 1).expect_err("told of");
        volumes.note(&web, 1).expect("once");
        assert_eq!(held(&volumes), [("web".to_owned(), 1)]);
        fs::remove_file(&path).expect("removable");
        volumes.note(&web, 1).expect("writable");
        let again = Volumes::open(path).expect("readable");
        assert_eq!(held(&again), [("web".to_owned(), 1)]);
    }
}
