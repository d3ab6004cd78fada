//! Whose users the container of a root is configured to have, and what its root may do.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::nspawn_options::NspawnOptions;
use super::runners::{self, Host, RunBy};
use super::service::Service;
use super::{devices, lxc, nspawn, nspawn_file, oci, syntax};
use crate::analyze::plan::{Member, Writes};
use crate::model::{
    Capabilities, ContainerPath, Disks, Escape, Exposure, HostConfig, HostPath, IdRange, OciBundle,
    TrustDomain,
};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose its users are.
    pub(super) users: Users,
    /// What its processes can come to have.
    pub(super) capabilities: Capabilities,
    /// It shares the host's mount namespace.
    pub(super) host_mounts: bool,
    /// It sees the host's processes.
    pub(super) host_processes: bool,
    /// What it is given of the host.
    pub(super) given: Given,
}

/// What of the host a configuration gives a container for writing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// Where each is mounted, and the path on the host.
    pub paths: Vec<(ContainerPath, HostPath)>,
    /// Numbers of disks that it may open; without one: all of them.
    pub disks: Vec<(Option<u32>, Option<u32>)>,
}

/// A mount of a configuration.
pub(super) struct Mounted {
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) read_only: bool,
    /// Its files belong to the container's users there.
    pub(super) mapped: bool,
}

impl Given {
    /// The mounts that it can write: in a user namespace those that are mapped to it alone.
    pub(super) fn of(users: Users, mounts: impl Iterator<Item = Mounted>) -> Self {
        let writable = mounts.filter(|it| !it.read_only && (it.mapped || users == Users::Host));
        let absolute = writable.filter(|it| it.source.starts_with(b"/"));
        let path = |it: Mounted| {
            let [source, target] = [it.source, it.target].map(|it| OsString::from_vec(it).into());
            (ContainerPath(target), HostPath(source))
        };
        Self { paths: absolute.map(path).collect(), disks: Vec::new() }
    }
}

impl Held {
    /// What it is given of the host.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Who it is to the others, when of what it is given these are what it must not write.
    pub fn member(&self, host_files: Option<ContainerPath>, disks: Disks) -> Member {
        let (host_mounts, host_processes) = (self.host_mounts, self.host_processes);
        let given = host_files.is_some();
        let exposure =
            Exposure { host_mounts, host_processes, host_files, disks, above_root: false };
        let users = |domain| {
            let writes = if given { Writes::Image } else { Writes::Nothing };
            Member { domain, writes }
        };
        match self.users {
            Users::Picked => users(TrustDomain::Picked),
            Users::Mapped(range) if range.first != 0 => users(TrustDomain::Users(range)),
            // The host's root owns the store's files, whatever namespace it is in.
            Users::Mapped(_) => {
                let writes = users(TrustDomain::Host).writes.max(Writes::Directory);
                Member { domain: TrustDomain::Host, writes }
            }
            Users::Host => {
                let ways = Escape::open_to(self.capabilities, &exposure);
                Member { domain: TrustDomain::Host, writes: Writes::by(&ways) }
            }
        }
    }
}

/// The ways in which a root's container is run by its configuration; `None` where that says
/// nothing.
pub fn configured(root: &HostPath, host: &Host) -> Option<Vec<Held>> {
    let (units, host) = (runners::runners(root, host), &host.config);
    let units = units.into_iter().map(|runner| match &runner.by {
        RunBy::Nspawn { options, .. } => by_nspawn(options, &runner.service, root, host),
        RunBy::RootDirectory | RunBy::Chroot => None,
    });
    let lxc = host.lxc.iter().filter(|container| lxc::runs(container, root)).map(lxc::held);
    let is_mine = |bundle: &&OciBundle| bundle.root == *root;
    let bundles = host.bundles.iter().filter(is_mine).map(|bundle| oci::held(&bundle.file));
    let ways: Vec<Held> = units.chain(lxc.map(Some)).chain(bundles).collect::<Option<_>>()?;
    (!ways.is_empty()).then_some(ways)
}

