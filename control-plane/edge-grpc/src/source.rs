//! Where answers come from: whoever has the map, its history, and what old probes report beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::Timestamp;
use proto::control::v1::{ListChangesRequest, ListChangesResponse, SearchRequest, SearchResponse, View as ListedView};
use tonic::Status;
use topology::{Details, View, ViewSnapshot};

/// Through which options a view is looked at, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Value by group; nothing is filtered when there is none.
    pub options: BTreeMap<String, String>,
    /// A moment; now when absent or not over yet.
    pub at: Option<Timestamp>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something asked for cannot be understood.
    Invalid(String),
    /// A moment of the past is asked for, and no history is kept.
    NoHistory,
    /// The history cannot be read.
    Broken(String),
    /// What is asked for takes longer than others can wait for it.
    TooLong(String),
    /// The process is about to end.
    Stopped,
}

impl From<Trouble> for Status {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Invalid(text) => Status::invalid_argument(text),
            Trouble::NoHistory => Status::failed_precondition("no history is kept"),
            Trouble::Broken(text) => Status::internal(text),
            Trouble::TooLong(text) => Status::resource_exhausted(text),
            Trouble::Stopped => super::stopping(),
        }
    }
}

/// Whoever has the map.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// All views: those at the top sorted by name, each followed by those below it.
    async fn views(&self, ask: &Ask) -> Result<Vec<ListedView>, Trouble>;
    /// A picture.
    async fn picture(&self, view: View, ask: &Ask) -> Result<Arc<ViewSnapshot>, Trouble>;
    /// A picture, and how it changes.
    async fn follow(&self, view: View, ask: &Ask) -> Result<Box<dyn Feed>, Trouble>;
    /// A node's panel; `None` when the unfiltered view has no such node.
    async fn details(&self, view: View, id: &str, ask: &Ask) -> Result<Option<Box<Details>>, Trouble>;
    /// A page of a search.
    async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Trouble>;
    /// A page of what is different between two moments.
    async fn changes(&self, request: ListChangesRequest) -> Result<ListChangesResponse, Trouble>;
}

/// A picture that is followed.
#[async_trait]
pub trait Feed: Send {
    /// The picture as it is now.
    async fn current(&mut self) -> Result<Arc<ViewSnapshot>, Trouble>;
    /// Waits until something came or went that a client should not have to wait for. May be dropped and begun anew.
    async fn urgent(&mut self) -> Result<(), Trouble>;
}
