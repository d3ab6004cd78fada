//! Units as administrators write them: with mounts of their own, with faults of their own, and
//! such that a restart restarts nothing.

use serde_json::Value;

use super::host::Article;
use crate::booted::Host;

/// A `.nspawn` file would be left out here: its command line mounts something.
const MOUNTING: &str = "\
[Service]
ExecStart=/usr/bin/systemd-nspawn -bD /home/nifty%i \\
# zones of the host
  --bind-ro=/usr/share/zoneinfo --kill-signal=SIGUSR2
KillMode=process
";

/// Stopping it leaves the container: busybox's init does not know the signal.
const STUCK: &str = "\
[Service]
ExecStart=/usr/bin/systemd-nspawn -bD /home/nifty%i
KillMode=process
TimeoutStopSec=1
";

/// The plan shows the drop-in, systemd reads it as it was meant, and it goes again. What
/// systemd has to say about the unit is passed on.
pub fn drop_in() {
    let article = Article::lay(2);
    let host = &article.host;
    article.set_unit(MOUNTING);
    let plan = host.run("cbin-audit", &["dedupe", "/home/nifty1", "/home/nifty2"]);
    for line in [
        "by unit (nifty@1.service runs it by systemd-nspawn, and",
        "    +++ /etc/systemd/system/nifty@1.service.d/50-cbin-audit.conf",
        "    +RequiresMountsFor=/home/cbin",
        "    +ExecStart=\n    +ExecStart=/usr/bin/systemd-nspawn --bind-ro=/home/cbin:/cbin -bD /home/nifty%i",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    let applied = host.run("cbin-audit", &["dedupe", "--apply", "/home/nifty1", "/home/nifty2"]);
    assert!(!applied.contains("systemd-analyze"), "{applied}");
    host.run("systemd-analyze", &["verify", "--man=no", "nifty@1.service"]);
    article.start();
    article.use_all();
    assert!(article.ssh(1, "/bin/readlink /proc/self/exe").starts_with("/cbin/"));
    let mounted = article.ssh(1, "cat /proc/mounts");
    for point in [" /cbin ", " /usr/share/zoneinfo "] {
        assert!(mounted.contains(point), "{mounted}");
    }
    article.stop();
    host.run("cbin-audit", &["undo"]);
    assert!(!host.path("/etc/systemd/system/nifty@1.service.d").exists());
    article.start();
    article.use_all();
    article.stop();

    article.set_unit(&format!("{MOUNTING}Bogus=1\n"));
    let applied = host.run("cbin-audit", &["dedupe", "--apply", "/home/nifty1", "/home/nifty2"]);
    let told = "note: systemd-analyze verify: /etc/systemd/system/nifty@.service:6: Unknown key";
    assert!(applied.contains(told), "{applied}");
}

/// The plan says that the unit would not restart, and the command that it gives instead does:
/// where systemd-nspawn still runs, and where such a restart has left the container alone.
pub fn restart() {
    let article = Article::lay(2);
    let host = &article.host;
    article.set_unit(STUCK);
    article.start();
    let before = ["nifty1", "nifty2"].map(|name| leader(host, name));
    host.run("systemctl", &["restart", "nifty@1.service"]);
    assert_eq!(leader(host, "nifty1"), before[0], "systemctl says that it restarted it");

    let applied = article.audit(&["dedupe", "--apply", "--live"], 0);
    let steps = applied["steps"].as_array().unwrap().iter();
    for mount in steps.filter(|step| step["action"] == "mount") {
        let mut advice = mount["after"]["advice"].as_array().unwrap().iter();
        let warned = "systemctl restart would not restart nifty@";
        let warned = |line: &Value| line.as_str().unwrap().starts_with(warned);
        assert!(advice.any(warned), "{mount:#}");
        host.run("sh", &["-c", mount["after"]["restart"].as_str().unwrap()]);
    }
    article.wait_until_all_serve();
    assert!(before[0] != leader(host, "nifty1") && before[1] != leader(host, "nifty2"));
    article.use_all();
    assert!(article.ssh(1, "/bin/readlink /proc/self/exe").starts_with("/cbin/"));
    assert_eq!(article.audit(&["verify"], 0)["ok"], true);
}

/// The container's first process.
fn leader(host: &Host, machine: &str) -> String {
    host.run("machinectl", &["show", machine, "-p", "Leader", "--value"])
}
