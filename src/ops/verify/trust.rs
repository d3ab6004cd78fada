//! Whether those that run from one store may still share it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::analyze::plan::{Tenant, Writes, harms, seen_by_both};
use crate::model::{Check, HostPath, Isolation, Notices};
use crate::ops::members::{Known, Shown};
use crate::scan::{self, HostPlaces};

/// What tells who the roots are that runs left in a store.
pub(super) fn known(
    shown: &[Shown],
    guarded: HostPlaces,
    running: &[Isolation],
    notices: &mut Notices,
) -> Known {
    let paths: Vec<HostPath> = shown.iter().map(|shown| shown.root.clone()).collect();
    let config = scan::host_config(Path::new("/"), &paths, notices);
    Known { host: config.into(), guarded, running: running.to_vec() }
}

/// Of each store: a root that has come to be able to write it, beside one that must be kept
/// from that; where one of both is `concerned`.
pub(super) fn check(
    shown: &[Shown],
    known: &Known,
    concerned: impl Fn(&HostPath) -> bool,
    checks: &mut Vec<Check>,
) {
    let mut stores: BTreeMap<&HostPath, Vec<Tenant>> = BTreeMap::new();
    for shown in shown {
        stores.entry(&shown.store).or_default().extend(known.tenant(shown));
    }
    for (store, tenants) in stores {
        for writer in &tenants {
            let mut others = tenants.iter().filter(|other| endangers(writer, other));
            let told = others.find(|other| concerned(&writer.path) || concerned(&other.path));
            checks.extend(told.map(|other| told_of(store, writer, other)));
        }
    }
}

fn endangers(writer: &Tenant, other: &Tenant) -> bool {
    let declared = writer.declared.is_some() && other.declared == writer.declared;
    let format = seen_by_both(writer.format, other.format);
    writer.path != other.path && !declared && harms(&writer.member, &other.member, format)
}

fn told_of(store: &HostPath, writer: &Tenant, other: &Tenant) -> Check {
    let change = match writer.member.writes {
        Writes::Image => {
            "or mount there read-only what the store lies in (cbin-audit doctor says where that is, while it runs)"
        }
        _ => {
            "dedupe with --store DIR, or with --store-format erofs, shares anew; or run it in a user namespace of its \
             own, or without CAP_SYS_ADMIN"
        }
    };
    let detail = format!(
        "its root can write what {:?} runs, which belongs to another: cbin-audit undo --root takes one of them out; \
         {change}",
        other.path.0
    );
    Check::bad("trust", detail).in_root(&writer.path).at(store.as_bytes())
}
