//! Reports made by hand, for the renderers' tests.

use crate::model::*;

/// The machine they are about.
pub fn host() -> Host {
    Host { hostname: "host".to_owned(), kernel: "6.18.0".to_owned(), page_size: Bytes(4096) }
}

/// A report on nothing.
pub fn empty() -> Report {
    Report {
        select: Select::Elf,
        roots: Vec::new(),
        groups: Vec::new(),
        trees: Vec::new(),
        memory: None,
        totals: Totals::default(),
        notices: Notices::default(),
    }
}

/// Two roots that share a busybox, a library, a file with a hostile name, and a tree.
pub fn report() -> Report {
    let mut notices = Notices::default();
    notices.push(Notice::partial("/home/web/\x1b[2J", "open", "Permission denied"));
    Report {
        roots: vec![root(0, "web"), root(1, "db")],
        groups: vec![busybox(), library(), file()],
        trees: vec![tree()],
        totals: totals(),
        notices,
        ..empty()
    }
}

/// The same while busybox runs in both roots.
pub fn with_memory() -> Report {
    let totals = Totals { wasted_memory: Bytes(308 * 4096), ..totals() };
    Report { memory: Some(memory()), totals, ..report() }
}

/// A root below `/home`.
pub fn root(id: u32, name: &str) -> RootSummary {
    RootSummary {
        id: RootId(id),
        path: HostPath::from(format!("/home/{name}")),
        name: name.to_owned(),
        runtime: Runtime::Directory,
        state: RootState::Stopped,
        layer: false,
        files: 9_000,
        elf_files: 400,
        apparent: Bytes(226_000_000),
        dangling: vec![RootPath::new("bin/vi")],
    }
}

/// busybox-static of Debian 12, once in each root.
pub fn busybox() -> Group {
    Group {
        content: ContentId([0x1f; 32]),
        name: "busybox".to_owned(),
        kind: GroupKind::Multicall(Family::Busybox),
        version: Some("1.35.0".to_owned()),
        elf: Some(Box::new(elf(Linkage::Static))),
        applets: ["cat", "ls", "sh"].map(str::to_owned).to_vec(),
        size: Bytes(1_982_256),
        inodes: 2,
        physical_copies: 2,
        wasted: Bytes(1_982_464),
        copies: vec![copy(0, "bin/busybox"), copy(1, "bin/busybox")],
    }
}

fn library() -> Group {
    Group {
        content: ContentId([0x2a; 32]),
        name: "libc.so.6".to_owned(),
        kind: GroupKind::Elf,
        version: None,
        elf: Some(Box::new(ElfFacts { sections: None, ..elf(Linkage::SharedObject) })),
        applets: Vec::new(),
        wasted: Bytes(0),
        physical_copies: 1,
        copies: vec![plain(copy(0, "lib/libc.so.6")), plain(copy(1, "lib/libc.so.6"))],
        ..busybox()
    }
}

fn file() -> Group {
    let hostile = FileCopy { path: RootPath::new(b"etc/\xff\x1b[31m"), ..copy(1, "") };
    Group {
        content: ContentId([0x3b; 32]),
        name: "\x1b[31m<b>&\"".to_owned(),
        kind: GroupKind::File,
        elf: None,
        version: None,
        copies: vec![plain(copy(0, "etc/motd")), plain(hostile)],
        ..library()
    }
}

fn copy(root: u32, path: &str) -> FileCopy {
    FileCopy {
        root: RootId(root),
        path: RootPath::new(path),
        inode: InodeId { dev: 2049, ino: 100 + u64::from(root) },
        nlink: 1,
        allocated: Bytes(1_982_464),
        others: Some(Box::new(OtherNames {
            links: vec![RootPath::new("bin/ls"), RootPath::new("bin/sh")],
            unknown_applets: vec![RootPath::new("bin/frobnicate")],
        })),
    }
}

fn plain(copy: FileCopy) -> FileCopy {
    FileCopy { others: None, ..copy }
}

fn elf(linkage: Linkage) -> ElfFacts {
    ElfFacts {
        class: ElfClass::Elf64,
        endian: Endian::Little,
        machine: 62,
        kind: ElfType::Executable,
        linkage,
        interpreter: None,
        needed: vec![b"libm.so.6".to_vec()],
        soname: None,
        runpath: Vec::new(),
        build_id: Some(vec![0xab, 0x0c]),
        loads: Vec::new(),
        relro: Bytes(0),
        textrel: false,
        segments: SegmentPages { ro: Pages(480), rx: Pages(388), cow: Pages(7), anon: Pages(8) },
        sections: Some(SectionSums {
            text: Bytes(1_955_414),
            data: Bytes(16_848),
            bss: Bytes(34_624),
        }),
    }
}

fn tree() -> Tree {
    Tree {
        path: RootPath::new("usr/share/zoneinfo"),
        roots: vec![RootId(0), RootId(1)],
        on_host: true,
        files: 1_200,
        size: Bytes(3_400_000),
        wasted: Bytes(9_800_000),
        digest: ContentId([0x77; 32]),
    }
}

fn totals() -> Totals {
    Totals {
        roots: 2,
        files: 18_000,
        elf_files: 800,
        groups: 3,
        wasted_disk: Bytes(1_982_464),
        wasted_trees: Bytes(9_800_000),
        wasted_memory: Bytes(0),
    }
}

