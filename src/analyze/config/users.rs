//! Whose users the container of a root is configured to have, and what its root may do.

use super::nspawn_options::NspawnOptions;
use super::runners::{self, RunBy};
use super::{lxc, nspawn, nspawn_file, oci, syntax};
use crate::analyze::plan::Member;
use crate::model::{Capabilities, Escape, HostConfig, HostPath, IdRange, OciBundle, TrustDomain};

/// The users of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    /// Those of the host.
    Host,
    /// These of the host's, in a user namespace.
    Mapped(IdRange),
    /// Some of the host's that are chosen when it starts, in a user namespace.
    Picked,
}

/// How a container is held by its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Whose its users are.
    pub(super) users: Users,
    /// What its processes can come to have.
    pub(super) capabilities: Capabilities,
    /// It shares the host's mount namespace.
    pub(super) host_mounts: bool,
    /// It sees the host's processes.
    pub(super) host_processes: bool,
}

impl Held {
    fn member(self) -> Member {
        let of = |domain, writes| Member { domain, writes };
        match self.users {
            Users::Picked => of(TrustDomain::Picked, false),
            Users::Mapped(range) if range.first != 0 => of(TrustDomain::Users(range), false),
            // The host's root owns the store's files, whatever namespace it is in.
            Users::Mapped(_) => of(TrustDomain::Host, true),
            Users::Host => {
                let (mounts, processes) = (self.host_mounts, self.host_processes);
                let ways = Escape::open_to(self.capabilities, mounts, processes);
                of(TrustDomain::Host, !ways.is_empty())
            }
        }
    }
}

/// Who a root's container is to the others by its configuration; `None` where that says
/// nothing. Of several ways in which it is run the one that allows most counts.
pub fn configured(root: &HostPath, host: &HostConfig) -> Option<Member> {
    let units = runners::runners(root, host).into_iter().map(|runner| match &runner.by {
        RunBy::Nspawn { options, .. } => by_nspawn(options, root, host),
        RunBy::RootDirectory | RunBy::Chroot => None,
    });
    let lxc = host.lxc.iter().filter(|container| lxc::runs(container, root)).map(lxc::held);
    let is_mine = |bundle: &&OciBundle| bundle.root == *root;
    let bundles = host.bundles.iter().filter(is_mine).map(|bundle| oci::held(&bundle.file.bytes));
    let ways: Option<Vec<Member>> =
        units.chain(lxc.map(Some)).chain(bundles).map(|held| held.map(Held::member)).collect();
    let most = |member: &Member| (member.writes, member.domain == TrustDomain::Host);
    ways?.into_iter().max_by_key(most)
}

/// What systemd-nspawn(1) is told, or reads in the settings of its machine.
fn by_nspawn(options: &NspawnOptions, root: &HostPath, host: &HostConfig) -> Option<Held> {
    let machine = options.machine(Some(root.as_bytes()));
    // Which of both wins is the option's to say: then nothing is said here.
    let file = machine.filter(|_| !options.has("settings"));
    let file = file.and_then(|machine| nspawn::trusted_settings(&machine, host));
    let settings = file.map(|file| syntax::settings(&file.bytes)).unwrap_or_default();
    let users = match options.last("private-users") {
        Some(value) => private_users(&String::from_utf8_lossy(value))?,
        None => nspawn_file::private_users(&settings).map_or(Some(Users::Host), private_users)?,
    };
    Some(Held {
        users,
        capabilities: options
            .capabilities()
            .unwrap_or_else(|| nspawn_file::capabilities(&settings)),
        host_mounts: false,
        host_processes: options.has("share-system"),
    })
}

