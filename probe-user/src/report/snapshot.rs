//! A snapshot, part by part: each is made when there is room for it, from what is true then. What changes meanwhile is told again by the
//! deltas that follow, so a part may be newer than the one before it without harm.

use std::net::IpAddr;

use proto::probe::v1::{self, report::Kind};

use crate::clock::Now;
use crate::flows::Change;
use crate::processes::ProcessKey;
use crate::report::pack::Packer;
use crate::report::{Builder, wire};

/// How far a snapshot has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCursor {
    at: Place,
}

/// The last record that was told, section by section in the order of the variants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Images(Option<String>),
    Containers(Option<String>),
    Processes(Option<ProcessKey>),
    Flows(u64),
    Listeners(u64),
    UnixFlows(u64),
    Names(Option<IpAddr>),
    End,
}

impl Builder {
    /// The next part of a snapshot of at most `max_bytes`; the last one is marked as the end. `None` after the end.
    pub fn next_part(&mut self, cursor: &mut SnapshotCursor, now: Now, max_bytes: usize) -> Option<v1::Report> {
        if cursor.at == Place::End {
            return None;
        }
        let mut packer = Packer::new(Kind::SnapshotPart, now.unix_nanos, max_bytes);
        while cursor.at != Place::End {
            let next = self.fill(&cursor.at, now, &mut packer);
            // A record that no longer fitted began the next report: the cursor stands before it.
            if packer.is_full() {
                cursor.at = next;
                break;
            }
            cursor.at = match next {
                Place::Start => Place::Images(None),
                Place::Images(_) => Place::Containers(None),
                Place::Containers(_) => Place::Processes(None),
                Place::Processes(_) => Place::Flows(0),
                Place::Flows(_) => Place::Listeners(0),
                Place::Listeners(_) => Place::UnixFlows(0),
                Place::UnixFlows(_) => Place::Names(None),
                Place::Names(_) | Place::End => Place::End,
            };
        }
        let ended = cursor.at == Place::End;
        let mut part = packer
            .finish()
            .into_iter()
            .next()
            .unwrap_or_else(|| v1::Report { observed_at_unix_nanos: now.unix_nanos, ..v1::Report::default() });
        part.set_kind(if ended { Kind::SnapshotEnd } else { Kind::SnapshotPart });
        Some(part)
    }

    /// Adds records of one section until it ends or the report is full. Returns the place of the last record that fitted.
    fn fill(&mut self, place: &Place, now: Now, packer: &mut Packer) -> Place {
        match place {
            Place::Start => {
                packer.host(self.host.clone());
                packer.capture(self.capture.clone());
                self.update_losses();
                self.losses_changed = false;
                packer.losses(self.losses.clone());
                Place::Start
            }
            Place::Images(after) => {
                let mut last = after.clone();
                for image in self.containers.images_after(after.as_deref()) {
                    packer.image(image.clone());
                    if packer.is_full() {
                        break;
                    }
                    last = Some(image.id.clone());
                }
                Place::Images(last)
            }
            Place::Containers(after) => {
                let mut last = after.clone();
                for container in self.containers.after(after.as_deref()) {
                    packer.container(container.clone());
                    if packer.is_full() {
                        break;
                    }
                    last = Some(container.id.clone());
                }
                Place::Containers(last)
            }
            Place::Processes(after) => {
                let mut last = *after;
                for (key, process) in self.processes.after(*after) {
                    packer.process(wire::process(*key, process, now, &self.users));
                    if packer.is_full() {
                        break;
                    }
                    last = Some(*key);
                }
                Place::Processes(last)
            }
            Place::Flows(after) => {
                let mut told = Vec::new();
                for (id, flow) in self.flows.after(*after) {
                    if !flow.is_awaiting() {
                        packer.flow(wire::flow(id, flow, Change::New, self.flows.ways(flow), now));
                        if packer.is_full() {
                            break;
                        }
                    }
                    told.push(id);
                }
                let last = told.last().copied().unwrap_or(*after);
                told.into_iter().for_each(|id| self.announce(id));
                Place::Flows(last)
            }
            Place::Listeners(after) => {
                let mut told = Vec::new();
                for (id, listener) in self.listeners.after(*after) {
                    if !listener.is_waiting() {
                        packer.listener(wire::listener(id, listener));
                        if packer.is_full() {
                            break;
                        }
                    }
                    told.push(id);
                }
                let last = told.last().copied().unwrap_or(*after);
                told.into_iter().for_each(|id| {
                    if self.listeners.get(id).is_some_and(|listener| !listener.is_waiting()) {
                        self.listeners.mark_announced(id);
                    }
                });
                Place::Listeners(last)
            }
            Place::UnixFlows(after) => {
                let mut told = Vec::new();
                for (id, flow) in self.unix_flows.after(*after) {
                    packer.unix_flow(wire::unix_flow(id, flow));
                    if packer.is_full() {
                        break;
                    }
                    told.push(id);
                }
                let last = told.last().copied().unwrap_or(*after);
                told.into_iter().for_each(|id| self.unix_flows.mark_announced(id));
                Place::UnixFlows(last)
            }
            Place::Names(after) => {
                let mut told = Vec::new();
                for (address, names) in self.names.after(*after) {
                    packer.resolved_address(wire::resolved_address(address, names, now));
                    if packer.is_full() {
                        break;
                    }
                    told.push(address);
                }
                let last = told.last().copied().or(*after);
                told.into_iter().for_each(|address| self.names.mark_told(address));
                Place::Names(last)
            }
            Place::End => Place::End,
        }
    }

    fn announce(&mut self, id: u64) {
        if self.flows.get(id).is_some_and(|flow| !flow.is_awaiting()) {
            self.flows.mark_announced(id);
        }
    }
}
