//! One stream of one agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use master::LinkId;
use proto::agent::v1::master_message::Body as Down;
use proto::agent::v1::refused::Reason;
use proto::agent::v1::{AgentMessage, MasterMessage, Refused, agent_message::Body as Up};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Streaming;

use super::convert::{self, Collected, Translated};
use crate::driver::{LinkStream, MasterHandle};
use crate::leadership::Status as Leading;

/// How long an agent may take to say everything it holds.
const REGISTER_PATIENCE: Duration = Duration::from_secs(60);
/// Commands that may be on the way without the agent's having said that they arrived.
const WINDOW: u64 = 1_024;

pub(super) struct Session {
    master: MasterHandle,
    ping_interval: Duration,
    outbound: mpsc::Sender<Box<MasterMessage>>,
    peer: Option<SocketAddr>,
    principal: Option<Arc<str>>,
}

impl Session {
    pub(super) fn new(
        master: MasterHandle,
        ping_interval: Duration,
        outbound: mpsc::Sender<Box<MasterMessage>>,
        (peer, principal): (Option<SocketAddr>, Option<Arc<str>>),
    ) -> Self {
        Session { master, ping_interval, outbound, peer, principal }
    }

    pub(super) async fn run(self, mut incoming: Streaming<AgentMessage>) {
        match self.master.status() {
            Leading::Serving => {}
            Leading::Led(leader) => {
                let message = format!("{}:{} leads", leader.hostname, leader.port);
                return self.refuse_for(Reason::NotLeading, &message, leader.grpc.unwrap_or_default()).await;
            }
            Leading::Nobody => return self.refuse(Reason::NotLeading, "no leader is elected").await,
            Leading::Recovering => return self.refuse(Reason::NotReady, "the master has not finished recovery").await,
        }
        let register = match timeout(REGISTER_PATIENCE, collect(&mut incoming)).await {
            Ok(Ok(register)) => master::Register { principal: self.principal.clone(), ..register },
            Ok(Err(problem)) => {
                tracing::warn!(peer = ?self.peer, problem, "an agent's registration is malformed");
                return self.refuse(Reason::Invalid, &problem).await;
            }
            Err(_) => return self.refuse(Reason::Invalid, "the registration did not come in time").await,
        };
        let Ok((link, commands)) = self.master.register(Box::new(register)).await else {
            return self.refuse(Reason::NotReady, "the master is shutting down").await;
        };
        self.exchange(link, commands, incoming).await;
    }

    async fn refuse(&self, reason: Reason, message: &str) {
        self.refuse_for(reason, message, String::new()).await;
    }

    /// Where there is one that leads, the agent is told where.
    async fn refuse_for(&self, reason: Reason, message: &str, leader: String) {
        let refused = Refused { reason: reason.into(), message: message.to_owned(), leader };
        let _ = self.outbound.send(Box::new(MasterMessage { body: Some(Down::Refused(refused)), sequence: 0 })).await;
    }

    /// Until one side ends it. Dropping `commands` tells the master.
    async fn exchange(&self, link: LinkId, mut commands: LinkStream, mut incoming: Streaming<AgentMessage>) {
        let mut sequence = 0_u64;
        let mut arrived = 0_u64;
        // Translated and not sent yet.
        let mut next: Option<Box<MasterMessage>> = None;
        loop {
            let may_take = next.is_none() && sequence - arrived < WINDOW;
            tokio::select! {
                message = incoming.message() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        // That the link ends is told another way, which must not overtake the last that was said on it.
                        Ok(None) => return drop(self.master.read().await),
                        Err(status) => {
                            tracing::debug!(link = link.0, peer = ?self.peer, %status, "an agent's stream broke");
                            return drop(self.master.read().await);
                        }
                    };
                    // It cannot have got what was not sent.
                    arrived = arrived.max(message.received_through.min(sequence));
                    match convert::from_agent(message) {
                        Translated::Message(message) => {
                            if self.master.hear_agent(link, message).await.is_err() {
                                return;
                            }
                        }
                        Translated::Nothing => {}
                        Translated::Malformed(problem) => {
                            tracing::warn!(link = link.0, peer = ?self.peer, problem, "an agent's message is malformed and was dropped");
                        }
                    }
                }
                command = commands.next(), if may_take => {
                    // The master has closed this link; what was sent before still goes out.
                    let Some(command) = command else { return };
                    let (body, is_command) = convert::to_agent(*command, self.master.info(), self.ping_interval, WINDOW);
                    if is_command {
                        sequence += 1;
                    }
                    next = Some(Box::new(MasterMessage { body: Some(body), sequence: if is_command { sequence } else { 0 } }));
                }
                permit = self.outbound.reserve(), if next.is_some() => {
                    let Ok(permit) = permit else { return };
                    if let Some(message) = next.take() {
                        permit.send(message);
                    }
                }
            }
        }
    }
}

/// The registration, however many parts it has.
async fn collect(incoming: &mut Streaming<AgentMessage>) -> Result<master::Register, String> {
    let mut collected = Collected::default();
    loop {
        let message = incoming.message().await.map_err(|status| status.to_string())?;
        match message.and_then(|it| it.body) {
            Some(Up::Register(part)) => {
                let more = part.more;
                collected.add(part)?;
                if !more {
                    return collected.finish();
                }
            }
            Some(_) => return Err("the first message is no registration".to_owned()),
            None => return Err("the stream ended before the registration was whole".to_owned()),
        }
    }
}
