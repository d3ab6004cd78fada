//! JSON documents: what they have in common, and how paths stand in them.
//!
//! Documents are streamed: a report may hold hundreds of thousands of rows, and a
//! value tree of it would take more memory than the audit.

mod applied;
mod doctor;
mod memory;
mod plan;
mod report;
mod runs;
mod size;
mod verify;

use std::io::{self, BufWriter, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Host, Notice, Notices};

pub use applied::AppliedDocument;
pub use doctor::DoctorDocument;
pub use memory::MemoryDocument;
pub use plan::{PlanDocument, PlanFileError, fields as plan_fields};
pub use report::ReportDocument;
pub use runs::{CollectedDocument, HistoryDocument, RecoveredDocument, UndoneDocument};
pub use size::SizeDocument;
pub use verify::VerifyDocument;

/// The JSON Schema of the report document.
pub const REPORT_SCHEMA: &str = include_str!("schema/report.v1.json");

/// The JSON Schema of the live view's document.
pub const MEMORY_SCHEMA: &str = include_str!("schema/memory.v1.json");
/// The JSON Schema of the plan document.
pub const PLAN_SCHEMA: &str = include_str!("schema/plan.v1.json");
/// The JSON Schema of the doctor's document.
pub const DOCTOR_SCHEMA: &str = include_str!("schema/doctor.v1.json");
/// The JSON Schema of the document of `verify`.
pub const VERIFY_SCHEMA: &str = include_str!("schema/verify.v1.json");
/// The JSON Schema of the document of `history`.
pub const HISTORY_SCHEMA: &str = include_str!("schema/history.v1.json");
/// The JSON Schema of the document of `undo`.
pub const UNDO_SCHEMA: &str = include_str!("schema/undo.v1.json");
/// The JSON Schema of the document of `recover`.
pub const RECOVER_SCHEMA: &str = include_str!("schema/recover.v1.json");
/// The JSON Schema of the document of `gc`.
pub const GC_SCHEMA: &str = include_str!("schema/gc.v1.json");
/// The JSON Schema of the size document.
pub const SIZE_SCHEMA: &str = include_str!("schema/size.v1.json");

/// Writes one document and a newline.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: impl Write, document: &impl Serialize) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, document)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What every document begins with.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// `cbin-audit.report.v1`, ...
    pub schema: &'static str,
    /// The machine that the answer is about.
    pub host: &'a Host,
    /// Nothing is missing from the answer.
    pub complete: bool,
    /// What is missing, or was left out.
    pub notices: &'a Notices,
}

/// Fields that `serde` alone does not offer: paths with any bytes, and lists
/// that are serialised one by one.
pub trait Fields: SerializeMap {
    /// The fields that every document begins with.
    ///
    /// # Errors
    ///
    /// Those of the serializer, here and below.
    fn header(&mut self, header: &Header<'_>) -> Result<(), Self::Error> {
        self.serialize_entry("schema", header.schema)?;
        self.serialize_entry("tool", &Tool)?;
        self.serialize_entry("host", &HostFields(header.host))?;
        self.serialize_entry("complete", &header.complete)?;
        self.list("notices", header.notices.iter().map(NoticeFields))
    }

    /// A path as a string. Where its bytes are not UTF-8 the string is the lossy
    /// form, and `<key>_base64` holds the exact bytes.
    fn path(&mut self, key: &str, bytes: &[u8]) -> Result<(), Self::Error> {
        self.serialize_entry(key, &String::from_utf8_lossy(bytes))?;
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(_) => self.serialize_entry(&exact(key), &STANDARD.encode(bytes)),
        }
    }

    /// A list of paths. Where one of them is not UTF-8, `<key>_base64` holds the
    /// exact bytes of every one.
    fn paths<'a, I>(&mut self, key: &str, paths: I) -> Result<(), Self::Error>
    where
        I: Iterator<Item = &'a [u8]> + Clone,
    {
        self.list(key, paths.clone().map(String::from_utf8_lossy))?;
        if paths.clone().all(|path| std::str::from_utf8(path).is_ok()) {
            return Ok(());
        }
        self.list(&exact(key), paths.map(|path| STANDARD.encode(path)))
    }

    /// A list whose elements are made when it is their turn.
    fn list<I>(&mut self, key: &str, items: I) -> Result<(), Self::Error>
    where
        I: Iterator<Item: Serialize> + Clone,
    {
        self.serialize_entry(key, &Sequence(items))
    }
}

impl<M: SerializeMap> Fields for M {}

/// Bytes in lowercase hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn exact(key: &str) -> String {
    format!("{key}_base64")
}

struct Sequence<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Sequence<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

struct Tool;

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", env!("CARGO_PKG_NAME"))?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        map.end()
    }
}

struct HostFields<'a>(&'a Host);

impl Serialize for HostFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("hostname", &self.0.hostname)?;
        map.serialize_entry("kernel", &self.0.kernel)?;
        map.serialize_entry("page_size_bytes", &self.0.page_size)?;
        map.end()
    }
}

struct NoticeFields<'a>(&'a Notice);

impl Serialize for NoticeFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.path("path", self.0.path.as_bytes())?;
        map.serialize_entry("doing", self.0.doing)?;
        map.serialize_entry("cause", &self.0.cause)?;
        map.serialize_entry("partial", &self.0.partial)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    struct One<'a>(&'a [u8]);

    impl Serialize for One<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.path("path", self.0)?;
            map.paths("links", [b"plain".as_slice(), self.0].into_iter())?;
            map.end()
        }
    }

    #[test]
    fn a_path_in_utf8_stands_alone() {
        let text = serde_json::to_string(&One("a\n\u{202e}é".as_bytes())).unwrap();
        assert_eq!(text, "{\"path\":\"a\\n\u{202e}é\",\"links\":[\"plain\",\"a\\n\u{202e}é\"]}");
    }

    #[test]
    fn other_bytes_have_their_exact_form_beside_them() {
        let text = serde_json::to_string(&One(b"a\xff")).unwrap();
        let expected = "{\"path\":\"a\u{fffd}\",\"path_base64\":\"Yf8=\",\
            \"links\":[\"plain\",\"a\u{fffd}\"],\"links_base64\":[\"cGxhaW4=\",\"Yf8=\"]}";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = write(Full, &One(b"a")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
