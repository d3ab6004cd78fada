//! The fields of a plan's document, written and read by the same types.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::model::{
    Action, Bind, Bytes, ConfigChange, ContainerPath, FileState, MountPlan, PlanSettings,
    PlannedRoot, RootPath, Saves, Skip, Step,
};

/// Bytes as a string, and exactly, where they are not UTF-8.
#[derive(Debug, PartialEq)]
pub(super) struct Text<'a> {
    shown: Cow<'a, str>,
    exact: Option<String>,
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let exact = std::str::from_utf8(bytes).is_err().then(|| STANDARD.encode(bytes));
        Self { shown: String::from_utf8_lossy(bytes), exact }
    }
}

/// The bytes that a string and its exact form stand for.
pub(super) fn bytes(shown: &str, exact: Option<&str>) -> Result<Vec<u8>, &'static str> {
    match exact {
        None => Ok(shown.as_bytes().to_vec()),
        Some(exact) => STANDARD.decode(exact).map_err(|_| "a _base64 field is not base64"),
    }
}

pub(super) fn path_buf(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SettingsFields<'a> {
    pub(super) select: Cow<'a, str>,
    pub(super) method: Cow<'a, str>,
    pub(super) store: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) store_base64: Option<String>,
    pub(super) store_format: Cow<'a, str>,
    pub(super) mount_point: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mount_point_base64: Option<String>,
    pub(super) applets: Cow<'a, str>,
    pub(super) live: bool,
    pub(super) include_setid: bool,
    pub(super) trust_domain: Option<Cow<'a, str>>,
}

