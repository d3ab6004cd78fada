//! What a running container allows.

use crate::model::{Ability, ContainerPath, Isolation, StoreMount, UserNamespace};

/// The container's abilities. `mount_point` is where it should see the store.
pub fn of_container(isolation: &Isolation, mount_point: &ContainerPath) -> Vec<Ability> {
    vec![
        directory_store(isolation),
        mounted(isolation.store.as_ref(), mount_point),
        set_id(isolation),
        by_path(isolation, mount_point),
    ]
}

/// The trust rule, seen from one container.
fn directory_store(isolation: &Isolation) -> Ability {
    let (what, purpose) = ("directory_store", "share a plain directory with other trust domains");
    let escapes = isolation.escapes();
    if escapes.is_empty() {
        return Ability::yes(what, purpose);
    }
    let (why, change): (Vec<&str>, Vec<&str>) =
        escapes.iter().map(|escape| escape.explanation()).unzip();
    let change = format!(
        "{}; or use --store-format erofs, or name those that trust each other by --trust-domain",
        change.join("; ")
    );
    Ability::no(what, purpose, why.join("; "), change)
}

fn mounted(store: Option<&StoreMount>, mount_point: &ContainerPath) -> Ability {
    let (what, purpose) = ("mounted", "reach the shared programs");
    let no = |why: String, change: &str| Ability::no(what, purpose, why, change);
    let point = mount_point.0.display();
    match store {
        None => no(
            format!("nothing is mounted at {point}"),
            "dedupe --apply --live attaches it; with its configuration it is there from the next start on",
        ),
        Some(store) if store.flags.noexec => no(
            format!("{point} is mounted noexec: no program in it starts"),
            "mount it without noexec",
        ),
        Some(store) if !store.flags.read_only => no(
            format!("{point} is not mounted read-only"),
            "mount it read-only: whoever writes it owns every container that uses it",
        ),
        Some(_) => Ability::yes(what, purpose),
    }
}

fn set_id(isolation: &Isolation) -> Ability {
    let no = |why: &str, change: &str| {
        Ability::no("setid", "set-id programs from the store (--include-setid)", why, change)
    };
    if isolation.store.as_ref().is_some_and(|store| store.flags.nosuid) {
        return no("the store is mounted nosuid there", "mount it without nosuid");
    }
    if isolation.no_new_privileges {
        return no("its processes cannot gain privileges (no_new_privs)", "nothing is lost by it");
    }
    let own = isolation.user_namespace == UserNamespace::Own;
    let foreign = no(
        "the store's owner is no user of its namespace: set-id bits have no effect",
        "mount the store idmapped",
    );
    Ability::yes_if(!own, foreign)
}

fn by_path(isolation: &Isolation, mount_point: &ContainerPath) -> Ability {
    let (what, purpose) = ("profile", "run programs that lie in the store");
    let Some(profile) = &isolation.profile else { return Ability::yes(what, purpose) };
    // SELinux's labels are `user:role:type:level`.
    let who = match profile.split(':').count() > 2 {
        true => "labelled {} by SELinux, of whose policy nothing is read",
        false => "confined by the profile {}",
    };
    let who = who.replace("{}", &format!("{profile:?}"));
    let why = format!(
        "{who}: whether it allows programs below {} shows when one is run",
        mount_point.0.display()
    );
    Ability::no(what, purpose, why, "allow that path, or label, in the profile").unknown()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Capabilities, IdRange, MountFlags};

    fn container() -> Isolation {
        let flags = MountFlags { read_only: true, ..MountFlags::default() };
        let store = Some(StoreMount { fs_type: "ext4".to_owned(), flags });
        Isolation { seccomp: true, store, ..Isolation::sample() }
    }

    fn lacking(isolation: &Isolation) -> Vec<(&'static str, Option<bool>)> {
        let all = of_container(isolation, &ContainerPath("/cbin".into()));
        let lacking = all.iter().filter(|ability| ability.allowed != Some(true));
        lacking.map(|ability| (ability.what, ability.allowed)).collect()
    }

    #[test]
    fn each_lack_is_told() {
        let with = |flags| {
            let store = StoreMount { fs_type: "ext4".to_owned(), flags };
            Isolation { store: Some(store), ..container() }
        };
        let read_only = MountFlags { read_only: true, ..MountFlags::default() };
        assert_eq!(lacking(&container()), []);
        let privileged = Isolation { capabilities: Capabilities::SYS_ADMIN, ..container() };
        assert_eq!(lacking(&privileged), [("directory_store", Some(false))]);
        assert_eq!(lacking(&Isolation { store: None, ..container() }), [("mounted", Some(false))]);
        assert_eq!(lacking(&with(MountFlags::default())), [("mounted", Some(false))]);
        let noexec = MountFlags { noexec: true, ..read_only };
        assert_eq!(lacking(&with(noexec)), [("mounted", Some(false))]);
        let nosuid = MountFlags { nosuid: true, ..read_only };
        assert_eq!(lacking(&with(nosuid)), [("setid", Some(false))]);
        let users = Some(IdRange { first: 100_000, count: 65_536 });
        let own = Isolation {
            user_namespace: UserNamespace::Own,
            users,
            capabilities: Capabilities(u64::MAX),
            ..container()
        };
        assert_eq!(lacking(&own), [("setid", Some(false))]);
        let confined = Isolation { profile: Some("docker-default".to_owned()), ..container() };
        assert_eq!(lacking(&confined), [("profile", None)]);
    }
}
