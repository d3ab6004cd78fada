//! Follows the path that a person typed, as far as its links can be trusted.
//!
//! A link on the way to a root is common and harmless where only root, or the
//! caller, could have made it (`/var/lib/docker -> /data/docker`). One that
//! somebody else can put there would lead a privileged caller anywhere.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::RootsError;
use super::place::{self, Place, trusted_owner};
use crate::scan::served::{Served, Table};

/// As many links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Whether the last component may be a link, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// A root: never.
    NoLink,
    /// A runtime's store: where the link can be trusted.
    TrustedLink,
}

/// Opens the directory that `path` names, with links taken from `host`. The
/// [`Place`] has a path without links.
///
/// # Errors
///
/// [`RootsError`] for a path that does not lead to a directory, or leads there
/// through a link that somebody else could have made.
pub(super) fn resolve(host: &Path, path: &Path, last: Last) -> Result<Place, RootsError> {
    let mut walk = Walk::start(host, path)?;
    while let Some(name) = walk.todo.pop_front() {
        walk.step(&name, last)?;
    }
    walk.finish()
}

struct Walk<'a> {
    host: &'a Path,
    asked: &'a Path,
    /// The directories passed, outermost first, each with its name.
    passed: Vec<(OwnedFd, OsString)>,
    todo: VecDeque<OsString>,
    links: usize,
    /// A directory that others may write to has been passed.
    untrusted: Option<PathBuf>,
}

impl<'a> Walk<'a> {
    fn start(host: &'a Path, asked: &'a Path) -> Result<Self, RootsError> {
        let absolute =
            std::path::absolute(asked).map_err(|source| RootsError::io("open", asked, source))?;
        let mut walk = Self {
            host,
            asked,
            passed: Vec::new(),
            todo: names(&absolute),
            links: 0,
            untrusted: None,
        };
        walk.enter_top(Path::new("/"))?;
        Ok(walk)
    }

    fn enter_top(&mut self, top: &Path) -> Result<(), RootsError> {
        let fd = rustix::fs::openat(CWD, top, directory(), Mode::empty())
            .map_err(|error| self.io(error))?;
        self.passed = vec![(fd, top.as_os_str().to_owned())];
        Ok(())
    }

    fn step(&mut self, name: &OsStr, last: Last) -> Result<(), RootsError> {
        if name == ".." {
            if self.passed.len() > 1 {
                self.passed.pop();
            }
            return Ok(());
        }
        self.judge_here()?;
        let opened = rustix::fs::openat(self.here(), name, directory(), Mode::empty());
        match opened {
            Ok(fd) => {
                self.passed.push((fd, name.to_owned()));
                Ok(())
            }
            Err(Errno::NOTDIR | Errno::LOOP) => self.link(name, last),
            Err(Errno::NOENT) => Err(RootsError::Missing { path: self.asked.to_owned() }),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Notes a directory in which somebody else may put links. What a FUSE server has in its own
    /// is not asked for.
    fn judge_here(&mut self) -> Result<(), RootsError> {
        let stat = place::stat(self.here())
            .map_err(|source| RootsError::io("open", self.asked, source))?;
        if Table::own().served(self.here().as_fd(), &stat) == Some(Served::Fuse) {
            return Err(RootsError::Served { path: self.asked.to_owned() });
        }
        if self.untrusted.is_none() && !(trusted_owner(&stat) && only_owner_writes(&stat)) {
            self.untrusted = Some(self.path());
        }
        Ok(())
    }

    /// Goes on where the link `name` leads.
    fn link(&mut self, name: &OsStr, last: Last) -> Result<(), RootsError> {
        let path = self.path().join(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(self.here(), name, flags, Mode::empty())
            .map_err(|error| self.io(error))?;
        let stat =
            place::stat(&link).map_err(|source| RootsError::io("open", self.asked, source))?;
        if place::is_dir(&stat) {
            // It has become one since: somebody is exchanging the two.
            self.todo.push_front(name.to_owned());
            return self.count_link();
        }
        if !place::is_link(&stat) {
            return Err(RootsError::NotDirectory { path: self.asked.to_owned() });
        }
        let target = rustix::fs::readlinkat(&link, "", Vec::new())
            .map_err(|error| self.io(error))?
            .into_bytes();
        let target = PathBuf::from(OsStr::from_bytes(&target));
        self.check_link(&path, &target, &stat, last)?;
        self.follow(&target)
    }

    fn check_link(
        &mut self,
        link: &Path,
        target: &Path,
        stat: &Statx,
        last: Last,
    ) -> Result<(), RootsError> {
        let (path, link) = (self.asked.to_owned(), link.to_owned());
        if self.todo.is_empty() && last == Last::NoLink {
            return Err(RootsError::Link { path, target: target.to_owned() });
        }
        if rustix::fs::fstatfs(self.here())
            .is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC)
        {
            return Err(RootsError::ProcessLink { path, link });
        }
        if let Some(dir) = self.untrusted.clone() {
            return Err(RootsError::UntrustedLink { path, link, dir });
        }
        if !trusted_owner(stat) {
            return Err(RootsError::UntrustedLink { path, dir: self.path(), link });
        }
        self.count_link()
    }

    /// Ends a way that goes round in circles.
    fn count_link(&mut self) -> Result<(), RootsError> {
        self.links += 1;
        if self.links > MAX_LINKS { Err(self.io(Errno::LOOP)) } else { Ok(()) }
    }

    fn follow(&mut self, target: &Path) -> Result<(), RootsError> {
        if target.is_absolute() {
            self.enter_top(self.host)?;
        }
        let mut todo = names(target);
        todo.append(&mut self.todo);
        self.todo = todo;
        Ok(())
    }

    fn here(&self) -> &OwnedFd {
        // `enter_top` put the first there, and `..` leaves it.
        &self.passed[self.passed.len() - 1].0
    }

    fn path(&self) -> PathBuf {
        self.passed.iter().map(|(_, name)| name).collect()
    }

    fn finish(mut self) -> Result<Place, RootsError> {
        let path = self.path();
        match self.passed.pop() {
            Some((fd, _)) => Ok(Place::new(fd, path)),
            None => Err(RootsError::Missing { path }),
        }
    }

    fn io(&self, error: Errno) -> RootsError {
        RootsError::io("open", self.asked, error.into())
    }
}

fn directory() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The components, without `.`: a slash or `/.` at the end must not hide a link.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Nobody else may add a name, or only ones that stay theirs (`S_ISVTX`).
fn only_owner_writes(stat: &Statx) -> bool {
    let mode = u32::from(stat.stx_mode);
    mode & 0o022 == 0 || mode & 0o1000 != 0
}
