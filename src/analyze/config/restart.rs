//! Whether a unit's container really ends and begins anew, and would find its mounts.

use super::nspawn_options::NspawnOptions;
use super::runners::{RunBy, Runner};
use super::service::{Service, file_name};
use super::{MountRefusal, MountRequest, nspawn_file, syntax};
use crate::model::HostConfig;

/// What would keep a container from starting anew, as sentences with the way out.
pub fn warnings(request: &MountRequest<'_>, host: &HostConfig, runners: &[Runner]) -> Vec<String> {
    let stuck = runners.iter().filter_map(|runner| match &runner.by {
        RunBy::Nspawn { options, .. } if request.busybox_init => {
            outlives_restart(&runner.service, options, host, request)
        }
        _ => None,
    });
    stuck.collect()
}

/// systemd-nspawn asks the container's init to end by SIGRTMIN+3, which busybox's init does
/// not know. `KillMode=process` then leaves the container running, and the new
/// systemd-nspawn finds its machine's name taken.
fn outlives_restart(
    service: &Service,
    options: &NspawnOptions,
    host: &HostConfig,
    request: &MountRequest<'_>,
) -> Option<String> {
    let machine = options.machine(Some(request.root.as_bytes())).unwrap_or_default();
    let asked = options.has("kill-signal") || settings_kill_signal(&machine, host);
    let stuck = service.setting("KillMode") == Some("process") && options.has("boot") && !asked;
    stuck.then(|| {
        format!(
            "systemctl restart would not restart {0}: KillMode=process leaves its container running, \
             and busybox's init ignores the signal that systemd-nspawn stops it with: add \
             --kill-signal=SIGUSR2 to its command line, or stop it by: machinectl terminate {machine}",
            service.name
        )
    })
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
