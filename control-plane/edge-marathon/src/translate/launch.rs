//! A launch as the messages that make an agent run it.

use std::collections::BTreeMap;

use mesos_proto::v1;
use mesos_proto::v1::container_info::{DockerInfo, MesosInfo, docker_info};
use mesos_proto::v1::offer::operation::LaunchGroup;
use scheduler::id::PathId;
use scheduler::launch::{Launch, TaskLaunch};
use scheduler::model::app::App;
use scheduler::model::container::{Container, ContainerKind, IpcMode, LinuxInfo, Volume, VolumeKind};
use scheduler::model::health::{Check, Command, HealthCheck, PortRef, Probe};
use scheduler::model::pod::{Pod, PodContainer, PodVolumeKind};
use scheduler::model::spec::Spec;
use scheduler::model::{Artifact, EnvValue, Labels, Limit, Network, NetworkMode, ResourceLimits};

use super::into_resource;
use crate::settings::Settings;

/// The task of an app.
pub(super) fn task(launch: &Launch, settings: &Settings) -> Option<v1::TaskInfo> {
    let (Spec::App(app), [task]) = (&launch.spec, launch.tasks.as_slice()) else { return None };
    let command = command(app, task, settings);
    let own_executor = !app.executor.is_empty() && app.executor != "//cmd";
    let mut info = v1::TaskInfo {
        name: app.id.host(),
        task_id: v1::TaskId { value: task.id.as_str().to_owned() },
        agent_id: v1::AgentId { value: launch.agent_id.clone() },
        resources: task.resources.iter().chain(launch.volumes.iter().map(|(_, it)| it)).map(|it| into_resource(it, &launch.role)).collect(),
        container: container(app, task, settings),
        health_check: app
            .health_checks
            .iter()
            .find(|check| !check.by_scheduler())
            .and_then(|check| health_check(check, task, &app.networks)),
        check: app.check.as_ref().and_then(|it| self::check(it, task, &app.networks)),
        kill_policy: app.kill_grace_seconds.map(kill_policy),
        labels: labels(&app.labels),
        discovery: Some(discovery(&app.id, app_ports(app, task))),
        limits: limits(app.resource_limits),
        ..v1::TaskInfo::default()
    };
    if own_executor {
        let id = format!("marathon-{}", task.id.as_str());
        info.executor = Some(v1::ExecutorInfo {
            r#type: Some(v1::executor_info::Type::Custom as i32),
            executor_id: v1::ExecutorId { value: id },
            command: Some(v1::CommandInfo { value: Some(run_executor(app)), arguments: Vec::new(), shell: Some(true), ..command }),
            resources: launch.executor_resources.iter().map(|it| into_resource(it, &launch.role)).collect(),
            container: info.container.clone(),
            ..v1::ExecutorInfo::default()
        });
    } else {
        info.command = Some(command);
    }
    Some(info)
}

/// What starts an executor of one's own: fetched as a rule, so made executable first; what the app would run is told as its arguments.
fn run_executor(app: &App) -> String {
    let path = format!("'{}'", app.executor.replace('\'', "'\\''"));
    let told = app.cmd.clone().unwrap_or_else(|| app.args.join(" "));
    format!("chmod ug+rx {path} && exec {path} {told}").trim_end().to_owned()
}

fn command(app: &App, task: &TaskLaunch, settings: &Settings) -> v1::CommandInfo {
    let has_image = app.container.as_ref().is_some_and(|container| container.docker.is_some());
    // Arguments alone are for the entry point of an image. Where there is no image, the first of them is the program itself.
    let program = app.args.first().filter(|_| !has_image);
    v1::CommandInfo {
        uris: uris(&app.fetch),
        environment: environment(&task.environment, &app.secrets),
        shell: Some(app.cmd.is_some()),
        value: app.cmd.as_ref().or(program).cloned(),
        arguments: app.args.clone(),
        user: Some(app.user.clone().unwrap_or_else(|| settings.user.clone())),
    }
}

fn uris(artifacts: &[Artifact]) -> Vec<v1::command_info::Uri> {
    let uri = |it: &Artifact| v1::command_info::Uri {
        value: it.uri.clone(),
        executable: Some(it.executable),
        extract: Some(it.extract),
        cache: Some(it.cache),
        output_file: it.dest_path.clone(),
    };
    artifacts.iter().map(uri).collect()
}

