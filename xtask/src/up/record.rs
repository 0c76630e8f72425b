//! What `up` leaves behind for `down`, `status` and the next `up`: which processes are ours.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Checkout;
use crate::services::{Addresses, Service, start_time};

/// A process of ours, told from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: u32,
    /// When it began, in clock ticks since boot.
    start_time: u64,
}

impl Process {
    fn of(pid: u32) -> Self {
        Self { pid, start_time: start_time(pid).unwrap_or(0) }
    }

    /// Whether it is the same process still.
    pub(crate) fn is_running(self) -> bool {
        self.start_time != 0 && start_time(self.pid) == Some(self.start_time) && !is_zombie(self.pid)
    }

    fn to_json(self) -> Value {
        json!({ "pid": self.pid, "startTime": self.start_time })
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(Self { pid: u32::try_from(value["pid"].as_u64()?).ok()?, start_time: value["startTime"].as_u64()? })
    }
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Page and API.
    pub(crate) http: SocketAddr,
    /// The xtask that started it.
    pub(crate) up: Process,
    /// The control plane.
    pub(crate) control: Process,
    /// The probe.
    pub(crate) probe: Process,
    /// Whether `up` returned and left them running.
    pub(crate) detached: bool,
}

impl Record {
    pub(crate) fn new(addresses: &Addresses, control: &Service, probe: &Service, detached: bool) -> Self {
        Self {
            http: addresses.http,
            up: Process::of(std::process::id()),
            control: Process::of(control.pid()),
            probe: Process::of(probe.pid()),
            detached,
        }
    }

    /// The record of a run of which something still runs.
    pub(crate) fn of_running(checkout: &Checkout) -> Option<Self> {
        let value: Value = serde_json::from_slice(&fs::read(file(checkout)).ok()?).ok()?;
        let record = Self {
            http: value["http"].as_str()?.parse().ok()?,
            up: Process::from_json(&value["up"])?,
            control: Process::from_json(&value["control"])?,
            probe: Process::from_json(&value["probe"])?,
            detached: value["detached"].as_bool()?,
        };
        (record.control.is_running() || record.probe.is_running()).then_some(record)
    }

    pub(crate) fn write(&self, checkout: &Checkout) -> Result<()> {
        let value = json!({
            "http": self.http.to_string(),
            "up": self.up.to_json(),
            "control": self.control.to_json(),
            "probe": self.probe.to_json(),
            "detached": self.detached,
        });
        let file = file(checkout);
        fs::write(&file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn forget(checkout: &Checkout) -> Result<()> {
        let file = file(checkout);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// The page's address.
    pub(crate) fn page(&self) -> String {
        format!("http://{}", self.http)
    }
}

fn file(checkout: &Checkout) -> PathBuf {
    checkout.run_directory().join("run.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_the_same_pid_but_another_start_is_not_ours() {
        let ours = Process::of(std::process::id());
        assert!(ours.is_running());
        let earlier = Process { start_time: ours.start_time - 1, ..ours };
        assert!(!earlier.is_running());
    }
}
