//! Which directories are container roots.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cbin_audit::model::{Notices, RootState};
use cbin_audit::scan::{RootsError, find_roots};

use crate::fake_host::FakeHost;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("roots_named_directories_are_taken", &[], named_directories_are_taken);
    suite.test("roots_a_directory_of_roots_stands_for_them", &[], a_directory_of_roots);
    suite.test("roots_a_root_in_a_root_is_one_of_its_own", &[], nested_roots);
    suite.test("roots_named_twice_is_once", &[], named_twice);
    suite.test("roots_a_link_is_refused", &[], a_link_is_refused);
    suite.test("roots_the_way_there_may_lead_through_links_of_ours", &[], trusted_prefix);
    suite.test("roots_the_way_there_with_links_of_others", &[], untrusted_prefix);
    suite.test("roots_what_is_no_directory_is_refused", &[], no_directory);
    suite.test("roots_the_hosts_own_root_is_refused", &[], own_root);
    suite.test("roots_the_store_is_no_root", &[], the_store);
    suite.test("roots_told_from_homes", &[], told_from_homes);
    suite.test("roots_discovery_of_homes_and_machines", &[], homes_and_machines);
    suite.test("roots_discovery_of_lxc", &[], lxc);
    suite.test("roots_discovery_of_lxc_by_its_owner", &[Need::Root], lxc_of_another_owner);
    suite.test("roots_discovery_of_incus", &[], incus);
    suite.test("roots_discovery_of_docker_layers", &[], docker);
    suite.test("roots_discovery_of_podman_layers", &[], podman);
    suite.test("roots_discovery_of_containerd_snapshots", &[], containerd);
    suite.test("roots_discovery_of_oci_bundles", &[], oci);
    suite.test("roots_named_stores_stand_for_their_layers", &[], named_stores);
    suite.test("roots_state_by_processes", &[], state_by_processes);
    suite.test("roots_discovery_follows_no_link", &[], discovery_follows_no_link);
    suite.test("roots_what_is_closed_is_said", &[Need::Program("setpriv"), Need::Root], closed);
    suite.test("privileged_roots_bind_mounts", &[Need::Root], bind_mounts);
    suite.test("privileged_roots_running_chroot", &[Need::Root], running_chroot);
    suite.test("privileged_roots_running_pivot_root", &[Need::Root], running_pivot_root);
    suite.test("privileged_roots_running_overlay", &[Need::Root], running_overlay);
    suite.test(
        "privileged_roots_running_nspawn",
        &[Need::Root, Need::Program("systemd-nspawn")],
        running_nspawn,
    );
}

fn named_directories_are_taken() {
    let host = FakeHost::new();
    let web = host.busybox_root("srv/web");
    let odd = host.dir("srv/odd");
    host.file("srv/odd/app", "a program alone");
    let (roots, notices) = host.find(&[web, odd]).unwrap();
    let lines: Vec<_> = roots.iter().map(|root| host.line(root)).collect();
    assert_eq!(lines, ["srv/web web directory stopped", "srv/odd odd directory stopped"]);
    assert_eq!(notices.iter().count(), 0, "{notices:?}");
}

fn a_directory_of_roots() {
    let host = FakeHost::new();
    host.busybox_root("home/nifty2");
    host.debian_root("home/nifty1");
    host.file("home/cbin/busybox-x86_64-0123456789ab", "busybox");
    host.file("home/ann/.profile", "");
    host.file("home/notes.txt", "");
    host.link("home/newest", "nifty2");
    assert_eq!(host.named(&[host.at("home")]), ["home/nifty1", "home/nifty2"]);
    assert_eq!(host.named(&[host.at("home/")]), ["home/nifty1", "home/nifty2"]);
    // LXC and bundles keep the root one level below.
    host.busybox_root("var/lib/lxc/c1/rootfs");
    host.file("var/lib/lxc/c1/config", "lxc.uts.name = c1\n");
    host.busybox_root("srv/bundles/b1/rootfs");
    host.file("srv/bundles/b1/config.json", "{}");
    let (roots, _) = host.find(&[host.at("var/lib/lxc"), host.at("srv/bundles")]).unwrap();
    let lines: Vec<_> = roots.iter().map(|root| host.line(root)).collect();
    assert_eq!(
        lines,
        ["var/lib/lxc/c1/rootfs c1 lxc stopped", "srv/bundles/b1/rootfs b1 oci stopped"]
    );
}