fn environment(variables: &BTreeMap<String, EnvValue>, secrets: &Labels) -> Option<v1::Environment> {
    use v1::environment::{Variable, variable::Type};
    let variable = |(name, value): (&String, &EnvValue)| match value {
        EnvValue::Text(text) => Variable { name: name.clone(), r#type: Some(Type::Value as i32), value: Some(text.clone()), secret: None },
        EnvValue::Secret(key) => Variable {
            name: name.clone(),
            r#type: Some(Type::Secret as i32),
            value: None,
            secret: Some(secret(secrets.get(key).unwrap_or(key))),
        },
    };
    Some(v1::Environment { variables: variables.iter().map(variable).collect() })
}

fn secret(source: &str) -> v1::Secret {
    v1::Secret {
        r#type: Some(v1::secret::Type::Reference as i32),
        reference: Some(v1::secret::Reference { name: source.to_owned(), key: None }),
        value: None,
    }
}

fn labels(labels: &Labels) -> Option<v1::Labels> {
    let label = |(key, value): (&String, &String)| v1::Label { key: key.clone(), value: Some(value.clone()) };
    (!labels.is_empty()).then(|| v1::Labels { labels: labels.iter().map(label).collect() })
}

fn kill_policy(seconds: f64) -> v1::KillPolicy {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let nanoseconds = (seconds * 1e9) as i64;
    v1::KillPolicy { grace_period: Some(v1::DurationInfo { nanoseconds }) }
}

fn limits(limits: Option<ResourceLimits>) -> BTreeMap<String, v1::value::Scalar> {
    let limits = limits.unwrap_or_default();
    let scalar = |limit: Limit| v1::value::Scalar { value: if let Limit::Amount(amount) = limit { amount } else { f64::INFINITY } };
    [("cpus", limits.cpus), ("mem", limits.mem)].into_iter().filter_map(|(name, limit)| Some((name.to_owned(), scalar(limit?)))).collect()
}

/// Ports as others find them: on the host when there is one there, else in the container.
fn app_ports(app: &App, task: &TaskLaunch) -> Vec<v1::Port> {
    let port = |number: Option<u16>, name: &Option<String>, protocol: &str, labels: &Labels, scope: &str| {
        let mut all = labels.clone();
        all.insert("network-scope".to_owned(), scope.to_owned());
        protocol
            .split(',')
            .filter_map(|protocol| {
                Some(v1::Port {
                    number: u32::from(number?),
                    name: name.clone(),
                    protocol: Some(protocol.to_owned()),
                    visibility: None,
                    labels: self::labels(&all),
                })
            })
            .collect::<Vec<_>>()
    };
    if app.is_host_network() {
        let numbered = app.port_definitions.iter().enumerate();
        return numbered
            .flat_map(|(at, it)| port(task.host_ports.get(at).copied().flatten(), &it.name, &it.protocol, &it.labels, "host"))
            .collect();
    }
    let mappings = app.container.iter().flat_map(|it| &it.port_mappings).enumerate();
    mappings
        .flat_map(|(at, it)| match task.host_ports.get(at).copied().flatten() {
            Some(host) => port(Some(host), &it.name, &it.protocol, &it.labels, "host"),
            None => port(task.container_ports.get(at).copied(), &it.name, &it.protocol, &it.labels, "container"),
        })
        .collect()
}

fn discovery(id: &PathId, ports: Vec<v1::Port>) -> v1::DiscoveryInfo {
    v1::DiscoveryInfo {
        visibility: v1::discovery_info::Visibility::Framework as i32,
        name: Some(id.host()),
        ports: Some(v1::Ports { ports }),
        ..v1::DiscoveryInfo::default()
    }
}

fn container(app: &App, task: &TaskLaunch, settings: &Settings) -> Option<v1::ContainerInfo> {
    let host_mode = app.is_host_network();
    let Some(container) = &app.container else {
        return app.tty.map(|tty| v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            tty_info: tty.then(v1::TtyInfo::default),
            ..v1::ContainerInfo::default()
        });
    };
    let mut info = v1::ContainerInfo {
        volumes: container.volumes.iter().filter_map(|volume| self::volume(volume, &app.secrets)).collect(),
        linux_info: linux_info(container.linux_info.as_ref(), None),
        tty_info: app.tty.filter(|tty| *tty).map(|_| v1::TtyInfo::default()),
        ..v1::ContainerInfo::default()
    };
    let mapped: Vec<(u32, u32, &str)> = container
        .port_mappings
        .iter()
        .enumerate()
        .filter_map(|(at, it)| {
            let host = task.host_ports.get(at).copied().flatten()?;
            Some((u32::from(host), u32::from(task.container_ports.get(at).copied()?), it.protocol.as_str()))
        })
        .flat_map(|(host, inner, protocols)| protocols.split(',').map(move |protocol| (host, inner, protocol)))
        .collect();
    match container.kind {
        ContainerKind::Docker => {
            info.r#type = v1::container_info::Type::Docker as i32;
            let network = if host_mode {
                docker_info::Network::Host
            } else if app.networks.iter().any(|it| it.mode == NetworkMode::Bridge) {
                docker_info::Network::Bridge
            } else {
                docker_info::Network::User
            };
            if network == docker_info::Network::User {
                info.network_infos = named_networks(&app.networks, &[]);
            }
            info.docker = container.docker.as_ref().map(|docker| {
                let mut parameters: Vec<v1::Parameter> =
                    docker.parameters.iter().map(|(key, value)| v1::Parameter { key: key.clone(), value: value.clone() }).collect();
                parameters.push(v1::Parameter { key: "label".to_owned(), value: format!("MESOS_TASK_ID={}", task.id.as_str()) });
                let mapping = |(host_port, container_port, protocol): &(u32, u32, &str)| docker_info::PortMapping {
                    host_port: *host_port,
                    container_port: *container_port,
                    protocol: Some((*protocol).to_owned()),
                };
                DockerInfo {
                    image: docker.image.clone(),
                    network: Some(network as i32),
                    port_mappings: if host_mode { Vec::new() } else { mapped.iter().map(mapping).collect() },
                    privileged: Some(docker.privileged),
                    parameters,
                    force_pull_image: Some(docker.force_pull_image),
                    volume_driver: None,
                }
            });
        }
        ContainerKind::Mesos => {
            info.r#type = v1::container_info::Type::Mesos as i32;
            info.mesos = Some(MesosInfo { image: image(container, &app.secrets) });
            if !host_mode {
                info.network_infos = networks(&app.networks, &mapped, settings);
            }
        }
    }
    Some(info)
}

