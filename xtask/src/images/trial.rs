//! Runs the images as a user would, and looks that they do their main job: the page and the API from the control plane's, this machine on the map by the
//! probe's, and a task on a node by the agent's.

mod node;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::docker;
use crate::http;
use crate::progress::note;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a container may take to stop, as the manifests allow at least.
const STOP_SECONDS: &str = "15";

/// What the probe's manifest adds.
const CAPABILITIES: [&str; 7] = ["BPF", "PERFMON", "NET_ADMIN", "DAC_READ_SEARCH", "SYS_PTRACE", "SYS_ADMIN", "KILL"];

/// A container that is removed when this value goes.
struct Container(String);

impl Container {
    fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let name = format!("orchestrator-trial-{name}-{}", std::process::id());
        // Made first: what could not be started is left behind otherwise.
        let container = Self(name);
        docker(&[&["run", "--detach", "--name", &container.0], arguments].concat())?;
        Ok(container)
    }

    /// The address at which a port of it is reached from here.
    fn published(&self, port: u16) -> Result<SocketAddr> {
        let text = docker(&["port", &self.0, &port.to_string()])?;
        let line = text.lines().find(|line| !line.starts_with('[')).context("no port is published")?;
        line.parse().with_context(|| format!("{line:?} is no address"))
    }

    /// Asks it to stop; it must end by itself, and well.
    fn stop(&self) -> Result<()> {
        let begun = Instant::now();
        docker(&["stop", "--time", STOP_SECONDS, &self.0])?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.0])?;
        ensure!(code == "0", "{} ended with {code}:\n{}", self.0, self.log());
        note(&format!("{} stopped after {:.1} s", self.0, begun.elapsed().as_secs_f64()));
        Ok(())
    }

    fn log(&self) -> String {
        docker(&["logs", "--tail", "30", &self.0]).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

/// Runs them.
pub(super) fn run(tag: &str) -> Result<()> {
    let image = format!("orchestrator-control:{tag}");
    let user = docker(&["image", "inspect", "--format", "{{.Config.User}}", &image])?;
    ensure!(!user.is_empty() && !user.starts_with('0') && user != "root", "{image} runs as {user:?}");
    // As in the manifests: nothing can be written but the data, no capability, no new rights.
    let confined = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    let publish =
        ["--publish", "127.0.0.1::4040", "--publish", "127.0.0.1::4041", "--publish", "127.0.0.1::5050", "--publish", "127.0.0.1::8080"];
    let control = Container::start("control", &[&confined, publish.as_slice(), &["--volume", "/data", &image]].concat())?;
    let [http, grpc, mesos, marathon] =
        [control.published(4040)?, control.published(4041)?, control.published(5050)?, control.published(8080)?];
    until(&control, "the control plane is ready", || Ok(http::get(http, "/ready")?.status == 200))?;
    let page = http::get(http, "/")?;
    ensure!(page.status == 200 && page.text().contains("<html"), "the page: {}", page.status);
    until(&control, "the master answers", || Ok(http::get(mesos, "/health")?.status == 200))?;
    until(&control, "Marathon answers", || Ok(http::get(marathon, "/v2/info")?.status == 200))?;

    let image = format!("orchestrator-probe:{tag}");
    let address = format!("http://{grpc}");
    // As the manifest has it (deploy/k8s/base/probe.yaml has the reasons). Docker may confine by AppArmor, and its profile denies reading other processes.
    let around = ["--pid=host", "--network=host", "--cgroupns=host", "--read-only", "--cap-drop=ALL", "--security-opt=apparmor=unconfined"];
    let mounts = ["--volume", "/sys/kernel/tracing:/sys/kernel/tracing", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro"];
    let socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock"];
    let machine = Path::new("/etc/machine-id").exists().then_some("--volume=/etc/machine-id:/etc/machine-id:ro");
    let mut told = vec![image.as_str(), "--control-plane", &address, "--admin-address", "off", "--no-cloud-metadata"];
    if machine.is_none() {
        told.extend(["--probe-id", "trial"]);
    }
    let start = |capabilities: &[&str]| {
        let capabilities: Vec<String> = capabilities.iter().map(|it| format!("--cap-add={it}")).collect();
        let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).chain(machine).collect();
        Container::start("probe", &[around.as_slice(), &capabilities, &mounts, &socket, &told].concat())
    };
    let probe = match start(&CAPABILITIES) {
        // Engines before 20.10.13 do not know the names of the two that were cut out of SYS_ADMIN, which has both.
        Err(error) if error.to_string().contains("unknown capability") => start(&CAPABILITIES[2..])?,
        other => other?,
    };
    until(&probe, "a probe is connected", || {
        let probes = http::get_json(http, "/api/v1/probes")?;
        Ok(probes["probes"].as_array().is_some_and(|probes| probes.iter().any(|probe| probe["connected"] == true)))
    })?;
    // This very process, which the probe sees from within its container, and the two containers themselves.
    let own = std::process::id().to_string();
    until(&probe, "this process is on the map", || Ok(has_node(&http::get_json(http, "/api/topology/processes?unconnected=show")?, &own)))?;
    until(&probe, "the control plane's container is on the map", || {
        Ok(http::get_json(http, "/api/topology/containers")?["nodes"].to_string().contains(&control.0))
    })?;
    let probes = http::get_json(http, "/api/v1/probes")?;
    note(&format!("the probe sees by {}", probes["probes"][0]["capture"]["description"]));
    probe.stop()?;
    node::run(tag, grpc, mesos, marathon)?;
    control.stop()
}

/// Whether a view has a node of this process.
fn has_node(view: &Value, pid: &str) -> bool {
    view["nodes"].as_object().is_some_and(|nodes| nodes.keys().any(|id| id.rsplit(';').next() == Some(pid)))
}

fn until(container: &Container, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = format!("{error:#}"),
        }
        if docker(&["inspect", "--format", "{{.State.Running}}", &container.0])? != "true" {
            bail!("{} ended:\n{}", container.0, container.log());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("not within {} s: {what}; {last}\n{}", PATIENCE.as_secs(), container.log())
}
