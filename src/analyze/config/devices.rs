//! Which disks systemd lets a container open: `DevicePolicy=` and `DeviceAllow=` of
//! systemd.resource-control(5).

use super::nspawn_options::NspawnOptions;
use super::service::Service;

/// Numbers of disks; without one, all of them.
type Disks = Vec<(Option<u32>, Option<u32>)>;

/// Files in `/dev` that are no disks.
const NO_DISKS: [&str; 14] = [
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "console",
    "ptmx",
    "net/tun",
    "fuse",
    "kmsg",
    "rtc0",
    "loop-control",
    "mapper/control",
];

/// What a group of `/proc/devices` has for numbers, where these are always the same.
const GROUPS: [(&str, u32); 4] = [("loop", 7), ("sd", 8), ("md", 9), ("blkext", 259)];

/// systemd-nspawn has a scope made for its container that is closed to all disks, unless
/// `--property=` opens it; with `--keep-unit` the container stays in the unit that runs it.
pub(super) fn of_nspawn(options: &NspawnOptions, service: &Service) -> Disks {
    if options.has("keep-unit") {
        let policy = service.setting("DevicePolicy").unwrap_or("auto");
        let allowed = service.settings("DeviceAllow");
        return match (policy, allowed.as_slice()) {
            ("auto", []) => vec![(None, None)],
            (_, allowed) => allowed.iter().flat_map(|value| disks(value)).collect(),
        };
    }
    let properties = options.all("property").map(String::from_utf8_lossy);
    let allowed = properties.filter_map(|it| Some(it.strip_prefix("DeviceAllow=")?.to_owned()));
    allowed.flat_map(|value| disks(&value)).collect()
}

/// The disks of one `DeviceAllow=SPECIFIER ACCESS` that may be written.
fn disks(value: &str) -> Disks {
    let mut fields = value.split_ascii_whitespace();
    let (Some(what), access) = (fields.next(), fields.next()) else { return Vec::new() };
    if access.is_some_and(|access| !access.contains('w')) || what.starts_with("char-") {
        return Vec::new();
    }
    let group = what.strip_prefix("block-");
    let known = group.and_then(|name| GROUPS.iter().find(|(known, _)| *known == name));
    match (known, what.strip_prefix("/dev/")) {
        (Some((_, major)), _) => vec![(Some(*major), None)],
        (None, Some(file)) if NO_DISKS.contains(&file) || file.starts_with("pts") => Vec::new(),
        // It may be any.
        _ => vec![(None, None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_of_disks() {
        let table: [(&str, &[(Option<u32>, Option<u32>)]); 8] = [
            ("/dev/null rw", &[]),
            ("char-pts rw", &[]),
            ("/dev/sda r", &[]),
            ("block-loop rw", &[(Some(7), None)]),
            ("block-* rwm", &[(None, None)]),
            ("block-device-mapper", &[(None, None)]),
            ("/dev/sda rw", &[(None, None)]),
            ("/dev/net/tun rwm", &[]),
        ];
        for (value, expected) in table {
            assert_eq!(disks(value), expected, "{value}");
        }
    }
}
