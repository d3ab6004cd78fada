//! LXC's configurations: lxc.container.conf(5).

use std::path::Path;

use super::nspawn_file::HEADER;
use super::users::{Given, Held, Mounted, Users};
use crate::model::{Bind, Capabilities, ConfigFile, HostPath, IdRange, LxcConfig};

/// Our file beside the container's own.
pub const FILE: &str = "cbin-audit.conf";
/// lxc.include can go in circles.
const MAX_INCLUDES: usize = 64;

/// `key = value` lines in the order in which LXC reads them, includes in their place.
pub fn settings(container: &LxcConfig) -> Vec<(String, String)> {
    let mut found = Vec::new();
    read(&container.file, container, &mut 0, &mut found);
    found
}

fn read(
    file: &ConfigFile,
    container: &LxcConfig,
    includes: &mut usize,
    found: &mut Vec<(String, String)>,
) {
    for (key, value) in lines(&file.bytes) {
        if key != "lxc.include" {
            found.push((key.to_owned(), value.to_owned()));
            continue;
        }
        let named = |file: &&ConfigFile| {
            file.path.0 == Path::new(value) || file.path.0.parent() == Some(Path::new(value))
        };
        for file in container.included.iter().filter(named) {
            *includes += 1;
            if *includes <= MAX_INCLUDES {
                read(file, container, includes, found);
            }
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
}

/// The container's root is `root`.
pub fn runs(container: &LxcConfig, root: &HostPath) -> bool {
    let settings = settings(container);
    let set =
        settings.iter().rev().find(|(key, _)| key == "lxc.rootfs.path" || key == "lxc.rootfs");
    match set {
        Some((_, value)) => {
            let kinds = ["dir:", "btrfs:", "zfs:"];
            let path = kinds.iter().find_map(|kind| value.strip_prefix(kind)).unwrap_or(value);
            Path::new(path) == root.0
        }
        None => container.file.path.0.parent().is_some_and(|dir| dir.join("rootfs") == root.0),
    }
}

/// What it mounts, each as a line of fstab(5): those of its `lxc.mount.fstab`, then its entries.
fn entries(container: &LxcConfig, settings: &[(String, String)]) -> Vec<String> {
    let fstab = container.fstab.iter().flat_map(|file| file.bytes.split(|&byte| byte == b'\n'));
    let lines = fstab.filter_map(|line| std::str::from_utf8(line).ok()).map(str::trim);
    let lines = lines.filter(|line| !line.starts_with('#')).map(str::to_owned);
    let entries = settings.iter().filter(|(key, _)| key == "lxc.mount.entry");
    lines.chain(entries.map(|(_, value)| value.clone())).collect()
}

/// What is mounted at a path of the container: the source of the last entry for it.
pub fn mounted_at(container: &LxcConfig, target: &Path) -> Option<Vec<u8>> {
    let entries = entries(container, &settings(container));
    entries.iter().rev().find_map(|value| {
        let mut fields = value.split_whitespace();
        let (source, point) = (fields.next()?, unescape(fields.next()?));
        let at = Path::new("/").join(Path::new(std::str::from_utf8(&point).ok()?));
        (at == target).then(|| unescape(source))
    })
}

/// How the container is held: `lxc.idmap`, `lxc.cap.*`, `lxc.namespace.*`, `lxc.mount.entry`,
/// `lxc.mount.fstab`, `lxc.cgroup.devices.*`.
pub fn held(container: &LxcConfig) -> Held {
    let settings = settings(container);
    // Namespaces that it has in common with others may be the host's.
    let shares = settings.iter().any(|(key, _)| key.starts_with("lxc.namespace."));
    let users = users(&settings).map_or(Users::Host, Users::Mapped);
    let entries = entries(container, &settings);
    let mounts = entries.iter().filter_map(|entry| mounted(entry));
    Held {
        users,
        capabilities: capabilities(&settings),
        host_mounts: shares,
        host_processes: shares,
        given: Given { disks: disks(&settings), ..Given::of(users, mounts) },
    }
}

/// The fields of fstab(5).
fn mounted(entry: &str) -> Option<Mounted> {
    let mut fields = entry.split_whitespace();
    let (source, target) = (unescape(fields.next()?), unescape(fields.next()?));
    let options: Vec<&str> = fields.nth(1).unwrap_or_default().split(',').collect();
    let said = options.iter().rev().find(|option| ["ro", "rw"].contains(option));
    Some(Mounted {
        source,
        target: [b"/", target.as_slice()].concat(),
        read_only: said == Some(&"ro"),
        mapped: options.iter().any(|option| option.starts_with("idmap=")),
    })
}

/// Block devices that it may write: all of them, unless all are denied first.
fn disks(settings: &[(String, String)]) -> Vec<(Option<u32>, Option<u32>)> {
    let mut allowed = vec![(None, None)];
    for (key, value) in settings {
        let mut fields = value.split_whitespace();
        let (kind, numbers, access) = (fields.next(), fields.next(), fields.next());
        let all = kind == Some("a");
        let numbers = numbers.and_then(|it| it.split_once(':')).unwrap_or(("*", "*"));
        match key.as_str() {
            "lxc.cgroup.devices.deny" | "lxc.cgroup2.devices.deny" if all => allowed.clear(),
            "lxc.cgroup.devices.allow" | "lxc.cgroup2.devices.allow"
                if all || kind == Some("b") && access.is_none_or(|it| it.contains('w')) =>
            {
                allowed.push((numbers.0.parse().ok(), numbers.1.parse().ok()));
            }
            _ => {}
        }
    }
    allowed
}

fn users(settings: &[(String, String)]) -> Option<IdRange> {
    let maps = settings.iter().filter(|(key, _)| key == "lxc.idmap");
    maps.filter_map(|(_, value)| {
        let mut fields = value.split_whitespace();
        let roots = fields.next()? == "u" && fields.next()? == "0";
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        roots.then_some(IdRange { first, count })
    })
    .next_back()
}

/// All of them, but for those that are dropped; where some are to be kept, these alone.
fn capabilities(settings: &[(String, String)]) -> Capabilities {
    let listed = |key: &str| {
        let mut found: Option<Capabilities> = None;
        for (_, value) in settings.iter().filter(|(named, _)| named == key) {
            // An empty value forgets those before it.
            let names = value.split_whitespace().filter_map(Capabilities::named);
            let more = names.fold(Capabilities::default(), Capabilities::union);
            found = (!value.is_empty()).then(|| found.unwrap_or_default().union(more));
        }
        found
    };
    let kept = listed("lxc.cap.keep").unwrap_or(Capabilities::ALL);
    kept.without(listed("lxc.cap.drop").unwrap_or_default())
}

/// Our file: an entry per directory. The target counts from the container's root.
pub fn file(binds: &[Bind]) -> Vec<u8> {
    let mut text = format!("{HEADER}: programs shared by containers, read-only.\n");
    for bind in binds {
        let target = std::os::unix::ffi::OsStrExt::as_bytes(bind.target.0.as_os_str());
        let target = target.strip_prefix(b"/").unwrap_or(target);
        text.push_str(&format!(
            "lxc.mount.entry = {} {} none ro,bind,create=dir 0 0\n",
            escape(bind.source.as_bytes()),
            escape(target)
        ));
    }
    text.into_bytes()
}

/// The container's configuration with our file included at its end; as it is, where it
/// includes it already.
pub fn including(config: &[u8], file: &HostPath) -> Vec<u8> {
    let path = file.0.to_string_lossy();
    if lines(config).any(|(key, value)| key == "lxc.include" && value == path) {
        return config.to_vec();
    }
    let mut text = config.to_vec();
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
    text.extend(format!("lxc.include = {path}\n").into_bytes());
    text
}

/// The fields of fstab(5): blanks and backslashes in octal. What is not UTF-8 stays out
/// of a configuration that is text; `escape` writes it in octal, too.
pub fn escape(path: &[u8]) -> String {
    let mut out = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '#' | '"' => out.push_str(&format!("\\{:03o}", u32::from(c))),
                c if c.is_ascii_control() || c == ' ' => {
                    out.push_str(&format!("\\{:03o}", u32::from(c)));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\{byte:03o}")));
    }
    out
}

fn unescape(field: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, after @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match after.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContainerPath;

    fn config(path: &str, text: &str) -> ConfigFile {
        ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
    }

    fn container(text: &str, included: &[(&str, &str)]) -> LxcConfig {
        LxcConfig {
            name: "c1".to_owned(),
            file: config("/var/lib/lxc/c1/config", text),
            included: included.iter().map(|(path, text)| config(path, text)).collect(),
            fstab: None,
        }
    }

    #[test]
    fn what_its_file_of_mounts_says_comes_first() {
        let fstab = "# a comment\n/home /host none bind 0 0\n/home/cbin cbin none bind,ro 0 0\n";
        let with = |text: &str| {
            let fstab = Some(config("/var/lib/lxc/c1/fstab", fstab));
            LxcConfig { fstab, ..container(text, &[]) }
        };
        let one = with("");
        let paths = held(&one).given.paths;
        assert_eq!(paths.len(), 1, "{paths:?}");
        assert_eq!(
            (paths[0].0.0.as_path(), paths[0].1.0.as_path()),
            (Path::new("/host"), Path::new("/home"))
        );
        let source = |one: &LxcConfig| mounted_at(one, Path::new("/cbin"));
        assert_eq!(source(&one), Some(b"/home/cbin".to_vec()));
        let entry = with("lxc.mount.entry = /srv/x cbin none bind 0 0\n");
        assert_eq!(source(&entry), Some(b"/srv/x".to_vec()));
        assert_eq!(held(&with("lxc.idmap = u 0 100000 65536\n")).given.paths, []);
    }

    #[test]
    fn the_root_is_the_last_that_is_set() {
        let root = HostPath::from("/srv/c1");
        let included = [("/etc/lxc/x.d/a.conf", "lxc.rootfs.path = /srv/c1\n")];
        let table = [
            ("lxc.rootfs.path = dir:/srv/c1\n", true),
            ("lxc.rootfs.path = /srv/c1/\n# lxc.rootfs.path = /else\n", true),
            ("lxc.rootfs = /srv/c1\nlxc.rootfs.path=/else\n", false),
            ("lxc.rootfs.path = /else\nlxc.include = /etc/lxc/x.d\n", true),
            ("lxc.include = /etc/lxc/x.d/a.conf\nlxc.rootfs.path = /else\n", false),
            ("lxc.uts.name = c1\n", false),
        ];
        for (text, expected) in table {
            assert_eq!(runs(&container(text, &included), &root), expected, "{text}");
        }
        assert!(runs(&container("", &[]), &HostPath::from("/var/lib/lxc/c1/rootfs")));
    }

    #[test]
    fn includes_that_go_in_circles_end() {
        let text = "lxc.include = /a\nlxc.uts.name = x\n";
        let circle = [("/a", "lxc.include = /a\nlxc.include = /a\n")];
        assert_eq!(settings(&container(text, &circle)).len(), 1);
    }

    #[test]
    fn an_entry_counts_from_the_root() {
        let bind = Bind {
            source: HostPath::from("/home/c bin\\"),
            target: ContainerPath("/usr/share/x".into()),
        };
        let text = String::from_utf8(file(&[bind])).unwrap_or_default();
        assert!(text.ends_with(
            "lxc.mount.entry = /home/c\\040bin\\134 usr/share/x none ro,bind,create=dir 0 0\n"
        ));
        let container = container(&text, &[]);
        let found = mounted_at(&container, Path::new("/usr/share/x"));
        assert_eq!(found.as_deref(), Some(&b"/home/c bin\\"[..]));
        assert_eq!(mounted_at(&container, Path::new("/usr")), None);
    }

    #[test]
    fn our_file_is_included_once() {
        let path = HostPath::from("/var/lib/lxc/c1/cbin-audit.conf");
        let once = including(b"lxc.uts.name = c1", &path);
        assert_eq!(once, b"lxc.uts.name = c1\nlxc.include = /var/lib/lxc/c1/cbin-audit.conf\n");
        assert_eq!(including(&once, &path), once);
    }
}
