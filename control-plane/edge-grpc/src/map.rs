//! `TopologyService`: the map.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message as _;
use proto::control::v1::topology_service_server::TopologyService;
use proto::control::v1::{
    GetNodeRequest, GetNodeResponse, ListChangesRequest, ListChangesResponse, ListNodesRequest, ListNodesResponse, ListViewsRequest,
    ListViewsResponse, Node, SearchRequest, SearchResponse, WatchViewRequest, WatchViewResponse,
};
use tonic::{Request, Response, Status};
use topology::{NodeId, Query, View, ViewSnapshot};

use crate::source::Trouble;
use crate::{Context, convert, watch};

/// Nodes of a page when the client does not say, and at most.
const PAGE: usize = 500;
const PAGE_MAX: usize = 1_000;
/// Longest page token: an id of a node.
const TOKEN_MAX: usize = 8 << 10;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    context: Context,
}

impl Map {
    pub(crate) fn new(context: Context) -> Self {
        Map { context }
    }

    async fn nodes(&self, request: ListNodesRequest) -> Result<ListNodesResponse, Status> {
        let ListNodesRequest { view, options, query, at, page_size, page_token } = request;
        let (view, words, ask) = (view_of(&view)?, words_of(&query)?, convert::ask(options, at)?);
        if page_token.len() > TOKEN_MAX {
            return Err(Status::invalid_argument("page_token is longer than any page before this one gave"));
        }
        let size = match usize::try_from(page_size).unwrap_or(PAGE_MAX) {
            0 => PAGE,
            size => size.min(PAGE_MAX),
        };
        let snapshot = self.context.source().picture(view, &ask).await?;
        let bytes = self.context.0.limits.message_bytes * 4;
        // Looking for answers in a large view takes its time.
        let page = tokio::task::spawn_blocking(move || page(&snapshot, words.as_ref(), page_token, size, bytes));
        page.await.map_err(|_| Status::from(Trouble::Stopped))
    }

    async fn node(&self, request: GetNodeRequest) -> Result<GetNodeResponse, Status> {
        let GetNodeRequest { view, id, options, at } = request;
        let (view, ask) = (view_of(&view)?, convert::ask(options, at)?);
        match self.context.source().details(view, &id, &ask).await? {
            Some(details) => Ok(convert::details(&details)),
            None => Err(Status::not_found(format!("there is no node {id:?} in the view {}", view.id()))),
        }
    }

    async fn watch(&self, request: WatchViewRequest) -> Result<watch::Messages, Status> {
        let WatchViewRequest { view, options, query, at, interval } = request;
        let (view, words, ask) = (view_of(&view)?, words_of(&query)?, convert::ask(options, at)?);
        let interval = interval.map(|interval| convert::span(&interval, "interval")).transpose()?;
        let room = self.context.room()?;
        let feed = self.context.source().follow(view, &ask).await?;
        Ok(watch::start(&self.context, room, feed, words, interval))
    }
}

#[tonic::async_trait]
impl TopologyService for Map {
    type WatchViewStream = Pin<Box<dyn Stream<Item = Result<WatchViewResponse, Status>> + Send>>;

    async fn list_views(&self, request: Request<ListViewsRequest>) -> Result<Response<ListViewsResponse>, Status> {
        let ListViewsRequest { options, at } = request.into_inner();
        let views = async {
            let ask = convert::ask(options, at)?;
            Ok(ListViewsResponse { views: self.context.source().views(&ask).await? })
        };
        self.context.answer("ListViews", views).await
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        self.context.answer("ListNodes", self.nodes(request.into_inner())).await
    }

    async fn watch_view(&self, request: Request<WatchViewRequest>) -> Result<Response<Self::WatchViewStream>, Status> {
        // When it ends is counted by whoever fills it.
        if self.context.0.stopping.is_cancelled() {
            return Err(crate::stopping());
        }
        match self.watch(request.into_inner()).await {
            Ok(messages) => Ok(Response::new(Box::pin(messages))),
            Err(status) => self.context.answer("WatchView", std::future::ready(Err(status))).await,
        }
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        self.context.answer("GetNode", self.node(request.into_inner())).await
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let found = async { Ok(self.context.source().search(request.into_inner()).await?) };
        self.context.answer("Search", found).await
    }

    async fn list_changes(&self, request: Request<ListChangesRequest>) -> Result<Response<ListChangesResponse>, Status> {
        let changes = async { Ok(self.context.source().changes(request.into_inner()).await?) };
        self.context.answer("ListChanges", changes).await
    }
}

fn view_of(id: &str) -> Result<View, Status> {
    View::from_id(id).ok_or_else(|| Status::not_found(format!("there is no view {id:?}")))
}

fn words_of(query: &str) -> Result<Option<Query>, Status> {
    let words = Some(query).filter(|query| !query.is_empty()).map(Query::parse).transpose();
    words.map_err(|error| Status::invalid_argument(format!("query: {error}")))
}

/// A page of nodes behind `after`: no more than `size`, and no more bytes than that but one node.
fn page(snapshot: &Arc<ViewSnapshot>, words: Option<&Query>, after: String, size: usize, bytes: usize) -> ListNodesResponse {
    let begin = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(NodeId::from(after)) };
    let mut answering =
        snapshot.nodes.range((begin, Bound::Unbounded)).filter(|(_, node)| words.is_none_or(|words| words.find(node.summary()).is_some()));
    let (mut nodes, mut length) = (Vec::<Node>::new(), 0);
    let mut next_page_token = String::new();
    for (_, node) in answering.by_ref() {
        if nodes.len() == size || length >= bytes {
            next_page_token = nodes.last().map(|node| node.id.clone()).unwrap_or_default();
            break;
        }
        let node = convert::node(node.summary());
        length += node.encoded_len();
        nodes.push(node);
    }
    ListNodesResponse { nodes, next_page_token, statistics: Some(convert::statistics(snapshot.stats)) }
}
