//! The store becomes visible in the roots of a run.

use std::path::{Path, PathBuf};

use super::Applying;
use crate::exec::error::ExecError;
use crate::exec::surroundings::{self, inside};
use crate::exec::{config, mount};
use crate::model::{
    Action, ConfigChange, Ended, HostPath, MountMeans, MountPlan, Outcome, Plan, Record, Step,
};

/// A mount, and what the journal says of its mount points.
type Announced<'a> = (&'a Step, &'a MountPlan, Result<Vec<Record>, String>);

impl<'a> Applying<'a> {
    /// Makes the store visible in each root, before anything leads to it.
    pub(super) fn mounts(&mut self) -> Result<(), ExecError> {
        let mut host = false;
        let mut changes = Vec::new();
        for (step, mount, announced) in self.announce()? {
            host |= mount.means != MountMeans::None;
            changes.push(&mount.config);
            let mounted = match announced {
                Ok(announced) => self.mount(step, mount, &announced)?,
                Err(cause) => Err(cause),
            };
            if let Err(cause) = mounted {
                let left = Ended {
                    steps: vec![step.seq],
                    outcome: Outcome::RolledBack,
                    cause: Some(cause.clone()),
                };
                self.journal.append(&Record::Ended(vec![left]))?;
                self.dead.push((step.root, cause));
            }
        }
        if host {
            self.host_link()?;
        }
        let changes: Vec<ConfigChange> = changes.into_iter().flatten().cloned().collect();
        if let Err(error) = config::reload(&changes) {
            // The files are in place: the next start of systemd reads them.
            self.done.advice.push(error.to_string());
        }
        let complaints = config::verify(&changes).into_iter();
        self.done.advice.extend(complaints.map(|words| format!("systemd-analyze verify: {words}")));
        Ok(())
    }

    /// Writes to the journal, at once for all roots, which mount points are going to be made
    /// and used.
    fn announce(&mut self) -> Result<Vec<Announced<'a>>, ExecError> {
        let (mut all, mut records) = (Vec::new(), Vec::new());
        let plan: &'a Plan = self.plan;
        for step in &plan.steps {
            let Action::Mount(mount) = &step.action else { continue };
            let root = self.roots.opened(step.root);
            let announced = root.and_then(|root| mount::announce(step, mount, root));
            records.extend(announced.iter().flatten().cloned());
            all.push((step, mount, announced));
        }
        self.journal.append_all(&records)?;
        Ok(all)
    }

    fn mount(
        &mut self,
        step: &Step,
        mount: &MountPlan,
        announced: &[Record],
    ) -> Result<Result<(), String>, ExecError> {
        let root = match self.roots.opened(step.root) {
            Ok(root) => root,
            Err(why) => return Ok(Err(why)),
        };
        mount::carry_out(step, mount, (root, announced), &mut self.journal)
    }

    /// `/cbin -> home/cbin`, as on the host of the containers.
    fn host_link(&mut self) -> Result<(), ExecError> {
        use std::os::unix::ffi::OsStrExt as _;
        let settings = &self.plan.settings;
        let link = self.options.host.join(inside(&settings.mount_point.0).as_path());
        let store = settings.store_format.shown(&settings.store).0;
        let target = match link.parent() == Some(Path::new("/")) {
            true => store.strip_prefix("/").unwrap_or(&store).to_owned(),
            false => store.clone(),
        };
        let target: PathBuf = target;
        surroundings::host_link(
            &HostPath::from(link),
            target.as_os_str().as_bytes(),
            &mut self.journal,
        )?;
        Ok(())
    }
}
