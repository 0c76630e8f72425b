//! `timestamp`: the map as it was. Scope's rules: an empty one is now, one that cannot be read is only logged, and one that is not over yet
//! is now, too; so is one that only just is.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use base::Timestamp;
use history::{PlayError, Player};
use http::StatusCode;
use scope_report::{Drawing, Joints, Overlay, Report};
use topology::{Details, Filter, Link, NodeId, ViewKey, ViewSnapshot, ViewStats};

use super::labels::LabelFilter;
use super::merging;
use super::scenes::Scenes;
use super::scenes::composing::{composed, keep};
use super::views::{Namespaces, Wanted};
use crate::drivers::{HistoryError, HistoryHandle, OldReports, Stopped};
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{problem, stopped};
use crate::telemetry::events::TimestampIgnored;

/// Parameter with the moment, in RFC 3339.
const PARAMETER: &str = "timestamp";

/// What is over for no longer is now: a client that stamps what it asks for by a clock of its own means the present. Scope kept reports of so
/// long as one.
const JUST_NOW: Duration = Duration::from_secs(3);

/// Connections of old probes that the map of a moment is asked for.
const LINKS_MAX: usize = 200_000;

/// Processes, containers and pods of old probes that the map of a moment is asked for.
const MEMBERS_MAX: usize = 200_000;

/// A moment of the past that a request asks for, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) at: Timestamp,
    history: HistoryHandle,
    old_reports: Option<OldReports>,
    labels: Arc<[LabelFilter]>,
}

/// Why a request cannot be answered.
#[derive(Debug)]
pub(crate) enum Failure {
    Stopped(Stopped),
    History(HistoryError),
}

impl Failure {
    /// By a defect.
    pub(crate) fn broken() -> Self {
        Failure::History(HistoryError::Broken)
    }

