//! What Docker is asked to make, from what a framework asked for. Nothing here asks anybody.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, ContainerUpdateBody, EndpointSettings, HostConfig, NetworkingConfig, PortBinding};
use mesos_proto::v1::container_info::{DockerInfo, docker_info};
use mesos_proto::v1::{ContainerInfo, Volume, volume};

use super::super::parameters::{self, Asked, Pull};
use super::super::{limits, volumes};
use super::images::with_tag;
use super::{LABEL, Making, OWNER_LABEL};
use crate::config::Config;
use crate::config::json::DnsNetwork;
use crate::environment::{self, Place};
use crate::sandbox::PersistentVolume;
use crate::words::ranges;

/// Least memory that Docker gets, as in Mesos.
const MEMORY_MIN: i64 = 32 << 20;

/// What the daemon is asked to make.
pub(super) fn request(it: &Making, info: &ContainerInfo) -> Result<Asked, String> {
    let (config, launch) = (&it.shared.config, &it.launch);
    let image = info.docker.clone().unwrap_or_default();
    let command = launch.command.clone().unwrap_or_default();
    let limits = limits(&launch.resources, &launch.limits);
    let directory = it.sandbox.display().to_string();
    let place = Place {
        agent_id: &it.agent_id,
        endpoint: &it.shared.endpoint,
        directory: &directory,
        sandbox: &config.sandbox_directory,
        container_ip: None,
    };
    // The image's own PATH stays, unless the framework says otherwise.
    let given: Vec<String> = environment::given(&command).into_iter().map(|(name, _)| name).collect();
    let variables = environment::variables(config, launch, &place);
    let variables = variables.into_iter().filter(|(name, _)| name != "PATH" || given.iter().any(|it| it == "PATH"));
    let mut host = HostConfig { cpu_shares: Some(shares(limits.cpus)), privileged: image.privileged, ..HostConfig::default() };
    limit(&mut host, &limits, config.cgroups_enable_cfs);
    host.oom_score_adj = crate::host::memory_total().and_then(|it| limits.oom_score_adj(it)).map(i64::from);
    let mut binds = vec![format!("{directory}:{}", config.sandbox_directory)];
    let below = |inside: String| if inside.starts_with('/') { inside } else { format!("{}/{inside}", config.sandbox_directory) };
    let of_host = info.volumes.iter().filter(|it| name_of(it, &image).is_none()).cloned().collect();
    for (path, inside, read_only) in volumes(Some(&ContainerInfo { volumes: of_host, ..ContainerInfo::default() }), &it.sandbox, None)? {
        let inside = below(inside);
        binds.push(format!("{}:{inside}:{}", path.display(), if read_only { "ro" } else { "rw" }));
    }
    for persistent in launch.resources.iter().filter_map(PersistentVolume::of) {
        let volume = it.shared.layout.volume(&persistent);
        let PersistentVolume { inside, read_only, .. } = persistent;
        std::fs::create_dir_all(&volume).map_err(|error| format!("Failed to make a volume: {error}"))?;
        let inside = below(inside);
        binds.push(format!("{}:{inside}:{}", volume.display(), if read_only { "ro" } else { "rw" }));
    }
    for volume in &info.volumes {
        let Some(name) = name_of(volume, &image) else { continue };
        let mode = if volume.mode() == volume::Mode::Ro { "ro" } else { "rw" };
        binds.push(format!("{name}:{}:{mode}", below(volume.container_path.clone())));
    }
    host.volume_driver = volume_driver(info, &image)?;
    host.binds = Some(binds);
    let own = [(LABEL.to_owned(), launch.container.as_str().to_owned()), (OWNER_LABEL.to_owned(), config.work_dir.display().to_string())];
    let labels = crate::labels::of_launch(launch).into_iter().chain(own);
    let body = ContainerCreateBody {
        image: Some(with_tag(&image.image)),
        env: Some(variables.map(|(name, value)| format!("{name}={value}")).collect()),
        hostname: info.hostname.clone(),
        labels: Some(labels.collect()),
        ..ContainerCreateBody::default()
    };
    let mut asked = Asked { body, host, ..Asked::default() };
    run_words(&command, &mut asked.body);
    network(it, info, &image, &mut asked.body, &mut asked.host)?;
    for parameter in &image.parameters {
        asked.apply(&parameter.key, &parameter.value, &it.sandbox)?;
    }
    look_up(config, info, image.network(), &mut asked.host);
    if image.network() == docker_info::Network::User || asked.endpoint != EndpointSettings::default() {
        // A parameter may have named another network.
        let name = asked.host.network_mode.clone().unwrap_or_default();
        let endpoints = HashMap::from([(name, std::mem::take(&mut asked.endpoint))]);
        asked.body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
    }
    if image.force_pull_image() {
        asked.pull = Pull::Always;
    }
    asked.body.host_config = Some(std::mem::take(&mut asked.host));
    Ok(asked)
}

