//! Ctrl-C: at once, and leaving nothing behind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// When a signal asks for the end: tidies up, and then ends by that same signal,
/// so that a shell and `make` see what happened.
pub(crate) fn on_signal(tidy: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let ignored = ignored();
    let asked = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !ignored.contains(*signal));
    let mut signals = Signals::new(asked).context("cannot watch for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            tidy();
            // It ends the process; if it could not, nothing would be left to do.
            let _ended = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// When a signal asks for the end of a change: the first one sets the flag, so that the
/// work ends where nothing is half done; the second one ends the process at once.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored.contains(signal) {
            continue;
        }
        let status = 128 + signal;
        flag::register_conditional_shutdown(signal, status, Arc::clone(&flag))
            .and_then(|_| flag::register(signal, Arc::clone(&flag)))
            .context("cannot watch for signals")?;
    }
    Ok(flag)
}

/// The signals that this process was started to ignore (`nohup`, a shell's `&`).
struct Ignored(u64);

impl Ignored {
    fn contains(&self, signal: i32) -> bool {
        self.0 & (1 << (signal - 1)) != 0
    }
}

/// `SigIgn` of proc_pid_status(5): a hexadecimal mask, signal 1 in the lowest bit.
fn ignored() -> Ignored {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ignored(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}
