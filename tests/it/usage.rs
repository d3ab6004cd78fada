//! The command line's edges.

use crate::command::run;
use crate::suite::Suite;

pub fn tests(suite: &mut Suite) {
    suite.test("usage_help_is_on_standard_output", &[], help_is_on_standard_output);
    suite.test("usage_unknown_option_is_status_2", &[], unknown_option_is_status_2);
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