    pub(crate) fn reply(&self) -> Response {
        match self {
            Failure::Stopped(error) => stopped(*error),
            Failure::History(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// Whether a moment is shown by the live map, which has what ended within the window as well.
pub(super) fn is_now(at: Timestamp, now: Timestamp, window: Duration) -> bool {
    at + JUST_NOW.min(window) >= now
}

/// Reads RFC 3339.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok().map(Timestamp::from_unix_nanos)
}

impl Past {
    /// The past that a request asks for; `None` for now.
    pub(crate) fn of(context: &Context, query: &Query) -> Option<Past> {
        let text = query.first(PARAMETER).filter(|text| !text.is_empty())?;
        let Some(at) = parse(text) else {
            TimestampIgnored { text }.emit(&context.telemetry);
            return None;
        };
        if is_now(at, context.clock.now(), context.limits.window) { None } else { Past::at(context, at) }
    }

    /// A moment, if there is a history.
    pub(crate) fn at(context: &Context, at: Timestamp) -> Option<Past> {
        let (old_reports, labels) = (context.old_reports.clone(), context.label_filters.clone());
        Some(Past { at, history: context.history.kept()?.clone(), old_reports, labels })
    }

    /// Later or earlier, by the same way.
    pub(crate) fn moved_to(&self, at: Timestamp) -> Past {
        Past { at, ..self.clone() }
    }

    /// Looks at the map of that moment, and at what old probes reported then; `None` when it is before everything that is kept.
    pub(crate) async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Then<'_>) -> R + Send + 'static,
    ) -> Result<Option<R>, Failure> {
        let (at, old_reports) = (self.at, self.old_reports.clone());
        let seen = self.history.at(at, move |player| {
            let report = old_reports.map(|reports| reports.at(at)).transpose().map_err(PlayError::File)?.flatten();
            let drawing = report.as_deref().map(|report| drawing(player, report));
            player.neighbours(drawing.as_ref().map(Drawing::neighbours).unwrap_or_default());
            Ok::<R, PlayError>(look(&mut Then { player, drawing: drawing.as_ref(), report: report.as_deref() }))
        });
        match seen.await {
            Ok(Ok(seen)) => Ok(Some(seen)),
            Err(HistoryError::Play(PlayError::TooEarly)) => Ok(None),
            Ok(Err(error)) => Err(Failure::History(HistoryError::Play(error))),
            Err(error) => Err(Failure::History(error)),
        }
    }

    /// The picture that a request asks for, of that moment; an empty one before everything that is kept.
    pub(crate) async fn picture(&self, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Failure> {
        let (wanted, labels) = (wanted.clone(), self.labels.clone());
        Ok(Arc::new(self.look(move |then| then.cut_picture(&wanted, &labels)).await?.unwrap_or_default()))
    }

    /// Numbers of all views for one query, and what `namespace` may be.
    pub(crate) async fn list(&self, wanted: Vec<Wanted>) -> Result<(Vec<ViewStats>, Namespaces), Failure> {
        let labels = self.labels.clone();
        let listed = self.look(move |then| {
            let stats = if then.drawing.is_none() && !wanted.iter().any(Wanted::is_cut) {
                let keys: Vec<ViewKey> = wanted.iter().map(|wanted| wanted.key).collect();
                then.player.stats(&keys)
            } else {
                wanted.iter().map(|wanted| then.cut_picture(wanted, &labels).stats).collect()
            };
            (stats, then.namespaces())
        });
        Ok(listed.await?.unwrap_or_default())
    }

    /// A node's panel at that moment. There is nothing to be done to the past.
    pub(crate) async fn details(&self, wanted: &Wanted, id: String) -> Result<Option<Box<Details>>, Failure> {
        let (wanted, labels) = (wanted.clone(), self.labels.clone());
        let details = self.look(move |then| then.details(&wanted, &labels, &id)).await?.flatten();
        Ok(details.map(|details| Box::new(Details { controls: Vec::new(), ..details })))
    }
}

/// A moment of the past.
pub(crate) struct Then<'a> {
    pub(crate) player: &'a mut Player,
    /// What old probes reported, as one; nothing when there was none.
    pub(crate) report: Option<&'a Report>,
    drawing: Option<&'a Drawing>,
}

impl Then<'_> {
    /// What is drawn from what old probes reported.
    pub(crate) fn drawing(&self) -> Option<&Drawing> {
        self.drawing
    }

    fn cut_picture(&mut self, wanted: &Wanted, labels: &[LabelFilter]) -> ViewSnapshot {
        let mut picture = self.picture(wanted);
        if let Some(label) = wanted.label_filter(labels) {
            keep(&mut picture, |node| label.keeps(node));
        }
        picture
    }

    fn picture(&mut self, wanted: &Wanted) -> ViewSnapshot {
        let namespaces = if wanted.names_namespaces() { wanted.namespaces(&self.namespaces()) } else { None };
        let base = self.player.snapshot(wanted.key);
        let Some(drawing) = self.drawing else {
            return match namespaces {
                None => base,
                Some(namespaces) => composed(&base, &base, &Overlay::default(), Some(&namespaces)),
            };
        };
        let whole = if wanted.key.filter.hide_unconnected {
            let filter = Filter { hide_unconnected: false, ..wanted.key.filter };
            self.player.snapshot(ViewKey { filter, ..wanted.key })
        } else {
            base.clone()
        };
        let overlay = drawing.overlay(wanted.key.view, &wanted.options(namespaces.clone()));
        composed(&base, &whole, &overlay, namespaces.as_ref())
    }

    fn namespaces(&self) -> Namespaces {
        let mut namespaces = Namespaces { kubernetes: self.player.map().namespaces().into_iter().collect(), ..Namespaces::default() };
        if let Some(drawing) = self.drawing {
            let (kubernetes, stacks) = drawing.namespaces();
            namespaces.kubernetes.extend(kubernetes);
            namespaces.stacks = stacks;
        }
        namespaces
    }

    fn details(&mut self, wanted: &Wanted, labels: &[LabelFilter], id: &str) -> Option<Details> {
        let view = wanted.key.view;
        let ours = self.player.details(wanted.key, &NodeId::from(id));
        let namespaces = if wanted.names_namespaces() { wanted.namespaces(&self.namespaces()) } else { None };
        let is_cut = namespaces.is_some() || wanted.label_filter(labels).is_some();
        let theirs = self.drawing.and_then(|drawing| {
            let is_there = ours.is_some() || drawing.finds(view, id) == Some(false);
            is_there.then(|| drawing.details(view, id, &wanted.options(namespaces))).flatten()
        });
        let is_ours_alone = theirs.is_none();
        let details = match (ours, theirs) {
            (ours, None) => ours?,
            (None, Some(theirs)) => theirs,
            (Some(mut ours), Some(theirs)) => {
                merging::details(&mut ours, theirs);
                ours
            }
        };
        if is_ours_alone && !is_cut {
            return Some(details);
        }
        // Neighbours of the other side are known there by their ids alone.
        let picture = self.cut_picture(wanted, labels);
        let details = merging::with_labels(details, &picture);
        Some(if is_cut { merging::within(details, &picture) } else { details })
    }
}

/// What old probes reported, with the ends of their connections that the map of that moment knows.
fn drawing(player: &Player, report: &Report) -> Drawing {
    let mut questions = Joints::questions(report);
    questions.truncate(LINKS_MAX);
    let links: Vec<Link> = questions.iter().map(|(link, ..)| *link).collect();
    let members: Vec<NodeId> = Joints::members(report).take(MEMBERS_MAX).collect();
    let groups = player.map().groups_of(&members);
    let joints = Joints::answers(report, &questions, player.map().link_ends(&links)).with_groups(members, groups);
    Drawing::new(report.clone(), joints)
}

/// The picture that a request asks for, of now or of the past.
pub(crate) async fn picture(context: &Context, past: Option<&Past>, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Failure> {
    match past {
        Some(past) => past.picture(wanted).await,
        None => {
            let scenes = Scenes::new(context);
            scenes.snapshot(wanted).await.map_err(Failure::Stopped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_a_little_late_means_the_present() {
        let now = Timestamp::from_unix_millis(1_767_225_600_000);
        let ago = |millis: u64| Timestamp::from_unix_millis(1_767_225_600_000 - millis);
        let is_now = |at, window| is_now(at, now, Duration::from_secs(window));
        assert!(is_now(now + Duration::from_secs(60), 15) && is_now(now, 15) && is_now(ago(40), 15) && is_now(ago(3_000), 15));
        assert!(!is_now(ago(3_001), 15) && !is_now(ago(60_000), 15));
        assert!(is_now(ago(1_000), 1) && !is_now(ago(1_001), 1), "what has left the map is not shown by it");
    }

    #[test]
    fn moments_are_read_as_clients_write_them() {
        let at = |millis| Some(Timestamp::from_unix_millis(millis));
        assert_eq!(parse("2026-01-01T00:00:00Z"), at(1_767_225_600_000));
        assert_eq!(parse("2026-01-01T00:00:00.250Z"), at(1_767_225_600_250));
        assert_eq!(parse("2026-01-01T01:00:00+01:00"), at(1_767_225_600_000));
        for text in ["yesterday", "1767225600", "2026-01-01", "1900-01-01T00:00:00Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
