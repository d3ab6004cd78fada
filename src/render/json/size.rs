//! The document `cbin-audit.size.v1`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::report::hex;
use super::{Fields, Header};
use crate::model::{
    Bytes, ElfClass, ElfFacts, Endian, Host, LoadSegment, Notice, Notices, ObjectSizes, ReadOnly,
    Section, SegmentPages, SizeEvent, SizedObject,
};
use crate::render::size;

/// What `size` found as the document `cbin-audit.size.v1`.
#[derive(Debug)]
pub struct SizeDocument<'a> {
    events: &'a [SizeEvent],
    host: &'a Host,
    notices: Notices,
    rule: ReadOnly,
}

impl<'a> SizeDocument<'a> {
    /// Everything found, in order. `rule` says where read-only data counts.
    pub fn new(events: &'a [SizeEvent], host: &'a Host, rule: ReadOnly) -> Self {
        let mut notices = Notices::default();
        notices.extend(events.iter().filter_map(notice));
        Self { events, host, notices, rule }
    }

    fn objects(&self) -> impl Iterator<Item = &'a SizedObject> + Clone {
        self.events.iter().filter_map(|event| match event {
            SizeEvent::Object(object) => Some(object.as_ref()),
            SizeEvent::Failed(..) => None,
        })
    }
}

fn notice(event: &SizeEvent) -> Option<Notice> {
    use std::os::unix::ffi::OsStrExt;
    let SizeEvent::Failed(name, fault) = event else { return None };
    let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(name));
    Some(Notice::partial(path, "size", size::cause(fault)))
}

impl Serialize for SizeDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.header(&Header {
            schema: "cbin-audit.size.v1",
            host: self.host,
            complete: self.notices.complete(),
            notices: &self.notices,
        })?;
        map.list("files", self.objects().map(|object| ObjectFields(object, self.rule, self.host)))?;
        map.end()
    }
}

struct ObjectFields<'a>(&'a SizedObject, ReadOnly, &'a Host);

impl Serialize for ObjectFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(object, rule, host) = self;
        let sizes = &object.sizes;
        let sums = sizes.sums(*rule);
        let total = [sums.text, sums.data, sums.bss].map(|sum| sum.0);
        let total = total.into_iter().fold(0, u64::wrapping_add);
        let mut map = serializer.serialize_map(None)?;
        map.path("path", &object.name)?;
        optional_path(&mut map, "archive", object.archive.as_deref())?;
        map.serialize_entry("kind", if sizes.core.is_some() { "core" } else { "object" })?;
        map.serialize_entry("text_bytes", &sums.text)?;
        map.serialize_entry("data_bytes", &sums.data)?;
        map.serialize_entry("bss_bytes", &sums.bss)?;
        map.serialize_entry("total_bytes", &total)?;
        map.serialize_entry("common_bytes", &sizes.common)?;
        map.list("sections", sizes.sections.iter().map(|section| SectionFields(sizes, section)))?;
        let page_size = host.page_size;
        map.serialize_entry(
            "elf",
            &object.facts.as_ref().map(|facts| FactFields(facts, page_size)),
        )?;
        map.end()
    }
}

fn optional_path<M: SerializeMap>(
    map: &mut M,
    key: &str,
    path: Option<&[u8]>,
) -> Result<(), M::Error> {
    match path {
        Some(path) => map.path(key, path),
        None => map.serialize_entry(key, &()),
    }
}

struct SectionFields<'a>(&'a ObjectSizes, &'a Section);

impl Serialize for SectionFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(sizes, section) = self;
        let traits = section.traits;
        let mut map = serializer.serialize_map(None)?;
        map.path("name", sizes.name(section))?;
        map.serialize_entry("size_bytes", &section.size)?;
        map.serialize_entry("address", &section.address)?;
        map.serialize_entry("allocated", &traits.alloc)?;
        map.serialize_entry("writable", &!traits.readonly)?;
        map.serialize_entry("executable", &traits.code)?;
        map.serialize_entry("in_file", &traits.contents)?;
        map.end()
    }
}

struct FactFields<'a>(&'a ElfFacts, Bytes);

