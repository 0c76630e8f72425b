//! The keys of the collector of a Kubernetes cluster.

use std::path::PathBuf;

use probe_kubernetes::{Access, NAMESPACES_MAX};

use super::parse::parse_name;
use super::{
    KUBERNETES, KUBERNETES_API, KUBERNETES_CONFIG, KUBERNETES_CONTEXT, KUBERNETES_LEASE, KUBERNETES_NAMESPACES, Layers, Mistake, Origin,
    Roles,
};
use crate::kubernetes::{Config, LeasePlace};

/// Every key of the collector.
const KEYS: [&str; 6] = [KUBERNETES, KUBERNETES_CONFIG, KUBERNETES_CONTEXT, KUBERNETES_API, KUBERNETES_NAMESPACES, KUBERNETES_LEASE];

/// Longest name of a namespace.
const NAMESPACE_NAME_MAX: usize = 63;
/// Longest name of other objects.
const NAME_MAX: usize = 253;

impl Layers {
    /// The collector's part of the configuration.
    pub(super) fn cluster(&mut self, roles: Option<Roles>) -> Option<Config> {
        let cluster_name = self.parse(KUBERNETES, |text| parse_name(text, 128)?.ok_or_else(|| "empty".to_owned()));
        let file = self.parse(KUBERNETES_CONFIG, parse_kubeconfig);
        let context = self.parse(KUBERNETES_CONTEXT, |text| Ok(Some(text.to_owned()).filter(|text| !text.is_empty())));
        let url = self.parse(KUBERNETES_API, parse_url);
        let namespaces = self.parse(KUBERNETES_NAMESPACES, parse_namespaces);
        let lease = self.parse(KUBERNETES_LEASE, parse_lease);
        // A file may be shared by all probes; a flag is meant for this one.
        if roles.is_some_and(|roles| !roles.kubernetes) {
            let given = KEYS.into_iter().find(|key| matches!(self.values.get(key), Some((_, Origin::Flag))));
            if let Some(key) = given {
                return self.refuse(key, "this probe is no collector; add --roles kubernetes, or observe,kubernetes");
            }
        }
        let access = match (file?, context?, url?) {
            (Kubeconfig::Inferred, None, None) => Access::Inferred,
            (Kubeconfig::Inferred, None, Some(url)) => Access::Url(url),
            (Kubeconfig::Inferred, context, None) => Access::Kubeconfig { path: None, context },
            (Kubeconfig::File(path), context, None) => Access::Kubeconfig { path: Some(path), context },
            (Kubeconfig::InCluster, None, None) => Access::InCluster,
            (Kubeconfig::InCluster, Some(_), None) => return self.refuse(KUBERNETES_CONTEXT, "in a cluster there are no contexts"),
            (_, _, Some(_)) => return self.refuse(KUBERNETES_API, "an address alone, or a kubeconfig, not both"),
        };
        Some(Config { cluster_name: cluster_name?, access, namespaces: namespaces?, lease: lease? })
    }

    fn refuse(&mut self, key: &'static str, problem: &str) -> Option<Config> {
        let (value, source) = self.values.get(key)?.clone();
        self.mistakes.push(Mistake { key: key.to_owned(), value: Some(value), source, problem: problem.to_owned() });
        None
    }
}

/// Where credentials are.
enum Kubeconfig {
    Inferred,
    InCluster,
    File(PathBuf),
}

pub(super) fn parse_roles(text: &str) -> Result<Roles, String> {
    let mut roles = Roles { observe: false, kubernetes: false, run: false };
    for role in text.split(',').map(str::trim) {
        match role {
            "observe" => roles.observe = true,
            "kubernetes" => roles.kubernetes = true,
            "run" => roles.run = true,
            _ => return Err("there are observe, run and kubernetes; several, with commas between".to_owned()),
        }
    }
    Ok(roles)
}

fn parse_kubeconfig(text: &str) -> Result<Kubeconfig, String> {
    Ok(match text {
        "" => Kubeconfig::Inferred,
        "in-cluster" => Kubeconfig::InCluster,
        path => Kubeconfig::File(PathBuf::from(path)),
    })
}

fn parse_url(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if text.starts_with("http://") || text.starts_with("https://") => Ok(Some(text.to_owned())),
        _ => Err("not an address such as http://127.0.0.1:8001".to_owned()),
    }
}

