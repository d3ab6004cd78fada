//! What people call the layers of an image store: the container's name, or the
//! image's with the layer's place in it. Read from the store's own files; where
//! they say nothing, a layer goes by its identifier.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Place;

/// A layer's directory, and its name.
pub(super) type Names = BTreeMap<String, String>;

/// Lists of layers grow with their number; some 100 bytes each.
const MAX_FILE: u64 = 64 << 20;

/// Docker: `image/DRIVER/layerdb` and `containers/ID/config.v2.json`.
pub(super) fn docker(store: &Place) -> Names {
    let mut names = Names::new();
    for driver in ["overlay2", "vfs", "btrfs"] {
        if let Ok(images) = store.dir(Path::new("image").join(driver)) {
            docker_images(&images, &mut names);
            docker_containers(store, &images, &mut names);
        }
    }
    names
}

#[derive(Deserialize)]
struct Repositories {
    #[serde(rename = "Repositories", default)]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ImageConfig {
    rootfs: ImageLayers,
}

#[derive(Deserialize)]
struct ImageLayers {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct DockerContainer {
    #[serde(rename = "Name")]
    name: String,
}

fn docker_images(images: &Place, names: &mut Names) {
    let stacks = docker_stacks(images);
    let Some(tags) = json::<Repositories>(images, "repositories.json") else { return };
    for (tag, id) in tags.repositories.values().flatten().filter(|(tag, _)| !tag.contains('@')) {
        let file = Path::new("imagedb/content").join(id.replacen(':', "/", 1));
        let Some(image) = json::<ImageConfig>(images, file) else { continue };
        let diffs = &image.rootfs.diff_ids;
        for depth in 1..=diffs.len() {
            if let Some(layer) = stacks.get(&diffs[..depth]) {
                let name = format!("{tag} [{depth}/{}]", diffs.len());
                names.entry(layer.clone()).or_insert(name);
            }
        }
    }
}

/// What Docker calls a layer, to its content, its directory and the one below.
type Chains = BTreeMap<String, (String, String, Option<String>)>;

/// The layer directory of each stack of layers, by the stack's content from the bottom up.
fn docker_stacks(images: &Place) -> BTreeMap<Vec<String>, String> {
    let mut chains = Chains::new();
    if let Ok(layers) = images.dir("layerdb/sha256") {
        for chain in layers.names().unwrap_or_default() {
            let at = |file: &str| text(&layers, &Path::new(&chain).join(file));
            if let (Some(diff), Some(cache)) = (at("diff"), at("cache-id")) {
                let id = format!("sha256:{}", chain.to_string_lossy());
                chains.insert(id, (diff, cache, at("parent")));
            }
        }
    }
    chains.iter().map(|(id, (_, cache, _))| (stack(&chains, id), cache.clone())).collect()
}

fn stack(chains: &Chains, top: &str) -> Vec<String> {
    let mut diffs = Vec::new();
    let mut at = Some(top);
    // No more steps than layers: a chain that bites its tail ends.
    while let Some((diff, _, parent)) = at.and_then(|id| chains.get(id))
        && diffs.len() < chains.len()
    {
        diffs.push(diff.clone());
        at = parent.as_deref();
    }
    diffs.reverse();
    diffs
}

fn docker_containers(store: &Place, images: &Place, names: &mut Names) {
    let Ok(mounts) = images.dir("layerdb/mounts") else { return };
    for container in mounts.names().unwrap_or_default() {
        let config = Path::new("containers").join(&container).join("config.v2.json");
        let layer = text(&mounts, &Path::new(&container).join("mount-id"));
        let (Some(layer), Some(config)) = (layer, json::<DockerContainer>(store, config)) else {
            continue;
        };
        let name = config.name.trim_start_matches('/').to_owned();
        names.insert(format!("{layer}-init"), format!("{name} [init]"));
        names.insert(layer, name);
    }
}

/// containers/storage: `DRIVER-{layers,images,containers}/*.json`.
pub(super) fn podman(store: &Place) -> Names {
    let mut names = Names::new();
    for driver in ["overlay", "vfs", "btrfs"] {
        let parents = podman_parents(store, driver);
        for image in podman_list::<PodmanImage>(store, driver, "images") {
            let name = image.names.first().cloned().unwrap_or(image.id);
            podman_stack(&parents, &image.layer, &name, &mut names);
        }
        for container in podman_list::<PodmanImage>(store, driver, "containers") {
            let name = container.names.first().cloned().unwrap_or(container.id);
            names.insert(container.layer, name);
        }
    }
    names
}

/// An image or a container: both name the topmost layer.
#[derive(Deserialize)]
struct PodmanImage {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    layer: String,
}

#[derive(Deserialize)]
struct PodmanLayer {
    id: String,
    parent: Option<String>,
}

fn podman_parents(store: &Place, driver: &str) -> BTreeMap<String, Option<String>> {
    let layers = podman_list::<PodmanLayer>(store, driver, "layers");
    layers.into_iter().map(|layer| (layer.id, layer.parent)).collect()
}

/// The lasting list, and the one of what does not outlive a reboot.
fn podman_list<T: DeserializeOwned>(store: &Place, driver: &str, what: &str) -> Vec<T> {
    let dir = format!("{driver}-{what}");
    ["", "volatile-"]
        .iter()
        .filter_map(|kind| {
            json::<Vec<T>>(store, Path::new(&dir).join(format!("{kind}{what}.json")))
        })
        .flatten()
        .collect()
}

fn podman_stack(
    parents: &BTreeMap<String, Option<String>>,
    top: &str,
    name: &str,
    names: &mut Names,
) {
    let mut stack = Vec::new();
    let mut at = Some(top);
    while let Some((id, parent)) = at.and_then(|id| parents.get_key_value(id))
        && stack.len() < parents.len()
    {
        stack.push(id);
        at = parent.as_deref();
    }
    for (above, id) in stack.iter().enumerate() {
        let place = format!("{name} [{}/{}]", stack.len() - above, stack.len());
        names.entry((*id).clone()).or_insert(place);
    }
}

fn json<T: DeserializeOwned>(dir: &Place, file: impl AsRef<Path>) -> Option<T> {
    serde_json::from_slice(&dir.read(file, MAX_FILE).ok()?).ok()
}

fn text(dir: &Place, file: &Path) -> Option<String> {
    let bytes = dir.read(file, MAX_FILE).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}
