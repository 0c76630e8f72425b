//! What outlives the master: which agents were admitted, are unreachable or gone, quotas, weights, maintenance.
//!
//! Kept as one record per thing, so that a change writes what it changes. The driver puts and deletes the records of a write in one transaction,
//! and gives all of them back at the start.

use std::sync::Arc;

use base::Timestamp;
use imbl::OrdMap;
use mesos::AgentId;
use mesos_proto::v1;
use prost::Message;

/// One record that is put, or deleted when it has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name; a `/`-separated path.
    pub key: String,
    /// Its bytes.
    pub value: Option<Vec<u8>>,
}

/// An agent that was admitted.
#[derive(Clone, PartialEq, Message)]
pub struct Admitted {
    /// As it described itself.
    #[prost(message, required, tag = "1")]
    pub info: v1::AgentInfo,
    /// Set while it drains and when it is drained.
    #[prost(message, optional, tag = "2")]
    pub drain: Option<v1::DrainInfo>,
    /// An operator wants nothing of it offered.
    #[prost(bool, tag = "3")]
    pub deactivated: bool,
}

/// An agent that is unreachable.
#[derive(Clone, PartialEq, Message)]
pub struct Unreachable {
    /// Since when, in nanoseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub since: u64,
    /// As of an admitted agent.
    #[prost(message, optional, tag = "2")]
    pub drain: Option<v1::DrainInfo>,
    /// As of an admitted agent.
    #[prost(bool, tag = "3")]
    pub deactivated: bool,
}

/// A number on its own.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(uint64, tag = "2")]
    nanos: u64,
}

/// A record that cannot be read: the registry was written by something newer, or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("registry record {key} cannot be read")]
pub struct RegistryError {
    /// Which.
    pub key: String,
    #[source]
    source: Option<prost::DecodeError>,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Admitted agents.
    pub agents: OrdMap<AgentId, Arc<Admitted>>,
    /// Unreachable agents.
    pub unreachable: OrdMap<AgentId, Arc<Unreachable>>,
    /// Agents that will never come back, and since when.
    pub gone: OrdMap<AgentId, Timestamp>,
    /// Machines that are down.
    pub down: OrdMap<String, v1::MachineId>,
    /// Planned maintenance.
    pub schedule: v1::maintenance::Schedule,
    /// Quotas that are not the default, by role.
    pub quotas: OrdMap<String, v1::quota::QuotaConfig>,
    /// Weights that were set, by role.
    pub weights: OrdMap<String, f64>,
}

/// One change of the registry: what is afterwards, whatever was before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Admitted; no longer unreachable.
    Admit(AgentId, Arc<Admitted>),
    /// Unreachable; no longer admitted.
    Unreachable(AgentId, Arc<Unreachable>),
    /// Gone; neither admitted nor unreachable.
    Gone(AgentId, Timestamp),
    /// Forgotten.
    Remove(AgentId),
    /// Forgotten among the gone ones.
    ForgetGone(AgentId),
    /// Down, or no longer.
    Down(v1::MachineId, bool),
    /// Planned.
    Schedule(v1::maintenance::Schedule),
    /// Guaranteed and limited; none: default.
    Quota(String, Option<v1::quota::QuotaConfig>),
    /// Weighed.
    Weight(String, f64),
}

/// How a machine is named in keys: host names do not differ by case.
pub(crate) fn machine_key(machine: &v1::MachineId) -> String {
    let hostname = machine.hostname.as_deref().unwrap_or_default().to_lowercase();
    format!("{hostname}|{}", machine.ip.as_deref().unwrap_or_default())
}

impl Registry {
    /// From all records, in any order.
    ///
    /// # Errors
    ///
    /// When a record is malformed or of a kind that this version does not know: it must not be taken for absent.
    pub fn load(records: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Registry, RegistryError> {
        let mut registry = Registry::default();
        for (key, value) in records {
            registry.load_one(&key, &value).map_err(|source| RegistryError { key, source })?;
        }
        Ok(registry)
    }

    fn load_one(&mut self, key: &str, value: &[u8]) -> Result<(), Option<prost::DecodeError>> {
        let (kind, name) = key.split_once('/').ok_or(None)?;
        match kind {
            "agents" => {
                self.agents.insert(name.into(), Arc::new(Admitted::decode(value)?));
            }
            "unreachable" => {
                self.unreachable.insert(name.into(), Arc::new(Unreachable::decode(value)?));
            }
            "gone" => {
                self.gone.insert(name.into(), Timestamp::from_unix_nanos(Number::decode(value)?.nanos));
            }
            "down" => {
                self.down.insert(name.to_owned(), v1::MachineId::decode(value)?);
            }
            "schedule" => self.schedule = v1::maintenance::Schedule::decode(value)?,
            "quotas" => {
                self.quotas.insert(name.to_owned(), v1::quota::QuotaConfig::decode(value)?);
            }
            "weights" => {
                self.weights.insert(name.to_owned(), Number::decode(value)?.value);
            }
            _ => return Err(None),
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Admit(id, admitted) => {
                self.unreachable.remove(&id);
                self.agents.insert(id, admitted);
            }
            Change::Unreachable(id, unreachable) => {
                self.agents.remove(&id);
                self.unreachable.insert(id, unreachable);
            }
            Change::Gone(id, at) => {
                self.agents.remove(&id);
                self.unreachable.remove(&id);
                self.gone.insert(id, at);
            }
            Change::Remove(id) => {
                self.agents.remove(&id);
                self.unreachable.remove(&id);
            }
            Change::ForgetGone(id) => {
                self.gone.remove(&id);
            }
            Change::Down(machine, true) => {
                self.down.insert(machine_key(&machine), machine);
            }
            Change::Down(machine, false) => {
                self.down.remove(&machine_key(&machine));
            }
            Change::Schedule(schedule) => self.schedule = schedule,
            Change::Quota(role, Some(quota)) => {
                self.quotas.insert(role, quota);
            }
            Change::Quota(role, None) => {
                self.quotas.remove(&role);
            }
            Change::Weight(role, weight) => {
                self.weights.insert(role, weight);
            }
        }
    }
}

impl Change {
    /// Adds what has to be written for this change.
    pub(crate) fn records(&self, records: &mut Vec<Record>) {
        let mut put = |kind: &str, name: &str, value: Option<Vec<u8>>| {
            records.push(Record { key: format!("{kind}/{name}"), value });
        };
        match self {
            Change::Admit(id, admitted) => {
                put("unreachable", id, None);
                put("agents", id, Some(admitted.encode_to_vec()));
            }
            Change::Unreachable(id, unreachable) => {
                put("agents", id, None);
                put("unreachable", id, Some(unreachable.encode_to_vec()));
            }
            Change::Gone(id, at) => {
                put("agents", id, None);
                put("unreachable", id, None);
                put("gone", id, Some(Number { value: 0.0, nanos: at.unix_nanos() }.encode_to_vec()));
            }
            Change::Remove(id) => {
                put("agents", id, None);
                put("unreachable", id, None);
            }
            Change::ForgetGone(id) => put("gone", id, None),
            Change::Down(machine, down) => put("down", &machine_key(machine), down.then(|| machine.encode_to_vec())),
            Change::Schedule(schedule) => put("schedule", "all", Some(schedule.encode_to_vec())),
            Change::Quota(role, quota) => put("quotas", role, quota.as_ref().map(Message::encode_to_vec)),
            Change::Weight(role, weight) => put("weights", role, Some(Number { value: *weight, nanos: 0 }.encode_to_vec())),
        }
    }
}
