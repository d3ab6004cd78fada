//! The file of which entries become names: it is held while they do, as what they displace is.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::Statx;

use super::directories::nanoseconds;
use super::held::Held;
use super::place::{Parents, identity, metadata};
use super::roots::Roots;
use crate::model::{Action, RootId, RootPath, Step, Twin};
use crate::scan::dir::stat_fd;

/// How many names the files of a plan have that entries become names of.
pub(crate) type Links = HashMap<(RootId, RootPath), u32>;

/// Looks at all of them before the first entry is changed: while others become names of a file,
/// nobody could tell those from names that the plan does not know.
pub(crate) fn links<'a>(steps: impl IntoIterator<Item = &'a Step>, roots: &Roots) -> Links {
    let (mut links, mut parents) = (Links::new(), Parents::default());
    for step in steps {
        let Action::Hardlink { of_root, of, .. } = &step.action else { continue };
        let key = (*of_root, of.clone());
        if !links.contains_key(&key)
            && let Some(root) = roots.get(*of_root)
            && let Ok(stat) = parents.pin(*of_root, root, of).and_then(|place| place.stat())
        {
            links.insert(key, stat.stx_nlink);
        }
    }
    links
}

/// How the journal knows it.
pub(crate) fn noted(held: &Held, root: RootId, path: &RootPath) -> io::Result<Twin> {
    let (ino, born) = which(&stat_fd(held.file.as_fd())?);
    Ok(Twin { root, path: path.clone(), ino, born })
}

/// It is that inode.
pub(crate) fn is(stat: &Statx, twin: &Twin) -> bool {
    which(stat) == (twin.ino, twin.born)
}

fn which(stat: &Statx) -> (u64, i64) {
    match identity(stat) {
        (ino, 0, 0) => (ino, 0),
        (ino, ..) => (ino, nanoseconds(stat.stx_btime)),
    }
}

/// Why a file may not become a name of the other: all that names have in common must be the same.
pub(crate) fn unlike(held: &Held, twin: &Held) -> Result<(), &'static str> {
    let (one, other) = (&held.stat, &twin.stat);
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let dress = |stat: &Statx| (stat.stx_uid, stat.stx_gid, stat.stx_mode);
    let attributes = |held: &Held| metadata(held.file.as_fd(), &held.stat).map(|it| it.xattrs).ok();
    if device(one) != device(other) {
        Err("the file that stays lies on another file system; --method symlink shares it")
    } else if one.stx_ino == other.stx_ino {
        Err("it is a name of that file already")
    } else if held.content() != twin.content() {
        Err("the file that stays holds something else")
    } else if dress(one) != dress(other) {
        Err("its owner or mode are not those of the file that stays")
    } else if attributes(held).is_none_or(|its| attributes(twin) != Some(its)) {
        Err("its extended attributes are not those of the file that stays")
    } else {
        Ok(())
    }
}