fn nested_roots() {
    let host = FakeHost::new();
    let outer = host.debian_root("srv/outer");
    let inner = host.busybox_root("srv/outer/var/lib/inner");
    let (roots, _) = host.find(&[outer, inner]).unwrap();
    assert_eq!(roots.len(), 2);
    assert_ne!(roots[0].inode, roots[1].inode);
    let stat = fs::metadata(host.at("srv/outer/var/lib/inner")).unwrap();
    assert_eq!(roots[1].inode.ino, std::os::unix::fs::MetadataExt::ino(&stat));
    assert_eq!(roots[1].inode.dev, std::os::unix::fs::MetadataExt::dev(&stat));
}

fn named_twice() {
    let host = FakeHost::new();
    let web = host.busybox_root("home/web");
    let dotted = host.at("home/../home/./web/");
    assert_eq!(host.named(&[web.clone(), dotted, web, host.at("home")]), ["home/web"]);
}

fn a_link_is_refused() {
    let host = FakeHost::new();
    host.busybox_root("srv/web");
    let link = host.link("srv/link", "web");
    let dangling = host.link("srv/dangling", "nowhere");
    for name in ["srv/link", "srv/link/", "srv/link//", "srv/link/.", "srv/link/./"] {
        let error = host.find(&[host.at(name)]).unwrap_err();
        assert!(matches!(error, RootsError::Link { .. }), "{name}: {error}");
        assert!(error.to_string().contains("name the directory itself"), "{error}");
    }
    assert!(matches!(host.find(&[dangling]), Err(RootsError::Link { .. })));
    // A link that is passed through by `..` is on the way, not at its end.
    assert_eq!(host.named(&[link.join("../web")]), ["srv/web"]);
}

fn trusted_prefix() {
    let host = FakeHost::new();
    host.busybox_root("data/roots/web");
    host.link("srv", "data");
    host.link("abs", host.at("data/roots"));
    assert_eq!(host.named(&[host.at("srv/roots/web")]), ["data/roots/web"]);
    assert_eq!(host.named(&[host.at("abs/web"), host.at("data/roots/web")]), ["data/roots/web"]);
    host.link("circle", "circle");
    let error = host.find(&[host.at("circle/web")]).unwrap_err();
    assert!(matches!(error, RootsError::Io { .. }), "{error}");
}

