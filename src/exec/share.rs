//! Files of one content come to share their blocks.
//!
//! The kernel compares the bytes while nobody can write them, and changes neither a name nor
//! an inode: no process notices, there is nothing to undo, and so nothing is journaled
//! beforehand. Both files are opened for reading alone: a program that runs could not be
//! opened for writing (`ETXTBSY`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::cause::explain;
use super::place::{Parents, stat_now};
use super::roots::Roots;
use super::work::CHANGED;
use crate::model::{Action, Bytes, Changed, FileState, Outcome, RootId, RootPath, Step};
use crate::scan::dir::open_regular;
use crate::sys::{Compared, dedupe_range, fiemap};

/// Asked for at a time; btrfs takes no more in one call.
const PIECE: u64 = 16 << 20;

/// A file in more pieces than this is not counted further.
const MOST_EXTENTS: usize = 65_536;

/// Carries out steps that share blocks.
#[derive(Debug)]
pub(crate) struct Sharer<'a> {
    roots: &'a Roots,
    parents: Parents,
    /// The file whose blocks stay: those that share them follow one another.
    kept: Option<((RootId, RootPath), File)>,
}

impl<'a> Sharer<'a> {
    /// For some steps of a run: their directories stay open.
    pub(crate) fn new(roots: &'a Roots) -> Self {
        Self { roots, parents: Parents::default(), kept: None }
    }

    /// Carries a step out.
    pub(crate) fn change(&mut self, step: &Step) -> Changed {
        let (outcome, cause, freed) = match self.share(step) {
            Ok(freed) => (Outcome::Done, None, freed),
            Err(cause) => (Outcome::RolledBack, Some(cause), Bytes(0)),
        };
        Changed { step: step.seq, outcome, cause, freed }
    }

    /// The blocks that were the file's alone before, and are nobody's now.
    fn share(&mut self, step: &Step) -> Result<Bytes, String> {
        let Action::Reflink { path, before, of_root, of, of_state } = &step.action else {
            return Err(format!("{} shares no blocks", step.action.name()));
        };
        let to = self.open(step.root, path, before)?;
        let key = (*of_root, of.clone());
        let from = match self.kept.take().filter(|(kept, _)| *kept == key) {
            Some((_, file)) => file,
            None => self.open(*of_root, of, of_state)?,
        };
        let before_it = own_blocks(&to);
        let shared = share_all(&from, &to, before.size);
        self.kept = Some((key, from));
        shared?;
        Ok(Bytes(before_it.saturating_sub(own_blocks(&to))))
    }

    /// What a file holds is compared by the kernel; it must be the planned one all the same.
    fn open(&mut self, id: RootId, path: &RootPath, state: &FileState) -> Result<File, String> {
        let root = self.roots.opened(id)?;
        let opened = self.parents.pin(id, root, path).and_then(|place| {
            let (file, _) = open_regular(place.dir(), &place.name)?;
            let stat = stat_now(file.as_fd())?;
            Ok((file, stat))
        });
        let (file, stat) = opened.map_err(|error| explain("open it", &error))?;
        match (stat.stx_ino, Bytes(stat.stx_size)) == (state.ino, state.size) {
            true => Ok(file),
            false => Err(CHANGED.to_owned()),
        }
    }
}

fn share_all(from: &File, to: &File, size: Bytes) -> Result<(), String> {
    let mut offset = 0;
    while offset < size.0 {
        let length = PIECE.min(size.0 - offset);
        match dedupe_range(from.as_fd(), to.as_fd(), offset, length) {
            Ok(Compared::Same(0)) => return Err(CANNOT.to_owned()),
            Ok(Compared::Same(bytes)) => offset += bytes,
            Ok(Compared::Differs) => return Err(DIFFERS.to_owned()),
            Err(error) => return Err(refused(&error)),
        }
    }
    Ok(())
}

const DIFFERS: &str = "the kernel compared its bytes and found others: it, or the file whose blocks it \
     was to share, changed after planning; run dedupe again";
const CANNOT: &str = "its file system cannot share blocks between files: btrfs and xfs can; \
     --method symlink shares programs on any";

fn refused(error: &io::Error) -> String {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    match is(Errno::OPNOTSUPP) || is(Errno::NOTTY) || is(Errno::INVAL) {
        true => CANNOT.to_owned(),
        false => explain("share its blocks", error),
    }
}

/// Bytes in blocks that no other file refers to.
fn own_blocks(file: &File) -> u64 {
    let Ok((extents, _)) = fiemap::extents(file.as_fd(), MOST_EXTENTS) else { return 0 };
    let own = extents.iter().filter(|extent| !extent.flags.shared);
    let allocated = stat_now(file.as_fd()).map_or(0, |stat| stat.stx_blocks.saturating_mul(512));
    // Compressed extents are longer in the file than on disk.
    own.map(|extent| extent.length).fold(0, u64::saturating_add).min(allocated)
}
