//! Names of images, and who may pull them.

use std::collections::HashMap;
use std::path::Path;

use bollard::auth::DockerCredentials;
use mesos_proto::v1::image;

use crate::sandbox::Sandbox;

/// Largest file of credentials, in bytes.
const CREDENTIALS_MAX: u64 = 1 << 20;

/// A name without tag or digest means the newest.
pub(super) fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if name.contains('@') || last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Which registry an image comes from, as `config.json` names it.
pub(super) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

const HUB: &str = "docker.io";

/// Credentials of a `config.json` or `.dockercfg`, by registry.
pub(super) fn credentials(text: &str) -> HashMap<String, DockerCredentials> {
    use base64::Engine as _;

    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return HashMap::new() };
    let auths = value.get("auths").unwrap_or(&value);
    let entries = auths.as_object().into_iter().flatten();
    entries
        .filter_map(|(registry, entry)| {
            let field = |name: &str| entry.get(name).and_then(|it| it.as_str()).map(str::to_owned);
            let pair = field("auth").and_then(|it| base64::engine::general_purpose::STANDARD.decode(it).ok());
            let pair = pair.and_then(|it| String::from_utf8(it).ok());
            let (username, password) = match pair.as_deref().and_then(|it| it.split_once(':')) {
                Some((user, password)) => (Some(user.to_owned()), Some(password.trim_end_matches('\0').to_owned())),
                None => (field("username"), field("password")),
            };
            let identitytoken = field("identitytoken");
            if username.is_none() && identitytoken.is_none() {
                return None;
            }
            let host = registry.split_once("://").map_or(registry.as_str(), |(_, it)| it).split('/').next().unwrap_or_default();
            let key = if matches!(host, "index.docker.io" | "registry-1.docker.io") { HUB } else { host };
            let serveraddress = Some(registry.clone());
            Some((key.to_owned(), DockerCredentials { username, password, identitytoken, serveraddress, ..DockerCredentials::default() }))
        })
        .collect()
}

/// Credentials that an image has with it: a secret, which is Docker's `config.json`.
///
/// # Errors
/// When it is only named.
pub(in crate::containers) fn given_credentials(image: &image::Docker) -> Result<Option<HashMap<String, DockerCredentials>>, String> {
    let Some(secret) = &image.config else { return Ok(None) };
    let Some(value) = &secret.value else {
        return Err(format!("The credentials of the image '{}' are a secret by reference, and there is no secret resolver", image.name));
    };
    Ok(Some(credentials(&String::from_utf8_lossy(&value.data))))
}

/// Credentials that the task's own files brought.
pub(super) fn fetched_credentials(sandbox: &Sandbox) -> Option<HashMap<String, DockerCredentials>> {
    let read = |it: &&str| sandbox.read(Path::new(it), CREDENTIALS_MAX).ok();
    let found = [".docker/config.json", ".dockercfg", "docker.cfg"].iter().find_map(read)?;
    Some(credentials(&String::from_utf8_lossy(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_tag_are_the_newest() {
        let tagged = [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("a@sha256:0", "a@sha256:0"),
        ];
        for (name, expected) in tagged {
            assert_eq!(with_tag(name), expected);
        }
        assert_eq!((registry_of("host:5000/a/b:1"), registry_of("library/a:1"), registry_of("a:1")), ("host:5000", HUB, HUB));
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},"host:5000":{"username":"a","password":"b"},"c":{}}}"#;
        let found = credentials(config);
        assert_eq!((found[HUB].username.as_deref(), found[HUB].password.as_deref()), (Some("u"), Some("p:q")));
        assert_eq!(found["host:5000"].password.as_deref(), Some("b"));
        assert_eq!(found.len(), 2);
        assert!(credentials("not json").is_empty());
    }

    #[test]
    fn an_image_may_have_its_credentials_with_it() {
        use mesos_proto::v1::{Secret, secret};

        let of = |config: Option<Secret>| given_credentials(&image::Docker { name: "a".to_owned(), config, ..image::Docker::default() });
        assert!(of(None).unwrap().is_none());
        let data = br#"{"auths":{"host:5000":{"username":"a","password":"b"}}}"#.to_vec();
        let value = Secret { r#type: Some(secret::Type::Value as i32), value: Some(secret::Value { data }), ..Secret::default() };
        assert_eq!(of(Some(value)).unwrap().unwrap()["host:5000"].username.as_deref(), Some("a"));
        let reference = Secret { r#type: Some(secret::Type::Reference as i32), ..Secret::default() };
        assert!(of(Some(reference)).unwrap_err().contains("no secret resolver"));
    }
}