fn untrusted_prefix() {
    let host = FakeHost::new();
    host.busybox_root("data/web");
    let open = host.dir("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    host.link("open/way", "../data");
    let error = host.find(&[host.at("open/way/web")]).unwrap_err();
    assert!(matches!(error, RootsError::UntrustedLink { .. }), "{error}");
    assert!(error.to_string().contains("by a path without that link"), "{error}");
    // Sticky: what others put there stays theirs, and the link is ours.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(host.named(&[host.at("open/way/web")]), ["data/web"]);
    // Without a link the same directory is harmless.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    host.busybox_root("open/plain");
    assert_eq!(host.named(&[host.at("open/plain")]), ["open/plain"]);
    // A process's own idea of a path is not the host's.
    let inside =
        PathBuf::from("/proc/self/root").join(host.at("data/web").strip_prefix("/").unwrap());
    let error = host.find(&[inside]).unwrap_err();
    assert!(matches!(error, RootsError::ProcessLink { .. }), "{error}");
}

fn no_directory() {
    let host = FakeHost::new();
    let file = host.file("srv/root.tar", "");
    assert!(matches!(host.find(std::slice::from_ref(&file)), Err(RootsError::NotDirectory { .. })));
    assert!(matches!(host.find(&[file.join("x")]), Err(RootsError::NotDirectory { .. })));
    assert!(matches!(host.find(&[host.at("srv/none")]), Err(RootsError::Missing { .. })));
    let escape = host.at("srv/\u{1b}[2Jnone");
    let error = host.find(&[escape]).unwrap_err().to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

fn own_root() {
    let host = FakeHost::new();
    let names = ["/", "//", "/.", "/usr/..", "/../.."];
    for name in names.map(PathBuf::from).into_iter().chain([host.root().to_owned()]) {
        let error = host.find(&[name]).unwrap_err();
        assert!(matches!(error, RootsError::HostRoot { .. }), "{error}");
    }
    let link = host.link("srv/rootfs", "/");
    assert!(matches!(host.find(&[link]), Err(RootsError::Link { .. })));
}

fn the_store() {
    let host = FakeHost::new();
    host.busybox_root("home/cbin");
    host.busybox_root("home/web");
    assert_eq!(host.discover(), ["home/web web directory stopped"]);
    assert_eq!(host.named(&[host.at("home")]), ["home/web"]);
    let error = host.find(&[host.at("home/cbin")]).unwrap_err();
    assert!(matches!(error, RootsError::Store { .. }), "{error}");
}

fn told_from_homes() {
    let host = FakeHost::new();
    // Roots.
    host.busybox_root("home/article");
    host.debian_root("home/debian");
    host.file("home/alpine/bin/busybox", "");
    host.link("home/alpine/bin/sh", "/bin/busybox");
    host.file("home/tiny/bin/sh", "");
    host.file("home/hardlinks/bin/[", "");
    host.file("home/hardlinks/bin/busybox", "");
    host.file("home/distroless/usr/lib/os-release", "ID=debian\n");
    host.dir("home/distroless/etc/ssl");
    for dir in ["dev", "proc", "sys", "etc", "lib"] {
        host.dir(&format!("home/static/{dir}"));
    }
    host.file("home/static/app", "");
    host.debian_root("home/used-as-home");
    host.file("home/used-as-home/.bash_history", "");
    host.file("home/used-as-home/.ssh/authorized_keys", "");
    // Homes, and what else lies beside them.
    host.file("home/ann/bin/sh", "#!/bin/busybox sh\n");
    host.file("home/ann/etc/settings", "");
    host.dir("home/ann/.local/share");
    host.file("home/bob/bin/busybox", "");
    host.file("home/bob/.bashrc", "");
    host.dir("home/bob/tmp");
    host.dir("home/bob/lib");
    host.file("home/eve/bin/tool", "");
    host.dir("home/eve/etc");
    host.dir("home/eve/lib");
    host.file("home/src/etc/passwd", "");
    host.file("home/cbin/busybox-x86_64-0123456789ab", "");
    host.dir("home/empty");
    let names: Vec<_> = host.discover();
    let names: Vec<_> = names.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(
        names,
        [
            "alpine",
            "article",
            "debian",
            "distroless",
            "hardlinks",
            "static",
            "tiny",
            "used-as-home"
        ]
    );
}

fn homes_and_machines() {
    let host = FakeHost::new();
    host.busybox_root("home/nifty");
    host.busybox_root("home/known");
    host.file("etc/systemd/nspawn/known.nspawn", "[Files]\n");
    host.debian_root("var/lib/machines/deb");
    host.dir("var/lib/machines/.#deb.lock");
    host.dir("var/lib/machines/empty");
    host.file("var/lib/machines/image.raw", "");
    let (roots, notices) = host.find(&[]).unwrap();
    let lines: Vec<_> = roots.iter().map(|root| host.line(root)).collect();
    assert_eq!(
        lines,
        [
            "home/known known nspawn stopped",
            "home/nifty nifty directory stopped",
            "var/lib/machines/deb deb nspawn stopped",
        ]
    );
    let told: Vec<_> = notices.iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].path.0.ends_with("image.raw") && !told[0].partial, "{told:?}");
}

