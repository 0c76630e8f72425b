//! Many idle containers, so that the probe has something to know while it is measured.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress::Pulse;
use crate::{Checkout, machine, setup};

/// The image's name.
pub(super) const IMAGE: &str = "orchestrator-bench:busybox";
/// The label that tells our containers.
const LABEL: &str = "orchestrator.bench=1";

/// Containers that are removed when this value goes.
pub(super) struct Containers {
    ids: Vec<String>,
}

impl Containers {
    /// Starts so many that sleep.
    pub(super) fn start(checkout: &Checkout, count: u64) -> Result<Self> {
        setup::tools(checkout, &[setup::BUSYBOX, setup::DOCKER])?;
        crate::test::docker::start(checkout)?;
        image()?;
        let _alive = Pulse::start(&format!("starting {count} containers"));
        let mut containers = Self { ids: Vec::new() };
        for _ in 0..count {
            containers.ids.push(start_one()?);
        }
        Ok(containers)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let _alive = Pulse::start("removing the containers");
        for some in self.ids.chunks(20) {
            let mut arguments = vec!["rm", "--force"];
            arguments.extend(some.iter().map(String::as_str));
            // They are labelled; what stays behind can be found.
            let _ = docker(&arguments);
        }
    }
}

/// Starts one that sleeps; its id.
pub(super) fn start_one() -> Result<String> {
    docker(&["run", "--detach", "--rm", "--init=false", "--label", LABEL, IMAGE, "/bin/busybox", "sleep", "3600"])
}

/// An image with busybox and nothing else.
pub(super) fn image() -> Result<()> {
    if docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]).is_ok() {
        return Ok(());
    }
    let busybox = machine::program("busybox").context("busybox is not installed")?;
    let script = format!(
        "set -e; d=$(mktemp -d); trap 'rm -rf $d' EXIT; mkdir $d/bin; cp {} $d/bin/busybox; tar -C $d -c . | docker import - {IMAGE}",
        busybox.display()
    );
    let status = machine::as_root("sh").args(["-c", &script]).stdout(std::process::Stdio::null()).status()?;
    if !status.success() {
        bail!("the image for the containers could not be made");
    }
    Ok(())
}

/// Runs docker; what it printed.
pub(super) fn docker(arguments: &[&str]) -> Result<String> {
    let mut command: Command = machine::as_root("docker");
    let output = command.args(arguments).output().context("cannot start docker")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.first().unwrap_or(&""), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
