//! Finds container roots: the directories named, or every one on the host.
//!
//! Nothing here follows a link that a container or a user could have made, and
//! the host's own `/` is never a container's root, whatever it is called.

mod bundles;
mod classify;
mod discover;
mod explicit;
mod looks;
pub(super) mod lxc;
mod overlay;
mod place;
mod processes;
mod resolve;
mod stacks;
mod store_names;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::cause;
use super::mounts::{self, Mount};
use super::served::Served;
use crate::model::{HostPath, InodeId, Notice, Notices, Root};

use classify::Kind;
use place::Place;
use processes::Processes;
use resolve::Last;

pub use stacks::{Stack, stacks};

/// Why a directory is not taken as a root. Each text says what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The last component is a symbolic link.
    #[error("{path:?} is a symbolic link to {target:?}: name the directory itself")]
    Link {
        /// As it was named.
        path: PathBuf,
        /// Where the link leads.
        target: PathBuf,
    },
    /// A link on the way could have been put there by somebody else.
    #[error(
        "the way to {path:?} leads through the symbolic link {link:?}, and others than root and you may write to {dir:?}: name the directory by a path without that link"
    )]
    UntrustedLink {
        /// As it was named.
        path: PathBuf,
        /// The link on the way.
        link: PathBuf,
        /// The directory that makes it untrusted.
        dir: PathBuf,
    },
    /// A link of `/proc` on the way: its text is not where it leads.
    #[error(
        "the way to {path:?} leads through the process's link {link:?}: name the directory by its path on the host"
    )]
    ProcessLink {
        /// As it was named.
        path: PathBuf,
        /// The link on the way.
        link: PathBuf,
    },
    /// The host's own root directory, under whatever name.
    #[error("{path:?} is this host's own root directory: name the root of a container")]
    HostRoot {
        /// As it was named.
        path: PathBuf,
    },
    /// The store of shared programs.
    #[error("{path:?} is the store of shared programs: name the roots that use it")]
    Store {
        /// As it was named.
        path: PathBuf,
    },
    /// A file, or anything else that holds nothing.
    #[error("{path:?} is not a directory: name the directory that is the container's root")]
    NotDirectory {
        /// As it was named.
        path: PathBuf,
    },
    /// There is nothing of that name.
    #[error("{path:?} does not exist")]
    Missing {
        /// As it was named.
        path: PathBuf,
    },
    /// A FUSE server answers for the way.
    #[error(
        "the way to {path:?} leads through a FUSE file system, whose server might never answer: name the directory that it is mounted on"
    )]
    Served {
        /// As it was named.
        path: PathBuf,
    },
    /// A file system on the way keeps silent.
    #[error("the file system of {path:?} does not answer: try again when its server is back")]
    Silent {
        /// As it was named.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl RootsError {
    fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }
}

/// Finds the roots that `named` stands for, in the order they were named; with
/// none named, every root on the host, in the order of their paths.
///
/// `host` is the directory that holds the host's `proc`, `home`, `var`, `run`:
/// `/`, or a stand-in. `store` is never a root. What cannot be looked into on
/// the way is a notice.
///
/// # Errors
///
/// A directory that was named and cannot be taken; with none named, never.
pub fn find_roots(
    named: &[PathBuf],
    host: &Path,
    store: &Path,
    notices: &mut Notices,
) -> Result<Vec<Root>, RootsError> {
    let mut finder = Finder::new(host, store, notices);
    if named.is_empty() {
        discover::discover(&mut finder);
        finder.roots.sort_by(|a, b| a.path.cmp(&b.path));
    } else {
        for path in named {
            explicit::take(&mut finder, path)?;
        }
    }
    Ok(finder.roots)
}

/// The roots found so far, and what decides about the next one.
struct Finder<'a> {
    host: &'a Path,
    /// `/`, and the stand-in for it.
    host_roots: Vec<InodeId>,
    store: Option<InodeId>,
    processes: Processes,
    /// What is mounted where, as this process sees it.
    mounts: Vec<Mount>,
    /// What the overlays among them stack.
    layers: HashSet<InodeId>,
    /// How often a root was come across, also one that was known.
    taken: usize,
    roots: Vec<Root>,
    seen: HashSet<InodeId>,
    notices: &'a mut Notices,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    HostRoot,
    Store,
}

impl<'a> Finder<'a> {
    fn new(host: &'a Path, store: &Path, notices: &'a mut Notices) -> Self {
        let inode = |path: &Path| Place::open(path).and_then(|place| place.inode()).ok();
        let host_roots: Vec<_> = [Path::new("/"), host].into_iter().filter_map(inode).collect();
        let store = resolve::resolve(host, store, Last::TrustedLink);
        let mounts = mounts::read(&host.join("proc/self/mountinfo"));
        let overlays = mounts.iter().filter(|mount| mount.fs_type == b"overlay");
        Self {
            host,
            processes: Processes::read(host, &host_roots),
            layers: overlays.flat_map(|mount| processes::layers_of(host, mount)).collect(),
            mounts,
            taken: 0,
            host_roots,
            store: store.ok().and_then(|place| place.inode().ok()),
            roots: Vec::new(),
            seen: HashSet::new(),
            notices,
        }
    }

