//! The document `cbin-audit.report.v1`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::memory::{BinaryFields, MemoryFields};
use super::{Fields, Header};
use crate::model::{
    BinaryMemory, ElfFacts, FileCopy, Group, Host, Report, RootPath, RootSummary, SectionSums,
    SegmentPages, Totals, Tree,
};
use crate::render::order::by_content;

/// A report as the document `cbin-audit.report.v1`.
#[derive(Debug)]
pub struct ReportDocument<'a> {
    report: &'a Report,
    host: &'a Host,
    top: usize,
}

impl<'a> ReportDocument<'a> {
    /// The whole report, in its order.
    pub fn new(report: &'a Report, host: &'a Host) -> Self {
        Self { report, host, top: usize::MAX }
    }

    /// The first `top` groups and trees alone; the totals stay those of all.
    pub fn top(self, top: usize) -> Self {
        Self { top, ..self }
    }
}

impl Serialize for ReportDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let report = self.report;
        let memory = by_content(report);
        let mut map = serializer.serialize_map(None)?;
        map.header(&Header {
            schema: "cbin-audit.report.v1",
            host: self.host,
            complete: report.complete(),
            notices: &report.notices,
        })?;
        map.serialize_entry("select", report.select.name())?;
        map.list("roots", report.roots.iter().map(RootFields))?;
        let groups = report.groups.iter().take(self.top);
        map.list("groups", groups.map(|group| GroupFields(group, memory.get(&group.content))))?;
        map.list("trees", report.trees.iter().take(self.top).map(TreeFields))?;
        map.serialize_entry("memory", &report.memory.as_ref().map(MemoryFields))?;
        map.serialize_entry("totals", &TotalsFields(&report.totals))?;
        map.end()
    }
}

struct RootFields<'a>(&'a RootSummary);

impl Serialize for RootFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let root = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &root.id.0)?;
        map.path("path", root.path.as_bytes())?;
        map.serialize_entry("name", &root.name)?;
        map.serialize_entry("runtime", root.runtime.name())?;
        map.serialize_entry("state", root.state.name())?;
        map.serialize_entry("layer", &root.layer)?;
        map.serialize_entry("files", &root.files)?;
        map.serialize_entry("elf_files", &root.elf_files)?;
        map.serialize_entry("apparent_bytes", &root.apparent)?;
        map.paths("dangling_links", root.dangling.iter().map(RootPath::as_bytes))?;
        map.end()
    }
}

struct GroupFields<'a, 'm>(&'a Group, Option<&'m &'m BinaryMemory>);

impl Serialize for GroupFields<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let group = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("blake3", &group.content.to_string())?;
        map.serialize_entry("name", &group.name)?;
        map.serialize_entry("kind", group.kind.name())?;
        map.serialize_entry("version", &group.version)?;
        elf_fields(&mut map, group.elf.as_deref())?;
        map.serialize_entry("size_bytes", &group.size)?;
        map.serialize_entry("applets", &group.applets)?;
        map.serialize_entry("inodes", &group.inodes)?;
        map.serialize_entry("physical_copies", &group.physical_copies)?;
        map.serialize_entry("wasted_bytes", &group.wasted)?;
        map.list("copies", group.copies.iter().map(CopyFields))?;
        map.serialize_entry("memory", &self.1.map(|binary| BinaryFields(binary)))?;
        map.end()
    }
}

/// What is not ELF has the same fields, with `null`.
fn elf_fields<M: SerializeMap>(map: &mut M, elf: Option<&ElfFacts>) -> Result<(), M::Error> {
    let build_id = elf.and_then(|elf| elf.build_id.as_deref()).map(super::hex);
    map.serialize_entry("arch", &elf.map(ElfFacts::arch))?;
    map.serialize_entry("linkage", &elf.map(|elf| elf.linkage.name()))?;
    map.serialize_entry("build_id", &build_id)?;
    map.serialize_entry("sections", &elf.and_then(|elf| elf.sections).map(SectionFields))?;
    map.serialize_entry("segments", &elf.map(|elf| SegmentFields(elf.segments)))?;
    match elf.and_then(|elf| elf.interpreter.as_deref()) {
        Some(interpreter) => map.path("interpreter", interpreter)?,
        None => map.serialize_entry("interpreter", &())?,
    }
    map.paths("needed", elf.iter().flat_map(|elf| &elf.needed).map(Vec::as_slice))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct SectionFields(SectionSums);

impl Serialize for SectionFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("text_bytes", &self.0.text)?;
        map.serialize_entry("data_bytes", &self.0.data)?;
        map.serialize_entry("bss_bytes", &self.0.bss)?;
        map.end()
    }
}

struct SegmentFields(SegmentPages);

impl Serialize for SegmentFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("ro_pages", &self.0.ro)?;
        map.serialize_entry("rx_pages", &self.0.rx)?;
        map.serialize_entry("cow_pages", &self.0.cow)?;
        map.serialize_entry("anon_pages", &self.0.anon)?;
        map.end()
    }
}

struct CopyFields<'a>(&'a FileCopy);

