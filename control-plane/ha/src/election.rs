//! Who leads.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use zk::{Acl, Client, CreateKind, Error, Session};

use crate::ensemble::Ensemble;
use crate::member::Member;
use crate::store::Term;

/// Begins the names of candidates, here as with Mesos.
const CANDIDATE: &str = "json.info_";
/// Below the path of the ensemble: what is ours alone. Clients take any child of the path for a candidate but this one of Mesos', and Mesos' own
/// masters pass over what has no number in it.
const OURS: &str = "log_replicas/orchestrator";
/// Where it was before. What is there stays in use.
const OURS_BEFORE: &str = "orchestrator";
/// How long no server of the ensemble may answer before that is said, and how long until it is said again.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Between two attempts to stand for election.
const RETRY: Duration = Duration::from_millis(500);
/// Before looking again after an answer that did not come.
const AGAIN: Duration = Duration::from_millis(50);
/// A leader that is cut off acts no longer once this share of the session timeout is over: nobody else can lead before the whole is.
const CUT_OFF: (u32, u32) = (2, 3);
/// How often the ensemble is asked for a sign of life, per session timeout.
const PULSES: u32 = 8;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Who leads, as far as is known.
    pub leader: Option<Member>,
    /// That is us, by this right.
    pub term: Option<Term>,
    /// What keeps us from knowing.
    pub trouble: Option<String>,
}

impl Standing {
    /// Whether we lead.
    pub fn leads(&self) -> bool {
        self.term.is_some()
    }
}

/// Our part in an election. We stand as long as this is not dropped.
#[derive(Debug)]
pub struct Election {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    _ends: DropGuard,
}

impl Election {
    /// Stands for election, now and again whenever the candidature is lost. The work is done by the second value, which never ends by itself and is to be
    /// run beside everything else.
    pub fn stand(ensemble: Ensemble, member: Member, session_timeout: Duration) -> (Election, impl Future<Output = ()> + Send) {
        let (tell, standing) = watch::channel(Standing::default());
        let stop = CancellationToken::new();
        let election = Election { standing, stop: stop.clone(), _ends: stop.clone().drop_guard() };
        let run = async move {
            let session = Session::open(ensemble.options(session_timeout));
            let candidate = Candidate { ensemble, member, tell, session_timeout };
            tokio::select! {
                () = candidate.run(&session) => {}
                () = stop.cancelled() => {}
            }
            // Whoever acts by our right stops before the next one can begin: the session ends with `session`, after this.
            candidate.step_down(None);
            candidate.withdraw(&session).await;
        };
        (election, run)
    }

    /// How things stand, now and on every change.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Gives up the candidature, and the lead with it, at once.
    pub fn withdraw(&self) {
        self.stop.cancel();
    }
}

struct Candidate {
    ensemble: Ensemble,
    member: Member,
    tell: watch::Sender<Standing>,
    session_timeout: Duration,
}

