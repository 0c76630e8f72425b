//! The picture of a Marathon: out of its REST API, or out of a file.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use marathon_rest::Client;
use serde_json::{Value, json};

use crate::compare::definition;

/// The word by which a file is known.
const KIND: &str = "marathon-export";
/// The form of the file.
const FORMAT: u64 = 1;

/// Where a picture comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The address, for people.
    pub name: String,
    /// Ours at the master.
    pub framework_id: Option<String>,
    /// Its name.
    pub framework_name: String,
    /// The master, as it was told.
    pub master: String,
    /// Marathon's version.
    pub version: String,
    /// Deployments that run.
    pub deployments: usize,
}

/// A group without what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupFacts {
    /// What is deployed before.
    pub dependencies: Value,
    /// Whether its role is enforced.
    pub enforce_role: Option<bool>,
}

/// An app or a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// As it is now, as it can be sent.
    pub definition: Value,
    /// As it was before, the oldest first.
    pub history: Vec<(String, Value)>,
    /// How many of its instances there are, in whatever state.
    pub running: u64,
    /// Hosts where they are.
    pub hosts: Vec<String>,
}

impl Item {
    /// How many there should be.
    pub fn instances(&self, is_pod: bool) -> u64 {
        if is_pod {
            self.definition["scaling"]["instances"].as_u64().unwrap_or(1)
        } else {
            self.definition["instances"].as_u64().unwrap_or(1)
        }
    }
}

/// A definition with so many instances.
pub(crate) fn with_instances(definition: &Value, is_pod: bool, instances: u64) -> Value {
    let mut made = definition.clone();
    if is_pod {
        made["scaling"] = json!({"kind": "fixed", "instances": instances});
    } else {
        made["instances"] = instances.into();
    }
    made
}

/// All that is defined in a Marathon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whose picture it is.
    pub source: Source,
    /// By path.
    pub groups: BTreeMap<String, GroupFacts>,
    /// By path.
    pub apps: BTreeMap<String, Item>,
    /// By path.
    pub pods: BTreeMap<String, Item>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

impl Snapshot {
    /// The picture of the Marathon behind `client`, with at most `versions` older versions of everything.
    ///
    /// # Errors
    /// When it does not answer as a Marathon does.
    pub async fn of(client: &Client, versions: usize) -> anyhow::Result<Snapshot> {
        let info = client.get("/v2/info").await.context("asking what Marathon it is")?;
        let deployments = client.get("/v2/deployments").await.context("asking for deployments")?;
        let mut made = Snapshot {
            source: Source {
                name: client.name(),
                framework_id: info["frameworkId"].as_str().map(str::to_owned),
                framework_name: text(&info["marathon_config"]["framework_name"]),
                master: text(&info["marathon_config"]["master"]),
                version: text(&info["version"]),
                deployments: list(&deployments).len(),
            },
            ..Snapshot::default()
        };
        // One question for everything: only so it is of one moment.
        let path = "/v2/groups?embed=group.groups&embed=group.apps&embed=group.pods&embed=group.apps.tasks";
        let tree = client.get(path).await.context("asking for the groups")?;
        made.take_group(&tree);
        let ids: Vec<String> = made.apps.keys().cloned().collect();
        for id in ids {
            let older =
                older(client, &format!("/v2/apps{id}/versions"), versions, |version| format!("/v2/apps{id}/versions/{version}")).await?;
            if let Some(item) = made.apps.get_mut(&id) {
                item.history = older;
            }
        }
        let ids: Vec<String> = made.pods.keys().cloned().collect();
        for id in ids {
            let older =
                older(client, &format!("/v2/pods{id}::versions"), versions, |version| format!("/v2/pods{id}::versions/{version}")).await?;
            if let Some(item) = made.pods.get_mut(&id) {
                item.history = older;
            }
        }
        Ok(made)
    }