fn lxc() {
    let host = FakeHost::new();
    host.busybox_root("var/lib/lxc/plain/rootfs");
    host.file("var/lib/lxc/plain/config", "lxc.uts.name = plain\n");
    host.busybox_root("srv/elsewhere");
    host.file("var/lib/lxc/dir/config", "# c\nlxc.rootfs.path = dir:/srv/elsewhere\n");
    host.busybox_root("srv/old");
    host.file("var/lib/lxc/old/config", "lxc.rootfs = /srv/old\n");
    host.busybox_root("srv/included");
    host.file("var/lib/lxc/incl/config", "lxc.include = /etc/lxc/conf.d\nlxc.include=/etc/loop\n");
    host.file("etc/lxc/conf.d/a.conf", "lxc.rootfs.path=/srv/included\n");
    host.file("etc/lxc/conf.d/b.txt", "lxc.rootfs.path=/srv/not\n");
    host.file("etc/loop", "lxc.include = /etc/loop\n");
    host.dir("srv/lower");
    host.dir("srv/upper");
    host.file("var/lib/lxc/over/config", "lxc.rootfs.path = overlay:/srv/lower:/srv/upper\n");
    host.file("var/lib/lxc/lvm/config", "lxc.rootfs.path = lvm:/dev/vg/c\n");
    let (roots, notices) = host.find(&[]).unwrap();
    let lines: Vec<_> = roots.iter().map(|root| host.line(root)).collect();
    assert_eq!(
        lines,
        [
            "srv/elsewhere dir lxc stopped",
            "srv/included incl lxc stopped",
            "srv/lower lower oci stopped layer",
            "srv/old old lxc stopped",
            "srv/upper upper oci stopped layer",
            "var/lib/lxc/plain/rootfs plain lxc stopped",
        ]
    );
    let told: Vec<_> = notices.iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].cause.contains("lvm:/dev/vg/c") && !told[0].partial);
}

/// A configuration that its container's owner can write names no directory of the host.
fn lxc_of_another_owner() {
    let host = FakeHost::new();
    host.debian_root("srv/secret");
    host.busybox_root("var/lib/lxc/theirs/rootfs");
    host.file("var/lib/lxc/theirs/config", "lxc.rootfs.path = /srv/secret\n");
    std::os::unix::fs::chown(host.at("var/lib/lxc/theirs"), Some(100_000), None).unwrap();
    host.busybox_root("home/ann/.local/share/lxc/own/rootfs");
    host.file("home/ann/.local/share/lxc/own/config", "lxc.rootfs.path = /srv/secret\n");
    assert_eq!(
        host.discover(),
        [
            "home/ann/.local/share/lxc/own/rootfs own lxc stopped",
            "var/lib/lxc/theirs/rootfs theirs lxc stopped",
        ]
    );
}

fn incus() {
    let host = FakeHost::new();
    host.busybox_root("var/lib/incus/storage-pools/default/containers/web/rootfs");
    host.dir("var/lib/incus/storage-pools/default/containers/hostile");
    host.link("var/lib/incus/storage-pools/default/containers/hostile/rootfs", "/");
    assert_eq!(
        host.discover(),
        ["var/lib/incus/storage-pools/default/containers/web/rootfs web lxc stopped"]
    );
}