/// The name of a volume that Docker has: one that is no directory of the host.
fn name_of<'a>(volume: &'a Volume, image: &DockerInfo) -> Option<&'a str> {
    match (&volume.host_path, &volume.source) {
        // The older way to say so: the name stands where a path may stand, and the driver beside the image.
        (Some(path), _) => Some(path.as_str()).filter(|it| image.volume_driver.is_some() && !it.starts_with('/')),
        (None, Some(source)) if source.r#type() == volume::source::Type::DockerVolume => {
            source.docker_volume.as_ref().map(|it| it.name.as_str())
        }
        (None, _) => None,
    }
}

/// Who provides the volumes of a container: Docker takes one word for all of them.
fn volume_driver(info: &ContainerInfo, image: &DockerInfo) -> Result<Option<String>, String> {
    let of_volumes = info.volumes.iter().filter(|it| it.host_path.is_none()).filter_map(|it| it.source.as_ref()?.docker_volume.as_ref());
    let mut all = of_volumes.filter_map(|it| it.driver.as_ref()).chain(&image.volume_driver);
    let Some(first) = all.next() else { return Ok(None) };
    if all.any(|it| it != first) {
        return Err("Failed to create docker run options: only one volume driver can be used per container".to_owned());
    }
    Ok(Some(first.clone()))
}

/// What the container runs: the command replaces the image's entrypoint only where it is one for a shell.
fn run_words(command: &mesos_proto::v1::CommandInfo, body: &mut ContainerCreateBody) {
    if command.shell() && command.value.is_some() {
        body.entrypoint = Some(vec!["/bin/sh".to_owned()]);
        body.cmd = Some(vec!["-c".to_owned(), command.value.clone().unwrap_or_default()]);
        return;
    }
    let words: Vec<String> = command.value.iter().chain(&command.arguments).cloned().collect();
    if !words.is_empty() {
        body.cmd = Some(words);
    }
}

/// Where the framework says nothing of DNS, the agent may.
fn look_up(config: &Config, info: &ContainerInfo, network: docker_info::Network, host: &mut HostConfig) {
    if host.dns.is_some() || host.dns_search.is_some() || host.dns_options.is_some() {
        return;
    }
    let all = &config.default_container_dns;
    let name = info.network_infos.first().and_then(|it| it.name.clone());
    let found = match network {
        docker_info::Network::Bridge => all.iter().find(|it| it.network == DnsNetwork::Bridge),
        docker_info::Network::User => {
            let own = all.iter().find(|it| it.network == DnsNetwork::User(name.clone()));
            own.or_else(|| all.iter().find(|it| it.network == DnsNetwork::User(None)))
        }
        docker_info::Network::Host | docker_info::Network::None => None,
    };
    if let Some(found) = found {
        host.dns = Some(found.nameservers.clone());
        host.dns_search = Some(found.search.clone());
        host.dns_options = Some(found.options.clone());
    }
}

