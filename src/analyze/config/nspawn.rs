//! Mounts for systemd-nspawn: a `.nspawn` file of ours, or a drop-in for the unit where
//! systemd-nspawn would not heed that.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::nspawn_options::NspawnOptions;
use super::service::{Service, file_name};
use super::{Draft, MountRefusal, MountRequest, Runner, changes, drop_in, nspawn_file};
use super::{RunBy, not_mounted, syntax, words};
use crate::model::{Bind, ConfigFile, HostConfig, HostPath, MountMeans};

/// Where administrators keep `.nspawn` files.
const SETTINGS_DIR: &str = "/etc/systemd/nspawn";

/// An administrator's `.nspawn` file of the root's machine.
struct Theirs<'a> {
    file: &'a ConfigFile,
    /// It lies where only the administrator can put one.
    trusted: bool,
}

/// A `.nspawn` file is there for the root, under its directory's name.
pub fn has_settings(request: &MountRequest<'_>, host: &HostConfig) -> bool {
    machine_of(request).is_some_and(|machine| {
        host.nspawn.iter().any(|file| file_name(&file.path) == format!("{machine}.nspawn"))
    })
}

/// What gives one unit's systemd-nspawn its mounts.
pub fn runner(
    request: &MountRequest<'_>,
    host: &HostConfig,
    service: &Service,
    at: usize,
    options: &NspawnOptions,
) -> Result<Draft, MountRefusal> {
    let name = &service.name;
    let missing = not_mounted(request, |target| bound_at(options, target))?;
    if missing.is_empty() {
        return Ok(Draft::new(MountMeans::Unit, format!("{name} mounts it already")));
    }
    let machine = options.machine(Some(request.root.as_bytes()));
    let theirs = machine.as_deref().and_then(|machine| theirs(request, host, machine));
    let Some(reason) = unheeded(options, theirs.as_ref()) else {
        let machine = machine.ok_or_else(|| nameless(request))?;
        let mut draft = file(request, host, &machine)?;
        draft.why = format!("{name} runs it by systemd-nspawn without mounts of its own");
        return Ok(draft);
    };
    let settings = theirs.as_ref().map(|t| syntax::settings(&t.file.bytes)).unwrap_or_default();
    let carried = carried(options, theirs.as_ref(), &settings, name)?;
    let mut added: Vec<String> = missing.iter().map(option).collect();
    added.extend(carried.iter().map(|option| words::quote_argument(option.as_bytes())));
    let text = drop_in::with_options(service, at, &added, &missing);
    let mut draft =
        Draft::new(MountMeans::Unit, format!("{name} runs it by systemd-nspawn, and {reason}"));
    draft.config.push(changes::whole(service.drop_in(), text, host)?);
    Ok(draft)
}

/// Why a `.nspawn` file of ours would not do.
fn unheeded(options: &NspawnOptions, theirs: Option<&Theirs<'_>>) -> Option<String> {
    if let Some(theirs) = theirs {
        return Some(format!("{:?} is the administrator's", theirs.file.path.0));
    }
    let settings = options.last("settings").map(String::from_utf8_lossy);
    if settings.is_some_and(|value| syntax::is_false(&value)) {
        return Some("its --settings=no leaves .nspawn files out".to_owned());
    }
    options
        .masks_settings_mounts()
        .then(|| "the mounts of its command line would hide those of a .nspawn file".to_owned())
}

/// The mounts of the administrator's file, which those of a command line hide: they go
/// onto it, too.
fn carried(
    options: &NspawnOptions,
    theirs: Option<&Theirs<'_>>,
    settings: &[syntax::Setting],
    name: &super::names::UnitName,
) -> Result<Vec<String>, MountRefusal> {
    let Some(theirs) = theirs else { return Ok(Vec::new()) };
    let mounts = nspawn_file::as_options(settings);
    let told = options.last("settings").map(|value| String::from_utf8_lossy(value).into_owned());
    let told = told.unwrap_or_default();
    let heeded = theirs.trusted || told == "trusted";
    if told == "override" && heeded && !mounts.is_empty() {
        // Then it is the file that hides the command line.
        return Err(MountRefusal(format!(
            "{name} gives {:?} the last word (--settings=override), and it is the administrator's: add the mounts to its [Files]",
            theirs.file.path.0
        )));
    }
    let masked = options.masks_settings_mounts() || syntax::is_false(&told);
    Ok(if heeded && !masked { mounts } else { Vec::new() })
}