    fn take_group(&mut self, group: &Value) {
        let id = text(&group["id"]);
        if !id.is_empty() && id != "/" {
            let facts = GroupFacts { dependencies: group["dependencies"].clone(), enforce_role: group["enforceRole"].as_bool() };
            self.groups.insert(id, facts);
        }
        for app in list(&group["apps"]) {
            let tasks = list(&app["tasks"]);
            let mut hosts: Vec<String> = tasks.iter().map(|it| text(&it["host"])).filter(|it| !it.is_empty()).collect();
            hosts.sort();
            hosts.dedup();
            let item = Item { definition: definition(app), history: Vec::new(), running: tasks.len() as u64, hosts };
            self.apps.insert(text(&app["id"]), item);
        }
        for pod in list(&group["pods"]) {
            let instances = list(&pod["instances"]);
            let hosts = instances.iter().filter_map(|it| it["agentHostname"].as_str()).map(str::to_owned).collect();
            let item = Item { definition: definition(&pod["spec"]), history: Vec::new(), running: instances.len() as u64, hosts };
            self.pods.insert(text(&pod["id"]), item);
        }
        list(&group["groups"]).iter().for_each(|it| self.take_group(it));
    }

    /// The picture as a file has it.
    pub fn write(&self) -> Value {
        let item = |(id, it): (&String, &Item)| {
            let history: Vec<Value> =
                it.history.iter().map(|(version, definition)| json!({"version": version, "definition": definition})).collect();
            json!({"id": id, "definition": it.definition, "versions": history, "running": it.running, "hosts": it.hosts})
        };
        let group = |(id, it): (&String, &GroupFacts)| json!({"id": id, "dependencies": it.dependencies, "enforceRole": it.enforce_role});
        let Source { name, framework_id, framework_name, master, version, deployments } = &self.source;
        json!({
            "kind": KIND,
            "format": FORMAT,
            "source": {"name": name, "frameworkId": framework_id, "frameworkName": framework_name, "master": master, "version": version, "deployments": deployments},
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "apps": self.apps.iter().map(item).collect::<Vec<_>>(),
            "pods": self.pods.iter().map(item).collect::<Vec<_>>(),
        })
    }

    /// The picture out of a file.
    ///
    /// # Errors
    /// When it is none, or of a form that is not known.
    pub fn read(value: &Value) -> anyhow::Result<Snapshot> {
        if value["kind"] != KIND {
            bail!("this is no export of a Marathon");
        }
        if value["format"] != FORMAT {
            bail!("the export has format {}, and only {FORMAT} is known", value["format"]);
        }
        let item = |it: &Value| {
            let id = it["id"].as_str().filter(|id| id.starts_with('/')).context("an entry without an id")?.to_owned();
            if !it["definition"].is_object() {
                bail!("{id} has no definition");
            }
            let history = list(&it["versions"]).iter().map(|it| (text(&it["version"]), it["definition"].clone())).collect();
            let hosts = list(&it["hosts"]).iter().map(text).collect();
            Ok((id, Item { definition: it["definition"].clone(), history, running: it["running"].as_u64().unwrap_or(0), hosts }))
        };
        let source = &value["source"];
        Ok(Snapshot {
            source: Source {
                name: text(&source["name"]),
                framework_id: source["frameworkId"].as_str().map(str::to_owned),
                framework_name: text(&source["frameworkName"]),
                master: text(&source["master"]),
                version: text(&source["version"]),
                deployments: source["deployments"].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(0),
            },
            groups: list(&value["groups"])
                .iter()
                .map(|it| {
                    (text(&it["id"]), GroupFacts { dependencies: it["dependencies"].clone(), enforce_role: it["enforceRole"].as_bool() })
                })
                .collect(),
            apps: list(&value["apps"]).iter().map(item).collect::<anyhow::Result<_>>()?,
            pods: list(&value["pods"]).iter().map(item).collect::<anyhow::Result<_>>()?,
        })
    }
}

/// At most `most` older versions, the oldest first; the present one is not among them.
async fn older(client: &Client, list_path: &str, most: usize, path: impl Fn(&str) -> String) -> anyhow::Result<Vec<(String, Value)>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let Some(answer) = client.get_if(list_path).await? else { return Ok(Vec::new()) };
    let all = if answer.is_array() { &answer } else { &answer["versions"] };
    let mut versions: Vec<String> = list(all).iter().map(text).collect();
    versions.sort();
    versions.pop();
    let mut found = Vec::new();
    for version in versions.split_off(versions.len().saturating_sub(most)) {
        // It may have been dropped meanwhile.
        if let Some(value) = client.get_if(&path(&version)).await? {
            found.push((version, definition(&value)));
        }
    }
    Ok(found)
}
