//! Who asked lately. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::observation::BootNanos;

/// Most that is remembered; of more, what was asked longest ago is forgotten.
pub const ASKED_MAX: usize = 2_048;

/// What is remembered of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Somebody asked this server: it may answer.
    Server(IpAddr),
    /// Somebody asked from this address: it may be answered. Which server it is that answers is not known where addresses are translated.
    Client(IpAddr),
    /// From the loopback address every process asks, and where client and server have one address nothing is translated.
    Own {
        /// Who asked.
        client: IpAddr,
        /// Whom.
        server: IpAddr,
    },
    /// Somebody of whom the address is not known asked this server.
    Unknown(IpAddr),
}

impl Asked {
    /// What a question of `client` to `server` lets a server of this machine answer.
    pub fn of(server: IpAddr, client: IpAddr) -> Self {
        match client {
            _ if client.is_unspecified() => Asked::Unknown(server),
            _ if client.is_loopback() || client == server => Asked::Own { client, server },
            _ => Asked::Client(client),
        }
    }

    /// The questions that an answer of `server`, which is on this machine, to `client` may be for.
    pub fn answered_by(server: IpAddr, client: IpAddr) -> [Self; 2] {
        [Asked::of(server, client), Asked::Unknown(server)]
    }
}

/// When what was last asked.
#[derive(Debug, Default)]
pub struct Recently {
    asked: BTreeMap<Asked, BootNanos>,
    by_time: BTreeSet<(BootNanos, Asked)>,
}

impl Recently {
    /// It was asked now.
    pub fn note(&mut self, now: BootNanos, asked: Asked) {
        if let Some(before) = self.asked.insert(asked, now) {
            self.by_time.remove(&(before, asked));
        }
        self.by_time.insert((now, asked));
        if self.asked.len() > ASKED_MAX
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.asked.remove(&oldest);
        }
    }

    /// When it was last asked.
    pub fn at(&self, asked: Asked) -> Option<BootNanos> {
        self.asked.get(&asked).copied()
    }

    /// Forgets what was asked at times that are over.
    pub fn forget(&mut self, is_over: impl Fn(BootNanos) -> bool) {
        while let Some(&(at, asked)) = self.by_time.first()
            && is_over(at)
        {
            self.by_time.pop_first();
            self.asked.remove(&asked);
        }
    }

    /// How much is remembered.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        assert_eq!(self.asked.len(), self.by_time.len());
        self.asked.len()
    }
}
