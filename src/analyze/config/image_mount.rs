//! The image of a store, mounted by the host's own boot: systemd.service(5).

use std::ffi::OsStr;
use std::path::PathBuf;

use super::nspawn_file::HEADER;
use super::service::UNIT_DIR;
use super::{MountRefusal, changes, host_mount, names, words};
use crate::model::{Bind, ConfigChange, HostConfig, HostPath, STORE_UNIT, StoreFormat};

/// The unit that mounts the image whose view a container is shown; `None`: it is shown
/// something else.
///
/// It is a service, and no `.mount` unit: that one would be named after the place, which is
/// another with each generation.
pub fn unit_for(bind: &Bind) -> Option<String> {
    let store = store(bind)?;
    Some(format!("{STORE_UNIT}{}.service", names::escape_path(store.as_bytes())))
}

fn store(bind: &Bind) -> Option<HostPath> {
    let view = &bind.source.0;
    let is_view = view.file_name() == Some(OsStr::new(StoreFormat::VIEW));
    Some(HostPath::from(view.parent().filter(|_| is_view)?))
}

/// The unit, and what has the boot want it, before any container is started.
///
/// # Errors
///
/// A path cannot stand in a unit, or a unit of that name is somebody else's.
pub fn units(bind: &Bind, host: &HostConfig) -> Result<Vec<ConfigChange>, MountRefusal> {
    let (Some(store), Some(name)) = (store(bind), unit_for(bind)) else { return Ok(Vec::new()) };
    let text = service(&store, &bind.source).ok_or_else(|| {
        MountRefusal(format!("{:?} cannot be written in a unit: choose another --store", store.0))
    })?;
    let unit = changes::whole(HostPath::from(format!("{UNIT_DIR}/{name}")), text, host)?;
    Ok(vec![unit, host_mount::wanted_by_boot(&name, host)?])
}

/// What is mounted already, by a run since the boot, is not mounted once more.
fn service(store: &HostPath, view: &HostPath) -> Option<Vec<u8>> {
    let (described, condition) = (host_mount::plain(store)?, host_mount::plain(view)?);
    let image: PathBuf = store.0.join(StoreFormat::IMAGE);
    let [image, place] =
        [&HostPath(image), view].map(|path| words::quote_argument(path.as_bytes()));
    let store = words::quote_path(store.as_bytes());
    Some(
        format!(
            "{HEADER}: programs shared by containers, which nobody can write.\n[Unit]\n\
             Description=Image of the shared programs of {described}\n\
             DefaultDependencies=no\nRequiresMountsFor={store}\n\
             Wants=modprobe@loop.service\nAfter=modprobe@loop.service\n\
             Before=local-fs.target\nConditionPathIsMountPoint=!{condition}\n\n\
             [Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/bin/mount -t erofs -o ro,nodev -- {image} {place}\n"
        )
        .into_bytes(),
    )
}
