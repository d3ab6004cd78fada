//! Reads the files that say how the host runs containers.
//!
//! They are the administrator's, and links among them are followed, but never out of the
//! directory that stands for the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::roots::lxc;
use super::{cause, dir};
use crate::model::{ConfigFile, HostConfig, HostPath, LxcConfig, Notice, Notices, OciBundle};

/// Directories with units, those that count most first: systemd.unit(5).
const UNIT_DIRS: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Directories with `.nspawn` files that are trusted: systemd.nspawn(5).
const NSPAWN_DIRS: [&str; 2] = ["/etc/systemd/nspawn", "/run/systemd/nspawn"];
/// Drop-ins of targets that are ours begin so.
const OURS: &[u8] = b"50-cbin-audit-";

/// A unit is some kilobytes; more is none.
const MAX_UNIT: u64 = 1 << 20;
/// An OCI configuration has all of seccomp's rules in it.
const MAX_BUNDLE: u64 = 16 << 20;
/// lxc.include can go in circles.
const MAX_INCLUDES: usize = 64;

/// Reads what `host`, a directory that stands for `/`, says about running containers.
/// `roots`, and all paths of the answer, are as seen from there. What cannot be read is a notice.
pub fn host_config(host: &Path, roots: &[HostPath], notices: &mut Notices) -> HostConfig {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(CWD, host, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) => {
            notices.push(note(host, &error.into()));
            return HostConfig::default();
        }
    };
    let mut reader = Reader { host: fd, notices };
    let (units, drop_ins) = reader.units();
    HostConfig {
        systemd: reader.open(Path::new("/run/systemd/system"), OFlags::PATH).is_ok(),
        units,
        drop_ins,
        nspawn: reader.nspawn(roots),
        lxc: reader.lxc(),
        bundles: roots.iter().filter_map(|root| reader.bundle(root)).collect(),
    }
}

struct Reader<'a> {
    host: OwnedFd,
    notices: &'a mut Notices,
}

