//! How a container gets the store, and trees, as read-only mounts: by the means of what
//! runs it, in files of ours beside the administrator's own.
//!
//! Everything here is values in, values out: the host's configuration is read elsewhere,
//! and what is to be written is a [`MountPlan`].
//!
//! | what runs the root | means |
//! |---|---|
//! | a unit with systemd-nspawn, or `machinectl` | a `.nspawn` file; a drop-in where systemd-nspawn would not heed it |
//! | a unit with `RootDirectory=` | a drop-in |
//! | LXC | an include of the container's configuration |
//! | an OCI bundle | an entry in its `config.json` |
//! | Docker, Podman, containerd | nothing is edited: the options to start it with |
//! | anything else | a mount on the host below the root |
//!
//! What is bound of an image is mounted by a unit of ours when the host boots.

mod changes;
mod devices;
mod drop_in;
mod engines;
mod host_mount;
mod image_mount;
mod lxc;
pub mod names;
mod nspawn;
mod nspawn_file;
mod nspawn_options;
mod oci;
mod restart;
mod runners;
mod service;
pub mod syntax;
mod users;
pub mod words;

use std::path::Path;

use crate::model::{
    Bind, ConfigChange, HostConfig, HostPath, LxcConfig, MountMeans, MountPlan, OciBundle, Runtime,
};

pub use engines::lines as engine_lines;
pub use host_mount::point as host_mount_point;
pub use runners::Host;
use runners::{RunBy, Runner};
pub use users::{Held, configured};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct MountRequest<'a> {
    /// The root.
    pub root: &'a HostPath,
    /// Whose it is.
    pub runtime: Runtime,
    /// What the container is to see.
    pub binds: &'a [Bind],
    /// By whose means; `None`: by those of what runs it.
    pub means: Option<MountMeans>,
    /// It is attached in the running container, too.
    pub live: bool,
    /// The root's init is busybox.
    pub busybox_init: bool,
}

/// Why a root cannot be given its mounts, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MountRefusal(pub String);

/// Finds out how a root is run, and what gives it its mounts by the same means.
///
/// # Errors
///
/// [`MountRefusal`] when the means that were asked for do not run the root, or when the
/// administrator's own files are in the way.
pub fn mount_plan(request: &MountRequest<'_>, host: &Host) -> Result<MountPlan, MountRefusal> {
    let (runners, host) = (runners::runners(request.root, host), &host.config);
    let mut draft = match request.means {
        None => automatic(request, host, &runners)?,
        Some(MountMeans::Nspawn) => nspawn::settings_file(request, host, &runners)?,
        Some(MountMeans::Unit) => units(request, host, &runners)?,
        Some(MountMeans::Lxc) => by_lxc(request, lxc_of(request, host)?)?,
        Some(MountMeans::Oci) => by_oci(request, bundle_of(request, host)?)?,
        Some(MountMeans::Host) => by_host(request, host, "the host was asked for".to_owned())?,
        Some(MountMeans::None) => Draft::new(MountMeans::None, "no mounts were asked for"),
    };
    draft.advice.extend(restart::warnings(request, host, &runners));
    if request.means != Some(MountMeans::None) {
        by_boot(request, host, &mut draft)?;
    }
    let restart = restart::command(request, host, &runners);
    Ok(MountPlan {
        means: draft.means,
        why: draft.why,
        binds: request.binds.to_vec(),
        config: changes::effective(draft.config),
        live: request.live,
        restart,
        advice: draft.advice,
    })
}

/// A plan in the making.
#[derive(Debug)]
struct Draft {
    means: MountMeans,
    why: String,
    config: Vec<ConfigChange>,
    advice: Vec<String>,
}

impl Draft {
    fn new(means: MountMeans, why: impl Into<String>) -> Self {
        Self { means, why: why.into(), config: Vec::new(), advice: Vec::new() }
    }
}

