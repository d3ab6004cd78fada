//! Whose user a root's own root is on the host, and what that one could do to the store: by
//! what runs from it, by how it is configured to be run, by whom its directory belongs to.

use std::path::Path;

use crate::analyze::config::configured_domain;
use crate::analyze::plan::Member;
use crate::model::{
    HostConfig, IdRange, Isolation, Method, Notice, Notices, PlanSettings, Root, RootState,
    StoreFormat, TrustDomain, UserNamespace,
};
use crate::scan::isolation::{IsolationOptions, isolations};

/// The running containers of the roots, where it matters who they are.
pub(super) fn running(
    roots: &[Root],
    settings: &PlanSettings,
    notices: &mut Notices,
) -> Vec<Isolation> {
    let shared = settings.method == Method::Symlink && settings.store_format == StoreFormat::Dir;
    if !shared || roots.iter().all(|root| root.state == RootState::Stopped) {
        return Vec::new();
    }
    let asked = IsolationOptions {
        proc_root: "/proc".into(),
        roots: roots.iter().map(|root| (root.inode, root.path.clone())).collect(),
        mount_point: settings.mount_point.clone(),
    };
    match isolations(&asked) {
        Ok(found) => found.containers,
        Err(error) => {
            let cause = crate::scan::cause(&error.into());
            notices.push(Notice::partial(Path::new("/proc"), "list processes", cause));
            Vec::new()
        }
    }
}

/// Who the root is. Of several containers that run from it the most powerful one counts.
pub(super) fn member(
    root: &Root,
    running: &[Isolation],
    config: &HostConfig,
    owner: u32,
) -> Member {
    let mine = running.iter().filter(|it| it.key.root == root.inode);
    if let Some(member) = mine.map(of_running).max_by_key(|member| member.writes) {
        return member;
    }
    if let Some(domain) = configured_domain(&root.path, config) {
        return Member { domain, writes: false };
    }
    match owner {
        // How it will be started is not known.
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
