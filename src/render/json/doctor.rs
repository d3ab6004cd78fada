//! The document `cbin-audit.doctor.v1`.

use std::os::unix::ffi::OsStrExt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Fields, Header};
use crate::model::{
    Ability, ContainerPlace, Doctor, Escape, FileSystem, Host, IdRange, MountFlags, RootPlace,
    StoreMount, StorePlace, UserNamespace,
};

/// What this host and its containers allow, as the document `cbin-audit.doctor.v1`.
#[derive(Debug)]
pub struct DoctorDocument<'a> {
    doctor: &'a Doctor,
    host: &'a Host,
}

impl<'a> DoctorDocument<'a> {
    /// All of it, in its order.
    pub fn new(doctor: &'a Doctor, host: &'a Host) -> Self {
        Self { doctor, host }
    }
}

impl Serialize for DoctorDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let doctor = self.doctor;
        let mut map = serializer.serialize_map(None)?;
        map.header(&Header {
            schema: "cbin-audit.doctor.v1",
            host: self.host,
            complete: doctor.notices.complete(),
            notices: &doctor.notices,
        })?;
        map.list("abilities", doctor.host.iter().map(AbilityFields))?;
        map.serialize_entry("store", &StoreFields(&doctor.store))?;
        let numbered = doctor.roots.iter().zip(0_u32..);
        map.list("roots", numbered.map(|(root, id)| RootFields(id, root)))?;
        map.list("containers", doctor.containers.iter().map(ContainerFields))?;
        map.end()
    }
}

struct AbilityFields<'a>(&'a Ability);

impl Serialize for AbilityFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("what", self.0.what)?;
        map.serialize_entry("allowed", &self.0.allowed)?;
        map.serialize_entry("purpose", self.0.purpose)?;
        map.serialize_entry("why", &self.0.why)?;
        map.serialize_entry("change", &self.0.change)?;
        map.end()
    }
}

struct StoreFields<'a>(&'a StorePlace);

impl Serialize for StoreFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let store = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.path("path", store.path.as_bytes())?;
        map.serialize_entry("exists", &store.exists)?;
        map.serialize_entry("free_bytes", &store.free)?;
        file_system(&mut map, store.file_system.as_ref())?;
        map.list("abilities", store.abilities.iter().map(AbilityFields))?;
        map.end()
    }
}

struct RootFields<'a>(u32, &'a RootPlace);

impl Serialize for RootFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(id, place) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", id)?;
        map.path("path", place.root.path.as_bytes())?;
        map.serialize_entry("name", &place.root.name)?;
        map.serialize_entry("runtime", place.root.runtime.name())?;
        map.serialize_entry("state", place.root.state.name())?;
        map.serialize_entry("layer", &place.root.layer)?;
        file_system(&mut map, place.file_system.as_ref())?;
        map.list("abilities", place.abilities.iter().map(AbilityFields))?;
        map.end()
    }
}

fn file_system<M: SerializeMap>(map: &mut M, place: Option<&FileSystem>) -> Result<(), M::Error> {
    map.serialize_entry("file_system", &place.map(|it| it.kind.as_str()))?;
    map.serialize_entry("mount", &place.map(|it| FlagFields(it.flags)))?;
    map.serialize_entry("quota", &place.and_then(|it| it.quota.as_deref()))
}

struct FlagFields(MountFlags);

impl Serialize for FlagFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("read_only", &self.0.read_only)?;
        map.serialize_entry("nosuid", &self.0.nosuid)?;
        map.serialize_entry("nodev", &self.0.nodev)?;
        map.serialize_entry("noexec", &self.0.noexec)?;
        map.serialize_entry("idmapped", &self.0.idmapped)?;
        map.end()
    }
}

struct ContainerFields<'a>(&'a ContainerPlace);

impl Serialize for ContainerFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let isolation = &self.0.isolation;
        let own = isolation.user_namespace == UserNamespace::Own;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &isolation.name)?;
        map.serialize_entry("runtime", isolation.runtime.name())?;
        match &isolation.root {
            Some(root) => map.path("root", root.as_bytes())?,
            None => map.serialize_entry("root", &None::<&str>)?,
        }
        map.list("pids", isolation.pids.iter())?;
        map.serialize_entry("user_namespace", if own { "own" } else { "host" })?;
        map.serialize_entry("users", &isolation.users.map(RangeFields))?;
        map.serialize_entry("trust_domain", &isolation.domain().to_string())?;
        map.serialize_entry("privileged", &isolation.is_privileged())?;
        map.list("capabilities", isolation.capabilities.names())?;
        map.serialize_entry("host_mount_namespace", &isolation.exposure.host_mounts)?;
        map.serialize_entry("host_pid_namespace", &isolation.exposure.host_processes)?;
        match &isolation.exposure.host_files {
            Some(at) => map.path("host_files", at.0.as_os_str().as_bytes())?,
            None => map.serialize_entry("host_files", &None::<&str>)?,
        }
        let disks = isolation.escapes().contains(&Escape::Disk);
        map.serialize_entry("disks", &disks)?;
        map.serialize_entry("root_mount", &FlagFields(isolation.root_mount))?;
        map.serialize_entry("profile", &isolation.profile)?;
        map.serialize_entry("no_new_privileges", &isolation.no_new_privileges)?;
        map.serialize_entry("seccomp", &isolation.seccomp)?;
        map.serialize_entry("store_mount", &isolation.store.as_ref().map(StoreMountFields))?;
        map.list("abilities", self.0.abilities.iter().map(AbilityFields))?;
        map.end()
    }
}

struct RangeFields(IdRange);

impl Serialize for RangeFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("first", &self.0.first)?;
        map.serialize_entry("count", &self.0.count)?;
        map.end()
    }
}

struct StoreMountFields<'a>(&'a StoreMount);

impl Serialize for StoreMountFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("file_system", &self.0.fs_type)?;
        map.serialize_entry("mount", &FlagFields(self.0.flags))?;
        map.end()
    }
}
