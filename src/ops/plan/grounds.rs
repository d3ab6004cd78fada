//! What is known of each root as a whole: whether it may be changed, and how it comes to see
//! the store.

use std::collections::HashSet;
use std::path::Path;

use super::{Planning, boot};
use crate::analyze::config::{self, Host, MountRequest};
use crate::analyze::plan::{self as planner, Ground, Refusal, Tenant, Writes};
use crate::analyze::resolve::{Resolver, Target};
use crate::model::{
    Bind, DirId, HostPath, Inventory, Method, MountMeans, MountPlan, PlannedRoot, Root, RootId,
    RootState, Select, SkipReason, StoreFormat,
};
use crate::ops::members::Known;
use crate::scan::candidate::{self, FileSystem};
use crate::scan::packages;

/// What the host says, read once for all roots.
pub(super) struct HostFacts {
    /// Who the roots are.
    pub(super) known: Known,
    /// The roots that earlier runs left in the store.
    pub(super) tenants: Vec<Tenant>,
    /// `/proc/locks`.
    pub(super) locks: Vec<u8>,
    /// For each root the file system that can share extents, if it lies on one.
    pub(super) sharing: Vec<Option<u64>>,
}

impl Planning<'_> {
    pub(super) fn ground(&self, at: usize, host: &HostFacts) -> Ground<'_> {
        let root = &self.roots[at];
        let inventory = &self.survey.inventories[at];
        let mut mount = None;
        let file_system = candidate::file_system(&self.survey.dirs[at]).unwrap_or_default();
        let stack = self.is_stack(at);
        let mut refusal = match stack {
            true => self.stack_refusal(at, host),
            false => self.refusal(at, host, file_system),
        };
        if refusal.is_none() && !stack && self.options.settings.method == Method::Symlink {
            match self.mount(root, inventory, &host.known.host) {
                Ok(planned) => mount = Some(planned),
                Err(why) => refusal = Some(why),
            }
        }
        let id = RootId(at as u32);
        let planned = PlannedRoot {
            id,
            path: root.path.clone(),
            ino: root.inode.ino,
            name: root.name.clone(),
            runtime: root.runtime,
            state: root.state,
        };
        let sharing = host.sharing.get(at).copied().flatten();
        let by_link = self.options.settings.method == Method::Symlink;
        let critical = match self.options.settings.select {
            Select::Elf | Select::All if by_link => boot::critical(self.survey, at),
            _ => HashSet::new(),
        };
        let member = host.known.member(&root.path, root.inode, file_system.uid);
        if let Some(mount) = &mut mount {
            mount.advice.extend(self.writes(member.writes).map(str::to_owned));
        }
        Ground { root: planned, inventory, refusal, mount, stack, sharing, member, critical }
    }

    /// What a root can write that the plan shows it read-only.
    fn writes(&self, writes: Writes) -> Option<&'static str> {
        match writes {
            Writes::Nothing => None,
            Writes::Directory if self.options.settings.store_format == StoreFormat::Erofs => None,
            Writes::Directory => Some(WRITES),
            Writes::Image => Some(WRITES_IMAGE),
        }
    }

    /// Why a whole root is left as it is.
    fn refusal(&self, at: usize, host: &HostFacts, file_system: FileSystem) -> Option<Refusal> {
        let (root, dir) = (&self.roots[at], &self.survey.dirs[at]);
        let settings = &self.options.settings;
        if let Some(manager) = packages::at_work(dir, &host.locks) {
            return Some(package_manager(manager));
        }
        if file_system.read_only {
            return Some(refused(SkipReason::ReadOnly, READ_ONLY));
        }
        // Extents are shared below the names: no name changes, and no process notices.
        if settings.method == Method::Reflink {
            return None;
        }
        let refusal =
            state(root, settings.live || settings.method == Method::Hardlink, file_system);
        if settings.method != Method::Symlink {
            return refusal;
        }
        refusal.map(|why| self.with_lines(root, why)).or_else(|| self.store_refusal(at))
    }

    /// Why nothing is bound over names of a running container's stack.
    fn stack_refusal(&self, at: usize, host: &HostFacts) -> Option<Refusal> {
        let manager = packages::at_work(&self.survey.dirs[at], &host.locks);
        let noexec = || self.store.noexec.then(|| store_noexec(&self.options.settings.store));
        manager.map(package_manager).or_else(noexec)
    }

    /// How the engine that keeps a layer is told to mount the store, since the layer stays as it is.
    fn with_lines(&self, root: &Root, refusal: Refusal) -> Refusal {
        if refusal.reason != SkipReason::Overlay {
            return refusal;
        }
        let lines = config::engine_lines(root.runtime, &self.binds());
        let live = root.state == RootState::Running && !self.options.settings.live;
        let words = lines.into_iter().chain(live.then(|| BY_LIVE.to_owned()));
        let words: Vec<String> = std::iter::once(refusal.explanation).chain(words).collect();
        Refusal { explanation: words.join("; "), ..refusal }
    }

    /// What a container is to see of the store.
    fn binds(&self) -> [Bind; 1] {
        let settings = &self.options.settings;
        [Bind {
            source: settings.store_format.shown(&settings.store),
            target: settings.mount_point.clone(),
        }]
    }

    fn store_refusal(&self, at: usize) -> Option<Refusal> {
        let (settings, inventory) = (&self.options.settings, &self.survey.inventories[at]);
        if self.store.noexec {
            return Some(store_noexec(&settings.store));
        }
        let free = planner::mount_point_is_free(inventory, &settings.mount_point);
        (!free).then(|| mount_point_taken(&settings.mount_point.0))
    }

    fn mount(&self, root: &Root, inventory: &Inventory, host: &Host) -> Result<MountPlan, Refusal> {
        let settings = &self.options.settings;
        let binds = self.binds();
        let request = MountRequest {
            root: &root.path,
            runtime: root.runtime,
            binds: &binds,
            means: self.options.mounts,
            live: settings.live && root.state == RootState::Running,
            busybox_init: has_busybox_init(inventory),
        };
        let planned = config::mount_plan(&request, host);
        planned.map_err(|why| refused(SkipReason::NoMount, &why.to_string())).map(|mut plan| {
            if plan.means == MountMeans::None {
                plan.binds = binds.to_vec();
            }
            plan
        })
    }
}

