//! A control plane that only listens: prints what a probe tells, for work on the probe.
//!
//! `cargo run -p orchestrator-probe --example receive -- 127.0.0.1:4041`

use std::io::Write as _;

use proto::probe::v1::probe_service_server::{ProbeService, ProbeServiceServer};
use proto::probe::v1::{Acknowledge, ControlMessage, ProbeMessage, Report, Welcome, control_message, probe_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

struct Printer;

#[tonic::async_trait]
impl ProbeService for Printer {
    type StreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn stream(&self, request: Request<Streaming<ProbeMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut messages = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let answer = |body| Ok(ControlMessage { body: Some(body) });
        #[expect(clippy::disallowed_methods, reason = "an example has nothing to supervise")]
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let reply = match message.body {
                    Some(probe_message::Body::Hello(hello)) => {
                        line(&format!("{hello:?}"));
                        let welcome = Welcome {
                            control_plane_id: "receive".to_owned(),
                            max_report_bytes: 1 << 20,
                            metrics_interval_ms: 15_000,
                            ..Welcome::default()
                        };
                        control_message::Body::Welcome(welcome)
                    }
                    Some(probe_message::Body::Report(report)) => {
                        print(&report);
                        control_message::Body::Acknowledge(Acknowledge { sequence: report.sequence })
                    }
                    other => {
                        line(&format!("{other:?}"));
                        continue;
                    }
                };
                if sender.send(answer(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn print(report: &Report) {
    line(&format!("-- report {} {:?} ({} bytes)", report.sequence, report.kind(), prost::Message::encoded_len(report)));
    if let Some(host) = &report.host {
        line(&format!("{host:?}"));
    }
    if let Some(capture) = &report.capture {
        line(&format!("{capture:?}"));
    }
    if let Some(losses) = &report.losses {
        line(&format!("{losses:?}"));
    }
    report.processes.iter().for_each(|it| line(&format!("  {it:?}")));
    report.containers.iter().for_each(|it| line(&format!("  {it:?}")));
    report.images.iter().for_each(|it| line(&format!("  {it:?}")));
    report.flows.iter().for_each(|it| line(&format!("  {it:?}")));
    let gone = (&report.processes_gone, &report.flows_gone, &report.containers_gone, &report.images_gone);
    line(&format!("  gone {gone:?}"));
    line(&format!("  {} process samples, host {:?}", report.process_metrics.len(), report.host_metrics));
    report.container_metrics.iter().for_each(|it| line(&format!("  {it:?}")));
}

fn line(text: &str) {
    // Whoever closes the pipe has seen enough.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4041".to_owned()).parse()?;
    let server = ProbeServiceServer::new(Printer).max_decoding_message_size(16 << 20);
    tonic::transport::Server::builder().add_service(server).serve(address).await?;
    Ok(())
}
