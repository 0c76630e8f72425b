//! The agent's resources as operations have changed them, and the operations until they are acknowledged. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use mesos::{Format, Resources, conversions};
use mesos_proto::v1::offer::{self, operation};
use mesos_proto::v1::{AgentId, FrameworkId, Operation, OperationState, OperationStatus, Resource, Uuid};
use prost::Message as _;
use proto::agent::v1 as wire;

use crate::reconfiguration::{self, Incompatible, Policy};
use crate::sandbox::PersistentVolume;
use crate::words::{Ids, Now};

/// First and longest pause before a status is sent again.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// Operations that are kept without acknowledgement; the oldest go first.
const OPERATIONS_MAX: usize = 1024;

/// Resources and operations.
#[derive(Debug)]
pub struct Ledger {
    agent_id: String,
    configured: Resources,
    total: Resources,
    version: [u8; 16],
    operations: BTreeMap<Vec<u8>, Entry>,
    order: u64,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    attempts: u32,
    retry_at: Duration,
    order: u64,
}

/// What is to be done after an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Consequence {
    /// Tell the master.
    Send(Box<wire::OperationStatusUpdate>),
    /// Remove what a volume held.
    RemoveVolume(PersistentVolume),
}

/// What is stored.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    total: Vec<Resource>,
    #[prost(bytes = "vec", tag = "2")]
    version: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    operations: Vec<Operation>,
    #[prost(message, repeated, tag = "4")]
    configured: Vec<Resource>,
}

/// Why an agent with these resources cannot go on where the last one ended.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// What was stored cannot be read.
    #[error("the stored resources are damaged")]
    Damaged,
    /// The configuration has changed.
    #[error(transparent)]
    Changed(#[from] Incompatible),
}

impl Ledger {
    /// With these resources, or what was stored of them.
    ///
    /// # Errors
    /// When something was stored that does not fit.
    pub fn new(configured: &[Resource], stored: Option<&[u8]>, policy: Policy, ids: &mut dyn Ids) -> Result<Self, LedgerError> {
        let configured = Resources::from_proto(configured);
        let mut ledger = Ledger {
            agent_id: String::new(),
            total: configured.clone(),
            configured,
            version: ids.uuid(),
            operations: BTreeMap::new(),
            order: 0,
        };
        if let Some(stored) = stored {
            let stored = Stored::decode(stored).map_err(|_| LedgerError::Damaged)?;
            let before = Resources::from_proto(&stored.configured);
            reconfiguration::resources(policy, &before, &ledger.configured)?;
            // What was added is as it is configured; what was there is as operations have left it.
            ledger.total = Resources::from_proto(&stored.total).plus(&ledger.configured.minus(&before));
            if before == ledger.configured {
                ledger.version = stored.version.try_into().map_err(|_| LedgerError::Damaged)?;
            }
            for operation in stored.operations {
                ledger.insert(operation, Duration::ZERO);
            }
        }
        Ok(ledger)
    }

    /// To be stored after each change.
    pub fn stored(&self) -> Vec<u8> {
        Stored {
            total: self.total.to_proto(Format::Refined),
            version: self.version.to_vec(),
            operations: self.operations.values().map(|it| it.operation.clone()).collect(),
            configured: self.configured.to_proto(Format::Refined),
        }
        .encode_to_vec()
    }

    /// To be stored for an agent of another id on the same machine: reservations and volumes, without the operations, which were this agent's.
    /// `None` where there are none, so that it may be configured otherwise.
    pub fn for_next_agent(&self) -> Option<Vec<u8>> {
        let stored = Stored {
            total: self.total.to_proto(Format::Refined),
            version: self.version.to_vec(),
            operations: Vec::new(),
            configured: self.configured.to_proto(Format::Refined),
        };
        (self.total != self.configured).then(|| stored.encode_to_vec())
    }

    /// The agent's id, for statuses.
    pub fn set_agent_id(&mut self, id: &str) {
        id.clone_into(&mut self.agent_id);
    }

    /// All resources, allocated to nobody.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// Names the state of the resources.
    pub fn version(&self) -> [u8; 16] {
        self.version
    }

