//! Docker's command-line options, as frameworks give them in `parameters`: the daemon's API has the same things under other names. Pure.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, DeviceMapping, HostConfig, HostConfigLogConfig, ResourcesUlimits, RestartPolicy};

/// Puts `--key=value` into what the daemon is asked for.
///
/// # Errors
/// When the option is not known, or its value is not one.
pub(super) fn apply(key: &str, value: &str, body: &mut ContainerCreateBody, host: &mut HostConfig) -> Result<(), String> {
    let wrong = || format!("Failed to create docker run options: --{key}={value} is not understood");
    let truth = || match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(wrong()),
    };
    let number = || value.parse::<i64>().map_err(|_| wrong());
    match key {
        "env" | "e" => push(&mut body.env, value),
        "label" | "l" => insert(&mut body.labels, value),
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
        "volumes-from" => push(&mut host.volumes_from, value),
        "net" | "network" => host.network_mode = Some(value.to_owned()),
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
        "cpu-shares" | "c" => host.cpu_shares = Some(number()?),
        "cpu-period" => host.cpu_period = Some(number()?),
        "cpu-quota" => host.cpu_quota = Some(number()?),
        "cpuset-cpus" => host.cpuset_cpus = Some(value.to_owned()),
        "cpuset-mems" => host.cpuset_mems = Some(value.to_owned()),
        "blkio-weight" => host.blkio_weight = Some(value.parse().map_err(|_| wrong())?),
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
        // A task that ends has ended: who starts it again is its framework.
        "restart" if value == "no" => host.restart_policy = Some(RestartPolicy::default()),
        "name" => return Err("Failed to create docker run options: the parameter 'name' is not allowed".to_owned()),
        _ => return Err(format!("Failed to create docker run options: the parameter '{key}' is not supported")),
    }
    Ok(())
}

fn push(list: &mut Option<Vec<String>>, value: &str) {
    list.get_or_insert_with(Vec::new).push(value.to_owned());
}

fn insert(map: &mut Option<HashMap<String, String>>, value: &str) {
    let (name, value) = value.split_once('=').unwrap_or((value, ""));
    map.get_or_insert_with(HashMap::new).insert(name.to_owned(), value.to_owned());
}

/// With a protocol.
pub(super) fn port(value: &str) -> String {
    if value.contains('/') { value.to_owned() } else { format!("{value}/tcp") }
}

/// A size as Docker's command line has it: `64m`, `1g`, `1024`.
fn bytes(value: &str) -> Option<i64> {
    let lower = value.to_ascii_lowercase();
    let text = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 10),
        'm' => (&text[..text.len() - 1], 20),
        'g' => (&text[..text.len() - 1], 30),
        't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_command_line_find_their_place() {
        let (mut body, mut host) = (ContainerCreateBody::default(), HostConfig::default());
        let options = [
            ("env", "A=1"),
            ("label", "x=y=z"),
            ("ulimit", "nofile=10:20"),
            ("memory-swap", "64m"),
            ("tmpfs", "/run:size=1m"),
            ("init", ""),
        ];
        for (key, value) in options {
            apply(key, value, &mut body, &mut host).unwrap();
        }
        assert_eq!(body.env.unwrap(), ["A=1"]);
        assert_eq!(body.labels.unwrap()["x"], "y=z");
        assert_eq!((host.memory_swap, host.init), (Some(64 << 20), Some(true)));
        assert_eq!(host.tmpfs.unwrap()["/run"], "size=1m");
        let ulimit = host.ulimits.unwrap().remove(0);
        assert_eq!((ulimit.soft, ulimit.hard), (Some(10), Some(20)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (key, value) in
            [("name", "x"), ("frobnicate", "1"), ("memory", "lots"), ("ulimit", "nofile"), ("device", ""), ("memory", "99999999999999t")]
        {
            apply(key, value, &mut ContainerCreateBody::default(), &mut HostConfig::default()).unwrap_err();
        }
    }
}
