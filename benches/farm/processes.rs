//! Processes to look at: busybox, asleep, in roots that each have a copy of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What runs in roots: a shell for each start, and its sleepers. It ends with the pid namespace.
#[derive(Default)]
pub struct Farm {
    shells: Vec<Child>,
}

impl Farm {
    /// Starts a shell and so many sleepers in each root, and waits until they sleep. Each is
    /// started by a command that is given the root and what to run in it: chroot(8), say.
    pub fn start(&mut self, starter: &[&str], roots: &[PathBuf], sleepers: usize) {
        let before = running();
        for root in roots {
            let line = format!(
                "i=0; while [ $i -lt {sleepers} ]; do /bin/busybox sleep 1000000 & i=$((i+1)); done; wait"
            );
            let mut shell = Command::new(starter[0]);
            shell.args(&starter[1..]).arg(root).args(["/bin/busybox", "sh", "-c", &line]);
            self.shells.push(shell.stdin(Stdio::null()).spawn().expect("start a shell"));
        }
        let begin = Instant::now();
        while running() < before + roots.len() * (sleepers + 1) {
            assert!(begin.elapsed() < Duration::from_secs(120), "the farm does not grow");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The last ones are still on their way to sleep.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How many processes there are in this pid namespace.
pub fn running() -> usize {
    let names = fs::read_dir("/proc").expect("list processes").flatten();
    names.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).count()
}
