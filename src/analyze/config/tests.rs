//! Whole hosts, and what they are told to write.

use super::*;
use crate::model::{ConfigFile, ContainerPath};

const ARTICLE: &str = "[Unit]\nDescription=nifty container\n\n[Service]\n\
    ExecStart=/usr/bin/systemd-nspawn -bD /home/nifty%i\nKillMode=process\n";

fn file(path: &str, text: &str) -> ConfigFile {
    ConfigFile { path: HostPath::from(path), bytes: text.as_bytes().to_vec() }
}

fn unit(name: &str, text: &str) -> ConfigFile {
    file(&format!("/etc/systemd/system/{name}"), text)
}

fn bind(source: &str, target: &str) -> Bind {
    Bind { source: HostPath::from(source), target: ContainerPath(target.into()) }
}

fn store() -> Vec<Bind> {
    vec![bind("/home/cbin", "/cbin")]
}

fn ask(
    host: &HostConfig,
    root: &str,
    means: Option<MountMeans>,
) -> Result<MountPlan, MountRefusal> {
    ask_for(host, root, means, &store())
}

fn ask_for(
    host: &HostConfig,
    root: &str,
    means: Option<MountMeans>,
    binds: &[Bind],
) -> Result<MountPlan, MountRefusal> {
    let root = HostPath::from(root);
    let runtime = Runtime::Directory;
    let request =
        MountRequest { root: &root, runtime, binds, means, live: false, busybox_init: true };
    mount_plan(&request, &host.clone().into())
}