/// A `.nspawn` file, whatever runs the root.
pub fn settings_file(
    request: &MountRequest<'_>,
    host: &HostConfig,
    runners: &[Runner],
) -> Result<Draft, MountRefusal> {
    let told = runners.iter().find_map(|runner| match &runner.by {
        RunBy::Nspawn { options, .. } => Some((&runner.service.name, options)),
        _ => None,
    });
    let machine = match told {
        Some((_, options)) => options.machine(Some(request.root.as_bytes())),
        None => machine_of(request),
    };
    let machine = machine.ok_or_else(|| nameless(request))?;
    if let Some((name, options)) = told
        && let Some(reason) = unheeded(options, theirs(request, host, &machine).as_ref())
    {
        return Err(MountRefusal(format!("{name}: {reason}: use --mounts unit")));
    }
    if let Some(theirs) = theirs(request, host, &machine) {
        return Err(MountRefusal(format!(
            "{:?} is the administrator's: add to its [Files]: {}",
            theirs.file.path.0,
            request.binds.iter().map(setting).collect::<Vec<_>>().join(" and ")
        )));
    }
    let mut draft = file(request, host, &machine)?;
    draft.why = match told {
        Some((name, _)) => format!("{name} runs it by systemd-nspawn"),
        None => format!("systemd-nspawn and machinectl read it for the machine {machine}"),
    };
    Ok(draft)
}

fn file(
    request: &MountRequest<'_>,
    host: &HostConfig,
    machine: &str,
) -> Result<Draft, MountRefusal> {
    let text = nspawn_file::file(request.binds).ok_or_else(|| {
        MountRefusal(
            "a path of the mounts cannot be written in a .nspawn file: choose another --store or --mount-point"
                .to_owned(),
        )
    })?;
    let path = HostPath::from(format!("{SETTINGS_DIR}/{machine}.nspawn"));
    let mut draft = Draft::new(MountMeans::Nspawn, "");
    draft.config.push(changes::whole(path, text, host)?);
    Ok(draft)
}

/// The file that systemd-nspawn would read for a machine, unless that is ours.
fn theirs<'a>(
    request: &MountRequest<'_>,
    host: &'a HostConfig,
    machine: &str,
) -> Option<Theirs<'a>> {
    let beside = request.root.0.parent();
    let named = |file: &&ConfigFile| file_name(&file.path) == format!("{machine}.nspawn");
    let near = |file: &&ConfigFile| is_trusted(file) || file.path.0.parent() == beside;
    let file = host.nspawn.iter().filter(named).find(near)?;
    (!nspawn_file::is_ours(&file.bytes)).then(|| Theirs { file, trusted: is_trusted(file) })
}

/// It lies where only the administrator can put one.
fn is_trusted(file: &ConfigFile) -> bool {
    let dir = file.path.0.parent();
    dir == Some(Path::new(SETTINGS_DIR)) || dir == Some(Path::new("/run/systemd/nspawn"))
}

/// The settings of a machine whose word systemd-nspawn takes for its users and capabilities.
pub fn trusted_settings<'a>(machine: &str, host: &'a HostConfig) -> Option<&'a ConfigFile> {
    let name = format!("{machine}.nspawn");
    host.nspawn.iter().find(|file| is_trusted(file) && file_name(&file.path) == name)
}

fn bound_at(options: &NspawnOptions, target: &Path) -> Option<Vec<u8>> {
    let binds = options.binds().map(|(_, value)| nspawn_file::parse_bind(value));
    binds.filter(|(_, at)| *at == target.as_os_str().as_bytes()).last().map(|(source, _)| source)
}

fn machine_of(request: &MountRequest<'_>) -> Option<String> {
    NspawnOptions::default().machine(Some(request.root.as_bytes()))
}

fn nameless(request: &MountRequest<'_>) -> MountRefusal {
    MountRefusal(format!(
        "{:?} gives no name for a machine: use --mounts unit or host",
        request.root.0
    ))
}

fn option(bind: &Bind) -> String {
    words::quote_argument(&[b"--bind-ro=", nspawn_file::bind_value(bind).as_slice()].concat())
}

fn setting(bind: &Bind) -> String {
    format!("BindReadOnly={}", String::from_utf8_lossy(&nspawn_file::bind_value(bind)))
}