fn automatic(
    request: &MountRequest<'_>,
    host: &HostConfig,
    runners: &[Runner],
) -> Result<Draft, MountRefusal> {
    if matches!(request.runtime, Runtime::Docker | Runtime::Podman | Runtime::Containerd) {
        return Ok(by_engine(request));
    }
    if runners.iter().any(|runner| !matches!(runner.by, RunBy::Chroot)) {
        return units(request, host, runners);
    }
    if let Ok(container) = lxc_of(request, host) {
        return by_lxc(request, container);
    }
    if let Ok(bundle) = bundle_of(request, host) {
        return by_oci(request, bundle);
    }
    if request.runtime == Runtime::Nspawn || nspawn::has_settings(request, host) {
        return nspawn::settings_file(request, host, runners);
    }
    let why = match runners.first() {
        Some(runner) => format!("{} runs it by chroot", runner.service.name),
        None => "nothing on the host is known to run it".to_owned(),
    };
    by_host(request, host, why)
}

/// By the units that run the root: a `.nspawn` file where all of them heed it, and
/// drop-ins for the others.
fn units(
    request: &MountRequest<'_>,
    host: &HostConfig,
    runners: &[Runner],
) -> Result<Draft, MountRefusal> {
    let mut draft = Draft::new(MountMeans::Unit, "");
    let mut reasons = Vec::new();
    for runner in runners {
        let name = &runner.service.name;
        restart::check_sandbox(request, runner)?;
        match &runner.by {
            RunBy::Nspawn { at, options } => {
                let part = nspawn::runner(request, host, &runner.service, *at, options)?;
                draft.means = if reasons.is_empty() { part.means } else { draft.means };
                draft.config.extend(part.config);
                draft.advice.extend(part.advice);
                reasons.push(part.why);
            }
            RunBy::RootDirectory => {
                let text = drop_in::with_paths(request.binds).ok_or_else(|| {
                    MountRefusal(format!(
                        "the store's path cannot be written in a drop-in of {name}: choose another --store"
                    ))
                })?;
                draft.config.push(changes::whole(runner.service.drop_in(), text, host)?);
                reasons.push(format!("{name} has it as RootDirectory="));
            }
            RunBy::Chroot => draft.advice.push(format!(
                "{name} runs it by chroot, which has the mounts of the host alone: use --mounts host"
            )),
        }
    }
    if reasons.is_empty() {
        return Err(MountRefusal(format!(
            "no unit is known to run {:?}: use --mounts auto, or host",
            request.root.0
        )));
    }
    draft.config.dedup();
    draft.why = reasons.join("; ");
    Ok(draft)
}

fn lxc_of<'a>(
    request: &MountRequest<'_>,
    host: &'a HostConfig,
) -> Result<&'a LxcConfig, MountRefusal> {
    host.lxc.iter().find(|container| lxc::runs(container, request.root)).ok_or_else(|| {
        MountRefusal(format!(
            "no LXC container is configured with the root {:?}: use --mounts auto",
            request.root.0
        ))
    })
}

fn by_lxc(request: &MountRequest<'_>, container: &LxcConfig) -> Result<Draft, MountRefusal> {
    let name = &container.name;
    let mut draft =
        Draft::new(MountMeans::Lxc, format!("LXC's container {name} is configured with it"));
    let missing = not_mounted(request, |target| {
        // Our own file is written anew.
        let mut theirs = container.clone();
        theirs.included.retain(|file| !nspawn_file::is_ours(&file.bytes));
        lxc::mounted_at(&theirs, target)
    })?;
    if missing.is_empty() {
        return Ok(draft);
    }
    let config = &container.file;
    let file = HostPath(config.path.0.with_file_name(lxc::FILE));
    let before = container.included.iter().find(|known| known.path == file);
    draft.config = vec![
        ConfigChange {
            before: before.map(|known| known.bytes.clone()),
            after: Some(lxc::file(&missing)),
            file: file.clone(),
        },
        ConfigChange {
            file: config.path.clone(),
            before: Some(config.bytes.clone()),
            after: Some(lxc::including(&config.bytes, &file)),
        },
    ];
    Ok(draft)
}

