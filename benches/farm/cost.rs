//! What a command costs, as the kernel accounts for it.

use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One run, or the least of several.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// User and system time, of all threads.
    pub cpu: Duration,
    pub wall: Duration,
    /// The largest resident set.
    pub peak_kib: i64,
}

impl Cost {
    /// Runs a command that must succeed; what it prints is dropped.
    #[expect(clippy::zombie_processes, reason = "wait4(2) waits for it")]
    pub fn of(command: &mut Command) -> Self {
        let begin = Instant::now();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
        let usage = wait(child.id());
        let time =
            |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        Self {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            wall: begin.elapsed(),
            peak_kib: usage.ru_maxrss,
        }
    }

    /// The lesser of each: what disturbs a run only ever adds.
    pub fn least(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            wall: self.wall.min(other.wall),
            peak_kib: self.peak_kib.min(other.peak_kib),
        }
    }
}

#[expect(unsafe_code, reason = "wait4(2) tells what a child used; no library wraps it")]
fn wait(pid: u32) -> libc::rusage {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places are valid for the kernel to write to, and zeroes are a usage.
    let (reaped, usage) = unsafe {
        (libc::wait4(pid as i32, &raw mut status, 0, usage.as_mut_ptr()), usage.assume_init())
    };
    assert!(reaped == pid as i32 && status == 0, "the command failed: {status:#x}");
    usage
}