/// `--private-users=`, `PrivateUsers=`; `None` where they are those of the directory's
/// owner, which is looked at anyway.
fn private_users(value: &str) -> Option<Users> {
    match value {
        "pick" => return Some(Users::Picked),
        "identity" => return Some(Users::Mapped(IdRange { first: 0, count: 0x1_0000 })),
        value if syntax::is_false(value) && value != "0" => return Some(Users::Host),
        _ => {}
    }
    let mut numbers = value.split(':').map(|number| number.parse().ok());
    let first = numbers.next()??;
    let count = numbers.next().unwrap_or(Some(0x1_0000))?;
    Some(Users::Mapped(IdRange { first, count }))
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigFile, LxcConfig, OciBundle};

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
    }

    const DROP: &str = "DropCapability=CAP_SYS_ADMIN CAP_DAC_READ_SEARCH";

    fn told(host: &HostConfig) -> String {
        let Some(member) = configured(&HostPath::from("/srv/web"), host) else {
            return String::new();
        };
        let writes = if member.writes { " writes" } else { "" };
        format!("{}{writes}", member.domain)
    }

    #[test]
    fn systemd_nspawn_is_told_or_reads_it() {
        let table = [
            ("-D /srv/web", "", "host writes"),
            ("--private-users=yes -D /srv/web", "", ""),
            ("-UD /srv/web", "", "users:picked"),
            ("--private-users=pick -D /srv/web", "", "users:picked"),
            ("--private-users=655360 -D /srv/web", "", "users:655360+65536"),
            ("--private-users=655360:10 -D /srv/web", "", "users:655360+10"),
            ("--private-users=no -D /srv/web", "PrivateUsers=pick", "host writes"),
            ("--private-users=identity -D /srv/web", "", "host writes"),
            ("--private-users=0:65536 -D /srv/web", DROP, "host writes"),
            ("-D /srv/web", DROP, "host"),
            ("-D /srv/web", "DropCapability=CAP_SYS_ADMIN", "host writes"),
            ("--settings=no -D /srv/web", DROP, "host writes"),
            ("--capability=CAP_NET_ADMIN -D /srv/web", DROP, "host writes"),
            ("--drop-capability=all -D /srv/web", "", "host"),
            ("--drop-capability=all --capability=all -D /srv/web", "", "host"),
            ("--drop-capability=CAP_SYS_ADMIN,CAP_DAC_READ_SEARCH -D /srv/web", "", "host"),
            ("-D /srv/web", "PrivateUsers=pick", "users:picked"),
            ("-D /srv/web", "PrivateUsers=100000:65536", "users:100000+65536"),
        ];
        for (options, settings, expected) in table {
            let unit = format!("[Service]\nExecStart=systemd-nspawn {options}\n");
            let settings = format!("[Exec]\n{settings}\n");
            let host = HostConfig {
                units: vec![file("/etc/systemd/system/web.service", &unit)],
                nspawn: vec![file("/etc/systemd/nspawn/web.nspawn", &settings)],
                ..HostConfig::default()
            };
            assert_eq!(told(&host), expected, "{options} {settings}");
        }
    }

    #[test]
    fn lxc_and_bundles_say_who_they_are() {
        let lxc = |idmap: &str| HostConfig {
            lxc: vec![LxcConfig {
                name: "web".to_owned(),
                file: file(
                    "/var/lib/lxc/web/config",
                    &format!("lxc.rootfs.path=/srv/web\n{idmap}"),
                ),
                included: Vec::new(),
            }],
            ..HostConfig::default()
        };
        assert_eq!(told(&lxc("")), "host writes");
        let capabilities = [
            (
                "lxc.cap.drop = sys_admin sys_module sys_rawio\nlxc.cap.drop = dac_read_search",
                "host",
            ),
            ("lxc.cap.drop = sys_admin\nlxc.cap.drop =\nlxc.cap.drop = sys_module", "host writes"),
            ("lxc.cap.keep = chown kill", "host"),
            ("lxc.cap.keep = none", "host"),
            ("lxc.cap.keep = sys_ptrace", "host"),
            ("lxc.cap.keep = sys_ptrace\nlxc.namespace.keep = pid", "host writes"),
            ("lxc.cap.keep = sys_admin", "host writes"),
        ];
        for (text, expected) in capabilities {
            assert_eq!(told(&lxc(text)), expected, "{text}");
        }
        let maps = "lxc.idmap = g 0 7 8\nlxc.idmap = u 1 9 9\nlxc.idmap = u 0 100000 65536\n";
        assert_eq!(told(&lxc(maps)), "users:100000+65536");

        let oci = |config: &str| HostConfig {
            bundles: vec![OciBundle {
                root: HostPath::from("/srv/web"),
                file: file("/srv/config.json", config),
            }],
            ..HostConfig::default()
        };
        let own = r#""namespaces":[{"type":"mount"},{"type":"pid"}]"#;
        let held = |sets: &str, linux: &str| {
            format!(r#"{{"process":{{"capabilities":{sets}}},"linux":{{{linux}}}}}"#)
        };
        let maps = r#""uidMappings":[{"containerID":0,"hostID":231072,"size":65536}]"#;
        let table = [
            ("not JSON".to_owned(), ""),
            ("{}".to_owned(), "host writes"),
            (format!("{{\"linux\":{{{own}}}}}"), "host writes"),
            (held("{}", own), "host"),
            (held(r#"{"bounding":["CAP_KILL","CAP_SYS_CHROOT","CAP_SYS_PTRACE"]}"#, own), "host"),
            (held(r#"{"bounding":["CAP_SYS_PTRACE"]}"#, ""), "host writes"),
            (held(r#"{"inheritable":["CAP_SYS_ADMIN"]}"#, own), "host writes"),
            (held(r#"{"bounding":["CAP_OF_TOMORROW"]}"#, own), "host writes"),
            (held("{}", r#""namespaces":[{"type":"mount"},{"type":"pid","path":"/x"}]"#), "host"),
            (held(r#"{"bounding":["CAP_SYS_ADMIN"]}"#, maps), "users:231072+65536"),
        ];
        for (config, expected) in table {
            assert_eq!(told(&oci(&config)), expected, "{config}");
        }
    }
}
