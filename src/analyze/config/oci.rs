//! An OCI bundle's `config.json`: entries are added to `mounts` in its text, so that
//! everything else stays as it is written.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::users::{Given, Held, Mounted, Users};
use crate::model::{Bind, Capabilities, ConfigFile, IdRange};

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    mounts: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    root: Option<Root<'a>>,
}

/// What holds the container: config-linux.md and config.md of the runtime specification.
#[derive(Deserialize)]
struct Confined {
    process: Option<Process>,
    linux: Option<Linux>,
    #[serde(default)]
    mounts: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    destination: String,
    source: Option<String>,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    uid_mappings: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Process {
    /// By the name of the set.
    capabilities: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    uid_mappings: Vec<Mapping>,
    resources: Option<Resources>,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    devices: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    allow: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    access: Option<String>,
}

/// One that the runtime makes a node of, and allows.
#[derive(Deserialize)]
struct Device {
    #[serde(rename = "type")]
    kind: String,
    major: Option<i64>,
    minor: Option<i64>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    /// One that is there already.
    path: Option<String>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    first: u32,
    #[serde(rename = "size")]
    count: u32,
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow)]
    path: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    source: Option<String>,
}

/// `root.path`, as it is written; `None` for what is no configuration.
pub fn root_path(config: &[u8]) -> Option<String> {
    serde_json::from_slice::<Spec<'_>>(config).ok()?.root.map(|root| root.path.into_owned())
}

/// How the container is held; `None` for what is no configuration.
pub fn held(config: &ConfigFile) -> Option<Held> {
    let Confined { process, linux, mounts } = serde_json::from_slice(&config.bytes).ok()?;
    let linux = linux.unwrap_or_default();
    // One of another's may be the host's.
    let own = |kind: &str| linux.namespaces.iter().any(|it| it.kind == kind && it.path.is_none());
    let (host_mounts, host_processes) = (!own("mount"), !own("pid"));
    let of_root = linux.uid_mappings.iter().find(|map| map.inside == 0);
    let range = |map: &Mapping| IdRange { first: map.first, count: map.count };
    let users = of_root.map_or(Users::Host, |map| Users::Mapped(range(map)));
    // A relative source counts from the bundle.
    let bundle = config.path.0.parent().unwrap_or(Path::new("/"));
    let mounts = mounts.into_iter().filter_map(|entry| entry.mounted(bundle));
    Some(Held {
        users,
        capabilities: process.and_then(|it| it.capabilities).map_or(Capabilities::ALL, joined),
        host_mounts,
        host_processes,
        given: Given { disks: linux.disks(), ..Given::of(users, mounts) },
    })
}

impl Entry {
    /// What is no path is the name of a file system that has none.
    fn mounted(self, bundle: &Path) -> Option<Mounted> {
        let is = |wanted: &str| self.options.iter().any(|option| option == wanted);
        let of_host = |source: &str| source.starts_with(['/', '.']) || is("bind") || is("rbind");
        let source = bundle.join(self.source.as_deref().filter(|source| of_host(source))?);
        let said = self.options.iter().rev().find(|it| ["ro", "rro", "rw"].contains(&it.as_str()));
        Some(Mounted {
            source: source.into_os_string().into_vec(),
            read_only: said.is_some_and(|option| option != "rw"),
            mapped: is("idmap") || is("ridmap") || !self.uid_mappings.is_empty(),
            target: self.destination.into_bytes(),
        })
    }
}

impl Linux {
    /// Block devices that it may write. A runtime allows none by itself.
    fn disks(&self) -> Vec<(Option<u32>, Option<u32>)> {
        // A number below nought stands for each.
        let number = |it: Option<i64>| it.and_then(|it| u32::try_from(it).ok());
        let rules = self.resources.iter().flat_map(|resources| &resources.devices);
        let writes = |rule: &&Rule| {
            rule.allow
                && rule.kind.as_deref().is_none_or(|kind| kind == "a" || kind == "b")
                && rule.access.as_deref().is_none_or(|access| access.contains('w'))
        };
        let allowed = rules.filter(writes).map(|rule| (number(rule.major), number(rule.minor)));
        let nodes = self.devices.iter().filter(|device| device.kind == "b");
        allowed.chain(nodes.map(|device| (number(device.major), number(device.minor)))).collect()
    }
}

/// What is in one of the sets: a program may be made to gain the bounding one.
fn joined(sets: BTreeMap<String, Vec<String>>) -> Capabilities {
    let names = sets.into_values().flatten();
    let known = names.map(|name| Capabilities::named(&name).unwrap_or(Capabilities::ALL));
    known.fold(Capabilities::default(), Capabilities::union)
}

