//! A run's records are read, and what they amount to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::line::{self, Bad};
use crate::exec::error::ExecError;
use crate::model::{
    Before, Begin, HostPath, Intent, JOURNAL_VERSION, JournalDirectory, JournalObject, Outcome,
    Record, RootId, RootPath, RunId, RunState, TreeEntry,
};

/// One entry that a run changed, or was about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was about to be done.
    pub intent: Intent,
    /// How it ended; `None`: it was cut off.
    pub outcome: Option<Outcome>,
    /// Why, where it is not what the plan says.
    pub cause: Option<String>,
    /// It was about to be put back, and that did not end.
    pub undoing: bool,
}

/// A configuration file that a run wrote, or was about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The plan's step.
    pub step: u32,
    /// The root that it is for.
    pub root: RootId,
    /// The file.
    pub file: HostPath,
    /// Its content before.
    pub before: Option<Vec<u8>>,
    /// Its content afterwards.
    pub after: Option<Vec<u8>>,
}

/// A mount point that a run used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The plan's step.
    pub step: u32,
    /// The root.
    pub root: RootId,
    /// The mount point below it.
    pub path: RootPath,
    /// The directory of the host that is seen there.
    pub source: HostPath,
    /// It was made for the mount.
    pub made: bool,
    /// It was mounted at once, on the host or inside the running container.
    pub mounted: bool,
}

/// What the records of a run amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it is about.
    pub begin: Begin,
    /// Objects that it put into the store.
    pub objects: Vec<JournalObject>,
    /// The host's own link, and its target.
    pub host_link: Option<(HostPath, Vec<u8>)>,
    /// Configuration files, in order.
    pub configs: Vec<Config>,
    /// Mount points, in order.
    pub attaches: Vec<Attach>,
    /// Entries of trees that were taken away, by step.
    pub trees: BTreeMap<u32, Vec<TreeEntry>>,
    /// Entries, by step.
    pub entries: BTreeMap<u32, Entry>,
    /// Directories that the run left with other times.
    pub directories: BTreeMap<(RootId, RootPath), JournalDirectory>,
    /// Steps that made files share their blocks: they need no intent, and no undo.
    pub shared: BTreeSet<u32>,
    /// Steps that ended without having been begun: they were left as they were.
    pub refused: BTreeMap<u32, String>,
    /// Whether an undo was begun, and of which root the last one was.
    pub undo: Option<Option<RootId>>,
    /// What it was left in.
    pub state: RunState,
}

/// What was found in a run's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// No record was ever flushed: nothing was done.
    Empty,
    /// A run.
    Run {
        /// What its records amount to.
        run: Box<Run>,
        /// The bytes of the file that are sound; a torn line may follow.
        length: u64,
    },
}

/// Reads a run.
///
/// # Errors
///
/// When the file cannot be read, is damaged, or is of a newer version.
pub fn read(journal: &Path, run: RunId) -> Result<Reading, ExecError> {
    let path = super::file(journal, run);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ExecError::NoRun { run, journal: journal.to_owned() });
        }
        file => file.map_err(ExecError::io("open", &path))?,
    };
    let mut records = Records::new(BufReader::new(file), path);
    let Some(first) = records.next().transpose()? else { return Ok(Reading::Empty) };
    let mut replay = records.begin(first)?;
    while let Some(record) = records.next().transpose()? {
        replay.take(record).map_err(|why| records.damaged(why))?;
    }
    Ok(Reading::Run { run: Box::new(replay), length: records.sound })
}

/// A last record is shorter than this.
const LAST: u64 = 256;

/// What a run is about; `None` where no record was ever flushed. Nothing else is read.
///
/// # Errors
///
/// When the file cannot be read, is damaged there, or is of a newer version.
pub fn begin(journal: &Path, run: RunId) -> Result<Option<Begin>, ExecError> {
    let path = super::file(journal, run);
    let file = File::open(&path).map_err(ExecError::io("open", &path))?;
    let mut records = Records::new(BufReader::new(file), path);
    let Some(first) = records.next().transpose()? else { return Ok(None) };
    Ok(Some(records.begin(first)?.begin))
}

/// The run came to its end.
///
/// # Errors
///
/// When the file cannot be read.
pub fn is_finished(journal: &Path, run: RunId) -> Result<bool, ExecError> {
    Ok(ended(journal, run)?.is_some_and(|state| state != RunState::Unfinished))
}

/// Nothing of the run stands, as its last record says. Nothing else is read.
///
/// # Errors
///
/// When the file cannot be read.
pub fn is_gone(journal: &Path, run: RunId) -> Result<bool, ExecError> {
    Ok(matches!(ended(journal, run)?, Some(RunState::Undone | RunState::RolledBack)))
}

/// What a run was left in, where its last record says so. Nothing else is read.
///
/// # Errors
///
/// When the file cannot be read.
fn ended(journal: &Path, run: RunId) -> Result<Option<RunState>, ExecError> {
    let path = super::file(journal, run);
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST)))?;
        let mut tail = Vec::new();
        file.take(LAST).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = tail().map_err(ExecError::io("read", &path))?;
    let Some(lines) = tail.strip_suffix(b"\n") else { return Ok(None) };
    let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    match line::decode(last) {
        Ok(Record::End { state }) => Ok(Some(state)),
        _ => Ok(None),
    }
}

/// The records of a file, in order.
pub(super) struct Records<R> {
    from: R,
    path: PathBuf,
    line: usize,
    /// Bytes of the lines that were sound.
    sound: u64,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(from: R, path: PathBuf) -> Self {
        Self { from, path, line: 0, sound: 0 }
    }

