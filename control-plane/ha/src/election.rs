//! Who leads.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use zk::{ChildrenWatch, Client, CreateKind, Error, Session};

use crate::ensemble::Ensemble;
use crate::guard;
use crate::member::Member;
use crate::store::{Term, epoch_of};

/// Begins the names of candidates, here as with Mesos.
const CANDIDATE: &str = "json.info_";
/// Below the path of the ensemble: what Mesos has there beside the candidates. Clients take any other child of the path for a candidate, and Mesos'
/// own masters pass over what has no number in it.
const LOG_REPLICAS: &str = "log_replicas";
/// Below that: what is ours alone.
const OURS: &str = "orchestrator";
/// Where it was before. What is there stays in use.
const OURS_BEFORE: &str = "orchestrator";
/// How long no server of the ensemble may answer before that is said, and how long until it is said again.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Between two attempts to stand for election.
const RETRY: Duration = Duration::from_millis(500);
/// The same, where the ensemble does not let us: somebody has to mend that first.
const RETRY_REFUSED: Duration = Duration::from_secs(10);
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
    /// While we lead: how many others stand for election. The first of them is the next.
    pub others: usize,
    /// What keeps us from knowing.
    pub trouble: Option<String>,
}

impl Standing {
    /// Whether we lead.
    pub fn leads(&self) -> bool {
        self.term.is_some()
    }
}

/// Our part in an election. We stand until we withdraw, and look on until this is dropped.
#[derive(Debug)]
pub struct Election {
    standing: watch::Receiver<Standing>,
    withdrawn: CancellationToken,
    _ends: DropGuard,
}

impl Election {
    /// Stands for election, now and again whenever the candidature is lost. The work is done by the second value, which ends when the first is
    /// dropped and is to be run beside everything else.
    pub fn stand(ensemble: Ensemble, member: Member, session_timeout: Duration) -> (Election, impl Future<Output = ()> + Send) {
        let (tell, standing) = watch::channel(Standing::default());
        let (withdrawn, end) = (CancellationToken::new(), CancellationToken::new());
        let election = Election { standing, withdrawn: withdrawn.clone(), _ends: end.clone().drop_guard() };
        let run = async move {
            let candidate = Candidate { ensemble, member, tell, session_timeout };
            loop {
                let session = Session::open(candidate.ensemble.options(session_timeout));
                let is_over = tokio::select! {
                    () = candidate.run(&session) => false,
                    () = withdrawn.cancelled() => true,
                    () = end.cancelled() => true,
                };
                if is_over {
                    // Whoever acts by our right stops before the next one can begin: the session ends with `session`, after this.
                    candidate.step_down(None);
                    candidate.withdraw(&session).await;
                    end.run_until_cancelled(candidate.look_on(&session)).await;
                    return;
                }
                // We may be the first in line and not be allowed to lead: with the session ends what keeps others from it.
                drop(session);
                tokio::select! {
                    () = tokio::time::sleep(RETRY_REFUSED) => {}
                    () = withdrawn.cancelled() => {}
                    () = end.cancelled() => return,
                }
            }
        };
        (election, run)
    }

    /// How things stand, now and on every change.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Gives up the candidature, and the lead with it, at once. Who leads then is still told.
    pub fn withdraw(&self) {
        self.withdrawn.cancel();
    }

    /// Withdraws when it is cancelled.
    pub fn withdrawal(&self) -> CancellationToken {
        self.withdrawn.clone()
    }
}

struct Candidate {
    ensemble: Ensemble,
    member: Member,
    tell: watch::Sender<Standing>,
    session_timeout: Duration,
}