fn image(container: &Container, secrets: &Labels) -> Option<v1::Image> {
    let docker = container.docker.as_ref()?;
    Some(docker_image(
        &docker.image,
        docker.force_pull_image,
        docker.pull_secret.as_ref().map(|key| secrets.get(key).unwrap_or(key).as_str()),
    ))
}

fn docker_image(name: &str, force_pull: bool, pull_secret: Option<&str>) -> v1::Image {
    v1::Image {
        r#type: v1::image::Type::Docker as i32,
        docker: Some(v1::image::Docker { name: name.to_owned(), credential: None, config: pull_secret.map(secret) }),
        cached: Some(!force_pull),
        ..v1::Image::default()
    }
}

fn networks(networks: &[Network], mapped: &[(u32, u32, &str)], settings: &Settings) -> Vec<v1::NetworkInfo> {
    if networks.iter().any(|it| it.mode == NetworkMode::Bridge) {
        let bridge = Network { mode: NetworkMode::Container, name: Some(settings.mesos_bridge_name.clone()), labels: Labels::new() };
        return named_networks(&[bridge], mapped);
    }
    named_networks(networks, mapped)
}

fn named_networks(networks: &[Network], mapped: &[(u32, u32, &str)]) -> Vec<v1::NetworkInfo> {
    let mapping = |(host_port, container_port, protocol): &(u32, u32, &str)| v1::network_info::PortMapping {
        host_port: *host_port,
        container_port: *container_port,
        protocol: Some((*protocol).to_owned()),
    };
    let network = |(at, it): (usize, &Network)| v1::NetworkInfo {
        ip_addresses: vec![v1::network_info::IpAddress { protocol: Some(v1::network_info::Protocol::IPv4 as i32), ip_address: None }],
        name: it.name.clone(),
        labels: labels(&it.labels),
        port_mappings: if at == 0 { mapped.iter().map(mapping).collect() } else { Vec::new() },
        groups: Vec::new(),
    };
    networks.iter().enumerate().map(network).collect()
}

