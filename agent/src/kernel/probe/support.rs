//! Which controls this node can enforce, and why not the others.

use std::collections::BTreeSet;
use std::fmt;

use bulkhead_core::{Control, Controller};

use super::mounts::Cgroup2Mount;

/// Who has the controllers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ControllerFacts {
    /// cgroup.controllers at the root of the cgroup v2 mount.
    pub available: BTreeSet<String>,
    /// Names, as v1 has them, of controllers that cgroup v1 holds.
    pub bound_to_v1: BTreeSet<String>,
    /// Names, as v1 has them, that the kernel's command line disables.
    pub disabled: BTreeSet<String>,
    /// Whether iocost is on for any block device.
    pub io_cost: bool,
}

/// Whether a control can be enforced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlSupport {
    /// The control.
    pub control: Control,
    /// Or the reason why not.
    pub result: Result<(), String>,
}

/// "memory.max           yes" or "memory.max           no: memory: controller is bound to …"
impl fmt::Display for ControlSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = self.control.file();
        match &self.result {
            Ok(()) => write!(f, "{control:<22} yes"),
            Err(reason) => write!(f, "{control:<22} no: {reason}"),
        }
    }
}

/// Judges every control. `root_files`: see [`super::Probe::controls`]; without it, files that
/// appear only below the root are taken for granted.
pub fn controls(
    mount: Option<&Cgroup2Mount>,
    controllers: &ControllerFacts,
    root_files: Option<&BTreeSet<String>>,
) -> Vec<ControlSupport> {
    let judge = |control: Control| ControlSupport {
        control,
        result: judge(control, mount, controllers, root_files),
    };
    Control::ALL.into_iter().map(judge).collect()
}

fn judge(
    control: Control,
    mount: Option<&Cgroup2Mount>,
    controllers: &ControllerFacts,
    root_files: Option<&BTreeSet<String>>,
) -> Result<(), String> {
    let Some(mount) = mount else {
        return Err("cgroup v2 is not mounted".to_owned());
    };
    if let Some(controller) = control.controller() {
        available(controller, mount, controllers)?;
    }
    if let Some(files) = root_files
        && !files.contains(control.file())
    {
        return Err(absent(control));
    }
    if control == Control::IoWeight && !controllers.io_cost {
        return Err(
            "io.weight: iocost is on for no block device of this node (io.cost.qos), so a weight \
             has no effect"
                .to_owned(),
        );
    }
    Ok(())
}

fn available(
    controller: Controller,
    mount: &Cgroup2Mount,
    facts: &ControllerFacts,
) -> Result<(), String> {
    if facts.available.contains(controller.name()) {
        return Ok(());
    }
    let v1 = if controller == Controller::Io { "blkio" } else { controller.name() };
    if facts.bound_to_v1.contains(v1) {
        return Err(format!("{controller}: controller is bound to cgroup v1"));
    }
    if facts.disabled.contains(v1) {
        return Err(format!(
            "{controller}: controller is disabled on the kernel's command line (cgroup_disable=)"
        ));
    }
    let mount = mount.mount_point.display();
    Err(format!("{controller}: controller is not in cgroup.controllers of {mount}"))
}

fn absent(control: Control) -> String {
    let why = match (control, control.controller()) {
        (Control::IoWeight, _) => "no iocost or bfq on this node".to_owned(),
        (_, Some(controller)) => format!("the {controller} controller is not enabled for our root"),
        (_, None) => "our root is the root of the hierarchy".to_owned(),
    };
    format!("{control}: file is absent: {why}")
}