/// In Kubernetes, letters of names are small.
fn is_name(text: &str, longest: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}

fn parse_namespaces(text: &str) -> Result<Vec<String>, String> {
    let mut names = text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect::<Vec<_>>();
    names.sort();
    names.dedup();
    match names.iter().find(|name| !is_name(name, NAMESPACE_NAME_MAX)) {
        Some(name) => Err(format!("{name:?} is no name of a namespace")),
        None if names.len() > NAMESPACES_MAX => Err(format!("at most {NAMESPACES_MAX} can be named")),
        None => Ok(names),
    }
}

fn parse_lease(text: &str) -> Result<Option<LeasePlace>, String> {
    let (namespace, name) = match text.split_once('/') {
        _ if text == "off" => return Ok(None),
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if is_name(name, NAME_MAX) && namespace.is_none_or(|namespace| is_name(namespace, NAMESPACE_NAME_MAX)) {
        Ok(Some(LeasePlace { namespace: namespace.map(str::to_owned), name: name.to_owned() }))
    } else {
        Err("neither \"off\" nor a name, or a namespace and a name with a slash between".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::{Config, Flags};

    fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let flags = Flags::try_parse_from(std::iter::once("orchestrator-probe").chain(arguments.iter().copied())).unwrap();
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::resolve(&flags, environment).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_probe_is_no_collector_unless_it_is_told_to_be_one() {
        let config = resolve(&[], &[]).unwrap();
        assert_eq!(config.roles, Roles { observe: true, kubernetes: false, run: false });
        let config = resolve(&["--roles", "observe, kubernetes", "--kubernetes", "production"], &[]).unwrap();
        assert_eq!(config.roles, Roles { observe: true, kubernetes: true, run: false });
        let lease = Some(LeasePlace { namespace: None, name: "orchestrator-collector".to_owned() });
        let expected =
            crate::kubernetes::Config { cluster_name: "production".to_owned(), access: Access::Inferred, namespaces: Vec::new(), lease };
        assert_eq!(config.kubernetes, expected);
    }

    #[test]
    fn the_way_to_the_api_is_one_and_no_two() {
        let collector =
            |arguments: &[&str]| resolve(&[&["--roles=kubernetes"], arguments].concat(), &[]).map(|config| config.kubernetes.access);
        let file = |path: Option<&str>, context: Option<&str>| Access::Kubeconfig {
            path: path.map(PathBuf::from),
            context: context.map(str::to_owned),
        };
        assert_eq!(collector(&["--kubernetes-api=http://127.0.0.1:8001"]), Ok(Access::Url("http://127.0.0.1:8001".to_owned())));
        assert_eq!(collector(&["--kubernetes-config=in-cluster"]), Ok(Access::InCluster));
        assert_eq!(collector(&["--kubernetes-config=k.yaml", "--kubernetes-context=c"]), Ok(file(Some("k.yaml"), Some("c"))));
        assert_eq!(collector(&["--kubernetes-context=c"]), Ok(file(None, Some("c"))));
        assert!(collector(&["--kubernetes-config=k.yaml", "--kubernetes-api=http://127.0.0.1:8001"]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let mistakes = resolve(
            &["--roles=spectate", "--kubernetes-namespaces=shop,No Such", "--kubernetes-lease=a/b/c", "--kubernetes-api=example.com"],
            &[("ORCHESTRATOR_PROBE_KUBERNETES", "")],
        );
        expect_test::expect![[r#"
            --roles is "spectate": there are observe, run and kubernetes; several, with commas between
            ORCHESTRATOR_PROBE_KUBERNETES is "": empty
            --kubernetes-api is "example.com": not an address such as http://127.0.0.1:8001
            --kubernetes-namespaces is "shop,No Such": "No Such" is no name of a namespace
            --kubernetes-lease is "a/b/c": neither "off" nor a name, or a namespace and a name with a slash between"#]]
        .assert_eq(&mistakes.unwrap_err().join("\n"));
        let mistakes = resolve(&["--kubernetes=production"], &[]).unwrap_err();
        assert_eq!(mistakes, ["--kubernetes is \"production\": this probe is no collector; add --roles kubernetes, or observe,kubernetes"]);
        assert!(resolve(&[], &[("ORCHESTRATOR_PROBE_KUBERNETES", "production")]).is_ok(), "the environment may be shared");
    }
}
