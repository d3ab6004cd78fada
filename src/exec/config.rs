//! Writes the host's configuration files of a plan, whole or not at all, and puts them back.
#![expect(
    clippy::disallowed_methods,
    reason = "configuration files of the operator's, below directories that only they can write to"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::model::ConfigChange;

/// Where systemd reads units and settings of containers.
const SYSTEMD: &str = "/etc/systemd";
/// Where programs of the system lie: the caller's own `PATH` is not asked.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a configuration file was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An operation failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it was when the plan was made, or when it was written.
    #[error("{path:?} has been changed by somebody else: it is left as it is")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Others than root could put something else there.
    #[error("{path:?} can be changed by others than root: it is not written to")]
    Untrusted {
        /// The directory.
        path: PathBuf,
    },
}

impl ConfigError {
    fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    fn sys(doing: &'static str, path: &Path) -> impl Fn(Errno) -> Self {
        move |errno| Self::Io { doing, path: path.to_owned(), source: errno.into() }
    }
}

/// Makes a file what the plan says. It is already: nothing is done.
///
/// # Errors
///
/// [`ConfigError::Changed`] when it is neither that nor what it was.
pub fn put(change: &ConfigChange) -> Result<(), ConfigError> {
    become_(&change.file.0, change.before.as_deref(), change.after.as_deref())
}

/// Makes a file what it was before.
///
/// # Errors
///
/// [`ConfigError::Changed`] when it is no longer what was written.
pub fn take_back(change: &ConfigChange) -> Result<(), ConfigError> {
    become_(&change.file.0, change.after.as_deref(), change.before.as_deref())?;
    tidy(&change.file.0, change.before.is_none())
}

fn become_(path: &Path, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<(), ConfigError> {
    let found = read(path)?;
    if found.as_deref() == to {
        return Ok(());
    }
    if found.as_deref() != from {
        return Err(ConfigError::Changed { path: path.to_owned() });
    }
    match to {
        Some(bytes) => write(path, bytes),
        None => remove(path),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {
            fs::read(path).map(Some).map_err(ConfigError::io("read", path))
        }
        // A link, say: it is the operator's.
        Ok(_) => Err(ConfigError::Changed { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::io("look at", path)(error)),
    }
}

/// Under another name first, flushed, with the mode and owner of what it replaces.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    let (dir, name) = directory_of(path, true)?;
    let temporary = temporary(&name);
    let before = fs::symlink_metadata(path).ok();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let io = |doing| ConfigError::sys(doing, path);
    // What a run that was cut off left.
    let _absent = rustix::fs::unlinkat(&dir, &*temporary, AtFlags::empty());
    let fd = rustix::fs::openat(&dir, &*temporary, flags, Mode::from_raw_mode(0o600))
        .map_err(io("write"))?;
    let written = fill(File::from(fd), bytes, before.as_ref());
    let renamed = written.and_then(|()| Ok(rustix::fs::renameat(&dir, &*temporary, &dir, &*name)?));
    if let Err(error) = renamed {
        let _kept = rustix::fs::unlinkat(&dir, &*temporary, AtFlags::empty());
        return Err(ConfigError::io("write", path)(error));
    }
    rustix::fs::fsync(&dir).map_err(io("flush"))
}

fn fill(mut file: File, bytes: &[u8], before: Option<&fs::Metadata>) -> io::Result<()> {
    file.write_all(bytes)?;
    if let Some(before) = before {
        let (uid, gid) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid))?;
    }
    let mode = before.map_or(0o644, |before| before.mode() & 0o7777);
    rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode))?;
    file.sync_all()
}

fn remove(path: &Path) -> Result<(), ConfigError> {
    let (dir, name) = directory_of(path, false)?;
    rustix::fs::unlinkat(&dir, &*name, AtFlags::empty())
        .and_then(|()| rustix::fs::fsync(&dir))
        .map_err(ConfigError::sys("remove", path))
}

/// Where a file is written before it gets its name.
fn temporary(name: &str) -> String {
    format!(".cbin-audit-{name}.tmp")
}

/// Takes away what is beside a file, where writing or removing it was cut off, too.
fn tidy(path: &Path, gone: bool) -> Result<(), ConfigError> {
    let (dir, name) = match directory_of(path, false) {
        Err(ConfigError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(());
        }
        found => found?,
    };
    match rustix::fs::unlinkat(&dir, &*temporary(&name), AtFlags::empty()) {
        Ok(()) => rustix::fs::fsync(&dir).map_err(ConfigError::sys("flush", path))?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(ConfigError::sys("remove what was written of", path)(error)),
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    // A directory for drop-ins of one unit, which has none any more.
    if gone && above.extension().is_some_and(|extension| extension == "d") {
        let _others = fs::remove_dir(above);
    }
    Ok(())
}

/// The directory of a file, made if it is missing, and the file's name.
fn directory_of(path: &Path, make: bool) -> Result<(File, String), ConfigError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(above), Some(name)) = (path.parent(), name) else {
        return Err(ConfigError::sys("write", path)(Errno::INVAL));
    };
    if make {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)
            .map_err(ConfigError::io("make the directory", above))?;
    }
    let dir = File::open(above).map_err(ConfigError::io("open", above))?;
    let found = dir.metadata().map_err(ConfigError::io("look at", above))?;
    let own = found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw();
    if !own || found.mode() & 0o022 != 0 {
        return Err(ConfigError::Untrusted { path: above.to_owned() });
    }
    Ok((dir, name.to_owned()))
}

