//! A plan for people: what would be done in each root, what is left as it is and why, and
//! the command that carries it out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use super::diff;
use super::escape::{escape, escape_controls};
use super::human::{count, plural, size};
use super::layout::{Column, Page, elide, heading, pairs, table};
use super::next::Step as Next;
use crate::model::{
    Action, Bytes, ContainerPath, HostPath, MountMeans, MountPlan, ObjectName, Plan, PlannedRoot,
    RootId, RootPath, Skip, SkipReason, Step,
};

/// Names of one list in a line, unless the reader wants all.
const NAMES: usize = 4;

/// Writes the plan as a page.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut dyn Write, page: &Page, plan: &Plan, next: &[Next]) -> io::Result<()> {
    if plan.steps.is_empty() {
        heading(out, page, "Nothing to do")?;
    } else {
        objects(out, page, plan)?;
        writable(out, page, plan)?;
        roots(out, page, plan)?;
    }
    skips(out, page, plan)?;
    saves(out, page, plan)?;
    if next.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    heading(out, page, "Next")?;
    next.iter().try_for_each(|step| writeln!(out, "  # {}\n  {}", step.why, step.command))
}

/// One object: how long it is where it is new, and how many entries lead to it.
#[derive(Default)]
struct Use {
    new: Option<Bytes>,
    entries: u64,
    roots: BTreeSet<RootId>,
}

fn objects(out: &mut dyn Write, page: &Page, plan: &Plan) -> io::Result<()> {
    let mut uses: BTreeMap<&ObjectName, Use> = BTreeMap::new();
    for step in &plan.steps {
        let Some(object) = &step.object else { continue };
        let found = uses.entry(object).or_default();
        match step.action {
            Action::Store { size, .. } => found.new = Some(size),
            _ => {
                found.entries += 1;
                found.roots.insert(step.root);
            }
        }
    }
    if uses.is_empty() {
        return Ok(());
    }
    let store = shown(plan.settings.store.as_bytes());
    let trees = uses.keys().filter(|name| name.is_tree()).count();
    let programs = plural((uses.len() - trees) as u64, "program", "programs");
    let trees = match trees as u64 {
        0 => String::new(),
        many => format!(", {}", plural(many, "directory", "directories")),
    };
    heading(out, page, &format!("Shared from {store}: {programs}{trees}"))?;
    let columns = [
        Column::Text("object"),
        Column::Text("in the store"),
        Column::Number("roots"),
        Column::Number("entries"),
    ];
    table(out, page, &columns, uses.into_iter().map(|(name, found)| object_row(name, &found)))?;
    writeln!(out)
}

fn object_row(name: &ObjectName, found: &Use) -> Vec<String> {
    let state =
        found.new.map_or_else(|| "already".to_owned(), |bytes| format!("new, {}", size(bytes)));
    vec![
        shown(name.as_str().as_bytes()),
        state,
        count(found.roots.len() as u64),
        count(found.entries),
    ]
}

/// What has names in several roots can be written in each of them.
fn writable(out: &mut dyn Write, page: &Page, plan: &Plan) -> io::Result<()> {
    if !plan.steps.iter().any(|step| matches!(step.action, Action::Hardlink { .. })) {
        return Ok(());
    }
    let domain =
        plan.settings.trust_domain.as_deref().map_or_else(String::new, |name| {
            format!(" in the trust domain {}", escape_controls(name))
        });
    heading(out, page, &format!("Shared by hard links{domain}: writable by each of these roots"))?;
    let words = "who may write such a file in one root changes what all of them run, its owner and mode too";
    pairs(out, page, [("note".to_owned(), words.to_owned())])?;
    writeln!(out)
}

/// What is done in each root, the first of them, or all where the reader wants all.
fn roots(out: &mut dyn Write, page: &Page, plan: &Plan) -> io::Result<()> {
    let mut by_root: BTreeMap<RootId, Vec<&Step>> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| !matches!(step.action, Action::Store { .. })) {
        by_root.entry(step.root).or_default().push(step);
    }
    let most = if page.verbose { usize::MAX } else { page.top };
    let mut files = BTreeSet::new();
    for (id, steps) in by_root.iter().take(most) {
        if let Some(root) = plan.roots.get(id.0 as usize) {
            heading(out, page, &title(root))?;
            pairs(out, page, root_lines(page, plan, steps))?;
            differences(out, steps, &mut files)?;
            writeln!(out)?;
        }
    }
    match by_root.len().saturating_sub(most) {
        0 => Ok(()),
        more => {
            let roots = plural(more as u64, "root", "roots");
            writeln!(out, "{roots} more in the same way: --verbose shows all\n")
        }
    }
}

