//! The scheduler: alone, as a whole with a master that is made up, and for real with Docker, health checks and HAProxy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Number, Target, containers};
use crate::progress::{Pulse, stream};
use crate::services::{self, Addresses, Service};
use crate::{Checkout, Profile, http, machine, setup};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Load while the app is replaced, in seconds.
const LOAD_SECONDS: u64 = 40;

/// The first two print their own numbers.
pub(super) fn run(checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let example = |package: &str, name: &str| {
        let mut command = machine::cargo();
        command.current_dir(checkout.root()).args(["run", "--release", "--package", package, "--example", name, "--"]);
        command
    };
    stream("measuring the scheduler's core", &mut example("scheduler", "scale"))?;
    let mut whole = example("edge-marathon", "bench");
    if scale_down > 1 {
        whole.arg(scale_down.to_string());
    }
    stream("measuring a whole Marathon", &mut whole)?;
    real(checkout)
}

struct Cluster {
    marathon: SocketAddr,
    http_port: u16,
    directory: TempDir,
    // Stopped in this order.
    _balancer: Service,
    _probe: Service,
    _control: Service,
}

/// Five Docker instances with health checks, and their replacement under load behind HAProxy.
fn real(checkout: &Checkout) -> Result<Vec<Number>> {
    setup::tools(checkout, &[setup::BUSYBOX, setup::DOCKER, setup::HAPROXY, setup::WRK])?;
    crate::test::docker::start(checkout)?;
    containers::image()?;
    let mut build = machine::cargo();
    stream(
        "building the load balancer",
        build.current_dir(checkout.root()).args(["build", "--release", "--package", "lb", "--example", "lb"]),
    )?;
    let cluster = Cluster::start(checkout)?;
    let begun = Instant::now();
    let created = http::send(cluster.marathon, "POST", "/v2/apps", Some(&app("one")))?;
    if created.status != 201 {
        bail!("the app was answered with {}: {}", created.status, created.text());
    }
    cluster.until("five healthy instances", |app| app["tasksHealthy"] == 5)?;
    let healthy = begun.elapsed();
    cluster.until("nothing being deployed", |app| app["deployments"].as_array().is_some_and(Vec::is_empty))?;
    cluster.balanced()?;
    let (requests, failed, took) = cluster.replaced_under_load()?;
    http::send(cluster.marathon, "DELETE", "/v2/apps/bench?force=true", None)?;
    cluster.until_gone()?;
    Ok(vec![
        Number::new(
            "5 Docker instances with HTTP health checks, from POST to all healthy",
            healthy.as_secs_f64(),
            "s",
            Target::Under(10.0),
        ),
        Number::new("requests lost of those below, while all five were replaced", super::float(failed), "", Target::Exactly(0.0)),
        Number::new("  requests answered meanwhile, through HAProxy", super::float(requests), "", Target::Stated),
        Number::new("  until all five were replaced", took.as_secs_f64(), "s", Target::Under(super::float(LOAD_SECONDS))),
    ])
}

/// Serves one page; ends politely a moment after it is told to.
fn app(version: &str) -> Value {
    let serve = format!("/bin/busybox mkdir -p /www; echo {version} > /www/index.html; exec /bin/busybox httpd -f -p 80 -h /www");
    json!({
        "id": "/bench", "instances": 5, "cpus": 0.1, "mem": 32, "args": ["/bin/busybox", "sh", "-c", serve],
        "container": {
            "type": "DOCKER", "docker": {"image": containers::IMAGE, "forcePullImage": false},
            "portMappings": [{"containerPort": 80, "hostPort": 0}]
        },
        "networks": [{"mode": "container/bridge"}],
        "healthChecks": [{"protocol": "HTTP", "path": "/", "portIndex": 0, "intervalSeconds": 1, "gracePeriodSeconds": 30, "timeoutSeconds": 5}],
        "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 0.4},
        "taskKillGracePeriodSeconds": 5,
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "bench.example.org"}
    })
}

fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Cluster {
    fn start(checkout: &Checkout) -> Result<Cluster> {
        let _alive = Pulse::start("starting a control plane, an agent and HAProxy");
        let directory = TempDir::with_prefix("orchestrator-").context("cannot make a temporary directory")?;
        let at = |name: &str| directory.path().join(name);
        let addresses = Addresses::free()?;
        let (mesos, marathon, agent, http_address) = (free()?, free()?, free()?, free()?);
        let mut command = Command::new(checkout.binary(Profile::Release, "orchestrator-control"));
        command.arg("--data-dir").arg(directory.path()).args(["--http-address", &addresses.http.to_string()]);
        command.args(["--grpc-address", &addresses.grpc.to_string(), "--mesos-address", &mesos.to_string()]);
        command.args(["--marathon-address", &marathon.to_string(), "--marathon-flags", "--enable_features=task_killing"]);
        let control = Service::start("orchestrator-control", command, &at("control.log"))?;
        wait("the control plane", || services::is_ready(addresses.http))?;
        let mut command = addresses.probe(&checkout.binary(Profile::Release, "orchestrator-probe"));
        command.args(["--roles", "observe,run", "--agent-address", &agent.to_string(), "--no-cloud-metadata"]);
        command.args(["--resources", "cpus:4;mem:4096;disk:4096;ports:[28000-28500]", "--cgroups-root", "orchestrator-bench"]);
        command.arg("--work-dir").arg(at("work")).arg("--runtime-dir").arg(at("run"));
        let probe = Service::start("orchestrator-probe", command, &at("probe.log"))?;
        wait("the agent", || {
            let agents = http::get_json(mesos, "/slaves");
            agents.is_ok_and(|it| it["slaves"].as_array().is_some_and(|all| all.iter().any(|it| it["active"] == true)))
        })?;
        let balancer = balancer(checkout, directory.path(), marathon, http_address.port())?;
        Ok(Cluster { marathon, http_port: http_address.port(), directory, _balancer: balancer, _probe: probe, _control: control })
    }

    fn app(&self) -> Result<Value> {
        Ok(http::get_json(self.marathon, "/v2/apps/bench")?["app"].take())
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        wait(what, || self.app().is_ok_and(|app| holds(&app)))
    }

    fn until_gone(&self) -> Result<()> {
        wait("the app's end", || http::get_json(self.marathon, "/v2/deployments").is_ok_and(|it| it.as_array().is_some_and(Vec::is_empty)))
    }

    /// Waits until HAProxy has all five.
    fn balanced(&self) -> Result<()> {
        let file = self.directory.path().join("haproxy.cfg");
        wait("five servers in HAProxy's configuration", || {
            fs::read_to_string(&file).is_ok_and(|text| text.lines().filter(|it| it.starts_with("  server ")).count() == 5)
        })?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Requests, lost ones, and how long it took until all five were others.
    fn replaced_under_load(&self) -> Result<(u64, u64, Duration)> {
        let url = format!("http://127.0.0.1:{}/", self.http_port);
        let mut load = Command::new("wrk");
        load.args(["-t1", "-c20", &format!("-d{LOAD_SECONDS}s"), "--timeout", "10s", "-H", "Host: bench.example.org", &url]);
        let load = load.stdout(std::process::Stdio::piped()).spawn().context("cannot start wrk")?;
        std::thread::sleep(Duration::from_secs(3));
        let begun = Instant::now();
        let changed = http::send(self.marathon, "PUT", "/v2/apps/bench", Some(&app("two")))?;
        if changed.status != 200 {
            bail!("the change was answered with {}: {}", changed.status, changed.text());
        }
        let version = changed.json()?["version"].clone();
        self.until("five new instances alone", |app| {
            let tasks = app["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
            tasks.len() == 5 && tasks.iter().all(|it| it["version"] == version) && app["deployments"].as_array().is_some_and(Vec::is_empty)
        })?;
        let took = begun.elapsed();
        let output = load.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (requests, failed) = read_wrk(&text).with_context(|| format!("wrk said: {text}"))?;
        if requests == 0 {
            bail!("nothing was answered: {text}");
        }
        Ok((requests, failed, took))
    }
}

fn balancer(checkout: &Checkout, directory: &Path, marathon: SocketAddr, http_port: u16) -> Result<Service> {
    let mut program: PathBuf = checkout.binary(Profile::Release, "examples");
    program.push("lb");
    let mut command = Command::new(program);
    command.args(["--marathon", &format!("http://{marathon}"), "--group", "external", "--listen", "off"]);
    command.args(["--http-port", &http_port.to_string(), "--https-port", "0", "--app-id-port", "0", "--stats-port", "0"]);
    command.args(["--min-interval", "200", "--drain-seconds", "10"]).arg("--haproxy-config").arg(directory.join("haproxy.cfg"));
    Service::start("lb", command, &directory.join("lb.log"))
}

fn wait(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Requests that were answered, and what went wrong: answers that are no success, and errors of sockets.
fn read_wrk(text: &str) -> Option<(u64, u64)> {
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
    let mut failed = 0;
    for line in text.lines() {
        if let Some(count) = line.trim().strip_prefix("Non-2xx or 3xx responses: ") {
            failed += count.trim().parse::<u64>().ok()?;
        }
        if let Some(rest) = line.trim().strip_prefix("Socket errors: ") {
            let counts = rest.split(", ").filter_map(|it| it.rsplit(' ').next()?.parse::<u64>().ok());
            failed += counts.sum::<u64>();
        }
    }
    Some((requests, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let text = "Running 1s test\n  3 requests in 1.00s, 1MB read\n  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 5\n";
        assert_eq!(read_wrk(text), Some((3, 12)));
        assert_eq!(read_wrk("  17 requests in 1.00s, 1MB read\n"), Some((17, 0)));
        assert_eq!(read_wrk("nothing"), None);
    }
}
