//! What this host and its containers allow.

use std::path::{Path, PathBuf};

use crate::analyze::abilities::{of_container, of_host, of_root, of_store};
use crate::model::{
    Bytes, ContainerPath, ContainerPlace, Doctor, HostPath, Notice, Notices, Root, RootPlace,
    StorePlace,
};
use crate::scan::dir::RootDir;
use crate::scan::file_system::{MountTable, changeable, free, nearest};
use crate::scan::isolation::{IsolationOptions, isolations};
use crate::scan::{HostPlaces, RootsError, find_roots, kernel};

/// What is asked of the doctor.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// Roots, or directories that hold some; every root on the host when empty.
    pub roots: Vec<PathBuf>,
    /// The store on the host.
    pub store: PathBuf,
    /// The store's path inside the containers.
    pub mount_point: ContainerPath,
}

/// Looks at the host, the store's place, the roots and the running containers. Nothing is
/// written, nothing mounted.
///
/// # Errors
///
/// A root that was named and cannot be taken.
pub fn doctor(options: &DoctorOptions) -> Result<Doctor, RootsError> {
    let host = Path::new("/");
    let mut notices = Notices::default();
    let roots = find_roots(&options.roots, host, &options.store, &mut notices)?;
    let table = MountTable::read(host);
    let store = store(options, &table, &mut notices);
    let containers = containers(options, &roots, &mut notices);
    let roots = roots.into_iter().map(|root| place(root, &table, &mut notices)).collect();
    Ok(Doctor {
        host: of_host(&kernel::kernel(host)),
        store,
        roots,
        containers,
        notices: notices.sorted(),
    })
}

fn place(root: Root, table: &MountTable, notices: &mut Notices) -> RootPlace {
    let file_system = match RootDir::open(&root.path) {
        Ok(dir) => table.of(&dir),
        Err(error) => {
            notices.push(Notice::partial(root.path.clone(), "open", crate::scan::cause(&error)));
            None
        }
    };
    let abilities = of_root(&root, file_system.as_ref());
    RootPlace { root, file_system, abilities }
}

fn store(options: &DoctorOptions, table: &MountTable, notices: &mut Notices) -> StorePlace {
    let path = HostPath::from(options.store.as_path());
    let opened = nearest(&options.store).and_then(|near| {
        let dir = RootDir::open(&HostPath::from(near.as_path()))?;
        Ok((free(&dir)?, table.of(&dir), changeable(&near)))
    });
    let (free, file_system, changeable) = opened.unwrap_or_else(|error| {
        notices.push(Notice::partial(path.clone(), "look at", crate::scan::cause(&error)));
        (Bytes(0), None, None)
    });
    StorePlace {
        exists: options.store.metadata().is_ok_and(|it| it.is_dir()),
        abilities: of_store(file_system.as_ref(), changeable.as_ref()),
        path,
        file_system,
        free,
    }
}

/// The running containers. Where roots were named, those of these roots.
fn containers(
    options: &DoctorOptions,
    roots: &[Root],
    notices: &mut Notices,
) -> Vec<ContainerPlace> {
    let asked = IsolationOptions {
        proc_root: "/proc".into(),
        roots: roots.iter().map(|root| (root.inode, root.path.clone())).collect(),
        mount_point: options.mount_point.clone(),
        guarded: HostPlaces::find([options.store.as_path()]),
    };
    let found = match isolations(&asked) {
        Ok(found) => found,
        Err(error) => {
            notices.push(Notice::partial(
                "/proc",
                "list processes",
                crate::scan::cause(&error.into()),
            ));
            return Vec::new();
        }
    };
    if found.refused > 0 {
        let cause = format!(
            "{} processes may not be looked at: run as root to have their containers shown",
            found.refused
        );
        notices.push(Notice::info("/proc", "look at processes", cause));
    }
    let named = |root: &Option<HostPath>| {
        options.roots.is_empty() || roots.iter().any(|known| Some(&known.path) == root.as_ref())
    };
    let shown = found.containers.into_iter().filter(|isolation| named(&isolation.root));
    shown
        .map(|isolation| {
            let abilities = of_container(&isolation, &options.mount_point);
            ContainerPlace { isolation, abilities }
        })
        .collect()
}
