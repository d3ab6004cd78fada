//! Whose user a root's own root is on the host, and what that one could do to the store: by
//! what runs from it, by how it is configured to be run, by whom its directory belongs to.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use crate::analyze::config::{Held, Host, configured};
use crate::analyze::plan::{Member, Tenant, Writes};
use crate::exec::ExecError;
use crate::exec::journal;
use crate::model::{
    Begin, ContainerPath, Disks, HostPath, IdRange, InodeId, Isolation, JournalRoot, Method,
    Notice, Notices, Outcome, RootId, RunId, StoreFormat, TrustDomain, UserNamespace,
};
use crate::scan::HostPlaces;
use crate::scan::candidate;
use crate::scan::dir::RootDir;
use crate::scan::isolation::{IsolationOptions, isolations};

/// A root that runs which stand left in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Where it lies on the host.
    pub(super) root: HostPath,
    /// The store.
    pub(super) store: HostPath,
    /// What it sees of that.
    pub(super) format: StoreFormat,
    /// The domain that it was declared to be in.
    pub(super) declared: Option<String>,
}

/// The roots that a run left in a store, by its entries and how they ended.
pub(super) fn shown(
    begin: &Begin,
    undo: bool,
    entries: impl Iterator<Item = (RootId, Option<Outcome>)>,
) -> Vec<Shown> {
    if begin.method != Method::Symlink {
        return Vec::new();
    }
    let stands = |outcome| match outcome {
        Some(Outcome::Undone | Outcome::RolledBack) => false,
        // What was put in the place of a link leaves the mount where it is, unlike undo.
        Some(Outcome::Superseded) => !undo,
        Some(Outcome::Done | Outcome::Parked) | None => true,
    };
    let ids: BTreeSet<_> = entries.filter(|(_, it)| stands(*it)).map(|(root, _)| root).collect();
    let roots = begin.roots.iter().filter(|root| ids.contains(&root.id));
    let shown = |root: &JournalRoot| Shown {
        root: root.path.clone(),
        store: begin.store.clone(),
        format: begin.store_format,
        declared: begin.trust_domain.clone(),
    };
    roots.map(shown).collect()
}

/// The roots that the runs of a journal left in one store, each as the newest run
/// has it. What cannot be read of the journal is a notice.
pub(super) fn shown_of(store: &Path, journal: &Path, notices: &mut Notices) -> Vec<Shown> {
    let ids = journal::runs(journal).unwrap_or_else(|error| {
        notices.push(unread(journal, &error));
        Vec::new()
    });
    let read: Vec<_> = ids.into_par_iter().map(|id| shown_by(store, journal, id)).collect();
    let mut all = Vec::new();
    for read in read {
        match read {
            Ok(shown) => all.extend(shown),
            Err(error) => notices.push(unread(journal, &error)),
        }
    }
    newest(all)
}

/// Of a long history most runs are undone, or of another store: that is told by the first record
/// or the last, and nothing else of them is read.
fn shown_by(store: &Path, journal: &Path, id: RunId) -> Result<Vec<Shown>, ExecError> {
    let begin = journal::begin(journal, id)?;
    let is_of = |begin: &Begin| begin.method == Method::Symlink && same(&begin.store.0, store);
    if !begin.is_some_and(|begin| is_of(&begin)) || journal::is_gone(journal, id)? {
        return Ok(Vec::new());
    }
    let Some(run) = journal::placed(journal, id)? else { return Ok(Vec::new()) };
    let entries = run.entries.values().map(|entry| (entry.root, entry.outcome));
    Ok(shown(&run.begin, run.undo, entries))
}

/// Each root once, as the newest run has it.
pub(super) fn newest(mut all: Vec<Shown>) -> Vec<Shown> {
    all.reverse();
    all.sort_by(|a, b| (&a.root, &a.store).cmp(&(&b.root, &b.store)));
    all.dedup_by(|a, b| a.root == b.root && a.store == b.store);
    all
}

fn unread(journal: &Path, error: &ExecError) -> Notice {
    let cause = format!("{error}: who uses the store since then is not known");
    Notice::partial(journal, "read", cause)
}

/// One directory may be named in several ways.
fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    a == b || real(a) == real(b)
}

/// What tells who the roots are.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// How the host runs containers.
    pub(super) host: Host,
    /// What none of them is to write.
    pub(super) guarded: HostPlaces,
    /// Those that run.
    pub(super) running: Vec<Isolation>,
}

/// The containers that run from these roots.
pub(super) fn running(
    roots: Vec<(InodeId, HostPath)>,
    mount_point: &ContainerPath,
    guarded: &HostPlaces,
    notices: &mut Notices,
) -> Vec<Isolation> {
    let (mount_point, guarded) = (mount_point.clone(), guarded.clone());
    let asked = IsolationOptions { proc_root: "/proc".into(), roots, mount_point, guarded };
    match isolations(&asked) {
        Ok(found) => found.containers,
        Err(error) => {
            let cause = crate::scan::cause(&error.into());
            notices.push(Notice::partial(Path::new("/proc"), "list processes", cause));
            Vec::new()
        }
    }
}

impl Known {
    /// Who a root is. Of several containers that run from it the most powerful one counts.
    pub(super) fn member(&self, path: &HostPath, inode: InodeId, owner: u32) -> Member {
        let mine = self.running.iter().filter(|it| it.key.root == inode);
        if let Some(member) = mine.map(of_running).max_by_key(|member| member.writes) {
            return member;
        }
        // Of several ways in which it is run the one that allows most counts.
        let most = |member: &Member| (member.writes, member.domain == TrustDomain::Host);
        let ways = configured(path, &self.host).unwrap_or_default().into_iter();
        ways.map(|way| self.of_way(&way)).max_by_key(most).unwrap_or_else(|| of_owner(owner))
    }

    fn of_way(&self, way: &Held) -> Member {
        let (given, guarded) = (way.given(), &self.guarded);
        let files = given.paths.iter().find(|(_, path)| guarded.are_written_through(&path.0));
        let disk = |numbers: &(Option<u32>, Option<u32>)| match guarded.are_on_disk(*numbers) {
            false => Disks::None,
            true if numbers.0.is_none() => Disks::Unnamed,
            true => Disks::Named,
        };
        let disks = given.disks.iter().map(disk).max().unwrap_or_default();
        way.member(files.map(|(at, _)| at.clone()), disks)
    }

    /// The same of a root that a run left in the store; `None` where it is gone.
    pub(super) fn tenant(&self, shown: &Shown) -> Option<Tenant> {
        let member = match RootDir::open(&shown.root) {
            Ok(dir) => {
                let owner = candidate::file_system(&dir).map_or(0, |found| found.uid);
                self.member(&shown.root, dir.inode(), owner)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(_) => of_owner(0),
        };
        let declared = shown.declared.clone();
        Some(Tenant { path: shown.root.clone(), member, format: shown.format, declared })
    }
}

/// How it will be started is not known.
fn of_owner(owner: u32) -> Member {
    match owner {
        0 => Member { domain: TrustDomain::Host, writes: Writes::Directory },
        first => {
            let users = IdRange { first, count: 1 };
            Member { domain: TrustDomain::Users(users), writes: Writes::Nothing }
        }
    }
}

fn of_running(isolation: &Isolation) -> Member {
    let (domain, writes) = (isolation.domain(), Writes::by(&isolation.escapes()));
    // A user namespace of its own in which its root is the host's owns the store's files.
    let mapped = isolation.user_namespace == UserNamespace::Own && domain == TrustDomain::Host;
    let writes = if mapped { writes.max(Writes::Directory) } else { writes };
    Member { domain, writes }
}
