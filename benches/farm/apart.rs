//! A bench in a pid namespace of its own, with a `/proc` of its own: the number of processes is
//! what was asked for, and nothing is left behind.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the copy that runs apart.
const APART: &str = "CBIN_AUDIT_BENCH_APART";

/// Returns in the namespaces: starts this program again in them, and becomes it.
pub fn run_apart() {
    if std::env::var_os(APART).is_some() {
        return;
    }
    let own = std::env::current_exe().expect("find this program");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(own);
    let error = command.args(std::env::args_os().skip(1)).env(APART, "1").exec();
    panic!("cannot start unshare: {error}");
}
