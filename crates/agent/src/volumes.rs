//! The named volumes on this node's disk: `<volumes>/<component>/<name>/`.

use std::{collections::BTreeSet, fs, io, path::Path};

use realm_manifest::ComponentName;

/// Components with at least one volume that is not empty.
pub fn with_data(volumes: &Path) -> io::Result<BTreeSet<ComponentName>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(volumes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // What has no component's name was not made here.
        let name = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(name) = name
            && entry.file_type()?.is_dir()
            && has_data(&entry.path())?
        {
            found.insert(name);
        }
    }
    Ok(found)
}

fn has_data(component: &Path) -> io::Result<bool> {
    for volume in fs::read_dir(component)? {
        let volume = volume?;
        if volume.file_type()?.is_dir() && fs::read_dir(volume.path())?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_with_something_in_them_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let volumes = dir.path().join("volumes");
        assert!(with_data(&volumes).expect("none yet").is_empty());
        fs::create_dir_all(volumes.join("empty/data")).expect("a volume");
        fs::create_dir_all(volumes.join("full/data/inner")).expect("a volume");
        fs::create_dir_all(volumes.join("Not A Name/data/inner")).expect("a directory");
        let found = with_data(&volumes).expect("readable");
        assert_eq!(found, BTreeSet::from(["full".parse().expect("a name")]));
    }
}
