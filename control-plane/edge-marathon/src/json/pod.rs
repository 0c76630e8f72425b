//! Pods.

use base::Timestamp;
use scheduler::id::PathId;
use scheduler::model::app::VersionInfo;
use scheduler::model::health::Command;
use scheduler::model::pod::{Endpoint, Pod, PodContainer, PodImage, PodVolume, PodVolumeKind, VolumeMount};
use scheduler::model::{Backoff, Constraint, Network, NetworkMode, ResourceNeeds, UnreachableStrategy, UpgradeStrategy};
use scheduler::moment::parse_iso;

use super::app::Defaults;
use super::checks::{read_check, read_command, read_pod_health, write_check, write_command, write_pod_health};
use super::container::{read_linux_info, read_persistent, write_linux_info, write_persistent};
use super::pieces::{
    constraint, read_artifacts, read_backoff, read_env, read_kill_selection, read_limits, read_needs, read_networks, read_secrets,
    read_unreachable, write_artifacts, write_env, write_executor_resources, write_kill_selection, write_limits, write_networks,
    write_secrets, write_unreachable,
};
use super::{Json, Reader};

/// What a container of a pod takes when nothing is said.
const CONTAINER: ResourceNeeds = ResourceNeeds { cpus: 1.0, mem: 128.0, disk: 0.0, gpus: 0 };

pub(crate) fn read_pod(form: &Reader<'_>, defaults: &Defaults) -> Pod {
    let id = PathId::absolute(&form.required_string("id"));
    let scheduling = form.object("scheduling");
    let placement = scheduling.as_ref().and_then(|it| it.object("placement"));
    let volumes: Vec<PodVolume> = form.objects("volumes", |it| read_volume(&it)).unwrap_or_default();
    let resident = volumes.iter().any(|volume| matches!(volume.kind, PodVolumeKind::Persistent(_)));
    let instances = form.object("scaling").map(|it| {
        if !it.string("kind").is_some_and(|kind| kind.eq_ignore_ascii_case("fixed")) {
            it.wrong("kind", "error.unknown.enum.literal");
        }
        it.u32("instances").unwrap_or(1)
    });
    let upgrade = scheduling.as_ref().and_then(|it| it.object("upgrade")).map(|it| UpgradeStrategy {
        minimum_health_capacity: it.number("minimumHealthCapacity", f64::MIN).unwrap_or(1.0),
        maximum_over_capacity: it.number("maximumOverCapacity", f64::MIN).unwrap_or(if resident { 0.0 } else { 1.0 }),
    });
    let default_upgrade =
        if resident { UpgradeStrategy { minimum_health_capacity: 0.5, maximum_over_capacity: 0.0 } } else { UpgradeStrategy::default() };
    let unreachable = scheduling.as_ref().and_then(|it| read_unreachable(it, "unreachableStrategy"));
    let time = |form: &Reader<'_>, key: &str| form.string(key).and_then(|text| parse_iso(&text));
    let version = time(form, "version").unwrap_or(Timestamp::EPOCH);
    let info = form.object("versionInfo");
    let networks = read_networks(form, defaults.network_name.as_deref()).unwrap_or_default();
    Pod {
        id,
        labels: form.labels("labels").unwrap_or_default(),
        user: form.string("user"),
        environment: read_env(form, "environment"),
        containers: form.objects("containers", |it| read_container(&it, &networks)).unwrap_or_default(),
        secrets: read_secrets(form),
        networks: if networks.is_empty() { vec![Network::host()] } else { networks },
        instances: instances.unwrap_or(1),
        backoff: scheduling
            .as_ref()
            .and_then(|it| it.object("backoff"))
            .map_or_else(Backoff::default, |it| read_backoff(&it, ["backoff", "backoffFactor", "maxLaunchDelay"])),
        upgrade_strategy: upgrade.unwrap_or(default_upgrade),
        constraints: placement.as_ref().map(read_constraints).unwrap_or_default(),
        accepted_resource_roles: placement.as_ref().and_then(|it| it.strings("acceptedResourceRoles")).unwrap_or_default(),
        kill_selection: scheduling.as_ref().map(read_kill_selection).unwrap_or_default(),
        unreachable: unreachable.unwrap_or(if resident { UnreachableStrategy::Disabled } else { UnreachableStrategy::IMMEDIATE }),
        executor_resources: form.object("executorResources").map_or(ResourceNeeds::EXECUTOR, |it| read_needs(&it, ResourceNeeds::EXECUTOR)),
        linux_info: read_linux_info(form),
        legacy_shared_cgroups: form.bool("legacySharedCgroups"),
        role: form.string("role").unwrap_or_default(),
        volumes,
        version,
        version_info: VersionInfo {
            last_scaling_at: info.as_ref().and_then(|it| time(it, "lastScalingAt")).unwrap_or(version),
            last_config_change_at: info.as_ref().and_then(|it| time(it, "lastConfigChangeAt")).unwrap_or(version),
        },
    }
}

