//! Who may share a store that is a plain directory.
//!
//! A root whose user is the host's root can take the read-only flag off the mount that shows
//! it the store, and write the store. Among themselves such roots have nothing to lose: they
//! are the domain `host`. A root of another user must not run what they can write.

use std::collections::BTreeMap;

use super::eligible::because;
use super::{Member, Refusal, World};
use crate::model::{Method, SkipReason, StoreFormat, TrustDomain};

/// Why each root is left as it is, where it is: for itself, or for the company it is in.
pub(super) fn barred(world: World<'_>) -> Vec<Option<Refusal>> {
    let mut barred: Vec<_> = world.roots.iter().map(|ground| ground.refusal.clone()).collect();
    let settings = world.settings;
    if settings.method == Method::Hardlink && settings.trust_domain.is_none() {
        barred.fill(Some(because(SkipReason::TrustDomain, HARDLINK)));
    }
    let safe = settings.trust_domain.is_some()
        || settings.method == Method::Reflink
        || settings.store_format == StoreFormat::Erofs;
    if safe {
        return barred;
    }
    let unbarred = world.roots.iter().zip(&barred).filter(|(_, refusal)| refusal.is_none());
    let members: Vec<&Member> = unbarred.map(|(ground, _)| &ground.member).collect();
    let among = |host: bool| members.iter().filter(|it| (it.domain == HOST) == host).count();
    // Without one that can write the store there is nobody to be kept from.
    if among(false) == 0 || !members.iter().any(|member| member.writes) {
        return barred;
    }
    let hosts = among(true) >= largest_of_users(&members);
    for (ground, refusal) in world.roots.iter().zip(&mut barred) {
        let member = &ground.member;
        let other_side = if hosts { member.domain != HOST } else { member.writes };
        if refusal.is_none() && other_side {
            *refusal = Some(because(SkipReason::TrustDomain, apart(member)));
        }
    }
    barred
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

fn apart(member: &Member) -> String {
    let kept_from = "and the root of others here can write a plain store";
    let who = match member.domain {
        TrustDomain::Host => {
            "its root is the host's root, which can write a plain store that others here run from"
                .to_owned()
        }
        TrustDomain::Users(users) => {
            format!("its root is user {} of the host, {kept_from}", users.first)
        }
        TrustDomain::Picked => format!("its root is a user of the host, {kept_from}"),
    };
    format!(
        "{who}: --store-format erofs makes a store that nobody can write, --trust-domain NAME declares trust"
    )
}
