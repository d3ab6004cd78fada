//! `.nspawn` files: systemd.nspawn(5).

use super::syntax::{self, Setting};
use super::users::Mounted;
use crate::model::{Bind, Capabilities};

/// How our files begin: by it they are known again.
pub const HEADER: &str = "# Written by cbin-audit";

/// Settings that mount something, and the option that says the same on the command line.
const MOUNTS: [(&str, &str); 6] = [
    ("Bind", "--bind"),
    ("BindReadOnly", "--bind-ro"),
    ("TemporaryFileSystem", "--tmpfs"),
    ("Inaccessible", "--inaccessible"),
    ("Overlay", "--overlay"),
    ("OverlayReadOnly", "--overlay-ro"),
];

/// The file was written by this program.
pub fn is_ours(text: &[u8]) -> bool {
    text.starts_with(HEADER.as_bytes())
}

/// A whole file that mounts `binds`; `None` when one of them cannot be written there.
pub fn file(binds: &[Bind]) -> Option<Vec<u8>> {
    let mut text = format!("{HEADER}: programs shared by containers, read-only.\n[Files]\n");
    for bind in binds {
        let value = String::from_utf8(bind_value(bind)).ok()?;
        // A line holds no line's end, and what is blank at its ends is lost.
        if value.chars().any(char::is_control) || value.trim() != value {
            return None;
        }
        text.push_str(&format!("BindReadOnly={value}\n"));
    }
    Some(text.into_bytes())
}

/// `SOURCE:TARGET`, or the path alone where both are the same; in a path, `:` and `\` stand
/// behind a backslash.
pub fn bind_value(bind: &Bind) -> Vec<u8> {
    let mut value = escaped(bind.source.as_bytes());
    if bind.source.0 != bind.target.0 {
        value.push(b':');
        value.extend(escaped(std::os::unix::ffi::OsStrExt::as_bytes(bind.target.0.as_os_str())));
    }
    value
}

/// The source and the target of a `Bind=`, `--bind-ro=`, ...
pub fn parse_bind(value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut fields = bind_fields(value).into_iter();
    let source = fields.next().unwrap_or_default();
    let target =
        fields.next().filter(|target| !target.is_empty()).unwrap_or_else(|| source.clone());
    (source, target)
}

/// A `Bind=` or `--bind=`, or what is read-only, as a mount.
pub fn bound(value: &[u8], read_only: bool) -> Mounted {
    let (source, target) = parse_bind(value);
    let options = bind_fields(value).into_iter().nth(2).unwrap_or_default();
    let mapped = options.split(|&byte| byte == b',').any(|option| option.ends_with(b"idmap"));
    let mapped = mapped && !options.ends_with(b"noidmap");
    Mounted { source, target, read_only, mapped }
}

/// An `Overlay=` or `--overlay=`, `LOWER:...:UPPER:TARGET`, as a mount of the directory that is
/// written: the last but one. Where that is none, it is a new one of systemd-nspawn's own.
pub fn overlaid(value: &[u8]) -> Option<Mounted> {
    let mut fields = bind_fields(value);
    let target = fields.pop()?;
    // With two paths the second is both.
    let source = if fields.len() < 2 { target.clone() } else { fields.pop()? };
    (!source.is_empty()).then_some(Mounted { source, target, read_only: false, mapped: false })
}

/// What `[Files]` binds, and stacks.
pub fn mounted(settings: &[Setting]) -> Vec<Mounted> {
    let of = |key: &str| syntax::list(settings, "Files", key).into_iter();
    let bound = |key: &str, read_only: bool| {
        of(key).map(move |value| bound(value.as_ref(), read_only)).collect::<Vec<_>>()
    };
    let mut all = bound("Bind", false);
    all.extend(bound("BindReadOnly", true));
    all.extend(of("Overlay").filter_map(|value| overlaid(value.as_ref())));
    all
}

fn bind_fields(value: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, fields.last_mut()) {
            (b'\\', Some(field)) => field.extend(bytes.next()),
            (b':', _) => fields.push(Vec::new()),
            (byte, Some(field)) => field.push(byte),
            (_, None) => {}
        }
    }
    fields
}

