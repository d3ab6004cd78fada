//! The document `cbin-audit.memory.v1`, and the memory part of a report.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Fields, Header};
use crate::model::{
    BinaryMemory, ContainerMemory, Host, MemoryReport, MemoryTotals, PageCounts, ProcessMemory,
    UserNamespace,
};

/// The live view as the document `cbin-audit.memory.v1`.
#[derive(Debug)]
pub struct MemoryDocument<'a> {
    memory: &'a MemoryReport,
    host: &'a Host,
}

impl<'a> MemoryDocument<'a> {
    /// The whole view, in its order.
    pub fn new(memory: &'a MemoryReport, host: &'a Host) -> Self {
        Self { memory, host }
    }
}

impl Serialize for MemoryDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.header(&Header {
            schema: "cbin-audit.memory.v1",
            host: self.host,
            complete: self.memory.complete,
            notices: &self.memory.notices,
        })?;
        memory_fields(&mut map, self.memory)?;
        map.end()
    }
}

/// The live view as a part of another document, without the processes one by one.
pub(super) struct MemoryFields<'a>(pub(super) &'a MemoryReport);

impl Serialize for MemoryFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        memory_fields(&mut map, self.0)?;
        map.end()
    }
}

fn memory_fields<M: SerializeMap>(map: &mut M, memory: &MemoryReport) -> Result<(), M::Error> {
    map.serialize_entry("method", memory.method.name())?;
    map.list("binaries", memory.binaries.iter().map(BinaryFields))?;
    map.list("containers", memory.containers.iter().map(ContainerFields))?;
    map.list("processes", memory.processes.iter().map(ProcessFields))?;
    map.serialize_entry("processes_seen", &memory.processes_seen)?;
    map.serialize_entry("processes_skipped", &memory.processes_skipped)?;
    map.serialize_entry("totals", &TotalsFields(&memory.totals))
}

/// One content in memory.
pub(super) struct BinaryFields<'a>(pub(super) &'a BinaryMemory);

impl Serialize for BinaryFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let binary = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("blake3", &binary.content.map(|content| content.to_string()))?;
        map.serialize_entry("build_id", &binary.build_id.as_deref().map(super::hex))?;
        map.serialize_entry("name", &binary.name)?;
        map.serialize_entry("version", &binary.version)?;
        map.serialize_entry("inodes", &binary.inodes)?;
        map.serialize_entry("objects", &binary.objects)?;
        map.serialize_entry("processes", &binary.processes)?;
        map.serialize_entry("containers", &binary.containers)?;
        page_fields(&mut map, &binary.file)?;
        map.serialize_entry("cached_pages", &binary.cached)?;
        map.serialize_entry("cached_wasted_pages", &binary.cached_wasted)?;
        map.serialize_entry("pending_restart", &binary.pending_restart)?;
        map.serialize_entry("text", &PageFields(&binary.text))?;
        map.end()
    }
}

struct PageFields<'a>(&'a PageCounts);

impl Serialize for PageFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        page_fields(&mut map, self.0)?;
        map.end()
    }
}

fn page_fields<M: SerializeMap>(map: &mut M, pages: &PageCounts) -> Result<(), M::Error> {
    map.serialize_entry("mapped_pages", &pages.mapped)?;
    map.serialize_entry("resident_pages", &pages.resident)?;
    map.serialize_entry("ideal_pages", &pages.ideal)?;
    map.serialize_entry("wasted_pages", &pages.wasted())
}

struct ContainerFields<'a>(&'a ContainerMemory);

impl Serialize for ContainerFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let container = self.0;
        let user_namespace = match container.user_namespace {
            UserNamespace::Host => "host",
            UserNamespace::Own => "own",
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &container.name)?;
        map.serialize_entry("runtime", container.runtime.name())?;
        match &container.root {
            Some(root) => map.path("root", root.as_bytes())?,
            None => map.serialize_entry("root", &())?,
        }
        map.serialize_entry("processes", &container.processes)?;
        map.serialize_entry("user_namespace", user_namespace)?;
        map.serialize_entry("privileged", &container.privileged)?;
        map.serialize_entry("text_pages", &container.text)?;
        map.serialize_entry("shared_pages", &container.shared)?;
        map.serialize_entry("private_pages", &container.private)?;
        map.serialize_entry("duplicated_pages", &container.duplicated)?;
        map.end()
    }
}

struct ProcessFields<'a>(&'a ProcessMemory);

impl Serialize for ProcessFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let process = self.0;
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("pid", &process.pid)?;
        map.serialize_entry("comm", &process.comm)?;
        map.serialize_entry("container", &process.container)?;
        map.serialize_entry("text_pages", &process.text)?;
        map.serialize_entry("private_pages", &process.private)?;
        map.serialize_entry("container_pages", &process.container_shared)?;
        map.serialize_entry("shared_pages", &process.shared)?;
        map.serialize_entry("anonymous_pages", &process.anonymous)?;
        map.end()
    }
}

struct TotalsFields<'a>(&'a MemoryTotals);

impl Serialize for TotalsFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let totals = self.0;
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("resident_pages", &totals.resident)?;
        map.serialize_entry("ideal_pages", &totals.ideal)?;
        map.serialize_entry("wasted_pages", &totals.wasted)?;
        map.serialize_entry("wasted_bytes", &totals.wasted_bytes)?;
        map.serialize_entry("anonymous_pages", &totals.anonymous)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::Value;

    use super::super::{MEMORY_SCHEMA, write};
    use super::*;
    use crate::render::sample;

    fn document() -> Value {
        let report = sample::with_memory();
        let mut bytes = Vec::new();
        let memory = report.memory.unwrap();
        write(&mut bytes, &MemoryDocument::new(&memory, &sample::host())).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn is_valid(document: &Value) -> bool {
        let schema: Value = serde_json::from_str(MEMORY_SCHEMA).unwrap();
        jsonschema::draft202012::new(&schema).unwrap().is_valid(document)
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let document = document();
        assert!(is_valid(&document), "{document:#}");
        assert_eq!(document["schema"], "cbin-audit.memory.v1");
        assert_eq!(document["method"], "pfn");
        let binary = &document["binaries"][0];
        assert_eq!(binary["resident_pages"], 616);
        assert_eq!(binary["wasted_pages"], 308);
        assert_eq!(binary["text"]["ideal_pages"], 308);
        assert_eq!(document["containers"][0]["user_namespace"], "host");
        assert_eq!(document["processes"][0]["container_pages"], 308);
        assert_eq!(document["totals"]["wasted_bytes"], 308 * 4096);
    }

    #[test]
    fn the_schema_misses_what_is_left_out() {
        for pointer in
            ["", "/binaries/0", "/binaries/0/text", "/containers/0", "/processes/0", "/totals"]
        {
            let whole = document();
            for key in whole.pointer(pointer).unwrap().as_object().unwrap().keys() {
                let mut without = whole.clone();
                without.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
                assert!(!is_valid(&without), "{pointer}/{key}");
            }
        }
    }
}