fn plan(host: &HostConfig, root: &str) -> MountPlan {
    ask(host, root, None).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn written(plan: &MountPlan) -> Vec<(String, String)> {
    let text = |change: &ConfigChange| {
        let after = change.after.clone().unwrap_or_default();
        (change.file.0.display().to_string(), String::from_utf8_lossy(&after).into_owned())
    };
    plan.config.iter().map(text).collect()
}

#[test]
fn the_articles_unit_gets_a_settings_file_and_a_warning() {
    let host = HostConfig { units: vec![unit("nifty@.service", ARTICLE)], ..HostConfig::default() };
    let plan = plan(&host, "/home/nifty2");
    assert_eq!(plan.means, MountMeans::Nspawn);
    assert!(plan.why.starts_with("nifty@2.service runs it by systemd-nspawn"), "{}", plan.why);
    let [(path, text)] = &written(&plan)[..] else { panic!("{plan:#?}") };
    assert_eq!(path, "/etc/systemd/nspawn/nifty2.nspawn");
    assert!(text.ends_with("[Files]\nBindReadOnly=/home/cbin:/cbin\n"), "{text}");
    assert!(plan.advice[0].contains("--kill-signal=SIGUSR2"), "{:?}", plan.advice);
    let restart = plan.restart.unwrap_or_default();
    assert!(restart.starts_with("machinectl kill --kill-who=leader --signal=SIGUSR2 'nifty2'; "));
    assert!(restart.ends_with("; systemctl restart 'nifty@2.service'"), "{restart}");
}

#[test]
fn what_would_restart_is_not_warned_about() {
    let table = [
        ("ExecStart=systemd-nspawn --kill-signal=SIGUSR2 -bD /home/n\nKillMode=process\n", false),
        ("ExecStart=systemd-nspawn -bD /home/n\n", false),
        ("ExecStart=systemd-nspawn -D /home/n /bin/httpd\nKillMode=process\n", false),
        ("KillMode=process\nExecStart=systemd-nspawn -bD /home/n\n", true),
    ];
    for (text, warned) in table {
        let units = vec![unit("n.service", &format!("[Service]\n{text}"))];
        let host = HostConfig { units, ..HostConfig::default() };
        let plan = plan(&host, "/home/n");
        assert_eq!(!plan.advice.is_empty(), warned, "{text}");
        let restart = plan.restart.unwrap_or_default();
        assert_eq!(!restart.starts_with("systemctl restart"), warned, "{text}");
    }
}

#[test]
fn a_command_line_that_mounts_gets_a_drop_in() {
    let text = "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/bin/systemd-nspawn -b \\\n# why\n \
        -D /home/nifty%i \\\n  \"--bind-ro=/srv/c\\\\:x:/d\"\n[Service]\nKillSignal=SIGTERM\n";
    let host = HostConfig { units: vec![unit("nifty@.service", text)], ..HostConfig::default() };
    let plan = plan(&host, "/home/nifty7");
    assert_eq!(plan.means, MountMeans::Unit);
    assert!(plan.why.contains("would hide those of a .nspawn file"), "{}", plan.why);
    let [(path, text)] = &written(&plan)[..] else { panic!("{plan:#?}") };
    assert_eq!(path, "/etc/systemd/system/nifty@7.service.d/50-cbin-audit.conf");
    let expected = "[Unit]\nRequiresMountsFor=/home/cbin\n\n[Service]\nExecStart=\n\
        ExecStart=/usr/bin/systemd-nspawn --bind-ro=/home/cbin:/cbin -b   -D /home/nifty%i    \"--bind-ro=/srv/c\\\\:x:/d\"\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn what_is_mounted_already_is_left() {
    let with = |bind: &str| {
        let text = format!("[Service]\nExecStart=systemd-nspawn {bind} -D /srv/web\n");
        HostConfig { units: vec![unit("web.service", &text)], ..HostConfig::default() }
    };
    let plan = plan(&with("--bind-ro=/home/cbin:/cbin"), "/srv/web");
    assert_eq!(plan.config, []);
    let refusal = ask(&with("--bind=/else:/cbin"), "/srv/web", None);
    assert!(refusal.is_err_and(|r| r.0.contains("mounts \"/else\" at \"/cbin\"")));
}

#[test]
fn an_administrators_settings_file_is_not_edited() {
    let settings =
        "[Exec]\nPrivateUsers=no\n[Files]\nBind=/srv/data:/data 1\nTemporaryFileSystem=/scratch\n";
    let at = |dir: &str, line: &str| HostConfig {
        units: vec![unit(
            "web.service",
            &format!("[Service]\nExecStart=systemd-nspawn {line} -D /srv/web\n"),
        )],
        nspawn: vec![file(&format!("{dir}/web.nspawn"), settings)],
        ..HostConfig::default()
    };
    let first = |host: &HostConfig| written(&plan(host, "/srv/web")).remove(0);

    let (path, text) = first(&at("/etc/systemd/nspawn", "-b"));
    assert_eq!(path, "/etc/systemd/system/web.service.d/50-cbin-audit.conf");
    let carried = "systemd-nspawn --bind-ro=/home/cbin:/cbin \"--bind=/srv/data:/data 1\" --tmpfs=/scratch -b -D";
    assert!(text.contains(carried), "{text}");

    // Beside the root it is not trusted: its mounts were not there before either.
    let (_, text) = first(&at("/srv", "-b"));
    assert!(text.contains("systemd-nspawn --bind-ro=/home/cbin:/cbin -b -D"), "{text}");
    let (_, text) = first(&at("/srv", "--settings=trusted"));
    assert!(text.contains("--tmpfs=/scratch"), "{text}");

    let override_it = at("/etc/systemd/nspawn", "--settings=override");
    assert!(
        ask(&override_it, "/srv/web", None).is_err_and(|r| r.0.contains("--settings=override"))
    );
    let no_unit = HostConfig { units: vec![], ..at("/etc/systemd/nspawn", "") };
    let refusal = ask(&no_unit, "/srv/web", None);
    assert!(refusal.is_err_and(|r| r.0.ends_with("BindReadOnly=/home/cbin:/cbin")));
}

#[test]
fn a_second_plan_changes_nothing() {
    let mut host =
        HostConfig { units: vec![unit("nifty@.service", ARTICLE)], ..HostConfig::default() };
    let first = plan(&host, "/home/nifty2");
    let after = |change: &ConfigChange| ConfigFile {
        path: change.file.clone(),
        bytes: change.after.clone().unwrap_or_default(),
    };
    host.nspawn.extend(first.config.iter().map(after));
    assert_eq!(plan(&host, "/home/nifty2").config, []);

    let text = "[Service]\nExecStart=systemd-nspawn --bind=/a -D /srv/web\n";
    let mut host = HostConfig { units: vec![unit("web.service", text)], ..HostConfig::default() };
    let first = plan(&host, "/srv/web");
    host.drop_ins.extend(first.config.iter().map(after));
    assert_eq!(plan(&host, "/srv/web").config, []);
}

#[test]
fn a_root_directory_gets_its_paths() {
    let text = "[Service]\nRootDirectory=/srv/web\nExecStart=/bin/httpd -f\n";
    let host = HostConfig { units: vec![unit("web.service", text)], ..HostConfig::default() };
    let plan = plan(&host, "/srv/web");
    let [(path, text)] = &written(&plan)[..] else { panic!("{plan:#?}") };
    assert_eq!(path, "/etc/systemd/system/web.service.d/50-cbin-audit.conf");
    assert!(text.ends_with("[Service]\nBindReadOnlyPaths=/home/cbin:/cbin\n"), "{text}");
}

#[test]
fn a_unit_that_hides_the_store_is_refused() {
    let text = "[Service]\nProtectHome=yes\nExecStart=systemd-nspawn -D /srv/web\n";
    let host = HostConfig { units: vec![unit("web.service", text)], ..HostConfig::default() };
    assert!(ask(&host, "/srv/web", None).is_err_and(|r| r.0.contains("ProtectHome=")));
}

#[test]
fn trees_are_mounted_the_same_way() {
    let host = HostConfig { units: vec![unit("nifty@.service", ARTICLE)], ..HostConfig::default() };
    let binds = [store().remove(0), bind("/usr/share/zoneinfo", "/usr/share/zoneinfo")];
    let plan = ask_for(&host, "/home/nifty1", None, &binds);
    let text = written(&plan.unwrap_or_else(|refusal| panic!("{refusal}"))).remove(0).1;
    assert!(text.ends_with("cbin:/cbin\nBindReadOnly=/usr/share/zoneinfo\n"), "{text}");
}

#[test]
fn lxc_includes_a_file_of_ours() {
    let text = "lxc.rootfs.path = dir:/srv/c1\nlxc.uts.name = c1\n";
    let container = LxcConfig {
        name: "c1".to_owned(),
        file: file("/var/lib/lxc/c1/config", text),
        included: vec![],
        fstab: None,
    };
    let mut host = HostConfig { lxc: vec![container], ..HostConfig::default() };
    let first = plan(&host, "/srv/c1");
    assert_eq!(first.means, MountMeans::Lxc);
    let [(ours, entry), (theirs, config)] = &written(&first)[..] else { panic!("{first:#?}") };
    assert_eq!(
        (ours.as_str(), theirs.as_str()),
        ("/var/lib/lxc/c1/cbin-audit.conf", "/var/lib/lxc/c1/config")
    );
    assert!(entry.ends_with("lxc.mount.entry = /home/cbin cbin none ro,bind,create=dir 0 0\n"));
    assert_eq!(*config, format!("{text}lxc.include = /var/lib/lxc/c1/cbin-audit.conf\n"));
    assert_eq!(
        first.restart.as_deref(),
        Some("lxc-stop -P /var/lib/lxc -n c1 && lxc-start -P /var/lib/lxc -n c1")
    );

    host.lxc[0].file.bytes = config.clone().into_bytes();
    host.lxc[0].included = vec![file(ours, entry)];
    assert_eq!(plan(&host, "/srv/c1").config, []);
}

#[test]
fn a_bundle_gets_an_entry() {
    let bundle = OciBundle {
        root: HostPath::from("/run/b/rootfs"),
        file: file("/run/b/config.json", "{\"root\":{\"path\":\"rootfs\"},\"mounts\":[]}"),
    };
    let host = HostConfig { bundles: vec![bundle], ..HostConfig::default() };
    let plan = plan(&host, "/run/b/rootfs");
    assert_eq!((plan.means, plan.config.len()), (MountMeans::Oci, 1));
}

#[test]
fn anything_else_is_mounted_on_the_host() {
    let mut host = HostConfig { systemd: true, ..HostConfig::default() };
    let plan = plan(&host, "/srv/my-root");
    assert_eq!(plan.means, MountMeans::Host);
    let [(unit, text), (wants, wanted)] = &written(&plan)[..] else { panic!("{plan:#?}") };
    assert_eq!(unit, "/etc/systemd/system/srv-my\\x2droot-cbin.mount");
    assert!(
        text.contains("What=/home/cbin\nWhere=/srv/my-root/cbin\nType=none\nOptions=bind,ro\n")
    );
    assert_eq!(
        wants,
        "/etc/systemd/system/local-fs.target.d/50-cbin-audit-srv-my\\x2droot-cbin.mount.conf"
    );
    assert!(wanted.ends_with("[Unit]\nWants=srv-my\\x2droot-cbin.mount\n"));

    host.systemd = false;
    let plan = ask(&host, "/srv/my-root", Some(MountMeans::Host));
    let plan = plan.unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(plan.config, []);
    assert!(
        plan.advice[0].ends_with("/home/cbin /srv/my-root/cbin none bind,ro 0 0"),
        "{:?}",
        plan.advice
    );
}

#[test]
fn engines_are_never_edited() {
    let root = HostPath::from("/var/lib/docker/overlay2/x/diff");
    let binds = store();
    let request = MountRequest {
        root: &root,
        runtime: Runtime::Docker,
        binds: &binds,
        means: None,
        live: false,
        busybox_init: false,
    };
    let plan = mount_plan(&request, &Host::default()).unwrap_or_else(|r| panic!("{r}"));
    assert_eq!((plan.means, plan.config.len()), (MountMeans::None, 0));
    assert!(plan.advice[0].contains("-v /home/cbin:/cbin:ro"));
}

#[test]
fn means_that_do_not_run_the_root_are_refused() {
    for means in [MountMeans::Unit, MountMeans::Lxc, MountMeans::Oci] {
        assert!(ask(&HostConfig::default(), "/srv/x", Some(means)).is_err(), "{means:?}");
    }
    let foreign = unit("srv-x-cbin.mount", "[Mount]\nWhere=/srv/x/cbin\n");
    let host = HostConfig { systemd: true, units: vec![foreign], ..HostConfig::default() };
    assert!(ask(&host, "/srv/x", None).is_err_and(|r| r.0.contains("not written by cbin-audit")));
}

#[test]
fn an_image_is_mounted_by_the_boot_and_before_what_is_bound_of_it() {
    let image = [bind("/srv/the %store/.view", "/cbin")];
    let unit = "cbin-audit-store-srv-the\\x20\\x25store.service";
    let host = HostConfig { systemd: true, ..HostConfig::default() };
    let plan = ask_for(&host, "/srv/r", None, &image).unwrap_or_else(|r| panic!("{r}"));
    let [(mount, bound), (_, _), (path, text), (wants, _)] = &written(&plan)[..] else {
        panic!("{plan:#?}")
    };
    assert_eq!(mount, "/etc/systemd/system/srv-r-cbin.mount");
    assert!(bound.contains(&format!("\nRequires={unit}\nAfter={unit}\n")), "{bound}");
    assert_eq!(path, &format!("/etc/systemd/system/{unit}"));
    let run = "ExecStart=/bin/mount -t erofs -o ro,nodev -- \"/srv/the %%store/.view.erofs\" \"/srv/the %%store/.view\"\n";
    assert!(text.ends_with(run), "{text}");
    for line in ["!/srv/the %%store/.view\n", "RequiresMountsFor=\"/srv/the %%store\"\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        [path, wants].iter().all(|path| ConfigChange::is_of_store(&HostPath::from(path.as_str())))
    );
    assert!(!ConfigChange::is_of_store(&HostPath::from(mount.as_str())));

    let none = ask_for(&host, "/srv/r", Some(MountMeans::None), &image);
    assert!(none.is_ok_and(|plan| plan.config.is_empty()));
    let elsewhere = ask_for(&HostConfig::default(), "/srv/r", None, &image);
    let advice = elsewhere.map(|plan| plan.advice).unwrap_or_default();
    assert!(advice.iter().any(|line| line.contains("cbin-audit recover")), "{advice:?}");
}