impl Candidate {
    async fn run(&self, session: &Session) {
        loop {
            let client = self.client(session).await;
            let error = tokio::select! {
                Err(error) = self.contend(&client) => error,
                () = self.keep_pulse(&client) => return,
            };
            tracing::warn!(%error, ensemble = %self.ensemble, "candidature lost");
            self.step_down(Some(error.to_string()));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A connection to the ensemble. While there is none, nobody can lead, and whoever runs us should know why.
    async fn client(&self, session: &Session) -> Client {
        let mut pause = SILENCE_MAX;
        loop {
            if let Ok(client) = tokio::time::timeout(pause, session.client()).await {
                return client;
            }
            let ensemble = &self.ensemble;
            tracing::warn!(%ensemble, "no server of the ensemble answers: no control plane can lead until one does");
            self.step_down(Some(format!("no server of {ensemble} answers")));
            pause = SAID_AGAIN_AFTER;
        }
    }

    /// Stands for election until something goes wrong.
    async fn contend(&self, client: &Client) -> Result<std::convert::Infallible, Error> {
        client.create_all(self.ensemble.path()).await?;
        let mine = self.candidate(client).await?;
        loop {
            // A connection that breaks and comes back changes nothing: the candidature lives as long as the session.
            match self.look(client, &mine).await {
                Ok(()) => {}
                Err(Error::Unknown(_) | Error::Throttled) => {
                    client.connected().await?;
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks who leads, and waits until that may have changed.
    async fn look(&self, client: &Client, mine: &str) -> Result<(), Error> {
        let (names, changed) = client.children_and_watch(self.ensemble.path()).await?;
        let candidates = in_order(&names);
        if !candidates.contains(&mine) {
            return Err(Error::Ended("somebody removed the candidature".to_owned()));
        }
        match candidates.first() {
            Some(first) if *first == mine => self.lead(client).await?,
            Some(first) => {
                let Some(leader) = self.member_at(client, first).await? else { return Ok(()) };
                self.tell.send_if_modified(|standing| {
                    let news = standing.leader.as_ref() != Some(&leader) || standing.term.is_some() || standing.trouble.is_some();
                    if news {
                        tracing::info!(leader = leader.host_name, address = %leader.master, "another control plane leads");
                        *standing = Standing { leader: Some(leader.clone()), ..Standing::default() };
                    }
                    news
                });
            }
            None => {}
        }
        tokio::select! {
            changed = changed.changed() => changed,
            () = client.disconnected() => client.connected().await,
            // A watch that says nothing is the worst of failures.
            () = tokio::time::sleep(self.session_timeout) => Ok(()),
        }
    }

    /// The znode that stands for us; made unless an attempt that went unanswered has made it.
    async fn candidate(&self, client: &Client) -> Result<String, Error> {
        let path = self.ensemble.path();
        for name in in_order(&client.children(path).await?) {
            if client.stat(&format!("{path}/{name}")).await?.is_some_and(|stat| stat.ephemeral_owner == client.session_id()) {
                return Ok(name.to_owned());
            }
        }
        let acl = if self.ensemble.has_identity() { ours_and_read_by_all() } else { Acl::open() };
        let made = client.create(&format!("{path}/{CANDIDATE}"), &self.member.encode(), &acl, CreateKind::EphemeralSequential).await?;
        Ok(made.rsplit('/').next().unwrap_or_default().to_owned())
    }

    async fn member_at(&self, client: &Client, name: &str) -> Result<Option<Member>, Error> {
        match client.get(&format!("{}/{name}", self.ensemble.path())).await {
            Ok((data, _)) => Ok(Member::decode(&data)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins a term, unless it is under way.
    async fn lead(&self, client: &Client) -> Result<(), Error> {
        if self.tell.borrow().term.as_ref().is_some_and(|term| !term.is_over()) {
            return Ok(());
        }
        let before = format!("{}/{OURS_BEFORE}", self.ensemble.path());
        let root = match client.stat(&before).await {
            Ok(Some(_)) => before,
            Ok(None) => format!("{}/{OURS}", self.ensemble.path()),
            Err(error) => return Err(error),
        };
        let term = Term::begin(client, &root, &self.member.id).await?;
        tracing::info!(term = term.number(), "this control plane leads");
        self.tell.send_replace(Standing { leader: Some(self.member.clone()), term: Some(term), trouble: None });
        Ok(())
    }

    /// Ends our lead when no server has answered for so long that another one may soon lead. A session is kept for its timeout from the last request
    /// that arrived, so what counts is when a request was sent that was answered, and not when the client library gives the connection up.
    async fn keep_pulse(&self, client: &Client) {
        let patience = self.session_timeout * CUT_OFF.0 / CUT_OFF.1;
        let mut answered = Instant::now();
        loop {
            let sent = Instant::now();
            let left = (answered + patience).saturating_duration_since(sent);
            match tokio::time::timeout(left, client.stat(self.ensemble.path())).await {
                Ok(Ok(_)) => answered = sent,
                Ok(Err(_)) if !left.is_zero() => {}
                _ => {
                    if self.tell.borrow().leads() {
                        self.step_down(Some("no answer from ZooKeeper".to_owned()));
                    }
                    // There is no lead to lose until somebody answers.
                    drop(client.connected().await);
                    if client.stat(self.ensemble.path()).await.is_ok() {
                        answered = Instant::now();
                    }
                }
            }
            tokio::time::sleep(self.session_timeout / PULSES).await;
        }
    }

    fn step_down(&self, trouble: Option<String>) {
        self.tell.send_modify(|standing| {
            if let Some(term) = standing.term.take() {
                term.end();
                tracing::warn!(term = term.number(), "this control plane does not lead any more");
            }
            *standing = Standing { leader: None, term: None, trouble };
        });
    }

    /// Takes our znode away, so that nobody has to wait for the session to time out.
    async fn withdraw(&self, session: &Session) {
        let withdrawn = async {
            let client = session.client().await;
            for name in in_order(&client.children(self.ensemble.path()).await?) {
                let path = format!("{}/{name}", self.ensemble.path());
                if client.stat(&path).await?.is_some_and(|stat| stat.ephemeral_owner == client.session_id()) {
                    client.delete(&path, None).await?;
                }
            }
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(RETRY * 2, withdrawn).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "candidature ends with the session"),
            Err(_) => tracing::debug!("candidature ends with the session"),
        }
    }
}

/// As Mesos does it when an identity is shown.
fn ours_and_read_by_all() -> Vec<Acl> {
    const READ: u8 = 1;
    let mut acl = Acl::creator();
    acl.push(Acl { permissions: READ, scheme: "world".to_owned(), id: "anyone".to_owned() });
    acl
}

/// Candidates among the children, the leader first. Others may have children there, too.
fn in_order(names: &[String]) -> Vec<&str> {
    let mut numbered: Vec<(i64, &str)> =
        names.iter().filter_map(|name| Some((name.strip_prefix(CANDIDATE)?.parse().ok()?, name.as_str()))).collect();
    numbered.sort_unstable();
    numbered.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_those_of_mesos_by_number() {
        let names = ["json.info_0000000010", "log_replicas", "json.info_0000000002", "info_0000000001", "json.info_x", "orchestrator"];
        assert_eq!(in_order(&names.map(str::to_owned)), ["json.info_0000000002", "json.info_0000000010"]);
    }
}
