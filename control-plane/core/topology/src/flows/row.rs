//! A flow as its probe reports it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use smallvec::{SmallVec, smallvec};

use super::Terminal;
use crate::index::{ChannelIndex, ContainerIndex, HostIndex, ProcessIndex};
use crate::report::{Application, Direction, FlowCounters, FlowKey, Translation, TranslationSource};

/// One end of a group of connections, as its probe reports it.
#[derive(Debug)]
pub(crate) struct FlowRow {
    pub(crate) host: HostIndex,
    pub(crate) session: Arc<str>,
    pub(crate) probe_flow_id: u64,
    pub(crate) ordinal: u64,
    pub(crate) key: FlowKey,
    pub(crate) counters: FlowCounters,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_active: Timestamp,
    pub(crate) process: Option<ProcessIndex>,
    pub(crate) container: Option<ContainerIndex>,
    /// Where its connections are joined with their other ends; none while it is not drawn.
    pub(crate) channels: SmallVec<[ChannelIndex; 2]>,
    extra: Option<Box<Extra>>,
    pub(crate) epoch: u64,
    pub(crate) leaves_at: Option<Timestamp>,
    closed_marks: [(Timestamp, u64); 2],
    counted_at: Timestamp,
}

/// What few flows have.
#[derive(Debug, Default, PartialEq)]
struct Extra {
    translations: Vec<Translation>,
    applications: Vec<Application>,
    others: u64,
}

impl FlowRow {
    #[expect(clippy::too_many_arguments, reason = "the fields of a row, each from another place")]
    pub(crate) fn new(
        host: HostIndex,
        session: Arc<str>,
        probe_flow_id: u64,
        ordinal: u64,
        key: FlowKey,
        process: Option<ProcessIndex>,
        container: Option<ContainerIndex>,
        now: Timestamp,
    ) -> Self {
        FlowRow {
            host,
            session,
            probe_flow_id,
            ordinal,
            key,
            counters: FlowCounters::default(),
            first_seen: now,
            last_active: now,
            process,
            container,
            channels: SmallVec::new(),
            extra: None,
            epoch: 0,
            leaves_at: None,
            closed_marks: [(now, 0); 2],
            counted_at: now,
        }
    }

    /// Takes new totals over.
    pub(crate) fn count(&mut self, counters: FlowCounters, now: Timestamp, window: Duration) {
        if now.since(self.closed_marks[1].0) >= window {
            self.closed_marks = [self.closed_marks[1], (now, self.counters.closed)];
        }
        self.counters = counters;
        self.counted_at = now;
    }

    /// Takes over what few flows have; true when that changes with whom it is joined. A record without translations says nothing of them.
    pub(crate) fn tell(&mut self, translations: Vec<Translation>, applications: Vec<Application>, others: u64) -> bool {
        let old = self.extra.as_deref();
        let translations = if translations.is_empty() { old.map(|it| it.translations.clone()).unwrap_or_default() } else { translations };
        let joins = |list: &[Translation]| list.iter().map(|it| (it.server, it.client)).collect::<BTreeSet<_>>();
        let moved = joins(&translations) != joins(self.translations()) || (others == 0) != (self.others() == 0);
        let extra = Extra { translations, applications, others };
        self.extra = (extra != Extra::default()).then(|| Box::new(extra));
        moved
    }

    /// Where address translation took its connections, as the client's end tells it.
    pub(crate) fn translations(&self) -> &[Translation] {
        self.extra.as_deref().map(|extra| extra.translations.as_slice()).unwrap_or_default()
    }

    /// Totals by application protocol.
    pub(crate) fn applications(&self) -> &[Application] {
        self.extra.as_deref().map(|extra| extra.applications.as_slice()).unwrap_or_default()
    }

    /// How many flows it sums up; 0 for a flow of its own.
    pub(crate) fn others(&self) -> u64 {
        self.extra.as_deref().map_or(0, |extra| extra.others)
    }

    /// Addresses whose name is that of the other end, the best first: what a client asked for, before where it was taken.
    pub(crate) fn named_addresses(&self) -> SmallVec<[IpAddr; 2]> {
        match self.key.direction {
            Direction::Client => {
                self.key.original_server.map(|(address, _)| address).into_iter().chain([self.key.server_address]).collect()
            }
            Direction::Server => smallvec![self.key.client_address],
        }
    }

    /// Both addresses and the port as the two ends may agree on them: where translation took a client, and also where a client meant to go
    /// that a server knows of.
    pub(crate) fn meetings(&self) -> SmallVec<[Meeting; 2]> {
        let own = Meeting { client: self.key.client_address, server: self.key.server_address, port: self.key.server_port };
        let mut meetings: SmallVec<[Meeting; 2]> = match self.key.direction {
            Direction::Client if !self.translations().is_empty() => self
                .translations()
                .iter()
                .map(|it| Meeting { client: it.client.unwrap_or(own.client), server: it.server.0, port: it.server.1 })
                .collect(),
            Direction::Client => smallvec![own],
            Direction::Server => {
                let meant = self.key.original_server.map(|(server, port)| Meeting { server, port, ..own });
                std::iter::once(own).chain(meant).collect()
            }
        };
        meetings.sort_unstable();
        meetings.dedup();
        meetings
    }

    /// Where a client meant to go when it was taken to `server`, and who says so.
    pub(crate) fn meant(&self, server: (IpAddr, u16)) -> Option<((IpAddr, u16), TranslationSource)> {
        if let Some(it) = self.translations().iter().find(|it| it.server == server) {
            let meant = self.key.original_server.unwrap_or((self.key.server_address, self.key.server_port));
            // A client that was only masqueraded arrives where it meant to.
            return (meant != server).then_some((meant, it.source));
        }
        self.key.original_server.map(|meant| (meant, TranslationSource::Socket))
    }

    /// Connections that were open at some time within the last window, or the one before it.
    pub(crate) fn connections_in_window(&self, now: Timestamp, window: Duration) -> u64 {
        let [older, newer] = self.closed_marks;
        let closed_before = if now.since(self.counted_at) >= window {
            // Nothing was told since: whatever closed did so before the window.
            self.counters.closed
        } else if now.since(newer.0) >= window {
            newer.1
        } else {
            older.1
        };
        self.counters.opened.saturating_sub(closed_before).max(self.counters.active())
    }

    /// Attempts that never became a connection make no edge.
    pub(crate) fn is_drawn(&self) -> bool {
        self.counters.opened > 0 || self.counters.failed == 0
    }

    /// What this end belongs to.
    pub(crate) fn terminal(&self) -> Terminal {
        match (self.process, self.container) {
            (Some(process), _) => Terminal::Process(process),
            (None, Some(container)) => Terminal::Container(container),
            (None, None) => Terminal::Host(self.host),
        }
    }
}

/// What two ends have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Meeting {
    pub(crate) client: IpAddr,
    pub(crate) server: IpAddr,
    pub(crate) port: u16,
}
