//! A plan's document, read back. It may have been edited: nothing in it is believed that can
//! be checked here, and every step is checked again when it is carried out.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;

use super::SCHEMA;
use super::fields::{
    BindFields, ConfigFields, FileFields, MountFields, RootFields, SavesFields, SettingsFields,
    Side, SkipFields, StepFields, bytes, path_buf,
};
use crate::model::{
    Action, Applets, Bind, Bytes, ConfigChange, ContainerPath, ContentId, FileState, HostPath,
    Method, MountMeans, MountPlan, Notices, ObjectName, Plan, PlanSettings, PlannedRoot, RootId,
    RootPath, RootState, Runtime, Select, Skip, SkipReason, Step, StoreFormat,
};

/// Why bytes are no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("it is no plan: {0}")]
    Json(#[from] serde_json::Error),
    /// Another document.
    #[error("it is a document {found:?}, not {SCHEMA:?}: save a plan by dedupe --json")]
    Schema {
        /// What it says it is.
        found: String,
    },
    /// A field that no plan of ours has.
    #[error("{place}: {what}")]
    Field {
        /// `settings`, `root 3`, `step 12`, ...
        place: String,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct Schema<'a> {
    schema: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Document<'a> {
    settings: SettingsFields<'a>,
    roots: Vec<RootFields<'a>>,
    steps: Vec<StepFields<'a>>,
    skips: Vec<SkipFields<'a>>,
    saves: SavesFields,
}

type Parsed<T> = Result<T, &'static str>;

pub(super) fn parse(bytes: &[u8]) -> Result<Plan, PlanFileError> {
    let schema: Schema<'_> = serde_json::from_slice(bytes)?;
    if schema.schema != SCHEMA {
        return Err(PlanFileError::Schema { found: schema.schema.into_owned() });
    }
    let document: Document<'_> = serde_json::from_slice(bytes)?;
    let settings = settings(&document.settings).map_err(at("settings"))?;
    let roots = each(&document.roots, "root", |at, fields| root(at, fields))?;
    let mut next = 0;
    let steps = each(&document.steps, "step", |_, fields| {
        let step = step(fields, &settings, roots.len())?;
        if step.seq < next {
            return Err("its number does not follow that of the step before");
        }
        next = step.seq.saturating_add(1);
        Ok(step)
    })?;
    let skips = each(&document.skips, "skip", |_, fields| skip(fields, roots.len()))?;
    let saves = document.saves.saves();
    Ok(Plan { settings, roots, steps, skips, saves, notices: Notices::default() })
}

fn at(place: impl Into<String>) -> impl FnOnce(&'static str) -> PlanFileError {
    move |what| PlanFileError::Field { place: place.into(), what }
}

fn each<F, T>(
    list: &[F],
    what: &str,
    mut one: impl FnMut(usize, &F) -> Parsed<T>,
) -> Result<Vec<T>, PlanFileError> {
    let parse = |(place, fields)| one(place, fields).map_err(at(format!("{what} {place}")));
    list.iter().enumerate().map(parse).collect()
}

fn settings(fields: &SettingsFields<'_>) -> Parsed<PlanSettings> {
    let store = bytes(&fields.store, fields.store_base64.as_deref())?;
    let mount_point = bytes(&fields.mount_point, fields.mount_point_base64.as_deref())?;
    Ok(PlanSettings {
        select: Select::from_name(&fields.select).ok_or("an unknown select")?,
        method: Method::from_name(&fields.method).ok_or("an unknown method")?,
        store: host_path(store)?,
        store_format: StoreFormat::from_name(&fields.store_format).ok_or("an unknown format")?,
        mount_point: container_path(mount_point)?,
        applets: Applets::from_name(&fields.applets).ok_or("an unknown applets")?,
        live: fields.live,
        include_setid: fields.include_setid,
        trust_domain: fields.trust_domain.as_deref().map(str::to_owned),
    })
}

fn root(at: usize, fields: &RootFields<'_>) -> Parsed<PlannedRoot> {
    if fields.id as usize != at {
        return Err("roots are numbered from 0 in order");
    }
    Ok(PlannedRoot {
        id: RootId(fields.id),
        path: host_path(bytes(&fields.path, fields.path_base64.as_deref())?)?,
        ino: fields.ino,
        name: fields.name.as_ref().to_owned(),
        runtime: Runtime::from_name(&fields.runtime).ok_or("an unknown runtime")?,
        state: RootState::from_name(&fields.state).ok_or("an unknown state")?,
    })
}

fn step(fields: &StepFields<'_>, settings: &PlanSettings, roots: usize) -> Parsed<Step> {
    let object = match &fields.object {
        Some(name) => Some(ObjectName::parse(name).ok_or("its object has no object's name")?),
        None => None,
    };
    let path = bytes(&fields.path, fields.path_base64.as_deref())?;
    let action = action(fields, &path, roots)?;
    if action.name() != fields.action {
        return Err("before and after do not fit its action");
    }
    agrees(&action, object.as_ref(), settings)?;
    Ok(Step { seq: fields.seq, root: root_id(fields.root, roots)?, action, object })
}

fn action(fields: &StepFields<'_>, path: &[u8], roots: usize) -> Parsed<Action> {
    let entry = || root_path(path.to_vec());
    Ok(match (&*fields.action, &fields.before, &fields.after) {
        ("store", None, Side::Object { size_bytes, blake3 }) => {
            Action::Store { source: entry()?, content: content(blake3)?, size: Bytes(*size_bytes) }
        }
        ("mount", None, Side::Mount(fields)) if path.is_empty() => Action::Mount(mount(fields)?),
        ("replace", Some(Side::File(file)), Side::Link { target, target_base64 }) => {
            let target = link(target, target_base64.as_deref())?;
            Action::Replace {
                path: entry()?,
                before: state(file)?,
                target: container_path(target)?,
            }
        }
        (
            "relink",
            Some(Side::Link { target: old, target_base64: exact }),
            Side::Link { target, target_base64 },
        ) => {
            let target = container_path(link(target, target_base64.as_deref())?)?;
            Action::Relink { path: entry()?, before: link(old, exact.as_deref())?, target }
        }
        ("link", None, Side::Link { target, target_base64 }) => {
            let target = container_path(link(target, target_base64.as_deref())?)?;
            Action::Link { path: entry()?, target }
        }
        (
            "hardlink" | "reflink",
            Some(Side::File(before)),
            Side::Twin { root, path, path_base64, file, names },
        ) => {
            let before = state(before)?;
            let of = root_path(bytes(path, path_base64.as_deref())?)?;
            let (of_root, of_state) = (root_id(*root, roots)?, state(file)?);
            let path = entry()?;
            match (&*fields.action, *names) {
                ("hardlink", Some(of_names)) => {
                    Action::Hardlink { path, before, of_root, of, of_state, of_names }
                }
                ("hardlink", None) => return Err("a file that gets names lacks how many it has"),
                _ => Action::Reflink { path, before, of_root, of, of_state },
            }
        }
        ("bind", Some(Side::File(before)), Side::Object { blake3, .. }) => {
            let before = state(before)?;
            if before.content != content(blake3)? {
                return Err("its object holds something else than its file");
            }
            Action::Bind { path: entry()?, before }
        }
        (
            "remove_tree",
            Some(Side::Tree { blake3, files }),
            Side::Link { target, target_base64 },
        ) => {
            let target = container_path(link(target, target_base64.as_deref())?)?;
            Action::RemoveTree { path: entry()?, digest: content(blake3)?, files: *files, target }
        }
        _ => return Err("it is no step that a plan has"),
    })
}

/// A link leads to the step's object and nowhere else, and the object has its content's name.
fn agrees(action: &Action, object: Option<&ObjectName>, settings: &PlanSettings) -> Parsed<()> {
    let (held, target) = match action {
        Action::Store { content, .. } => (Some(content), None),
        Action::Replace { before, target, .. } => (Some(&before.content), Some(target)),
        Action::Relink { target, .. } | Action::Link { target, .. } => (None, Some(target)),
        Action::RemoveTree { digest, target, .. } => (Some(digest), Some(target)),
        Action::Bind { before, .. } => (Some(&before.content), None),
        _ => return Ok(()),
    };
    let object = object.ok_or("it names no object")?;
    if held.is_some_and(|content| !object.fits(*content)) {
        return Err("its object's name is not that of its content");
    }
    if target.is_some_and(|target| target.0 != settings.mount_point.0.join(object.as_str())) {
        return Err("its link does not lead to its object");
    }
    Ok(())
}

fn mount(fields: &MountFields<'_>) -> Parsed<MountPlan> {
    Ok(MountPlan {
        means: MountMeans::from_name(&fields.means).ok_or("an unknown means")?,
        why: fields.why.as_ref().to_owned(),
        binds: fields.binds.iter().map(bind).collect::<Parsed<_>>()?,
        config: fields.config.iter().map(config).collect::<Parsed<_>>()?,
        live: fields.live,
        restart: fields.restart.as_deref().map(str::to_owned),
        advice: fields.advice.to_vec(),
    })
}

fn bind(fields: &BindFields<'_>) -> Parsed<Bind> {
    Ok(Bind {
        source: host_path(bytes(&fields.source, fields.source_base64.as_deref())?)?,
        target: container_path(bytes(&fields.target, fields.target_base64.as_deref())?)?,
    })
}

fn config(fields: &ConfigFields<'_>) -> Parsed<ConfigChange> {
    let text = |shown: &Option<Cow<'_, str>>, exact: &Option<String>| {
        shown.as_ref().map(|shown| bytes(shown, exact.as_deref())).transpose()
    };
    Ok(ConfigChange {
        file: host_path(bytes(&fields.file, fields.file_base64.as_deref())?)?,
        before: text(&fields.before, &fields.before_base64)?,
        after: text(&fields.after, &fields.after_base64)?,
    })
}

