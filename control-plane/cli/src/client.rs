//! Requests to the master, wherever it leads, and to agents.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use access::{Access, AccessFlags};
use anyhow::{Context as _, Result, anyhow, bail};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use ureq::Body;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take that is no stream.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Redirects that are followed: masters that send one to each other do not hold us for ever.
const REDIRECTS_MAX: usize = 5;
/// Bytes of the largest answer: the state of tens of thousands of agents.
const ANSWER_MAX: u64 = 4 << 30;
/// How long ZooKeeper may take to say who leads.
const ENSEMBLE_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the master that leads.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    access: Access,
    /// Masters that may lead; the first is asked, and changes with every redirect.
    masters: RefCell<Vec<String>>,
}

impl Client {
    /// Takes what stands after `--master`.
    pub(crate) fn open(master: &str, access: &AccessFlags) -> Result<Client> {
        let access = access.open(|config| {
            config
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(CONNECT_PATIENCE))
                .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
        })?;
        let scheme = access.scheme();
        let masters = match master.starts_with("zk://") {
            true => vec![format!("{scheme}://{}", leader_in_ensemble(master)?)],
            false => master.split(',').map(str::trim).filter(|it| !it.is_empty()).map(|it| base_url(it, scheme)).collect(),
        };
        if masters.is_empty() {
            bail!("--master names no master");
        }
        Ok(Client { access, masters: RefCell::new(masters) })
    }

    /// Address of the master that answered last.
    pub(crate) fn master(&self) -> String {
        self.masters.borrow().first().cloned().unwrap_or_default()
    }

    /// JSON of a path of the leading master.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        json_of(self.ask_master(path, None)?)
    }

    /// Answer of the v1 operator API. `payload` is what stands under the lower-case name of `kind`; null for calls that have none.
    pub(crate) fn call(&self, kind: &str, payload: Value) -> Result<Value> {
        let mut call = json!({ "type": kind });
        if !payload.is_null() {
            call[kind.to_lowercase()] = payload;
        }
        json_of(self.ask_master("/api/v1", Some(&call))?)
    }

    fn ask_master(&self, path: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let mut unreachable = Vec::new();
        let mut redirects = 0;
        loop {
            let master = match self.masters.borrow().first() {
                Some(master) => master.clone(),
                None => bail!("no master can be reached: {}", unreachable.join("; ")),
            };
            let answered = match body {
                Some(body) => self.post(&format!("{master}{path}"), body),
                None => self
                    .access
                    .authorized(self.access.agent().get(format!("{master}{path}")))
                    .config()
                    .timeout_global(Some(ANSWER_PATIENCE))
                    .build()
                    .call(),
            };
            let response = match answered {
                Ok(response) => response,
                // What was sent may have been done: only who was never reached is passed over.
                Err(error) if body.is_some() && !is_unreached(&error) => return Err(anyhow!(error).context(format!("{master} broke off"))),
                Err(error) => {
                    unreachable.push(format!("{master}: {error}"));
                    self.masters.borrow_mut().remove(0);
                    continue;
                }
            };
            if response.status() != StatusCode::TEMPORARY_REDIRECT {
                return Ok(response);
            }
            redirects += 1;
            if redirects > REDIRECTS_MAX {
                bail!("the masters send us from one to another; is there a leader?");
            }
            let location = response.headers().get("location").and_then(|it| it.to_str().ok()).unwrap_or_default();
            let leader = leader_of(location, &master).with_context(|| format!("{master} redirects to {location:?}"))?;
            self.masters.borrow_mut().insert(0, leader);
        }
    }

    fn post(&self, url: &str, body: &Value) -> Result<Response<Body>, ureq::Error> {
        let request = self.access.agent().post(url).config().timeout_global(Some(ANSWER_PATIENCE)).build();
        self.access
            .authorized(request)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .send(body.to_string())
    }

    /// JSON of a path of an agent at `http://host:port`.
    pub(crate) fn agent_get(&self, agent: &str, path: &str) -> Result<Value> {
        let request = self.access.agent().get(format!("{agent}{path}")).config().timeout_global(Some(ANSWER_PATIENCE)).build();
        json_of(self.access.authorized(request).call().with_context(|| format!("the agent at {agent} does not answer"))?)
    }

    /// A call of the v1 API of an agent.
    pub(crate) fn agent_call(&self, agent: &str, kind: &str, payload: Value) -> Result<Value> {
        let call = json!({ "type": kind, (kind.to_lowercase()): payload });
        json_of(self.post(&format!("{agent}/api/v1"), &call).with_context(|| format!("the agent at {agent} does not answer"))?)
    }

    /// The same, however long it takes.
    pub(crate) fn agent_wait(&self, agent: &str, call: &Value) -> Result<Value> {
        let request =
            self.access.authorized(self.access.agent().post(format!("{agent}/api/v1"))).header("Content-Type", "application/json");
        json_of(request.header("Accept", "application/json").send(call.to_string())?)
    }

    /// A call whose answer is a stream of records.
    pub(crate) fn agent_stream(&self, agent: &str, call: &Value) -> Result<impl Read + Send + use<>> {
        let request =
            self.access.authorized(self.access.agent().post(format!("{agent}/api/v1"))).header("Content-Type", "application/json");
        let request = request.header("Accept", "application/recordio").header("Message-Accept", "application/json");
        let response = request.send(call.to_string()).with_context(|| format!("the agent at {agent} does not answer"))?;
        Ok(checked(response)?.into_body().into_reader())
    }

    /// A call whose body is a stream of records; returns when it was taken to its end.
    pub(crate) fn agent_feed(&self, agent: &str, mut records: impl Read) -> Result<()> {
        let request =
            self.access.authorized(self.access.agent().post(format!("{agent}/api/v1"))).header("Content-Type", "application/recordio");
        let request = request.header("Message-Content-Type", "application/json").header("Accept", "application/json");
        checked(request.send(ureq::SendBody::from_reader(&mut records))?).map(drop)
    }
}

