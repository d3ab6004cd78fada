//! Which services run a root, and how.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::UnitName;
use super::nspawn_options::NspawnOptions;
use super::service::{Command, Service};
use crate::model::{HostConfig, HostPath};

/// Where systemd-nspawn looks for a machine that is named alone.
const MACHINES: &str = "/var/lib/machines";

/// A service that runs a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// The service; of a template, the instance.
    pub service: Service,
    /// By what means.
    pub by: RunBy,
}

/// How a service runs a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunBy {
    /// Its command, the `at`th, is systemd-nspawn.
    Nspawn {
        /// Which of the commands.
        at: usize,
        /// What systemd-nspawn is told, specifiers replaced.
        options: NspawnOptions,
    },
    /// `RootDirectory=`: systemd.exec(5).
    RootDirectory,
    /// Its command is chroot(1).
    Chroot,
}

/// A path in which specifiers stand as written, and how it is run.
type Way = (Vec<u8>, RunBy);

/// What the host says about how containers are run, and what that means: read once, asked for
/// each root.
#[derive(Debug, Default)]
pub struct Host {
    /// The files.
    pub config: HostConfig,
    /// The services that run any root, and which.
    services: Vec<(Service, Vec<Way>)>,
}

impl From<HostConfig> for Host {
    fn from(config: HostConfig) -> Self {
        let all = Service::all(&config).into_iter();
        let services = all.map(|service| {
            let ways = ways(&service);
            (service, ways)
        });
        let services = services.filter(|(_, ways)| !ways.is_empty()).collect();
        Self { config, services }
    }
}

/// The services that run a root, in the order of their names.
pub fn runners(root: &HostPath, host: &Host) -> Vec<Runner> {
    let mut found = Vec::new();
    for (service, ways) in &host.services {
        if service.name.is_template() {
            for name in instances(&service.name, ways, root) {
                let one = Service::instance(name, &host.config);
                found.extend(one.and_then(|one| runner(&one, &self::ways(&one), root)));
            }
        } else {
            found.extend(runner(service, ways, root));
        }
    }
    found.sort_by(|a, b| a.service.name.cmp(&b.service.name));
    found.dedup_by(|a, b| a.service.name == b.service.name);
    found
}

/// The instances of a template that would run a root.
fn instances(template: &UnitName, ways: &[Way], root: &HostPath) -> Vec<UnitName> {
    let instance = |(word, _): &Way| template.instance_for(without_slash(word), root.as_bytes());
    ways.iter().filter_map(instance).collect()
}

fn runner(service: &Service, ways: &[Way], root: &HostPath) -> Option<Runner> {
    let by = ways.iter().find_map(|(word, by)| {
        let path = service.name.expand(word)?;
        (path_of(&path) == root.0).then_some(by)
    })?;
    Some(Runner { service: service.clone(), by: by.clone() })
}

/// The roots that a service runs.
fn ways(service: &Service) -> Vec<Way> {
    let mut ways = Vec::new();
    if let Some(dir) = service.setting("RootDirectory") {
        ways.push((dir.trim_matches('"').as_bytes().to_vec(), RunBy::RootDirectory));
    }
    for (at, command) in service.commands().iter().enumerate() {
        match command.program() {
            b"systemd-nspawn" => ways.extend(nspawn(service, at, command)),
            b"chroot" => ways.extend(chroot(command)),
            _ => {}
        }
    }
    ways
}

fn nspawn(service: &Service, at: usize, command: &Command) -> Option<Way> {
    let arguments = command.words.get(1..)?;
    let told = NspawnOptions::parse(arguments);
    let dir = match (told.last("directory"), told.last("machine")) {
        // A variable's value is not known here.
        (Some(dir), _) if dir.contains(&b'$') => return None,
        (Some(dir), _) if dir.starts_with(b"/") || dir.starts_with(b"%") => dir.to_vec(),
        (Some(dir), _) => [service.setting("WorkingDirectory")?.as_bytes(), b"/", dir].concat(),
        (None, Some(name)) if !told.has("image") => [MACHINES.as_bytes(), b"/", name].concat(),
        (None, _) => return None,
    };
    let expand = |word: &Vec<u8>| service.name.expand(word).unwrap_or_else(|| word.clone());
    let options = NspawnOptions::parse(&arguments.iter().map(expand).collect::<Vec<_>>());
    Some((dir, RunBy::Nspawn { at, options }))
}

