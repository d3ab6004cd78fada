//! The line for a quadlet, on a host of its own: systemd has Podman's generator make the unit, and
//! starts it. Its container has the store, and has it again after a restart.

use std::fs;
use std::path::Path;

use super::{By, Told};
use crate::booted::{self, Host};
use crate::packages;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    let more = [
        Need::Package("busybox-static"),
        Need::Program("podman"),
        Need::Program("runc"),
        Need::Quadlet,
    ];
    let needs = [&booted::NEEDS[..], &more].concat();
    suite.test("privileged_engines_podman_quadlet_by_systemd", &needs, by_systemd);
}

const GENERATOR: &str = "/usr/lib/systemd/system-generators/podman-system-generator";

fn by_systemd() {
    let told = Told::by(By::Podman);
    let volume = told.after("in a quadlet's [Container]: ");
    let ground = &told.engine.ground;
    let (here, tar) = (ground.at(""), ground.at("image.tar").display().to_string());
    // What is stacked on the host's own disk, itself a stack, cannot be written.
    let storage = ground.dir("containers");
    let point = here.to_str().unwrap().trim_end_matches('/').to_owned();
    let host = Host::boot(&[(here.as_path(), point.as_str()), (&storage, "/var/lib/containers")]);
    host.run("podman", &["import", &tar, "localhost/web:1"]);
    if !Path::new(GENERATOR).exists() {
        fs::copy(packages::quadlet().unwrap(), host.path(GENERATOR)).unwrap();
    }
    let [program, more @ ..] = told.script();
    let text = format!(
        "[Container]\nImage=localhost/web:1\nPull=never\nNetwork=none\n{volume}\n\
         PodmanArgs=--ulimit=nofile=1024:1024 --ulimit=nproc=32768:32768\nExec={program} sleep 1000\n"
    );
    fs::create_dir_all(host.path("/etc/containers/systemd")).unwrap();
    host.write("/etc/containers/systemd/web.container", &text);
    host.run("systemctl", &["daemon-reload"]);
    for verb in ["start", "restart"] {
        host.run("systemctl", &[verb, "web.service"]);
        let mut exec = host.command("podman", &["exec", "systemd-web", &program]);
        told.assert_used(&exec.args(&more).output().unwrap());
    }
    host.run("systemctl", &["stop", "web.service"]);
}