/// What becomes of the host's configuration files, as diff(1) shows it; of one that is all
/// roots' together, once.
fn differences<'a>(
    out: &mut dyn Write,
    steps: &[&'a Step],
    seen: &mut BTreeSet<&'a HostPath>,
) -> io::Result<()> {
    let changes = steps.iter().filter_map(|step| match &step.action {
        Action::Mount(mount) => Some(&mount.config),
        _ => None,
    });
    for change in changes.flatten().filter(|change| seen.insert(&change.file)) {
        writeln!(out)?;
        diff::unified(change).lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    Ok(())
}

fn title(root: &PlannedRoot) -> String {
    let (name, path) = (root_name(root), shown(root.path.as_bytes()));
    elide(format!("{name}: {path}, {}, {}", root.runtime.name(), root.state.name()), 78)
}

fn root_lines(page: &Page, plan: &Plan, steps: &[&Step]) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut names: BTreeMap<(usize, String), Vec<&RootPath>> = BTreeMap::new();
    for step in steps {
        let target = |target: &ContainerPath| shown(target.0.as_os_str().as_encoded_bytes());
        let (what, path, becomes) = match &step.action {
            Action::Mount(mount) => {
                lines.extend(mount_lines(mount));
                continue;
            }
            Action::Replace { path, target: to, .. } => (0, path, target(to)),
            Action::Relink { path, target: to, .. } => (1, path, target(to)),
            Action::Link { path, target: to } => (2, path, target(to)),
            Action::Hardlink { path, of_root, of, .. } => (3, path, within(plan, *of_root, of)),
            Action::Bind { path, .. } => (4, path, BOUND.to_owned()),
            other => {
                lines.extend(other_line(other));
                continue;
            }
        };
        names.entry((what, becomes)).or_default().push(path);
    }
    lines.extend(names.into_iter().map(|((what, becomes), paths)| {
        let (what, arrow) = KINDS[what];
        (what.to_owned(), format!("{} {arrow} {becomes}", listed(page, &paths)))
    }));
    lines
}

/// Steps that are told with others of their kind: what they are called, and what they do.
const KINDS: [(&str, &str); 5] =
    [("replace", "->"), ("relink", "->"), ("add", "->"), ("hardlink", "="), ("bind", "<-")];

/// What becomes of names that are bound over.
const BOUND: &str =
    "the store's object, bound over it until the container restarts; nothing changes on disk";

/// The names, and how many they are where they do not all stand here.
fn listed(page: &Page, paths: &[&RootPath]) -> String {
    let most = if page.verbose { usize::MAX } else { NAMES };
    let names: Vec<_> = paths.iter().take(most).map(|path| shown(path.as_bytes())).collect();
    match paths.len().saturating_sub(most) {
        0 => names.join(", "),
        more => format!("{} and {} more", names.join(", "), count(more as u64)),
    }
}

fn mount_lines(mount: &MountPlan) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for bind in &mount.binds {
        let (source, target) =
            (shown(bind.source.as_bytes()), shown(bind.target.0.as_os_str().as_encoded_bytes()));
        let how = match mount.means {
            MountMeans::None => "is yours to mount".to_owned(),
            means => format!("read-only, by {} ({})", means.name(), escape_controls(&mount.why)),
        };
        lines.push(("mount".to_owned(), format!("{source} at {target}: {how}")));
    }
    if mount.live {
        lines.push(("live".to_owned(), "attached inside the running container, too".to_owned()));
        let command = mount.restart.as_deref().map(escape_controls);
        lines.extend(command.map(|command| ("restart".to_owned(), command)));
    }
    for change in &mount.config {
        let what = match (&change.before, &change.after) {
            (None, _) => "new",
            (_, None) => "removed",
            _ => "changed",
        };
        lines.push(("file".to_owned(), format!("{}: {what}", shown(change.file.as_bytes()))));
    }
    lines.extend(mount.advice.iter().map(|text| ("note".to_owned(), escape_controls(text))));
    lines
}

