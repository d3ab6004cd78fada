//! `report`, as it is seen: tables, documents, files, statuses, signals.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use cbin_audit::render::json::REPORT_SCHEMA;

use crate::command::{Ran, cbin_audit};
use crate::suite::{Need, Suite};
use crate::world;
use crate::world::{busybox, dir, file, hardlink, link, program};

pub fn tests(suite: &mut Suite) {
    suite.test("report_reads_from_the_top", &[], reads_from_the_top);
    suite.test("report_fits_the_page", &[], fits_the_page);
    suite.test("report_verbose_lists_copies_and_links", &[], verbose_lists_copies_and_links);
    suite.test("report_json_is_valid", &[], json_is_valid);
    suite.test("report_memory_stands_beside_disk", &[], memory_stands_beside_disk);
    suite.test("report_colour_is_as_asked", &[], colour_is_as_asked);
    suite.test("report_sorts_and_cuts", &[], sorts_and_cuts);
    suite.test("report_check_has_a_status", &[], check_has_a_status);
    suite.test("report_partial_is_status_3", &[], partial_is_status_3);
    suite.test("report_many_notices_are_counted", &[], many_notices_are_counted);
    suite.test("report_formats_are_whole", &[], formats_are_whole);
    suite.test("report_closed_pipe_is_success", &[], closed_pipe_is_success);
    suite.test("report_full_disk_is_an_error", &[Need::File("/dev/full")], full_disk_is_an_error);
    suite.test("report_output_takes_its_place_whole", &[], output_takes_its_place_whole);
    suite.test("report_output_keeps_what_cannot_be_replaced", &[], output_keeps_what_is_special);
    suite.test("report_no_root_is_an_error", &[], no_root_is_an_error);
    suite.test("report_usage_errors_are_status_2", &[], usage_errors_are_status_2);
    suite.test("report_progress_is_as_asked", &[], progress_is_as_asked);
    suite.test("report_interrupt_ends_it", &[], interrupt_ends_it);
}

/// Two roots with a busybox each, one more name for it, a link it does not
/// answer to, one that leads nowhere, and a directory that is the same in both.
struct Roots(tempfile::TempDir);