    pub(super) fn begin(&self, first: Record) -> Result<Run, ExecError> {
        let Record::Begin(begin) = first else {
            return Err(self.damaged("it does not begin with a run".to_owned()));
        };
        if begin.version > JOURNAL_VERSION {
            let (version, known) = (begin.version, JOURNAL_VERSION);
            return Err(ExecError::JournalNewer { path: self.path.clone(), version, known });
        }
        Ok(Run::new(begin))
    }

    fn damaged(&self, why: String) -> ExecError {
        ExecError::JournalDamaged { path: self.path.clone(), line: self.line, why }
    }

    /// `None` at the end, and at a last line that was never flushed whole.
    pub(super) fn read<T>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<T, Bad>,
    ) -> Result<Option<T>, ExecError> {
        let mut line = Vec::new();
        let read = self.from.read_until(b'\n', &mut line);
        let length = read.map_err(ExecError::io("read", &self.path))?;
        self.line += 1;
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(None) };
        match decode(text) {
            Ok(record) => {
                self.sound += length as u64;
                Ok(Some(record))
            }
            Err(Bad::Record(why)) => Err(self.damaged(why)),
            Err(Bad::Checksum) if self.is_last()? => Ok(None),
            Err(Bad::Checksum) => Err(self.damaged("its checksum does not match".to_owned())),
        }
    }

    fn is_last(&mut self) -> Result<bool, ExecError> {
        let rest = self.from.fill_buf().map_err(ExecError::io("read", &self.path))?;
        Ok(rest.is_empty())
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Record, ExecError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.read(line::decode).transpose()
    }
}

impl Run {
    fn new(begin: Begin) -> Self {
        Self {
            begin,
            objects: Vec::new(),
            host_link: None,
            configs: Vec::new(),
            attaches: Vec::new(),
            trees: BTreeMap::new(),
            entries: BTreeMap::new(),
            directories: BTreeMap::new(),
            shared: BTreeSet::new(),
            refused: BTreeMap::new(),
            undo: None,
            state: RunState::Unfinished,
        }
    }

    /// Entries that are as the plan wants them.
    pub fn done(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.outcome == Some(Outcome::Done))
    }

    /// What was below an entry that was a directory.
    pub fn tree(&self, entry: &Entry) -> &[TreeEntry] {
        self.trees.get(&entry.intent.step).map_or(&[], Vec::as_slice)
    }

    /// Takes the next record; the reason where it fits nowhere.
    fn take(&mut self, record: Record) -> Result<(), String> {
        if !matches!(record, Record::End { .. }) {
            self.state = RunState::Unfinished;
        }
        match record {
            Record::Begin(_) => return Err("a second run begins in it".to_owned()),
            Record::Objects(objects) => self.objects.extend(objects),
            Record::HostLink { path, target } => self.host_link = Some((path, target)),
            Record::Config { step, root, file, before, after } => {
                self.configs.push(Config { step, root, file, before, after });
            }
            Record::Attach { step, root, path, source, made, mounted } => {
                self.attaches.push(Attach { step, root, path, source, made, mounted });
            }
            Record::Tree { step, entries } => drop(self.trees.insert(step, entries)),
            Record::Intents(intents) => self.intend(intents)?,
            Record::Undoing(steps) => return self.undoing(&steps),
            Record::Ended(ended) => ended.into_iter().for_each(|ended| self.end(&ended)),
            Record::Directories(directories) => {
                let keyed = directories.into_iter().map(|dir| ((dir.root, dir.path.clone()), dir));
                self.directories.extend(keyed);
            }
            Record::UndoBegin { root, .. } => self.undo = Some(root),
            Record::End { state } => self.state = state,
        }
        Ok(())
    }

    fn intend(&mut self, intents: Vec<Intent>) -> Result<(), String> {
        for intent in intents {
            if !self.begin.roots.iter().any(|root| root.id == intent.root) {
                return Err(format!("it speaks of a root {} that it does not know", intent.root.0));
            }
            let entry = Entry { intent, outcome: None, cause: None, undoing: false };
            self.entries.insert(entry.intent.step, entry);
        }
        Ok(())
    }

    fn undoing(&mut self, steps: &[u32]) -> Result<(), String> {
        for step in steps {
            let entry = self.entries.get_mut(step);
            let entry = entry.ok_or_else(|| format!("it speaks of a step {step} unknown to it"))?;
            entry.undoing = true;
        }
        Ok(())
    }

    fn end(&mut self, ended: &crate::model::Ended) {
        for step in &ended.steps {
            match self.entries.get_mut(step) {
                Some(entry) => {
                    entry.outcome = Some(ended.outcome);
                    entry.cause.clone_from(&ended.cause);
                    // What is parked is looked at again in the same direction.
                    entry.undoing &= ended.outcome == Outcome::Parked;
                }
                None if ended.outcome == Outcome::Done => {
                    self.shared.insert(*step);
                }
                None => {
                    self.refused.insert(*step, ended.cause.clone().unwrap_or_default());
                }
            }
        }
    }

    /// The root that an entry belongs to.
    pub fn root(&self, id: RootId) -> Option<&crate::model::JournalRoot> {
        self.begin.roots.iter().find(|root| root.id == id)
    }

    /// What undo would need to write, by the inodes of the files that were replaced.
    pub fn files(&self) -> impl Iterator<Item = (&Intent, u64)> {
        self.done().filter_map(|entry| match &entry.intent.before {
            Before::File { size, .. } => Some((&entry.intent, size.0)),
            _ => None,
        })
    }
}
