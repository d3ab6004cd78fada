//! The store as a file system that nobody can write: generations of an EROFS image.
//!
//! ```text
//! STORE/<object>                  what undo needs, and images are made of: never mounted anywhere
//! STORE/.generations/000001.erofs an image of every object that there was
//! STORE/.generations/000001/      it, mounted
//! STORE/.view -> .generations/000001
//! STORE/.view.erofs -> .generations/000001.erofs
//! ```
//!
//! Containers see what `.view` leads to when they start, and keep it: a new object makes a
//! new generation, which holds the old objects too, and the link is exchanged for one to
//! it. A link into the store is only written once the generation that has its object is
//! mounted. An image is whole and flushed before it has its name; one that was cut off has a
//! temporary one.
#![expect(clippy::disallowed_methods, reason = "the store is the tool's own directory")]

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::ExecError;
use super::space::takes;
use super::store::check_tree;
use crate::model::{Bytes, ObjectName, StoreFormat};
use crate::scan::objects::objects;
use crate::scan::running::uses_device;

/// Where images and their mounts are, below the store.
const GENERATIONS: &str = ".generations";
/// What containers are shown, below the store.
const VIEW: &str = StoreFormat::VIEW;
/// How names begin that stand for a moment.
const TEMPORARY: &str = ".cbin-audit-";

/// A generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number, counted from 1.
    pub number: u64,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// It was made just now.
    pub new: bool,
}

/// Where the generations of a store are mounted.
pub fn mounts(store: &Path) -> Vec<PathBuf> {
    let numbers = numbers(store).unwrap_or_default();
    numbers.into_iter().map(|number| point(store, number)).collect()
}

/// Makes the newest generation hold every object of the store, and mounts it.
///
/// # Errors
///
/// When the image cannot be made or mounted, or does not hold what the objects hold: then
/// the view is what it was.
pub fn publish(store: &Path) -> Result<Generation, ExecError> {
    let wanted = sound(store)?;
    if let Some(current) = restore(store)?
        && names(&current.mount)? == wanted
    {
        lead(store, current.number)?;
        return Ok(current);
    }
    let number = numbers(store)?.last().map_or(1, |last| last + 1);
    build(store, number)?;
    let mount = mount(store, number)?;
    if sound(&mount)? != wanted {
        let why = "the image does not hold what the store holds".to_owned();
        return Err(ExecError::Image { path: image(store, number), why });
    }
    lead(store, number)?;
    Ok(Generation { number, mount, new: true })
}

/// The bytes and the inodes that [`publish`] takes once these objects have come into the store,
/// whose files have these sizes: an image is first written without holes.
pub(crate) fn room(store: &Path, new: &[(ObjectName, u64)]) -> Result<(u64, u64), ExecError> {
    // The image and its mount point, their directory, two links, one of them twice.
    const INODES: u64 = 6;
    let mut wanted = names(store)?;
    let old =
        wanted.iter().map(|name| sizes(&store.join(name.as_str()))).fold(0, u64::saturating_add);
    wanted.extend(new.iter().map(|(name, _)| name.clone()));
    if names(&store.join(VIEW))? == wanted {
        return Ok((0, INODES));
    }
    let new = new.iter().map(|(_, size)| *size).fold(old, u64::saturating_add);
    Ok((new.saturating_add(2 * takes::DIRECTORY), INODES))
}

/// What an object takes in an image.
fn sizes(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let stats = walkdir::WalkDir::new(path).into_iter().flatten();
    let stats = stats.filter_map(|entry| entry.metadata().ok());
    let sizes =
        stats.filter(|stat| seen.insert(stat.ino())).map(|stat| takes::whole_blocks(stat.len()));
    sizes.fold(0, u64::saturating_add)
}

/// Mounts the generation that the view leads to, after a restart of the host say, and
/// takes away what was cut off. `None`: the store has no generation.
///
/// # Errors
///
/// When it cannot be mounted.
pub fn restore(store: &Path) -> Result<Option<Generation>, ExecError> {
    let dir = store.join(GENERATIONS);
    for name in list(&dir)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        remove_if_there(&dir.join(name))?;
    }
    remove_if_there(&next_link(store))?;
    let Ok(target) = fs::read_link(store.join(VIEW)) else { return Ok(None) };
    let number = target.file_name().and_then(|name| name.to_str()?.parse().ok());
    let Some(number) = number else { return Ok(None) };
    Ok(Some(Generation { number, mount: mount(store, number)?, new: false }))
}

/// Removes the generations that the view does not lead to, and that are mounted in no container
/// nor for one, and that no process maps. Returns their images, and the blocks that these took.
///
/// # Errors
///
/// When the store cannot be listed, or an image cannot be removed.
pub fn collect(store: &Path) -> Result<Vec<(PathBuf, Bytes)>, ExecError> {
    let current = restore(store)?.map(|current| current.number);
    let mut removed = Vec::new();
    for number in numbers(store)?.into_iter().filter(|number| Some(*number) != current) {
        let (image, point) = (image(store, number), point(store, number));
        if is_mounted(store, &point) {
            if in_use(&point)? {
                continue;
            }
            // EBUSY where something has it open after all: it stays for the next time.
            if rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).is_err() {
                continue;
            }
        }
        let blocks = fs::symlink_metadata(&image).map_or(0, |stat| stat.blocks());
        fs::remove_file(&image).map_err(ExecError::io("remove", &image))?;
        match fs::remove_dir(&point) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ExecError::io("remove", &point)(error));
            }
            _ => removed.push((image, Bytes(blocks.saturating_mul(512)))),
        }
    }
    Ok(removed)
}