impl<'a> SettingsFields<'a> {
    pub(super) fn of(settings: &'a PlanSettings) -> Self {
        let store = Text::of(settings.store.as_bytes());
        let mount_point = Text::of(settings.mount_point.0.as_os_str().as_bytes());
        Self {
            select: settings.select.name().into(),
            method: settings.method.name().into(),
            store: store.shown,
            store_base64: store.exact,
            store_format: settings.store_format.name().into(),
            mount_point: mount_point.shown,
            mount_point_base64: mount_point.exact,
            applets: settings.applets.name().into(),
            live: settings.live,
            include_setid: settings.include_setid,
            trust_domain: settings.trust_domain.as_deref().map(Cow::Borrowed),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RootFields<'a> {
    pub(super) id: u32,
    pub(super) path: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path_base64: Option<String>,
    pub(super) ino: u64,
    pub(super) name: Cow<'a, str>,
    pub(super) runtime: Cow<'a, str>,
    pub(super) state: Cow<'a, str>,
}

impl<'a> RootFields<'a> {
    pub(super) fn of(root: &'a PlannedRoot) -> Self {
        let path = Text::of(root.path.as_bytes());
        Self {
            id: root.id.0,
            path: path.shown,
            path_base64: path.exact,
            ino: root.ino,
            name: root.name.as_str().into(),
            runtime: root.runtime.name().into(),
            state: root.state.name().into(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StepFields<'a> {
    pub(super) seq: u32,
    pub(super) action: Cow<'a, str>,
    pub(super) root: u32,
    pub(super) path: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path_base64: Option<String>,
    pub(super) before: Option<Side<'a>>,
    pub(super) after: Side<'a>,
    pub(super) object: Option<Cow<'a, str>>,
}

/// What an entry is, before or after its step.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Side<'a> {
    /// An object of the store.
    Object { size_bytes: u64, blake3: String },
    /// A regular file of a root.
    File(FileFields),
    /// A symbolic link.
    Link {
        target: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_base64: Option<String>,
    },
    /// Another name of a file, or a file that shares its extents.
    Twin {
        root: u32,
        path: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path_base64: Option<String>,
        #[serde(flatten)]
        file: FileFields,
        /// How many names it has, where the entry becomes one more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        names: Option<u32>,
    },
    /// A directory and what is below it.
    Tree { blake3: String, files: u64 },
    /// The store, made visible.
    Mount(MountFields<'a>),
}

impl<'a> Side<'a> {
    fn link(target: &'a [u8]) -> Self {
        let target = Text::of(target);
        Self::Link { target: target.shown, target_base64: target.exact }
    }

    fn to(target: &'a ContainerPath) -> Self {
        Self::link(target.0.as_os_str().as_bytes())
    }

    fn twin(root: u32, path: &'a RootPath, file: &FileState, names: Option<u32>) -> Self {
        let path = Text::of(path.as_bytes());
        let file = FileFields::of(file);
        Self::Twin { root, path: path.shown, path_base64: path.exact, file, names }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileFields {
    pub(super) ino: u64,
    pub(super) size_bytes: u64,
    pub(super) mtime_ns: i64,
    pub(super) mode: u32,
    pub(super) blake3: String,
}

impl FileFields {
    fn of(file: &FileState) -> Self {
        Self {
            ino: file.ino,
            size_bytes: file.size.0,
            mtime_ns: file.mtime,
            mode: file.mode,
            blake3: file.content.to_string(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountFields<'a> {
    pub(super) means: Cow<'a, str>,
    pub(super) why: Cow<'a, str>,
    pub(super) binds: Vec<BindFields<'a>>,
    pub(super) config: Vec<ConfigFields<'a>>,
    pub(super) live: bool,
    #[serde(default)]
    pub(super) restart: Option<Cow<'a, str>>,
    pub(super) advice: Cow<'a, [String]>,
}

impl<'a> MountFields<'a> {
    fn of(mount: &'a MountPlan) -> Self {
        Self {
            means: mount.means.name().into(),
            why: mount.why.as_str().into(),
            binds: mount.binds.iter().map(BindFields::of).collect(),
            config: mount.config.iter().map(ConfigFields::of).collect(),
            live: mount.live,
            restart: mount.restart.as_deref().map(Cow::from),
            advice: mount.advice.as_slice().into(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BindFields<'a> {
    pub(super) source: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source_base64: Option<String>,
    pub(super) target: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target_base64: Option<String>,
}

impl<'a> BindFields<'a> {
    fn of(bind: &'a Bind) -> Self {
        let source = Text::of(bind.source.as_bytes());
        let target = Text::of(bind.target.0.as_os_str().as_bytes());
        Self {
            source: source.shown,
            source_base64: source.exact,
            target: target.shown,
            target_base64: target.exact,
        }
    }
}

/// A file of configuration; `null` where it does not exist.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ConfigFields<'a> {
    pub(super) file: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file_base64: Option<String>,
    pub(super) before: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before_base64: Option<String>,
    pub(super) after: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after_base64: Option<String>,
}

impl<'a> ConfigFields<'a> {
    fn of(change: &'a ConfigChange) -> Self {
        let file = Text::of(change.file.as_bytes());
        let split = |text: Option<Text<'a>>| match text {
            Some(text) => (Some(text.shown), text.exact),
            None => (None, None),
        };
        let (before, before_base64) = split(change.before.as_deref().map(Text::of));
        let (after, after_base64) = split(change.after.as_deref().map(Text::of));
        let (file, file_base64) = (file.shown, file.exact);
        Self { file, file_base64, before, before_base64, after, after_base64 }
    }
}

impl<'a> StepFields<'a> {
    pub(super) fn of(step: &'a Step) -> Self {
        let (path, before, after) = sides(&step.action);
        let path = path.map_or_else(|| Text::of(b""), |path| Text::of(path.as_bytes()));
        Self {
            seq: step.seq,
            action: step.action.name().into(),
            root: step.root.0,
            path: path.shown,
            path_base64: path.exact,
            before,
            after,
            object: step.object.as_ref().map(|object| object.as_str().into()),
        }
    }
}

fn sides(action: &Action) -> (Option<&RootPath>, Option<Side<'_>>, Side<'_>) {
    let file = |before: &FileState| Some(Side::File(FileFields::of(before)));
    match action {
        Action::Store { source, content, size } => {
            let object = Side::Object { size_bytes: size.0, blake3: content.to_string() };
            (Some(source), None, object)
        }
        Action::Mount(mount) => (None, None, Side::Mount(MountFields::of(mount))),
        Action::Replace { path, before, target } => (Some(path), file(before), Side::to(target)),
        Action::Relink { path, before, target } => {
            (Some(path), Some(Side::link(before)), Side::to(target))
        }
        Action::Link { path, target } => (Some(path), None, Side::to(target)),
        Action::Hardlink { path, before, of_root, of, of_state, of_names } => {
            (Some(path), file(before), Side::twin(of_root.0, of, of_state, Some(*of_names)))
        }
        Action::Reflink { path, before, of_root, of, of_state } => {
            (Some(path), file(before), Side::twin(of_root.0, of, of_state, None))
        }
        Action::Bind { path, before } => {
            let (size_bytes, blake3) = (before.size.0, before.content.to_string());
            (Some(path), file(before), Side::Object { size_bytes, blake3 })
        }
        Action::RemoveTree { path, digest, files, target } => {
            let tree = Side::Tree { blake3: digest.to_string(), files: *files };
            (Some(path), Some(tree), Side::to(target))
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SkipFields<'a> {
    pub(super) root: u32,
    pub(super) path: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path_base64: Option<String>,
    pub(super) reason: Cow<'a, str>,
    pub(super) explanation: Cow<'a, str>,
}

impl<'a> SkipFields<'a> {
    pub(super) fn of(skip: &'a Skip) -> Self {
        let path = Text::of(skip.path.as_bytes());
        Self {
            root: skip.root.0,
            path: path.shown,
            path_base64: path.exact,
            reason: skip.reason.name().into(),
            explanation: skip.explanation.as_str().into(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavesFields {
    pub(super) disk_bytes: u64,
    pub(super) memory_bytes: u64,
}

impl SavesFields {
    pub(super) fn of(saves: Saves) -> Self {
        Self { disk_bytes: saves.disk.0, memory_bytes: saves.memory.0 }
    }

    pub(super) fn saves(&self) -> Saves {
        Saves { disk: Bytes(self.disk_bytes), memory: Bytes(self.memory_bytes) }
    }
}
