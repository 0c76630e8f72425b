//! What the gRPC API is answered from: the same pictures, searches and comparisons as this API's own.

use std::sync::Arc;

use async_trait::async_trait;
use base::Timestamp;
use edge_grpc::{Ask, Trouble};
use proto::control::v1::{ListChangesRequest, ListChangesResponse, SearchRequest, SearchResponse, View as ListedView};
use tokio::time::Instant;
use topology::{Details, View, ViewSnapshot};

use super::scenes::{Feed, Scenes};
use super::views::{self, Wanted};
use super::{Failure, Past, past};
use crate::drivers::Stopped;
use crate::http::Context;
use crate::http::platform::{self, moment};
use crate::http::query::Query;

/// The map, for the gRPC API.
#[derive(Clone, Debug)]
pub struct Source {
    context: Context,
    scenes: Scenes,
}

impl Source {
    /// What HTTP is answered from.
    pub fn new(context: &Context) -> Self {
        Source { scenes: Scenes::new(context), context: context.clone() }
    }

    fn past(&self, at: Option<Timestamp>) -> Result<Option<Past>, Trouble> {
        match at.filter(|&at| !past::is_now(at, self.context.clock.now(), self.context.limits.window)) {
            None => Ok(None),
            Some(at) => Past::at(&self.context, at).map(Some).ok_or(Trouble::NoHistory),
        }
    }
}

#[async_trait]
impl edge_grpc::Source for Source {
    async fn views(&self, ask: &Ask) -> Result<Vec<ListedView>, Trouble> {
        let wanted = super::scenes::all_views(&query(ask));
        let (stats, namespaces) = match self.past(ask.at)? {
            Some(past) => past.list(wanted).await?,
            None => (self.scenes.stats(wanted).await?, self.scenes.namespaces().await?),
        };
        Ok(views::listed(&stats, &namespaces, &self.context.label_filters))
    }

    async fn picture(&self, view: View, ask: &Ask) -> Result<Arc<ViewSnapshot>, Trouble> {
        let wanted = Wanted::new(view, &query(ask));
        match self.past(ask.at)? {
            Some(past) => Ok(past.picture(&wanted).await?),
            None => Ok(self.scenes.snapshot(&wanted).await?),
        }
    }

    async fn follow(&self, view: View, ask: &Ask) -> Result<Box<dyn edge_grpc::Feed>, Trouble> {
        let wanted = Wanted::new(view, &query(ask));
        match self.past(ask.at)? {
            Some(past) => Ok(Box::new(Moving { past, wanted, begun: Instant::now() })),
            None => Ok(Box::new(Live(self.scenes.follow(wanted).await?))),
        }
    }

    async fn details(&self, view: View, id: &str, ask: &Ask) -> Result<Option<Box<Details>>, Trouble> {
        let wanted = Wanted::new(view, &query(ask));
        match self.past(ask.at)? {
            Some(past) => Ok(past.details(&wanted, id.to_owned()).await?),
            None => Ok(self.scenes.details(&wanted, id.to_owned()).await?),
        }
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Trouble> {
        let SearchRequest { query, view, page_size, page_token, at } = request;
        let at = read(at.as_ref(), "at")?;
        // Which is said here; a client of HTTP is shown what is there now.
        self.past(at)?;
        let at = at.map(moment).unwrap_or_default();
        let asked = [("q", query), ("view", view), ("limit", limit(page_size)), ("after", page_token), ("timestamp", at)];
        let query = Query::of(asked.into_iter().filter(|(_, value)| !value.is_empty()));
        platform::search::answer(&self.context, &query).await?.map(SearchResponse::from).map_err(|refusal| match refusal {
            platform::search::Refusal::Invalid(text) => Trouble::Invalid(text),
            platform::search::Refusal::TooLong(error) => Trouble::TooLong(error.to_string()),
        })
    }

    async fn changes(&self, request: ListChangesRequest) -> Result<ListChangesResponse, Trouble> {
        let ListChangesRequest { view, options, from, to, page_size, page_token } = request;
        let (from, to) = (read(from.as_ref(), "from")?, read(to.as_ref(), "to")?);
        let (from, to) = (from.map(moment).unwrap_or_default(), to.map(moment).unwrap_or_default());
        let asked = [("from", from), ("to", to), ("view", view), ("limit", limit(page_size)), ("after", page_token)];
        let names = asked.each_ref().map(|(name, _)| *name);
        let options = options.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        let options: Vec<(&str, String)> = options.map(|(name, value)| (name.as_str(), value.clone())).collect();
        let query = Query::of(asked.into_iter().filter(|(_, value)| !value.is_empty()).chain(options));
        match platform::changes::answer(&self.context, &query).await? {
            Ok(reply) => Ok(reply.into()),
            Err(_) if self.context.history.kept().is_none() => Err(Trouble::NoHistory),
            Err(text) => Err(Trouble::Invalid(text)),
        }
    }
}

/// The options as this API reads them.
fn query(ask: &Ask) -> Query {
    Query::of(ask.options.iter().map(|(name, value)| (name.as_str(), value.clone())))
}

/// A moment that a request names in a field.
fn read(at: Option<&prost_types::Timestamp>, field: &str) -> Result<Option<Timestamp>, Trouble> {
    at.map(|at| edge_grpc::moment(at, field)).transpose().map_err(|status| Trouble::Invalid(status.message().to_owned()))
}

/// The longest page there is instead of a longer one, and none when the client does not say.
fn limit(page_size: u32) -> String {
    if page_size == 0 { String::new() } else { page_size.min(1_000).to_string() }
}

/// The live map, as it changes.
struct Live(Feed);

#[async_trait]
impl edge_grpc::Feed for Live {
    async fn current(&mut self) -> Result<Arc<ViewSnapshot>, Trouble> {
        Ok(self.0.current().await?)
    }

    async fn urgent(&mut self) -> Result<(), Trouble> {
        Ok(self.0.urgent().await?)
    }
}

/// The map of a moment that moves on as time does.
struct Moving {
    past: Past,
    wanted: Wanted,
    begun: Instant,
}

#[async_trait]
impl edge_grpc::Feed for Moving {
    async fn current(&mut self) -> Result<Arc<ViewSnapshot>, Trouble> {
        Ok(self.past.moved_to(self.past.at + self.begun.elapsed()).picture(&self.wanted).await?)
    }

    async fn urgent(&mut self) -> Result<(), Trouble> {
        // The past is looked at when its time has come.
        std::future::pending().await
    }
}

impl From<Stopped> for Trouble {
    fn from(_: Stopped) -> Self {
        Trouble::Stopped
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stopped(_) => Trouble::Stopped,
            Failure::History(error) => Trouble::Broken(error.to_string()),
        }
    }
}