fn other_line(action: &Action) -> Option<(String, String)> {
    let (what, text) = match action {
        Action::Reflink { path, of, .. } => (
            "reflink",
            format!("{} shares the blocks of {}", shown(path.as_bytes()), shown(of.as_bytes())),
        ),
        Action::RemoveTree { path, files, target, .. } => {
            let files = plural(*files, "file", "files");
            let target = shown(target.0.as_os_str().as_bytes());
            ("tree", format!("{} with {files} -> {target}", shown(path.as_bytes())))
        }
        _ => return None,
    };
    Some((what.to_owned(), text))
}

/// Skips of one reason together.
fn skips(out: &mut dyn Write, page: &Page, plan: &Plan) -> io::Result<()> {
    if plan.skips.is_empty() {
        return Ok(());
    }
    heading(out, page, &format!("Left as it is: {}", count(plan.skips.len() as u64)))?;
    let mut groups: BTreeMap<(SkipReason, &str), Vec<&Skip>> = BTreeMap::new();
    for skip in &plan.skips {
        groups.entry((skip.reason, &skip.explanation)).or_default().push(skip);
    }
    let rows = groups.into_iter().map(|((reason, explanation), skips)| {
        let most = if page.verbose { usize::MAX } else { NAMES };
        let mut names: Vec<_> = skips.iter().take(most).map(|skip| place(plan, skip)).collect();
        if skips.len() > most {
            names.push(format!("and {} more", count((skips.len() - most) as u64)));
        }
        (
            reason.name().to_owned(),
            format!("{}: {}", names.join(", "), escape_controls(explanation)),
        )
    });
    pairs(out, page, rows)?;
    writeln!(out)
}

fn place(plan: &Plan, skip: &Skip) -> String {
    within(plan, skip.root, &skip.path)
}

fn within(plan: &Plan, root: RootId, path: &RootPath) -> String {
    let root = plan.roots.get(root.0 as usize).map_or_else(String::new, root_name);
    match path.as_bytes() {
        b"" => root,
        path => format!("{root}/{}", shown(path)),
    }
}

fn saves(out: &mut dyn Write, page: &Page, plan: &Plan) -> io::Result<()> {
    heading(out, page, "Saves")?;
    let mut rows = vec![("disk".to_owned(), size(plan.saves.disk))];
    if plan.saves.memory > Bytes(0) {
        let memory = size(plan.saves.memory);
        rows.push(("memory".to_owned(), format!("{memory} once the processes of now have ended")));
    }
    pairs(out, page, rows)
}

fn root_name(root: &PlannedRoot) -> String {
    let name = if root.name.is_empty() { root.path.as_bytes() } else { root.name.as_bytes() };
    shown(name)
}

/// A name for a line.
fn shown(name: &[u8]) -> String {
    elide(escape(name), 120)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::render::sample;

    const PAGE: Page = Page { width: 100, color: false, verbose: false, top: 20 };

    fn text(plan: &Plan) -> String {
        let next = Next { command: "cbin-audit dedupe --apply".to_owned(), why: "carries it out" };
        let mut out = Vec::new();
        write(&mut out, &PAGE, plan, &[next]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_from_the_top() {
        assert_eq!(text(&sample::plan()), include_str!("plan/expected.txt"));
    }

    #[test]
    fn many_links_are_a_count_and_many_roots_too() {
        let mut plan = sample::plan();
        let link = plan.steps[4].clone();
        for at in 0..300 {
            let mut step = link.clone();
            if let Action::Link { path, .. } = &mut step.action {
                *path = RootPath::new(format!("bin/applet{at:03}"));
            }
            plan.steps.push(step);
        }
        let text = text(&plan);
        assert!(text.contains("applet002 and 297 more ->"), "{text}");
        assert!(!text.contains("applet100"));
    }

    #[test]
    fn nothing_to_do_is_said() {
        let plan = Plan { steps: Vec::new(), skips: Vec::new(), ..sample::plan() };
        assert!(text(&plan).starts_with("Nothing to do\n"));
    }
}
