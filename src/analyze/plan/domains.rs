//! Who may share a store that is a plain directory.
//!
//! A root whose user is the host's root can take the read-only flag off the mount that shows
//! it the store, and write the store. Among themselves such roots have nothing to lose: they
//! are the domain `host`. A root of another user must not run what they can write.

use std::collections::BTreeMap;

use super::eligible::because;
use super::{Refusal, World};
use crate::model::{Method, SkipReason, StoreFormat};

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
    let mut members: BTreeMap<u32, usize> = BTreeMap::new();
    for (ground, _) in world.roots.iter().zip(&barred).filter(|(_, refusal)| refusal.is_none()) {
        *members.entry(ground.uid).or_default() += 1;
    }
    // Without a member that can write the store there is nobody to be kept from.
    if !members.contains_key(&HOST) || members.len() < 2 {
        return barred;
    }
    let kept =
        members.iter().max_by_key(|(uid, count)| (**count, **uid == HOST)).map(|(uid, _)| *uid);
    for (ground, refusal) in world.roots.iter().zip(&mut barred) {
        let other_side = (Some(HOST) == kept) != (ground.uid == HOST);
        if refusal.is_none() && other_side {
            *refusal = Some(because(SkipReason::TrustDomain, apart(ground.uid)));
        }
    }
    barred
}

/// The host's root.
const HOST: u32 = 0;

const HARDLINK: &str = "a hard link lets each root change what the other runs: --trust-domain NAME declares \
     that they trust each other";

fn apart(uid: u32) -> String {
    let who = match uid {
        HOST => {
            "its root is the host's root, which can write a plain store that others here run from"
                .to_owned()
        }
        uid => {
            format!("it belongs to user {uid}, and the root of others here can write a plain store")
        }
    };
    format!(
        "{who}: --store-format erofs makes a store that nobody can write, --trust-domain NAME declares trust"
    )
}
