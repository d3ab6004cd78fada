//! What a run makes beside the entries: the host's link, mount points, configuration.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::batch::Log;
use super::cause::explain;
use super::error::ExecError;
use super::journal::{Attach, Run};
use super::place::{Found, Parents, look, stat_now};
use crate::model::{Bind, HostPath, Record, RootId, RootPath, Step};
use crate::scan::dir::RootDir;

/// What could not be put back: where, and why.
pub(crate) type Kept = (HostPath, String);

/// Makes the host's own link at the mount point, as `/cbin -> home/cbin`, so that links of
/// the roots lead somewhere on the host, too. A name that is taken stays as it is.
pub(crate) fn host_link(
    link: &HostPath,
    target: &[u8],
    log: &mut dyn Log,
) -> Result<bool, ExecError> {
    let io = |doing| ExecError::io(doing, &link.0);
    match fs::symlink_metadata(&link.0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found.map(|_| false).map_err(io("look at")),
    }
    log.append(&Record::HostLink { path: link.clone(), target: target.to_vec() })?;
    make_host_link(&link.0, target).map_err(io("make the link"))?;
    Ok(true)
}

#[expect(clippy::disallowed_methods, reason = "the host's own link, in a directory of root's")]
fn make_host_link(link: &Path, target: &[u8]) -> io::Result<()> {
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), link)?;
    flush(link.parent().unwrap_or(Path::new("/")))
}

#[expect(clippy::disallowed_methods, reason = "the host's own link, in a directory of root's")]
fn remove_host_link(link: &Path, target: &[u8]) -> io::Result<()> {
    match fs::read_link(link) {
        Ok(found) if found.as_os_str().as_bytes() == target => fs::remove_file(link)?,
        // Somebody else's by now, or gone.
        _ => return Ok(()),
    }
    flush(link.parent().unwrap_or(Path::new("/")))
}

fn flush(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What is to be journaled of a mount point before anything is done: whether the directory
/// is missing, and is going to be made.
pub(crate) fn announce(
    step: &Step,
    root: &RootDir,
    bind: &Bind,
    mounted: bool,
) -> Result<Option<Record>, String> {
    let path = inside(&bind.target.0);
    let made = match root.open_dir(&path) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // Something is mounted there, by an earlier run, say: whether that is the store is looked
        // at when it is to be mounted.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => false,
        Err(error) => return Err(explain("open the mount point", &error)),
    };
    let (source, (step, root)) = (bind.source.clone(), (step.seq, step.root));
    let attach = Record::Attach { step, root, path, source, made, mounted };
    Ok((made || mounted).then_some(attach))
}

/// Makes the directory below a root that the store is mounted on, where it was announced.
pub(crate) fn make_mount_point(announced: &Record, root: &RootDir) -> Result<(), String> {
    match announced {
        Record::Attach { root: id, path, made: true, .. } => {
            make_dir(*id, root, path).map_err(|error| explain("make the mount point", &error))
        }
        _ => Ok(()),
    }
}

/// A path of the container's, below its root.
pub(crate) fn inside(path: &Path) -> RootPath {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().take_while(|&&byte| byte == b'/').count();
    RootPath::new(bytes.get(start..).unwrap_or_default())
}

#[expect(clippy::disallowed_methods, reason = "the one directory that is made below a root")]
fn make_dir(id: RootId, root: &RootDir, path: &RootPath) -> io::Result<()> {
    let place = Parents::default().pin(id, root, path)?;
    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    rustix::fs::mkdirat(place.dir(), place.name.as_slice(), mode)?;
    let Found::Other(made) = place.look()? else { return Err(Errno::NOTDIR.into()) };
    // It belongs to whom the root belongs.
    let above = stat_now(place.dir())?;
    if (made.stat.stx_uid, made.stat.stx_gid) != (above.stx_uid, above.stx_gid)
        && made.stat.stx_ino != above.stx_ino
    {
        super::link::chown(std::os::fd::AsFd::as_fd(&made), above.stx_uid, above.stx_gid)?;
    }
    place.parent.flush()
}

/// Takes a mount point away that was made for a run.
pub(crate) fn remove_mount_point(attach: &Attach, root: &RootDir) -> Option<Kept> {
    if !attach.made {
        return None;
    }
    let removed = remove_dir(attach.root, root, &attach.path);
    let error = removed.err()?;
    Some((attach.path.on_host(root.path()), explain("remove it", &error)))
}

/// Takes the host's own link away that a run made.
pub(crate) fn remove_link(run: &Run) -> Option<Kept> {
    let (link, target) = run.host_link.as_ref()?;
    let error = remove_host_link(&link.0, target).err()?;
    Some((link.clone(), explain("remove it", &error)))
}

/// Only if it is empty: what a container put there is kept.
#[expect(clippy::disallowed_methods, reason = "the one directory that is made below a root")]
fn remove_dir(id: RootId, root: &RootDir, path: &RootPath) -> io::Result<()> {
    let place = Parents::default().pin(id, root, path)?;
    match look(place.dir(), &place.name) {
        Ok(Found::Other(_)) => {}
        _ => return Ok(()),
    }
    match rustix::fs::unlinkat(place.dir(), place.name.as_slice(), AtFlags::REMOVEDIR) {
        Ok(()) => place.parent.flush(),
        Err(Errno::NOTEMPTY | Errno::NOTDIR | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
