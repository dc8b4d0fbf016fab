//! Where the volumes of a cell are on this machine.

use std::path::{Path, PathBuf};

use realm_manifest::{Volume, VolumeSource, report::Reason};
use realm_runtime::Mount;
use realm_store::own;

use super::CellTask;
use crate::reason::reason;

impl CellTask {
    /// The volumes of its spec, as directories of this machine.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>, Reason> {
        self.spec
            .grants
            .volumes
            .iter()
            .map(|volume| self.mount(volume))
            .collect()
    }

    fn mount(&self, volume: &Volume) -> Result<Mount, Reason> {
        let host = match &volume.source {
            VolumeSource::Named(name) => self.named_volume(name)?,
            VolumeSource::Host(path) => self.host_volume(Path::new(path))?,
        };
        Ok(Mount {
            host,
            guest: volume.guest.clone(),
            mode: volume.mode,
        })
    }

    fn named_volume(&self, name: &str) -> Result<PathBuf, Reason> {
        // The name was checked when the spec was: no separators, no dots.
        let component = self.tools.volumes.join(self.key.0.as_str());
        let path = component.join(name);
        let dirs = [&self.tools.volumes, &component, &path];
        let made = dirs.into_iter().try_for_each(|dir| own::dir(dir).map(drop));
        match made {
            Ok(()) => Ok(path),
            Err(error) => Err(reason("volume", format!("volume {name}: {error}"), None)),
        }
    }

    fn host_volume(&self, path: &Path) -> Result<PathBuf, Reason> {
        let refused = |message: String| {
            let help = "list the directory in volume_prefixes of the node's agent.toml";
            reason("volume", message, Some(help))
        };
        let real = std::fs::canonicalize(path)
            .map_err(|error| refused(format!("host directory {}: {error}", path.display())))?;
        let allowed = self
            .tools
            .volume_prefixes
            .iter()
            // As they really are too: a link may lead to the directory that is meant.
            .any(|prefix| {
                std::fs::canonicalize(prefix).is_ok_and(|prefix| real.starts_with(prefix))
            });
        if allowed {
            Ok(real)
        } else {
            Err(refused(format!(
                "this node does not offer host directory {}",
                path.display()
            )))
        }
    }
}