    /// Operations that are not acknowledged.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().map(|it| &it.operation)
    }

    /// Applies an operation. One that came before is answered again.
    pub fn apply(&mut self, now: Now, request: &wire::ApplyOperation, ids: &mut dyn Ids) -> Vec<Consequence> {
        if let Some(entry) = self.operations.get(&request.operation_uuid) {
            return vec![Consequence::Send(Box::new(update(&entry.operation, &self.total)))];
        }
        let decoded = offer::Operation::decode(&*request.operation);
        let info = decoded.clone().unwrap_or_default();
        let mut consequences = Vec::new();
        let outcome = match decoded {
            Err(error) => Err((OperationState::OperationError, format!("The operation cannot be read: {error}"))),
            Ok(_) if !request.resource_version_uuid.is_empty() && request.resource_version_uuid != self.version => {
                Err((OperationState::OperationDropped, "The resources have changed meanwhile".to_owned()))
            }
            Ok(info) => self.convert(&info).map_err(|problem| (OperationState::OperationError, problem)),
        };
        let (state, message, converted) = match outcome {
            Ok(converted) => {
                if info.r#type() == operation::Type::Destroy {
                    consequences.extend(destroyed(&info).into_iter().map(Consequence::RemoveVolume));
                }
                (OperationState::OperationFinished, None, converted)
            }
            Err((state, message)) => (state, Some(message), Vec::new()),
        };
        // Only who gave an id waits for a status.
        let uuid = info.id.as_ref().map(|_| Uuid { value: ids.uuid().to_vec() });
        let status = OperationStatus {
            operation_id: info.id.clone(),
            state: state as i32,
            message,
            converted_resources: converted,
            uuid,
            agent_id: Some(AgentId { value: self.agent_id.clone() }),
            resource_provider_id: None,
        };
        let operation = Operation {
            framework_id: Some(FrameworkId { value: request.framework_id.clone() }).filter(|it| !it.value.is_empty()),
            agent_id: Some(AgentId { value: self.agent_id.clone() }),
            info,
            latest_status: status.clone(),
            statuses: vec![status.clone()],
            uuid: Uuid { value: request.operation_uuid.clone() },
        };
        consequences.push(Consequence::Send(Box::new(update(&operation, &self.total))));
        if status.uuid.is_some() {
            self.insert(operation, now.steady + RETRY.0);
        }
        consequences
    }

    fn convert(&mut self, info: &offer::Operation) -> Result<Vec<Resource>, String> {
        let mut total = self.total.clone();
        let mut converted = Resources::new();
        for conversion in conversions(info)? {
            let conversion = conversion.unallocated();
            conversion.apply(&mut total)?;
            converted.add_all(&conversion.converted);
        }
        self.total = total;
        Ok(converted.to_proto(Format::Refined))
    }

    fn insert(&mut self, operation: Operation, retry_at: Duration) {
        self.order += 1;
        let entry = Entry { operation, attempts: 1, retry_at, order: self.order };
        self.operations.insert(entry.operation.uuid.value.clone(), entry);
        if self.operations.len() > OPERATIONS_MAX
            && let Some(oldest) = self.operations.iter().min_by_key(|(_, it)| it.order).map(|(uuid, _)| uuid.clone())
        {
            self.operations.remove(&oldest);
        }
    }

    /// The framework has a status. Whether that changed something.
    pub fn acknowledge(&mut self, operation: &[u8], status: &[u8]) -> bool {
        let is_it =
            self.operations.get(operation).and_then(|it| it.operation.latest_status.uuid.as_ref()).is_some_and(|it| it.value == status);
        is_it && self.operations.remove(operation).is_some()
    }

    /// Answers for operations that the master asks about.
    pub fn reconcile(&self, asked: &[Vec<u8>]) -> Vec<wire::OperationStatusUpdate> {
        let unknown = |uuid: &Vec<u8>| wire::OperationStatusUpdate {
            framework_id: String::new(),
            operation_uuid: uuid.clone(),
            status: OperationStatus {
                state: OperationState::OperationDropped as i32,
                agent_id: Some(AgentId { value: self.agent_id.clone() }),
                ..OperationStatus::default()
            }
            .encode_to_vec(),
            latest_state: OperationState::OperationDropped as i32,
            total_resources: Vec::new(),
        };
        asked.iter().map(|uuid| self.operations.get(uuid).map_or_else(|| unknown(uuid), |it| update(&it.operation, &self.total))).collect()
    }

    /// Statuses that are to be sent again.
    pub fn due(&mut self, now: Now) -> Vec<wire::OperationStatusUpdate> {
        let total = &self.total;
        let due = self.operations.values_mut().filter(|it| it.retry_at <= now.steady);
        due.map(|it| {
            let pause = RETRY.0.saturating_mul(1 << it.attempts.min(16)).min(RETRY.1);
            it.attempts = it.attempts.saturating_add(1);
            it.retry_at = now.steady + pause;
            update(&it.operation, total)
        })
        .collect()
    }
}

fn update(operation: &Operation, total: &Resources) -> wire::OperationStatusUpdate {
    wire::OperationStatusUpdate {
        framework_id: operation.framework_id.clone().unwrap_or_default().value,
        operation_uuid: operation.uuid.value.clone(),
        status: operation.latest_status.encode_to_vec(),
        latest_state: operation.latest_status.state,
        total_resources: total.to_proto(Format::Refined).iter().map(prost::Message::encode_to_vec).collect(),
    }
}

/// Volumes that are no more.
fn destroyed(info: &offer::Operation) -> Vec<PersistentVolume> {
    info.destroy.iter().flat_map(|it| &it.volumes).filter_map(PersistentVolume::of).collect()
}

#[cfg(test)]
mod tests {
    use mesos::parse_resources;

    use super::*;
    use crate::words::scalar_resource;