/// What a file mounts, as options of systemd-nspawn(1) in the file's order.
pub fn as_options(settings: &[Setting]) -> Vec<String> {
    let files = settings.iter().filter(|setting| setting.section == "Files");
    files
        .filter_map(|setting| {
            let (_, option) = MOUNTS.iter().find(|(key, _)| *key == setting.key)?;
            (!setting.value.is_empty()).then(|| format!("{option}={}", setting.value))
        })
        .collect()
}

/// The signal that stops the container's first process.
pub fn kill_signal(settings: &[Setting]) -> Option<&str> {
    syntax::last(settings, "Exec", "KillSignal")
}

/// The container's users on the host.
pub fn private_users(settings: &[Setting]) -> Option<&str> {
    syntax::last(settings, "Exec", "PrivateUsers")
}

/// What the container may come to have: `Capability=`, `DropCapability=`.
pub fn capabilities(settings: &[Setting]) -> Capabilities {
    let of = |key: &str| syntax::list(settings, "Exec", key);
    changed(of("Capability").into_iter(), of("DropCapability").into_iter())
}

/// What systemd-nspawn leaves a container by itself, with more of it, and then with less. It
/// takes those that reach the kernel; names in a list stand behind commas, or blanks.
pub fn changed(
    more: impl Iterator<Item = impl AsRef<str>>,
    less: impl Iterator<Item = impl AsRef<str>>,
) -> Capabilities {
    let own = Capabilities::SYS_MODULE.union(Capabilities::SYS_RAWIO);
    let own = Capabilities::ALL.without(own);
    let all = more.fold(own, |all, value| all.union(listed(value.as_ref())));
    less.fold(all, |all, value| all.without(listed(value.as_ref())))
}

fn listed(value: &str) -> Capabilities {
    let names = value.split(|c: char| c == ',' || c.is_ascii_whitespace());
    let named = |name: &str| match name {
        "all" => Some(Capabilities::ALL),
        name => Capabilities::named(name),
    };
    names.filter_map(named).fold(Capabilities::default(), Capabilities::union)
}

fn escaped(path: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        b':' | b'\\' => vec![b'\\', byte],
        _ => vec![byte],
    };
    path.iter().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{ContainerPath, HostPath};

    fn bind(source: &str, target: &str) -> Bind {
        Bind { source: HostPath::from(source), target: ContainerPath(target.into()) }
    }

    #[test]
    fn a_file_is_whole() {
        let binds =
            [bind("/home/cbin", "/cbin"), bind("/usr/share/zoneinfo", "/usr/share/zoneinfo")];
        let text = String::from_utf8(file(&binds).unwrap()).unwrap();
        let expected = "# Written by cbin-audit: programs shared by containers, read-only.\n[Files]\n\
             BindReadOnly=/home/cbin:/cbin\nBindReadOnly=/usr/share/zoneinfo\n";
        assert_eq!(text, expected);
        assert!(is_ours(text.as_bytes()));
        assert_eq!(file(&[bind("/a\nb", "/cbin")]), None);
        assert_eq!(file(&[bind("/a ", "/a ")]), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let odd = bind("/srv/c:b\\n", "/cbin");
        assert_eq!(bind_value(&odd), b"/srv/c\\:b\\\\n:/cbin");
        let (source, target) = parse_bind(&bind_value(&odd));
        assert_eq!((source.as_slice(), target.as_slice()), (&b"/srv/c:b\\n"[..], &b"/cbin"[..]));
        assert_eq!(parse_bind(b"/a"), (b"/a".to_vec(), b"/a".to_vec()));
        assert_eq!(parse_bind(b"/a:/b:norbind"), (b"/a".to_vec(), b"/b".to_vec()));
    }

    #[test]
    fn the_mounts_of_a_file_become_options() {
        let text = b"[Exec]\nKillSignal=SIGUSR2\n[Files]\nBind=/a:/b\nReadOnly=no\nTemporaryFileSystem=/x:size=1M\n";
        let settings = syntax::settings(text);
        assert_eq!(as_options(&settings), ["--bind=/a:/b", "--tmpfs=/x:size=1M"]);
        assert_eq!(kill_signal(&settings), Some("SIGUSR2"));
    }
}
