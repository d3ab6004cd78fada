//! The command line's edges.

use std::process::Command;

use crate::command::run;
use crate::suite::{Need, Suite};

pub fn tests(suite: &mut Suite) {
    suite.test("usage_help_is_on_standard_output", &[], help_is_on_standard_output);
    suite.test("usage_unknown_option_is_status_2", &[], unknown_option_is_status_2);
    suite.test("usage_completions_name_the_commands", &[], completions_name_the_commands);
    suite.test("usage_each_command_has_a_manual_page", &[], each_command_has_a_manual_page);
    let man = &[Need::Program("man")];
    suite.test("usage_manual_pages_are_sound_roff", man, manual_pages_are_sound_roff);
}

/// Every command that the help lists.
pub fn commands() -> Vec<String> {
    let help = run(&["--help"]).stdout;
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let names = listed.lines().filter_map(|line| line.strip_prefix("  "));
    names
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn completions_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(&["completions", shell]);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{shell}");
        for command in commands() {
            assert!(ran.stdout.contains(&command), "{shell}: {command}");
        }
    }
}

fn each_command_has_a_manual_page() {
    let own = run(&["man"]);
    assert_eq!(own.status, 0);
    assert!(own.stdout.contains(".TH cbin-audit 1"), "{}", own.stdout);
    for command in commands().into_iter().filter(|name| name != "help") {
        let ran = run(&["man", &command]);
        assert_eq!(ran.status, 0, "{command}: {}", ran.stderr);
        assert!(ran.stdout.contains(&format!("cbin\\-audit\\-{command}")), "{}", ran.stdout);
        assert!(ran.stdout.contains("json"), "{command} lacks the shared options");
    }
    assert_eq!(run(&["man", "no-such-command"]).status, 1);
}

/// groff's warnings go to standard error.
fn manual_pages_are_sound_roff() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("cbin-audit.1");
    std::fs::write(&page, run(&["man"]).stdout).unwrap();
    let shown = Command::new("man").args(["--warnings", "-l"]).arg(&page).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("SUBCOMMANDS"));
}

fn help_is_on_standard_output() {
    let ran = run(&["--help"]);
    assert_eq!(ran.status, 0);
    assert!(ran.stdout.contains("Usage: cbin-audit"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
}

fn unknown_option_is_status_2() {
    let ran = run(&["--no-such-option"]);
    assert_eq!(ran.status, 2);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("--no-such-option"), "{}", ran.stderr);
}
