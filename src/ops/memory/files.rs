//! What mapped files are: asked once for each object, and hashed only where two
//! objects could hold the same bytes. Files are asked on all threads: a file system that keeps
//! silent holds each of them up, but only once.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use rayon::prelude::*;

use super::scan::Scanned;
use super::{MemoryError, MemoryOptions};
use crate::analyze::{Object, ObjectFacts, PageSets};
use crate::model::{Bytes, ContentId, ElfFacts, FileStamp, InodeId, Notice, Notices, PageSet};
use crate::scan::mapped::{FileContents, MappedFile, text_pages};
use crate::scan::patience::{Beat, Patience};
use crate::scan::{ProcReader, cause, together};

/// The facts of every object, in order.
pub(super) fn facts(
    scanned: &mut Scanned,
    reader: &ProcReader,
    options: &MemoryOptions,
) -> Result<Vec<ObjectFacts>, MemoryError> {
    // Threads of its own, which may do what the caller may: those that all of the program
    // share have the privileges of whoever came first.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|error| MemoryError::Threads(io::Error::other(error)))?;
    Ok(pool.install(|| facts_of_each(scanned, reader, options)))
}

fn facts_of_each(
    scanned: &mut Scanned,
    reader: &ProcReader,
    options: &MemoryOptions,
) -> Vec<ObjectFacts> {
    let asker = Asker {
        reader,
        options,
        silent: Mutex::default(),
        idle: Mutex::default(),
        notices: Mutex::new(&mut scanned.notices),
    };
    let (files, sets) = (&scanned.files, &scanned.objects.sets);
    let objects = scanned.objects.objects.par_iter();
    let described = objects.map(|object| asker.describe(object, sets, files));
    let mut facts: Vec<Described> = described.collect();
    asker.compare(&mut facts);
    asker.name_versions(&mut facts);
    facts.into_iter().map(|described| described.facts).collect()
}

/// An object's facts, and the file they were asked of.
struct Described<'a> {
    facts: ObjectFacts,
    elf: Option<ElfFacts>,
    file: Option<(&'a MappedFile, FileStamp)>,
}

/// Two objects that differ in this differ in content.
type Likeness = (Bytes, Option<Vec<u8>>);

impl Described<'_> {
    fn likeness(&self) -> Option<Likeness> {
        let (_, stamp) = self.file.as_ref()?;
        (stamp.size > Bytes(0)).then(|| (stamp.size, self.facts.build_id.clone()))
    }
}

struct Asker<'a> {
    reader: &'a ProcReader,
    options: &'a MemoryOptions,
    /// Devices whose file system did not answer: nothing more is asked of it.
    silent: Mutex<HashSet<u64>>,
    /// Who waits for nothing now. There are no more of them than threads: to start one takes longer
    /// than to read what most are asked for.
    idle: Mutex<Vec<Patience>>,
    notices: Mutex<&'a mut Notices>,
}

