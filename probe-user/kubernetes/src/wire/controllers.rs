//! What makes pods: deployments, replica sets, daemon sets, stateful sets, jobs and cron jobs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cut::{Cut, TERMS};
use super::pod::Condition;
use super::{Metadata, Wire, metadata};
use crate::kind::Kind;
use crate::objects::{ControllerDetails, CronJobDetails, Details, JobDetails};
use crate::selector::{Expression, Selector};

/// `spec.selector` of a controller.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl LabelSelector {
    /// `None` when it has more terms than are kept: half of a selector would select too much.
    fn read(self, cut: &mut Cut) -> Option<Selector> {
        let pairs = self.match_labels.unwrap_or_default();
        let expressions = self.match_expressions.unwrap_or_default();
        let values = expressions.iter().map(|one| one.values.as_ref().map_or(0, Vec::len)).sum::<usize>();
        if pairs.len() + expressions.len() + values > TERMS {
            cut.happened = true;
            return None;
        }
        Some(Selector::new(pairs, expressions.into_iter().map(Requirement::read)))
    }
}

impl Requirement {
    fn read(self) -> Expression {
        let key = self.key.into_boxed_str();
        let values = self.values.unwrap_or_default().into_iter().map(String::into_boxed_str).collect();
        match self.operator.as_str() {
            "In" => Expression::In(key, values),
            "NotIn" => Expression::NotIn(key, values),
            "Exists" => Expression::Exists(key),
            "DoesNotExist" => Expression::Absent(key),
            _ => Expression::Never,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    selector: Option<LabelSelector>,
    strategy: Option<Strategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Strategy {
    r#type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    desired_number_scheduled: Option<i64>,
}

/// Kinds with replicas. `$selects`: its own selector says which pods are shown as its own. A replica set's does not: its deployment's does.
macro_rules! replicated {
    ($($(#[$doc:meta])* $name:ident, selects: $selects:literal, desired: $desired:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub struct $name {
            metadata: Metadata,
            spec: Spec,
            status: Option<Status>,
        }

        impl Wire for $name {
            type Api = k8s_openapi::api::apps::v1::$name;
            const KIND: Kind = Kind::$name;

            fn take_metadata(&mut self) -> Metadata {
                std::mem::take(&mut self.metadata)
            }

            fn selector(&mut self, cut: &mut Cut) -> Option<Selector> {
                self.spec.selector.take().filter(|_| $selects)?.read(cut)
            }

            fn details(self, _: &str, cut: &mut Cut) -> Details {
                let status = self.status.unwrap_or_default();
                let desired: fn(&Spec, &Status) -> Option<i64> = $desired;
                Details::Controller(ControllerDetails {
                    desired_replicas: count(desired(&self.spec, &status)),
                    observed_generation: u64::try_from(status.observed_generation.unwrap_or(0)).unwrap_or(0),
                    strategy: cut.text(self.spec.strategy.and_then(|strategy| strategy.r#type)),
                })
            }
        }
    )*};
}

replicated! {
    /// What is read of a deployment.
    Deployment, selects: true, desired: |spec, _| spec.replicas.or(Some(1));
    /// What is read of a replica set.
    ReplicaSet, selects: false, desired: |spec, _| spec.replicas.or(Some(1));
    /// What is read of a stateful set.
    StatefulSet, selects: true, desired: |spec, _| spec.replicas.or(Some(1));
    /// What is read of a daemon set.
    DaemonSet, selects: true, desired: |_, status| status.desired_number_scheduled;
}

/// What is read of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    metadata: Metadata,
    spec: JobSpec,
    status: Option<JobStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    selector: Option<LabelSelector>,
    suspend: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobStatus {
    active: Option<i64>,
    conditions: Option<Vec<Condition>>,
}

impl Wire for Job {
    type Api = k8s_openapi::api::batch::v1::Job;
    const KIND: Kind = Kind::Job;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn selector(&mut self, cut: &mut Cut) -> Option<Selector> {
        self.spec.selector.take()?.read(cut)
    }

    /// The state is the word that kubectl shows.
    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let status = self.status.unwrap_or_default();
        let is = |kind: &str| status.conditions.iter().flatten().any(|one| one.r#type == kind && one.status == "True");
        let words = ["Complete", "Failed", "Suspended", "FailureTarget"];
        let state = words.into_iter().find(|&word| is(word)).unwrap_or("Running");
        Details::Job(JobDetails {
            state: cut.text(Some(state.to_owned())),
            suspended: self.spec.suspend.unwrap_or(false),
            active_jobs: count(status.active),
        })
    }
}

/// What is read of a cron job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CronJob {
    metadata: Metadata,
    spec: CronJobSpec,
    status: Option<CronJobStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CronJobSpec {
    schedule: Option<String>,
    suspend: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CronJobStatus {
    active: Option<Vec<IgnoredAny>>,
    last_schedule_time: Option<String>,
}

impl Wire for CronJob {
    type Api = k8s_openapi::api::batch::v1::CronJob;
    const KIND: Kind = Kind::CronJob;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let status = self.status.unwrap_or_default();
        Details::CronJob(CronJobDetails {
            schedule: cut.text(self.spec.schedule),
            last_scheduled_unix_nanos: metadata::unix_nanos(status.last_schedule_time.as_deref()),
            suspended: self.spec.suspend.unwrap_or(false),
            active_jobs: u32::try_from(status.active.map_or(0, |active| active.len())).unwrap_or(u32::MAX),
        })
    }
}

fn count(number: Option<i64>) -> u32 {
    u32::try_from(number.unwrap_or(0).max(0)).unwrap_or(u32::MAX)
}
