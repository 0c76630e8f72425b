//! What the API takes and gives.

use base::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zksync::{
    Conflict, Difference, Migration, MigrationCommand, Mode, Outlook, Pace, PerSide, Phase, Resolution, Status, Strategy, Tombstone,
};

use crate::definition::{Definition, DefinitionError};
use crate::link::LagSummary;
use crate::migrate::MigrationHandle;
use crate::operations;
use crate::prepare::Preparation;
use crate::service::{Role, Service, ServiceError};
use crate::verify::VerificationReport;
use crate::witness::Holder;

/// Before that no pace can be told.
const YOUNG_MS: u64 = 1_000;

/// A link.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkView {
    /// As it was written down.
    pub(crate) definition: Definition,
    /// `leading`, `standby`, `waiting`, or `complete`: its migration is, and nothing is carried any more.
    pub(crate) role: &'static str,
    /// Who leads, or what is waited for.
    pub(crate) detail: String,
    /// How it stands; null when this process does not lead it.
    #[schema(value_type = Option<Object>)]
    pub(crate) status: Option<Status>,
    /// How long changes took on their way to each side.
    #[schema(value_type = Option<Object>)]
    pub(crate) lag: Option<PerSide<LagSummary>>,
}

/// What of a link can be changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkChange {
    /// `a_to_b`, `b_to_a` or `both`.
    #[schema(value_type = Option<String>)]
    pub(crate) mode: Option<Mode>,
    /// `last_write_wins`, `a_wins`, `b_wins` or `manual`.
    #[schema(value_type = Option<String>)]
    pub(crate) strategy: Option<Strategy>,
}

/// A page of conflicts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConflictPage {
    /// In the order in which they were found.
    #[schema(value_type = Vec<Object>)]
    pub(crate) conflicts: Vec<Conflict>,
    /// How many there are.
    pub(crate) total: usize,
}

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConflictQuery {
    /// Paths that begin so.
    #[serde(default)]
    pub(crate) prefix: String,
    /// At most this many, up to 1,000.
    pub(crate) limit: Option<usize>,
}

/// A conflict with what each side has now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThreeWay {
    /// The conflict; its `base` names the state that both last agreed on.
    #[schema(value_type = Object)]
    pub(crate) conflict: Conflict,
    /// Hash of what both last agreed on, in hexadecimal; null when that is not known.
    pub(crate) base_hash: Option<String>,
    /// Its data, if they are text and were kept: up to 64 KiB of links that take from both sides and whose conflicts are decided by hand.
    pub(crate) base_text: Option<String>,
    /// The same in base64, if they are no text.
    pub(crate) base_base64: Option<String>,
    /// The same, text or not.
    #[serde(skip)]
    pub(crate) base_data: Option<Vec<u8>>,
    /// What A has now; null when it is absent.
    pub(crate) a: Option<SideValue>,
    /// What B has now; null when it is absent.
    pub(crate) b: Option<SideValue>,
}

/// What a side has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SideValue {
    /// Transaction that last changed its data: what `expect` of a resolution names.
    pub(crate) mzxid: i64,
    /// Its version.
    pub(crate) version: i32,
    /// When it was written, by that side's clock: milliseconds since 1970.
    pub(crate) mtime: i64,
    /// Bytes of its data.
    pub(crate) size: usize,
    /// Its data, if they are text; up to 64 KiB.
    pub(crate) text: Option<String>,
    /// Its data in base64, if they are no text; up to 64 KiB.
    pub(crate) base64: Option<String>,
    /// Hash of its data, in hexadecimal.
    pub(crate) hash: String,
    /// Who may do what.
    pub(crate) acl: Vec<String>,
    /// Its data, text or not; up to 64 KiB.
    #[serde(skip)]
    pub(crate) data: Option<Vec<u8>>,
}

/// How a conflict is to be decided.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    /// `a`, `b`, `base`, `custom` or `delete`.
    pub(crate) choice: Choice,
    /// The data, for `custom`.
    pub(crate) data: Option<String>,
    /// The same in base64, for data that are no text; instead of `data`.
    #[serde(default)]
    pub(crate) data_base64: Option<String>,
    /// What was looked at; something else by now is 409.
    pub(crate) expect: Option<Expect>,
}