/// Has systemd read its units again, where it is the host's init and one of them changed.
///
/// # Errors
///
/// systemctl(1) could not be run, or refused.
pub fn reload(changes: &[ConfigChange]) -> Result<(), ConfigError> {
    let units = changes.iter().any(|change| change.file.0.starts_with(SYSTEMD));
    if !units || !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let systemctl = Path::new("systemctl");
    let failed = ConfigError::io("have systemd read its units again with", systemctl);
    let ended = program("systemctl").arg("daemon-reload").output().map_err(&failed)?;
    if ended.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(failed(io::Error::other(words)))
}

/// What `systemd-analyze verify` has to say about the units of the files that were
/// written; nothing where it is not installed.
pub fn verify(changes: &[ConfigChange]) -> Vec<String> {
    /// They have to fit into one command line.
    const AT_ONCE: usize = 500;
    let units: BTreeSet<String> = changes.iter().filter_map(unit_of).collect();
    let units: Vec<String> = units.into_iter().collect();
    let mut complaints = BTreeSet::new();
    for units in units.chunks(AT_ONCE) {
        let ended = program("systemd-analyze").args(["verify", "--man=no"]).args(units).output();
        let Ok(ended) = ended else { continue };
        let names: Vec<String> = units.iter().flat_map(|unit| names_of(unit)).collect();
        // It looks at what the units need, too, which is not ours.
        let about_them =
            |line: &&str| line.contains("cbin-audit") || names.iter().any(|n| line.contains(n));
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        complaints.extend(words.lines().filter(about_them).map(str::to_owned));
    }
    complaints.into_iter().collect()
}

/// A unit's own name, and of an instance `NAME@INSTANCE.KIND` the template's.
fn names_of(unit: &str) -> Vec<String> {
    let template = unit.split_once('@').and_then(|(name, instance)| {
        let (_, kind) = instance.rsplit_once('.')?;
        Some(format!("{name}@.{kind}"))
    });
    std::iter::once(unit.to_owned()).chain(template).collect()
}

/// The unit that a file is, or is a drop-in of.
fn unit_of(change: &ConfigChange) -> Option<String> {
    let file = &change.file.0;
    if !file.starts_with(SYSTEMD) || change.after.is_none() {
        return None;
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    match file.extension()?.to_str()? {
        "conf" => name(file.parent()?)?.strip_suffix(".d").map(str::to_owned),
        "mount" | "service" => name(file),
        _ => None,
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PROGRAMS).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::model::HostPath;

    fn change(file: &Path, before: Option<&str>, after: Option<&str>) -> ConfigChange {
        let bytes = |text: &str| text.as_bytes().to_vec();
        ConfigChange {
            file: HostPath::from(file),
            before: before.map(bytes),
            after: after.map(bytes),
        }
    }

    #[test]
    fn a_new_file_comes_and_goes_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.service.d/50-cbin-audit.conf");
        let new = change(&file, None, Some("text"));
        put(&new).unwrap();
        put(&new).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"text");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
        take_back(&new).unwrap();
        take_back(&new).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_keeps_its_mode_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, "a").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let edit = change(&file, Some("a"), Some("ab"));
        put(&edit).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read(&file).unwrap(), b"ab");
        take_back(&edit).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"a");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary name stays");
    }

    #[test]
    fn what_somebody_changed_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let edit = change(&file, Some("a"), Some("ab"));
        for there in [Some("b"), None] {
            if let Some(text) = there {
                fs::write(&file, text).unwrap();
            } else {
                fs::remove_file(&file).unwrap();
            }
            assert!(matches!(put(&edit), Err(ConfigError::Changed { .. })));
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), there);
        }
        symlink("/dev/null", &file).unwrap();
        assert!(matches!(put(&edit), Err(ConfigError::Changed { .. })));
        fs::remove_file(&file).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let new = change(&file, None, Some("x"));
        assert!(matches!(put(&new), Err(ConfigError::Untrusted { .. })));
    }

    #[test]
    fn the_unit_of_a_file() {
        let unit = |file: &str| unit_of(&change(Path::new(file), None, Some("")));
        let table = [
            ("/etc/systemd/system/n@2.service.d/50-cbin-audit.conf", Some("n@2.service")),
            ("/etc/systemd/system/srv-x-cbin.mount", Some("srv-x-cbin.mount")),
            ("/etc/systemd/system/cbin-audit-store-x.service", Some("cbin-audit-store-x.service")),
            ("/etc/systemd/nspawn/x.nspawn", None),
            ("/var/lib/lxc/c1/cbin-audit.conf", None),
        ];
        for (file, expected) in table {
            assert_eq!(unit(file).as_deref(), expected, "{file}");
        }
    }
}
