//! Which servers an ensemble has, as it tells itself: a link need not name all of them, and clients may be connected to any.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zk::{Client, Options};
use zksync::{PerSide, Side};

/// Where servers since 3.5 tell it, whatever the chroot.
const CONFIG: &str = "/zookeeper/config";
/// How long what was told is believed.
const FRESH: Duration = Duration::from_secs(30);
/// Without an answer by then, what was told before is believed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What ensembles have told of their servers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Members(Arc<Mutex<PerSide<Option<Told>>>>);

type Told = (Instant, Vec<Member>);

/// A server, as the ensemble's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its number and where its clients go, as far as that is told.
    name: String,
    hosts: Vec<String>,
    /// None when only the server itself knows.
    port: Option<u16>,
}

impl Members {
    /// The servers of `side`; none where it does not tell, as before 3.5 or alone.
    pub(super) async fn of(&self, side: Side, options: &Options) -> Vec<Member> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner)[side].clone();
        if let Some((at, members)) = &known
            && at.elapsed() < FRESH
        {
            return members.clone();
        }
        match tokio::time::timeout(PATIENCE, read(options)).await {
            Ok(Ok(members)) => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)[side] = Some((Instant::now(), members.clone()));
                members
            }
            told => {
                tracing::info!(side = side.as_str(), ?told, "the ensemble does not tell which servers it has");
                known.map(|(_, members)| members).unwrap_or_default()
            }
        }
    }
}

async fn read(options: &Options) -> Result<Vec<Member>, zk::Error> {
    let whole = Options { connect: options.servers().join(","), ..options.clone() };
    let client = Client::connect(&whole).await?;
    match client.get(CONFIG).await {
        Ok((data, _)) => Ok(parse(&String::from_utf8_lossy(&data))),
        Err(zk::Error::NoNode) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Lines such as `server.1=host:2888:3888:participant;0.0.0.0:2181`.
fn parse(config: &str) -> Vec<Member> {
    let servers = config.lines().filter_map(|line| line.trim().strip_prefix("server.")?.split_once('='));
    servers
        .map(|(number, told)| {
            let (ends, client) = told.split_once(';').map_or((told, None), |(ends, client)| (ends, Some(client)));
            let (address, port) = match client.map(|client| client.rsplit_once(':').unwrap_or(("", client))) {
                Some((address, port)) => (bare(address), port.parse().ok()),
                None => ("", None),
            };
            let anywhere = address.is_empty() || address.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
            let hosts = if anywhere { ends.split('|').map(host).map(str::to_owned).collect() } else { vec![address.to_owned()] };
            Member { name: format!("server.{number} ({told})"), hosts, port }
        })
        .collect()
}

/// The host of `host:2888:3888:participant`, of which an IPv6 address stands in brackets.
fn host(end: &str) -> &str {
    match end.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => end.split(':').next().unwrap_or_default(),
    }
}

fn bare(address: &str) -> &str {
    address.trim_start_matches('[').trim_end_matches(']')
}

/// Where the clients of an ensemble go, of which a link names `servers`. Blocks on the resolver.
///
/// # Errors
/// When a server has no address here: then nobody looks at it. A member may have none as long as the link names as many servers as there are.
pub(super) fn addresses(servers: &[String], members: &[Member], side: Side) -> Result<Vec<SocketAddr>, String> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut named = 0;
    for server in servers {
        let its = server.to_socket_addrs().map_err(|error| format!("{server} has no address here: {error}"))?;
        let its: Vec<SocketAddr> = its.collect();
        // One that is named twice is still one.
        named += usize::from(!its.iter().any(|address| found.contains(address)));
        found.extend(its);
    }
    let named_by_link = found.clone();
    for member in members {
        if member.is_who_answered() || named_by_link.iter().any(|known| member.is(known)) {
            continue;
        }
        match member.resolve(&found, side) {
            Ok(its) => found.extend(its),
            // The ensemble knows it by a name that means nothing here, and the link by another one.
            Err(_) if named >= members.len() => {}
            Err(why) => return Err(why),
        }
    }
    Ok(found)
}

