//! Programs, and where on their command lines they take secrets.

/// How the names begin of programs whose `-p` has a password attached.
pub(super) const ATTACHED: [&str; 5] = ["mysql", "mariadb", "7z", "rar", "unrar"];

/// Programs with short options whose next argument, or rest, is a secret; with the subcommand that has it, if not all do.
pub(super) const SHORT: [(&[&str], &str, &str); 15] = [
    (&["sshpass"], "", "-p"),
    (&["redis-cli", "redis-benchmark", "valkey-cli", "keydb-cli"], "", "-a"),
    (&["mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat", "mongotop", "mongofiles"], "", "-p"),
    (&["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldappasswd", "ldapwhoami", "ldapcompare", "ldapmodrdn"], "", "-w"),
    (&["ldappasswd"], "", "-s"),
    (&["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oc", "az", "oras", "crane"], "login", "-p"),
    (&["mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "sqlcmd", "bcp", "ipmitool", "zip", "unzip"], "", "-P"),
    (&["rabbitmqadmin", "cqlsh", "useradd", "usermod", "ncftpput", "ncftpget"], "", "-p"),
    (&["snmpget", "snmpwalk", "snmpbulkwalk", "snmpset"], "", "-A"),
    (&["snmpget", "snmpwalk", "snmpbulkwalk", "snmpset"], "", "-X"),
    (&["curl"], "", "-b"),
    (&["xfreerdp"], "", "/p:"),
    (&["consul", "serf", "nomad"], "", "-encrypt"),
    (&["openssl"], "", "-K"),
    (&["openssl"], "", "-k"),
];

/// Programs with options whose next argument, or rest, is a user and a password.
pub(super) const USERS: [(&[&str], &str); 12] = [
    (&["curl"], "-u"),
    (&["curl"], "--user"),
    (&["curl"], "--proxy-user"),
    (&["curl"], "-U"),
    (&["curl"], "-E"),
    (&["curl"], "--cert"),
    (&["smbclient", "rpcclient", "net"], "-U"),
    (&["smbclient", "rpcclient", "net"], "--user"),
    (&["etcdctl"], "--user"),
    (&["http", "https", "xh", "hey"], "-a"),
    (&["ab"], "-A"),
    (&["lftp"], "-u"),
];

/// Programs and words behind which secrets stand without a name: after so many other arguments, so many.
pub(super) const PLACES: [(&str, &str, u8, u8); 11] = [
    ("vault", "login", 0, 1),
    ("rabbitmqctl", "add_user", 1, 1),
    ("rabbitmqctl", "change_password", 1, 1),
    ("rabbitmqctl", "authenticate_user", 1, 1),
    ("redis-cli", "requirepass", 0, 1),
    ("redis-cli", "masterauth", 0, 1),
    // A user may stand before the password.
    ("redis-cli", "auth", 0, 2),
    ("aws", "aws_secret_access_key", 0, 1),
    ("aws", "aws_session_token", 0, 1),
    ("nmcli", "password", 0, 1),
    ("wpa_passphrase", "", 1, 1),
];

/// Programs whose first argument is `user/password@database`.
pub(super) const SLASHED: [&str; 6] = ["sqlplus", "expdp", "impdp", "exp", "imp", "sqlldr"];

/// Short options of curl without a value: others may follow in the same argument.
pub(super) const CURL_SWITCHES: &str = "012346#:aBfgGiIjJklLMnNOpqRsSvVZ";

/// Programs that run another one that stands on their command line.
pub(super) const WRAPPERS: [&str; 38] = [
    "sudo",
    "doas",
    "env",
    "timeout",
    "nice",
    "ionice",
    "nohup",
    "setsid",
    "time",
    "strace",
    "ltrace",
    "xargs",
    "exec",
    "command",
    "watch",
    "flock",
    "tini",
    "dumb-init",
    "catatonit",
    "gosu",
    "su-exec",
    "chpst",
    "runuser",
    "su",
    "chroot",
    "unshare",
    "nsenter",
    "stdbuf",
    "taskset",
    "numactl",
    "systemd-run",
    "ssh",
    "busybox",
    "script",
    "builtin",
    "eval",
    "setpriv",
    "sshpass",
];

/// Programs that take commands behind `-c`.
pub(super) const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "su", "runuser"];

/// Programs whose `exec` or `run` runs another one.
pub(super) const CONTAINERS: [&str; 9] = ["docker", "podman", "nerdctl", "kubectl", "oc", "crictl", "docker-compose", "ctr", "lxc"];

/// Subcommands that matter.
pub(super) const SUBCOMMANDS: [&str; 3] = ["exec", "run", "login"];

/// Takes a password behind the user's name, if it is told to.
pub(super) const HTPASSWD: &str = "htpasswd";

/// An option of Kubernetes' client whose value is `name=secret`.
pub(super) const LITERAL: &str = "--from-literal";

/// `mysql` of `/usr/bin/mysql`.
pub(super) fn program_of(argument: &str) -> &str {
    argument.rsplit('/').next().unwrap_or(argument)
}

pub(super) fn is_known(program: &str) -> bool {
    ATTACHED.iter().any(|it| program.starts_with(it))
        || SHORT.iter().any(|(programs, ..)| programs.contains(&program))
        || USERS.iter().any(|(programs, _)| programs.contains(&program))
        || PLACES.iter().any(|(it, ..)| *it == program)
        || SLASHED.contains(&program)
        || program == HTPASSWD
        || WRAPPERS.contains(&program)
        || CONTAINERS.contains(&program)
        || SHELLS.contains(&program)
}