fn bundle_of<'a>(
    request: &MountRequest<'_>,
    host: &'a HostConfig,
) -> Result<&'a OciBundle, MountRefusal> {
    let is_root = |bundle: &&OciBundle| {
        let dir = bundle.file.path.0.parent().unwrap_or(Path::new("/"));
        oci::root_path(&bundle.file.bytes)
            .is_some_and(|path| dir.join(path).components().eq(request.root.0.components()))
    };
    host.bundles.iter().find(is_root).ok_or_else(|| {
        MountRefusal(format!(
            "no OCI bundle is known with the root {:?}: use --mounts auto",
            request.root.0
        ))
    })
}

fn by_oci(request: &MountRequest<'_>, bundle: &OciBundle) -> Result<Draft, MountRefusal> {
    let config = &bundle.file;
    let mut draft = Draft::new(
        MountMeans::Oci,
        format!("the OCI bundle of {:?} has it as root", config.path.0),
    );
    let missing = not_mounted(request, |target| {
        oci::mounted_at(&config.bytes, target.to_str()?).map(String::into_bytes)
    })?;
    if !missing.is_empty() {
        let after = oci::with_binds(&config.bytes, &missing).ok_or_else(|| {
            MountRefusal(format!("{:?} is no configuration that can be added to", config.path.0))
        })?;
        draft.config = vec![ConfigChange {
            file: config.path.clone(),
            before: Some(config.bytes.clone()),
            after: Some(after),
        }];
        draft.advice.push("a container made of the bundle before keeps the old mounts: delete it, and run the bundle again".to_owned());
    }
    Ok(draft)
}

fn by_engine(request: &MountRequest<'_>) -> Draft {
    let name = request.runtime.name();
    let why = format!("{name} keeps its containers' mounts itself: nothing of it is edited");
    let mut draft = Draft::new(MountMeans::None, why);
    draft.advice = engines::lines(request.runtime, request.binds);
    draft
}

fn by_host(
    request: &MountRequest<'_>,
    host: &HostConfig,
    why: String,
) -> Result<Draft, MountRefusal> {
    let mut draft = Draft::new(MountMeans::Host, why);
    if host.systemd {
        draft.config = host_mount::units(request.root, request.binds, host)?;
    } else {
        draft.advice = vec![format!(
            "systemd does not run here: for the mount to be there after a boot, add to /etc/fstab: {}",
            request
                .binds
                .iter()
                .map(|bind| host_mount::fstab_line(request.root, bind))
                .collect::<Vec<_>>()
                .join(" and ")
        )];
    }
    Ok(draft)
}

/// An image that is bound has to be mounted first, after each boot.
fn by_boot(
    request: &MountRequest<'_>,
    host: &HostConfig,
    draft: &mut Draft,
) -> Result<(), MountRefusal> {
    for bind in request.binds.iter().filter(|bind| image_mount::unit_for(bind).is_some()) {
        match host.systemd {
            true => draft.config.extend(image_mount::units(bind, host)?),
            false => draft.advice.push(
                "systemd does not run here: after a boot, and before the containers start, \
                 cbin-audit recover mounts the store's image"
                    .to_owned(),
            ),
        }
    }
    Ok(())
}

/// The binds that a configuration does not have yet, by what it mounts at a path.
fn not_mounted(
    request: &MountRequest<'_>,
    mounted_at: impl Fn(&Path) -> Option<Vec<u8>>,
) -> Result<Vec<Bind>, MountRefusal> {
    let mut missing = Vec::new();
    for bind in request.binds {
        match mounted_at(&bind.target.0) {
            None => missing.push(bind.clone()),
            Some(source) if source == bind.source.as_bytes() => {}
            Some(source) => {
                return Err(MountRefusal(format!(
                    "its configuration mounts {:?} at {:?}: choose another --mount-point",
                    String::from_utf8_lossy(&source),
                    bind.target.0
                )));
            }
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests;
