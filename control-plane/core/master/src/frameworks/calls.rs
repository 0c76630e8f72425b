//! The calls of frameworks.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Timestamp;
use mesos::{AgentId, ExecutorId, FrameworkId, Role};
use mesos_proto::v1;
use v1::scheduler;
use v1::scheduler::call::Type;

use crate::limits::Limiter;
use crate::master::Master;
use crate::metrics::call_key;
use crate::{Effect, Framework, Refusal, Reply, ReplySlot, StreamId, ToAgent, scheduler_call_error, validate};

impl Master {
    /// A call of a framework. Most are answered 202: what becomes of them comes as events.
    pub(crate) fn call(
        &mut self,
        now: Timestamp,
        reply: ReplySlot,
        stream: Option<&StreamId>,
        principal: Option<&str>,
        call: scheduler::Call,
        out: &mut Vec<Effect>,
    ) {
        let answer = self.try_call(now, stream, principal, call, out).unwrap_or_else(|refused| refused);
        self.reply(reply, answer, out);
    }

    fn try_call(
        &mut self,
        now: Timestamp,
        stream: Option<&StreamId>,
        principal: Option<&str>,
        call: scheduler::Call,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Reply> {
        if let Some(error) = scheduler_call_error(&call, principal) {
            return Err(Reply::bad_request(format!("Failed to validate scheduler::Call: {error}")));
        }
        let kind = call.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or_default();
        let id = call.framework_id.as_ref().map(FrameworkId::from).unwrap_or_else(|| "".into());
        let Some(framework) = self.framework(&id) else {
            return Err(Reply::bad_request("Framework cannot be found"));
        };
        self.count_call(&id, kind);
        let owner = framework.info.principal.as_deref();
        if let (Some(principal), Some(owner)) = (principal, owner)
            && principal != owner
        {
            return Err(Reply::bad_request(format!(
                "Authenticated principal '{principal}' does not match principal '{owner}' set in `FrameworkInfo`"
            )));
        }
        let Some(current) = &framework.stream else {
            return Err(Reply::refused(Refusal::Forbidden, "Framework is not subscribed"));
        };
        let Some(stream) = stream else {
            return Err(Reply::bad_request("All non-subscribe calls should include the 'Mesos-Stream-Id' header"));
        };
        if stream != current {
            return Err(Reply::bad_request(format!(
                "The stream ID '{stream}' included in this request didn't match the stream ID currently associated with framework ID {id}"
            )));
        }
        self.within_rate(now, owner)?;
        self.perform(now, &framework, kind, call, out)
    }

    fn within_rate(&mut self, now: Timestamp, principal: Option<&str>) -> Result<(), Reply> {
        let Some(principal) = principal else { return self.within_default_rate(now) };
        self.state.metrics.count_principal(principal, "messages_received");
        match self.config.rate_limits.get(principal) {
            None => self.within_default_rate(now)?,
            Some(rate) => {
                let limiter = self.calls.entry(principal.to_owned()).or_insert_with(|| Limiter::bursting(*rate));
                if limiter.take(now).is_err() {
                    return Err(Reply::refused(Refusal::TooManyRequests, format!("Principal '{principal}' exceeds its rate limit")));
                }
            }
        }
        self.state.metrics.count_principal(principal, "messages_processed");
        Ok(())
    }

    /// All frameworks that have no limit of their own share one.
    fn within_default_rate(&mut self, now: Timestamp) -> Result<(), Reply> {
        let Some(rate) = self.config.rate_limit_of_others else { return Ok(()) };
        if self.other_calls.get_or_insert_with(|| Limiter::bursting(rate)).take(now).is_err() {
            return Err(Reply::refused(Refusal::TooManyRequests, "The rate limit of frameworks without a limit of their own is exceeded"));
        }
        Ok(())
    }

    fn perform(
        &mut self,
        now: Timestamp,
        framework: &Arc<Framework>,
        kind: Type,
        call: scheduler::Call,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Reply> {
        let id = framework.id.clone();
        match kind {
            Type::Teardown => {
                self.state.metrics.count("master/messages_unregister_framework");
                self.remove_framework(now, &id, out);
            }
            Type::Accept => self.accept(now, framework, call.accept.unwrap_or_default(), out),
            Type::Decline => {
                self.state.metrics.count("master/messages_decline_offers");
                let decline = call.decline.unwrap_or_default();
                self.decline(now, framework, &decline);
            }
            Type::AcceptInverseOffers => {
                let accept = call.accept_inverse_offers.unwrap_or_default();
                self.answer_inverse_offers(now, &id, &accept.inverse_offer_ids, true, accept.filters.as_ref());
            }
            Type::DeclineInverseOffers => {
                let decline = call.decline_inverse_offers.unwrap_or_default();
                self.answer_inverse_offers(now, &id, &decline.inverse_offer_ids, false, decline.filters.as_ref());
            }
            Type::Revive => {
                self.state.metrics.count("master/messages_revive_offers");
                self.revive(framework, &call.revive.unwrap_or_default().roles);
            }
            Type::Suppress => {
                self.state.metrics.count("master/messages_suppress_offers");
                self.suppress(framework, &call.suppress.unwrap_or_default().roles);
            }
            Type::Kill => self.kill(now, framework, call.kill.unwrap_or_default(), out),
            Type::Shutdown => {
                let shutdown = call.shutdown.unwrap_or_default();
                let (agent, executor_id) = (AgentId::from(&shutdown.agent_id), ExecutorId::from(&shutdown.executor_id));
                self.tell(&agent, ToAgent::ShutdownExecutor { framework_id: id, executor_id }, out);
            }
            Type::Acknowledge => self.acknowledge(&id, call.acknowledge.unwrap_or_default(), out),
            Type::AcknowledgeOperationStatus => {
                self.acknowledge_operation(framework, &call.acknowledge_operation_status.unwrap_or_default(), out);
            }
            Type::Reconcile => self.reconcile(now, framework, &call.reconcile.unwrap_or_default(), out),
            Type::ReconcileOperations => {
                self.reconcile_operations(framework, &call.reconcile_operations.unwrap_or_default(), out);
            }
            Type::Message => {
                self.state.metrics.count("master/messages_framework_to_executor");
                let message = call.message.unwrap_or_default();
                let (agent, executor_id) = (AgentId::from(&message.agent_id), ExecutorId::from(&message.executor_id));
                // What an agent does not take would break its connection.
                let fits = message.data.len() <= validate::MESSAGE_BYTES_MAX;
                let sent = fits && self.tell(&agent, ToAgent::FrameworkMessage { framework_id: id, executor_id, data: message.data }, out);
                self.state.metrics.count(if sent {
                    "master/valid_framework_to_executor_messages"
                } else {
                    "master/invalid_framework_to_executor_messages"
                });
            }
            Type::Request => self.state.metrics.count("master/messages_resource_request"),
            Type::UpdateFramework => {
                return self.update_framework(framework, call.update_framework.unwrap_or_default(), out);
            }
            Type::Subscribe | Type::Unknown => {
                return Err(Reply::refused(Refusal::NotImplemented, "501 Not Implemented."));
            }
        }
        Ok(Reply::Accepted)
    }

    fn update_framework(
        &mut self,
        framework: &Arc<Framework>,
        update: scheduler::call::UpdateFramework,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Reply> {
        let mut info = update.framework_info;
        if let Some(error) = validate::framework_error(&info) {
            return Err(Reply::bad_request(format!("Supplied FrameworkInfo is not valid: {error}")));
        }
        if info.principal.is_none() {
            info.principal.clone_from(&framework.info.principal);
        }
        if let Some(error) = validate::framework_update_error(&framework.info, &info) {
            return Err(Reply::bad_request(format!("FrameworkInfo update is not valid: {error}")));
        }
        let principal = framework.info.principal.as_deref();
        let checked = self.check(principal, Some(&framework.id), info, &update.suppressed_roles, update.offer_constraints);
        let checked = checked.map_err(|error| {
            if error.starts_with("Not authorized") {
                Reply::refused(Refusal::Forbidden, error)
            } else {
                Reply::bad_request(format!("'UpdateFramework' call is not valid: {error}"))
            }
        })?;
        self.describe(&framework.id, checked.info, checked.suppressed, checked.wire_constraints, checked.constraints, out);
        self.publish_framework(&framework.id, v1::master::event::Type::FrameworkUpdated, out);
        Ok(Reply::Ok)
    }

    fn revive(&mut self, framework: &Arc<Framework>, roles: &[String]) {
        let all = roles.is_empty();
        let roles: Vec<Role> = roles.iter().map(|it| it.as_str().into()).filter(|it| framework.roles.contains(it)).collect();
        if !all && roles.is_empty() {
            return;
        }
        let suppressed: BTreeSet<Role> = if roles.is_empty() {
            BTreeSet::new()
        } else {
            framework.suppressed.iter().filter(|it| !roles.contains(it)).cloned().collect()
        };
        let suppressed = Arc::new(suppressed);
        if let Some(framework) = self.framework_mut(&framework.id) {
            framework.suppressed = suppressed.clone();
        }
        self.allocator.revive(&framework.id, &roles, suppressed);
        self.inverse_filters.remove(&framework.id);
    }

    fn suppress(&mut self, framework: &Arc<Framework>, roles: &[String]) {
        let mut suppressed = (*framework.suppressed).clone();
        if roles.is_empty() {
            suppressed.clone_from(&framework.roles);
        }
        suppressed.extend(roles.iter().map(|it| Role::from(it.as_str())).filter(|it| framework.roles.contains(it)));
        let suppressed = Arc::new(suppressed);
        if let Some(framework) = self.framework_mut(&framework.id) {
            framework.suppressed = suppressed.clone();
        }
        self.allocator.suppress(&framework.id, suppressed);
    }

    pub(crate) fn count_call(&mut self, id: &FrameworkId, kind: Type) {
        if let Some(framework) = self.framework_mut(id) {
            *framework.counters.calls.entry(call_key(kind)).or_insert(0) += 1;
        }
    }
}
