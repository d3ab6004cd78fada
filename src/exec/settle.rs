//! An entry that was cut off, or went wrong, is brought to an end by looking at it.
//!
//! What is under the name and under the temporary name tells how far it came; the last
//! record does not. Nothing that somebody else put there is ever removed or overwritten.
#![expect(clippy::disallowed_methods, reason = "temporary names are taken away")]

use std::io;

use rustix::fs::{AtFlags, RenameFlags};

use super::content;
use super::place::{Found, Link, Pinned, Place};
use super::tree::{self, Alike};
use super::twin;
use crate::model::{Before, Intent, Metadata, Outcome, TreeEntry};

/// How an entry ended, and why where that is not what was wanted.
pub(crate) type Settled = (Outcome, Option<String>);

/// What is under one of the two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Nothing,
    /// The link that the step makes, or the file that it makes the entry a name of.
    Ours,
    /// What was there before the step, or undo's copy of it.
    Original,
    /// Somebody else's.
    Foreign,
}

/// An entry with its temporary name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// The entry.
    pub(crate) place: &'a Place,
    /// The name beside it.
    pub(crate) beside: &'a Place,
    /// What was about to be done.
    pub(crate) intent: &'a Intent,
    /// What was below the entry, where it was a directory.
    pub(crate) tree: &'a [TreeEntry],
}

impl Pair<'_> {
    /// Ends a step that was to make our link: rolls it back, or sees that it was done.
    pub(crate) fn settle(self) -> io::Result<Settled> {
        let adds = self.intent.before == Before::Absent;
        let (name, beside) = (self.is(self.place, true)?, self.is(self.beside, true)?);
        let left = self.clear()?;
        let settled = match (name, beside) {
            (Is::Ours, Is::Nothing) => (Outcome::Done, None),
            (Is::Original, Is::Nothing) => untouched(),
            (Is::Original, Is::Original | Is::Foreign) => self.left_beside(Outcome::RolledBack),
            (Is::Nothing, Is::Nothing) if adds => untouched(),
            (Is::Nothing, Is::Foreign) if adds => self.left_beside(Outcome::RolledBack),
            (Is::Foreign | Is::Nothing, Is::Nothing) => superseded(),
            (Is::Ours, Is::Foreign) if adds => (Outcome::Done, None),
            (Is::Ours, Is::Ours) => self.remove((Outcome::Done, None))?,
            (Is::Original, Is::Ours) => self.remove(untouched())?,
            (Is::Nothing, Is::Ours) if adds => self.remove(untouched())?,
            (Is::Foreign | Is::Nothing, Is::Ours) => self.remove(superseded())?,
            (Is::Ours, Is::Original | Is::Foreign) => self.exchange_back()?,
            (Is::Nothing, Is::Original) => self.move_back()?,
            (Is::Foreign, Is::Original) if self.is_kept()? => self.remove(superseded())?,
            (Is::Foreign | Is::Nothing, Is::Original | Is::Foreign) => self.parked(),
        };
        Ok(with(settled, left))
    }

    /// Ends a step that was to put the original back: `Done` where our link still stands.
    pub(crate) fn settle_undo(self) -> io::Result<Settled> {
        let adds = self.intent.before == Before::Absent;
        let (name, beside) = (self.is(self.place, false)?, self.is(self.beside, false)?);
        let left = self.clear()?;
        let settled = match (name, beside) {
            (Is::Ours, Is::Nothing) => (Outcome::Done, None),
            (Is::Ours, Is::Foreign) => self.left_beside(Outcome::Done),
            (Is::Ours, Is::Original | Is::Ours) => self.remove((Outcome::Done, None))?,
            (Is::Original, Is::Nothing) => (Outcome::Undone, None),
            (Is::Original, Is::Ours | Is::Original) => self.remove((Outcome::Undone, None))?,
            (Is::Nothing, Is::Nothing) if adds => (Outcome::Undone, None),
            (Is::Nothing, Is::Ours) if adds => self.remove((Outcome::Undone, None))?,
            (Is::Nothing, Is::Foreign) if adds => self.move_back()?,
            (Is::Original, Is::Foreign) => self.exchange_forward()?,
            (Is::Foreign | Is::Nothing, Is::Nothing) => superseded(),
            (Is::Foreign | Is::Nothing, Is::Original | Is::Ours) => self.remove(superseded())?,
            (Is::Foreign | Is::Nothing, Is::Foreign) => self.parked(),
        };
        Ok(with(settled, left))
    }

    /// What of a directory was being made, or taken away.
    pub(crate) fn clear(self) -> io::Result<Option<String>> {
        match self.intent.before {
            Before::Tree { .. } => tree::clear(self.beside, self.tree),
            _ => Ok(None),
        }
    }

    /// What is under the name; a copy of what stood there before counts as that.
    pub(crate) fn name_is(self) -> io::Result<Is> {
        self.is(self.place, false)
    }

    /// Our link, or another name of our file, is the temporary name.
    pub(crate) fn displaced_ours(self) -> io::Result<bool> {
        let Some(shared) = &self.intent.twin else {
            return self.beside.is_link_to(&self.intent.target);
        };
        match self.beside.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            stat => Ok(twin::is(&stat?, shared)),
        }
    }

    fn is(self, place: &Place, same_inode: bool) -> io::Result<Is> {
        Ok(match (place.look()?, &self.intent.before) {
            (Found::Absent, _) => Is::Nothing,
            (Found::Link(link), _) if self.makes(&link) => Is::Ours,
            // It looks as the original did, and may be in its place: it comes first.
            (Found::Other(pinned), _) if self.shares(&pinned) => Is::Ours,
            (Found::Link(link), Before::Link { target, .. }) if link.target == *target => {
                Is::Original
            }
            (Found::Other(pinned), Before::File { ino, size, metadata, .. })
                if pinned.is_file()
                    && pinned.stat.stx_size == size.0
                    && (!same_inode || pinned.stat.stx_ino == *ino)
                    && is_dressed(&pinned, metadata) =>
            {
                Is::Original
            }
            (Found::Other(pinned), Before::Tree { metadata })
                if is_dressed(&pinned, metadata) && self.holds(place, same_inode) =>
            {
                Is::Original
            }
            _ => Is::Foreign,
        })
    }

    fn makes(self, link: &Link) -> bool {
        self.intent.twin.is_none() && link.target == self.intent.target
    }

    fn shares(self, pinned: &Pinned) -> bool {
        self.intent.twin.as_ref().is_some_and(|shared| twin::is(&pinned.stat, shared))
    }

    fn holds(self, place: &Place, same_inode: bool) -> bool {
        let alike = if same_inode { Alike::Inodes } else { Alike::Stat };
        tree::holds(place, self.tree, alike)
    }

    /// What was displaced is, to the byte, what the object and the journal keep.
    fn is_kept(self) -> io::Result<bool> {
        match (self.beside.look()?, &self.intent.before) {
            (Found::Link(_), Before::Link { .. }) => Ok(true),
            (Found::Other(pinned), Before::File { size, content, .. }) if pinned.is_file() => {
                Ok(content::hash(&pinned.open()?, *size)? == Some(*content))
            }
            (Found::Other(_), Before::Tree { .. }) => {
                Ok(tree::holds(self.beside, self.tree, Alike::Bytes))
            }
            _ => Ok(false),
        }
    }

    fn remove(self, settled: Settled) -> io::Result<Settled> {
        Ok(with(settled, self.take_away()?))
    }

    /// Takes away what has the temporary name; what of a directory was kept.
    pub(crate) fn take_away(self) -> io::Result<Option<String>> {
        match self.beside.look()? {
            Found::Other(pinned) if pinned.is_dir() => tree::remove(self.beside, self.tree),
            _ => remove(self.beside).map(|()| None),
        }
    }

    /// Our link stands where it should not: what it displaced takes its place again.
    fn exchange_back(self) -> io::Result<Settled> {
        exchange(self.beside, self.place)?;
        if self.displaced_ours()? {
            return self.remove(untouched());
        }
        // Something newer was there: it stays, and so does what was displaced first.
        exchange(self.beside, self.place)?;
        Ok(self.parked())
    }

    /// Undo displaced what is not our link: that takes its place again.
    fn exchange_forward(self) -> io::Result<Settled> {
        exchange(self.beside, self.place)?;
        if self.is(self.beside, false)? == Is::Original {
            return self.remove(superseded());
        }
        exchange(self.beside, self.place)?;
        Ok(self.parked())
    }

    /// What was displaced takes a name again that is free.
    fn move_back(self) -> io::Result<Settled> {
        rename_to_free(self.beside, self.place)?;
        Ok(match self.intent.before {
            Before::Absent => superseded(),
            _ => untouched(),
        })
    }

    /// The entry is what it was; what has the temporary name is the container's own, and may be
    /// what it had put in the entry's place.
    fn left_beside(self, outcome: Outcome) -> Settled {
        let name = String::from_utf8_lossy(&self.beside.name).into_owned();
        (outcome, Some(format!("something else has the name {name:?}, and keeps it")))
    }

    fn parked(self) -> Settled {
        let name = String::from_utf8_lossy(&self.beside.name).into_owned();
        let cause = format!("others changed it meanwhile; what was displaced is kept as {name:?}");
        (Outcome::Parked, Some(cause))
    }
}

