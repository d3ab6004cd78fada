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
    /// Where the program's word, and the name that it is told, end in it.
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
        let called =
            |file: &&ConfigFile, name: &UnitName| file_name(&file.path) == name.to_string();
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

    /// Every value in force of a setting of the section `[Service]` that may have several.
    pub fn settings(&self, key: &str) -> Vec<&str> {
        syntax::list(&self.settings, "Service", key)
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
            if above.is_some_and(|above| above == dir.as_str())
                && own != DROP_IN
                && own != LAST_DROP_IN
            {
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
    let renamed = words.first().is_some_and(|word| prefix(&word.bytes).contains(&b'@'));
    let program_end = words.get(usize::from(renamed)).map_or(0, |word| word.end);
    let mut words: Vec<Vec<u8>> = words.into_iter().map(|word| word.bytes).collect();
    if several {
        words.clear();
    }
    if let Some(first) = words.first_mut() {
        first.drain(..prefix(first).len());
    }
    if renamed && words.len() > 1 {
        words.remove(1);
    }
    Command { value: value.to_owned(), program_end, words }
}

/// What stands before the path, "Special executable prefixes" in systemd.service(5). After
/// one with `@` comes the name that the program is told.
fn prefix(word: &[u8]) -> &[u8] {
    let end = word.iter().position(|byte| !b"@-:+!|".contains(byte)).unwrap_or(word.len());
    word.get(..end).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
    }

    fn values(service: &Service) -> Vec<String> {
        service.commands().into_iter().map(|command| command.value).collect()
    }

    #[test]
    fn drop_ins_count_by_their_names_over_all_directories() {
        let host = HostConfig {
            units: vec![file(
                "/etc/systemd/system/web@.service",
                "[Service]\nExecStart=/a\nType=simple\n",
            )],
            drop_ins: vec![
                file(
                    "/etc/systemd/system/web@.service.d/20-b.conf",
                    "[Service]\nExecStart=\nExecStart=/b\n",
                ),
                file("/etc/systemd/system/web@2.service.d/10-c.conf", "[Service]\nType=exec\n"),
                file(
                    "/usr/lib/systemd/system/web@.service.d/20-b.conf",
                    "[Service]\nExecStart=/hidden\n",
                ),
                file(
                    "/etc/systemd/system/web@3.service.d/90-d.conf",
                    "[Service]\nExecStart=\nExecStart=/d\n",
                ),
                file(
                    "/etc/systemd/system/web@2.service.d/50-cbin-audit.conf",
                    "[Service]\nExecStart=/ours\n",
                ),
            ],
            ..HostConfig::default()
        };
        let instance = |number: &str| {
            let name = UnitName::parse("web@.service").map(|name| name.with_instance(number));
            name.and_then(|name| Service::instance(name, &host))
        };
        let two = instance("2").unwrap_or_else(|| panic!("no instance"));
        assert_eq!(values(&two), ["/b"]);
        assert_eq!(two.setting("Type"), Some("exec"));
        assert_eq!(
            two.drop_in().0.to_str(),
            Some("/etc/systemd/system/web@2.service.d/50-cbin-audit.conf")
        );
        let three = instance("3").unwrap_or_else(|| panic!("no instance"));
        assert_eq!(values(&three), ["/d"]);
        assert_eq!(
            three.drop_in().0.to_str(),
            Some("/etc/systemd/system/web@3.service.d/zz-cbin-audit.conf")
        );
    }

    #[test]
    fn a_unit_hides_those_of_its_name_further_down() {
        let host = HostConfig {
            units: vec![
                file("/etc/systemd/system/web.service", "[Service]\nExecStart=/a\n"),
                file("/usr/lib/systemd/system/web.service", "[Service]\nExecStart=/b\n"),
                file("/usr/lib/systemd/system/x.timer", "[Timer]\n"),
            ],
            ..HostConfig::default()
        };
        let all = Service::all(&host);
        assert_eq!(all.len(), 1);
        assert_eq!(values(&all[0]), ["/a"]);
    }

    #[test]
    fn arguments_are_added_behind_the_program() {
        let table = [
            ("/usr/bin/systemd-nspawn -bD /srv/x", "/usr/bin/systemd-nspawn --new -bD /srv/x"),
            ("-/bin/n", "-/bin/n --new"),
            ("@/bin/n told -D x", "@/bin/n told --new -D x"),
            ("\"/opt/my n\" x", "\"/opt/my n\" --new x"),
        ];
        for (value, expected) in table {
            assert_eq!(command(value).with_arguments(&["--new".to_owned()]), expected);
        }
        assert_eq!(command("@/bin/n told -D x").words.len(), 3);
        assert_eq!(command("-+/usr/bin/n").program(), b"n");
        assert!(command("/bin/a ; /bin/b").words.is_empty());
        assert!(command("/bin/a \"").words.is_empty());
    }
}