impl Asker<'_> {
    fn describe<'f>(
        &self,
        object: &Object,
        sets: &PageSets,
        files: &'f [MappedFile],
    ) -> Described<'f> {
        let sighted = || object.sightings.iter().filter_map(|&number| files.get(number as usize));
        let stamped = |file: &'f MappedFile| Some((file, file.stamp()?));
        let file = sighted().find_map(stamped);
        let contents = file.and_then(|(file, _)| self.inspect(file, &object.mapped(sets)));
        let unlinked = |file: &MappedFile, nlink| file.unlinked || nlink == Some(0);
        let deleted = sighted().any(|file| {
            !file.is_anonymous() && unlinked(file, file.stamp().map(|(_, nlink)| nlink))
        });
        let elf = contents.as_ref().and_then(|contents| contents.elf.as_ref());
        let page_size = self.options.page_size;
        let facts = ObjectFacts {
            content: None,
            build_id: elf.and_then(|elf| elf.build_id.clone()),
            name: sighted().map(MappedFile::name).next().unwrap_or_default(),
            version: None,
            inodes: sighted().map(identity).collect(),
            // What was read and is not ELF has no text; what was not read is taken as mapped.
            text: contents
                .as_ref()
                .map(|_| elf.map(|elf| text_pages(elf, page_size)).unwrap_or_default()),
            cached: contents.as_ref().map(|found| found.cached.clone()).unwrap_or_default(),
            deleted,
        };
        let elf = contents.and_then(|contents| contents.elf);
        Described { facts, elf, file: file.map(|(file, (stamp, _))| (file, stamp)) }
    }

    fn inspect(&self, file: &MappedFile, resident: &PageSet) -> Option<FileContents> {
        let MemoryOptions { page_size, max_file_size, .. } = *self.options;
        let work = file.inspect(self.reader, page_size, resident, max_file_size).ok()?;
        if self.keeps_silent(file) {
            return None;
        }
        match self.ask(work) {
            Some(Ok(contents)) => Some(contents),
            Some(Err(error)) => self.tell(file, "read", cause(&error)),
            None => self.give_up(file),
        }
    }

    /// Finds the contents of objects that could be equal, to each other or to a known one.
    fn compare(&self, described: &mut [Described<'_>]) {
        let known = &self.options.known;
        for object in &mut *described {
            let file = object.file.filter(|_| object.likeness().is_some());
            object.facts.content = file.and_then(|(_, stamp)| known.get(&stamp).copied());
        }
        let sizes: HashSet<Bytes> = known.keys().map(|stamp| stamp.size).collect();
        let mut alike: HashMap<Likeness, Vec<usize>> = HashMap::new();
        for (at, object) in described.iter().enumerate() {
            if let Some(likeness) = object.likeness() {
                alike.entry(likeness).or_default().push(at);
            }
        }
        alike.retain(|likeness, objects| objects.len() > 1 || sizes.contains(&likeness.0));
        let (mut pieces, threads) = (Vec::<Vec<usize>>::new(), self.options.threads.max(1));
        let most = together(threads);
        for mut objects in alike.into_values() {
            objects.retain(|&at| described[at].facts.content.is_none());
            let each = objects.len().div_ceil(threads).clamp(1, most);
            pieces.extend(objects.chunks(each).map(<[_]>::to_vec));
        }
        let file = |&at: &usize| described[at].file;
        let hashed = pieces
            .par_iter()
            .map(|piece| self.contents(&piece.iter().filter_map(file).collect::<Vec<_>>()));
        let hashed: Vec<_> = hashed.collect();
        for (at, content) in pieces.into_iter().flatten().zip(hashed.into_iter().flatten()) {
            described[at].facts.content = content;
        }
    }

    /// What files hold that may well be alike.
    fn contents(&self, files: &[(&MappedFile, FileStamp)]) -> Vec<Option<ContentId>> {
        let mut found = self.compare_together(files).unwrap_or_default();
        found.resize(files.len(), None);
        let each = files.iter().zip(found);
        each.map(|(&(file, stamp), found)| found.or_else(|| self.hash(file, stamp))).collect()
    }

    /// What the first of them holds, for each that holds the same. What a server answers for is copied
    /// before it is read: one at a time.
    fn compare_together(
        &self,
        files: &[(&MappedFile, FileStamp)],
    ) -> Option<Vec<Option<ContentId>>> {
        let [(_, first), _, ..] = files else { return None };
        let alone = |(file, _): &(&MappedFile, _)| file.served || self.keeps_silent(file);
        if first.size > self.options.max_file_size || files.iter().any(alone) {
            return None;
        }
        let files: Vec<&MappedFile> = files.iter().map(|(file, _)| *file).collect();
        self.ask(MappedFile::hash(&files, first.size, self.reader).ok()?)?.ok()
    }

    /// Asks one object of each content that several hold for its program's version: one at a time, for
    /// what looks like a multi-call binary is read into memory as a whole, and a container decides how
    /// many there are.
    fn name_versions(&self, described: &mut [Described<'_>]) {
        let mut holders: HashMap<ContentId, u64> = HashMap::new();
        for content in described.iter().filter_map(|object| object.facts.content) {
            *holders.entry(content).or_default() += 1;
        }
        let mut held_twice = |content| holders.remove(&content).is_some_and(|count| count > 1);
        for object in described {
            let is_asked = object.facts.content.is_some_and(&mut held_twice);
            let Some((file, _)) = object.file.filter(|_| is_asked) else { continue };
            let work = object.elf.take().and_then(|elf| file.version(self.reader, elf).ok());
            let version = work.and_then(|work| self.ask(work));
            object.facts.version = version.and_then(Result::ok).flatten();
        }
    }

    fn hash(&self, file: &MappedFile, stamp: FileStamp) -> Option<ContentId> {
        if self.keeps_silent(file) {
            return None;
        }
        if stamp.size > self.options.max_file_size {
            return self.tell(file, "compare", "larger than the limit".to_owned());
        }
        let work = MappedFile::hash(&[file], stamp.size, self.reader).ok()?;
        match self.ask(work) {
            Some(Ok(content)) if content == [None] => {
                self.tell(file, "compare", "it changed meanwhile".to_owned())
            }
            Some(Ok(content)) => content.into_iter().flatten().next(),
            Some(Err(error)) => self.tell(file, "read", cause(&error)),
            None => self.give_up(file),
        }
    }

    /// What a file system answers; `None` where it does not.
    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Beat) -> T + Send + 'static) -> Option<T> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut patience = idle.unwrap_or_else(|| Patience::new(self.options.deadline));
        let answer = patience.ask(work);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(patience);
        }
        answer
    }

    fn keeps_silent(&self, file: &MappedFile) -> bool {
        self.silent.lock().is_ok_and(|silent| silent.contains(&file.key.dev))
    }

    fn give_up<T>(&self, file: &MappedFile) -> Option<T> {
        if let Ok(mut silent) = self.silent.lock() {
            silent.insert(file.key.dev);
        }
        let why = "its file system does not answer; no file of it is compared".to_owned();
        self.tell(file, "read", why)
    }

    fn tell<T>(&self, file: &MappedFile, doing: &'static str, why: String) -> Option<T> {
        let path = Path::new(OsStr::from_bytes(&file.path));
        if let Ok(mut notices) = self.notices.lock() {
            notices.push(Notice::partial(path, doing, why));
        }
        None
    }
}

/// The inode that statx(2) names, or what maps shows where it may not be asked.
fn identity(file: &MappedFile) -> InodeId {
    file.stamp().map_or(InodeId { dev: file.key.dev, ino: file.key.ino }, |(stamp, _)| stamp.inode)
}
