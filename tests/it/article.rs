//! The Linux Journal article "Infinite BusyBox with systemd", end to end: its containers under
//! a real systemd, used from outside, with `cbin-audit` in place of the work by hand.

mod host;

use crate::booted;
use crate::suite::{Need, Suite};
use host::Article;

pub fn tests(suite: &mut Suite) {
    let mut needs = vec![Need::Package("busybox-static"), Need::Dropbear, Need::MuslBusybox];
    needs.extend(booted::NEEDS);
    let mut test = |name: &str, run: fn()| {
        suite.test(&format!("privileged_article_{name}"), &needs, run);
    };
    test("twice_the_pages_before", twice_the_pages_before);
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
    assert_eq!(text.resident, 2 * text.ideal);
    article.stop();
    article.start();
    article.use_all();
    assert_eq!(article.text(), text);
    article.stop();
}