impl Decision {
    /// The same with its data as bytes.
    pub(crate) fn read(self) -> Result<operations::Decision, ServiceError> {
        let invalid = |text: String| ServiceError::Invalid(DefinitionError(text));
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => return Err(invalid("data and data_base64: only one of them".to_owned())),
            (None, Some(text)) => Some(BASE64.decode(text).map_err(|error| invalid(format!("data_base64: {error}")))?),
            (text, None) => text.map(String::into_bytes),
        };
        Ok(operations::Decision { choice: self.choice, data, expect: self.expect })
    }
}

/// Whose state is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    /// A's.
    A,
    /// B's.
    B,
    /// Neither's: what both last agreed on.
    Base,
    /// Other data.
    Custom,
    /// Neither's.
    Delete,
}

/// What was looked at.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Expect {
    /// `mzxid` of A; null when it was absent.
    pub(crate) a_mzxid: Option<i64>,
    /// `mzxid` of B; null when it was absent.
    pub(crate) b_mzxid: Option<i64>,
}

/// Resolutions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResolutionPage {
    /// With what both sides had, up to 64 KiB of each: a single resolution is answered with up to 1,047,000 bytes of each, and `values` with all of one.
    pub(crate) resolutions: Vec<NumberedResolution>,
}

/// How a conflict was decided.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NumberedResolution {
    /// Its number within the link.
    pub(crate) number: u64,
    /// What collided, who won, and what both sides had.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) resolution: Resolution,
}

/// Znodes that both sides had and that are gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TombstonePage {
    /// Those that went last first.
    pub(crate) tombstones: Vec<NamedTombstone>,
    /// How many of these paths are remembered.
    pub(crate) total: usize,
}

/// What is left of a znode that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedTombstone {
    /// A's path.
    pub(crate) path: String,
    /// Whose clients deleted it, between when, and what its data hash to.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) tombstone: Tombstone,
}

/// Which conflicts are to be decided at once, and how.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkDecision {
    /// This path, and those below it: `/app2` is not below `/app`.
    pub(crate) prefix: String,
    /// `a` or `b`.
    pub(crate) choice: Choice,
    /// Only say which ones.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What a decision about many conflicts has come to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkOutcome {
    /// Numbers of the conflicts that it is about.
    pub(crate) conflicts: Vec<u64>,
    /// Whether they will be decided so.
    pub(crate) accepted: bool,
}

/// Differences that the newest comparison found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferencePage {
    /// The first of them.
    #[schema(value_type = Vec<Object>)]
    pub(crate) differences: Vec<Difference>,
    /// How many the comparison found.
    pub(crate) total: u64,
    /// When it began: milliseconds since 1970.
    pub(crate) started_ms: u64,
}

/// A migration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MigrationPage {
    /// Where it is, and what happened.
    #[schema(value_type = Object)]
    pub(crate) migration: Migration,
    /// Who was connected to the old ensemble when it was last asked.
    pub(crate) holders: Vec<Holder>,
    /// Why that is not known; null when it is.
    pub(crate) holders_unknown: Option<String>,
    /// The newest comparison.
    pub(crate) verification: Option<VerificationReport>,
    /// The first look.
    pub(crate) preparation: Option<Preparation>,
    /// How much has been copied, of about how much.
    pub(crate) progress: Progress,
}

/// What goes with an action of a migration.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ActionQuery {
    /// Whatever stands in the way: for `complete`, what is on the old ensemble alone is given up; for `advance` on the way back, what is on the new
    /// one alone.
    #[serde(default)]
    pub(crate) force: bool,
}

/// `command`, whatever stands in the way.
pub(crate) fn forced(command: MigrationCommand) -> Result<MigrationCommand, ServiceError> {
    match command {
        MigrationCommand::Complete => Ok(MigrationCommand::CompleteForced),
        MigrationCommand::Advance => Ok(MigrationCommand::AdvanceForced),
        _ => Err(ServiceError::Invalid(DefinitionError("force is for complete, and for advance on the way back".to_owned()))),
    }
}

