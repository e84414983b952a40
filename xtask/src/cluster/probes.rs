//! A pod that asks again and again, while something happens to the programs that judge it.

use anyhow::{Result, ensure};

use super::install::{Installed, TEAMS};
use super::pods::Pod;

/// Asks a pod of its own, and one of another virtual cluster, until a file is there; a line each.
/// What is refused is lost at once; what is dropped for a moment TCP makes up for, so this shows no
/// gap of less than its patience. A runtime that starts keeps an emulated node busy for ten seconds.
const LOOP: &str = "rm -f /tmp/stop /tmp/probes; setsid sh -c 'while [ ! -e /tmp/stop ]; do \
                    if wget -q -T 20 -O /dev/null http://OWN:8080/; then echo own; else echo LOST; fi; \
                    if wget -q -T 2 -O /dev/null http://OTHER:8080/; then echo REACHED; else echo refused; fi; \
                    sleep 0.2; done >/tmp/probes 2>/dev/null' >/dev/null 2>&1 </dev/null &";

/// One that runs, in a pod of the first team on each node.
pub(super) struct Probes<'a> {
    on: &'a Installed<'a>,
    pods: Vec<Pod>,
}

impl<'a> Probes<'a> {
    /// Starts it in a pod of each node: its own is on another node where there are two, and so is
    /// the other's.
    pub(super) fn start(on: &'a Installed<'a>) -> Result<Self> {
        let (pods, others) = (on.web(TEAMS[0])?, on.web(TEAMS[1])?);
        for (number, pod) in pods.iter().enumerate() {
            let next = (number + 1) % pods.len();
            let script =
                LOOP.replace("OWN", &pods[next].address).replace("OTHER", &others[next].address);
            pod.exec(on.cluster, &["sh", "-c", &script])?;
        }
        Ok(Self { on, pods })
    }

    /// Ends it: its own was always reached, the other never, and that was asked at least `often`
    /// times from each node.
    pub(super) fn end(self, often: usize) -> Result<()> {
        for pod in &self.pods {
            let said =
                pod.exec(self.on.cluster, &["sh", "-c", "touch /tmp/stop; cat /tmp/probes"])?;
            let count = |word: &str| said.lines().filter(|line| *line == word).count();
            let [own, lost, refused, reached] = ["own", "LOST", "refused", "REACHED"].map(count);
            ensure!(
                lost == 0 && reached == 0,
                "on {}: of {own} requests to its own {lost} were lost, and {reached} of {refused} \
                 to another's came through",
                pod.node,
                own = own + lost,
                refused = refused + reached
            );
            ensure!(own >= often && refused >= often, "on {} only {own} were made", pod.node);
        }
        Ok(())
    }
}