fn volume(volume: &Volume, secrets: &Labels) -> Option<v1::Volume> {
    use v1::volume::source::{DockerVolume, Type};
    let mode = if volume.read_only { v1::volume::Mode::Ro } else { v1::volume::Mode::Rw };
    let base = v1::Volume { mode: mode as i32, container_path: volume.container_path.clone(), ..v1::Volume::default() };
    match &volume.kind {
        VolumeKind::Host(path) => Some(v1::Volume { host_path: Some(path.clone()), ..base }),
        // Among the resources.
        VolumeKind::Persistent(_) => None,
        VolumeKind::Secret(key) => Some(v1::Volume {
            source: Some(v1::volume::Source {
                r#type: Some(Type::Secret as i32),
                secret: Some(secret(secrets.get(key).unwrap_or(key))),
                ..v1::volume::Source::default()
            }),
            ..base
        }),
        VolumeKind::External(external) => {
            let mut options: Vec<v1::Parameter> = external
                .options
                .iter()
                .map(|(key, value)| v1::Parameter { key: key.strip_prefix("dvdi/").unwrap_or(key).to_owned(), value: value.clone() })
                .filter(|it| it.key != "driver")
                .collect();
            if let Some(size) = external.size {
                options.push(v1::Parameter { key: "size".to_owned(), value: size.to_string() });
            }
            let docker_volume = DockerVolume {
                driver: external.options.get("dvdi/driver").cloned(),
                name: external.name.clone(),
                driver_options: (!options.is_empty()).then_some(v1::Parameters { parameter: options }),
            };
            Some(v1::Volume {
                source: Some(v1::volume::Source {
                    r#type: Some(Type::DockerVolume as i32),
                    docker_volume: Some(docker_volume),
                    ..v1::volume::Source::default()
                }),
                ..base
            })
        }
    }
}

fn linux_info(info: Option<&LinuxInfo>, share_cgroups: Option<bool>) -> Option<v1::LinuxInfo> {
    if info.is_none() && share_cgroups.is_none() {
        return None;
    }
    let info = info.cloned().unwrap_or_default();
    let mode = |mode: IpcMode| match mode {
        IpcMode::Private => v1::linux_info::IpcMode::Private as i32,
        IpcMode::ShareParent => v1::linux_info::IpcMode::ShareParent as i32,
    };
    Some(v1::LinuxInfo {
        seccomp: info.seccomp.map(|(profile_name, unconfined)| v1::SeccompInfo { profile_name, unconfined: Some(unconfined) }),
        ipc_mode: info.ipc.map(|(it, _)| mode(it)),
        shm_size: info.ipc.and_then(|(_, size)| size),
        share_cgroups,
        ..v1::LinuxInfo::default()
    })
}

/// The number that a check's port has where the agent asks: in the container.
fn port_number(port: &PortRef, task: &TaskLaunch, names: &[String], host_mode: bool) -> Option<u32> {
    let at = match port {
        PortRef::Number(number) => return Some(u32::from(*number)),
        PortRef::Index(at) => *at as usize,
        PortRef::Name(name) => names.iter().position(|it| it == name)?,
    };
    let host = task.host_ports.get(at).copied().flatten();
    let inner = task.container_ports.get(at).copied().filter(|port| *port > 0);
    if host_mode { host.or(inner) } else { inner.or(host) }.map(u32::from)
}

fn command_of(command: &Command) -> v1::CommandInfo {
    match command {
        Command::Shell(line) => v1::CommandInfo { shell: Some(true), value: Some(line.clone()), ..v1::CommandInfo::default() },
        Command::Argv(words) => {
            v1::CommandInfo { shell: Some(false), value: words.first().cloned(), arguments: words.clone(), ..v1::CommandInfo::default() }
        }
    }
}

fn health_check(check: &HealthCheck, task: &TaskLaunch, networks: &[Network]) -> Option<v1::HealthCheck> {
    named_health_check(check, task, &[], networks.iter().all(|it| it.mode == NetworkMode::Host))
}

