//! Which runtime runs a process, and what it calls the container: read off the
//! path of the process's control group.
//!
//! The patterns are those of the runtimes themselves and of the tools that watch
//! them: systemd's cgroup-util.c, Falco's container matchers, cAdvisor's
//! factories, the OpenTelemetry eBPF profiler.

use crate::model::Runtime;

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    controllers: String,
    path: String,
}

impl Group {
    /// It is the group of this controller; `""` is the second version's.
    pub(super) fn is_of(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|it| it == controller)
    }

    /// Its path, below the hierarchy's root.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// The lines of `/proc/PID/cgroup`, those first whose path tells most: the
/// unified hierarchy, then systemd's, then the common controllers.
pub(super) fn parse(text: &[u8]) -> Vec<Group> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| {
        let (_number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Group { controllers: controllers.to_owned(), path: path.to_owned() })
    };
    let mut groups: Vec<Group> = text.lines().filter_map(line).collect();
    groups.sort_by_key(|group| {
        let order = ["", "name=systemd", "memory", "pids", "cpu"];
        order.iter().position(|name| group.controllers.split(',').any(|c| c == *name)).unwrap_or(9)
    });
    groups
}

/// What the paths say outright.
pub(super) fn by_pattern(groups: &[Group]) -> Option<(Runtime, String)> {
    groups.iter().find_map(|group| {
        let parts: Vec<&str> = group.path.split('/').filter(|part| !part.is_empty()).collect();
        // Containers in containers: the innermost is the one whose root this is.
        (0..parts.len()).rev().find_map(|at| component(&parts[..at], parts[at]))
    })
}

/// The last component that is neither the host's own nor systemd's: a runtime that
/// names the group after the container, as `runc --systemd-cgroup=false` does.
pub(super) fn by_basename(groups: &[Group], host: &[Vec<Group>]) -> Option<String> {
    let foreign = groups.iter().filter(|group| !host.iter().any(|list| list.contains(group)));
    foreign
        .filter_map(|group| group.path.rsplit('/').find(|part| is_a_name(part)))
        .next()
        .map(str::to_owned)
}

fn is_a_name(part: &str) -> bool {
    const UNITS: [&str; 5] = [".service", ".slice", ".scope", ".mount", ".socket"];
    let ours = ["", "..", "payload", "supervisor"].contains(&part);
    !ours && !UNITS.iter().any(|unit| part.ends_with(unit))
}

fn component(above: &[&str], part: &str) -> Option<(Runtime, String)> {
    let unit = part.strip_suffix(".scope").unwrap_or(part);
    if part.ends_with(".mount")
        || ["crio-conmon-", "libpod-conmon-"].iter().any(|p| part.starts_with(p))
    {
        return None;
    }
    by_prefix(part, unit).or_else(|| by_parent(above, part, unit)).or_else(|| by_shape(above, unit))
}

/// Runtimes that write their name into the component.
fn by_prefix(part: &str, unit: &str) -> Option<(Runtime, String)> {
    let id = |prefix| unit.strip_prefix(prefix).filter(|id| is_id(id));
    let named = [
        ("docker-", Runtime::Docker),
        ("cri-containerd-", Runtime::Containerd),
        ("nerdctl-", Runtime::Containerd),
        ("crio-", Runtime::Podman),
        ("libpod-", Runtime::Podman),
    ];
    if let Some(found) = named.iter().find_map(|(prefix, run)| Some((*run, id(prefix)?.to_owned())))
    {
        return Some(found);
    }
    if let Some((_, id)) = part.split_once(":cri-containerd:") {
        return Some((Runtime::Containerd, id.to_owned()));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((Runtime::Lxc, name.to_owned()));
    }
    let machine = part.ends_with(".scope").then(|| unit.strip_prefix("machine-")).flatten();
    let service =
        part.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service"));
    machine.or(service).map(|name| (Runtime::Nspawn, unescape_unit(name)))
}

/// Runtimes whose name is the directory above.
fn by_parent(above: &[&str], part: &str, unit: &str) -> Option<(Runtime, String)> {
    let runtime = match *above.last()? {
        "docker" if is_id(unit) => Runtime::Docker,
        "default" if above.len() == 1 && !part.contains('.') => Runtime::Containerd,
        "machine" if !part.contains('.') => Runtime::Nspawn,
        "lxc" | "lxc.payload" => Runtime::Lxc,
        _ => return None,
    };
    Some((runtime, part.to_owned()))
}