/// What is mounted at a path of the container.
pub fn mounted_at(config: &[u8], target: &str) -> Option<String> {
    let spec: Spec<'_> = serde_json::from_slice(config).ok()?;
    let mounts = spec.mounts.unwrap_or_default();
    let read = |raw: &&RawValue| serde_json::from_str::<Mount>(raw.get()).ok();
    let found = mounts.iter().filter_map(read).rfind(|mount| mount.destination == target);
    found.and_then(|mount| mount.source)
}

/// The configuration with `binds` behind its mounts; `None` for what is no configuration,
/// or for a path that JSON cannot hold.
pub fn with_binds(config: &[u8], binds: &[Bind]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(config).ok()?;
    let entries = binds.iter().map(entry).collect::<Option<Vec<_>>>()?.join(",\n");
    let spec: Spec<'_> = serde_json::from_str(text).ok()?;
    let (at, separator) = match spec.mounts.as_deref() {
        Some([.., last]) => (end_of(text, last.get())?, ",\n"),
        Some([]) => (empty_array(text)?, "\n"),
        None => return with_array(text, &entries),
    };
    let (head, tail) = text.split_at_checked(at)?;
    let end = if separator == "\n" { "\n\t" } else { "" };
    Some(format!("{head}{separator}{entries}{end}{tail}").into_bytes())
}

/// The configuration has no `mounts` yet.
fn with_array(text: &str, entries: &str) -> Option<Vec<u8>> {
    let (head, tail) = text.split_at_checked(text.find('{')? + 1)?;
    let more = if tail.trim_start().starts_with('}') { "" } else { "," };
    Some(format!("{head}\n\t\"mounts\": [\n{entries}\n\t]{more}{tail}").into_bytes())
}

/// As `runc spec` indents its own.
fn entry(bind: &Bind) -> Option<String> {
    let entry = json!({
        "destination": bind.target.0.to_str()?,
        "type": "bind",
        "source": bind.source.0.to_str()?,
        "options": ["rbind", "ro"],
    });
    let pretty = serde_json::to_string_pretty(&entry).ok()?;
    let lines = pretty.lines().map(|line| format!("\t\t{}", line.replace("  ", "\t")));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// Where `part`, a piece of `text`, ends in it.
fn end_of(text: &str, part: &str) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start + part.len();
    (text.get(start..end) == Some(part)).then_some(end)
}

/// Behind the `[` of the array `mounts`, which has nothing in it.
fn empty_array(text: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        mounts: &'a RawValue,
    }
    let raw: Raw<'_> = serde_json::from_str(text).ok()?;
    Some(end_of(text, raw.mounts.get())? - raw.mounts.get().len() + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::{ContainerPath, HostPath};

    fn bind() -> Bind {
        Bind { source: HostPath::from("/home/cbin"), target: ContainerPath("/cbin".into()) }
    }

    fn changed(text: &str) -> serde_json::Value {
        let bytes = with_binds(text.as_bytes(), &[bind()]).unwrap();
        assert_eq!(mounted_at(&bytes, "/cbin").as_deref(), Some("/home/cbin"));
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn an_entry_is_added_and_the_rest_stays() {
        let text = "{\n\t\"root\": {\"path\": \"rootfs\"},\n\t\"mounts\": [\n\t\t{\n\t\t\t\"destination\": \"/proc\"\n\t\t}\n\t],\n\t\"x\": 1.50\n}\n";
        let bytes = String::from_utf8(with_binds(text.as_bytes(), &[bind()]).unwrap()).unwrap();
        assert!(bytes.ends_with("\n\t\t}\n\t],\n\t\"x\": 1.50\n}\n"), "{bytes}");
        assert!(bytes.starts_with(&text[..text.find("\n\t],").unwrap()]), "{bytes}");
        let options = &changed(text)["mounts"][1]["options"];
        assert_eq!(*options, json!(["rbind", "ro"]));
        assert_eq!(root_path(text.as_bytes()).as_deref(), Some("rootfs"));
    }

    #[test]
    fn an_array_that_is_empty_or_missing_is_filled() {
        for text in [
            "{\"mounts\": []}",
            "{}",
            "{\"mounts\":[ ],\"a\":[{\"destination\":\"/x\"}]}",
            "{\"a\": 1}",
        ] {
            assert_eq!(changed(text)["mounts"].as_array().unwrap().len(), 1, "{text}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["", "[]", "{\"mounts\": 3}", "{\"mounts\": [", "\u{0}"] {
            assert_eq!(with_binds(text.as_bytes(), &[bind()]), None, "{text}");
        }
    }
}
