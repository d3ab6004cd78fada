//! Whether a unit's container really ends and begins anew, and would find its mounts.

use std::path::Path;

use super::runners::{RunBy, Runner};
use super::service::file_name;
use super::{MountRefusal, MountRequest, lxc, nspawn_file, syntax};
use crate::model::HostConfig;

/// What would keep a container from starting anew, as sentences with the way out.
pub fn warnings(request: &MountRequest<'_>, host: &HostConfig, runners: &[Runner]) -> Vec<String> {
    let stuck = runners.iter().filter_map(|runner| {
        let (name, machine) = (&runner.service.name, outlives_restart(runner, host, request)?);
        Some(format!(
            "systemctl restart would not restart {name}: KillMode=process leaves its container running, \
             and busybox's init ignores the signal that systemd-nspawn stops it with: add \
             --kill-signal=SIGUSR2 to its command line, or stop it by: {}", power_off(&machine)
        ))
    });
    stuck.collect()
}

/// The command that starts a root's container anew, so that it heeds its configuration;
/// `None` where nothing is known to run it.
pub fn command(
    request: &MountRequest<'_>,
    host: &HostConfig,
    runners: &[Runner],
) -> Option<String> {
    let units: Vec<String> =
        runners.iter().map(|runner| format!("'{}'", runner.service.name)).collect();
    if let [unit] = units.as_slice() {
        let stuck = runners.iter().find_map(|runner| outlives_restart(runner, host, request));
        let first = stuck.map(|machine| {
            // Its name is free once it is gone, and not before.
            let off = power_off(&machine);
            format!("{off}; while machinectl show '{machine}' >/dev/null 2>&1; do sleep 1; done; ")
        });
        return Some(format!("{}systemctl restart {unit}", first.unwrap_or_default()));
    }
    if !units.is_empty() {
        // Whichever of them runs it now.
        return Some(format!("systemctl try-restart {}", units.join(" ")));
    }
    let container = host.lxc.iter().find(|container| lxc::runs(container, request.root))?;
    let path = container.file.path.0.parent().and_then(Path::parent).map(Path::display)?;
    let name = &container.name;
    Some(format!("lxc-stop -P {path} -n {name} && lxc-start -P {path} -n {name}"))
}

/// The signal on which busybox's init ends all that it started, and itself.
fn power_off(machine: &str) -> String {
    format!("machinectl kill --kill-who=leader --signal=SIGUSR2 '{machine}'")
}

/// systemd-nspawn asks the container's init to end by SIGRTMIN+3, which busybox's init does
/// not know. `KillMode=process` then leaves the container running, and the new
/// systemd-nspawn finds its machine's name taken: this one.
fn outlives_restart(
    runner: &Runner,
    host: &HostConfig,
    request: &MountRequest<'_>,
) -> Option<String> {
    let RunBy::Nspawn { options, .. } = &runner.by else { return None };
    let machine = options.machine(Some(request.root.as_bytes())).unwrap_or_default();
    let asked = options.has("kill-signal") || settings_kill_signal(&machine, host);
    let left = runner.service.setting("KillMode") == Some("process") && options.has("boot");
    (request.busybox_init && left && !asked).then_some(machine)
}

fn settings_kill_signal(machine: &str, host: &HostConfig) -> bool {
    let name = format!("{machine}.nspawn");
    let file = host.nspawn.iter().find(|file| file_name(&file.path) == name);
    file.is_some_and(|file| nspawn_file::kill_signal(&syntax::settings(&file.bytes)).is_some())
}

/// A unit that hides the store from what it starts would not start at all.
///
/// # Errors
///
/// [`MountRefusal`] naming the setting.
pub fn check_sandbox(request: &MountRequest<'_>, runner: &Runner) -> Result<(), MountRefusal> {
    let set = |key: &str| runner.service.setting(key).unwrap_or_default();
    let homes = ["/home", "/root", "/run/user"];
    let hides_home = syntax::is_true(set("ProtectHome")) || set("ProtectHome") == "tmpfs";
    let hides_tmp = syntax::is_true(set("PrivateTmp")) || set("PrivateTmp") == "disconnected";
    for bind in request.binds {
        let below = |dirs: &[&str]| dirs.iter().any(|dir| bind.source.0.starts_with(dir));
        let hidden_by = match () {
            () if hides_home && below(&homes) => "ProtectHome",
            () if hides_tmp && below(&["/tmp", "/var/tmp"]) => "PrivateTmp",
            () => continue,
        };
        return Err(MountRefusal(format!(
            "{}'s {hidden_by}= hides {:?} from it: change that, or choose another --store",
            runner.service.name, bind.source.0
        )));
    }
    Ok(())
}