/// What has the shape of a container's id.
fn by_shape(above: &[&str], unit: &str) -> Option<(Runtime, String)> {
    if is_id(unit) {
        let pod = above.iter().any(|part| part.starts_with("kubepods"));
        return Some((if pod { Runtime::Containerd } else { Runtime::Oci }, unit.to_owned()));
    }
    // Amazon ECS: 32 hexadecimal digits and a number.
    let (task, number) = unit.split_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (task.len() == 32 && is_hex(task) && digits).then(|| (Runtime::Oci, unit.to_owned()))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `\x2d` for a hyphen, as systemd.unit(5) escapes names.
fn unescape_unit(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => bytes.extend_from_slice(format!("\\x{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What systemd-nspawn was told to call its machine, or the name of its directory:
/// the arguments of its process, NUL between them.
pub(super) fn nspawn_machine(arguments: &[u8]) -> Option<String> {
    let arguments: Vec<&[u8]> = arguments.split(|&byte| byte == 0).collect();
    let option = |short: &[u8], long: &[u8]| -> Option<Vec<u8>> {
        let at =
            arguments.iter().position(|arg| arg.starts_with(long) || arg.starts_with(short))?;
        let inline = arguments[at].strip_prefix(long).and_then(|rest| rest.strip_prefix(b"="));
        let joined = arguments[at].strip_prefix(short).filter(|rest| !rest.is_empty());
        inline.or(joined).or(arguments.get(at + 1).copied()).map(<[u8]>::to_vec)
    };
    let machine = option(b"-M", b"--machine");
    let basename = |path: Vec<u8>| {
        path.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty()).map(<[u8]>::to_vec)
    };
    let name = machine.or_else(|| option(b"-D", b"--directory").and_then(basename))?;
    Some(String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn name(path: &str) -> Option<(Runtime, String)> {
        by_pattern(&parse(format!("0::{path}\n").as_bytes()))
    }

    #[test]
    fn runtimes_are_known_by_their_paths() {
        let table: [(&str, Runtime, &str); 17] = [
            ("/machine.slice/machine-web\\x2d1.scope/payload", Runtime::Nspawn, "web-1"),
            ("/machine.slice/systemd-nspawn@db.service/payload", Runtime::Nspawn, "db"),
            ("/machine/old", Runtime::Nspawn, "old"),
            ("/system.slice/docker-ID.scope", Runtime::Docker, ID),
            ("/docker/ID", Runtime::Docker, ID),
            ("/system.slice/cri-containerd-ID.scope", Runtime::Containerd, ID),
            ("/x/kubepods-pod1.slice:cri-containerd:ID", Runtime::Containerd, ID),
            ("/kubepods/burstable/pod12/ID", Runtime::Containerd, ID),
            ("/default/web", Runtime::Containerd, "web"),
            ("/kubepods.slice/crio-ID.scope/container", Runtime::Podman, ID),
            ("/machine.slice/libpod-ID.scope/container", Runtime::Podman, ID),
            ("/user.slice/user@1000.service/user.slice/libpod-ID.scope", Runtime::Podman, ID),
            ("/lxc.payload.c1/init.scope", Runtime::Lxc, "c1"),
            ("/lxc.payload/c1", Runtime::Lxc, "c1"),
            ("/lxc/c2/system.slice/ssh.service", Runtime::Lxc, "c2"),
            (
                "/ecs/0123456789abcdef0123456789abcdef-42",
                Runtime::Oci,
                "0123456789abcdef0123456789abcdef-42",
            ),
            ("/actions/ID", Runtime::Oci, ID),
        ];
        for (path, runtime, expected) in table {
            let path = path.replace("ID", ID);
            assert_eq!(name(&path), Some((runtime, expected.to_owned())), "{path}");
        }
    }

    #[test]
    fn helpers_and_units_are_no_containers() {
        let helpers = ["/machine.slice/libpod-conmon-ID.scope", "/x/crio-conmon-ID.scope"];
        let units = ["/lxc.monitor.c1", "/system.slice/ssh.service", "/", "/payload"];
        for path in helpers.iter().chain(&units) {
            assert_eq!(name(&path.replace("ID", ID)), None, "{path}");
        }
    }

    #[test]
    fn the_unified_hierarchy_speaks_first() {
        let text = b"9:name=systemd:/lxc.payload.b\n4:cpu,cpuacct:/x\n0::/lxc.payload.a\n";
        assert_eq!(by_pattern(&parse(text)), Some((Runtime::Lxc, "a".to_owned())));
    }

    #[test]
    fn a_basename_names_what_is_not_the_hosts() {
        let host = [parse(b"4:memory:/user.slice/x\n0::/\n")];
        let of = |text: &str| by_basename(&parse(text.as_bytes()), &host);
        assert_eq!(of("4:memory:/user.slice/x/myrunc\n0::/\n"), Some("myrunc".to_owned()));
        assert_eq!(of("4:memory:/user.slice/x\n0::/\n"), None);
        assert_eq!(of("0::/payload\n"), None);
        assert_eq!(
            of("0::/user.slice/session-3.scope\n"),
            Some("user.slice".to_owned()).filter(|_| false)
        );
    }

    #[test]
    fn nspawn_says_what_it_was_told() {
        let of = |arguments: &[u8]| nspawn_machine(arguments);
        assert_eq!(of(b"systemd-nspawn\0--machine=m1\0-D\0/srv/x\0"), Some("m1".to_owned()));
        assert_eq!(of(b"systemd-nspawn\0-M\0m2\0"), Some("m2".to_owned()));
        assert_eq!(of(b"systemd-nspawn\0-q\0-D\0/srv/web/\0/bin/sh\0"), Some("web".to_owned()));
        assert_eq!(of(b"systemd-nspawn\0-D/srv/db\0"), Some("db".to_owned()));
        assert_eq!(of(b"systemd-nspawn\0"), None);
    }
}