fn network(
    it: &Making,
    info: &ContainerInfo,
    image: &DockerInfo,
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<(), String> {
    use docker_info::Network;

    let refused = |problem: &str| Err(format!("Failed to create docker run options: {problem}"));
    let network = image.network();
    let name = match network {
        Network::Host if info.hostname.is_some() => return refused("a host name cannot be set in HOST mode"),
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::User => match info.network_infos.as_slice() {
            [only] => match &only.name {
                Some(name) => name.clone(),
                None => return refused("no network name found in USER mode"),
            },
            _ => return refused("USER mode needs exactly one network"),
        },
    };
    host.network_mode = Some(name);
    if image.port_mappings.is_empty() {
        return Ok(());
    }
    if !matches!(network, Network::Bridge | Network::User) {
        return refused("port mappings are only supported for BRIDGE and USER networks");
    }
    let own = ranges(&it.launch.resources, "ports");
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for mapping in &image.port_mappings {
        let port = u64::from(mapping.host_port);
        if !own.iter().any(|(first, last)| (*first..=*last).contains(&port)) {
            return refused(&format!("Port [{port}] not included in resources"));
        }
        let protocol = mapping.protocol.clone().unwrap_or_else(|| "tcp".to_owned()).to_lowercase();
        let inside = parameters::port(&format!("{}/{protocol}", mapping.container_port));
        let binding = PortBinding { host_ip: None, host_port: Some(port.to_string()) };
        bindings.entry(inside).or_default().get_or_insert_with(Vec::new).push(binding);
    }
    body.exposed_ports = Some(bindings.keys().cloned().collect());
    host.port_bindings = Some(bindings);
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn shares(cpus: f64) -> i64 {
    ((1024.0 * cpus) as i64).max(2)
}

/// What a container may use that has other tasks now. Memory it has only ever gets more: what is in use cannot be taken back.
pub(super) fn allowance(limits: &crate::cgroups::Limits, enable_cfs: bool, current_memory: i64) -> ContainerUpdateBody {
    let mut host = HostConfig::default();
    limit(&mut host, limits, enable_cfs);
    let memory = host.memory.filter(|it| current_memory > 0 && *it > current_memory);
    ContainerUpdateBody {
        cpu_shares: Some(shares(limits.cpus)),
        cpu_period: host.cpu_period,
        cpu_quota: host.cpu_quota,
        memory,
        // As much again of swap, as the daemon gives who says nothing of it.
        memory_swap: memory.map(|it| it.saturating_mul(2)),
        memory_reservation: host.memory_reservation,
        ..ContainerUpdateBody::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn limit(host: &mut HostConfig, limits: &crate::cgroups::Limits, enable_cfs: bool) {
    let bytes = |megabytes: f64| ((megabytes * 1024.0 * 1024.0) as i64).max(MEMORY_MIN);
    let ceiling = match limits.cpus_limit {
        Some(limit) => Some(limit).filter(|it| it.is_finite()),
        None => enable_cfs.then_some(limits.cpus),
    };
    if let Some(cpus) = ceiling {
        host.cpu_period = Some(100_000);
        host.cpu_quota = Some(((100_000.0 * cpus) as i64).max(1_000));
    }
    match limits.mem_limit {
        Some(limit) if limit.is_finite() => {
            host.memory = Some(bytes(limit));
            host.memory_reservation = Some(bytes(limits.mem));
        }
        Some(_) => host.memory_reservation = Some(bytes(limits.mem)),
        None => host.memory = Some(bytes(limits.mem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_docker_s_by_its_name_and_has_one_driver_with_all_others() {
        use volume::source::{DockerVolume, Type};

        let of_host = |path: &str| Volume { host_path: Some(path.to_owned()), ..Volume::default() };
        let of_docker = |name: &str, driver: Option<&str>| {
            let docker = DockerVolume { name: name.to_owned(), driver: driver.map(str::to_owned), driver_options: None };
            let source = volume::Source { r#type: Some(Type::DockerVolume as i32), docker_volume: Some(docker), ..Default::default() };
            Volume { source: Some(source), ..Volume::default() }
        };
        let image = |driver: Option<&str>| DockerInfo { volume_driver: driver.map(str::to_owned), ..DockerInfo::default() };
        assert_eq!(name_of(&of_host("data"), &image(Some("local"))), Some("data"));
        assert_eq!((name_of(&of_host("data"), &image(None)), name_of(&of_host("/data"), &image(Some("local")))), (None, None));
        assert_eq!(name_of(&of_docker("data", None), &image(None)), Some("data"));
        let driver = |of_image: Option<&str>, volumes: &[Volume]| {
            volume_driver(&ContainerInfo { volumes: volumes.to_vec(), ..ContainerInfo::default() }, &image(of_image)).ok()
        };
        let some = |it: &str| Some(Some(it.to_owned()));
        assert_eq!((driver(None, &[of_docker("a", None)]), driver(Some("x"), &[of_host("a")])), (Some(None), some("x")));
        assert_eq!(driver(Some("x"), &[of_docker("a", Some("x")), of_docker("b", None)]), some("x"));
        assert_eq!(driver(Some("x"), &[of_docker("a", Some("y"))]), None);
        assert_eq!(driver(None, &[of_docker("a", Some("x")), of_docker("b", Some("y"))]), None);
    }

    #[test]
    fn containers_look_names_up_where_the_agent_says_unless_their_framework_does() {
        use docker_info::Network;

        let mut config = Config::in_directories("/w".into(), "/r".into());
        let text = r#"{"docker": [
            {"network_mode": "BRIDGE", "dns": {"nameservers": ["10.0.0.1"]}},
            {"network_mode": "USER", "dns": {"nameservers": ["10.0.0.2"]}},
            {"network_mode": "USER", "network_name": "blue", "dns": {"nameservers": ["10.0.0.3"]}}
        ]}"#;
        config.default_container_dns = crate::config::json::container_dns(text).unwrap();
        let asked = |network: Network, name: Option<&str>, mut host: HostConfig| {
            let infos = name.map(|it| mesos_proto::v1::NetworkInfo { name: Some(it.to_owned()), ..Default::default() });
            let info = ContainerInfo { network_infos: infos.into_iter().collect(), ..ContainerInfo::default() };
            look_up(&config, &info, network, &mut host);
            host.dns.unwrap_or_default().join(",")
        };
        assert_eq!(asked(Network::Bridge, None, HostConfig::default()), "10.0.0.1");
        assert_eq!(asked(Network::User, Some("red"), HostConfig::default()), "10.0.0.2");
        assert_eq!(asked(Network::User, Some("blue"), HostConfig::default()), "10.0.0.3");
        assert_eq!(asked(Network::Host, None, HostConfig::default()), "");
        let own = HostConfig { dns: Some(vec!["1.1.1.1".to_owned()]), ..HostConfig::default() };
        assert_eq!(asked(Network::Bridge, None, own), "1.1.1.1");
    }
}