impl Candidate {
    /// Returns when the ensemble does not let us.
    async fn run(&self, session: &Session) {
        loop {
            let client = self.client(session).await;
            let error = tokio::select! {
                Err(error) = self.contend(&client) => error,
                () = self.keep_pulse(&client) => return,
                () = self.close_what_is_open(&client) => return,
            };
            let is_refused = error == Error::NoAuth;
            let trouble = if is_refused { self.not_ours() } else { error.to_string() };
            tracing::warn!(error = trouble, ensemble = %self.ensemble, "candidature lost");
            self.step_down(Some(trouble));
            if is_refused {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// What is wrong when the ensemble does not let us.
    fn not_ours(&self) -> String {
        let path = self.ensemble.path();
        let advice = "give all control planes the same one, as zk://user:password@… in --zk or in --zk-access-file";
        if self.ensemble.has_identity() {
            format!("what is at {path} in ZooKeeper is of another identity than the one that this control plane shows: {advice}")
        } else {
            format!("what is at {path} in ZooKeeper is of an identity, and this control plane shows none: {advice}")
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
        client.create_all_with(self.ensemble.path(), &guard::seen_by_all(self.ensemble.has_identity())).await?;
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
            Some(first) if *first == mine => {
                self.lead(client).await?;
                let others = candidates.len() - 1;
                self.tell.send_if_modified(|standing| standing.leads() && std::mem::replace(&mut standing.others, others) != others);
            }
            Some(first) => {
                let Some(leader) = self.member_at(client, first).await? else { return Ok(()) };
                self.follow(leader);
            }
            None => {}
        }
        self.wait(client, changed).await
    }

    /// Tells that another one leads, if that is news.
    fn follow(&self, leader: Member) {
        self.tell.send_if_modified(|standing| {
            let news = standing.leader.as_ref() != Some(&leader) || standing.term.is_some() || standing.trouble.is_some();
            if news {
                tracing::info!(leader = leader.host_name, address = %leader.master, "another control plane leads");
                *standing = Standing { leader: Some(leader), ..Standing::default() };
            }
            news
        });
    }

    /// Waits until somebody else may lead.
    async fn wait(&self, client: &Client, changed: ChildrenWatch) -> Result<(), Error> {
        tokio::select! {
            changed = changed.changed() => changed,
            () = client.disconnected() => client.connected().await,
            // A watch that says nothing is the worst of failures.
            () = tokio::time::sleep(self.session_timeout) => Ok(()),
        }
    }

    /// Tells who leads, without standing for election.
    async fn look_on(&self, session: &Session) {
        loop {
            let client = session.client().await;
            let looked = async {
                let (names, changed) = client.children_and_watch(self.ensemble.path()).await?;
                for name in in_order(&names) {
                    match self.member_at(&client, name).await? {
                        // Ours may still be there, when nobody has answered that it is gone.
                        Some(member) if member.id != self.member.id => {
                            self.follow(member);
                            break;
                        }
                        _ => {}
                    }
                }
                self.wait(&client, changed).await
            };
            if let Err(error) = looked.await {
                tracing::debug!(%error, "who leads is not known");
                tokio::time::sleep(AGAIN).await;
            }
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
        let acl = guard::seen_by_all(self.ensemble.has_identity());
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
        let (root, has_identity) = (self.root(client).await?, self.ensemble.has_identity());
        if let Some((above, OURS)) = root.rsplit_once('/') {
            client.create_all_with(above, &guard::seen_by_all(has_identity)).await?;
        }
        let term = Term::begin(client, &root, &self.member.id, has_identity).await?;
        tracing::info!(term = term.number(), "this control plane leads");
        self.tell.send_replace(Standing { leader: Some(self.member.clone()), term: Some(term), ..Standing::default() });
        Ok(())
    }

    /// What is ours alone is below this.
    async fn root(&self, client: &Client) -> Result<String, Error> {
        let path = self.ensemble.path();
        let before = format!("{path}/{OURS_BEFORE}");
        Ok(if client.stat(&before).await?.is_some() { before } else { format!("{path}/{LOG_REPLICAS}/{OURS}") })
    }

    /// Closes, whenever we begin to lead, what is open to everybody although we have an identity. Nobody waits for it.
    async fn close_what_is_open(&self, client: &Client) {
        if !self.ensemble.has_identity() {
            return std::future::pending().await;
        }
        let mut standing = self.tell.subscribe();
        loop {
            let leading = standing.wait_for(|it| it.term.as_ref().is_some_and(|term| !term.is_over())).await;
            let Some(term) = leading.ok().and_then(|it| it.term.clone()) else { return std::future::pending().await };
            let close = async {
                let (path, root) = (self.ensemble.path(), self.root(client).await?);
                let shown = [path.to_owned(), format!("{path}/{LOG_REPLICAS}")];
                guard::close(client, &shown, &epoch_of(&root), &root).await
            };
            let done = tokio::select! {
                done = close => done,
                () = term.over() => continue,
            };
            match done {
                Ok(done) if done.refused > 0 => {
                    let guard::Closed { looked_at, closed, refused } = done;
                    tracing::warn!(
                        looked_at,
                        closed,
                        refused,
                        "some znodes of ours in ZooKeeper belong to another identity, and stay as they are"
                    );
                }
                Ok(done) if done.closed > 0 => {
                    let guard::Closed { looked_at, closed, .. } = done;
                    tracing::info!(looked_at, closed, "what was open to everybody in ZooKeeper is ours alone now");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what is open to everybody in ZooKeeper is not closed yet: the next leader will"),
            }
            term.over().await;
        }
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
            *standing = Standing { trouble, ..Standing::default() };
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
