//! Who may share a store.
//!
//! A root whose user is the host's root can take the read-only flag off the mount that shows
//! it the store, and write a plain directory. Among themselves such roots have nothing to lose:
//! they are the domain `host`. A root of another user must not run what they can write. That
//! holds for the roots of a plan, and for those that earlier runs left in the same store. An
//! image is written by those alone that were given the directory it lies in, or its disk.

use std::collections::BTreeMap;

use super::eligible::because;
use super::{Member, Refusal, World, Writes};
use crate::model::{HostPath, Method, PlanSettings, SkipReason, StoreFormat, TrustDomain};

/// A root that runs which stand left in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Where it lies on the host.
    pub path: HostPath,
    /// Who it is to the others.
    pub member: Member,
    /// What it sees of the store.
    pub format: StoreFormat,
    /// The domain that it was declared to be in.
    pub declared: Option<String>,
}

/// Who runs from a store of this format must be kept from who can write it, unless both are
/// of one domain. Users that are picked when a container starts are another's each time.
pub fn harms(writer: &Member, other: &Member, format: StoreFormat) -> bool {
    let alike = writer.domain == other.domain && writer.domain != TrustDomain::Picked;
    writer.writes.reach(format) && !alike
}

/// What two see of one store. Who is shown its image alone has no mount of the directory to
/// write it through, and an image is made of nothing but what its names say.
pub fn seen_by_both(one: StoreFormat, other: StoreFormat) -> StoreFormat {
    if one == other { one } else { StoreFormat::Erofs }
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
    if settings.method != Method::Symlink {
        return vec![None; newcomers.len()];
    }
    let declared = &settings.trust_domain;
    let is_newcomer = |tenant: &&Tenant| newcomers.iter().any(|(path, _)| **path == tenant.path);
    let trusted = |tenant: &&Tenant| {
        declared.is_some() && (tenant.declared == *declared || is_newcomer(tenant))
    };
    let strangers: Vec<&Tenant> = tenants.iter().filter(|tenant| !trusted(tenant)).collect();
    let format = settings.store_format;
    let beside = |(path, member): &(&HostPath, &Member)| beside(path, member, format, &strangers);
    let mut apart: Vec<_> = newcomers.iter().map(beside).collect();
    if declared.is_none() {
        among_themselves(newcomers, format, &mut apart);
    }
    apart
}

/// What stands against one newcomer beside those that are there.
fn beside(
    path: &HostPath,
    member: &Member,
    format: StoreFormat,
    tenants: &[&Tenant],
) -> Option<Refusal> {
    let mut others = tenants.iter().filter(|tenant| tenant.path != *path);
    let both = |tenant: &Tenant| seen_by_both(format, tenant.format);
    let mut found = others.clone().find(|it| harms(member, &it.member, both(it)));
    let writes = found.is_some();
    found = found.or_else(|| others.find(|it| harms(&it.member, member, both(it))));
    let tenant = found?;
    let (who, place) = (its_root(member), &tenant.path.0);
    let (why, writer) = match writes {
        true => (format!("which can write the store that {place:?} runs from"), member),
        false => (
            format!("and the root of {place:?} can write the store that it runs from"),
            &tenant.member,
        ),
    };
    let explanation = format!(
        "{who}, {why} since an earlier run: --store DIR names another store, {}, --trust-domain NAME, given for \
         both, declares trust",
        another_way(writer.writes)
    );
    Some(because(SkipReason::TrustDomain, explanation))
}

/// Of those that one plan brings, the side with more roots has the store.
fn among_themselves(
    newcomers: &[(&HostPath, &Member)],
    format: StoreFormat,
    apart: &mut [Option<Refusal>],
) {
    let unbarred = newcomers.iter().zip(apart.iter()).filter(|(_, refusal)| refusal.is_none());
    let members: Vec<&Member> = unbarred.map(|((_, member), _)| *member).collect();
    let harms_one = |&(at, member): &(usize, &&Member)| {
        let mut others = members.iter().enumerate().filter(|(other, _)| *other != at);
        others.any(|(_, other)| harms(member, other, format))
    };
    let writers = members.iter().enumerate().filter(harms_one);
    let Some(most) = writers.map(|(_, member)| member.writes).max() else { return };
    let hosts = members.iter().filter(|it| it.domain == HOST).count() >= largest_of_users(&members);
    for ((_, member), refusal) in newcomers.iter().zip(apart) {
        let other_side = if hosts { member.domain != HOST } else { member.writes.reach(format) };
        if refusal.is_none() && other_side {
            *refusal = Some(because(SkipReason::TrustDomain, kept_apart(member, most)));
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

fn kept_apart(member: &Member, most: Writes) -> String {
    let who = its_root(member);
    let why = match member.domain {
        TrustDomain::Host => "which can write a store that others here run from",
        _ if member.writes == Writes::Image => "which was given the store's directory for writing",
        _ => "and the root of others here can write the store",
    };
    format!("{who}, {why}: {}, --trust-domain NAME declares trust", another_way(most))
}

/// What keeps a store from one that can write so much.
fn another_way(writes: Writes) -> &'static str {
    match writes {
        Writes::Image => {
            "a read-only mount, in the container that can, of what the store lies in lets them share it (cbin-audit \
             doctor says where that is, while it runs)"
        }
        _ => "--store-format erofs makes one that no remount makes writable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IdRange;

    fn member(users: Option<u32>, writes: Writes) -> Member {
        let users = users.map(|first| TrustDomain::Users(IdRange { first, count: 1 }));
        Member { domain: users.unwrap_or(HOST), writes }
    }

    fn barred(members: &[&Member], format: StoreFormat) -> Vec<bool> {
        let paths: Vec<HostPath> =
            (0..members.len()).map(|n| HostPath::from(format!("/{n}"))).collect();
        let newcomers: Vec<_> = paths.iter().zip(members.iter().copied()).collect();
        let mut apart = vec![None; members.len()];
        among_themselves(&newcomers, format, &mut apart);
        apart.iter().map(Option::is_some).collect()
    }

    #[test]
    fn who_was_given_the_store_writes_an_image_too() {
        let host = |writes| member(None, writes);
        let (user, other) = (member(Some(7), Writes::Nothing), member(Some(8), Writes::Nothing));
        let (dir, erofs) = (StoreFormat::Dir, StoreFormat::Erofs);
        let table = [
            (&host(Writes::Nothing), dir, [false; 3]),
            (&host(Writes::Directory), dir, [false, true, true]),
            (&host(Writes::Directory), erofs, [false; 3]),
            (&host(Writes::Image), erofs, [false, true, true]),
        ];
        for (writer, format, expected) in table {
            assert_eq!(barred(&[writer, &user, &other], format), expected, "{writer:?}");
        }
    }

    #[test]
    fn users_of_their_own_harm_others_alone() {
        let writer = member(Some(7), Writes::Image);
        let alike = member(Some(7), Writes::Nothing);
        let (other, host) = (member(Some(8), Writes::Nothing), member(None, Writes::Nothing));
        for format in [StoreFormat::Dir, StoreFormat::Erofs] {
            assert!(!harms(&writer, &alike, format) && !harms(&alike, &other, format));
            assert!(harms(&writer, &other, format) && harms(&writer, &host, format));
            assert_eq!(barred(&[&writer, &alike], format), [false; 2]);
            assert_eq!(barred(&[&writer, &other, &other], format), [true, false, false]);
        }
        let picked = Member { domain: TrustDomain::Picked, writes: Writes::Image };
        assert!(harms(&picked, &picked, StoreFormat::Dir));
    }
}
