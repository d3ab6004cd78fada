//! The Linux Journal article "Infinite BusyBox with systemd", end to end: its containers under
//! a real systemd, used from outside, with `cbin-audit` in place of the work by hand.

#![expect(clippy::print_stderr, reason = "what was measured is a part of the answer")]

mod host;
mod units;

use serde_json::{Value, json};

use crate::booted;
use crate::snapshot::Snapshot;
use crate::suite::{Need, Suite};
use host::{Article, Text};

pub fn tests(suite: &mut Suite) {
    let mut needs = vec![Need::Package("busybox-static"), Need::Dropbear, Need::MuslBusybox];
    needs.extend(booted::NEEDS);
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_article_{name}"), &needs, run);
    };
    test("twice_the_pages_before", twice_the_pages_before);
    test("half_the_pages_after_and_back", half_the_pages_after_and_back);
    test("live_and_no_restart", live_and_no_restart);
    test("unit_that_mounts_gets_a_drop_in", units::drop_in);
    test("unit_that_does_not_restart_is_told", units::restart);
}

/// `CBIN_AUDIT_TEST_CONTAINERS` asks for another number: each takes seconds to boot.
fn containers() -> u16 {
    let told = std::env::var("CBIN_AUDIT_TEST_CONTAINERS").ok();
    told.and_then(|count| count.parse().ok()).unwrap_or(2)
}

/// Each container holds every page of its programs' text for itself, however often it is started.
fn twice_the_pages_before() {
    let article = Article::lay(2);
    article.serve_from_the_host();
    article.start();
    article.use_all();
    article.use_from_the_host();
    article.stop_serving_from_the_host();
    let text = article.text();
    assert!(text.ideal > 0);
    text.assert_about(2 * text.ideal, text.ideal);
    article.stop();
    article.start();
    article.use_all();
    article.text().assert_about(text.resident, text.ideal);
    article.stop();
}

/// What the article does by hand while the containers are stopped, and the way back. What
/// the host itself runs from a container's root goes on, and can be started anew.
fn half_the_pages_after_and_back() {
    let count = u64::from(containers());
    let article = Article::lay(containers());
    article.serve_from_the_host();
    article.start();
    article.use_all();
    article.use_from_the_host();
    let before = article.text();
    before.assert_about(count * before.ideal, before.ideal);
    if host::is_measured() {
        before.assert_about(count * 550, 550);
    }
    eprintln!("{count} containers: {before:?}");
    assert_eq!(Text::of(&article.audit(&["report", "--no-trees"], 0)["memory"]), before);
    article.stop();

    let trees = article.trees();
    let applied = article.audit(&["dedupe", "--apply"], 0);
    assert_eq!((&applied["state"], &applied["skips"]), (&"applied".into(), &json!([])));
    article.start();
    article.use_all();
    article.use_from_the_host();
    let half = article.text();
    assert_eq!(half.resident, half.ideal);
    half.assert_about(before.ideal, before.ideal);
    eprintln!("{count} containers, shared: {half:?}");
    assert_eq!(article.audit(&["verify"], 0)["ok"], true);
    article.stop_serving_from_the_host();
    article.serve_from_the_host();
    article.use_from_the_host();
    article.stop();

    article.host.run("cbin-audit", &["undo"]);
    assert_same(&trees, &article.trees());
    article.start();
    article.use_all();
    article.use_from_the_host();
    article.text().assert_about(before.resident, before.ideal);
    article.stop();
    assert_same(&trees, &article.trees());
}

/// The same while everything runs. Who is logged in stays so; who comes later is served by
/// the store's programs.
fn live_and_no_restart() {
    let article = Article::lay(2);
    article.serve_from_the_host();
    article.start();
    article.use_all();
    let before = article.text();
    let trees = article.trees();
    let mut session = article.ssh_session(1);
    let shell = session.ask("echo $$");
    // By its path: busybox's shell has applets of its own, without one.
    let runs_from = "/bin/readlink /proc/self/exe";
    assert!(!session.ask(runs_from).starts_with("/cbin/"));

    let applied = article.audit(&["dedupe", "--apply", "--live"], 0);
    assert_eq!(applied["state"], "applied");
    // A forecast, and it comes true below: the pages that are there twice, text among them.
    let forecast = applied["saves"]["memory_bytes"].as_u64().unwrap();
    assert!(forecast >= 4096 * (before.resident - before.ideal), "{forecast}, {before:?}");
    assert_eq!(session.ask("echo $$"), shell);
    assert!(session.ask(runs_from).starts_with("/cbin/busybox-"));
    for number in [1, 2] {
        assert!(article.ssh(number, runs_from).starts_with("/cbin/busybox-"));
    }
    article.use_all();
    article.use_from_the_host();
    // Nobody claims what has not come yet: the services of before are named, with the shell.
    let pending: Vec<u64> = pids(&applied["pending_restart"]);
    assert!(pending.len() > 14, "{pending:?}");
    let verified = article.audit(&["verify"], 10);
    let told: Vec<&Value> = verified["checks"].as_array().unwrap().iter().collect();
    assert!(told.iter().any(|check| check["what"] == "pending_restart"), "{told:#?}");
    drop(session);

    article.restart();
    article.use_all();
    let after = article.text();
    assert_eq!(after.resident, after.ideal, "{before:?}");
    assert_eq!(article.audit(&["verify"], 0)["ok"], true);

    // The way back needs no restart, either.
    let mut session = article.ssh_session(2);
    let shell = session.ask("echo $$");
    article.host.run("cbin-audit", &["undo"]);
    assert_same(&trees, &article.trees());
    assert_eq!(session.ask("echo $$"), shell);
    assert!(!session.ask(runs_from).starts_with("/cbin/"));
    article.use_all();
    article.use_from_the_host();
}

fn pids(processes: &Value) -> Vec<u64> {
    let pid = |process: &Value| process["pid"].as_u64().unwrap();
    processes.as_array().unwrap().iter().map(pid).collect()
}

fn assert_same(before: &[Snapshot], after: &[Snapshot]) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before.differences(after), [""; 0]);
    }
}
