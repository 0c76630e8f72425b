//! Containers of apps: images, volumes, mapped ports.

use scheduler::model::Constraint;
use scheduler::model::container::{
    Container, ContainerKind, DiskKind, Docker, ExternalVolume, IpcMode, LinuxInfo, PersistentVolume, PortMapping, Volume, VolumeKind,
};
use serde_json::Value;

use super::pieces::{read_constraints, read_protocol, write_constraints};
use super::{Json, Reader};

const KINDS: [(&str, ContainerKind); 2] = [("DOCKER", ContainerKind::Docker), ("MESOS", ContainerKind::Mesos)];

/// A container as it was written, old spellings included.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) container: Container,
    /// The mapped ports, when any were given, at the new place or the old one.
    pub(crate) mappings: Option<Vec<PortMapping>>,
    /// The network of old definitions: `HOST`, `BRIDGE`, `USER` or `NONE`.
    pub(crate) docker_network: Option<&'static str>,
}

pub(crate) fn read_container(form: &Reader<'_>) -> Option<Written> {
    let form = form.object("container")?;
    let docker_form = form.object("docker");
    let docker = docker_form.as_ref().map(read_docker);
    let docker_network = docker_form
        .as_ref()
        .and_then(|it| it.word("network", &[("HOST", "HOST"), ("BRIDGE", "BRIDGE"), ("USER", "USER"), ("NONE", "NONE")]));
    let mappings = read_mappings(&form);
    let old_mappings = docker_form.as_ref().and_then(read_mappings);
    if mappings.is_some() && old_mappings.is_some() {
        form.invalid("portMappings", "cannot specify both portMappings and docker.portMappings");
    }
    let kind = form.word("type", &KINDS).unwrap_or(ContainerKind::Docker);
    if let Some(docker) = &docker_form {
        only_present(docker, kind);
    }
    let container = Container {
        kind,
        docker,
        volumes: form.objects("volumes", |it| read_volume(&it)).unwrap_or_default().into_iter().flatten().collect(),
        port_mappings: Vec::new(),
        linux_info: read_linux_info(&form),
    };
    Some(Written { container, mappings: mappings.or(old_mappings), docker_network })
}

/// What images have been said with in the past, and cannot be any more.
fn only_present(docker: &Reader<'_>, kind: ContainerKind) {
    let parameters = docker.items("parameters").is_some_and(|mut it| it.next().is_some());
    let old = [("network", docker.has("network")), ("parameters", parameters), ("portMappings", docker.has("portMappings"))];
    let of_mesos = old.iter().filter(|(_, given)| *given && kind == ContainerKind::Mesos).map(|(key, _)| *key);
    for key in docker.has("credential").then_some("credential").into_iter().chain(of_mesos) {
        docker.invalid(key, "must be empty");
    }
}

fn read_docker(form: &Reader<'_>) -> Docker {
    Docker {
        image: form.string("image").unwrap_or_default(),
        force_pull_image: form.bool("forcePullImage").unwrap_or(false),
        privileged: form.bool("privileged").unwrap_or(false),
        parameters: form.objects("parameters", |it| (it.required_string("key"), it.required_string("value"))).unwrap_or_default(),
        pull_secret: form.object("pullConfig").map(|it| it.required_string("secret")),
        credential: form.object("credential").map(|it| (it.required_string("principal"), it.string("secret"))),
    }
}

fn read_mappings(form: &Reader<'_>) -> Option<Vec<PortMapping>> {
    form.objects("portMappings", |it| PortMapping {
        container_port: it.port("containerPort").unwrap_or(0),
        host_port: it.port("hostPort"),
        service_port: it.port("servicePort").unwrap_or(0),
        protocol: read_protocol(&it),
        name: it.string("name"),
        labels: it.labels("labels").unwrap_or_default(),
        network_names: it.strings("networkNames").unwrap_or_default(),
    })
}

pub(crate) fn read_persistent(form: &Reader<'_>) -> PersistentVolume {
    let profile = form.string("profileName");
    let disk = form.word("type", &[("root", DiskKind::Root), ("path", DiskKind::Path), ("mount", DiskKind::Mount)]);
    PersistentVolume {
        disk: disk.unwrap_or(if profile.is_some() { DiskKind::Mount } else { DiskKind::Root }),
        size: form.integer("size", 0, 1 << 31).unwrap_or(0),
        max_size: form.integer("maxSize", 0, 1 << 31),
        profile,
        constraints: read_constraints(form, "constraints"),
    }
}

pub(crate) fn write_persistent(json: &mut Json, volume: &PersistentVolume) {
    json.object_field("persistent", |json| {
        json.text_field("type", volume.disk.word());
        json.integer_field("size", volume.size);
        if let Some(size) = volume.max_size {
            json.integer_field("maxSize", size);
        }
        json.text_if("profileName", volume.profile.as_deref());
        let constraints: &[Constraint] = &volume.constraints;
        write_constraints(json, "constraints", constraints);
    });
}

