//! Directories named on the command line.

use std::path::Path;
use std::time::Duration;

use super::resolve::{self, Last};
use super::{Finder, Place, RootsError, Taken, classify, looks, lxc, overlay};
use crate::scan::patience::Patience;
use crate::scan::served::Served;

/// How long a file system on the way may keep silent.
const LIMIT: Duration = Duration::from_secs(2);

/// Takes a directory that was named: itself when it looks like a root or holds
/// none, otherwise those that it holds.
///
/// # Errors
///
/// It is none that could be a container's root.
pub(super) fn take(finder: &mut Finder<'_>, path: &Path) -> Result<(), RootsError> {
    let asked = path.to_owned();
    let place = Patience::new(LIMIT)
        .ask(move |_| resolve::resolve(Path::new("/"), &asked, Last::NoLink))
        .ok_or_else(|| RootsError::Silent { path: path.to_owned() })??;
    // What a FUSE server has is not asked for: it is taken as it is.
    let asks = finder.served(&place) != Some(Served::Fuse);
    if asks && !is_one(finder, &place)? && holds_some(finder, &place) {
        return Ok(());
    }
    match finder.take(&place)? {
        Taken::Yes => Ok(()),
        Taken::HostRoot => Err(RootsError::HostRoot { path: path.to_owned() }),
        Taken::Store => Err(RootsError::Store { path: path.to_owned() }),
    }
}

/// What it holds is not asked: it is a root or a layer, or must not be taken.
fn is_one(finder: &Finder<'_>, place: &Place) -> Result<bool, RootsError> {
    let io = |source| RootsError::io("look into", place.path(), source);
    let inode = place.inode().map_err(io)?;
    Ok(finder.host_roots.contains(&inode)
        || finder.store == Some(inode)
        || classify::by_path(finder.host, place.path()).layer
        || looks::like_a_root(place).map_err(io)?)
}

/// Takes the roots in a directory: a runtime's store, or a directory of roots. Where
/// there are none, what was in the way of looking for them does not matter: the
/// directory is walked as a root, and the walk meets it again.
fn holds_some(finder: &mut Finder<'_>, place: &Place) -> bool {
    let told = std::mem::take(finder.notices);
    let before = finder.taken;
    if !overlay::take(finder, place) {
        for child in finder.children(place) {
            in_list(finder, &child);
        }
    }
    let found = finder.taken > before;
    let on_the_way = std::mem::replace(finder.notices, told);
    if found {
        finder.notices.extend(on_the_way);
    }
    found
}

/// One directory of a list: a root, or what LXC and OCI runtimes keep one in.
fn in_list(finder: &mut Finder<'_>, child: &Place) {
    if finder.looks_like_root(child) {
        finder.add(child, classify::by_path(finder.host, child.path()));
    } else if finder.may_hang(child) {
        // That has been noted.
    } else if lxc::is_container(child) {
        lxc::take(finder, child);
    } else if let Ok(rootfs) = child.dir("rootfs") {
        finder.add_if_root(&rootfs);
    }
}
