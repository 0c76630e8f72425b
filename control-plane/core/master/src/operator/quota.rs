use std::collections::{BTreeMap, BTreeSet};

use mesos::{Quantities, Role, Scalar};
use mesos_proto::v1;

use super::Answer;
use crate::master::Master;
use crate::registry::Change;
use crate::writes::After;
use crate::{Action, Effect, Refusal, Reply, ReplySlot};

/// A million terabytes, in megabytes: above it three decimals are not exact any more.
const EXABYTE_IN_MEGABYTES: f64 = 1_099_511_627_776.0;
const OTHER_MAX: f64 = 1e12;

impl Master {
    pub(crate) fn update_quota(&mut self, slot: ReplySlot, principal: Option<&str>, call: &v1::master::call::UpdateQuota) -> Answer {
        let force = call.force.unwrap_or(false);
        let mut seen = BTreeSet::new();
        for config in &call.quota_configs {
            if !seen.insert(&config.role) {
                return Err(Reply::bad_request(format!("Invalid QuotaConfig: Role '{}' appears more than once", config.role)));
            }
            self.check_config(config)?;
            if !force {
                self.check_limits(config)?;
            }
        }
        if !force {
            self.check_capacity(&call.quota_configs).map_err(|error| {
                Reply::bad_request(format!("Invalid QuotaConfig: total quota guarantees {error} (use 'force' flag to bypass this check)"))
            })?;
        }
        for config in &call.quota_configs {
            self.permit(principal, Action::UpdateQuota { role: &config.role })?;
        }
        self.store_quotas(slot, call.quota_configs.iter().map(|it| (it.role.clone(), it.clone())).collect())
    }

    fn store_quotas(&mut self, slot: ReplySlot, configs: Vec<(String, v1::quota::QuotaConfig)>) -> Answer {
        if configs.is_empty() {
            return Ok(Some(Reply::Ok));
        }
        let roles = configs.iter().map(|(role, _)| role.clone()).collect();
        let change = |(role, config): (String, v1::quota::QuotaConfig)| {
            let default = config.guarantees.is_empty() && config.limits.is_empty();
            Change::Quota(role, (!default).then_some(config))
        };
        self.persist(configs.into_iter().map(change).collect(), After::Quotas { roles, reply: slot });
        Ok(None)
    }

    fn check_config(&self, config: &v1::quota::QuotaConfig) -> Result<(), Reply> {
        let role = &config.role;
        if self.config.roles.as_ref().is_some_and(|known| role != "*" && !known.contains(role)) {
            return Err(Reply::bad_request(format!("Invalid QuotaConfig: '{role}' is not on the roles whitelist")));
        }
        if role.contains('/') {
            return Err(Reply::bad_request(format!("Updating quota on nested role '{role}' is not supported yet")));
        }
        match config_error(config) {
            Some(error) => Err(Reply::bad_request(format!("Invalid QuotaConfig: {error}"))),
            None => Ok(()),
        }
    }

    fn check_limits(&self, config: &v1::quota::QuotaConfig) -> Result<(), Reply> {
        let consumed = self.allocator.consumed(&config.role);
        let exceeded = config.limits.iter().any(|(name, limit)| Scalar::from_f64(limit.value) < consumed.get(name));
        if exceeded {
            return Err(Reply::bad_request(format!(
                "Invalid QuotaConfig: Role '{}' is already consuming '{consumed}'; this is more than the requested limits '{}' (use 'force' \
                 flag to bypass this check)",
                config.role,
                quantities(&config.limits)
            )));
        }
        Ok(())
    }

    /// Whether all guarantees together fit, with `configs` in place.
    fn check_capacity(&self, configs: &[v1::quota::QuotaConfig]) -> Result<(), String> {
        let mut quotas: BTreeMap<&str, &v1::quota::QuotaConfig> =
            self.state.registry.quotas.iter().map(|(role, config)| (role.as_str(), config)).collect();
        quotas.extend(configs.iter().map(|it| (it.role.as_str(), it)));
        let mut total = Quantities::new();
        for config in quotas.values() {
            total.add_all(&quantities(&config.guarantees));
        }
        let capacity = self.allocator.total().clone();
        if capacity.contains(&total) { Ok(()) } else { Err(format!("'{total}' exceed cluster capacity '{capacity}'")) }
    }

    pub(crate) fn quotas_stored(&mut self, roles: &[String], reply: ReplySlot, out: &mut Vec<Effect>) {
        let mut promised = false;
        for role in roles {
            let quota = self.state.registry.quotas.get(role).cloned();
            promised |= quota.as_ref().is_some_and(|it| !it.guarantees.is_empty());
            self.allocator.set_quota(role, quota.as_ref());
        }
        if promised {
            self.make_room(roles, out);
        }
        self.reply(reply, Reply::Ok, out);
    }

    /// Takes back offers of others until what is promised could be given.
    fn make_room(&mut self, roles: &[String], out: &mut Vec<Effect>) {
        let mut missing = Quantities::new();
        for role in roles {
            let guarantees = self.state.registry.quotas.get(role).map(|it| quantities(&it.guarantees)).unwrap_or_default();
            missing.add_all(&guarantees.minus_or_zero(&self.allocator.consumed(role)));
        }
        let others: Vec<_> =
            self.state.offers.values().filter(|it| !roles.iter().any(|role| role == it.role.top_level())).cloned().collect();
        for offer in others {
            if missing.is_empty() {
                break;
            }
            missing = missing.minus_or_zero(&offer.resources.quantities());
            self.rescind(&offer.id, out);
        }
    }

