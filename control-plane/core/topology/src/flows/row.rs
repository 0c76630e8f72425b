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
    /// When it is looked at next whether it leaves the map: never later than [`FlowRow::ends_at`].
    pub(crate) leaves_at: Option<Timestamp>,
    /// Its probe does not have it any more.
    pub(crate) is_gone: bool,
    /// Nothing was open on it for a window: it makes no edge until something happens on it again. Its probe still has it, and may tell more
    /// of it by its number alone.
    pub(crate) has_faded: bool,
    /// When it was last told that something had happened on it.
    quiet_since: Timestamp,
    closed: Closed,
}

/// Parts of a window in which closed connections are told apart.
const PARTS: u32 = 5;

/// Connections that closed, by the part of a window in which that was told.
#[derive(Debug)]
struct Closed {
    /// When the newest part began.
    began: Timestamp,
    /// The newest first; the last one is leaving the window.
    parts: [u32; PARTS as usize + 1],
}

impl Closed {
    fn add(&mut self, closed: u64, now: Timestamp, window: Duration) {
        let (passed, _) = self.passed(now, window);
        if passed > 0 {
            let length = self.parts.len();
            self.parts.rotate_right(passed.min(length));
            self.parts[..passed.min(length)].fill(0);
            self.began = self.began + part(window).saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
            // After a long silence the parts may begin anywhere.
            if passed > length {
                self.began = now;
            }
        }
        self.parts[0] = self.parts[0].saturating_add(u32::try_from(closed).unwrap_or(u32::MAX));
    }

    /// Those that closed within the window; of a part that leaves it now, as much as is left.
    fn in_window(&self, now: Timestamp, window: Duration) -> u64 {
        let (passed, share) = self.passed(now, window);
        let inside = (PARTS as usize).saturating_sub(passed);
        let whole: u64 = self.parts.iter().take(inside).map(|&it| u64::from(it)).sum();
        let leaving = (PARTS as usize).checked_sub(passed).map_or(0, |last| self.parts[last]);
        whole + left_of(leaving, share)
    }

    /// How many parts have ended since the newest one began, and which share of the next one has passed.
    fn passed(&self, now: Timestamp, window: Duration) -> (usize, f64) {
        let parts = now.since(self.began).as_secs_f64() / part(window).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time that has passed is not negative")]
        let whole = parts as usize;
        (whole, parts.fract())
    }
}

fn part(window: Duration) -> Duration {
    (window / PARTS).max(Duration::from_millis(1))
}

/// As long as a part has not left the window as a whole, something of it is left.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number that is not negative")]
fn left_of(count: u32, passed: f64) -> u64 {
    (f64::from(count) * (1.0 - passed)).ceil() as u64
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
            is_gone: false,
            has_faded: false,
            quiet_since: now,
            closed: Closed { began: now, parts: [0; PARTS as usize + 1] },
        }
    }

    /// Takes over new totals, and since when and until when something happened, by the probe's clock.
    pub(crate) fn count(
        &mut self,
        counters: FlowCounters,
        (first_seen, last_active): (Timestamp, Timestamp),
        now: Timestamp,
        window: Duration,
    ) {
        // What is told again, with a snapshot, did not happen again.
        if counters != self.counters || last_active != self.last_active {
            self.quiet_since = now;
            self.has_faded = false;
        }
        // Of a flow that was there for longer before it was first told of, nobody knows when its connections closed.
        let is_old = self.counters == FlowCounters::default() && last_active.since(first_seen) > window;
        if !is_old {
            self.closed.add(counters.closed.saturating_sub(self.counters.closed), now, window);
        }
        self.counters = counters;
        self.first_seen = first_seen;
        self.last_active = last_active;
    }

    /// Its probe does not have it any more.
    pub(crate) fn end(&mut self, now: Timestamp) {
        if self.is_gone {
            return;
        }
        self.is_gone = true;
        // Nothing was told of how its last connections ended.
        if self.counters.active() > 0 {
            self.quiet_since = now;
        }
    }

    /// When it leaves the map, or makes no edge any more, if nothing happens until then.
    pub(crate) fn ends_at(&self, window: Duration) -> Option<Timestamp> {
        (self.is_gone || (self.counters.active() == 0 && self.is_drawn())).then(|| self.quiet_since + window)
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

    /// Connections that were open at some time within the last window, as far as that can be told apart.
    pub(crate) fn connections_in_window(&self, now: Timestamp, window: Duration) -> u64 {
        // When nothing was told for a window, whatever closed did so before it.
        let closed = if now.since(self.quiet_since) < window { self.closed.in_window(now, window) } else { 0 };
        self.counters.active().saturating_add(closed)
    }

    /// Attempts that never became a connection make no edge, nor does what has long ended.
    pub(crate) fn is_drawn(&self) -> bool {
        !self.has_faded && (self.counters.opened > 0 || self.counters.failed == 0)
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
