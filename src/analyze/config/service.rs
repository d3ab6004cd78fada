//! A service as systemd sees it: the unit's file and its drop-ins, merged.

use std::collections::{BTreeMap, BTreeSet};

use super::names::UnitName;
use super::syntax::{self, Setting};
use super::words;
use crate::model::{ConfigFile, HostConfig, HostPath};

/// Where administrators keep units, and this program its drop-ins.
pub const UNIT_DIR: &str = "/etc/systemd/system";
/// Our drop-in.
pub const DROP_IN: &str = "50-cbin-audit.conf";
/// Our drop-in where a later one sets the command line again.
pub const LAST_DROP_IN: &str = "zz-cbin-audit.conf";

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: UnitName,
    settings: Vec<Setting>,
    /// The file names of the drop-ins that set `ExecStart=`.
    commanding: BTreeSet<String>,
}

/// One command of an `ExecStart=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The value as it stands in the unit.
    pub value: String,
    /// Where the program's word ends in it.
    pub program_end: usize,
    /// Program and arguments, unquoted; specifiers stand as written.
    pub words: Vec<Vec<u8>>,
}

impl Service {
    /// Every service of the host that has a unit; templates among them.
    pub fn all(host: &HostConfig) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for file in &host.units {
            let Some(name) = UnitName::parse(&file_name(&file.path)) else { continue };
            if name.kind == "service" && seen.insert(name.clone()) {
                all.push(Self::merge(name, file, host));
            }
        }
        all
    }

    /// The instance of a template, with the drop-ins that are for it alone; `None` where
    /// the instance has a unit of its own.
    pub fn instance(name: UnitName, host: &HostConfig) -> Option<Self> {
        let called = |file: &&ConfigFile, name: &UnitName| file_name(&file.path) == name.to_string();
        if host.units.iter().any(|file| called(&file, &name)) {
            return None;
        }
        let template = name.template()?;
        let file = host.units.iter().find(|file| called(file, &template))?;
        Some(Self::merge(name, file, host))
    }

    fn merge(name: UnitName, file: &ConfigFile, host: &HostConfig) -> Self {
        let mut settings = syntax::settings(&file.bytes);
        let mut commanding = BTreeSet::new();
        for (name, file) in drop_ins(&name, host) {
            let more = syntax::settings(&file.bytes);
            if more.iter().any(|s| s.section == "Service" && s.key == "ExecStart") {
                commanding.insert(name);
            }
            settings.extend(more);
        }
        Self { name, settings, commanding }
    }

    /// The last value of a setting of the section `[Service]`.
    pub fn setting(&self, key: &str) -> Option<&str> {
        syntax::last(&self.settings, "Service", key)
    }

    /// The commands of `ExecStart=` in force. One that cannot be taken apart has no words.
    pub fn commands(&self) -> Vec<Command> {
        let values = syntax::list(&self.settings, "Service", "ExecStart");
        values.into_iter().map(command).collect()
    }

    /// Where our drop-in for it lies.
    pub fn drop_in(&self) -> HostPath {
        let later = self.commanding.range(DROP_IN.to_owned()..).next().is_some();
        let file = if later { LAST_DROP_IN } else { DROP_IN };
        HostPath::from(format!("{UNIT_DIR}/{}.d/{file}", self.name))
    }
}

/// The drop-ins for a unit, in the order in which they count: that of their file names,
/// over all directories. Ours is left out, it is written anew.
fn drop_ins<'a>(name: &UnitName, host: &'a HostConfig) -> BTreeMap<String, &'a ConfigFile> {
    let mut found = BTreeMap::new();
    for dir in name.drop_in_dirs() {
        for file in &host.drop_ins {
            let above = file.path.0.parent().and_then(|parent| parent.file_name());
            let own = file_name(&file.path);
            if above.is_some_and(|above| above == dir.as_str()) && own != DROP_IN && own != LAST_DROP_IN {
                found.entry(own).or_insert(file);
            }
        }
    }
    found
}

fn command(value: &str) -> Command {
    let words = words::split(value).unwrap_or_default();
    // `;` was a way to write several commands in one line.
    let several = words.iter().any(|word| word.bare && word.bytes == b";");
    let program_end = words.first().map_or(0, |word| word.end);
    let mut words: Vec<Vec<u8>> = words.into_iter().map(|word| word.bytes).collect();
    if several {
        words.clear();
    }
    // systemd.service(5), "Special executable prefixes". After `@` comes the name for argv[0].
    if let Some(first) = words.first_mut() {
        let plain = first.iter().position(|byte| !b"@-:+!|".contains(byte)).unwrap_or(first.len());
        let renamed = first.get(..plain).is_some_and(|prefix| prefix.contains(&b'@'));
        first.drain(..plain);
        if renamed && words.len() > 1 {
            words.remove(1);
        }
    }
    Command { value: value.to_owned(), program_end, words }
}

impl Command {
    /// The program's file name.
    pub fn program(&self) -> &[u8] {
        let path = self.words.first().map(Vec::as_slice).unwrap_or_default();
        path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// The value with arguments added right after the program, where options of its own
    /// stand before whatever the container runs.
    pub fn with_arguments(&self, added: &[String]) -> String {
        let (program, rest) = self.value.split_at(self.program_end);
        let added: String = added.iter().map(|argument| format!(" {argument}")).collect();
        format!("{program}{added}{rest}")
    }
}

/// The last component, for comparing.
pub fn file_name(path: &HostPath) -> String {
    path.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
