#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use super::*;
use crate::model::{
    Action, Bytes, ContainerPath, ContentId, FileState, MountPlan, ObjectName, RootId, RootPath,
    Saves, SkipReason, Step,
};
use crate::render::json::{PLAN_SCHEMA, write};
use crate::render::sample;

fn text(plan: &Plan) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, &PlanDocument::new(plan, &sample::host())).unwrap();
    bytes
}

fn errors(document: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(PLAN_SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

fn document(plan: &Plan) -> Value {
    serde_json::from_slice(&text(plan)).unwrap()
}

#[test]
fn a_document_is_valid_and_the_schema_misses_every_field_that_is_gone() {
    let whole = document(&sample::plan());
    assert_eq!(errors(&whole), Vec::<String>::new(), "{whole:#}");
    for step in whole["steps"].as_array().unwrap() {
        for key in step.as_object().unwrap().keys().filter(|key| !key.ends_with("_base64")) {
            let mut without = whole.clone();
            let place = step["seq"].as_u64().unwrap() as usize;
            without["steps"][place].as_object_mut().unwrap().remove(key);
            assert_ne!(errors(&without), Vec::<String>::new(), "{key}");
        }
    }
}

#[test]
fn names_are_those_of_the_contract() {
    let document = document(&sample::plan());
    assert_eq!(document["schema"], "cbin-audit.plan.v1");
    let replace = &document["steps"][2];
    assert_eq!(replace["action"], "replace");
    assert_eq!(replace["path"], "bin/busybox");
    assert_eq!(replace["before"]["kind"], "file");
    assert_eq!(replace["after"]["target"], "/cbin/busybox-x86_64-1f1f1f1f1f1f");
    assert_eq!(replace["object"], "busybox-x86_64-1f1f1f1f1f1f");
    assert_eq!(document["skips"][0]["reason"], "setid");
    assert_eq!(document["saves"], json!({"disk_bytes": 1_982_464, "memory_bytes": 0}));
}

#[test]
fn what_is_read_is_what_was_written() {
    let plan = sample::plan();
    assert_eq!(PlanDocument::parse(&text(&plan)).unwrap(), plan);
}

/// A small generator: the same plans in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn name(&mut self) -> Vec<u8> {
        let len = 1 + self.next(12);
        let byte = |at: u64| match at {
            0 | 0x2f => b'x',
            at => at as u8,
        };
        let name: Vec<u8> = (0..len).map(|_| byte(self.next(256))).collect();
        if name.iter().all(|byte| *byte == b'.') { b"dots".to_vec() } else { name }
    }

    fn path(&mut self) -> RootPath {
        (0..=self.next(4)).fold(RootPath::default(), |path, _| path.join(&self.name()))
    }

    fn content(&mut self) -> ContentId {
        ContentId(std::array::from_fn(|_| self.next(256) as u8))
    }

    fn state(&mut self, content: ContentId) -> FileState {
        let mtime = i64::from_le_bytes(std::array::from_fn(|_| self.next(256) as u8));
        let (ino, size, mode) = (self.next(u64::MAX), Bytes(self.next(1 << 40)), 0o100_755);
        FileState { ino, size, mtime, mode, content }
    }

    fn step(&mut self, seq: u32, plan: &Plan) -> Step {
        let content = self.content();
        let object = ObjectName::new("busybox", "x86_64", content);
        let target = ContainerPath(plan.settings.mount_point.0.join(object.as_str()));
        let (path, before) = (self.path(), self.state(content));
        let (of_root, of, of_state) = (RootId(0), self.path(), self.state(content));
        let action = match self.next(8) {
            0 => Action::Store { source: path, content, size: before.size },
            1 => Action::Mount(MountPlan { live: seq.is_multiple_of(2), ..sample::mount() }),
            2 => Action::Replace { path, before, target },
            3 => Action::Relink { path, before: self.name(), target },
            4 => Action::Link { path, target },
            5 => Action::Hardlink { path, before, of_root, of, of_state, of_names: 2 },
            6 => Action::Reflink { path, before, of_root, of, of_state },
            _ => Action::RemoveTree { path, digest: content, files: 7, target },
        };
        Step { seq, root: RootId(self.next(2) as u32), action, object: Some(object) }
    }
}

#[test]
fn any_plan_comes_back_as_it_was() {
    let mut random = Random(7);
    for round in 0..200 {
        let mut plan = sample::plan();
        plan.steps = (0..8).map(|at| random.step(3 * at, &plan)).collect();
        for skip in &mut plan.skips {
            skip.path = random.path();
        }
        let bytes = text(&plan);
        assert_eq!(PlanDocument::parse(&bytes).unwrap(), plan, "round {round}");
    }
}

#[test]
fn bytes_that_were_changed_are_a_plan_or_an_error() {
    let whole = text(&sample::plan());
    let mut random = Random(11);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        let at = random.next(bytes.len() as u64) as usize;
        match random.next(3) {
            0 => bytes[at] = random.next(256) as u8,
            1 => bytes.truncate(at),
            _ => drop(bytes.remove(at)),
        }
        refused += u32::from(PlanDocument::parse(&bytes).is_err());
    }
    assert!(refused > 1000, "{refused}");
}

/// The error for a document in which one value is another.
fn refused(pointer: &str, value: Value) -> String {
    let mut document = document(&sample::plan());
    *document.pointer_mut(pointer).unwrap() = value;
    match PlanDocument::parse(document.to_string().as_bytes()) {
        Ok(plan) => panic!("{pointer} was taken: {plan:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_no_plan_has_is_refused_by_name() {
    let cases = [
        ("/schema", json!("cbin-audit.report.v1"), "cbin-audit.report.v1"),
        ("/steps/2/path", json!("../etc/shadow"), "step 2: a path does not name an entry below"),
        ("/steps/2/path", json!("/etc/shadow"), "step 2: a path does not name"),
        ("/steps/2/path", json!("a//b"), "step 2: a path does not name"),
        ("/steps/2/root", json!(9), "step 2: it names a root that the plan lacks"),
        ("/steps/2/after/target", json!("/etc/shadow"), "step 2: its link does not lead to"),
        ("/steps/2/object", json!("busybox-x86_64-000000000000"), "its content"),
        ("/steps/2/object", json!("../../x"), "no object's name"),
        ("/steps/2/object", Value::Null, "it names no object"),
        ("/steps/2/seq", json!(0), "its number does not follow"),
        ("/steps/2/action", json!("relink"), "it is no step that a plan has"),
        ("/steps/2/before/blake3", json!("00"), "64 hexadecimal digits"),
        ("/steps/2/before/ino", json!("x"), "it is no plan: invalid type"),
        ("/settings/mount_point", json!("cbin"), "settings: a path is not absolute"),
        ("/roots/1/id", json!(7), "root 1: roots are numbered"),
        ("/skips/0/reason", json!("whim"), "skip 0: an unknown reason"),
    ];
    for (pointer, value, expected) in cases {
        let error = refused(pointer, value);
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

#[test]
fn reasons_of_the_schema_are_those_of_the_model() {
    let mut plan = sample::plan();
    let skip = plan.skips[0].clone();
    plan.skips =
        SkipReason::all().map(|reason| crate::model::Skip { reason, ..skip.clone() }).collect();
    assert_eq!(errors(&document(&plan)), Vec::<String>::new());
    assert_eq!(plan.saves, Saves { disk: Bytes(1_982_464), memory: Bytes(0) });
}