fn named_health_check(check: &HealthCheck, task: &TaskLaunch, names: &[String], host_mode: bool) -> Option<v1::HealthCheck> {
    use v1::health_check::{HttpCheckInfo, TcpCheckInfo, Type};
    let seconds = |value: u64| Some(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
    let family = |ipv6: bool| Some(if ipv6 { v1::network_info::Protocol::IPv6 } else { v1::network_info::Protocol::IPv4 } as i32);
    let mut message = v1::HealthCheck {
        delay_seconds: seconds(check.delay_seconds),
        interval_seconds: seconds(check.interval_seconds),
        timeout_seconds: seconds(check.timeout_seconds),
        consecutive_failures: Some(check.max_consecutive_failures),
        grace_period_seconds: seconds(check.grace_period_seconds),
        ..v1::HealthCheck::default()
    };
    let kind = match &check.probe {
        Probe::Http { tls, path, port, ipv6, .. } => {
            message.http = Some(HttpCheckInfo {
                protocol: family(*ipv6),
                scheme: Some(if *tls { "https" } else { "http" }.to_owned()),
                port: port_number(port, task, names, host_mode)?,
                path: path.clone(),
                statuses: Vec::new(),
            });
            Type::Http
        }
        Probe::Tcp { port, ipv6, .. } => {
            message.tcp = Some(TcpCheckInfo { protocol: family(*ipv6), port: port_number(port, task, names, host_mode)? });
            Type::Tcp
        }
        Probe::Command(command) => {
            message.command = Some(command_of(command));
            Type::Command
        }
    };
    message.r#type = Some(kind as i32);
    Some(message)
}

fn check(check: &Check, task: &TaskLaunch, networks: &[Network]) -> Option<v1::CheckInfo> {
    named_check(check, task, &[], networks.iter().all(|it| it.mode == NetworkMode::Host))
}

fn named_check(check: &Check, task: &TaskLaunch, names: &[String], host_mode: bool) -> Option<v1::CheckInfo> {
    use v1::check_info;
    let seconds = |value: u64| Some(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
    let mut message = v1::CheckInfo {
        delay_seconds: seconds(check.delay_seconds),
        interval_seconds: seconds(check.interval_seconds),
        timeout_seconds: seconds(check.timeout_seconds),
        ..v1::CheckInfo::default()
    };
    let kind = match &check.probe {
        Probe::Http { path, port, .. } => {
            message.http = Some(check_info::Http { port: port_number(port, task, names, host_mode)?, path: path.clone() });
            check_info::Type::Http
        }
        Probe::Tcp { port, .. } => {
            message.tcp = Some(check_info::Tcp { port: port_number(port, task, names, host_mode)? });
            check_info::Type::Tcp
        }
        Probe::Command(command) => {
            message.command = Some(check_info::Command { command: command_of(command) });
            check_info::Type::Command
        }
    };
    message.r#type = Some(kind as i32);
    Some(message)
}

/// The tasks of a pod, and the executor they share.
pub(super) fn group(launch: &Launch, settings: &Settings) -> LaunchGroup {
    let Spec::Pod(pod) = &launch.spec else { return LaunchGroup::default() };
    let host_mode = pod.is_host_network();
    let mapped: Vec<(u32, u32, &str)> = pod
        .containers
        .iter()
        .zip(&launch.tasks)
        .flat_map(|(container, task)| {
            container.endpoints.iter().enumerate().filter_map(|(at, endpoint)| {
                let host = task.host_ports.get(at).copied().flatten()?;
                let protocol = endpoint.protocol.first().map_or("tcp", String::as_str);
                Some((u32::from(host), u32::from(task.container_ports.get(at).copied()?), protocol))
            })
        })
        .collect();
    let executor = v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Default as i32),
        executor_id: v1::ExecutorId { value: launch.instance.executor() },
        resources: launch
            .executor_resources
            .iter()
            .chain(launch.volumes.iter().map(|(_, it)| it))
            .map(|it| into_resource(it, &launch.role))
            .collect(),
        container: Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            network_infos: if host_mode { Vec::new() } else { networks(&pod.networks, &mapped, settings) },
            linux_info: linux_info(pod.linux_info.as_ref(), None),
            ..v1::ContainerInfo::default()
        }),
        labels: labels(&pod.labels),
        ..v1::ExecutorInfo::default()
    };
    let tasks =
        pod.containers.iter().zip(&launch.tasks).map(|(container, task)| pod_task(launch, pod, container, task, settings)).collect();
    LaunchGroup { executor, task_group: v1::TaskGroupInfo { tasks } }
}