impl Reader<'_> {
    /// Units, and drop-ins.
    fn units(&mut self) -> (Vec<ConfigFile>, Vec<ConfigFile>) {
        let (mut units, mut drop_ins) = (Vec::new(), Vec::new());
        // On a merged /usr the last two are one directory.
        let mut seen = Vec::new();
        for dir in UNIT_DIRS.map(Path::new) {
            let Some(inode) = self.inode(dir).filter(|inode| !seen.contains(inode)) else {
                continue;
            };
            seen.push(inode);
            for name in self.names(dir) {
                let path = dir.join(&name);
                match path.extension().map(OsStr::as_bytes) {
                    Some(b"service" | b"mount") => units.extend(self.unit(&path)),
                    Some(b"d") => drop_ins.extend(self.drop_ins(&path)),
                    _ => {}
                }
            }
        }
        (units, drop_ins)
    }

    /// A unit. One that is masked, a link to `/dev/null`, is there and empty.
    fn unit(&mut self, path: &Path) -> Option<ConfigFile> {
        let target = self.link(path);
        if target.as_deref() == Some(Path::new("/dev/null")) {
            return Some(ConfigFile { path: HostPath::from(path), bytes: Vec::new() });
        }
        self.file(path, MAX_UNIT)
    }

    /// The drop-ins of services, and those of ours.
    fn drop_ins(&mut self, dir: &Path) -> Vec<ConfigFile> {
        let of_service = dir.as_os_str().as_bytes().ends_with(b"service.d");
        let mut found = Vec::new();
        for name in self.names(dir) {
            let name = name.as_os_str().as_bytes();
            if name.ends_with(b".conf") && (of_service || name.starts_with(OURS)) {
                found.extend(self.file(&dir.join(OsStr::from_bytes(name)), MAX_UNIT));
            }
        }
        found
    }

    /// The `.nspawn` files that are trusted, then those beside the roots.
    fn nspawn(&mut self, roots: &[HostPath]) -> Vec<ConfigFile> {
        let mut files = Vec::new();
        for dir in NSPAWN_DIRS.map(Path::new) {
            for name in self.names(dir) {
                if name.extension() == Some(OsStr::new("nspawn")) {
                    files.extend(self.file(&dir.join(name), MAX_UNIT));
                }
            }
        }
        for root in roots {
            let mut beside = root.0.clone().into_os_string();
            beside.push(".nspawn");
            files.extend(self.file(Path::new(&beside), MAX_UNIT));
        }
        files
    }

    /// The containers of the system's LXC.
    fn lxc(&mut self) -> Vec<LxcConfig> {
        let settings = self.file(Path::new("/etc/lxc/lxc.conf"), MAX_UNIT);
        let path = lxc::lxc_path(&settings.map(|file| file.bytes).unwrap_or_default());
        let mut containers = Vec::new();
        for name in self.names(&path) {
            let Some(file) = self.trusted_file(&path.join(&name).join("config"), MAX_UNIT) else {
                continue;
            };
            let mut included = Vec::new();
            self.included(&file, &mut included);
            let name = name.to_string_lossy().into_owned();
            let mut container = LxcConfig { name, file, included, fstab: None };
            let fstab = lxc_fstab(&container).filter(|path| !path.is_empty());
            container.fstab = fstab.and_then(|path| self.file(Path::new(&path), MAX_UNIT));
            containers.push(container);
        }
        containers
    }

    fn included(&mut self, file: &ConfigFile, found: &mut Vec<ConfigFile>) {
        let values = lxc::lines(&file.bytes).filter(|(key, _)| *key == "lxc.include");
        for (_, value) in values {
            let path = Path::new(value);
            let names = self.names(path);
            let in_dir = names.iter().filter(|name| name.extension() == Some(OsStr::new("conf")));
            let mut files: Vec<PathBuf> = in_dir.map(|name| path.join(name)).collect();
            if files.is_empty() {
                files.push(path.to_owned());
            }
            for path in files {
                let known = found.iter().any(|file| file.path.0 == path);
                if known || found.len() >= MAX_INCLUDES {
                    continue;
                }
                if let Some(file) = self.file(&path, MAX_UNIT) {
                    found.push(file.clone());
                    self.included(&file, found);
                }
            }
        }
    }

    /// The bundle that a root lies in.
    fn bundle(&mut self, root: &HostPath) -> Option<OciBundle> {
        let path = root.0.parent()?.join("config.json");
        let file = self.trusted_file(&path, MAX_BUNDLE)?;
        Some(OciBundle { root: root.clone(), file })
    }

    /// A file that nobody but root and the caller could have put there.
    fn trusted_file(&mut self, path: &Path, limit: u64) -> Option<ConfigFile> {
        let dir = self.open(path.parent()?, OFlags::PATH).ok()?;
        let file = self.open(path, OFlags::PATH).ok()?;
        let trusted = |fd: &OwnedFd| {
            let stat = dir::stat_fd(fd.as_fd()).ok()?;
            let own = stat.stx_uid == 0 || stat.stx_uid == rustix::process::geteuid().as_raw();
            (own && stat.stx_mode & 0o002 == 0).then_some(())
        };
        trusted(&dir).and(trusted(&file))?;
        self.file(path, limit)
    }

    /// A regular file; what is there and cannot be read is a notice.
    fn file(&mut self, path: &Path, limit: u64) -> Option<ConfigFile> {
        match self.read(path, limit) {
            Ok(bytes) => Some(ConfigFile { path: HostPath::from(path), bytes }),
            Err(error) => {
                if !is_absent(&error) {
                    self.notices.push(note(path, &error));
                }
                None
            }
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let about = self.open(path, OFlags::PATH)?;
        if !dir::file_type(&dir::stat_fd(about.as_fd())?).is_file() {
            return Err(Errno::NOENT.into());
        }
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let mut bytes = Vec::new();
        File::from(file).take(limit + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > limit {
            true => Err(Errno::FBIG.into()),
            false => Ok(bytes),
        }
    }

    /// The names in a directory, in byte order; none where there is no such directory.
    fn names(&mut self, path: &Path) -> Vec<PathBuf> {
        match self.try_names(path) {
            Ok(names) => names,
            Err(error) => {
                if !is_absent(&error) {
                    self.notices.push(note(path, &error));
                }
                Vec::new()
            }
        }
    }

    fn try_names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if !name.starts_with(b".") {
                names.push(PathBuf::from(OsStr::from_bytes(&name)));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn inode(&self, path: &Path) -> Option<crate::model::InodeId> {
        let fd = self.open(path, OFlags::PATH).ok()?;
        Some(dir::inode_id(&dir::stat_fd(fd.as_fd()).ok()?))
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        let dir = self.open(path.parent()?, OFlags::PATH).ok()?;
        let target = rustix::fs::readlinkat(dir, path.file_name()?, Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// Opens a path of the host: links are taken as from its `/`, openat2(2).
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..dir::TRIES {
            let opened = rustix::fs::openat2(
                &self.host,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            );
            match opened {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

/// `lxc.mount.fstab`, or `lxc.mount` as it was called before LXC 2.1; the last one counts.
fn lxc_fstab(container: &LxcConfig) -> Option<String> {
    // What is included stands where it is: which is the last of several is not told here.
    let files = container.included.iter().chain([&container.file]);
    let values = files.flat_map(|file| lxc::lines(&file.bytes));
    let named = values.filter(|(key, _)| ["lxc.mount.fstab", "lxc.mount"].contains(key));
    named.last().map(|(_, value)| value.to_owned())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}

fn note(path: &Path, error: &io::Error) -> Notice {
    // What is not known about running a container is told when its mounts are planned.
    Notice::info(path, "read configuration", cause(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::os::unix::fs::symlink;

    fn lay(host: &Path, path: &str, text: &str) {
        let path = host.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(host: &Path, roots: &[&str]) -> HostConfig {
        let roots: Vec<HostPath> = roots.iter().map(|root| HostPath::from(*root)).collect();
        let mut notices = Notices::default();
        let found = host_config(host, &roots, &mut notices);
        assert!(notices.iter().next().is_none(), "{notices:?}");
        found
    }

    fn paths(files: &[ConfigFile]) -> Vec<String> {
        files.iter().map(|file| file.path.0.display().to_string()).collect()
    }

    #[test]
    fn units_come_in_the_order_in_which_they_count() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path();
        lay(host, "etc/systemd/system/a.service", "[Service]\n");
        lay(host, "usr/lib/systemd/system/a.service", "[Service]\n");
        lay(host, "usr/lib/systemd/system/b.service", "[Service]\n");
        lay(host, "usr/lib/systemd/system/b.socket", "");
        lay(host, "etc/systemd/system/b.service.d/x.conf", "");
        lay(host, "etc/systemd/system/b.service.d/x.txt", "");
        lay(host, "etc/systemd/system/local-fs.target.d/50-cbin-audit-x.conf", "");
        lay(host, "etc/systemd/system/local-fs.target.d/theirs.conf", "");
        symlink("/dev/null", host.join("etc/systemd/system/masked.service")).unwrap();
        symlink("usr/lib", host.join("lib")).unwrap();
        // A link of the host is taken from its own top.
        symlink("/usr/lib/systemd/system/b.service", host.join("etc/systemd/system/c.service"))
            .unwrap();
        let found = read(host, &[]);
        let expected = [
            "/etc/systemd/system/a.service",
            "/etc/systemd/system/c.service",
            "/etc/systemd/system/masked.service",
            "/usr/lib/systemd/system/a.service",
            "/usr/lib/systemd/system/b.service",
        ];
        assert_eq!(paths(&found.units), expected);
        let drop_ins = [
            "/etc/systemd/system/b.service.d/x.conf",
            "/etc/systemd/system/local-fs.target.d/50-cbin-audit-x.conf",
        ];
        assert_eq!(paths(&found.drop_ins), drop_ins);
        assert!(!found.systemd);
    }

    #[test]
    fn nspawn_files_lxc_and_bundles() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path();
        lay(host, "run/systemd/nspawn/x.nspawn", "");
        lay(host, "etc/systemd/nspawn/x.nspawn", "");
        lay(host, "srv/web.nspawn", "");
        lay(host, "etc/lxc/lxc.conf", "lxc.lxcpath = /srv/lxc\n");
        lay(
            host,
            "srv/lxc/c1/config",
            "lxc.include = /etc/lxc/d\nlxc.include = /etc/lxc/one\nlxc.mount.fstab = /srv/lxc/c1/fstab\n",
        );
        lay(host, "srv/lxc/c1/fstab", "/home home none bind 0 0\n");
        lay(host, "etc/lxc/d/a.conf", "lxc.include = /etc/lxc/d\n");
        lay(host, "etc/lxc/one", "");
        lay(host, "srv/b/config.json", "{}");
        lay(host, "run/systemd/system/.keep", "");
        let found = read(host, &["/srv/web", "/srv/b/rootfs"]);
        let nspawn =
            ["/etc/systemd/nspawn/x.nspawn", "/run/systemd/nspawn/x.nspawn", "/srv/web.nspawn"];
        assert_eq!(paths(&found.nspawn), nspawn);
        assert_eq!(found.lxc[0].name, "c1");
        assert!(found.lxc[0].fstab.as_ref().is_some_and(|it| it.bytes.starts_with(b"/home home")));
        assert_eq!(paths(&found.lxc[0].included), ["/etc/lxc/d/a.conf", "/etc/lxc/one"]);
        assert_eq!(found.bundles[0].root, HostPath::from("/srv/b/rootfs"));
        assert!(found.systemd);
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        lay(dir.path(), "secret", "out");
        std::fs::create_dir_all(host.join("etc/systemd/nspawn")).unwrap();
        symlink("../../../../secret", host.join("etc/systemd/nspawn/x.nspawn")).unwrap();
        assert_eq!(read(&host, &[]).nspawn, []);
    }

    #[test]
    fn what_cannot_be_read_is_a_notice() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), "etc/systemd/nspawn/x.nspawn", &"#".repeat(MAX_UNIT as usize + 1));
        let mut notices = Notices::default();
        assert_eq!(host_config(dir.path(), &[], &mut notices).nspawn, []);
        assert_eq!(notices.iter().count(), 1);
    }
}