fn with((outcome, cause): Settled, more: Option<String>) -> Settled {
    (outcome, cause.or(more))
}

/// It is what it was; why that is so, the caller knows.
fn untouched() -> Settled {
    (Outcome::RolledBack, None)
}

fn superseded() -> Settled {
    (Outcome::Superseded, Some("something else was put there meanwhile; that is kept".to_owned()))
}

fn is_dressed(pinned: &Pinned, metadata: &Metadata) -> bool {
    let (stat, wanted) = (&pinned.stat, metadata);
    let mtime = stat.stx_mtime.tv_sec.saturating_mul(1_000_000_000);
    (stat.stx_uid, stat.stx_gid, u32::from(stat.stx_mode)) == (wanted.uid, wanted.gid, wanted.mode)
        && mtime.saturating_add(stat.stx_mtime.tv_nsec.into()) == wanted.mtime
}

/// Two names change places: at no moment is either of them missing (Linux 3.15).
pub(crate) fn exchange(one: &Place, other: &Place) -> io::Result<()> {
    rename(one, other, RenameFlags::EXCHANGE)
}

/// A name is moved to one that nothing has.
pub(crate) fn rename_to_free(from: &Place, to: &Place) -> io::Result<()> {
    rename(from, to, RenameFlags::NOREPLACE)
}

fn rename(from: &Place, to: &Place, flags: RenameFlags) -> io::Result<()> {
    let (old, new) = (from.name.as_slice(), to.name.as_slice());
    Ok(rustix::fs::renameat_with(from.dir(), old, to.dir(), new, flags)?)
}

/// Takes a name away.
pub(crate) fn remove(place: &Place) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(place.dir(), place.name.as_slice(), AtFlags::empty())?)
}
