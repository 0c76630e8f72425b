//! `timestamp`: the map as it was. Scope's rules: an empty one is now, one that cannot be read is only logged, and one that is not over yet
//! is now, too.

use std::sync::Arc;

use axum::response::Response;
use base::Timestamp;
use history::{PlayError, Player};
use http::StatusCode;
use topology::{Details, NodeId, ViewKey, ViewSnapshot, ViewStats};

use super::scenes::keep_namespaces;
use super::views::{Namespaces, Wanted};
use crate::drivers::{HistoryError, HistoryHandle, Stopped};
use crate::http::Context;
use crate::http::query::Query;
use crate::http::reply::{problem, stopped};
use crate::telemetry::events::TimestampIgnored;

/// Parameter with the moment, in RFC 3339.
const PARAMETER: &str = "timestamp";

/// A moment of the past that a request asks for, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) at: Timestamp,
    history: HistoryHandle,
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
        let history = context.history.kept()?.clone();
        (at < context.clock.now()).then_some(Past { at, history })
    }

    /// A moment, if there is a history.
    pub(crate) fn at(context: &Context, at: Timestamp) -> Option<Past> {
        Some(Past { at, history: context.history.kept()?.clone() })
    }

    /// Later or earlier, by the same way.
    pub(crate) fn moved_to(&self, at: Timestamp) -> Past {
        Past { at, history: self.history.clone() }
    }

    /// Looks at the map of that moment; `None` when it is before everything that is kept.
    pub(crate) async fn look<R: Send + 'static>(&self, look: impl FnOnce(&mut Player) -> R + Send + 'static) -> Result<Option<R>, Failure> {
        match self.history.at(self.at, look).await {
            Ok(seen) => Ok(Some(seen)),
            Err(HistoryError::Play(PlayError::TooEarly)) => Ok(None),
            Err(error) => Err(Failure::History(error)),
        }
    }

    /// The picture that a request asks for, of that moment. What old probes reported is not kept.
    pub(crate) async fn picture(&self, wanted: &Wanted) -> Result<Arc<ViewSnapshot>, Failure> {
        if !wanted.names_namespaces() {
            return self.snapshot(wanted.key).await;
        }
        let wanted = wanted.clone();
        let picture = self.look(move |player| {
            let mut picture = player.snapshot(wanted.key);
            if let Some(namespaces) = wanted.namespaces(&namespaces_of(player)) {
                keep_namespaces(&mut picture, &namespaces);
            }
            picture
        });
        Ok(Arc::new(picture.await?.unwrap_or_default()))
    }

    /// Numbers of all views for one query, and what `namespace` may be.
    pub(crate) async fn list(&self, wanted: Vec<Wanted>) -> Result<(Vec<ViewStats>, Namespaces), Failure> {
        let listed = self.look(move |player| {
            let keys: Vec<ViewKey> = wanted.iter().map(|wanted| wanted.key).collect();
            (player.stats(&keys), namespaces_of(player))
        });
        Ok(listed.await?.unwrap_or_default())
    }

    /// A node's panel at that moment. There is nothing to be done to the past.
    pub(crate) async fn details(&self, wanted: &Wanted, id: String) -> Result<Option<Box<Details>>, Failure> {
        let key = wanted.key;
        let details = self.look(move |player| player.details(key, &NodeId::from(id)).map(Box::new)).await?.flatten();
        Ok(details.map(|details| Box::new(Details { controls: Vec::new(), ..*details })))
    }

    /// The picture of that moment; an empty one before everything that is kept.
    pub(crate) async fn snapshot(&self, key: ViewKey) -> Result<Arc<ViewSnapshot>, Failure> {
        Ok(Arc::new(self.look(move |player| player.snapshot(key)).await?.unwrap_or_default()))
    }
}

fn namespaces_of(player: &Player) -> Namespaces {
    Namespaces { kubernetes: player.map().namespaces().into_iter().collect(), ..Namespaces::default() }
}

/// The picture that a request asks for, of now or of the past.
pub(crate) async fn snapshot(context: &Context, past: Option<&Past>, key: ViewKey) -> Result<Arc<ViewSnapshot>, Failure> {
    match past {
        Some(past) => past.snapshot(key).await,
        None => context.topology.snapshot(key).await.map_err(Failure::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