impl Serialize for FactFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(facts, page_size) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("arch", &facts.arch())?;
        map.serialize_entry("bits", &if facts.class == ElfClass::Elf64 { 64 } else { 32 })?;
        let big = facts.endian == Endian::Big;
        map.serialize_entry("byte_order", if big { "big" } else { "little" })?;
        map.serialize_entry("linkage", facts.linkage.name())?;
        optional_path(&mut map, "interpreter", facts.interpreter.as_deref())?;
        map.paths("needed", facts.needed.iter().map(Vec::as_slice))?;
        map.serialize_entry("build_id", &facts.build_id.as_deref().map(hex))?;
        map.serialize_entry("relro_bytes", &facts.relro)?;
        map.serialize_entry("textrel", &facts.textrel)?;
        pages(&mut map, facts.segments)?;
        map.list("segments", facts.loads.iter().map(|load| LoadFields(load, *page_size)))?;
        map.end()
    }
}

fn pages<M: SerializeMap>(map: &mut M, pages: SegmentPages) -> Result<(), M::Error> {
    map.serialize_entry("ro_pages", &pages.ro)?;
    map.serialize_entry("rx_pages", &pages.rx)?;
    map.serialize_entry("cow_pages", &pages.cow)?;
    map.serialize_entry("anon_pages", &pages.anon)
}

struct LoadFields<'a>(&'a LoadSegment, Bytes);

impl Serialize for LoadFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(load, page_size) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("flags", &load.flags)?;
        map.serialize_entry("offset_bytes", &load.offset)?;
        map.serialize_entry("address", &load.vaddr)?;
        map.serialize_entry("file_bytes", &load.file_size)?;
        map.serialize_entry("memory_bytes", &load.mem_size)?;
        map.serialize_entry("align_bytes", &load.align)?;
        pages(&mut map, load.pages(*page_size))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::Value;

    use super::super::{SIZE_SCHEMA, write};
    use super::*;
    use crate::model::{ElfType, Linkage, Pages, SectionTraits, SizeFault};
    use crate::render::sample;

    fn object() -> SizeEvent {
        let traits = SectionTraits { alloc: true, readonly: true, ..SectionTraits::default() };
        let sizes = ObjectSizes {
            sections: vec![Section { name_at: 0, size: 7, address: 9, traits }],
            names: b".\xff\0".to_vec(),
            common: 3,
            ..ObjectSizes::default()
        };
        let load = LoadSegment {
            flags: 5,
            offset: 0,
            vaddr: 0,
            file_size: 1,
            mem_size: 4097,
            align: 4096,
        };
        let facts = ElfFacts {
            class: ElfClass::Elf64,
            endian: Endian::Little,
            machine: 62,
            kind: ElfType::Dynamic,
            linkage: Linkage::DynamicPie,
            interpreter: Some(b"/lib/ld\xfe".to_vec()),
            needed: vec![b"libc.so.6".to_vec()],
            soname: None,
            runpath: Vec::new(),
            build_id: Some(vec![0xab]),
            loads: vec![load],
            relro: Bytes(0),
            textrel: false,
            segments: load.pages(Bytes(4096)),
            sections: None,
        };
        SizeEvent::Object(Box::new(SizedObject {
            name: b"a\xff".to_vec(),
            archive: Some(b"lib.a".to_vec()),
            outside: false,
            sizes,
            facts: Some(facts),
        }))
    }

    #[test]
    fn the_document_is_valid_and_exact() {
        let events = [object(), SizeEvent::Failed(b"gone".to_vec(), SizeFault::Missing)];
        let mut bytes = Vec::new();
        let host = sample::host();
        write(&mut bytes, &SizeDocument::new(&events, &host, ReadOnly::Text)).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let schema: Value = serde_json::from_str(SIZE_SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> =
            validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{document:#}");

        let file = &document["files"][0];
        assert_eq!(
            (&file["text_bytes"], &file["bss_bytes"], &file["total_bytes"]),
            (&7.into(), &3.into(), &10.into())
        );
        assert_eq!(file["path_base64"], "Yf8=");
        assert_eq!(file["sections"][0]["name_base64"], "Lv8=");
        assert_eq!(file["elf"]["segments"][0]["anon_pages"], 1);
        assert_eq!(document["complete"], false);
        assert_eq!(document["notices"][0]["cause"], "No such file");
    }

    #[test]
    fn pages_of_a_writable_segment_are_copied_when_written() {
        let load = LoadSegment {
            flags: 6,
            offset: 0xff0,
            vaddr: 0x1ff0,
            file_size: 0x20,
            mem_size: 0x2020,
            align: 4096,
        };
        let pages = load.pages(Bytes(4096));
        assert_eq!((pages.ro, pages.cow, pages.anon), (Pages(0), Pages(2), Pages(2)));
    }
}
