//! Changes of files that are ours, whole.

use super::{MountRefusal, nspawn_file};
use crate::model::{ConfigChange, ConfigFile, HostConfig, HostPath};

/// Writes a file of ours; what stands there now is what was read.
///
/// # Errors
///
/// What stands there was not written by this program.
pub fn whole(
    file: HostPath,
    after: Vec<u8>,
    host: &HostConfig,
) -> Result<ConfigChange, MountRefusal> {
    let before = content(&file, host).map(<[u8]>::to_vec);
    if before.as_deref().is_some_and(|text| !nspawn_file::is_ours(text)) {
        return Err(MountRefusal(format!(
            "{:?} is there, and was not written by cbin-audit: remove it, or choose other --mounts",
            file.0
        )));
    }
    Ok(ConfigChange { file, before, after: Some(after) })
}

/// What was read of a file.
fn content<'a>(file: &HostPath, host: &'a HostConfig) -> Option<&'a [u8]> {
    let lxc = host.lxc.iter().flat_map(|one| std::iter::once(&one.file).chain(&one.included));
    let bundles = host.bundles.iter().map(|bundle| &bundle.file);
    let mut known: Box<dyn Iterator<Item = &ConfigFile>> = Box::new(
        host.units.iter().chain(&host.drop_ins).chain(&host.nspawn).chain(lxc).chain(bundles),
    );
    known.find(|known| known.path == *file).map(|known| known.bytes.as_slice())
}

/// Those changes that change something.
pub fn effective(changes: Vec<ConfigChange>) -> Vec<ConfigChange> {
    changes.into_iter().filter(|change| change.before != change.after).collect()
}
