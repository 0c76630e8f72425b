//! Proxies that the process' environment names. Pure, but for reading the environment.
//!
//! The client library takes `HTTPS_PROXY` for the API of a kubeconfig, and knows no `NO_PROXY`. What a kubeconfig itself says of a proxy is
//! for its cluster and stands, as it does for kubectl.

use std::net::IpAddr;

use http::Uri;

/// Variables that name a proxy for an API over HTTPS, as the client library reads them.
const PROXIES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// Variables that name what is asked without it; the first one that says something counts.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What the environment says of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The proxy.
    pub(super) proxy: Option<String>,
    /// What is asked without it: names, domains, addresses and networks, with commas.
    pub(super) exceptions: Option<String>,
}

impl Surroundings {
    pub(super) fn of_process() -> Self {
        let first = |names: [&str; 2]| names.into_iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
        Surroundings { proxy: first(PROXIES), exceptions: first(EXCEPTIONS) }
    }
}

/// Takes a proxy of the environment away where the API is to be asked without one, and makes one that was named without a scheme an HTTP proxy.
pub(super) fn settle(config: &mut kube::Config, surroundings: &Surroundings) {
    let Some(proxy) = &config.proxy_url else { return };
    let of_environment = surroundings.proxy.as_ref().and_then(|it| it.parse::<Uri>().ok());
    if of_environment.as_ref() != Some(proxy) {
        return;
    }
    if is_excepted(&config.cluster_url, surroundings.exceptions.as_deref().unwrap_or_default()) {
        config.proxy_url = None;
    } else if proxy.scheme().is_none()
        && let Ok(with_scheme) = format!("http://{proxy}").parse()
    {
        config.proxy_url = Some(with_scheme);
    }
}

/// Whether one of the exceptions names the host of `url`.
fn is_excepted(url: &Uri, exceptions: &str) -> bool {
    let Some(host) = url.host() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let port = url.port_u16().unwrap_or(443);
    let address = host.parse::<IpAddr>().ok();
    let names_it = |exception: &str| {
        if exception == "*" {
            return true;
        }
        if let Some(address) = address {
            let (exception, of_port) = address_and_port(exception);
            return of_port.is_none_or(|it| it == port) && is_within(address, exception);
        }
        let (name, of_port) = match exception.rsplit_once(':') {
            Some((name, digits)) => (name, digits.parse::<u16>().ok()),
            None => (exception, None),
        };
        let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let is_of_domain = host.strip_suffix(&name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        !name.is_empty() && is_of_domain && of_port.is_none_or(|it| it == port)
    };
    exceptions.split([',', ' ']).map(str::trim).filter(|it| !it.is_empty()).any(names_it)
}

/// `10.0.0.1:6443` and `[fd00::1]:6443` are of one port only.
fn address_and_port(exception: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = exception.strip_prefix('[').and_then(|it| it.split_once(']')) {
        return (address, rest.strip_prefix(':').and_then(|digits| digits.parse().ok()));
    }
    match exception.split_once(':') {
        Some((address, digits)) if !digits.contains(':') => (address, digits.parse().ok()),
        _ => (exception, None),
    }
}

/// Whether it is this address, or one of this network.
fn is_within(address: IpAddr, network: &str) -> bool {
    let Some((base, length)) = network.split_once('/') else { return network.parse() == Ok(address) };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    // The bits that count, at the top of a number of as many bits as there are.
    let differ = match (address, base) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    length == 0 || (length <= 128 && differ >> (128 - length) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, proxy: Option<&str>) -> kube::Config {
        let mut config = kube::Config::new(url.parse().unwrap());
        config.proxy_url = proxy.map(|it| it.parse().unwrap());
        config
    }

    #[test]
    fn exceptions_are_names_domains_addresses_and_networks() {
        let excepted = |host: &str, exceptions: &str| is_excepted(&format!("https://{host}").parse().unwrap(), exceptions);
        for (host, exceptions) in [
            ("api.example.com:6443", "localhost, .example.com"),
            ("api.example.com", "example.com"),
            ("API.Example.com", "*.example.com"),
            ("api.example.com:6443", "api.example.com:6443"),
            ("10.96.0.1", "192.168.0.0/16,10.96.0.0/12"),
            ("10.0.0.7:6443", "10.0.0.7"),
            ("10.0.0.7:6443", "10.0.0.7:6443"),
            ("[fd00::1]:6443", "fd00::/8"),
            ("[fd00::1]:6443", "[fd00::1]:6443"),
            ("anything", "*"),
            ("10.1.2.3", "0.0.0.0/0"),
        ] {
            assert!(excepted(host, exceptions), "{host} by {exceptions}");
        }
        for (host, exceptions) in [
            ("api.example.com", ""),
            ("notexample.com", "example.com"),
            ("api.example.com:6443", "api.example.com:443"),
            ("10.96.0.1", "10.0.0.0/16"),
            ("10.96.0.1", "fd00::/8"),
            ("10.96.0.1", "10.0.0.0/999"),
            ("10.96.0.1", "0.1"),
            ("fd00-api", "fd00::/8"),
        ] {
            assert!(!excepted(host, exceptions), "{host} by {exceptions}");
        }
    }

    #[test]
    fn a_proxy_of_the_environment_is_used_but_for_exceptions_and_one_of_the_kubeconfig_always() {
        let around = Surroundings { proxy: Some("http://proxy:3128".to_owned()), exceptions: Some("10.0.0.0/8,.internal".to_owned()) };
        let settled = |url: &str, proxy: Option<&str>| {
            let mut config = config(url, proxy);
            settle(&mut config, &around);
            config.proxy_url.map(|it| it.to_string())
        };
        assert_eq!(settled("https://10.0.0.1:6443", Some("http://proxy:3128")), None);
        assert_eq!(settled("https://api.internal", Some("http://proxy:3128")), None);
        assert_eq!(settled("https://api.example.com", Some("http://proxy:3128")).as_deref(), Some("http://proxy:3128/"));
        assert_eq!(settled("https://10.0.0.1:6443", Some("http://other:3128")).as_deref(), Some("http://other:3128/"));
        assert_eq!(settled("https://10.0.0.1:6443", None), None);
        let mut bare = config("https://api.example.com", Some("proxy:3128"));
        settle(&mut bare, &Surroundings { proxy: Some("proxy:3128".to_owned()), exceptions: None });
        assert_eq!(bare.proxy_url.map(|it| it.to_string()).as_deref(), Some("http://proxy:3128/"));
    }

    #[tokio::test]
    async fn a_client_is_made_for_every_sort_of_proxy() {
        for proxy in ["http://user:secret@proxy:3128", "socks5://proxy:1080"] {
            let made = kube::client::ClientBuilder::try_from(config("https://api.example.com", Some(proxy)));
            assert!(made.is_ok(), "{proxy}");
        }
    }
}