fn memory() -> MemoryReport {
    let file = PageCounts { mapped: Pages(924), resident: Pages(616), ideal: Pages(308) };
    let totals = MemoryTotals {
        resident: Pages(616),
        ideal: Pages(308),
        wasted: Pages(308),
        wasted_bytes: Bytes(308 * 4096),
        anonymous: Pages(2),
    };
    MemoryReport {
        method: MemoryMethod::Pfn,
        binaries: vec![BinaryMemory {
            content: Some(ContentId([0x1f; 32])),
            build_id: Some(vec![0xab, 0x0c]),
            name: "busybox".to_owned(),
            version: Some("1.35.0".to_owned()),
            inodes: 2,
            objects: 2,
            processes: 6,
            containers: 2,
            file,
            text: file,
            cached: Pages(968),
            cached_wasted: Pages(484),
            pending_restart: 0,
        }],
        containers: vec![container("web"), container("db")],
        processes: vec![ProcessMemory {
            pid: 4711,
            comm: "sh".to_owned(),
            container: 0,
            text: Pages(308),
            private: Pages(0),
            container_shared: Pages(308),
            shared: Pages(0),
            anonymous: Pages(2),
        }],
        mapped: Vec::new(),
        processes_seen: 6,
        processes_skipped: 0,
        totals,
        complete: true,
        notices: Notices::default(),
    }
}

fn container(name: &str) -> ContainerMemory {
    ContainerMemory {
        name: name.to_owned(),
        runtime: Runtime::Nspawn,
        root: Some(HostPath::from(format!("/home/{name}"))),
        processes: 3,
        user_namespace: UserNamespace::Host,
        privileged: true,
        text: Pages(308),
        shared: Pages(0),
        private: Pages(308),
        duplicated: Pages(308),
    }
}

/// A plan with a step of every kind, and names that are not UTF-8.
pub fn plan() -> Plan {
    let content = ContentId([0x1f; 32]);
    let object = ObjectName::new("busybox", "x86_64", content);
    let target = ContainerPath(format!("/cbin/{object}").into());
    let before = FileState { ino: 7, size: Bytes(1_982_256), mtime: 5, mode: 0o100_755, content };
    let (of_root, of, of_state) = (RootId(1), RootPath::new("bin/busybox"), before);
    let path = |path: &str| RootPath::new(path);
    let actions = vec![
        Action::Store { source: path("bin/busybox"), content, size: Bytes(1_982_256) },
        Action::Mount(mount()),
        Action::Replace { path: path("bin/busybox"), before, target: target.clone() },
        Action::Relink {
            path: path("bin/ls"),
            before: b"bus\xff".to_vec(),
            target: target.clone(),
        },
        Action::Link { path: RootPath::new(b"bin/\xff\x1b[2J"), target: target.clone() },
        Action::Reflink { path: path("lib/a"), before, of_root, of: of.clone(), of_state },
        Action::Hardlink { path: path("lib/b"), before, of_root, of, of_state, of_names: 1 },
        Action::Bind { path: path("bin/c"), before },
        Action::RemoveTree {
            path: path("usr/share/zoneinfo"),
            digest: content,
            files: 900,
            target,
        },
    ];
    let steps = (0..).zip(actions).map(|(seq, action)| {
        let object = (!matches!(action, Action::Mount(_))).then(|| object.clone());
        Step { seq, root: RootId(0), action, object }
    });
    let roots = [root(0, "web"), root(1, "db")].map(|root| PlannedRoot {
        id: root.id,
        path: root.path,
        ino: 2,
        name: root.name,
        runtime: root.runtime,
        state: root.state,
    });
    Plan {
        settings: settings(),
        roots: roots.to_vec(),
        steps: steps.collect(),
        skips: vec![Skip {
            root: RootId(1),
            path: RootPath::new(b"bin/su\xff"),
            reason: SkipReason::Setid,
            explanation: "it would lose the bit".to_owned(),
        }],
        saves: Saves { disk: Bytes(1_982_464), memory: Bytes(0) },
        notices: Notices::default(),
    }
}

fn settings() -> PlanSettings {
    PlanSettings {
        select: Select::Multicall,
        method: Method::Symlink,
        store: HostPath::from("/home/cbin"),
        store_format: StoreFormat::Dir,
        mount_point: ContainerPath("/cbin".into()),
        applets: Applets::Auto,
        live: false,
        include_setid: false,
        trust_domain: Some("own".to_owned()),
    }
}

/// The store's mount by a file of ours.
pub fn mount() -> MountPlan {
    MountPlan {
        means: MountMeans::Nspawn,
        why: "web.service starts it".to_owned(),
        binds: vec![Bind {
            source: HostPath::from("/home/cbin"),
            target: ContainerPath("/cbin".into()),
        }],
        config: vec![ConfigChange {
            file: HostPath::from("/etc/systemd/nspawn/web.nspawn"),
            before: None,
            after: Some(b"[Files]\n\xff".to_vec()),
        }],
        live: true,
        restart: Some("systemctl restart 'web.service'".to_owned()),
        advice: vec!["restart it".to_owned()],
    }
}