fn read_constraints(form: &Reader<'_>) -> Vec<Constraint> {
    let one = |it: Reader<'_>| {
        let (field, operator, value) = (it.required_string("fieldName"), it.required_string("operator"), it.string("value"));
        let path = it.at("operator");
        constraint(&it, path.trim_end_matches("/operator"), &field, &operator, value.as_deref())
    };
    form.objects("constraints", one).unwrap_or_default().into_iter().flatten().collect()
}

fn read_volume(form: &Reader<'_>) -> PodVolume {
    let kind = if let Some(persistent) = form.object("persistent") {
        PodVolumeKind::Persistent(read_persistent(&persistent))
    } else if let Some(secret) = form.string("secret") {
        PodVolumeKind::Secret(secret)
    } else if let Some(host) = form.string("host") {
        PodVolumeKind::Host(host)
    } else {
        PodVolumeKind::Ephemeral
    };
    PodVolume { name: form.required_string("name"), kind }
}

/// `networks` are those that were given, which may be none.
fn read_container(form: &Reader<'_>, networks: &[Network]) -> PodContainer {
    let exec = form.object("exec");
    if !form.has("resources") {
        form.wrong("resources", "error.path.missing");
    }
    PodContainer {
        name: form.required_string("name"),
        exec: exec.as_ref().and_then(|it| it.object("command")).and_then(|it| read_command(&it)),
        override_entrypoint: exec.as_ref().and_then(|it| it.bool("overrideEntrypoint")),
        resources: form.object("resources").map_or(CONTAINER, |it| read_needs(&it, CONTAINER)),
        resource_limits: read_limits(form, "resourceLimits"),
        endpoints: form.objects("endpoints", |it| read_endpoint(&it, networks)).unwrap_or_default(),
        image: form.object("image").map(|it| PodImage {
            id: it.required_string("id"),
            kind: it.word("kind", &[("DOCKER", "DOCKER"), ("APPC", "APPC")]).unwrap_or("DOCKER").to_owned(),
            force_pull: it.bool("forcePull"),
            pull_secret: it.object("pullConfig").map(|it| it.required_string("secret")),
            labels: it.labels("labels").unwrap_or_default(),
        }),
        environment: read_env(form, "environment"),
        user: form.string("user"),
        health_check: read_pod_health(form),
        check: read_check(form, true),
        volume_mounts: form
            .objects("volumeMounts", |it| VolumeMount {
                name: it.required_string("name"),
                mount_path: it.required_string("mountPath"),
                read_only: it.bool("readOnly"),
            })
            .unwrap_or_default(),
        artifacts: read_artifacts(form, "artifacts").unwrap_or_default(),
        labels: form.labels("labels").unwrap_or_default(),
        kill_grace_seconds: form.object("lifecycle").and_then(|it| it.number("killGracePeriodSeconds", 0.0)),
        tty: form.bool("tty"),
        linux_info: read_linux_info(form),
    }
}

fn read_endpoint(form: &Reader<'_>, networks: &[Network]) -> Endpoint {
    let has = |mode| networks.iter().any(|it| it.mode == mode);
    let container_port = form.port("containerPort");
    // Not for those who name no network, and get the host's: Marathon never refused that.
    if container_port.is_some() && has(NetworkMode::Host) {
        form.invalid("containerPort", "is not allowed when using host-mode networking");
    }
    Endpoint {
        name: form.required_string("name"),
        container_port,
        // Only on a container network an endpoint may have no port on the host.
        host_port: form.port("hostPort").or_else(|| (!has(NetworkMode::Container)).then_some(0)),
        protocol: form.strings("protocol").unwrap_or_else(|| vec!["tcp".to_owned()]),
        labels: form.labels("labels").unwrap_or_default(),
        network_names: form.strings("networkNames").unwrap_or_default(),
    }
}

/// `{...}` of a pod; `stored` adds what only the server's own store needs.
pub(crate) fn write_pod(json: &mut Json, pod: &Pod, stored: bool) {
    json.object(|json| {
        json.text_field("id", pod.id.as_str());
        if !pod.labels.is_empty() {
            json.labels_field("labels", &pod.labels);
        }
        json.time_field("version", pod.version);
        if stored {
            json.object_field("versionInfo", |json| {
                json.time_field("lastScalingAt", pod.version_info.last_scaling_at);
                json.time_field("lastConfigChangeAt", pod.version_info.last_config_change_at);
            });
        }
        json.text_if("user", pod.user.as_deref());
        if !pod.environment.is_empty() {
            write_env(json, "environment", &pod.environment);
        }
        json.array_field("containers", &pod.containers, write_container);
        if !pod.secrets.is_empty() {
            write_secrets(json, &pod.secrets);
        }
        if !pod.volumes.is_empty() {
            json.array_field("volumes", &pod.volumes, |json, volume| {
                json.object(|json| {
                    json.text_field("name", &volume.name);
                    match &volume.kind {
                        PodVolumeKind::Ephemeral => {}
                        PodVolumeKind::Host(path) => json.text_field("host", path),
                        PodVolumeKind::Secret(secret) => json.text_field("secret", secret),
                        PodVolumeKind::Persistent(persistent) => write_persistent(json, persistent),
                    }
                });
            });
        }
        write_networks(json, &pod.networks);
        json.object_field("scaling", |json| {
            json.text_field("kind", "fixed");
            json.integer_field("instances", pod.instances);
        });
        write_scheduling(json, pod);
        write_executor_resources(json, pod.executor_resources);
        write_linux_info(json, pod.linux_info.as_ref());
        if let Some(shared) = pod.legacy_shared_cgroups {
            json.bool_field("legacySharedCgroups", shared);
        }
        json.text_field("role", &pod.role);
    });
}

