//! What stood there before is made anew, under the temporary names.
#![expect(clippy::disallowed_methods, reason = "what was replaced takes its place again")]

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;

use super::{Back, Restorer};
use crate::exec::cause::explain;
use crate::exec::place::{Found, Parents, Place};
use crate::exec::settle::Is;
use crate::exec::{content, link, tree};
use crate::model::{Before, Bytes, ContentId, Metadata, RootId};

/// The inodes that names of one inode have become again, in one batch.
type Made = HashMap<(RootId, u64), File>;

impl<'a> Restorer<'a> {
    /// Makes what stood there before, under the temporary names.
    pub(super) fn build(&self, backs: &mut [Back<'a>]) {
        let mut made = Made::new();
        let mut written: Vec<(usize, File)> = Vec::new();
        for at in 0..backs.len() {
            if written.len() >= TOGETHER {
                name(backs, std::mem::take(&mut written));
            }
            let back = backs.get_mut(at).filter(|back| back.ended.is_none());
            let Some(back) = back else { continue };
            let intent = &back.entry.intent;
            let built = match &intent.before {
                Before::File { ino, size, nlink, content, metadata } => {
                    let group = (*nlink > 1).then_some((intent.root, *ino));
                    let object = intent.object.as_ref().and_then(|name| self.objects.get(name));
                    let source = back.shared.as_ref().map(|held| &held.file).or(object);
                    let group = group.map(|group| (group, &mut made));
                    self.file(&back.beside, group, (source, *size, *content), metadata)
                }
                Before::Link { target, metadata } => {
                    link::make_dressed(&back.beside, target, metadata).map(|()| None)
                }
                Before::Absent | Before::Hidden { .. } => Ok(None),
                Before::Tree { metadata } => {
                    let object = intent.object.as_ref().and_then(|name| self.trees.get(name));
                    let object = object.ok_or_else(|| io::Error::other(NO_OBJECT));
                    object
                        .and_then(|object| {
                            tree::make(&back.beside, (metadata, back.tree), object.as_fd())
                        })
                        .map(|()| None)
                }
            };
            match built {
                Ok(file) => written.extend(file.map(|file| (at, file))),
                Err(error) => back.back_out(&explain("make it anew", &error)),
            }
        }
        name(backs, written);
    }

    /// A file that is written, and has no name yet: it is to be flushed first. `None` where it
    /// has one: a file of several names is made with the first of them.
    fn file(
        &self,
        beside: &Place,
        mut group: Option<((RootId, u64), &mut Made)>,
        (source, size, content): (Option<&File>, Bytes, ContentId),
        metadata: &Metadata,
    ) -> io::Result<Option<File>> {
        if let Some((group, made)) = &mut group {
            if !made.contains_key(group)
                && let Some(standing) = self.standing(*group)
            {
                made.insert(*group, standing);
            }
            if let Some(made) = made.get(group) {
                return content::name(made.as_fd(), beside.dir(), &beside.name).map(|()| None);
            }
        }
        let source = source.ok_or_else(|| io::Error::other(NO_OBJECT))?;
        let file = content::nameless(beside.dir())?;
        if content::copy(source, &file, size)? != Some(content) {
            return Err(io::Error::other("what it is copied from changed meanwhile"));
        }
        link::chown(file.as_fd(), metadata.uid, metadata.gid)?;
        file.set_permissions(Permissions::from_mode(metadata.mode & 0o7777))?;
        link::dress(file.as_fd(), metadata)?;
        let Some((group, made)) = group else { return Ok(Some(file)) };
        file.sync_all()?;
        content::name(file.as_fd(), beside.dir(), &beside.name)?;
        made.insert(group, file);
        Ok(None)
    }

    /// A name of the group that an undo which was cut off has put back already.
    fn standing(&self, group: (RootId, u64)) -> Option<File> {
        let mut parents = Parents::default();
        self.groups.get(&group)?.iter().find_map(|entry| {
            let back = self.pin(&mut parents, entry).ok()?;
            if back.pair().name_is().ok()? != Is::Original {
                return None;
            }
            let (Found::Other(pinned), Before::File { size, content, .. }) =
                (back.place.look().ok()?, &entry.intent.before)
            else {
                return None;
            };
            let file = pinned.open().ok()?;
            (content::hash(&file, *size).ok()? == Some(*content)).then_some(file)
        })
    }
}

/// Files that are written before the first of them is flushed: a journaling file system then
/// writes its journal once for all of them.
const TOGETHER: usize = 64;

/// Gives what was written the temporary names, flushed.
fn name(backs: &mut [Back<'_>], written: Vec<(usize, File)>) {
    for (at, file) in written {
        let Some(back) = backs.get_mut(at) else { continue };
        let beside = &back.beside;
        let named =
            file.sync_all().and_then(|()| content::name(file.as_fd(), beside.dir(), &beside.name));
        if let Err(error) = named {
            back.back_out(&explain("make it anew", &error));
        }
    }
}

const NO_OBJECT: &str = "the journal names no object";
