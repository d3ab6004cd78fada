//! Whose user a root's own root is on the host, and what that one could do to the store: by
//! what runs from it, by how it is configured to be run, by whom its directory belongs to.

use std::path::Path;

use crate::analyze::config::configured;
use crate::analyze::plan::{Member, Tenant};
use crate::exec::ExecError;
use crate::exec::journal::{self, Entry, Reading, Run};
use crate::model::{
    ContainerPath, HostConfig, HostPath, IdRange, InodeId, Isolation, Method, Notice, Notices,
    Outcome, StoreFormat, TrustDomain, UserNamespace,
};
use crate::scan::candidate;
use crate::scan::dir::RootDir;
use crate::scan::isolation::{IsolationOptions, isolations};

/// A root that runs which stand left in a store that is a plain directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Where it lies on the host.
    pub(super) root: HostPath,
    /// The store.
    pub(super) store: HostPath,
    /// The domain that it was declared to be in.
    pub(super) declared: Option<String>,
}

/// The roots that a run left in a plain store.
pub(super) fn shown(run: &Run) -> Vec<Shown> {
    let begin = &run.begin;
    if begin.method != Method::Symlink || begin.store_format != StoreFormat::Dir {
        return Vec::new();
    }
    let stands = |entry: &&Entry| match entry.outcome {
        Some(Outcome::Undone | Outcome::RolledBack) => false,
        // What was put in the place of a link leaves the mount where it is, unlike undo.
        Some(Outcome::Superseded) => run.undo.is_none(),
        Some(Outcome::Done | Outcome::Parked) | None => true,
    };
    let mut ids: Vec<_> = run.entries.values().filter(stands).map(|it| it.intent.root).collect();
    ids.sort_unstable();
    ids.dedup();
    let roots = ids.into_iter().filter_map(|id| run.root(id));
    let shown = |root: &HostPath| Shown {
        root: root.clone(),
        store: begin.store.clone(),
        declared: begin.trust_domain.clone(),
    };
    roots.map(|root| shown(&root.path)).collect()
}

/// The roots that the runs of a journal left in one plain store, each as the newest run
/// has it. What cannot be read of the journal is a notice.
pub(super) fn shown_of(store: &Path, journal: &Path, notices: &mut Notices) -> Vec<Shown> {
    let ids = journal::runs(journal).unwrap_or_else(|error| {
        notices.push(unread(journal, &error));
        Vec::new()
    });
    let mut all = Vec::new();
    for id in ids {
        match journal::read(journal, id) {
            Ok(Reading::Run { run, .. }) if same(&run.begin.store.0, store) => {
                all.extend(shown(&run));
            }
            Ok(_) => {}
            Err(error) => notices.push(unread(journal, &error)),
        }
    }
    newest(all)
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
    pub(super) config: HostConfig,
    /// Those that run.
    pub(super) running: Vec<Isolation>,
}

/// The containers that run from these roots.
pub(super) fn running(
    roots: Vec<(InodeId, HostPath)>,
    mount_point: &ContainerPath,
    notices: &mut Notices,
) -> Vec<Isolation> {
    let mount_point = mount_point.clone();
    let asked = IsolationOptions { proc_root: "/proc".into(), roots, mount_point };
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
        configured(path, &self.config).unwrap_or_else(|| of_owner(owner))
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
        Some(Tenant { path: shown.root.clone(), member, declared })
    }
}

/// How it will be started is not known.
fn of_owner(owner: u32) -> Member {
    match owner {
        0 => Member { domain: TrustDomain::Host, writes: true },
        first => {
            let users = IdRange { first, count: 1 };
            Member { domain: TrustDomain::Users(users), writes: false }
        }
    }
}

fn of_running(isolation: &Isolation) -> Member {
    let domain = isolation.domain();
    // A user namespace of its own in which its root is the host's owns the store's files.
    let mapped = isolation.user_namespace == UserNamespace::Own && domain == TrustDomain::Host;
    Member { writes: mapped || isolation.is_privileged(), domain }
}