impl Roots {
    fn lay() -> Self {
        let home = tempfile::tempdir().unwrap();
        world! { home.path(),
            "web/bin/busybox" => busybox(),
            "web/bin/ls" => link("busybox"),
            "web/bin/sh" => hardlink("web/bin/busybox"),
            "web/bin/frobnicate" => link("busybox"),
            "web/bin/vi" => link("/nowhere"),
            "web/usr/bin/tool" => program(b"tool"),
            "web/usr/share/doc/a" => file("a text"),
            "web/usr/share/doc/b" => file("another"),
            "web/tmp" => dir(),
            "db/bin/busybox" => busybox(),
            "db/usr/bin/tool" => program(b"tool"),
            "db/usr/bin/zz\x1b[2J" => program(b"zz"),
            "db/usr/bin/zy" => program(b"zz"),
            "db/usr/share/doc/a" => file("a text"),
            "db/usr/share/doc/b" => file("another"),
            b"db/etc/na\xffme" => file("hostile"),
            b"web/etc/name" => file("hostile"),
        }
        Self(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `report --no-memory OPTIONS web db`: what runs on this machine changes from run to run.
    fn report(&self, options: &[&str]) -> Ran {
        Ran::from(self.command(options).output().unwrap())
    }

    fn command(&self, options: &[&str]) -> std::process::Command {
        let mut command = cbin_audit();
        command
            .args(["report", "--no-memory"])
            .args(options)
            .args([self.path("web"), self.path("db")]);
        command
    }

    fn json(&self, options: &[&str]) -> Value {
        let ran = self.report(&[options, &["--json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    }
}

fn reads_from_the_top() {
    let roots = Roots::lay();
    let ran = roots.report(&["--no-trees"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let places: Vec<usize> = [
        "Container roots: 2\n",
        "1 link leads to nothing: bin/vi",
        "Duplicate programs and libraries: 3\n",
        "busybox  1.36.1 ",
        "busybox 1.36.1\n",
        "1 link has a name it does not answer to: bin/frobnicate",
        "Totals\n",
        "Next\n",
        "  cbin-audit report --verbose ",
    ]
    .iter()
    .map(|part| ran.stdout.find(part).unwrap_or_else(|| panic!("{part:?} in\n{}", ran.stdout)))
    .collect();
    assert!(places.is_sorted(), "{places:?} in\n{}", ran.stdout);
    assert!(!ran.stdout.contains('\x1b'), "{}", ran.stdout);
    assert!(!ran.stdout.contains("Duplicate trees"), "{}", ran.stdout);
    assert!(roots.report(&[]).stdout.contains("\nDuplicate trees"));
}

fn fits_the_page() {
    let roots = Roots::lay();
    for root in ["web", "db"] {
        let path = format!("{root}/{0}/{0}", "long".repeat(50));
        world::lay(&roots.path(""), path.as_bytes(), program(b"long"));
    }
    for columns in ["20", "80", "100", "400"] {
        for options in [&["--select", "all"][..], &["-v", "--top", "0"]] {
            let ran = Ran::from(roots.command(options).env("COLUMNS", columns).output().unwrap());
            let page = columns.parse::<usize>().unwrap().clamp(80, 100);
            // Commands to copy stand on lines of their own, unbroken.
            let lines = ran.stdout.lines().filter(|line| !line.starts_with("  cbin-audit "));
            let widest = lines.max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= page, "{columns} columns: {widest:?}");
        }
    }
}

fn verbose_lists_copies_and_links() {
    let ran = Roots::lay().report(&["-v"]);
    for part in
        ["links: bin/frobnicate, bin/ls, bin/sh", "inode ", "of 10 applets without a link: ["]
    {
        assert!(ran.stdout.contains(part), "{part:?} in\n{}", ran.stdout);
    }
}

fn json_is_valid() {
    let roots = Roots::lay();
    for options in [&[][..], &["--select", "all"], &["--select", "multicall", "--no-trees"]] {
        let document = roots.json(options);
        assert_eq!(schema_errors(&document), Vec::<String>::new(), "{document:#}");
        assert_eq!(document["complete"], true);
        assert_eq!(document["tool"]["version"], env!("CARGO_PKG_VERSION"));
    }
    let document = roots.json(&["--select", "all"]);
    let groups = document["groups"].as_array().unwrap();
    let busybox = groups.iter().find(|group| group["kind"] == "busybox").unwrap();
    assert_eq!(busybox["version"], "1.36.1");
    assert_eq!(busybox["arch"], "x86_64");
    assert_eq!(busybox["inodes"], 2);
    let copies = busybox["copies"].as_array().unwrap();
    let web = copies.iter().find(|copy| copy["root"] == 0).unwrap();
    assert_eq!(web["links"], json!(["bin/frobnicate", "bin/ls", "bin/sh"]));
    assert_eq!(web["unknown_applets"], json!(["bin/frobnicate"]));
    assert_eq!(web["nlink"], 2);
    let meta = fs::metadata(roots.path("web/bin/busybox")).unwrap();
    assert_eq!(web["ino"], meta.ino());
    assert_eq!(web["allocated_bytes"], meta.blocks() * 512);
    let hostile = groups.iter().flat_map(|group| group["copies"].as_array().unwrap());
    let hostile = hostile.filter_map(|copy| copy.get("path_base64")).collect::<Vec<_>>();
    assert_eq!(hostile, [&json!("ZXRjL25h/21l")]);
}

fn memory_stands_beside_disk() {
    let roots = Roots::lay();
    let report = |options: &[&str]| {
        let mut command = cbin_audit();
        command.arg("report").args(options).args([roots.path("web"), roots.path("db")]);
        Ran::from(command.output().unwrap())
    };
    let table = report(&[]).stdout;
    assert!(table.contains("  memory  wasted\n") && table.contains("\nMemory\n"), "{table}");
    let document: Value = serde_json::from_str(&report(&["--json"]).stdout).unwrap();
    assert_eq!(schema_errors(&document), Vec::<String>::new());
    assert!(document["memory"]["processes_seen"].is_u64());
    assert_eq!(roots.json(&[])["memory"], Value::Null);
}

fn schema_errors(document: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(REPORT_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

fn colour_is_as_asked() {
    let roots = Roots::lay();
    let always = roots.report(&["--color", "always"]);
    assert!(always.stdout.starts_with("\x1b[1mContainer roots: 2\x1b[0m\n"), "{}", always.stdout);
    let plain = roots.report(&["--color", "never"]).stdout;
    assert_eq!(always.stdout.replace("\x1b[1m", "").replace("\x1b[0m", ""), plain);
    assert_eq!(roots.report(&[]).stdout, plain);
    let refused = roots.command(&[]).env("NO_COLOR", "1").env("TERM", "xterm").output().unwrap();
    assert_eq!(Ran::from(refused).stdout, plain);
}

fn sorts_and_cuts() {
    let roots = Roots::lay();
    let names = |options: &[&str]| -> Vec<String> {
        let document = roots.json(&[&["--select", "all"], options].concat());
        let groups = document["groups"].as_array().unwrap();
        groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = names(&["--sort", "name"]);
    assert!(all.is_sorted() && all.len() == 6, "{all:?}");
    assert_eq!(names(&["--sort", "name", "--top", "2"]), all[..2]);
    let wasted = |sort: &str| -> Vec<(u64, u64)> {
        let document = roots.json(&["--select", "all", "--sort", sort]);
        let groups = document["groups"].as_array().unwrap().iter();
        let figure = |group: &Value, key: &str| group[key].as_u64().unwrap();
        groups.map(|group| (figure(group, "wasted_bytes"), figure(group, "inodes"))).collect()
    };
    assert!(wasted("disk").is_sorted_by_key(|(bytes, _)| std::cmp::Reverse(*bytes)));
    assert!(wasted("copies").is_sorted_by_key(|(_, inodes)| std::cmp::Reverse(*inodes)));
    let cut = roots.report(&["--top", "1", "--sort", "name", "--no-trees"]).stdout;
    assert!(cut.contains("2 more: --top 0 shows all\n"), "{cut}");
    assert!(!roots.report(&["--top", "0"]).stdout.contains(" more: "));
}

fn check_has_a_status() {
    let roots = Roots::lay();
    assert_eq!(roots.report(&["--check"]).status, 10);
    assert_eq!(roots.report(&[]).status, 0);
    let mut alone = cbin_audit();
    alone.args(["report", "--check", "--no-memory", "--no-trees", "--select", "multicall"]);
    let alone = alone.arg(roots.path("web")).output().unwrap();
    assert_eq!(Ran::from(alone).status, 0);
}

fn partial_is_status_3() {
    let roots = Roots::lay();
    let limited = roots.report(&["--max-entries", "3"]);
    assert_eq!(limited.status, 3, "{limited:?}");
    assert!(limited.stderr.contains("cbin-audit: "), "{limited:?}");
    assert_eq!(roots.report(&["--max-entries", "3", "--quiet"]).stderr, "");
    let document = roots.json(&["--max-entries", "3"]);
    assert_eq!(schema_errors(&document), Vec::<String>::new());
    assert_eq!(document["complete"], false);
    assert!(document["notices"].as_array().unwrap().iter().any(|notice| notice["partial"] == true));
    // What was found counts more than what could not be looked at.
    let large = roots.path("web/usr/lib/large.so");
    world::lay(&roots.path(""), b"web/usr/lib/large.so", program(&[b'x'; 3000]));
    world::lay(&roots.path(""), b"db/usr/lib/large.so", program(&[b'x'; 3000]));
    assert!(fs::metadata(large).unwrap().len() > 2048);
    let some = ["--max-file-size", "2K"];
    assert_eq!(roots.report(&some).status, 3);
    assert_eq!(roots.report(&[&some[..], &["--check"]].concat()).status, 10);
}

fn many_notices_are_counted() {
    let roots = Roots::lay();
    for at in 0..30 {
        for root in ["web", "db"] {
            let path = format!("{root}/lib/{at}\u{202e}\n.so");
            world::lay(&roots.path(""), path.as_bytes(), program(&vec![at; 5000]));
        }
    }
    let ran = roots.report(&["--max-file-size", "4K"]);
    assert_eq!(ran.status, 3);
    assert_eq!(ran.stderr.lines().count(), 21, "{}", ran.stderr);
    assert!(ran.stderr.ends_with(" more: --verbose or --json names them\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\u{202e}') && ran.stderr.contains("\\u{202e}\\n.so"));
    assert!(roots.report(&["-v", "--max-file-size", "4K"]).stderr.lines().count() > 21);
}

fn formats_are_whole() {
    let roots = Roots::lay();
    let html = roots.report(&["--format", "html", "--select", "all"]).stdout;
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"), "{html}");
    assert!(html.contains("zz\\u{1b}[2J") && !html.contains('\x1b'), "{html}");
    let metrics = roots.report(&["--format", "openmetrics", "--top", "1"]).stdout;
    assert!(metrics.ends_with("\n# EOF\n"), "{metrics}");
    assert!(metrics.contains("cbin_audit_contents 3\n"), "{metrics}");
    assert_eq!(metrics.matches("\ncbin_audit_content_inodes{").count(), 1, "{metrics}");
    assert_eq!(roots.report(&["--format", "json"]).stdout, roots.report(&["--json"]).stdout);
}

fn closed_pipe_is_success() {
    let roots = Roots::lay();
    // More than a pipe holds, so that the writer does meet the closed end.
    for at in 0..2000 {
        let name = format!("web/usr/lib/{at:0200}");
        world::lay(&roots.path(""), name.as_bytes(), file(format!("{}", at / 2)));
    }
    for format in ["table", "json", "html", "openmetrics"] {
        let options = ["--select", "all", "-v", "--top", "0", "--no-trees", "--format", format];
        let mut child = roots.command(&options).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{format}");
    }
}

fn full_disk_is_an_error() {
    let roots = Roots::lay();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(roots.command(&[]).stdout(full).output().unwrap());
    let expected =
        "cbin-audit: cannot write standard output: No space left on device (os error 28)\n";
    assert_eq!((ran.status, ran.stderr.as_str()), (1, expected));
    let ran = roots.report(&["--output", "/dev/full"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("cbin-audit: cannot write /dev/full: No space"), "{ran:?}");
}

fn output_takes_its_place_whole() {
    let roots = Roots::lay();
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("report.json");
    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    let old = fs::metadata(&target).unwrap().ino();
    let ran = roots.report(&["--json", "--output", target.to_str().unwrap()]);
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let document: Value = serde_json::from_slice(&fs::read(&target).unwrap()).unwrap();
    assert_eq!(schema_errors(&document), Vec::<String>::new());
    let new = fs::metadata(&target).unwrap();
    assert_ne!(new.ino(), old, "it was written in place");
    assert_eq!(new.mode() & 0o777, 0o640);
    assert_eq!(names(out.path()), ["report.json"]);
    // No answer: what stood there stays.
    let failed =
        cbin_audit().args(["report", "/no/such/root", "--output"]).arg(&target).output().unwrap();
    assert_ne!(Ran::from(failed).status, 0);
    assert_eq!(fs::metadata(&target).unwrap().ino(), new.ino());
    assert_eq!(names(out.path()), ["report.json"]);
}

fn output_keeps_what_is_special() {
    let roots = Roots::lay();
    let out = tempfile::tempdir().unwrap();
    let (real, by_link) = (out.path().join("real"), out.path().join("link"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real", &by_link).unwrap();
    assert_eq!(roots.report(&["-o", by_link.to_str().unwrap()]).status, 0);
    assert!(fs::symlink_metadata(&by_link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().starts_with("Container roots: 2\n"));
    assert_eq!(roots.report(&["-o", "/dev/null"]).status, 0);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let ran = roots.report(&["-o", out.path().to_str().unwrap()]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.ends_with(": it is a directory\n"), "{ran:?}");
    let ran = roots.report(&["-o", "/no/such/dir/file"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("cbin-audit: cannot write /no/such/dir/file: "), "{ran:?}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

fn no_root_is_an_error() {
    let ran = crate::command::run(&["report", "/no/such/root"]);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("cbin-audit: "), "{ran:?}");
    assert_eq!(ran.stderr.matches("/no/such/root").count(), 1, "{ran:?}");
}

fn usage_errors_are_status_2() {
    for options in [
        &["--format", "xml"][..],
        &["--json", "--format", "html"],
        &["--select", "none"],
        &["--top", "-1"],
        &["--max-file-size", "1KiB"],
        &["--sort", "size"],
    ] {
        let ran = Roots::lay().report(options);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{options:?}");
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
}

fn progress_is_as_asked() {
    let roots = Roots::lay();
    assert_eq!(roots.report(&[]).stderr, "");
    let shown = roots.report(&["--progress", "always"]);
    assert!(shown.stderr.contains("cbin-audit: reading files: "), "{}", shown.stderr);
    assert!(!shown.stderr.contains('\x1b'), "{}", shown.stderr);
}

/// Files that are alike until their ends, and take many seconds to compare.
fn large_root() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for at in 0..60 {
        let name = format!("usr/lib/{at}.so");
        world::lay(home.path(), name.as_bytes(), program(b""));
        let sparse = fs::OpenOptions::new().write(true).open(home.path().join(name)).unwrap();
        sparse.set_len(500 << 20).unwrap();
    }
    home
}

fn interrupt_ends_it() {
    let home = large_root();
    let out = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        // Signals that whoever runs the tests has ignored (a shell's `&`) would be heeded as such.
        let mut child = Command::new("env")
            .args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_cbin-audit"), "report"])
            .args(["--progress", "always", "--select", "all", "--output"])
            .args([&out.path().join("report"), home.path()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until_it_reads(&mut child);
        assert_eq!(names(out.path()).len(), 1, "the temporary file");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal.as_raw()));
        assert_eq!(names(out.path()), Vec::<String>::new());
    }
}

fn wait_until_it_reads(child: &mut Child) {
    let mut said = BufReader::new(child.stderr.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains("listing names") && !line.contains("reading files") {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            let mut rest = String::new();
            said.read_to_string(&mut rest).unwrap();
            panic!("it ended before it was asked to: {rest}");
        }
    }
}