/// Two images on one base layer, a container on one of them.
fn docker_store(host: &FakeHost, at: &str) {
    for layer in ["base", "top", "rw", "rw-init", "other"] {
        host.dir(&format!("{at}/overlay2/{layer}/diff"));
        host.link(&format!("{at}/overlay2/l/{layer}"), format!("../{layer}/diff"));
    }
    host.dir(&format!("{at}/overlay2/rw/merged/bin"));
    let image = format!("{at}/image/overlay2");
    for (chain, diff, cache, parent) in
        [("c1", "d1", "base", None), ("c2", "d2", "top", Some("sha256:c1"))]
    {
        host.file(&format!("{image}/layerdb/sha256/{chain}/diff"), &format!("sha256:{diff}"));
        host.file(&format!("{image}/layerdb/sha256/{chain}/cache-id"), cache);
        if let Some(parent) = parent {
            host.file(&format!("{image}/layerdb/sha256/{chain}/parent"), parent);
        }
    }
    host.file(
        &format!("{image}/repositories.json"),
        r#"{"Repositories":{"web":{"web:1":"sha256:i1","web@sha256:x":"sha256:i1"}}}"#,
    );
    host.file(
        &format!("{image}/imagedb/content/sha256/i1"),
        r#"{"rootfs":{"type":"layers","diff_ids":["sha256:d1","sha256:d2"]}}"#,
    );
    host.file(&format!("{image}/layerdb/mounts/cid/mount-id"), "rw");
    host.file(&format!("{at}/containers/cid/config.v2.json"), r#"{"Name":"/front"}"#);
}

fn docker() {
    let host = FakeHost::new();
    docker_store(&host, "var/lib/docker");
    let at = "var/lib/docker/overlay2";
    assert_eq!(
        host.discover(),
        [
            format!("{at}/base/diff web:1 [1/2] docker stopped layer"),
            format!("{at}/other/diff other docker stopped layer"),
            format!("{at}/rw/diff front docker stopped layer"),
            format!("{at}/rw-init/diff front [init] docker stopped layer"),
            format!("{at}/top/diff web:1 [2/2] docker stopped layer"),
        ]
    );
}

fn podman_store(host: &FakeHost, at: &str) {
    for layer in ["base", "top", "rw"] {
        host.dir(&format!("{at}/overlay/{layer}/diff"));
    }
    host.dir(&format!("{at}/overlay/l"));
    host.file(
        &format!("{at}/overlay-layers/layers.json"),
        r#"[{"id":"base"},{"id":"top","parent":"base"},{"id":"rw","parent":"top"}]"#,
    );
    host.file(
        &format!("{at}/overlay-images/images.json"),
        r#"[{"id":"i1","names":["localhost/web:1"],"layer":"top"}]"#,
    );
    host.file(
        &format!("{at}/overlay-containers/containers.json"),
        r#"[{"id":"c1","names":["front"],"image":"i1","layer":"rw"}]"#,
    );
}

fn podman() {
    let host = FakeHost::new();
    podman_store(&host, "var/lib/containers/storage");
    host.dir("home/ann/.config");
    podman_store(&host, "home/ann/.local/share/containers/storage");
    let store = |at: &str| {
        [
            format!("{at}/overlay/base/diff localhost/web:1 [1/2] podman stopped layer"),
            format!("{at}/overlay/rw/diff front podman stopped layer"),
            format!("{at}/overlay/top/diff localhost/web:1 [2/2] podman stopped layer"),
        ]
    };
    let mut expected = store("home/ann/.local/share/containers/storage").to_vec();
    expected.extend(store("var/lib/containers/storage"));
    assert_eq!(host.discover(), expected);
}

fn containerd() {
    let host = FakeHost::new();
    let at = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";
    for number in ["1", "2"] {
        host.dir(&format!("{at}/snapshots/{number}/fs"));
        host.dir(&format!("{at}/snapshots/{number}/work"));
    }
    host.busybox_root("var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots/7");
    assert_eq!(
        host.discover(),
        [
            "var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots/7 7 containerd stopped"
                .to_owned(),
            format!("{at}/snapshots/1/fs 1 containerd stopped layer"),
            format!("{at}/snapshots/2/fs 2 containerd stopped layer"),
        ]
    );
}

fn oci() {
    let host = FakeHost::new();
    host.busybox_root("srv/b1/rootfs");
    host.file("run/runc/web1/state.json", r#"{"id":"web1","config":{"rootfs":"/srv/b1/rootfs"}}"#);
    host.file("run/runc/gone/state.json", r#"{"config":{"rootfs":"/srv/none"}}"#);
    host.file("run/runc/bad/state.json", "{");
    host.file("run/runc/host/state.json", r#"{"config":{"rootfs":"/"}}"#);
    host.file("srv/b2/rootfs/app", "one program");
    host.file("run/crun/web2/status", r#"{"pid":7,"bundle":"/srv/b2","rootfs":"rootfs"}"#);
    host.busybox_root("run/containerd/io.containerd.runtime.v2.task/k8s.io/pod/rootfs");
    assert_eq!(
        host.discover(),
        [
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/pod/rootfs pod containerd stopped",
            "srv/b1/rootfs web1 oci stopped",
            "srv/b2/rootfs web2 oci stopped",
        ]
    );
}

fn named_stores() {
    let host = FakeHost::new();
    docker_store(&host, "srv/docker");
    podman_store(&host, "srv/storage");
    assert_eq!(host.named(&[host.at("srv/docker")]).len(), 5);
    assert_eq!(host.named(&[host.at("srv/docker/overlay2")]).len(), 5);
    assert_eq!(host.named(&[host.at("srv/storage")]).len(), 3);
    let (layer, _) = host.find(&[host.at("srv/docker/overlay2/top/diff")]).unwrap();
    assert_eq!(host.line(&layer[0]), "srv/docker/overlay2/top/diff top docker stopped layer");
}

fn state_by_processes() {
    let host = FakeHost::new();
    host.busybox_root("home/runs");
    host.busybox_root("home/rests");
    host.process(1, "");
    host.process(40, "");
    host.process(41, "home/runs");
    // One that has ended meanwhile.
    host.dir("proc/42");
    assert_eq!(
        host.discover(),
        ["home/rests rests directory stopped", "home/runs runs directory running"]
    );
    let nobody_asked = tempfile::tempdir().unwrap();
    fs::create_dir_all(nobody_asked.path().join("home/web/bin")).unwrap();
    fs::write(nobody_asked.path().join("home/web/bin/sh"), "").unwrap();
    let roots =
        find_roots(&[], nobody_asked.path(), Path::new("/nonexistent"), &mut Notices::default())
            .unwrap();
    assert_eq!(roots[0].state, RootState::Unknown);
}

fn discovery_follows_no_link() {
    let host = FakeHost::new();
    host.debian_root("secret");
    host.link("home/ann", host.at("secret"));
    host.link("var/lib/machines/m", "/");
    host.dir("home/bob/.local");
    host.link("home/bob/.local/share", host.at("secret"));
    assert_eq!(host.discover(), Vec::<String>::new());
    let (_, notices) = host.find(&[]).unwrap();
    assert!(notices.iter().any(|notice| notice.path.0.ends_with("home/ann")), "{notices:?}");
}

/// Discovery by somebody who may not look everywhere says where.
fn closed() {
    let host = FakeHost::new();
    host.busybox_root("home/open");
    host.busybox_root("home/shut");
    fs::set_permissions(host.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(host.at("home/shut"), fs::Permissions::from_mode(0o700)).unwrap();
    // The harness itself drops its rights and asks: the tool is not in the way here.
    let program = std::env::current_exe().unwrap();
    let Ok(copy) = copy_for_everyone(&program) else { panic!("cannot copy the harness") };
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(copy.path().join("it"))
        .env("CBIN_AUDIT_TEST_DISCOVER", host.root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("root home/open"), "{text} {output:?}");
    assert!(text.contains("partial home/shut"), "{text}");
    assert!(text.contains("run as root"), "{text}");
}

fn copy_for_everyone(program: &Path) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("it");
    fs::copy(program, &copy)?;
    Ok(dir)
}

/// What `closed` runs under other rights.
#[allow(clippy::print_stdout, reason = "its answer to the test that started it")]
pub fn discover_and_print(host: &Path) {
    let mut notices = Notices::default();
    let roots = find_roots(&[], host, Path::new("/nonexistent"), &mut notices).unwrap();
    for root in roots {
        println!("root {}", root.path.0.strip_prefix(host).unwrap().display());
    }
    for notice in notices.iter().filter(|notice| notice.partial) {
        let path = notice.path.0.strip_prefix(host).unwrap();
        println!("partial {} {}", path.display(), notice.cause);
    }
}

fn bind_mounts() {
    let host = FakeHost::new();
    let web = host.busybox_root("srv/web");
    let again = Mounted::bind(&web, host.dir("srv/again"));
    let top = Mounted::bind(Path::new("/"), host.dir("srv/top"));
    assert_eq!(host.named(&[web, again.0.clone()]), ["srv/web"]);
    let error = host.find(std::slice::from_ref(&top.0)).unwrap_err();
    assert!(matches!(error, RootsError::HostRoot { .. }), "{error}");
    // Inside a directory of roots it is passed over.
    assert_eq!(host.named(&[host.at("srv")]), ["srv/again"]);
}

fn running_chroot() {
    let host = FakeHost::new();
    let root = runnable_root(&host, "chrooted");
    let _process = start("exec chroot \"$1\" /bin/sleep 60", &root);
    assert_state(&root, RootState::Running);
}

fn running_pivot_root() {
    let host = FakeHost::new();
    let root = runnable_root(&host, "pivoted");
    let script = r#"exec unshare --mount --propagation private sh -c '
        mount --bind "$1" "$1" && cd "$1" && mkdir -p old && pivot_root . old &&
        exec /bin/chroot . /bin/sh -c "exec /bin/sleep 60"' sh "$1""#;
    let _process = start(script, &root);
    assert_state(&root, RootState::Running);
}

fn running_overlay() {
    let host = FakeHost::new();
    let lower = runnable_root(&host, "lower");
    for dir in ["upper", "work", "merged"] {
        host.dir(dir);
    }
    let script = r#"cd "$1/.." && exec unshare --mount --propagation private sh -c '
        mount -t overlay overlay -o "lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work" merged &&
        cd merged && mkdir -p old && pivot_root . old && exec /bin/chroot . /bin/sleep 60'"#;
    let _process = start(script, &lower);
    assert_state(&lower, RootState::Running);
    let roots = on_this_host(&[]);
    let found = roots.iter().find(|root| root.path.0 == lower).expect("the layer is found");
    assert!(found.layer);
    assert!(roots.iter().any(|root| root.path.0 == host.at("upper")), "the writable layer");
}

fn running_nspawn() {
    let host = FakeHost::new();
    let root = runnable_root(&host, "spawned");
    let script = "exec unshare -m --propagation private systemd-nspawn -q --register=no \
                  --keep-unit -D \"$1\" /bin/sleep 60";
    let _process = start(script, &root);
    assert_state(&root, RootState::Running);
}

/// The root, found on this very host and named on the command line, is in this state.
fn assert_state(root: &Path, state: RootState) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let found = on_this_host(&[]);
        let found = found.iter().find(|found| found.path.0 == root);
        if found.is_some_and(|found| found.state == state) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(on_this_host(&[root.to_owned()])[0].state, state);
}

fn on_this_host(named: &[PathBuf]) -> Vec<cbin_audit::model::Root> {
    let mut notices = Notices::default();
    find_roots(named, Path::new("/"), Path::new("/home/cbin"), &mut notices).unwrap()
}

/// A root in which this machine's own `sh`, `sleep` and `chroot` run.
fn runnable_root(host: &FakeHost, name: &str) -> PathBuf {
    let root = host.dir(name);
    for dir in ["bin", "proc", "dev", "etc", "usr"] {
        host.dir(&format!("{name}/{dir}"));
    }
    let programs = ["/bin/sh", "/bin/sleep", "/usr/sbin/chroot"];
    for program in programs {
        let name = Path::new(program).file_name().unwrap();
        fs::copy(program, root.join("bin").join(name)).unwrap();
        for library in libraries(program) {
            let place = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&library, place).unwrap();
        }
    }
    root
}

/// What a program of this machine's own needs to run.
fn libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A process group that ends with the test.
struct Started(Child);

fn start(script: &str, root: &Path) -> Started {
    let mut command = Command::new("setsid");
    command.args(["--wait", "sh", "-c", script, "sh"]).arg(root);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Started(command.spawn().unwrap())
}

impl Drop for Started {
    fn drop(&mut self) {
        end_family(self.0.id());
        let _ended = self.0.wait();
    }
}

/// Ends a process and what it started, the youngest first.
fn end_family(pid: u32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        end_family(child.parse().unwrap());
    }
    let _gone = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(source: &Path, target: PathBuf) -> Self {
        let done = Command::new("mount").arg("--bind").args([source, &target]).status().unwrap();
        assert!(done.success());
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
