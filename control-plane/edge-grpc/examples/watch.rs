//! A client of the gRPC API: lists the views, watches one of them, and shows what comes, changes and goes.
//!
//! ```sh
//! cargo run -p edge-grpc --example watch -- --server http://127.0.0.1:4041 --view containers --query 'image: nginx'
//! ```
#![expect(clippy::print_stdout, reason = "what a program prints")]

use anyhow::{Context as _, Result};
use clap::Parser;
use proto::control::v1::topology_service_client::TopologyServiceClient;
use proto::control::v1::{ListViewsRequest, WatchViewRequest};
use tonic::transport::Endpoint;

/// Watches a view of a control plane.
#[derive(Debug, Parser)]
struct Flags {
    /// Where the control plane serves gRPC
    #[arg(long, default_value = "http://127.0.0.1:4041")]
    server: String,
    /// Id of the view
    #[arg(long, default_value = "containers")]
    view: String,
    /// Only nodes that answer it, in the language of the search box
    #[arg(long, default_value = "")]
    query: String,
    /// End after so many updates
    #[arg(long)]
    updates: Option<usize>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let channel = Endpoint::from_shared(flags.server)?.connect().await.context("no control plane answers there")?;
    let mut map = TopologyServiceClient::new(channel);
    for view in map.list_views(ListViewsRequest::default()).await?.into_inner().views {
        let count = view.statistics.map_or(0, |statistics| statistics.node_count);
        println!("{:<24} {count:>8} nodes", view.id);
    }
    let request = WatchViewRequest { view: flags.view, query: flags.query, ..WatchViewRequest::default() };
    let mut stream = map.watch_view(request).await?.into_inner();
    let mut updates = 0;
    while flags.updates.is_none_or(|most| updates < most) {
        let Some(message) = stream.message().await? else { break };
        for id in message.remove {
            println!("- {id}");
        }
        for (sign, node) in message.update.into_iter().map(|node| ('~', node)).chain(message.add.into_iter().map(|node| ('+', node))) {
            println!("{sign} {}  {}  {}", node.id, node.label, node.label_minor);
        }
        updates += usize::from(!message.more);
    }
    Ok(())
}
