//! A mount on the host at a path below a root: systemd.mount(5), fstab(5).

use std::path::PathBuf;

use super::image_mount;
use super::lxc;
use super::names;
use super::nspawn_file::HEADER;
use super::service::UNIT_DIR;
use super::{MountRefusal, changes};
use crate::model::{Bind, ConfigChange, HostConfig, HostPath};

/// Where on the host a directory is mounted that the container sees at `bind.target`.
pub fn point(root: &HostPath, bind: &Bind) -> HostPath {
    let below: PathBuf = bind.target.0.components().skip(1).collect();
    HostPath(root.0.join(below))
}

/// The units that mount at boot, and have the boot want them.
///
/// # Errors
///
/// A path cannot stand in a unit, or a unit of that name is somebody else's.
pub fn units(
    root: &HostPath,
    binds: &[Bind],
    host: &HostConfig,
) -> Result<Vec<ConfigChange>, MountRefusal> {
    let mut written = Vec::new();
    for bind in binds {
        let point = point(root, bind);
        let name = format!("{}.mount", names::escape_path(point.as_bytes()));
        let text = mount_unit(bind, &point).ok_or_else(|| {
            MountRefusal(format!("{:?} cannot be written in a unit: choose another path", point.0))
        })?;
        let unit = HostPath::from(format!("{UNIT_DIR}/{name}"));
        written.push(changes::whole(unit, text, host)?);
        written.push(wanted_by_boot(&name, host)?);
    }
    Ok(written)
}

/// Has the boot want a unit. A file of its own for each: one root's can go while the others
/// stay.
///
/// # Errors
///
/// A file of that name is somebody else's.
pub fn wanted_by_boot(unit: &str, host: &HostConfig) -> Result<ConfigChange, MountRefusal> {
    let name = unit.strip_prefix("cbin-audit-").unwrap_or(unit);
    let file = HostPath::from(format!("{UNIT_DIR}/local-fs.target.d/50-cbin-audit-{name}.conf"));
    let text = format!("{HEADER}.\n[Unit]\nWants={unit}\n");
    changes::whole(file, text.into_bytes(), host)
}

fn mount_unit(bind: &Bind, point: &HostPath) -> Option<Vec<u8>> {
    let (what, place) = (plain(&bind.source)?, plain(point)?);
    // Before it is mounted, there is nothing at what is bound.
    let after = image_mount::unit_for(bind).map(|unit| format!("Requires={unit}\nAfter={unit}\n"));
    let after = after.unwrap_or_default();
    Some(
        format!(
            "{HEADER}: programs shared by containers, read-only.\n[Unit]\n\
             Description=Shared programs at {place}\n{after}\n\
             [Mount]\nWhat={what}\nWhere={place}\nType=none\nOptions=bind,ro\n"
        )
        .into_bytes(),
    )
}

/// A path as the rest of a line; one that would not be read back has no form.
pub fn plain(path: &HostPath) -> Option<String> {
    let text = path.0.to_str()?;
    let kept = text.trim() == text && !text.chars().any(char::is_control) && !text.ends_with('\\');
    kept.then(|| text.replace('%', "%%"))
}

/// The line of fstab(5) for hosts that another init boots.
pub fn fstab_line(root: &HostPath, bind: &Bind) -> String {
    let point = point(root, bind);
    format!(
        "{} {} none bind,ro 0 0",
        lxc::escape(bind.source.as_bytes()),
        lxc::escape(point.as_bytes())
    )
}