/// How far the copy is.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// Znodes that both sides have.
    pub(crate) pairs: usize,
    /// Znodes to be looked at.
    pub(crate) backlog: usize,
    /// Of a hundred.
    pub(crate) percent: u64,
    /// Seconds that the phase will still take, about; null when that cannot be told, or somebody's word is waited for.
    pub(crate) seconds_left: Option<u64>,
    /// It goes on when an operator says or does something.
    pub(crate) waits_for_operator: bool,
}

/// A link as it stands.
pub(crate) fn view(definition: &Definition, role: Role) -> LinkView {
    let definition = definition.clone();
    match role {
        Role::Leading(handle) => {
            let (status, lag) = (Status::clone(&handle.status()), handle.lag());
            LinkView { definition, role: "leading", detail: String::new(), status: Some(status), lag: Some(lag) }
        }
        Role::Standby(leader) => LinkView { definition, role: "standby", detail: leader, status: None, lag: None },
        Role::Waiting(why) => LinkView { definition, role: "waiting", detail: why, status: None, lag: None },
        Role::Complete => {
            let detail = "its migration is complete: nothing is carried any more".to_owned();
            LinkView { definition, role: "complete", detail, status: None, lag: None }
        }
    }
}

/// A migration as it stands.
pub(crate) fn migration_page(service: &Service, id: &str, handle: &MigrationHandle) -> MigrationPage {
    let view = handle.view();
    let (holders, holders_unknown) = match &view.holders {
        Ok(holders) => (holders.clone(), None),
        Err(why) => (Vec::new(), Some(why.clone())),
    };
    let preparation = view.preparation.as_ref().map(|it| Preparation::clone(it));
    let now = crate::link::now();
    let comparison_ms = view.verification.as_ref().map(|report| report.took_ms);
    let progress = service.handle(id).map(|link| {
        let status = link.status();
        let pace = Pace { backlog: status.backlog, carried_per_second: link.carried_per_second(), comparison_ms };
        progress(&status, preparation.as_ref(), &view.migration, now, &pace)
    });
    let progress = progress.unwrap_or_default();
    MigrationPage {
        migration: view.migration.clone(),
        holders,
        holders_unknown,
        verification: view.verification.as_ref().map(|it| VerificationReport::clone(it)),
        preparation,
        progress,
    }
}

fn progress(status: &Status, preparation: Option<&Preparation>, migration: &Migration, now: Timestamp, pace: &Pace) -> Progress {
    let total =
        preparation.map_or(0, |found| usize::try_from(found.a.nodes).unwrap_or(usize::MAX)).max(status.pairs + status.backlog).max(1);
    let (done, left) = (status.pairs.min(total) as u64, total.saturating_sub(status.pairs) as u64);
    let took_ms = now.unix_millis().saturating_sub(migration.since_ms);
    let is_told = migration.phase == Phase::Snapshot && !migration.paused && done > 0 && took_ms >= YOUNG_MS;
    let copy = is_told.then(|| (left.saturating_mul(took_ms) / done).div_ceil(1_000));
    let Outlook { seconds_left, waits_for_operator } = migration.outlook(now, pace);
    let seconds_left = if waits_for_operator { None } else { copy.or(seconds_left) };
    Progress { pairs: status.pairs, backlog: status.backlog, percent: done * 100 / total as u64, seconds_left, waits_for_operator }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zksync::{Link, LinkConfig, Mapping, Plan, Remembered};

    use super::*;

    #[test]
    fn how_long_the_copy_still_takes_is_told_by_how_long_it_took() {
        let now = crate::link::now();
        let link = Link::new(LinkConfig::one_way(Mapping::everything()), Remembered::default(), now);
        let status = Status { pairs: 250, backlog: 750, ..link.status() };
        let mut migration = Migration::new(Plan::of("x"), now);
        let at = |migration: &Migration, ms: u64| {
            let told = progress(&status, None, migration, now + Duration::from_millis(ms), &Pace::default());
            (told.percent, told.seconds_left)
        };
        assert_eq!(at(&migration, 10_000), (25, None), "nothing is copied in this phase");
        migration.phase = Phase::Snapshot;
        assert_eq!((at(&migration, 100), at(&migration, 10_000)), ((25, None), (25, Some(30))));
        migration.phase = Phase::Ready;
        let told = progress(&status, None, &migration, now + Duration::from_secs(10), &Pace::default());
        assert!(told.waits_for_operator && told.seconds_left.is_none(), "{told:?}");
    }
}
