//! A link as an operator writes it down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zk::Options;
use zksync::{AclPolicy, AclRule, Drift, EphemeralPolicy, Limits, LinkConfig, Mapping, Mode, Plan, Rule, Side, Strategy, TypeRule};

/// What `node_bytes_max` may be at most: a few such znodes are held at once.
const NODE_BYTES_MOST: usize = 64 * 1024 * 1024;
/// Paths in `versions` at most.
const VERSIONS_MOST: usize = 256;

/// A link between two ensembles: the plan of a migration, as a file or a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name: letters, digits, `-` and `_`, at most 64.
    pub id: String,
    /// The ensemble whose paths name the pairs; the old one in a migration.
    pub a: EnsembleDefinition,
    /// The other one.
    pub b: EnsembleDefinition,
    /// Which znodes pair; everything to the same paths when empty.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub mappings: Vec<Rule>,
    /// `a_to_b`, `b_to_a` or `both`.
    #[serde(default = "a_to_b")]
    #[schema(value_type = String)]
    pub mode: Mode,
    /// `last_write_wins`, `a_wins`, `b_wins` or `manual`.
    #[serde(default = "last_write_wins")]
    #[schema(value_type = String)]
    pub strategy: Strategy,
    /// Who wins when `last_write_wins` cannot tell: `a` or `b`.
    #[serde(default = "side_a")]
    #[schema(value_type = String)]
    pub tie_break: Side,
    /// `skip` or `mirror`.
    #[serde(default = "skip")]
    #[schema(value_type = String)]
    pub ephemerals: EphemeralPolicy,
    /// `copy` or `ignore`.
    #[serde(default = "copy")]
    #[schema(value_type = String)]
    pub acl: AclPolicy,
    /// Identities that are called otherwise on the other side.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub acl_rules: Vec<AclRule>,
    /// `report` or `overwrite`: what becomes of changes on the side that nothing is taken from.
    #[serde(default = "report")]
    #[schema(value_type = String)]
    pub drift: Drift,
    /// Znodes that are containers or have a time to live: no client can see that, so it must be told. They become so at the cutover.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub types: Vec<TypeRule>,
    /// Znodes whose version clients use as a number, such as `/brokers/seqid` of Kafka: A's paths; `*` stands for one name, `**` for any number of
    /// them. At the cutover the copy gets at least the version of its original.
    // Left out where it says nothing, as a control plane of a version before that shares the store knows no such field; so is the next one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Bytes of the largest znode that is copied. More than the usual 1,047,000 need a larger `jute.maxbuffer` on both ensembles; that B has one is
    /// tried before a migration copies anything.
    #[serde(default = "node_bytes_max", skip_serializing_if = "is_usual_node_bytes_max")]
    pub node_bytes_max: usize,
    /// Seconds between two comparisons of everything.
    #[serde(default = "full_pass")]
    pub full_pass_seconds: u64,
    /// Seconds between two verifications, which read both sides as a whole; 0 for none. They are left out while a migration makes its own.
    #[serde(default = "verify_seconds")]
    pub verify_seconds: u64,
    /// Deletes within a minute that are never held back.
    #[serde(default = "deletes_free")]
    pub deletes_free: usize,
    /// What both sides agree on is kept on B, too, so that another control plane can go on with it: about 100 bytes a znode.
    #[serde(default = "yes")]
    pub checkpoint: bool,
    /// An operator paused it, or a migration that was rolled back did: nothing is carried until it is resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// An ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnsembleDefinition {
    /// `host:port,host:port/chroot`.
    #[serde(default)]
    pub connect: String,
    /// A file with `user:password` for the scheme `digest`, below the directory for secrets of the control plane. The super user sees everything; anybody else only what access control lists allow.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub digest_file: Option<PathBuf>,
    /// A file with `user:password`, in the same directory, that is proved by SASL (DIGEST-MD5) without being told.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub sasl_file: Option<PathBuf>,
    /// Connections are encrypted: `connect` names the servers' secure ports.
    #[serde(default)]
    pub tls: Option<TlsDefinition>,
    /// What is asked for; Mesos and Marathon use 10 s.
    #[serde(default = "session_timeout")]
    pub session_timeout_seconds: u64,
    /// Two watches on every znode although the server could watch the tree as one.
    #[serde(default)]
    pub watch_one_by_one: bool,
}