impl Member {
    /// Whether it tells no host at all. So a server writes itself down, and no other one; the link names it, or it would not have been asked.
    fn is_who_answered(&self) -> bool {
        self.hosts.iter().all(|host| host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()))
    }

    /// Whether its address is told, and is this one.
    fn is(&self, known: &SocketAddr) -> bool {
        let its = |host: &String| host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == known.ip().to_canonical());
        self.port.is_none_or(|port| port == known.port()) && self.hosts.iter().any(its)
    }

    /// Where its clients go. Blocks on the resolver.
    ///
    /// # Errors
    /// When that is not known here: then nobody looks at it.
    fn resolve(&self, known: &[SocketAddr], side: Side) -> Result<Vec<SocketAddr>, String> {
        let ports: Vec<u16> = self.port.map_or_else(|| known.iter().map(SocketAddr::port).collect(), |port| vec![port]);
        let mut found: Vec<SocketAddr> = Vec::new();
        for host in &self.hosts {
            for port in &ports {
                found.extend((host.as_str(), *port).to_socket_addrs().into_iter().flatten());
            }
        }
        found.retain(|address| !address.ip().is_unspecified());
        if found.is_empty() {
            let side = side.as_str().to_uppercase();
            return Err(format!("{side} has {}, which the link does not name and which has no address here", self.name));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_ensemble_tells_them() {
        let told = "server.1=zk1:2888:3888:participant;0.0.0.0:2181\nserver.2=[::1]:2888:3888:observer;[::]:2182\n\
                    server.3=10.0.0.3:1:2|10.1.0.3:1:2:participant;2183\nserver.4=zk4:2888:3888;10.0.0.4:2184\n\
                    server.5=127.0.0.1:2888:3888:participant\nversion=100000000";
        let found: Vec<(String, Option<u16>)> = parse(told).into_iter().map(|member| (member.hosts.join(" "), member.port)).collect();
        let expected =
            [("zk1", Some(2181)), ("::1", Some(2182)), ("10.0.0.3 10.1.0.3", Some(2183)), ("10.0.0.4", Some(2184)), ("127.0.0.1", None)];
        assert_eq!(found, expected.map(|(hosts, port)| (hosts.to_owned(), port)));
        assert_eq!(parse(""), []);
        let known: SocketAddr = "10.0.0.4:2184".parse().unwrap();
        let members = parse(told);
        assert!(members[3].is(&known) && !members[2].is(&known));
        assert_eq!(members[1].resolve(&[known], Side::A), Ok(vec!["[::1]:2182".parse().unwrap()]));
        assert_eq!(members[4].resolve(&[known], Side::A), Ok(vec!["127.0.0.1:2184".parse().unwrap()]), "by the ports that are known");
        let nowhere = parse("server.9=no-such-host.invalid:1:2;2181");
        assert!(nowhere[0].resolve(&[known], Side::A).unwrap_err().starts_with("A has server.9 (no-such-host.invalid"));
    }

    #[test]
    fn a_link_that_names_every_server_need_not_know_them_by_their_own_names() {
        let of = |servers: &[&str], told: &str| {
            let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
            addresses(&servers, &parse(told), Side::A).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        let itself = "server.1=0.0.0.0:2888:3888:participant;0.0.0.0:2181\nserver.2=10.0.0.2:2888:3888:participant;2181";
        assert_eq!(of(&["10.0.0.1:2181"], itself), Ok("10.0.0.1:2181 10.0.0.2:2181".to_owned()), "the one that answered is named");
        let elsewhere = "server.1=zk1.invalid:2888:3888;2181\nserver.2=zk2.invalid:2888:3888;2181";
        assert_eq!(of(&["10.0.0.1:2181", "10.0.0.2:2181"], elsewhere), Ok("10.0.0.1:2181 10.0.0.2:2181".to_owned()));
        for too_few in [&["10.0.0.1:2181"][..], &["10.0.0.1:2181", "10.0.0.1:2181"]] {
            assert!(of(too_few, elsewhere).unwrap_err().starts_with("A has server.1 (zk1.invalid"), "{too_few:?}");
        }
    }
}
