//! What to do with a report, as commands to copy.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::model::{Bytes, MemoryMethod, Notice, Report, Select};

/// A command, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Ready for a shell.
    pub command: String,
    /// In words.
    pub why: &'static str,
}

/// What was asked, as far as it matters to what comes next.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The roots as the user named them.
    pub roots: &'a [PathBuf],
    /// Every list was shown whole.
    pub verbose: bool,
    /// This program can share what is held twice.
    pub dedupe: bool,
}

/// What to do next, most useful first.
pub fn steps(report: &Report, asked: &Asked<'_>) -> Vec<Step> {
    let wasted = report.totals.wasted_disk > Bytes(0) || report.totals.wasted_memory > Bytes(0);
    let inferred =
        report.memory.as_ref().is_some_and(|memory| memory.method == MemoryMethod::Inferred);
    let denied = |notice: &Notice| notice.partial && notice.cause.contains("ermission denied");
    let refused = inferred || report.notices.iter().any(denied);
    let (select, widened) = wider(report.select);
    let known = [
        (wasted && asked.dedupe, "dedupe", "the plan that shares them; nothing is changed"),
        (refused, "sudo report", "also what this user may not read"),
        (wasted && !asked.verbose, "report --verbose", "every copy and every link"),
        (!select.is_empty(), select, widened),
    ];
    let wanted = known.into_iter().filter(|(applies, ..)| *applies);
    wanted.map(|(_, words, why)| Step { command: command(words, asked.roots), why }).collect()
}

fn wider(select: Select) -> (&'static str, &'static str) {
    match select {
        Select::Multicall => ("report --select elf", "every program and library"),
        Select::Elf => ("report --select all", "every file, not programs alone"),
        Select::All => ("", ""),
    }
}

fn command(words: &str, roots: &[PathBuf]) -> String {
    let mut command = match words.strip_prefix("sudo ") {
        Some(words) => format!("sudo cbin-audit {words}"),
        None => format!("cbin-audit {words}"),
    };
    for root in roots {
        command.push(' ');
        command.push_str(&quoted(root.as_os_str().as_bytes()));
    }
    command
}

/// A path as one word of a shell's command line, whatever its bytes, and safe to show.
fn quoted(path: &[u8]) -> String {
    // A root named `--apply` must not become an option.
    match path.starts_with(b"-") {
        true => shell_word(&[b"./", path].concat()),
        false => shell_word(path),
    }
}

/// One word of a shell's command line, whatever its bytes, and safe to show.
pub fn shell_word(path: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_.+-:@,%=".contains(byte);
    if !path.is_empty() && path.iter().all(plain) {
        return String::from_utf8_lossy(path).into_owned();
    }
    if path.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return format!("'{}'", String::from_utf8_lossy(path).replace('\'', "'\\''"));
    }
    let byte = |byte: u8| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    format!("$'{}'", path.iter().copied().map(byte).collect::<String>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a shell is asked what it reads")]

    use super::*;
    use crate::render::sample;

    fn commands(report: &Report, roots: &[&str], dedupe: bool) -> Vec<String> {
        let roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
        let asked = Asked { roots: &roots, verbose: false, dedupe };
        steps(report, &asked).into_iter().map(|step| step.command).collect()
    }

    #[test]
    fn the_roots_are_those_that_the_user_named() {
        let expected = [
            "cbin-audit dedupe /home/a '/home/b c'",
            "sudo cbin-audit report /home/a '/home/b c'",
            "cbin-audit report --verbose /home/a '/home/b c'",
            "cbin-audit report --select all /home/a '/home/b c'",
        ];
        assert_eq!(commands(&sample::report(), &["/home/a", "/home/b c"], true), expected);
    }

    #[test]
    fn nothing_wasted_needs_no_sharing() {
        assert_eq!(commands(&sample::empty(), &[], true), ["cbin-audit report --select all"]);
    }

    #[test]
    fn a_command_that_this_program_lacks_is_not_offered() {
        let commands = commands(&sample::report(), &[], false);
        assert!(!commands.iter().any(|command| command.contains("dedupe")), "{commands:?}");
    }

    #[test]
    fn a_shell_reads_every_path_as_one_word() {
        let paths: [&[u8]; 7] = [
            b"/home/web",
            b"a b",
            b"it's",
            b"$(reboot)",
            b"-rf",
            b"a\nb\x1b'\\",
            "é\u{202e}".as_bytes(),
        ];
        for path in paths {
            let script = format!("printf %s {}", quoted(path));
            assert!(script.chars().all(|char| (' '..='~').contains(&char)), "{script:?}");
            let run = std::process::Command::new("bash").arg("-c").arg(&script).output();
            let expected = if path == b"-rf" { b"./-rf" } else { path };
            assert_eq!(run.expect("run bash").stdout, expected, "{script}");
        }
    }
}
