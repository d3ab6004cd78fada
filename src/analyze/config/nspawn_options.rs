//! The command line of systemd-nspawn(1), as getopt_long(3) takes it apart.

use super::nspawn_file;
use super::users::Mounted;
use crate::model::Capabilities;

/// Short options that take a value (systemd 252: `+hD:u:abL:M:jS:Z:qi:xp:nUE:P`).
const SHORT_WITH_VALUE: &[u8] = b"DuLMSZipE";

/// Long options that take a value.
const LONG_WITH_VALUE: [&str; 58] = [
    "ambient-capability",
    "background",
    "bind",
    "bind-ro",
    "bind-user",
    "bind-user-shell",
    "capability",
    "chdir",
    "cleanup",
    "console",
    "cpu-affinity",
    "directory",
    "drop-capability",
    "hostname",
    "image",
    "image-policy",
    "inaccessible",
    "kill-signal",
    "link-journal",
    "load-credential",
    "machine",
    "network-bridge",
    "network-interface",
    "network-ipvlan",
    "network-macvlan",
    "network-namespace-path",
    "network-veth-extra",
    "network-zone",
    "no-new-privileges",
    "notify-ready",
    "oci-bundle",
    "oom-score-adjust",
    "overlay",
    "overlay-ro",
    "personality",
    "pivot-root",
    "port",
    "private-users-ownership",
    "property",
    "register",
    "resolv-conf",
    "rlimit",
    "root-hash",
    "root-hash-sig",
    "selinux-apifs-context",
    "selinux-context",
    "set-credential",
    "setenv",
    "settings",
    "slice",
    "suppress-sync",
    "system-call-filter",
    "template",
    "timezone",
    "tmpfs",
    "user",
    "uuid",
    "verity-data",
];

/// Long options without one, or whose value stands behind `=`.
const LONG_ALONE: [&str; 20] = [
    "as-pid2",
    "boot",
    "ephemeral",
    "help",
    "keep-unit",
    "legend",
    "network-veth",
    "no-pager",
    "pipe",
    "private-network",
    "private-users",
    "private-users-chown",
    "quiet",
    "read-only",
    "share-system",
    "version",
    "volatile",
    "kill-who",
    "no-ask-password",
    "private-pid",
];

/// Options after which systemd-nspawn leaves the mounts of a `.nspawn` file out:
/// `SETTING_CUSTOM_MOUNTS` of its source.
const MOUNTS: [&str; 6] = ["bind", "bind-ro", "tmpfs", "overlay", "overlay-ro", "inaccessible"];

/// What systemd-nspawn is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NspawnOptions {
    given: Vec<(String, Vec<u8>)>,
}

impl NspawnOptions {
    /// Takes the arguments after the program's name apart, up to the first that is none
    /// of systemd-nspawn's own.
    pub fn parse(arguments: &[Vec<u8>]) -> Self {
        let mut given = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == b"--" {
                break;
            } else if let Some(long) = argument.strip_prefix(b"--") {
                given.extend(long_option(long, &mut rest));
            } else if let Some(short) = argument.strip_prefix(b"-").filter(|s| !s.is_empty()) {
                short_options(short, &mut rest, &mut given);
            } else {
                break;
            }
        }
        Self { given }
    }

    /// The last value of an option, by its long name.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.given.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_slice())
    }

    /// The option is there.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    /// What the container may come to have, where the command line says so: then a `.nspawn`
    /// file is not asked (`SETTING_CAPABILITY` of systemd-nspawn's source).
    pub fn capabilities(&self) -> Option<Capabilities> {
        let given = |option: &str| -> Vec<String> {
            let mine = self.given.iter().filter(|(name, _)| name == option);
            mine.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
        };
        let (more, less) = (given("capability"), given("drop-capability"));
        let said = !more.is_empty() || !less.is_empty();
        said.then(|| nspawn_file::changed(more.iter(), less.iter()))
    }

    /// It mounts something of its own: the mounts of a `.nspawn` file are left out.
    pub fn masks_settings_mounts(&self) -> bool {
        self.given.iter().any(|(name, _)| MOUNTS.contains(&name.as_str()))
    }

    /// What `--bind` and `--bind-ro` mount: each option's name and value.
    pub fn binds(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let binds = self.given.iter().filter(|(name, _)| name == "bind" || name == "bind-ro");
        binds.map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The same as mounts, and what `--overlay` stacks.
    pub fn mounted(&self) -> Vec<Mounted> {
        let bound = self.binds();
        let bound = bound.map(|(name, value)| nspawn_file::bound(value, name == "bind-ro"));
        let stacked = self.all("overlay").filter_map(nspawn_file::overlaid);
        bound.chain(stacked).collect()
    }

    /// Every value of an option, by its long name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_slice())
    }

    /// The name of the machine, by which its `.nspawn` file is found: `-M`, or the last
    /// component of the directory without what no host name may have.
    pub fn machine(&self, directory: Option<&[u8]>) -> Option<String> {
        let from = match self.last("machine") {
            Some(name) => name.to_vec(),
            None => directory?.rsplit(|&b| b == b'/').find(|part| !part.is_empty())?.to_vec(),
        };
        let kept = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let name: String = from.into_iter().filter(kept).map(char::from).collect();
        (!name.is_empty()).then_some(name)
    }
}