    pub(crate) fn set_quota(&mut self, slot: ReplySlot, principal: Option<&str>, request: &v1::quota::QuotaRequest) -> Answer {
        let role = request.role.clone().unwrap_or_default();
        let fail = |text: &str| Err(Reply::bad_request(format!("Failed to validate set quota request: {text}")));
        if let Some(error) = info_error(request) {
            return fail(&error);
        }
        if self.config.roles.as_ref().is_some_and(|known| role != "*" && !known.contains(&role)) {
            return fail(&format!("Unknown role '{role}'"));
        }
        if self.state.registry.quotas.contains_key(&role) {
            return fail(&format!("Cannot set quota for role '{role}' which already has quota"));
        }
        if role.contains('/') {
            return Err(Reply::bad_request(format!("Setting quota on nested role '{role}' is not supported yet")));
        }
        self.permit(principal, Action::UpdateQuota { role: &role })?;
        // The old call guarantees and limits at once.
        let amounts: BTreeMap<String, v1::value::Scalar> =
            request.guarantee.iter().map(|it| (it.name.clone(), it.scalar.unwrap_or_default())).collect();
        let config = v1::quota::QuotaConfig { role: role.clone(), guarantees: amounts.clone(), limits: amounts };
        if !request.force.unwrap_or(false) {
            self.check_capacity(std::slice::from_ref(&config)).map_err(|error| {
                let text =
                    format!("Quota guarantees overcommit the cluster (use 'force' to bypass this check): Total quota guarantees {error}");
                Reply::refused(Refusal::Conflict, text)
            })?;
        }
        self.store_quotas(slot, vec![(role, config)])
    }

    pub(crate) fn remove_quota(&mut self, slot: ReplySlot, principal: Option<&str>, role: &str) -> Answer {
        if self.config.roles.as_ref().is_some_and(|known| role != "*" && !known.contains(role)) {
            return Err(Reply::bad_request(format!("Failed to validate remove quota request: Unknown role '{role}'")));
        }
        if !self.state.registry.quotas.contains_key(role) {
            return Err(Reply::bad_request(format!("Failed to remove quota: Role '{role}' has no quota set")));
        }
        self.permit(principal, Action::UpdateQuota { role })?;
        let none = v1::quota::QuotaConfig { role: role.to_owned(), ..Default::default() };
        self.store_quotas(slot, vec![(role.to_owned(), none)])
    }
}

fn quantities(amounts: &BTreeMap<String, v1::value::Scalar>) -> Quantities {
    amounts.iter().map(|(name, it)| (name.as_str().into(), Scalar::from_f64(it.value))).collect()
}

fn config_error(config: &v1::quota::QuotaConfig) -> Option<String> {
    if config.role.is_empty() {
        return Some("'QuotaConfig.role' must be set".into());
    }
    if let Some(error) = Role::error(&config.role) {
        return Some(format!("Invalid 'QuotaConfig.role': {error}"));
    }
    for (field, amounts) in [("guarantees", &config.guarantees), ("limits", &config.limits)] {
        for (name, amount) in amounts {
            let megabytes = name == "mem" || name == "disk";
            let (limit, text) = if megabytes { (EXABYTE_IN_MEGABYTES, "1 exabyte") } else { (OTHER_MAX, "1 trillion") };
            if amount.value > limit {
                return Some(format!(
                    "Invalid 'QuotaConfig.{field}': {{'{name}': {}}} is invalid: values greater than {text} ({limit}) are not supported",
                    amount.value
                ));
            }
        }
    }
    for (what, amounts) in [("guarantee", &config.guarantees), ("limit", &config.limits)] {
        for (name, amount) in amounts {
            let error = if amount.value.is_nan() || amount.value.is_infinite() {
                "values must be finite"
            } else if amount.value < 0.0 {
                "values must be non-negative"
            } else {
                continue;
            };
            return Some(format!("Invalid {what} configuration {{'{name}': {}}}: {error}", amount.value));
        }
    }
    let above = config.guarantees.iter().any(|(name, amount)| config.limits.get(name).is_some_and(|limit| limit.value < amount.value));
    above.then(|| {
        format!(
            "'QuotaConfig.guarantees' {} is not contained within the 'QuotaConfig.limits' {}",
            quantities(&config.guarantees),
            quantities(&config.limits)
        )
    })
}

fn info_error(request: &v1::quota::QuotaRequest) -> Option<String> {
    let Some(role) = request.role.as_deref().filter(|it| !it.is_empty()) else {
        return Some("QuotaInfo must specify a role".into());
    };
    if let Some(error) = Role::error(role) {
        return Some(format!("QuotaInfo with invalid role: {error}"));
    }
    if request.guarantee.is_empty() {
        return Some("QuotaInfo with empty 'guarantee'".into());
    }
    let mut names = BTreeSet::new();
    for resource in &request.guarantee {
        if let Some(error) = mesos::resource_error(resource) {
            return Some(format!("QuotaInfo with invalid resource: {error}"));
        }
        if resource.reservation.is_some() || !resource.reservations.is_empty() {
            return Some("QuotaInfo must not contain any ReservationInfo".into());
        }
        if resource.disk.is_some() {
            return Some("QuotaInfo must not contain DiskInfo".into());
        }
        if resource.revocable.is_some() {
            return Some("QuotaInfo must not contain RevocableInfo".into());
        }
        if resource.r#type != v1::value::Type::Scalar as i32 {
            return Some("QuotaInfo must not include non-scalar resources".into());
        }
        if !names.insert(&resource.name) {
            return Some(format!("QuotaInfo contains duplicate resource name '{}'", resource.name));
        }
    }
    None
}