fn is_unreached(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::ConnectionFailed
        | ureq::Error::HostNotFound
        | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// `host:port` may stand without a scheme, and without a port that of masters is meant.
fn base_url(text: &str, scheme: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or((scheme, text));
    let rest = rest.trim_end_matches('/');
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { format!("{scheme}://{rest}") } else { format!("{scheme}://{rest}:5050") }
}

/// Mesos's redirects have no scheme but that of the request: `//host:port/path`.
fn leader_of(location: &str, asked: &str) -> Option<String> {
    let (scheme, rest) = match location.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => (asked.split_once("://")?.0, location.strip_prefix("//")?),
    };
    let authority = rest.split('/').next().filter(|it| !it.is_empty())?;
    Some(format!("{scheme}://{authority}"))
}

fn checked(mut response: Response<Body>) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
    match text.trim() {
        "" => bail!("{status}"),
        text => bail!("{text} ({})", status.as_u16()),
    }
}

/// What was answered; null for an empty body.
fn json_of(response: Response<Body>) -> Result<Value> {
    let bytes = checked(response)?.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().context("the answer was cut short")?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).context("the answer is not JSON: is this a Mesos master?")
}

/// The lowest number leads, as every client of Mesos has it.
fn leader_in_ensemble(text: &str) -> Result<String> {
    let ensemble: ha::Ensemble = text.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looked = runtime.block_on(async {
        tokio::time::timeout(ENSEMBLE_PATIENCE, async {
            let client = zk::Client::connect(&ensemble.options(ENSEMBLE_PATIENCE)).await?;
            let mut candidates = client.children(ensemble.path()).await?;
            candidates.retain(|it| it.starts_with("json.info_"));
            candidates.sort();
            match candidates.first() {
                Some(first) => client.get(&format!("{}/{first}", ensemble.path())).await.map(|(data, _)| Some(data)),
                None => Ok(None),
            }
        })
        .await
    });
    let data = looked.map_err(|_| anyhow!("{ensemble} does not answer"))?.with_context(|| format!("asking {ensemble} who leads"))?;
    let data = data.with_context(|| format!("nobody leads at {ensemble}"))?;
    let member = ha::Member::decode(&data).with_context(|| format!("the leader's znode at {ensemble} cannot be understood"))?;
    Ok(member.master.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        for (text, url) in
            [("m1", "http://m1:5050"), ("m1:80", "http://m1:80"), ("https://m1:1/", "https://m1:1"), ("[::1]:5050", "http://[::1]:5050")]
        {
            assert_eq!(base_url(text, "http"), url);
        }
        assert_eq!(base_url("m1", "https"), "https://m1:5050");
    }

    #[test]
    fn redirects_of_mesos_have_no_scheme() {
        assert_eq!(leader_of("//m2:5050/master/state?x=1", "http://m1:5050").as_deref(), Some("http://m2:5050"));
        assert_eq!(leader_of("//m2:5050/master/state", "https://m1:5050").as_deref(), Some("https://m2:5050"));
        assert_eq!(leader_of("https://m2:5050/", "http://m1").as_deref(), Some("https://m2:5050"));
        let leader = |location| leader_of(location, "http://m1:5050");
        assert_eq!((leader("/state"), leader("//"), leader("")), (None, None, None));
    }
}
