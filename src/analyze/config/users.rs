//! Whose users the container of a root is configured to have.

use super::nspawn_options::NspawnOptions;
use super::runners::{self, RunBy};
use super::service::file_name;
use super::{lxc, nspawn_file, oci, syntax};
use crate::model::{HostConfig, HostPath, IdRange, TrustDomain};

/// The trust domain that a root's container is given by its configuration; `None` where
/// that leaves it in the host's, or says nothing.
pub fn configured_domain(root: &HostPath, host: &HostConfig) -> Option<TrustDomain> {
    let runners = runners::runners(root, host);
    if !runners.is_empty() {
        let all: Option<Vec<TrustDomain>> = runners
            .iter()
            .map(|runner| match &runner.by {
                RunBy::Nspawn { options, .. } => by_nspawn(options, root, host),
                RunBy::RootDirectory | RunBy::Chroot => None,
            })
            .collect();
        // One that runs it as the host's root is enough.
        return all?.into_iter().next();
    }
    if let Some(container) = host.lxc.iter().find(|container| lxc::runs(container, root)) {
        return lxc::users(container).and_then(domain);
    }
    let bundle = host.bundles.iter().find(|bundle| bundle.root == *root)?;
    oci::users(&bundle.file.bytes).and_then(domain)
}

/// `--private-users=`, or `PrivateUsers=` in the settings of its machine: systemd-nspawn(1).
fn by_nspawn(options: &NspawnOptions, root: &HostPath, host: &HostConfig) -> Option<TrustDomain> {
    if let Some(value) = options.last("private-users") {
        return private_users(&String::from_utf8_lossy(value));
    }
    let name = format!("{}.nspawn", options.machine(Some(root.as_bytes()))?);
    let file = host.nspawn.iter().find(|file| file_name(&file.path) == name)?;
    nspawn_file::private_users(&syntax::settings(&file.bytes)).and_then(private_users)
}

fn private_users(value: &str) -> Option<TrustDomain> {
    if value == "pick" {
        return Some(TrustDomain::Picked);
    }
    // Without a number they are those of the directory's owner, which is looked at anyway.
    let mut numbers = value.split(':').map(|number| number.parse().ok());
    let first = numbers.next()??;
    let count = numbers.next().unwrap_or(Some(0x1_0000))?;
    domain(IdRange { first, count })
}

fn domain(range: IdRange) -> Option<TrustDomain> {
    (range.first != 0).then_some(TrustDomain::Users(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigFile, LxcConfig, OciBundle};

    fn file(path: &str, text: &str) -> ConfigFile {
        ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
    }

    fn told(host: &HostConfig) -> String {
        let domain = configured_domain(&HostPath::from("/srv/web"), host);
        domain.map_or_else(String::new, |domain| domain.to_string())
    }

    #[test]
    fn systemd_nspawn_is_told_or_reads_it() {
        let table = [
            ("-D /srv/web", "", ""),
            ("-UD /srv/web", "", "users:picked"),
            ("--private-users=pick -D /srv/web", "", "users:picked"),
            ("--private-users=655360 -D /srv/web", "", "users:655360+65536"),
            ("--private-users=655360:10 -D /srv/web", "", "users:655360+10"),
            ("--private-users=no -D /srv/web", "PrivateUsers=pick", ""),
            ("--private-users=identity -D /srv/web", "", ""),
            ("--private-users=0:65536 -D /srv/web", "", ""),
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
    fn lxc_and_bundles_map_users() {
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
        assert_eq!(told(&lxc("")), "");
        let maps = "lxc.idmap = g 0 7 8\nlxc.idmap = u 1 9 9\nlxc.idmap = u 0 100000 65536\n";
        assert_eq!(told(&lxc(maps)), "users:100000+65536");

        let oci = |linux: &str| HostConfig {
            bundles: vec![OciBundle {
                root: HostPath::from("/srv/web"),
                file: file("/srv/config.json", &format!("{{\"linux\":{linux}}}")),
            }],
            ..HostConfig::default()
        };
        assert_eq!(told(&oci("{}")), "");
        let maps = r#"{"uidMappings":[{"containerID":0,"hostID":231072,"size":65536}]}"#;
        assert_eq!(told(&oci(maps)), "users:231072+65536");
    }
}