/// Where the files with secrets are that links and migrations may name. Whoever asks for a link also says where it leads to: what any other file has
/// would be told to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets(PathBuf);

impl Secrets {
    /// Those in `directory`, and below it.
    pub fn below(directory: impl Into<PathBuf>) -> Secrets {
        Secrets(directory.into())
    }

    /// Takes a definition whose files are all in it; a name without a directory is one in it.
    ///
    /// # Errors
    /// When a file is elsewhere, or is not there.
    pub fn admit(&self, mut definition: Definition) -> Result<Definition, DefinitionError> {
        for ensemble in [&mut definition.a, &mut definition.b] {
            let tls = ensemble.tls.as_mut().and_then(|tls| tls.key_file.as_mut());
            for file in [ensemble.digest_file.as_mut(), ensemble.sasl_file.as_mut(), tls].into_iter().flatten() {
                *file = self.find(file)?;
            }
        }
        Ok(definition)
    }

    /// The same of a migration.
    ///
    /// # Errors
    /// When the file is elsewhere, or is not there.
    pub fn admit_plan(&self, mut plan: Plan) -> Result<Plan, DefinitionError> {
        if let Some(file) = &mut plan.hook_token_file {
            *file = self.find(Path::new(file))?.to_string_lossy().into_owned();
        }
        Ok(plan)
    }

    fn find(&self, file: &Path) -> Result<PathBuf, DefinitionError> {
        let path = self.0.join(file);
        let outside = || DefinitionError(format!("{}: files with secrets must be below {}", file.display(), self.0.display()));
        // Whether something is there is nobody's business either.
        let (inside, found) = (self.0.canonicalize().map_err(|_| outside())?, path.canonicalize().map_err(|_| outside())?);
        // The name as it was told: where secrets are renewed, what it leads to changes.
        if found.starts_with(&inside) && found.is_file() { Ok(path) } else { Err(outside()) }
    }
}

/// How connections are encrypted. Files are PEM, and may be renewed while the link runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsDefinition {
    /// Certificates of those who sign the servers' certificates.
    #[schema(value_type = String)]
    pub ca_file: PathBuf,
    /// Our certificate, for servers that ask for one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub key_file: Option<PathBuf>,
    /// Whether the name that is connected to must stand in the server's certificate.
    #[serde(default = "yes")]
    pub check_name: bool,
}

/// What is wrong with a definition.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DefinitionError(pub String);

const fn a_to_b() -> Mode {
    Mode::AToB
}

const fn last_write_wins() -> Strategy {
    Strategy::LastWriteWins
}

const fn side_a() -> Side {
    Side::A
}

const fn skip() -> EphemeralPolicy {
    EphemeralPolicy::Skip
}

const fn copy() -> AclPolicy {
    AclPolicy::Copy
}

const fn report() -> Drift {
    Drift::Report
}