/// What systemd-nspawn(1) is told, or reads in the settings of its machine.
fn by_nspawn(
    options: &NspawnOptions,
    service: &Service,
    root: &HostPath,
    host: &HostConfig,
) -> Option<Held> {
    let machine = options.machine(Some(root.as_bytes()));
    // Which of both wins is the option's to say: then nothing is said here.
    let file = machine.filter(|_| !options.has("settings"));
    let file = file.and_then(|machine| nspawn::trusted_settings(&machine, host));
    let settings = file.map(|file| syntax::settings(&file.bytes)).unwrap_or_default();
    let users = match options.last("private-users") {
        Some(value) => private_users(&String::from_utf8_lossy(value))?,
        None => nspawn_file::private_users(&settings).map_or(Some(Users::Host), private_users)?,
    };
    let mounts = match options.masks_settings_mounts() {
        true => options.mounted(),
        false => nspawn_file::mounted(&settings),
    };
    Some(Held {
        users,
        capabilities: options
            .capabilities()
            .unwrap_or_else(|| nspawn_file::capabilities(&settings)),
        host_mounts: false,
        host_processes: options.has("share-system"),
        given: Given {
            disks: devices::of_nspawn(options, service),
            ..Given::of(users, mounts.into_iter())
        },
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
    use std::path::Path;

    use super::*;
    use crate::model::{ConfigFile, LxcConfig, OciBundle};

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
    }

    const DROP: &str = "DropCapability=CAP_SYS_ADMIN CAP_DAC_READ_SEARCH";

    /// The store lies in `/home/cbin`, on the disk 8:1.
    fn told(host: &HostConfig) -> String {
        let Some(ways) = configured(&HostPath::from("/srv/web"), &host.clone().into()) else {
            return String::new();
        };
        let mut paths = ways.iter().flat_map(|way| &way.given().paths);
        let files = paths.find(|(_, path)| Path::new("/home/cbin").starts_with(&path.0));
        let disk = |numbers: &(Option<u32>, Option<u32>)| match numbers {
            (None, None) => Disks::Unnamed,
            (Some(8), Some(1) | None) => Disks::Named,
            _ => Disks::None,
        };
        let disks = ways.iter().flat_map(|way| &way.given().disks).map(disk).max();
        let files = files.map(|(at, _)| at.clone());
        let member = ways[0].member(files, disks.unwrap_or_default());
        let writes = match member.writes {
            Writes::Nothing => "",
            Writes::Directory => " writes",
            Writes::Image => " writes images",
        };
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
            ("--drop-capability=all --bind=/home -D /srv/web", "", "host writes images"),
            ("--drop-capability=all --bind=/home/x:/home -D /srv/web", "", "host"),
            ("--drop-capability=all --bind=+/home:/x -D /srv/web", "", "host"),
            ("--drop-capability=all --bind-ro=/home -D /srv/web", "[Files]\nBind=/", "host"),
            ("--drop-capability=all -D /srv/web", "[Files]\nBind=/:/host", "host writes images"),
            (
                "--drop-capability=all -D /srv/web",
                "[Files]\nBind=/home\nBind=\nBindReadOnly=/",
                "host",
            ),
            ("--drop-capability=all --overlay=/x:/home:/mnt -D /srv/web", "", "host writes images"),
            ("--drop-capability=all --overlay=/x:/home -D /srv/web", "", "host writes images"),
            ("--drop-capability=all --overlay=/home:/x:/mnt -D /srv/web", "", "host"),
            ("--drop-capability=all --overlay=/home::/mnt -D /srv/web", "", "host"),
            ("--drop-capability=all --overlay-ro=/x:/home:/mnt -D /srv/web", "", "host"),
            (
                "--drop-capability=all -D /srv/web",
                "[Files]\nOverlay=/x:/home:/mnt",
                "host writes images",
            ),
            ("--drop-capability=all -D /srv/web", "[Files]\nOverlayReadOnly=/x:/home:/m", "host"),
            ("--keep-unit --drop-capability=all -D /srv/web", "", "host"),
            ("--keep-unit -D /srv/web", DROP, "host writes"),
            ("--keep-unit -D /srv/web\nDevicePolicy=closed", DROP, "host"),
            ("--keep-unit -D /srv/web\nDevicePolicy=strict\nDeviceAllow=/dev/null", DROP, "host"),
            ("--keep-unit -D /srv/web\nDeviceAllow=block-sd r", DROP, "host"),
            ("--keep-unit -D /srv/web\nDeviceAllow=block-sd rw", DROP, "host writes"),
            ("--property=DeviceAllow=/dev/sda -D /srv/web", DROP, "host writes"),
            ("--private-users=9 --bind=/home -D /srv/web", "", "users:9+65536"),
            ("--private-users=9 --bind=/home:/x:noidmap -D /srv/web", "", "users:9+65536"),
            (
                "--private-users=9 --bind=/home:/x:rbind,idmap -D /srv/web",
                "",
                "users:9+65536 writes images",
            ),
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
                fstab: None,
            }],
            ..HostConfig::default()
        };
        assert_eq!(told(&lxc("")), "host writes");
        let capabilities = [
            (
                "lxc.cap.drop = sys_admin sys_module sys_rawio\nlxc.cap.drop = dac_read_search mknod",
                "host",
            ),
            (
                "lxc.cap.drop = sys_admin sys_module sys_rawio\nlxc.cap.drop = dac_read_search",
                "host writes",
            ),
            ("lxc.cap.drop = sys_admin\nlxc.cap.drop =\nlxc.cap.drop = sys_module", "host writes"),
            ("lxc.cap.keep = chown kill", "host"),
            ("lxc.cap.keep = none", "host"),
            ("lxc.cap.keep = sys_ptrace", "host"),
            ("lxc.cap.keep = sys_ptrace\nlxc.namespace.keep = pid", "host writes"),
            ("lxc.cap.keep = sys_admin", "host writes"),
            (
                "lxc.cap.keep = none\nlxc.mount.entry = /home host none bind 0 0",
                "host writes images",
            ),
            (
                "lxc.cap.keep = none\nlxc.mount.entry = /home host none bind,rw 0 0",
                "host writes images",
            ),
            ("lxc.cap.keep = none\nlxc.mount.entry = /home host none bind,ro 0 0", "host"),
            ("lxc.cap.keep = none\nlxc.mount.entry = proc proc proc rw 0 0", "host"),
            ("lxc.cap.keep = mknod\nlxc.cgroup.devices.deny = a", "host"),
            ("lxc.cap.keep = mknod\nlxc.cgroup2.devices.allow = a", "host writes"),
            (
                "lxc.cap.keep = none\nlxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = b 8:* rwm",
                "host writes",
            ),
            (
                "lxc.cap.keep = mknod\nlxc.cgroup2.devices.deny = a\nlxc.cgroup2.devices.allow = b 7:* rw\n\
                 lxc.cgroup2.devices.allow = b 8:* r\nlxc.cgroup2.devices.allow = c *:* rwm",
                "host",
            ),
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
        let mounts = |linux: &str, mount: &str| {
            let whole = held("{}", linux);
            let (mounts, rest) = (r#"{"destination":"/x","#, &whole[1..]);
            format!(r#"{{"mounts":[{mounts}{mount}}}],{rest}"#)
        };
        let rules = |capability: &str, rule: &str| {
            let linux = format!(r#"{own},"resources":{{"devices":[{rule}]}}"#);
            held(&format!(r#"{{"bounding":[{capability}]}}"#), &linux)
        };
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
            (mounts(own, r#""source":"/home","options":["rbind"]"#), "host writes images"),
            (
                mounts(own, r#""source":"/home","options":["rbind","ro","rw"]"#),
                "host writes images",
            ),
            (mounts(own, r#""source":"/home","options":["rbind","ro"]"#), "host"),
            (mounts(own, r#""source":"tmpfs","options":["nosuid"]"#), "host"),
            (mounts(maps, r#""source":"/home","options":["rbind"]"#), "users:231072+65536"),
            (
                mounts(maps, r#""source":"/home","options":["bind","idmap"]"#),
                "users:231072+65536 writes images",
            ),
            (rules("", r#"{"allow":true,"access":"rwm"}"#), "host"),
            (rules(r#""CAP_MKNOD""#, r#"{"allow":true,"access":"rwm"}"#), "host writes"),
            (rules(r#""CAP_MKNOD""#, r#"{"allow":true,"type":"b","access":"m"}"#), "host"),
            (rules(r#""CAP_MKNOD""#, r#"{"allow":true,"type":"c","access":"rwm"}"#), "host"),
            (rules("", r#"{"allow":true,"type":"b","major":8,"access":"rw"}"#), "host writes"),
            (rules("", r#"{"allow":true,"type":"b","major":7,"access":"rw"}"#), "host"),
            (
                held(
                    "{}",
                    &format!(r#"{own},"devices":[{{"path":"/x","type":"b","major":8,"minor":1}}]"#),
                ),
                "host writes",
            ),
        ];
        for (config, expected) in table {
            assert_eq!(told(&oci(&config)), expected, "{config}");
        }
    }
}