fn has_busybox_init(inventory: &Inventory) -> bool {
    match Resolver::new(inventory).resolve(DirId(0), b"sbin/init") {
        Target::File(init) => inventory.file_name(init).starts_with(b"busybox"),
        _ => false,
    }
}

fn refused(reason: SkipReason, explanation: &str) -> Refusal {
    Refusal { reason, explanation: explanation.to_owned() }
}

fn state(root: &Root, live: bool, file_system: FileSystem) -> Option<Refusal> {
    let (reason, explanation) = match root.state {
        _ if root.layer || file_system.overlay => (SkipReason::Overlay, OVERLAY),
        RootState::Running if !live => (SkipReason::Running, RUNNING),
        RootState::Unknown if !live => (SkipReason::StateUnknown, STATE_UNKNOWN),
        _ => return None,
    };
    Some(refused(reason, explanation))
}

const WRITES: &str = "its root is the host's root, and can write the store, which it shares with its like alone; \
     --store-format erofs makes a store that no remount makes writable";
const WRITES_IMAGE: &str = "the store can be written in it, which is given what that lies in, and shares it with its \
     like alone: mount that there read-only; cbin-audit doctor says where it is, while it runs";
const OVERLAY: &str = "a stacked root file system, or a layer of one: to change it below its mounts is \
     undefined; share the programs in its image, or by a read-only mount when the container is started";
const BY_LIVE: &str =
    "--live binds the store's objects over its programs while it runs, and changes no layer";
const RUNNING: &str = "a container runs from it, and would not find the store: stop it first, or use \
     --live, which attaches the store inside";
const STATE_UNKNOWN: &str =
    "not every process could be asked whether it runs from this root: run as root";
const READ_ONLY: &str = "its file system is mounted read-only: nothing in it can be changed";

fn package_manager(manager: &str) -> Refusal {
    let explanation = format!("{manager} is at work in it: try again when it is done");
    Refusal { reason: SkipReason::PackageManager, explanation }
}

fn mount_point_taken(mount_point: &Path) -> Refusal {
    let explanation = format!(
        "something stands at {}: --mount-point DIR names another place for the store",
        mount_point.display()
    );
    Refusal { reason: SkipReason::MountPoint, explanation }
}

fn store_noexec(store: &HostPath) -> Refusal {
    let explanation = format!(
        "programs in {} cannot be executed, its file system is mounted noexec: --store DIR names another place",
        store.0.display()
    );
    Refusal { reason: SkipReason::StoreNoexec, explanation }
}