/// What it is when nobody says it.
pub(crate) fn node_bytes_max() -> usize {
    Limits::default().node_bytes
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_usual_node_bytes_max(bytes: &usize) -> bool {
    *bytes == node_bytes_max()
}

const fn full_pass() -> u64 {
    60
}

const fn verify_seconds() -> u64 {
    600
}

const fn yes() -> bool {
    true
}

const fn deletes_free() -> usize {
    100
}

const fn session_timeout() -> u64 {
    10
}

impl Definition {
    /// A link with everything that can be left out left out.
    pub fn between(id: &str, a: &str, b: &str) -> Definition {
        let ensemble = |connect: &str| EnsembleDefinition {
            connect: connect.to_owned(),
            digest_file: None,
            sasl_file: None,
            tls: None,
            session_timeout_seconds: session_timeout(),
            watch_one_by_one: false,
        };
        Definition {
            id: id.to_owned(),
            a: ensemble(a),
            b: ensemble(b),
            mappings: Vec::new(),
            mode: a_to_b(),
            strategy: last_write_wins(),
            tie_break: side_a(),
            ephemerals: skip(),
            acl: copy(),
            acl_rules: Vec::new(),
            drift: report(),
            types: Vec::new(),
            versions: Vec::new(),
            node_bytes_max: node_bytes_max(),
            full_pass_seconds: full_pass(),
            verify_seconds: verify_seconds(),
            deletes_free: deletes_free(),
            checkpoint: yes(),
            paused: false,
        }
    }

    /// The ensemble of `side`.
    pub fn ensemble(&self, side: Side) -> &EnsembleDefinition {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// What the core is told.
    ///
    /// # Errors
    /// When the name, a mapping or a number makes no sense.
    pub fn config(&self) -> Result<LinkConfig, DefinitionError> {
        let problem = |text: String| Err(DefinitionError(text));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(is_name) {
            return problem(format!("id {:?}: 1 to 64 letters, digits, - and _", self.id));
        }
        if !(1..=86_400).contains(&self.full_pass_seconds) {
            return problem(format!("full_pass_seconds is {}: not between 1 and 86400", self.full_pass_seconds));
        }
        if self.verify_seconds > 604_800 {
            return problem(format!("verify_seconds is {}: more than 604800", self.verify_seconds));
        }
        if !(1..=NODE_BYTES_MOST).contains(&self.node_bytes_max) {
            return problem(format!("node_bytes_max is {}: not between 1 and {NODE_BYTES_MOST}", self.node_bytes_max));
        }
        if let Some(path) = self.versions.iter().find(|path| !path.starts_with('/')) {
            return problem(format!("versions: {path:?} is no path of a znode"));
        }
        if self.versions.len() > VERSIONS_MOST {
            return problem(format!("versions: {} paths are more than {VERSIONS_MOST}", self.versions.len()));
        }
        for (name, ensemble) in [("a", &self.a), ("b", &self.b)] {
            if Options::new(&ensemble.connect).servers().is_empty() {
                return problem(format!("{name}.connect is {:?}: no server", ensemble.connect));
            }
            if !(1..=3_600).contains(&ensemble.session_timeout_seconds) {
                return problem(format!("{name}.session_timeout_seconds is {}: not between 1 and 3600", ensemble.session_timeout_seconds));
            }
        }
        let mapping = if self.mappings.is_empty() { Ok(Mapping::everything()) } else { Mapping::new(self.mappings.clone()) };
        let mapping = mapping.map_err(|error| DefinitionError(error.to_string()))?;
        Ok(LinkConfig {
            mapping,
            mode: self.mode,
            strategy: self.strategy,
            tie_break: self.tie_break,
            ephemerals: self.ephemerals,
            acl: self.acl,
            acl_rules: self.acl_rules.clone(),
            drift: self.drift,
            limits: Limits {
                full_pass: Duration::from_secs(self.full_pass_seconds),
                deletes_free: self.deletes_free,
                node_bytes: self.node_bytes_max,
                ..Limits::default()
            },
        })
    }
}

impl EnsembleDefinition {
    /// The same words in a file, without `connect`: for an ensemble whose address is told elsewhere.
    ///
    /// # Errors
    /// When the file cannot be read, or makes no sense.
    pub fn access_in(path: &Path) -> Result<Options, DefinitionError> {
        let problem = |error: &dyn std::fmt::Display| DefinitionError(format!("{}: {error}", path.display()));
        let text = std::fs::read(path).map_err(|error| problem(&error))?;
        let access: EnsembleDefinition = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
        if !access.connect.is_empty() {
            return Err(problem(&"connect has no place here"));
        }
        access.options()
    }

    /// How to reach it; reads the secrets.
    ///
    /// # Errors
    /// When a file cannot be read or makes no sense.
    pub fn options(&self) -> Result<Options, DefinitionError> {
        let mut options = Options::new(&self.connect).with_session_timeout(Duration::from_secs(self.session_timeout_seconds));
        if let Some(path) = &self.digest_file {
            options = options.with_digest(secret(path)?);
        }
        if let Some(path) = &self.sasl_file {
            let secret = secret(path)?;
            let told = secret.split_once(':');
            let (user, password) = told.ok_or_else(|| DefinitionError(format!("{}: not user:password", path.display())))?;
            options = options.with_sasl(user, password);
        }
        if let Some(tls) = &self.tls {
            if tls.certificate_file.is_some() != tls.key_file.is_some() {
                return Err(DefinitionError("tls: certificate_file and key_file are given both or not at all".to_owned()));
            }
            for path in [Some(&tls.ca_file), tls.certificate_file.as_ref(), tls.key_file.as_ref()].into_iter().flatten() {
                std::fs::metadata(path).map_err(|error| DefinitionError(format!("{}: {error}", path.display())))?;
            }
            options = options.with_tls(zk::Tls {
                ca_file: tls.ca_file.clone(),
                certificate_file: tls.certificate_file.clone(),
                key_file: tls.key_file.clone(),
                check_name: tls.check_name,
            });
        }
        Ok(options)
    }
}

fn secret(path: &Path) -> Result<String, DefinitionError> {
    let secret = std::fs::read_to_string(path).map_err(|error| DefinitionError(format!("{}: {error}", path.display())))?;
    Ok(secret.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_znode_and_the_versions_that_count_are_as_told() {
        let of = |bytes: usize, path: &str| {
            let definition =
                Definition { node_bytes_max: bytes, versions: vec![path.to_owned()], ..Definition::between("x", "a:1", "b:1") };
            definition.config().map(|config| config.limits.node_bytes)
        };
        assert_eq!(of(4_000_000, "/brokers/seqid").unwrap(), 4_000_000);
        assert_eq!(Definition::between("x", "a:1", "b:1").config().unwrap().limits.node_bytes, 1_047_000);
        assert!(of(0, "/x").is_err() && of(NODE_BYTES_MOST + 1, "/x").is_err() && of(1, "x").is_err());
    }

    #[test]
    fn what_a_version_before_does_not_know_is_kept_only_when_it_says_something() {
        let usual = Definition::between("x", "a:1", "b:1");
        let kept = serde_json::to_value(&usual).unwrap();
        for field in ["versions", "node_bytes_max", "paused"] {
            assert!(kept.get(field).is_none(), "{field}");
        }
        assert_eq!(serde_json::from_value::<Definition>(kept).unwrap(), usual);
        let told = Definition { versions: vec!["/v".to_owned()], node_bytes_max: 2_000_000, paused: true, ..usual };
        assert_eq!(serde_json::from_value::<Definition>(serde_json::to_value(&told).unwrap()).unwrap(), told);
    }

    #[test]
    fn only_files_below_the_directory_for_secrets_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("secrets");
        std::fs::create_dir_all(inside.join("zk")).unwrap();
        for file in ["secrets/zk/old", "elsewhere"] {
            std::fs::write(directory.path().join(file), "user:password").unwrap();
        }
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), inside.join("leads-out")).unwrap();
        std::os::unix::fs::symlink(inside.join("zk/old"), inside.join("leads-in")).unwrap();
        let secrets = Secrets::below(&inside);
        let with = |file: &Path| {
            let mut definition = Definition::between("x", "a:1", "b:1");
            definition.b.sasl_file = Some(file.to_owned());
            secrets.admit(definition).map(|definition| definition.b.sasl_file)
        };
        for file in ["zk/old", "leads-in", "zk/../zk/old"] {
            assert_eq!(with(Path::new(file)).unwrap(), Some(inside.join(file)), "{file}");
        }
        assert_eq!(with(&inside.join("zk/old")).unwrap(), Some(inside.join("zk/old")));
        for file in ["../elsewhere", "leads-out", "missing", "zk", "/etc/hostname", ""] {
            assert!(with(Path::new(file)).unwrap_err().to_string().contains("must be below"), "{file}");
        }
        let plan = |file: &str| secrets.admit_plan(Plan { hook_token_file: Some(file.to_owned()), ..Plan::of("x") });
        assert!(plan("zk/old").is_ok() && plan("/etc/hostname").is_err());
    }
}