/// The objects of a directory, every one of which holds what its name says.
fn sound(dir: &Path) -> Result<BTreeSet<ObjectName>, ExecError> {
    let mut names = names(dir)?;
    names.retain(ObjectName::is_tree);
    for name in &names {
        check_tree(dir, name, None)?;
    }
    for object in objects(dir).map_err(ExecError::io("list", dir))? {
        let path = dir.join(object.name.as_str());
        let content = object.content.map_err(ExecError::io("read", &path))?;
        if !object.name.fits(content) {
            let why = "its content is not what its name says".to_owned();
            return Err(ExecError::ObjectDamaged { path, why });
        }
        names.insert(object.name);
    }
    Ok(names)
}

fn names(dir: &Path) -> Result<BTreeSet<ObjectName>, ExecError> {
    let names = list(dir)?.into_iter().filter_map(|name| ObjectName::parse(&name));
    Ok(names.collect())
}

fn list(dir: &Path) -> Result<Vec<String>, ExecError> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names.collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(ExecError::io("list", dir)(error)),
    }
}

fn numbers(store: &Path) -> Result<Vec<u64>, ExecError> {
    let names = list(&store.join(GENERATIONS))?;
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| name.strip_suffix(".erofs")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn image(store: &Path, number: u64) -> PathBuf {
    store.join(GENERATIONS).join(format!("{number:06}.erofs"))
}

fn point(store: &Path, number: u64) -> PathBuf {
    store.join(GENERATIONS).join(format!("{number:06}"))
}

/// Makes an image; it has its name only when it is whole and flushed.
fn build(store: &Path, number: u64) -> Result<(), ExecError> {
    let dir = store.join(GENERATIONS);
    make_dir(&dir)?;
    let (image, temporary) = (image(store, number), dir.join(format!("{TEMPORARY}{number:06}")));
    // Times are those of the objects: who reads a directory may go by them.
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.args(["--quiet", "--preserve-mtime", "-x-1", "--all-root", "--exclude-regex=^[.]"]);
    run(mkfs.args(["-U", "00000000-0000-0000-0000-000000000000"]).arg(&temporary).arg(store))?;
    // Files with holes are written without them. Where the file system has none, they stay so.
    let _as_large = run(Command::new("fallocate").arg("--dig-holes").arg(&temporary));
    let flushed = File::open(&temporary).and_then(|file| file.sync_all());
    flushed.map_err(ExecError::io("flush", &temporary))?;
    fs::rename(&temporary, &image).map_err(ExecError::io("name", &image))?;
    flush(&dir)
}

/// Mounts a generation, unless it is.
fn mount(store: &Path, number: u64) -> Result<PathBuf, ExecError> {
    let point = point(store, number);
    make_dir(&point)?;
    if !is_mounted(store, &point) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "erofs", "-o", "ro,nodev"]);
        run(mount.arg(image(store, number)).arg(&point))?;
    }
    Ok(point)
}

/// The view leads to a generation that is not mounted, as after a restart of the host.
pub fn is_left_unmounted(store: &Path) -> bool {
    let target = fs::read_link(store.join(VIEW));
    target.is_ok_and(|target| !is_mounted(store, &store.join(target)))
}

fn is_mounted(store: &Path, point: &Path) -> bool {
    let dev = |path: &Path| fs::symlink_metadata(path).map(|stat| stat.dev()).ok();
    dev(point).is_some_and(|it| Some(it) != dev(store))
}

/// Exchanges what the view leads to. The link to the image comes first: should the host boot
/// between the two, what is mounted at the older place holds all that the older image did.
fn lead(store: &Path, number: u64) -> Result<(), ExecError> {
    let point = Path::new(GENERATIONS).join(format!("{number:06}"));
    exchange(store, StoreFormat::IMAGE, &point.with_extension("erofs"))?;
    exchange(store, VIEW, &point)
}

/// Has a link of the store lead to `target`, unless it does.
fn exchange(store: &Path, name: &str, target: &Path) -> Result<(), ExecError> {
    let (link, temporary) = (store.join(name), next_link(store));
    if fs::read_link(&link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    remove_if_there(&temporary)?;
    symlink(target, &temporary).map_err(ExecError::io("make", &temporary))?;
    fs::rename(&temporary, &link).map_err(ExecError::io("name", &link))?;
    flush(store)
}

/// A link of the store that has not got its name yet.
fn next_link(store: &Path) -> PathBuf {
    store.join(format!("{TEMPORARY}view"))
}

fn remove_if_there(path: &Path) -> Result<(), ExecError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ExecError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// It is shown elsewhere, or a process maps something of it.
fn in_use(point: &Path) -> Result<bool, ExecError> {
    let dev = fs::metadata(point).map_err(ExecError::io("look at", point))?.dev();
    uses_device(Path::new("/proc"), dev, point)
        .map_err(ExecError::io("look at processes of", point))
}

fn make_dir(path: &Path) -> Result<(), ExecError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(ExecError::io("make", path)(error))
        }
        _ => Ok(()),
    }
}

fn flush(dir: &Path) -> Result<(), ExecError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(ExecError::io("flush", dir))
}

/// Runs one of the host's own programs, which says on standard error why it failed.
fn run(command: &mut Command) -> Result<(), ExecError> {
    let program = PathBuf::from(command.get_program());
    let output = match command.env("LC_ALL", "C").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "it is not installed: it comes with erofs-utils, or util-linux";
            return Err(ExecError::Image { path: program, why: why.to_owned() });
        }
        output => output.map_err(ExecError::io("run", &program))?,
    };
    if output.status.success() {
        return Ok(());
    }
    // What a signal has ended says nothing.
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let why = if said.is_empty() { output.status.to_string() } else { said };
    Err(ExecError::Image { path: program, why })
}