impl Serialize for CopyFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("root", &copy.root.0)?;
        map.path("path", copy.path.as_bytes())?;
        map.serialize_entry("dev", &copy.inode.dev)?;
        map.serialize_entry("ino", &copy.inode.ino)?;
        map.serialize_entry("nlink", &copy.nlink)?;
        map.serialize_entry("allocated_bytes", &copy.allocated)?;
        map.paths("links", copy.links().iter().map(RootPath::as_bytes))?;
        map.paths("unknown_applets", copy.unknown_applets().iter().map(RootPath::as_bytes))?;
        map.end()
    }
}

struct TreeFields<'a>(&'a Tree);

impl Serialize for TreeFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tree = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.path("path", tree.path.as_bytes())?;
        map.list("roots", tree.roots.iter().map(|root| root.0))?;
        map.serialize_entry("on_host", &tree.on_host)?;
        map.serialize_entry("files", &tree.files)?;
        map.serialize_entry("size_bytes", &tree.size)?;
        map.serialize_entry("wasted_bytes", &tree.wasted)?;
        map.serialize_entry("blake3", &tree.digest.to_string())?;
        map.end()
    }
}

struct TotalsFields<'a>(&'a Totals);

impl Serialize for TotalsFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let totals = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("roots", &totals.roots)?;
        map.serialize_entry("files", &totals.files)?;
        map.serialize_entry("elf_files", &totals.elf_files)?;
        map.serialize_entry("groups", &totals.groups)?;
        map.serialize_entry("wasted_disk_bytes", &totals.wasted_disk)?;
        map.serialize_entry("wasted_trees_bytes", &totals.wasted_trees)?;
        map.serialize_entry("wasted_memory_bytes", &totals.wasted_memory)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::{Value, json};

    use super::super::{REPORT_SCHEMA, write};
    use super::*;
    use crate::render::sample;

    fn document(report: &Report) -> Value {
        let mut bytes = Vec::new();
        write(&mut bytes, &ReportDocument::new(report, &sample::host())).unwrap();
        assert_eq!(bytes.last(), Some(&b'\n'));
        serde_json::from_slice(&bytes).unwrap()
    }

    fn errors(document: &Value) -> Vec<String> {
        let schema: Value = serde_json::from_str(REPORT_SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.iter_errors(document).map(|error| error.to_string()).collect()
    }

    #[test]
    fn every_kind_of_report_is_valid() {
        for report in [sample::empty(), sample::report(), sample::with_memory()] {
            let document = document(&report);
            assert_eq!(errors(&document), Vec::<String>::new(), "{document:#}");
        }
    }

    #[test]
    fn the_schema_notices_every_field_that_goes_missing() {
        let whole = document(&sample::with_memory());
        let mut pointers = Vec::new();
        fields(&whole, &mut Vec::new(), &mut pointers);
        assert!(pointers.len() > 80, "{}", pointers.len());
        for (parent, key) in pointers {
            let mut without = whole.clone();
            without.pointer_mut(&parent).unwrap().as_object_mut().unwrap().remove(&key);
            assert_ne!(errors(&without), Vec::<String>::new(), "{parent}/{key}");
        }
    }

    /// Every field, with its object's place; exact forms of paths are there only when needed.
    fn fields(value: &Value, at: &mut Vec<String>, found: &mut Vec<(String, String)>) {
        let place: String = at.iter().map(|part| format!("/{part}")).collect();
        let below: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(list) => {
                list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
            }
            _ => return,
        };
        for (key, value) in below {
            if key.parse::<usize>().is_err() && !key.ends_with("_base64") {
                found.push((place.clone(), key.clone()));
            }
            at.push(key);
            fields(value, at, found);
            at.pop();
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let document = document(&sample::report());
        assert_eq!(document["schema"], "cbin-audit.report.v1");
        assert_eq!(document["complete"], false);
        assert_eq!(document["host"]["page_size_bytes"], 4096);
        let group = &document["groups"][0];
        assert_eq!(group["kind"], "busybox");
        assert_eq!(group["version"], "1.35.0");
        assert_eq!(group["blake3"].as_str().unwrap().len(), 64);
        assert_eq!(group["segments"]["rx_pages"], 388);
        assert_eq!(group["copies"][0]["links"], json!(["bin/ls", "bin/sh"]));
        assert_eq!(document["trees"][0]["roots"], json!([0, 1]));
        assert_eq!(document["totals"]["wasted_disk_bytes"], 1_982_464);
    }

    #[test]
    fn what_is_not_elf_has_null() {
        let document = document(&sample::report());
        let group = &document["groups"][2];
        assert_eq!(group["kind"], "file");
        for key in ["version", "arch", "linkage", "build_id", "sections", "segments", "memory"] {
            assert_eq!(group[key], Value::Null, "{key}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_keeps_its_bytes() {
        let document = document(&sample::report());
        let copy = &document["groups"][2]["copies"][1];
        assert_eq!(copy["path"], "etc/\u{fffd}\u{1b}[31m");
        assert_eq!(copy["path_base64"], "ZXRjL/8bWzMxbQ==");
    }

    #[test]
    fn a_cut_list_leaves_the_totals() {
        let report = sample::report();
        let host = sample::host();
        let text = serde_json::to_string(&ReportDocument::new(&report, &host).top(1)).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["groups"].as_array().unwrap().len(), 1);
        assert_eq!(document["totals"]["groups"], 3);
    }
}