fn skip(fields: &SkipFields<'_>, roots: usize) -> Parsed<Skip> {
    let path = bytes(&fields.path, fields.path_base64.as_deref())?;
    Ok(Skip {
        root: root_id(fields.root, roots)?,
        path: if path.is_empty() { RootPath::default() } else { root_path(path)? },
        reason: SkipReason::from_name(&fields.reason).ok_or("an unknown reason")?,
        explanation: fields.explanation.as_ref().to_owned(),
    })
}

fn state(fields: &FileFields) -> Parsed<FileState> {
    Ok(FileState {
        ino: fields.ino,
        size: Bytes(fields.size_bytes),
        mtime: fields.mtime_ns,
        mode: fields.mode,
        content: content(&fields.blake3)?,
    })
}

fn root_id(id: u32, roots: usize) -> Parsed<RootId> {
    ((id as usize) < roots).then_some(RootId(id)).ok_or("it names a root that the plan lacks")
}

fn link(shown: &str, exact: Option<&str>) -> Parsed<Vec<u8>> {
    let target = bytes(shown, exact)?;
    let sound = !target.is_empty() && !target.contains(&0);
    sound.then_some(target).ok_or("a link's target is empty, or holds NUL")
}

/// Below a root: relative, and every component a name.
fn root_path(path: Vec<u8>) -> Parsed<RootPath> {
    let name =
        |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    match path.split(|&byte| byte == b'/').all(name) {
        true => Ok(RootPath::new(path)),
        false => Err("a path does not name an entry below its root"),
    }
}

fn host_path(path: Vec<u8>) -> Parsed<HostPath> {
    absolute(path).map(|path| HostPath(path_buf(path)))
}

fn container_path(path: Vec<u8>) -> Parsed<ContainerPath> {
    absolute(path).map(|path| ContainerPath(path_buf(path)))
}

fn absolute(path: Vec<u8>) -> Parsed<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let shown = Path::new(std::ffi::OsStr::from_bytes(&path));
    let up = shown.components().any(|part| part == std::path::Component::ParentDir);
    match shown.is_absolute() && !up && !path.contains(&0) {
        true => Ok(path),
        false => Err("a path is not absolute, or leads up"),
    }
}

/// 64 lowercase hexadecimal digits.
fn content(hex: &str) -> Parsed<ContentId> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err("a blake3 is not 64 hexadecimal digits"),
    };
    let mut content = [0; 32];
    if hex.len() != 64 {
        return Err("a blake3 is not 64 hexadecimal digits");
    }
    for (byte, pair) in content.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(ContentId(content))
}
