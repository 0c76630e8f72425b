//! CPU and memory of tasks, as their agents tell them at `/monitor/statistics`: any Mesos agent does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::{Looked, Place, Usage, Used};
use crate::settings::Settings;

/// Bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;
/// How long an agent, or the master, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what the master says of where agents are holds.
const AGENTS_FOR: Duration = Duration::from_secs(60);
/// Agents asked at once.
const AT_ONCE: usize = 32;

/// Asks agents what their tasks use; and the master where agents are.
#[derive(Debug)]
pub struct AgentUsage {
    settings: Arc<Settings>,
    agents: Mutex<Agents>,
}

#[derive(Debug, Default)]
struct Agents {
    asked: Option<Instant>,
    /// `host:port` by id.
    addresses: BTreeMap<String, String>,
}

impl AgentUsage {
    /// Asks the masters of `settings`.
    pub fn new(settings: Arc<Settings>) -> AgentUsage {
        AgentUsage { settings, agents: Mutex::new(Agents::default()) }
    }

    async fn addresses(&self, wanted: &BTreeSet<&str>) -> BTreeMap<String, String> {
        let mut agents = self.agents.lock().await;
        let known = wanted.iter().all(|id| agents.addresses.contains_key(*id));
        let fresh = agents.asked.is_some_and(|at| at.elapsed() < if known { AGENTS_FOR } else { Duration::from_secs(5) });
        if !fresh {
            agents.asked = Some(Instant::now());
            for master in &self.settings.masters {
                let master = master.trim_start_matches("http://").trim_end_matches('/');
                if let Some(value) = get(master, "/slaves").await {
                    agents.addresses = value["slaves"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|it| Some((it["id"].as_str()?.to_owned(), it["pid"].as_str()?.rsplit('@').next()?.to_owned())))
                        .collect();
                    break;
                }
            }
        }
        agents.addresses.clone()
    }

    async fn all(&self, places: &[Place]) -> Vec<Option<Usage>> {
        let wanted: BTreeSet<&str> = places.iter().map(|it| it.agent_id.as_str()).collect();
        let addresses = self.addresses(&wanted).await;
        let asked: Vec<&String> = wanted.iter().filter_map(|id| addresses.get(*id)).collect();
        let mut usages = BTreeMap::new();
        for some in asked.chunks(AT_ONCE) {
            let answers = futures::future::join_all(some.iter().map(|address| get(address, "/monitor/statistics"))).await;
            for answer in answers.into_iter().flatten() {
                usages.extend(answer.as_array().into_iter().flatten().filter_map(usage));
            }
        }
        places.iter().map(|place| usages.get(&place.task_id).copied()).collect()
    }
}

impl Used for AgentUsage {
    fn look<'a>(&'a self, places: &'a [Place]) -> Looked<'a, Usage> {
        Box::pin(self.all(places))
    }
}

/// The task of an entry, whose executor bears its name, and what it used.
fn usage(entry: &Value) -> Option<(String, Usage)> {
    let source = [&entry["executor_id"], &entry["source"]].into_iter().filter_map(Value::as_str).find(|it| !it.is_empty())?;
    let statistics = &entry["statistics"];
    let cpu_seconds = statistics["cpus_user_time_secs"].as_f64()? + statistics["cpus_system_time_secs"].as_f64()?;
    let memory_bytes = ["mem_rss_bytes", "mem_total_bytes"].into_iter().find_map(|key| statistics[key].as_f64())?;
    Some((source.to_owned(), Usage { cpu_seconds, memory_bytes, at_seconds: statistics["timestamp"].as_f64()? }))
}

async fn get(address: &str, path: &str) -> Option<Value> {
    let ask = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection, which ends when its sender is dropped")]
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header(http::header::HOST, address).header(http::header::CONNECTION, "close");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).ok()?).await.ok()?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.ok()?.to_bytes();
        connection.abort();
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}
