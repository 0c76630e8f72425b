//! The measurements, one file each.

pub(crate) mod containers;
pub(crate) mod core;
pub(crate) mod ensemble;
pub(crate) mod failover;
pub(crate) mod launch;
pub(crate) mod offers;
pub(crate) mod utilization;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;

use crate::agent::{self, Agent, Introduction, Watcher};
use crate::framework::{self, Framework, Scheduler};

/// How long many agents may take to register.
const REGISTER_PATIENCE: Duration = Duration::from_secs(180);

/// So many agents of one size.
async fn agents(grpc: SocketAddr, count: u32, resources: &str, watcher: Rc<dyn Watcher>) -> Result<Vec<Agent>> {
    let introduction = Introduction { resources: agent::resources(resources), id: None, frameworks: Vec::new(), tasks: Vec::new() };
    agent::start_all(grpc, (0..count).map(|_| introduction.clone()).collect(), watcher, REGISTER_PATIENCE).await
}

/// So many frameworks in so many roles.
async fn frameworks(mesos: SocketAddr, count: u32, roles: u32, scheduler: &Rc<dyn Scheduler>) -> Result<Vec<Framework>> {
    let mut all = Vec::new();
    for number in 0..count as usize {
        let info = framework::info(number, &format!("role{}", number % roles.max(1) as usize));
        all.push(framework::start(mesos, number, &info, scheduler.clone()).await?);
    }
    Ok(all)
}
