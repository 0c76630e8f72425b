//! Containers and images.

use proto::probe::v1 as wire;
use topology::{Container, ContainerState, Image, PortMapping};

use super::fields::{each, id, port, written_address};
use super::{Checked, Converter, Fault, NAME_MAX, TEXT_MAX};

/// Longest word for a container's health.
const HEALTH_MAX: usize = 64;

impl Converter {
    pub(super) fn container(&mut self, container: wire::Container) -> Checked<Container> {
        Ok(Container {
            id: id("id", &container.id)?,
            name: self.text(container.name, NAME_MAX),
            image_id: self.text(container.image_id, NAME_MAX),
            image_name: self.text(container.image_name, NAME_MAX),
            command: self.text(container.command, TEXT_MAX),
            state: container_state(container.state)?,
            state_human: self.text(container.state_human, NAME_MAX),
            created_at: self.time(container.created_at_unix_nanos),
            started_at: self.optional_time(container.started_at_unix_nanos),
            restart_count: container.restart_count,
            hostname: self.text(container.hostname, NAME_MAX),
            labels: self.texts(container.labels),
            environment: self.texts(container.environment),
            networks: container.networks.into_iter().map(|it| self.text(it, NAME_MAX)).collect(),
            addresses: each("addresses", container.addresses, |it| written_address("address", &it))?,
            ports: each("ports", container.ports, |it| self.port_mapping(it))?,
            pid: container.pid,
            network_mode: self.text(container.network_mode, NAME_MAX),
            runtime: self.text(container.runtime, NAME_MAX),
            health: self.text(container.health, HEALTH_MAX),
            exit_code: container.exit_code,
            oom_killed: container.oom_killed,
        })
    }

    pub(super) fn port_mapping(&mut self, mapping: wire::PortMapping) -> Checked<PortMapping> {
        let host = if mapping.host_address.is_empty() {
            None
        } else {
            Some((written_address("host_address", &mapping.host_address)?, port("host_port", mapping.host_port)?))
        };
        Ok(PortMapping { container_port: port("container_port", mapping.container_port)?, protocol: self.text(mapping.protocol, 16), host })
    }

    pub(super) fn image(&mut self, image: wire::Image) -> Checked<Image> {
        Ok(Image {
            id: id("id", &image.id)?,
            name: self.text(image.name, NAME_MAX),
            size_bytes: image.size_bytes,
            virtual_size_bytes: image.virtual_size_bytes,
            labels: self.texts(image.labels),
        })
    }
}

fn container_state(state: i32) -> Checked<ContainerState> {
    match wire::ContainerState::try_from(state) {
        Ok(wire::ContainerState::Created) => Ok(ContainerState::Created),
        Ok(wire::ContainerState::Running) => Ok(ContainerState::Running),
        Ok(wire::ContainerState::Paused) => Ok(ContainerState::Paused),
        Ok(wire::ContainerState::Restarting) => Ok(ContainerState::Restarting),
        Ok(wire::ContainerState::Exited) => Ok(ContainerState::Exited),
        Ok(wire::ContainerState::Dead) => Ok(ContainerState::Dead),
        Ok(wire::ContainerState::Unspecified) | Err(_) => Err(Fault::malformed(format!("state is {state}"))),
    }
}
