//! What reports of old releases lack is made up for, and what cannot be drawn leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Dns, Kind, Node, Report};
use crate::text::{Text, endpoint_parts};
use crate::time::Time;

impl Report {
    /// As the newest probes would have sent it.
    pub fn upgrade(&mut self) {
        self.upgrade_replica_sets();
        self.upgrade_namespaces();
        self.upgrade_dns();
        self.upgrade_orchestrated();
    }

    /// A delta without the full report that it builds on says too little of a node: such nodes are not shown.
    pub fn drop_partial(&mut self) {
        for table in &mut self.tables {
            table.nodes.retain(|_, node| node.topology.is_some());
        }
    }

    /// When probes stopped to tell of replica sets, they began to name the deployments of a pod instead.
    fn upgrade_replica_sets(&mut self) {
        if self.table(Kind::ReplicaSet).nodes.is_empty() {
            return;
        }
        let sets = self.table(Kind::ReplicaSet).nodes.clone();
        for pod in self.table_mut(Kind::Pod).nodes.values_mut().filter(|pod| pod.parents.contains_key("replica_set")) {
            let pod = Arc::make_mut(pod);
            let named = pod.parents.remove("replica_set").unwrap_or_default();
            let deployments = named.iter().filter_map(|id| sets.get(id)?.parents.get("deployment")).flatten().cloned();
            let deployments: BTreeSet<Text> = deployments.collect();
            if !deployments.is_empty() {
                pod.parents.entry("deployment".into()).or_default().extend(deployments);
            }
        }
    }

    fn upgrade_namespaces(&mut self) {
        if !self.table(Kind::Namespace).nodes.is_empty() {
            return;
        }
        let mut names = BTreeSet::new();
        for kind in [Kind::Pod, Kind::Service, Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::CronJob] {
            let nodes = self.table(kind).nodes.values();
            let live = nodes.filter(|node| node.value("kubernetes_state").is_none_or(|state| &**state != "deleted"));
            names.extend(live.filter_map(|node| node.value("kubernetes_namespace")).cloned());
        }
        for name in names {
            let id: Text = format!("{name};<namespace>").into();
            let mut node = Node::new(id.clone(), Kind::Namespace);
            node.set("kubernetes_name", Time::ZERO, name);
            self.table_mut(Kind::Namespace).nodes.insert(id, Arc::new(node));
        }
    }

    /// Scope's probes add tasks and services of ECS and of Swarm when everything else has been told its table already, and forget them. What is
    /// left of them in a delta has no id, and stays what it is.
    fn upgrade_orchestrated(&mut self) {
        for kind in [Kind::EcsTask, Kind::EcsService, Kind::SwarmService] {
            for node in self.table_mut(kind).nodes.values_mut().filter(|node| node.topology.is_none() && node.id.is_some()) {
                Arc::make_mut(node).topology = Some(kind.name().into());
            }
        }
    }

    fn upgrade_dns(&mut self) {
        if !self.dns.is_empty() {
            return;
        }
        let mut dns: BTreeMap<Text, Dns> = BTreeMap::new();
        for (id, endpoint) in &self.table(Kind::Endpoint).nodes {
            let Some((_, address, _)) = endpoint_parts(id) else { continue };
            let (forward, reverse) = (endpoint.sets.get("snooped_dns_names"), endpoint.sets.get("reverse_dns_names"));
            if forward.is_some() || reverse.is_some() {
                let names = dns.entry(address.into()).or_default();
                names.forward.extend(forward.into_iter().flatten().cloned());
                names.reverse.extend(reverse.into_iter().flatten().cloned());
            }
        }
        self.dns = dns;
    }
}