    struct Counting(u8);

    impl Ids for Counting {
        fn uuid(&mut self) -> [u8; 16] {
            self.0 += 1;
            [self.0; 16]
        }
    }

    fn reserve(uuid: u8, cpus: f64) -> wire::ApplyOperation {
        let mut resource = scalar_resource("cpus", cpus);
        resource.reservations = vec![mesos_proto::v1::resource::ReservationInfo {
            r#type: Some(mesos_proto::v1::resource::reservation_info::Type::Dynamic as i32),
            role: Some("dev".to_owned()),
            ..Default::default()
        }];
        let operation = offer::Operation {
            r#type: Some(operation::Type::Reserve as i32),
            id: Some(mesos_proto::v1::OperationId { value: "o".to_owned() }),
            reserve: Some(operation::Reserve { resources: vec![resource], ..Default::default() }),
            ..Default::default()
        };
        wire::ApplyOperation { operation: operation.encode_to_vec(), operation_uuid: vec![uuid; 16], ..Default::default() }
    }

    fn state(consequences: &[Consequence]) -> i32 {
        match consequences {
            [Consequence::Send(it)] => it.latest_state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reservation_is_applied_once_kept_until_acknowledged_and_survives() {
        let configured = parse_resources("cpus:4;mem:100", "*").unwrap();
        let now = Now { wall: 0.0, steady: Duration::ZERO };
        let mut ids = Counting(0);
        let mut ledger = Ledger::new(&configured, None, Policy::Equal, &mut ids).unwrap();
        for _ in 0..2 {
            assert_eq!(state(&ledger.apply(now, &reserve(1, 3.0), &mut ids)), OperationState::OperationFinished as i32);
        }
        assert_eq!(state(&ledger.apply(now, &reserve(2, 3.0), &mut ids)), OperationState::OperationError as i32);
        let mut again = Ledger::new(&configured, Some(&ledger.stored()), Policy::Equal, &mut ids).unwrap();
        assert_eq!((again.total(), again.operations().count()), (ledger.total(), 2));
        let status = again.operations().next().unwrap().latest_status.uuid.clone().unwrap().value;
        assert!(!again.acknowledge(&[1; 16], &[9; 16]) && again.acknowledge(&[1; 16], &status));
        assert_eq!(again.due(now).len(), 1);
        assert!(again.due(now).is_empty());
        let dropped = again.reconcile(&[vec![1; 16]]).remove(0);
        assert_eq!(dropped.latest_state, OperationState::OperationDropped as i32);
        let more = parse_resources("cpus:6;mem:100", "*").unwrap();
        let grown = Ledger::new(&more, Some(&ledger.stored()), Policy::Additive, &mut ids).unwrap();
        assert_eq!(grown.total().minus(ledger.total()), Resources::from_proto(&parse_resources("cpus:2", "*").unwrap()));
        assert!(grown.total().contains(ledger.total()) && grown.version() != ledger.version());
        let other = parse_resources("cpus:8", "*").unwrap();
        assert!(matches!(Ledger::new(&other, Some(&ledger.stored()), Policy::Equal, &mut ids), Err(LedgerError::Changed(_))));
        assert!(matches!(Ledger::new(&other, Some(b"\xff"), Policy::Equal, &mut ids), Err(LedgerError::Damaged)));
    }

    #[test]
    fn reservations_stay_with_the_machine_when_its_agent_is_another() {
        let configured = parse_resources("cpus:4;mem:100", "*").unwrap();
        let now = Now { wall: 0.0, steady: Duration::ZERO };
        let mut ids = Counting(0);
        let mut ledger = Ledger::new(&configured, None, Policy::Equal, &mut ids).unwrap();
        assert_eq!(ledger.for_next_agent(), None);
        ledger.apply(now, &reserve(1, 3.0), &mut ids);
        let next = Ledger::new(&configured, ledger.for_next_agent().as_deref(), Policy::Equal, &mut ids).unwrap();
        assert_eq!((next.total(), next.operations().count()), (ledger.total(), 0));
    }

    #[test]
    fn what_cannot_be_read_or_is_stale_is_answered() {
        let configured = parse_resources("cpus:4", "*").unwrap();
        let now = Now { wall: 0.0, steady: Duration::ZERO };
        let mut ids = Counting(0);
        let mut ledger = Ledger::new(&configured, None, Policy::Equal, &mut ids).unwrap();
        let nonsense = wire::ApplyOperation { operation: vec![0xff], operation_uuid: vec![7; 16], ..Default::default() };
        assert_eq!(state(&ledger.apply(now, &nonsense, &mut ids)), OperationState::OperationError as i32);
        let stale = wire::ApplyOperation { resource_version_uuid: vec![0; 16], ..reserve(3, 1.0) };
        assert_eq!(state(&ledger.apply(now, &stale, &mut ids)), OperationState::OperationDropped as i32);
        assert_eq!(ledger.total(), &Resources::from_proto(&configured));
    }
}