    /// Takes a directory as a root, once under whatever name; its kind is told by
    /// where it lies.
    fn take(&mut self, place: &Place) -> Result<Taken, RootsError> {
        let kind = classify::by_path(self.host, place.path());
        self.take_as(place, kind)
    }

    fn take_as(&mut self, place: &Place, kind: Kind) -> Result<Taken, RootsError> {
        let inode =
            place.inode().map_err(|source| RootsError::io("look at", place.path(), source))?;
        if self.host_roots.contains(&inode) {
            return Ok(Taken::HostRoot);
        }
        if self.store == Some(inode) {
            return Ok(Taken::Store);
        }
        self.taken += 1;
        if self.seen.insert(inode) {
            self.roots.push(Root {
                path: HostPath(place.path().to_owned()),
                inode,
                name: kind.name,
                runtime: kind.runtime,
                state: self.processes.state(inode),
                layer: kind.layer || self.layers.contains(&inode) || self.processes.stack_on(inode),
            });
        }
        Ok(Taken::Yes)
    }

    /// Takes what discovery came across; what cannot be asked is a notice.
    fn add(&mut self, place: &Place, kind: Kind) {
        if let Err(error) = self.take_as(place, kind) {
            self.note(place.path(), &error);
        }
    }

    /// Takes a directory of a list if it looks like a root.
    fn add_if_root(&mut self, place: &Place) {
        if self.looks_like_root(place) {
            self.add(place, classify::by_path(self.host, place.path()));
        }
    }

    fn looks_like_root(&mut self, place: &Place) -> bool {
        if self.may_hang(place) {
            let cause = "lies on a file system that may never answer: name it if it is a root";
            self.info(place.path(), cause);
            return false;
        }
        match looks::like_a_root(place) {
            Ok(answer) => answer,
            Err(error) => {
                self.partial(place.path(), &error);
                false
            }
        }
    }

    /// Its file system is answered for by a program or a server that may be gone.
    fn may_hang(&self, place: &Place) -> bool {
        self.served(place).is_some()
    }

    /// Who answers for its file system, by the mount table: statfs(2) would wait for the server.
    fn served(&self, place: &Place) -> Option<Served> {
        Served::by(self.fs_type(place)?)
    }

    fn fs_type(&self, place: &Place) -> Option<&[u8]> {
        let dev = place.inode().ok()?.dev;
        self.mounts.iter().find(|mount| mount.dev == dev).map(|mount| &*mount.fs_type)
    }

    /// Opens one of the host's places, if it is there.
    fn host_place(&mut self, path: impl AsRef<Path>) -> Option<Place> {
        let path = below(self.host, path.as_ref());
        match resolve::resolve(self.host, &path, Last::TrustedLink) {
            Ok(place) => Some(place),
            Err(RootsError::Missing { .. } | RootsError::NotDirectory { .. }) => None,
            Err(error) => {
                self.note(&path, &error);
                None
            }
        }
    }

    /// The directories in a place, without what starts with a dot. A link among
    /// them is not followed.
    fn children(&mut self, place: &Place) -> Vec<Place> {
        let names = match place.names() {
            Ok(names) => names,
            Err(error) => {
                self.partial(place.path(), &error);
                return Vec::new();
            }
        };
        let visible = names
            .iter()
            .filter(|name| !name.as_encoded_bytes().starts_with(b".") && *name != "lost+found");
        visible.filter_map(|name| self.child(place, Path::new(name))).collect()
    }

    /// One directory below a place, if it is there and no link.
    fn child(&mut self, place: &Place, name: &Path) -> Option<Place> {
        match place.dir(name) {
            Ok(child) => Some(child),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => None,
                Some(Errno::LOOP) => {
                    self.info(&place.path().join(name), "a symbolic link, which is not followed");
                    None
                }
                _ => {
                    self.partial(&place.path().join(name), &error);
                    None
                }
            },
        }
    }

    fn note(&mut self, path: &Path, error: &RootsError) {
        let mut text = error.to_string();
        if let RootsError::Io { source, .. } = error {
            text = format!("{text}: {}", with_way_out(source));
        }
        self.notices.push(Notice::partial(path, "find roots", text));
    }

    fn partial(&mut self, path: &Path, error: &io::Error) {
        self.notices.push(Notice::partial(path, "find roots", with_way_out(error)));
    }

    fn info(&mut self, path: &Path, cause: &str) {
        self.notices.push(Notice::info(path, "find roots", cause));
    }
}

/// Where an absolute path of the host lies below the stand-in.
fn below(host: &Path, path: &Path) -> PathBuf {
    host.join(path.strip_prefix("/").unwrap_or(path))
}

fn with_way_out(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{}: run as root to have it looked into", cause(error))
        }
        _ => cause(error),
    }
}