fn read_volume(form: &Reader<'_>) -> Option<Volume> {
    let kind = if let Some(persistent) = form.object("persistent") {
        VolumeKind::Persistent(read_persistent(&persistent))
    } else if let Some(external) = form.object("external") {
        VolumeKind::External(read_external(&external))
    } else if form.has("secret") {
        VolumeKind::Secret(form.required_string("secret"))
    } else if form.has("hostPath") {
        VolumeKind::Host(form.required_string("hostPath"))
    } else {
        form.wrong("hostPath", "error.path.missing");
        return None;
    };
    let mode = form.word("mode", &[("RO", true), ("RW", false)]);
    if mode.is_none() && !form.has("mode") && !matches!(kind, VolumeKind::Secret(_)) {
        form.wrong("mode", "error.path.missing");
    }
    Some(Volume { container_path: form.required_string("containerPath"), read_only: mode.unwrap_or(false), kind })
}

fn read_external(form: &Reader<'_>) -> ExternalVolume {
    let provider = form.string("provider").unwrap_or_else(|| "dvdi".to_owned());
    let is_csi = provider == "csi";
    ExternalVolume {
        name: form.string("name").unwrap_or_default(),
        size: form.integer("size", 0, 1 << 31),
        options: if is_csi { Default::default() } else { form.labels("options").unwrap_or_default() },
        csi: if is_csi { form.value("options").map(Value::to_string) } else { None },
        shared: form.bool("shared").unwrap_or(false),
        provider,
    }
}

pub(crate) fn read_linux_info(form: &Reader<'_>) -> Option<LinuxInfo> {
    let form = form.object("linuxInfo")?;
    let seccomp = form.object("seccomp").map(|it| (it.string("profileName"), it.bool("unconfined").unwrap_or(false)));
    let ipc = form.object("ipcInfo").map(|it| {
        let mode =
            it.word("mode", &[("PRIVATE", IpcMode::Private), ("SHARE_PARENT", IpcMode::ShareParent)]).unwrap_or(IpcMode::ShareParent);
        (mode, it.u32("shmSize"))
    });
    Some(LinuxInfo { seccomp, ipc })
}

pub(crate) fn write_linux_info(json: &mut Json, info: Option<&LinuxInfo>) {
    let Some(info) = info else { return };
    json.object_field("linuxInfo", |json| {
        if let Some((profile, unconfined)) = &info.seccomp {
            json.object_field("seccomp", |json| {
                json.text_if("profileName", profile.as_deref());
                json.bool_field("unconfined", *unconfined);
            });
        }
        if let Some((mode, size)) = info.ipc {
            json.object_field("ipcInfo", |json| {
                json.text_field("mode", if mode == IpcMode::Private { "PRIVATE" } else { "SHARE_PARENT" });
                if let Some(size) = size {
                    json.integer_field("shmSize", size);
                }
            });
        }
    });
}

pub(crate) fn write_container(json: &mut Json, container: &Container, host_mode: bool) {
    json.object_field("container", |json| {
        json.text_field("type", container.kind.word());
        if let Some(docker) = &container.docker {
            write_docker(json, docker);
        }
        json.array_field("volumes", &container.volumes, write_volume);
        if !host_mode {
            json.array_field("portMappings", &container.port_mappings, write_mapping);
        }
        write_linux_info(json, container.linux_info.as_ref());
    });
}

fn write_docker(json: &mut Json, docker: &Docker) {
    json.object_field("docker", |json| {
        json.bool_field("forcePullImage", docker.force_pull_image);
        json.text_field("image", &docker.image);
        json.array_field("parameters", &docker.parameters, |json, (key, value)| {
            json.object(|json| {
                json.text_field("key", key);
                json.text_field("value", value);
            });
        });
        json.bool_field("privileged", docker.privileged);
        if let Some(secret) = &docker.pull_secret {
            json.object_field("pullConfig", |json| json.text_field("secret", secret));
        }
        if let Some((principal, secret)) = &docker.credential {
            json.object_field("credential", |json| {
                json.text_field("principal", principal);
                json.text_if("secret", secret.as_deref());
            });
        }
    });
}

fn write_volume(json: &mut Json, volume: &Volume) {
    json.object(|json| {
        json.text_field("containerPath", &volume.container_path);
        if !matches!(volume.kind, VolumeKind::Secret(_)) {
            json.text_field("mode", if volume.read_only { "RO" } else { "RW" });
        }
        match &volume.kind {
            VolumeKind::Host(path) => json.text_field("hostPath", path),
            VolumeKind::Secret(secret) => json.text_field("secret", secret),
            VolumeKind::Persistent(persistent) => write_persistent(json, persistent),
            VolumeKind::External(external) => json.object_field("external", |json| {
                json.text_field("name", &external.name);
                json.text_field("provider", &external.provider);
                if let Some(size) = external.size {
                    json.integer_field("size", size);
                }
                match &external.csi {
                    Some(options) => json.key("options").raw(options),
                    None => json.labels_field("options", &external.options),
                }
                json.bool_field("shared", external.shared);
            }),
        }
    });
}

fn write_mapping(json: &mut Json, mapping: &PortMapping) {
    json.object(|json| {
        json.integer_field("containerPort", mapping.container_port);
        if let Some(port) = mapping.host_port {
            json.integer_field("hostPort", port);
        }
        json.labels_field("labels", &mapping.labels);
        json.text_if("name", mapping.name.as_deref());
        json.text_field("protocol", &mapping.protocol);
        json.integer_field("servicePort", mapping.service_port);
        if !mapping.network_names.is_empty() {
            json.texts_field("networkNames", &mapping.network_names);
        }
    });
}
