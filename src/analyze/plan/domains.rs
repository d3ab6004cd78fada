//! Who may share a store that is a plain directory.
//!
//! A root whose user is the host's root can take the read-only flag off the mount that shows
//! it the store, and write the store. Among themselves such roots have nothing to lose: they
//! are the domain `host`. A root of another user must not run what they can write. That
//! holds for the roots of a plan, and for those that earlier runs left in the same store.

use std::collections::BTreeMap;

use super::eligible::because;
use super::{Member, Refusal, World};
use crate::model::{HostPath, Method, PlanSettings, SkipReason, StoreFormat, TrustDomain};

/// A root that runs which stand left in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Where it lies on the host.
    pub path: HostPath,
    /// Who it is to the others.
    pub member: Member,
    /// The domain that it was declared to be in.
    pub declared: Option<String>,
}

/// Why each root is left as it is, where it is: for itself, or for the company it is in.
pub(super) fn barred(world: World<'_>) -> Vec<Option<Refusal>> {
    let mut barred: Vec<_> = world.roots.iter().map(|ground| ground.refusal.clone()).collect();
    let settings = world.settings;
    if settings.method == Method::Hardlink && settings.trust_domain.is_none() {
        barred.fill(Some(because(SkipReason::TrustDomain, HARDLINK)));
    }
    let open: Vec<usize> = (0..barred.len()).filter(|&at| barred[at].is_none()).collect();
    let newcomer = |&at: &usize| (&world.roots[at].root.path, &world.roots[at].member);
    let newcomers: Vec<_> = open.iter().map(newcomer).collect();
    for (at, refusal) in open.into_iter().zip(apart(settings, &newcomers, world.tenants)) {
        barred[at] = refusal;
    }
    barred
}

/// Which of the newcomers may not run from the store, and why: for what a root that is
/// there already could do to it, it to such a root, or the newcomers to each other.
pub fn apart(
    settings: &PlanSettings,
    newcomers: &[(&HostPath, &Member)],
    tenants: &[Tenant],
) -> Vec<Option<Refusal>> {
    if settings.method != Method::Symlink || settings.store_format == StoreFormat::Erofs {
        return vec![None; newcomers.len()];
    }
    let declared = &settings.trust_domain;
    let is_newcomer = |tenant: &&Tenant| newcomers.iter().any(|(path, _)| **path == tenant.path);
    let trusted = |tenant: &&Tenant| {
        declared.is_some() && (tenant.declared == *declared || is_newcomer(tenant))
    };
    let strangers: Vec<&Tenant> = tenants.iter().filter(|tenant| !trusted(tenant)).collect();
    let mut apart: Vec<_> =
        newcomers.iter().map(|(path, member)| beside(path, member, &strangers)).collect();
    if declared.is_none() {
        among_themselves(newcomers, &mut apart);
    }
    apart
}

/// What stands against one newcomer beside those that are there.
fn beside(path: &HostPath, member: &Member, tenants: &[&Tenant]) -> Option<Refusal> {
    let writes = |tenant: &Member| tenant.writes;
    let is_user = |tenant: &Member| tenant.domain != HOST;
    let against: fn(&Member) -> bool = match (&member.domain, member.writes) {
        (TrustDomain::Host, false) => return None,
        (TrustDomain::Host, true) => is_user,
        _ => writes,
    };
    let mut others = tenants.iter().filter(|tenant| tenant.path != *path);
    let tenant = others.find(|tenant| against(&tenant.member))?;
    let (who, place) = (its_root(member), &tenant.path.0);
    let why = match member.domain {
        TrustDomain::Host => format!("which can write the store that {place:?} runs from"),
        _ => format!("and the root of {place:?} can write the store that it runs from"),
    };
    let explanation = format!(
        "{who}, {why} since an earlier run: --store DIR names another store, --store-format erofs makes one that \
         nobody can write, --trust-domain NAME, given for both, declares trust"
    );
    Some(because(SkipReason::TrustDomain, explanation))
}

/// Of those that one plan brings, the side with more roots has the store.
fn among_themselves(newcomers: &[(&HostPath, &Member)], apart: &mut [Option<Refusal>]) {
    let unbarred = newcomers.iter().zip(apart.iter()).filter(|(_, refusal)| refusal.is_none());
    let members: Vec<&Member> = unbarred.map(|((_, member), _)| *member).collect();
    let among = |host: bool| members.iter().filter(|it| (it.domain == HOST) == host).count();
    // Without one that can write the store there is nobody to be kept from.
    if among(false) == 0 || !members.iter().any(|member| member.writes) {
        return;
    }
    let hosts = among(true) >= largest_of_users(&members);
    for ((_, member), refusal) in newcomers.iter().zip(apart) {
        let other_side = if hosts { member.domain != HOST } else { member.writes };
        if refusal.is_none() && other_side {
            *refusal = Some(because(SkipReason::TrustDomain, kept_apart(member)));
        }
    }
}

/// How many roots the largest domain beside the host's has.
fn largest_of_users(members: &[&Member]) -> usize {
    let mut counts: BTreeMap<&TrustDomain, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| member.domain != HOST) {
        *counts.entry(&member.domain).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

const HOST: TrustDomain = TrustDomain::Host;

const HARDLINK: &str = "a hard link lets each root change what the other runs: --trust-domain NAME declares \
     that they trust each other";

fn its_root(member: &Member) -> String {
    match member.domain {
        TrustDomain::Host => "its root is the host's root".to_owned(),
        TrustDomain::Users(users) => format!("its root is user {} of the host", users.first),
        TrustDomain::Picked => "its root is a user of the host".to_owned(),
    }
}

fn kept_apart(member: &Member) -> String {
    let who = its_root(member);
    let why = match member.domain {
        TrustDomain::Host => "which can write a plain store that others here run from",
        _ => "and the root of others here can write a plain store",
    };
    format!(
        "{who}, {why}: --store-format erofs makes a store that nobody can write, --trust-domain NAME declares trust"
    )
}
