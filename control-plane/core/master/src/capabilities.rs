//! What a framework and an agent can do, as bits.

use mesos_proto::v1;
use v1::agent_info::capability::Type as AgentType;
use v1::framework_info::capability::Type as FrameworkType;

/// Capabilities of a framework.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameworkCapabilities(u32);

impl FrameworkCapabilities {
    /// As it says of itself.
    pub fn of(info: &v1::FrameworkInfo) -> Self {
        FrameworkCapabilities(bits(info.capabilities.iter().filter_map(|it| it.r#type)))
    }

    fn has(self, it: FrameworkType) -> bool {
        self.0 & (1 << (it as u32)) != 0
    }

    /// Takes revocable resources.
    pub fn revocable_resources(self) -> bool {
        self.has(FrameworkType::RevocableResources)
    }

    /// Wants TASK_KILLING.
    pub fn task_killing_state(self) -> bool {
        self.has(FrameworkType::TaskKillingState)
    }

    /// Takes agents with GPUs.
    pub fn gpu_resources(self) -> bool {
        self.has(FrameworkType::GpuResources)
    }

    /// Takes shared volumes.
    pub fn shared_resources(self) -> bool {
        self.has(FrameworkType::SharedResources)
    }

    /// Knows TASK_UNREACHABLE and the other states that used to be TASK_LOST.
    pub fn partition_aware(self) -> bool {
        self.has(FrameworkType::PartitionAware)
    }

    /// Has several roles.
    pub fn multi_role(self) -> bool {
        self.has(FrameworkType::MultiRole)
    }

    /// Knows stacks of reservations.
    pub fn reservation_refinement(self) -> bool {
        self.has(FrameworkType::ReservationRefinement)
    }

    /// Takes agents of other regions.
    pub fn region_aware(self) -> bool {
        self.has(FrameworkType::RegionAware)
    }
}

/// Capabilities of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCapabilities(u32);

impl AgentCapabilities {
    /// As it says of itself.
    pub fn of(capabilities: &[v1::agent_info::Capability]) -> Self {
        AgentCapabilities(bits(capabilities.iter().filter_map(|it| it.r#type)))
    }

    fn has(self, it: AgentType) -> bool {
        self.0 & (1 << (it as u32)) != 0
    }

    /// Knows roles that are paths.
    pub fn hierarchical_role(self) -> bool {
        self.has(AgentType::HierarchicalRole)
    }

    /// Knows stacks of reservations.
    pub fn reservation_refinement(self) -> bool {
        self.has(AgentType::ReservationRefinement)
    }

    /// Can grow and shrink volumes.
    pub fn resize_volume(self) -> bool {
        self.has(AgentType::ResizeVolume)
    }

    /// Tells what became of operations that have an id.
    pub fn operation_feedback(self) -> bool {
        self.has(AgentType::AgentOperationFeedback)
    }

    /// Can drain.
    pub fn draining(self) -> bool {
        self.has(AgentType::AgentDraining)
    }

    /// Can give tasks more than they are accounted for.
    pub fn task_resource_limits(self) -> bool {
        self.has(AgentType::TaskResourceLimits)
    }
}

fn bits(types: impl Iterator<Item = i32>) -> u32 {
    types.filter_map(|it| u32::try_from(it).ok()).filter(|it| *it < 32).fold(0, |bits, it| bits | 1 << it)
}
