//! Whether those that run from one store may still share it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::analyze::plan::Tenant;
use crate::model::{Check, HostPath, Isolation, Notices, TrustDomain};
use crate::ops::members::{Known, Shown};
use crate::scan;

/// Of each plain store: a root that has come to be able to write it, beside one that must be
/// kept from that; where one of both is `concerned`.
pub(super) fn check(
    shown: &[Shown],
    concerned: impl Fn(&HostPath) -> bool,
    running: &[Isolation],
    checks: &mut Vec<Check>,
    notices: &mut Notices,
) {
    let paths: Vec<HostPath> = shown.iter().map(|shown| shown.root.clone()).collect();
    let config = scan::host_config(Path::new("/"), &paths, notices);
    let known = Known { config, running: running.to_vec() };
    let mut stores: BTreeMap<&HostPath, Vec<Tenant>> = BTreeMap::new();
    for shown in shown {
        stores.entry(&shown.store).or_default().extend(known.tenant(shown));
    }
    for (store, tenants) in stores {
        let writers = tenants.iter().filter(|tenant| tenant.member.writes);
        for writer in writers {
            let mut others = tenants.iter().filter(|other| harms(writer, other));
            let told = others.find(|other| concerned(&writer.path) || concerned(&other.path));
            checks.extend(told.map(|other| told_of(store, writer, other)));
        }
    }
}

fn harms(writer: &Tenant, other: &Tenant) -> bool {
    let declared = writer.declared.is_some() && other.declared == writer.declared;
    other.member.domain != TrustDomain::Host && !declared
}

fn told_of(store: &HostPath, writer: &Tenant, other: &Tenant) -> Check {
    let detail = format!(
        "its root is the host's root, and can write what {:?} runs, whose root is a user of the host: cbin-audit \
         undo --root takes one of them out; dedupe with --store DIR, or with --store-format erofs, shares anew; or \
         run it in a user namespace of its own, or without CAP_SYS_ADMIN",
        other.path.0
    );
    Check::bad("trust", detail).in_root(&writer.path).at(store.as_bytes())
}