fn write_scheduling(json: &mut Json, pod: &Pod) {
    json.object_field("scheduling", |json| {
        json.object_field("backoff", |json| {
            json.number_field("backoff", pod.backoff.seconds);
            json.number_field("backoffFactor", pod.backoff.factor);
            json.number_field("maxLaunchDelay", pod.backoff.max_launch_delay_seconds);
        });
        json.object_field("upgrade", |json| {
            json.number_field("minimumHealthCapacity", pod.upgrade_strategy.minimum_health_capacity);
            json.number_field("maximumOverCapacity", pod.upgrade_strategy.maximum_over_capacity);
        });
        json.object_field("placement", |json| {
            json.array_field("constraints", &pod.constraints, |json, it| {
                json.object(|json| {
                    json.text_field("fieldName", &it.field);
                    json.text_field("operator", it.operator.word());
                    json.text_if("value", it.value.as_deref());
                });
            });
            json.texts_field("acceptedResourceRoles", &pod.accepted_resource_roles);
        });
        write_kill_selection(json, pod.kill_selection);
        write_unreachable(json, "unreachableStrategy", pod.unreachable);
    });
}

fn write_container(json: &mut Json, it: &PodContainer) {
    json.object(|json| {
        json.text_field("name", &it.name);
        if let Some(command) = &it.exec {
            json.object_field("exec", |json| {
                match command {
                    Command::Shell(_) | Command::Argv(_) => write_command(json, command),
                }
                if let Some(overrides) = it.override_entrypoint {
                    json.bool_field("overrideEntrypoint", overrides);
                }
            });
        }
        json.object_field("resources", |json| {
            json.number_field("cpus", it.resources.cpus);
            json.number_field("mem", it.resources.mem);
            json.number_field("disk", it.resources.disk);
            json.integer_field("gpus", it.resources.gpus);
        });
        write_limits(json, it.resource_limits);
        if !it.endpoints.is_empty() {
            json.array_field("endpoints", &it.endpoints, write_endpoint);
        }
        if let Some(image) = &it.image {
            json.object_field("image", |json| {
                json.text_field("kind", &image.kind);
                json.text_field("id", &image.id);
                if let Some(secret) = &image.pull_secret {
                    json.object_field("pullConfig", |json| json.text_field("secret", secret));
                }
                if let Some(force) = image.force_pull {
                    json.bool_field("forcePull", force);
                }
                if !image.labels.is_empty() {
                    json.labels_field("labels", &image.labels);
                }
            });
        }
        if !it.environment.is_empty() {
            write_env(json, "environment", &it.environment);
        }
        json.text_if("user", it.user.as_deref());
        if let Some(check) = &it.health_check {
            write_pod_health(json, check);
        }
        if let Some(check) = &it.check {
            write_check(json, check);
        }
        if !it.volume_mounts.is_empty() {
            json.array_field("volumeMounts", &it.volume_mounts, |json, mount| {
                json.object(|json| {
                    json.text_field("name", &mount.name);
                    json.text_field("mountPath", &mount.mount_path);
                    if let Some(read_only) = mount.read_only {
                        json.bool_field("readOnly", read_only);
                    }
                });
            });
        }
        if !it.artifacts.is_empty() {
            write_artifacts(json, "artifacts", &it.artifacts);
        }
        if !it.labels.is_empty() {
            json.labels_field("labels", &it.labels);
        }
        if let Some(seconds) = it.kill_grace_seconds {
            json.object_field("lifecycle", |json| json.number_field("killGracePeriodSeconds", seconds));
        }
        if let Some(tty) = it.tty {
            json.bool_field("tty", tty);
        }
        write_linux_info(json, it.linux_info.as_ref());
    });
}

fn write_endpoint(json: &mut Json, it: &Endpoint) {
    json.object(|json| {
        json.text_field("name", &it.name);
        if let Some(port) = it.container_port {
            json.integer_field("containerPort", port);
        }
        if let Some(port) = it.host_port {
            json.integer_field("hostPort", port);
        }
        json.texts_field("protocol", &it.protocol);
        if !it.labels.is_empty() {
            json.labels_field("labels", &it.labels);
        }
        if !it.network_names.is_empty() {
            json.texts_field("networkNames", &it.network_names);
        }
    });
}