fn pod_task(launch: &Launch, pod: &Pod, container: &PodContainer, task: &TaskLaunch, settings: &Settings) -> v1::TaskInfo {
    let host_mode = pod.is_host_network();
    let names: Vec<String> = container.endpoints.iter().map(|it| it.name.clone()).collect();
    let mut command =
        container.exec.as_ref().map(command_of).unwrap_or_else(|| v1::CommandInfo { shell: Some(false), ..v1::CommandInfo::default() });
    // As with apps: the words are arguments of the image's entry point, unless they are to replace it or there is none.
    if container.image.is_some() && container.override_entrypoint != Some(true) && command.shell == Some(false) {
        command.value = None;
    }
    command.uris = uris(&container.artifacts);
    command.environment = environment(&task.environment, &pod.secrets);
    command.user = Some(container.user.clone().or_else(|| pod.user.clone()).unwrap_or_else(|| settings.user.clone()));
    let share_cgroups = container.resource_limits.map(|_| false).or(pod.legacy_shared_cgroups);
    let image = container.image.as_ref().map(|it| {
        docker_image(&it.id, it.force_pull == Some(true), it.pull_secret.as_ref().map(|key| pod.secrets.get(key).unwrap_or(key).as_str()))
    });
    let port = |(at, endpoint): (usize, &scheduler::model::pod::Endpoint)| {
        let number = task.host_ports.get(at).copied().flatten().or_else(|| task.container_ports.get(at).copied())?;
        Some(v1::Port {
            number: u32::from(number),
            name: Some(endpoint.name.clone()),
            protocol: Some(endpoint.protocol.join(",")),
            visibility: None,
            labels: labels(&endpoint.labels),
        })
    };
    v1::TaskInfo {
        name: container.name.clone(),
        task_id: v1::TaskId { value: task.id.as_str().to_owned() },
        agent_id: v1::AgentId { value: launch.agent_id.clone() },
        resources: task.resources.iter().map(|it| into_resource(it, &launch.role)).collect(),
        command: Some(command),
        container: Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            volumes: pod_volumes(pod, container),
            mesos: image.map(|image| MesosInfo { image: Some(image) }),
            linux_info: linux_info(container.linux_info.as_ref(), share_cgroups),
            tty_info: container.tty.filter(|tty| *tty).map(|_| v1::TtyInfo::default()),
            ..v1::ContainerInfo::default()
        }),
        health_check: container.health_check.as_ref().and_then(|it| named_health_check(it, task, &names, host_mode)),
        check: container.check.as_ref().and_then(|it| named_check(it, task, &names, host_mode)),
        kill_policy: container.kill_grace_seconds.map(kill_policy),
        labels: labels(&container.labels),
        discovery: Some(discovery(&pod.id, container.endpoints.iter().enumerate().filter_map(port).collect())),
        limits: limits(container.resource_limits),
        ..v1::TaskInfo::default()
    }
}

fn pod_volumes(pod: &Pod, container: &PodContainer) -> Vec<v1::Volume> {
    use v1::volume::source::{SandboxPath, Type, sandbox_path};
    let mount = |mount: &scheduler::model::pod::VolumeMount| {
        let volume = pod.volumes.iter().find(|it| it.name == mount.name)?;
        let mode = if mount.read_only == Some(true) { v1::volume::Mode::Ro } else { v1::volume::Mode::Rw };
        let base = v1::Volume { mode: mode as i32, container_path: mount.mount_path.clone(), ..v1::Volume::default() };
        Some(match &volume.kind {
            PodVolumeKind::Host(path) => v1::Volume { host_path: Some(path.clone()), ..base },
            PodVolumeKind::Secret(key) => v1::Volume {
                source: Some(v1::volume::Source {
                    r#type: Some(Type::Secret as i32),
                    secret: Some(secret(pod.secrets.get(key).unwrap_or(key))),
                    ..v1::volume::Source::default()
                }),
                ..base
            },
            // Both are in the executor's sandbox, which is the tasks' parent.
            PodVolumeKind::Ephemeral | PodVolumeKind::Persistent(_) => {
                let path =
                    if matches!(volume.kind, PodVolumeKind::Ephemeral) { format!("volumes/{}", volume.name) } else { volume.name.clone() };
                let sandbox = SandboxPath { r#type: Some(sandbox_path::Type::Parent as i32), path };
                v1::Volume {
                    source: Some(v1::volume::Source {
                        r#type: Some(Type::SandboxPath as i32),
                        sandbox_path: Some(sandbox),
                        ..v1::volume::Source::default()
                    }),
                    ..base
                }
            }
        })
    };
    container.volume_mounts.iter().filter_map(mount).collect()
}