/// `NAME=VALUE`, `NAME VALUE` or `NAME`; a name may be cut short where it stays unique.
fn long_option<'a>(
    text: &[u8],
    rest: &mut impl Iterator<Item = &'a Vec<u8>>,
) -> Option<(String, Vec<u8>)> {
    let text_name = text.split(|&byte| byte == b'=').next()?;
    let name = full_name(std::str::from_utf8(text_name).ok()?);
    let value = match text.get(text_name.len() + 1..) {
        Some(value) => value.to_vec(),
        None if LONG_WITH_VALUE.contains(&name.as_str()) => rest.next()?.clone(),
        None => Vec::new(),
    };
    Some((name, value))
}

fn full_name(text: &str) -> String {
    let known = || LONG_WITH_VALUE.iter().chain(&LONG_ALONE);
    let mut longer = known().filter(|name| name.starts_with(text));
    match (known().any(|name| *name == text), longer.next(), longer.next()) {
        (false, Some(only), None) => (*only).to_owned(),
        _ => text.to_owned(),
    }
}

/// `-bD DIR`, `-bDDIR`: letters, of which the first that takes a value takes the rest.
fn short_options<'a>(
    letters: &[u8],
    rest: &mut impl Iterator<Item = &'a Vec<u8>>,
    given: &mut Vec<(String, Vec<u8>)>,
) {
    for (at, letter) in letters.iter().enumerate() {
        let takes_value = SHORT_WITH_VALUE.contains(letter);
        let behind = letters.get(at + 1..).unwrap_or_default();
        let value = match (takes_value, behind.is_empty()) {
            (true, false) => behind.to_vec(),
            (true, true) => rest.next().cloned().unwrap_or_default(),
            (false, _) => Vec::new(),
        };
        // `-U` lets systemd-nspawn choose the users.
        let value = if *letter == b'U' { b"pick".to_vec() } else { value };
        given.push((long_name(*letter), value));
        if takes_value {
            return;
        }
    }
}

fn long_name(letter: u8) -> String {
    let name = match letter {
        b'D' => "directory",
        b'M' => "machine",
        b'i' => "image",
        b'b' => "boot",
        b'x' => "ephemeral",
        b'U' => "private-users",
        b'u' => "user",
        b'a' => "as-pid2",
        b'S' => "slice",
        other => return char::from(other).to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> NspawnOptions {
        let words: Vec<Vec<u8>> = line.split_whitespace().map(|w| w.as_bytes().to_vec()).collect();
        NspawnOptions::parse(&words)
    }

    #[test]
    fn the_directory_is_found_in_every_spelling() {
        let lines = [
            "-bD /srv/web",
            "-bD/srv/web",
            "-b -D /srv/web",
            "--directory=/srv/web -b",
            "--directory /srv/web",
            "--dir=/srv/web",
            "-qM x -D /srv/web /bin/sh -D /else",
            "--bind-ro /a -D /srv/web",
            "-D /else -D /srv/web",
            "--bind-ro=/a:/b -D /srv/web -- -D /z",
        ];
        for line in lines {
            assert_eq!(parse(line).last("directory"), Some(&b"/srv/web"[..]), "{line}");
        }
        assert_eq!(parse("/bin/x -D /srv/web").last("directory"), None);
    }

    #[test]
    fn mounts_of_its_own_mask_those_of_the_settings() {
        for line in
            ["--bind=/a", "--bind-ro /a", "--tmpfs=/x", "--overlay=/a:/b", "--inaccessible=/x"]
        {
            assert!(parse(line).masks_settings_mounts(), "{line}");
        }
        for line in ["-bD /srv/web", "--bind-user=x", "-b /bin/sh --bind=/a"] {
            assert!(!parse(line).masks_settings_mounts(), "{line}");
        }
        let options = parse("--bind=/a --bind-ro=/b:/c");
        let binds: Vec<_> = options.binds().collect();
        assert_eq!(binds, [("bind", &b"/a"[..]), ("bind-ro", &b"/b:/c"[..])]);
    }

    #[test]
    fn a_machine_is_named_or_called_after_its_directory() {
        assert_eq!(parse("-M web").machine(Some(b"/srv/x")).as_deref(), Some("web"));
        assert_eq!(parse("-b").machine(Some(b"/srv/my root/")).as_deref(), Some("myroot"));
        assert_eq!(parse("-b").machine(None), None);
    }
}