fn chroot(command: &Command) -> Option<Way> {
    let mut arguments = command.words.iter().skip(1);
    let dir = arguments.find(|word| !word.starts_with(b"-"))?;
    Some((dir.clone(), RunBy::Chroot))
}

fn without_slash(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    path.get(..end).unwrap_or_default()
}

/// The path without `.`, doubled slashes and a slash at the end.
fn path_of(bytes: &[u8]) -> PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(bytes)).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConfigFile;

    fn host(units: &[(&str, &str)]) -> HostConfig {
        let file = |(name, text): &(&str, &str)| ConfigFile {
            path: HostPath::from(format!("/etc/systemd/system/{name}")),
            bytes: text.as_bytes().to_vec(),
        };
        HostConfig { units: units.iter().map(file).collect(), ..HostConfig::default() }
    }

    fn found(units: &[(&str, &str)], root: &str) -> Vec<(String, &'static str)> {
        let kind = |by: &RunBy| match by {
            RunBy::Nspawn { .. } => "nspawn",
            RunBy::RootDirectory => "root directory",
            RunBy::Chroot => "chroot",
        };
        let runners = runners(&HostPath::from(root), &host(units).into());
        runners.iter().map(|r| (r.service.name.to_string(), kind(&r.by))).collect()
    }

    #[test]
    fn services_that_run_a_root_are_found() {
        let units = [
            ("a.service", "[Service]\nExecStart=/usr/bin/systemd-nspawn -bD /home/nifty2/\n"),
            (
                "b.service",
                "[Service]\nExecStart=-/bin/systemd-nspawn --quiet \\\n --directory=//home/./nifty2\n",
            ),
            ("c@.service", "[Service]\nExecStart=systemd-nspawn -bD /home/nifty%i\n"),
            ("d.service", "[Service]\nRootDirectory=/home/nifty2\nExecStart=/bin/httpd\n"),
            (
                "e.service",
                "[Service]\nExecStart=/usr/sbin/chroot --userspec=1 /home/nifty2 /bin/x\n",
            ),
            (
                "f.service",
                "[Service]\nExecStart=/bin/systemd-nspawn -D /home/other /bin/x -D /home/nifty2\n",
            ),
            (
                "g.service",
                "[Service]\nWorkingDirectory=/home\nExecStart=/bin/systemd-nspawn -D nifty2\n",
            ),
            ("h.service", "[Service]\nExecStart=/bin/sh -c 'systemd-nspawn -D /home/nifty2'\n"),
            ("i.service", "[Service]\nExecStart=/bin/systemd-nspawn -D $WHERE\n"),
        ];
        let expected = [
            ("a.service", "nspawn"),
            ("b.service", "nspawn"),
            ("c@2.service", "nspawn"),
            ("d.service", "root directory"),
            ("e.service", "chroot"),
            ("g.service", "nspawn"),
        ];
        let expected: Vec<_> = expected.map(|(name, by)| (name.to_owned(), by)).to_vec();
        assert_eq!(found(&units, "/home/nifty2"), expected);
    }

    #[test]
    fn machines_that_are_named_lie_where_machinectl_keeps_them() {
        let nspawn = "[Service]\nExecStart=systemd-nspawn --quiet --keep-unit --boot \
            --link-journal=try-guest --network-veth -U --settings=override --machine=%i\n";
        let units = [("systemd-nspawn@.service", nspawn)];
        let expected = [("systemd-nspawn@web.service".to_owned(), "nspawn")];
        assert_eq!(found(&units, "/var/lib/machines/web"), expected);
        assert_eq!(found(&units, "/srv/web"), []);
    }

    #[test]
    fn an_instance_with_a_unit_of_its_own_is_not_the_templates() {
        let units = [
            ("c@.service", "[Service]\nExecStart=systemd-nspawn -bD /home/nifty%i\n"),
            ("c@2.service", "[Service]\nExecStart=systemd-nspawn -bD /home/else\n"),
        ];
        assert_eq!(found(&units, "/home/nifty2"), []);
        assert_eq!(found(&units, "/home/else"), [("c@2.service".to_owned(), "nspawn")]);
    }
}
