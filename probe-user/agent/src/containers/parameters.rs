//! Docker's command-line options, as frameworks give them in `parameters`: the daemon's API has the same things under other names.
//!
//! Decides nothing and asks nobody; only files that an option names are read.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy, ThrottleDevice,
};

mod notation;

pub(super) use notation::port;
use notation::{bytes, gpus, mount, nanoseconds, published};

/// What the daemon is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// To be made.
    pub(super) body: ContainerCreateBody,
    /// Its part about the host.
    pub(super) host: HostConfig,
    /// What the container is in its network.
    pub(super) endpoint: EndpointSettings,
    /// Which of an image's platforms is meant, where it is not the daemon's own.
    pub(super) platform: Option<String>,
    /// When the image is pulled.
    pub(super) pull: Pull,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pull {
    /// Where it is not here.
    #[default]
    Missing,
    /// Whether it is here or not.
    Always,
    /// It has to be here.
    Never,
}

impl Asked {
    /// Takes `--key=value`. Files are looked for in the sandbox.
    ///
    /// # Errors
    /// When the option is not known or not possible, or its value is not one.
    pub(super) fn apply(&mut self, key: &str, value: &str, sandbox: &Path) -> Result<(), String> {
        let refused = |problem: &str| format!("Failed to create docker run options: {problem}");
        let wrong = || refused(&format!("--{key}={value} is not understood"));
        let truth = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong()),
        };
        let number = || value.parse::<i64>().map_err(|_| wrong());
        let lines = || {
            let path = sandbox.join(value);
            let text = std::fs::read_to_string(&path).map_err(|error| refused(&format!("{} cannot be read: {error}", path.display())))?;
            let is_said = |it: &&str| !it.trim().is_empty() && !it.trim_start().starts_with('#');
            Ok::<_, String>(text.lines().filter(is_said).map(|it| it.trim_start().to_owned()).collect::<Vec<_>>())
        };
        let Asked { body, host, endpoint, platform, pull } = self;
        match key {
            "env" | "e" => push(&mut body.env, value),
            // One without a value is taken from an environment that is not the task's; there is none.
            "env-file" => lines()?.iter().filter(|it| it.contains('=')).for_each(|it| push(&mut body.env, it)),
            "label" | "l" => insert(&mut body.labels, value),
            "label-file" => lines()?.iter().for_each(|it| insert(&mut body.labels, it)),
            "annotation" => insert(&mut host.annotations, value),
            "hostname" | "h" => body.hostname = Some(value.to_owned()),
            "domainname" => body.domainname = Some(value.to_owned()),
            "user" | "u" => body.user = Some(value.to_owned()),
            "workdir" | "w" => body.working_dir = Some(value.to_owned()),
            "entrypoint" => body.entrypoint = Some(vec![value.to_owned()]),
            "stop-signal" => body.stop_signal = Some(value.to_owned()),
            "stop-timeout" => body.stop_timeout = Some(number()?),
            "tty" | "t" => body.tty = Some(truth()?),
            "interactive" | "i" => body.open_stdin = Some(truth()?),
            "expose" => push(&mut body.exposed_ports, &port(value)),
            "volume" | "v" => push(&mut host.binds, value),
            "volume-driver" => host.volume_driver = Some(value.to_owned()),
            "mount" => host.mounts.get_or_insert_with(Vec::new).push(mount(value).ok_or_else(wrong)?),
            "volumes-from" => push(&mut host.volumes_from, value),
            "net" | "network" if value.contains('=') => {
                let mut name = None;
                for field in notation::fields(value).ok_or_else(wrong)? {
                    match field.split_once('=').ok_or_else(wrong)? {
                        ("name", it) => name = Some(it.to_owned()),
                        ("alias", it) => push(&mut endpoint.aliases, it),
                        ("ip", it) => addresses(endpoint).ipv4_address = Some(it.to_owned()),
                        ("ip6", it) => addresses(endpoint).ipv6_address = Some(it.to_owned()),
                        ("link-local-ip", it) => push(&mut addresses(endpoint).link_local_ips, it),
                        ("mac-address", it) => endpoint.mac_address = Some(it.to_owned()),
                        ("driver-opt", it) => insert(&mut endpoint.driver_opts, it),
                        _ => return Err(wrong()),
                    }
                }
                host.network_mode = Some(name.ok_or_else(wrong)?);
            }
            "net" | "network" => host.network_mode = Some(value.to_owned()),
            "net-alias" | "network-alias" => push(&mut endpoint.aliases, value),
            "ip" => addresses(endpoint).ipv4_address = Some(value.to_owned()),
            "ip6" => addresses(endpoint).ipv6_address = Some(value.to_owned()),
            "link-local-ip" => push(&mut addresses(endpoint).link_local_ips, value),
            "mac-address" => endpoint.mac_address = Some(value.to_owned()),
            "publish" | "p" => {
                for (inside, binding) in published(value).ok_or_else(wrong)? {
                    let exposed = body.exposed_ports.get_or_insert_with(Vec::new);
                    if !exposed.contains(&inside) {
                        exposed.push(inside.clone());
                    }
                    let bindings = host.port_bindings.get_or_insert_with(HashMap::new).entry(inside).or_default();
                    bindings.get_or_insert_with(Vec::new).push(binding);
                }
            }
            "add-host" => push(&mut host.extra_hosts, value),
            "dns" => push(&mut host.dns, value),
            "dns-search" => push(&mut host.dns_search, value),
            "dns-opt" | "dns-option" => push(&mut host.dns_options, value),
            "link" => push(&mut host.links, value),
            "cap-add" => push(&mut host.cap_add, value),
            "cap-drop" => push(&mut host.cap_drop, value),
            "security-opt" => push(&mut host.security_opt, value),
            "group-add" => push(&mut host.group_add, value),
            "ipc" => host.ipc_mode = Some(value.to_owned()),
            "pid" => host.pid_mode = Some(value.to_owned()),
            "uts" => host.uts_mode = Some(value.to_owned()),
            "cgroupns" => {
                host.cgroupns_mode = Some(match value {
                    "host" => HostConfigCgroupnsModeEnum::HOST,
                    "private" => HostConfigCgroupnsModeEnum::PRIVATE,
                    _ => return Err(wrong()),
                });
            }
            "userns" => host.userns_mode = Some(value.to_owned()),
            "cgroup-parent" => host.cgroup_parent = Some(value.to_owned()),
            "runtime" => host.runtime = Some(value.to_owned()),
            "init" => host.init = Some(truth()?),
            "privileged" => host.privileged = Some(truth()?),
            "read-only" => host.readonly_rootfs = Some(truth()?),
            "publish-all" | "P" => host.publish_all_ports = Some(truth()?),
            "oom-kill-disable" => host.oom_kill_disable = Some(truth()?),
            "rm" => host.auto_remove = Some(false),
            "oom-score-adj" => host.oom_score_adj = Some(number()?),
            "pids-limit" => host.pids_limit = Some(number()?),
            "cpus" => {
                host.nano_cpus = Some(nano_cpus(value).ok_or_else(wrong)?);
                // Both say the same in different words, and the daemon takes one of them.
                (host.cpu_period, host.cpu_quota) = (None, None);
            }
            "cpu-rt-period" => host.cpu_realtime_period = Some(number()?),
            "cpu-rt-runtime" => host.cpu_realtime_runtime = Some(number()?),
            "gpus" => host.device_requests.get_or_insert_with(Vec::new).push(gpus(value).ok_or_else(wrong)?),
            "cpu-shares" | "c" => host.cpu_shares = Some(number()?),
            "cpu-period" => host.cpu_period = Some(number()?),
            "cpu-quota" => host.cpu_quota = Some(number()?),
            "cpuset-cpus" => host.cpuset_cpus = Some(value.to_owned()),
            "cpuset-mems" => host.cpuset_mems = Some(value.to_owned()),
            "blkio-weight" => host.blkio_weight = Some(value.parse().map_err(|_| wrong())?),
            "blkio-weight-device" => {
                let (path, weight) = value.rsplit_once(':').ok_or_else(wrong)?;
                let weight = usize::from(weight.parse::<u16>().map_err(|_| wrong())?);
                let device = ResourcesBlkioWeightDevice { path: Some(path.to_owned()), weight: Some(weight) };
                host.blkio_weight_device.get_or_insert_with(Vec::new).push(device);
            }
            "device-read-bps" | "device-read-iops" | "device-write-bps" | "device-write-iops" => {
                let (path, rate) = value.rsplit_once(':').ok_or_else(wrong)?;
                let rate = if key.ends_with("bps") { bytes(rate) } else { rate.parse().ok() };
                let device = ThrottleDevice { path: Some(path.to_owned()), rate: Some(rate.filter(|it| *it >= 0).ok_or_else(wrong)?) };
                let devices = match key {
                    "device-read-bps" => &mut host.blkio_device_read_bps,
                    "device-read-iops" => &mut host.blkio_device_read_iops,
                    "device-write-bps" => &mut host.blkio_device_write_bps,
                    _ => &mut host.blkio_device_write_iops,
                };
                devices.get_or_insert_with(Vec::new).push(device);
            }
            // The kernel has no such limit any more, and the daemon lets it pass as well.
            "kernel-memory" => drop(bytes(value).ok_or_else(wrong)?),
            "memory" | "m" => host.memory = Some(bytes(value).ok_or_else(wrong)?),
            "memory-swap" => host.memory_swap = Some(if value == "-1" { -1 } else { bytes(value).ok_or_else(wrong)? }),
            "memory-reservation" => host.memory_reservation = Some(bytes(value).ok_or_else(wrong)?),
            "memory-swappiness" => host.memory_swappiness = Some(number()?),
            "shm-size" => host.shm_size = Some(bytes(value).ok_or_else(wrong)?),
            "log-driver" => host.log_config.get_or_insert_with(HostConfigLogConfig::default).typ = Some(value.to_owned()),
            "log-opt" => insert(&mut host.log_config.get_or_insert_with(HostConfigLogConfig::default).config, value),
            "storage-opt" => insert(&mut host.storage_opt, value),
            "sysctl" => insert(&mut host.sysctls, value),
            "tmpfs" => {
                let (path, options) = value.split_once(':').unwrap_or((value, ""));
                host.tmpfs.get_or_insert_with(HashMap::new).insert(path.to_owned(), options.to_owned());
            }
            "device" => {
                let mut parts = value.split(':');
                let on_host = parts.next().filter(|it| !it.is_empty()).ok_or_else(wrong)?;
                let inside = parts.next().unwrap_or(on_host);
                let permissions = parts.next().unwrap_or("rwm");
                host.devices.get_or_insert_with(Vec::new).push(DeviceMapping {
                    path_on_host: Some(on_host.to_owned()),
                    path_in_container: Some(inside.to_owned()),
                    cgroup_permissions: Some(permissions.to_owned()),
                });
            }
            "device-cgroup-rule" => push(&mut host.device_cgroup_rules, value),
            "ulimit" => {
                let (name, limits) = value.split_once('=').ok_or_else(wrong)?;
                let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
                host.ulimits.get_or_insert_with(Vec::new).push(ResourcesUlimits {
                    name: Some(name.to_owned()),
                    soft: Some(soft.parse().map_err(|_| wrong())?),
                    hard: Some(hard.parse().map_err(|_| wrong())?),
                });
            }
            "health-cmd" => health(body)?.test = Some(vec!["CMD-SHELL".to_owned(), value.to_owned()]),
            "health-interval" => health(body)?.interval = Some(nanoseconds(value).ok_or_else(wrong)?),
            "health-timeout" => health(body)?.timeout = Some(nanoseconds(value).ok_or_else(wrong)?),
            "health-start-period" => health(body)?.start_period = Some(nanoseconds(value).ok_or_else(wrong)?),
            "health-start-interval" => health(body)?.start_interval = Some(nanoseconds(value).ok_or_else(wrong)?),
            "health-retries" => health(body)?.retries = Some(number()?),
            "no-healthcheck" => {
                if truth()? {
                    if body.healthcheck.is_some() {
                        return Err(refused(HEALTH_CONFLICT));
                    }
                    body.healthcheck = Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() });
                }
            }
            "platform" => *platform = Some(value.to_owned()),
            "pull" => {
                *pull = match value {
                    "missing" => Pull::Missing,
                    "always" => Pull::Always,
                    "never" => Pull::Never,
                    _ => return Err(wrong()),
                }
            }
            // Of the terminal of whoever types, of registries that sign, and of Windows: nothing here depends on them.
            "sig-proxy" | "disable-content-trust" | "quiet" | "q" => drop(truth()?),
            "detach-keys" => {}
            "isolation" if matches!(value, "" | "default") => {}
            // A task that ends has ended: who starts it again is its framework.
            "restart" if value == "no" => host.restart_policy = Some(RestartPolicy::default()),
            "restart" => return Err(refused("the parameter 'restart' is not allowed: who starts a task again is its framework")),
            "name" => return Err(refused("the parameter 'name' is not allowed: the agent finds its containers by their names")),
            "detach" | "d" | "attach" | "a" | "cidfile" => {
                return Err(refused(&format!("the parameter '{key}' is not allowed: the agent itself follows the container")));
            }
            _ => return Err(refused(&format!("the parameter '{key}' is not supported"))),
        }
        Ok(())
    }
}

const HEALTH_CONFLICT: &str = "--no-healthcheck conflicts with --health-* options";

/// The container's health check, where it is not switched off.
fn health(body: &mut ContainerCreateBody) -> Result<&mut HealthConfig, String> {
    let health = body.healthcheck.get_or_insert_with(HealthConfig::default);
    if health.test.as_ref().is_some_and(|it| it.iter().eq(["NONE"])) {
        return Err(format!("Failed to create docker run options: {HEALTH_CONFLICT}"));
    }
    Ok(health)
}

fn addresses(endpoint: &mut EndpointSettings) -> &mut EndpointIpamConfig {
    endpoint.ipam_config.get_or_insert_with(EndpointIpamConfig::default)
}

/// CPUs such as `1.5`, in billionths.
fn nano_cpus(value: &str) -> Option<i64> {
    let cpus = value.parse::<f64>().ok().filter(|it| (0.0..=1e6).contains(it))?;
    #[expect(clippy::cast_possible_truncation, reason = "in range, by the line above")]
    Some((cpus * 1e9).round() as i64)
}

fn push(list: &mut Option<Vec<String>>, value: &str) {
    list.get_or_insert_with(Vec::new).push(value.to_owned());
}

fn insert(map: &mut Option<HashMap<String, String>>, value: &str) {
    let (name, value) = value.split_once('=').unwrap_or((value, ""));
    map.get_or_insert_with(HashMap::new).insert(name.to_owned(), value.to_owned());
}

#[cfg(test)]
mod tests;
