use proptest::prelude::*;

use super::*;

fn line(arguments: &[&str]) -> String {
    Masks::default().command_line(arguments.iter().copied())
}

#[test]
fn passwords_on_a_command_line_are_hidden() {
    let lines: [(&[&str], &str); 30] = [
        (&["app", "--password=hunter2", "--port=80"], "app --password=*** --port=80"),
        (&["app", "--password", "hunter2", "run"], "app --password *** run"),
        (&["app", "-password", "hunter2"], "app -password ***"),
        (&["app", "--password", "--port", "80"], "app --password --port 80"),
        (&["app", "--db.password=a b=c"], "app --db.password=***"),
        (&["app", "password=hunter2"], "app password=***"),
        (&["env", "PGPASSWORD=x", "psql"], "env PGPASSWORD=*** psql"),
        (&["app", "--api-key=1", "--apiToken", "2", "--auth=3"], "app --api-key=*** --apiToken *** --auth=***"),
        (&["/usr/bin/mysql", "-uroot", "-phunter2", "db"], "/usr/bin/mysql -uroot -p*** db"),
        (&["sshpass", "-phunter2", "ssh", "h"], "sshpass -p*** ssh h"),
        (&["sshpass", "-p", "hunter2", "ssh", "h"], "sshpass -p *** ssh h"),
        (&["redis-cli", "-a", "hunter2", "ping"], "redis-cli -a *** ping"),
        (&["curl", "-u", "me:hunter2", "http://x/"], "curl -u me:*** http://x/"),
        (&["curl", "-uadmin:hunter2", "http://x/"], "curl -uadmin:*** http://x/"),
        (&["curl", "--user=admin:hunter2", "http://x/"], "curl --user=admin:*** http://x/"),
        (&["curl", "--user", "admin:hunter2", "http://x/"], "curl --user admin:*** http://x/"),
        (&["curl", "--proxy-user=admin:hunter2", "-Ume:hunter2", "x"], "curl --proxy-user=admin:*** -Ume:*** x"),
        (&["curl", "-sSu", "me:hunter2", "-su:hunter2", "x"], "curl -sSu me:*** -su:*** x"),
        (&["smbclient", "-Ume%hunter2", "--user=me%hunter2", "//h/s"], "smbclient -Ume%*** --user=me%*** //h/s"),
        (&["wget", "--http-user=me", "--http-password=hunter2", "x"], "wget --http-user=me --http-password=*** x"),
        (
            &["app", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==;EndpointSuffix=x"],
            "app DefaultEndpointsProtocol=https;AccountName=a;AccountKey=***;EndpointSuffix=x",
        ),
        (&["curl", "-H", "Authorization: Bearer abc", "x"], "curl -H Authorization: Bearer *** x"),
        (&["curl", "-H", "X-Auth-Token: abc", "x"], "curl -H X-Auth-Token: *** x"),
        (&["curl", "https://me:hunter2@host/p?token=abc&x=1"], "curl https://me:***@host/p?token=***&x=1"),
        (&["app", "redis://:p@ss@cache:6379/0"], "app redis://:***@cache:6379/0"),
        (&["sh", "-c", "mysql --password=hunter2 db; env TOKEN='a b' app"], "sh -c mysql --password=*** db; env TOKEN='***' app"),
        (&["java", "-Djavax.net.ssl.keyStorePassword=changeit", "-jar", "a.jar"], "java -Djavax.net.ssl.keyStorePassword=*** -jar a.jar"),
        (&["java", "-Durl=jdbc:mysql://db/x?user=me&password=p"], "java -Durl=jdbc:mysql://db/x?user=me&password=***"),
        (&["app", "{\"password\": \"hunter2\", \"n\": 1}"], "app {\"password\": \"***\", \"n\": 1}"),
        (&["app", "Server=db;Pwd=hunter2;Port=1"], "app Server=db;Pwd=***;Port=1"),
    ];
    for (arguments, told) in lines {
        assert_eq!(line(arguments), told);
    }
}

/// Each has `LEAK` in it, which must not be told, and `shown`, which must.
#[track_caller]
fn assert_hidden(arguments: &[&str], shown: &[&str]) {
    let told = line(arguments);
    assert!(!told.contains("LEAK"), "{told}");
    assert!(told.contains(MASK), "{told}");
    for part in shown {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn secrets_in_scripts_are_hidden() {
    for (script, shown) in [
        ("app --password LEAK", "app --password ***"),
        ("redis-server --requirepass LEAK --port 1", "redis-server --requirepass *** --port 1"),
        ("mysql -pLEAK db", "mysql -p*** db"),
        ("mysql -uroot -p'LEAK x' db", "db"),
        ("curl -u me:LEAK http://x/", "curl -u me:*** http://x/"),
        ("sshpass -p LEAK ssh -p 22 h", "ssh -p 22 h"),
        ("cd /x && exec sudo -u mysql redis-cli -a LEAK ping", "ping"),
        ("if true; then mysql -pLEAK; fi", "fi"),
        ("echo \"it's\"; app --token \"LEAK LEAK\" --port 1", "--port 1"),
        ("don't --password LEAK", "don't"),
        ("sh -c 'sh -c \"mysql -pLEAK\" x'", "mysql -p***"),
        ("X=$(curl -su me:LEAK x) app", "me:*** x) app"),
        ("PGPASSWORD=LEAK psql -p 5432 | cat", "psql -p 5432 | cat"),
        ("STRIPE_KEY=LEAK ./app", "./app"),
        ("a\nmysql -pLEAK\nb", "b"),
        ("curl -H 'Authorization: Digest username=\"LEAK\", response=\"LEAK\"' http://x/", "http://x/"),
        ("curl -H Authorization:\\ Bearer\\ LEAK http://x/", "http://x/"),
    ] {
        for shell in ["sh", "/bin/bash", "ash"] {
            assert_hidden(&[shell, "-c", script], &[shown]);
        }
        assert_hidden(&["ssh", "host", script], &[]);
        assert!(!Masks::default().text(script).contains("LEAK"));
    }
}

#[test]
fn secrets_of_well_known_programs_are_hidden() {
    let lines: [(&[&str], &str); 50] = [
        (&["rabbitmqctl", "add_user", "me", "LEAK"], "add_user me ***"),
        (&["rabbitmqctl", "-n", "rabbit@a", "change_password", "me", "LEAK"], "me ***"),
        (&["redis-cli", "-h", "h", "CONFIG", "SET", "requirepass", "LEAK"], "-h h CONFIG SET requirepass ***"),
        (&["redis-cli", "AUTH", "LEAK", "LEAK"], "AUTH *** ***"),
        (&["aws", "configure", "set", "aws_secret_access_key", "LEAK", "--profile", "p"], "--profile p"),
        (&["nmcli", "dev", "wifi", "connect", "home", "password", "LEAK"], "connect home password"),
        (&["wpa_passphrase", "home", "LEAK"], "wpa_passphrase home"),
        (&["htpasswd", "-b", "file", "me", "LEAK"], "file me"),
        (&["htpasswd", "-nbB", "me", "LEAK"], "me"),
        (
            &["kubectl", "create", "secret", "generic", "x", "--from-literal=a=LEAK", "--from-literal", "b=LEAK"],
            "=a=*** --from-literal b=***",
        ),
        (&["consul", "agent", "-encrypt", "LEAK", "-dev"], "-dev"),
        (&["sqlldr", "userid=scott/LEAK@db", "control=a/b.ctl"], "scott/***@db control=a/b.ctl"),
        (&["sqlplus", "-s", "scott/LEAK@db", "@script.sql"], "scott/***@db @script.sql"),
        (&["sh", "-c", "vault login LEAK && openssl enc -k LEAK -in x"], "-in x"),
        (&["redis-server", "--requirepass", "LEAK", "--masterauth", "LEAK", "--port", "1"], "--port 1"),
        (&["/usr/lib/erlang/bin/beam.smp", "-sname", "a", "-setcookie", "LEAK", "-noshell"], "-noshell"),
        (&["app", "--encryption-key", "LEAK", "--signing-key=LEAK", "--jwt", "LEAK", "--passcode", "LEAK", "run"], "run"),
        (&["app", "--key=LEAK", "run"], "run"),
        (&["app", "--key", "LEAK", "run"], "run"),
        (&["openssl", "rsa", "-passin", "pass:LEAK", "-in", "a.pem"], "-in a.pem"),
        (&["skopeo", "copy", "--src-creds", "u:LEAK", "--dest-creds=u:LEAK", "docker://a"], "u:*** --dest-creds=u:*** docker://a"),
        (&["skopeo", "copy", "--creds", "LEAK", "docker://a"], "docker://a"),
        (&["etcdctl", "--user", "root:LEAK", "get", "a"], "root:*** get a"),
        (&["etcdctl", "--user=root:LEAK", "get", "a"], "root:*** get a"),
        (&["vault", "login", "LEAK"], "vault login"),
        (&["vault", "login", "-no-print", "LEAK"], "-no-print"),
        (&["docker", "login", "-u", "me", "-p", "LEAK", "registry"], "-u me -p *** registry"),
        (&["mosquitto_pub", "-u", "me", "-P", "LEAK", "-t", "x"], "-t x"),
        (&["ldapadd", "-w", "LEAK", "-D", "cn=x"], "-D cn=x"),
        (&["mongorestore", "-p", "LEAK", "dump"], "dump"),
        (&["mariadb-backup", "-pLEAK", "x"], "x"),
        (&["curl", "-b", "sid=LEAK", "x"], "x"),
        (&["curl", "-sb", "LEAK", "x"], "x"),
        (&["curl", "--cookie", "LEAK", "x"], "x"),
        (&["curl", "-H", "Cookie: sid=LEAK; other=LEAK", "x"], "x"),
        (&["curl", "-H", "X-Api-Key:LEAK", "x"], "x"),
        (&["curl", "-HX-Api-Key:LEAK", "x"], "x"),
        (&["curl", "--header=Authorization:LEAK", "x"], "x"),
        (&["http", "x/", "Authorization:Bearer LEAK"], "Authorization:Bearer ***"),
        (&["http", "-a", "me:LEAK", "x/"], "me:*** x/"),
        (&["curl", "-H", "Authorization: Digest username=\"LEAK\", nonce=\"LEAK\"", "x"], "Digest *** x"),
        (&["curl", "-H", "Authorization: token LEAK", "x"], "token *** x"),
        (&["curl", "-H", "Authorization: ApiKey LEAK", "x"], "ApiKey *** x"),
        (&["curl", "-H", "Authorization: Basic  LEAK", "x"], "Basic  *** x"),
        (&["curl", "-H", "Authorization: Mine LEAK", "x"], "x"),
        (&["sudo", "mysql", "-pLEAK", "db"], "db"),
        (&["docker", "exec", "-it", "c", "mysql", "-pLEAK", "db"], "db"),
        (&["kubectl", "exec", "pod", "-c", "mysql", "--", "mysql", "-pLEAK", "db"], "db"),
        (&["env", "A=b", "timeout", "5", "mysql", "-pLEAK", "db"], "db"),
        (&["docker-entrypoint.sh", "mysql", "-pLEAK", "db"], "db"),
    ];
    for (arguments, shown) in lines {
        assert_hidden(arguments, &[shown]);
    }
}

#[test]
fn secrets_that_look_like_something_else_are_hidden() {
    let lines: [(&[&str], &str); 13] = [
        (&["app", "--dsn", "me:LE@AK@tcp(db:3306)/x"], "me:***@tcp(db:3306)/x"),
        (&["app", "--password", "-LEAK", "run"], "run"),
        (&["app", "--password", "-3LEAK", "run"], "run"),
        (&["git", "clone", "https://LEAKLEAKLEAKLEAKLEAK@github.com/a/b"], "https://***@github.com/a/b"),
        (&["git", "clone", "https://ghp_LEAK@github.com/a/b"], "https://***@github.com/a/b"),
        (&["app", "https://x.blob.core.windows.net/a?sv=1&sig=LEAK&se=2"], "?sv=1&sig=***&se=2"),
        (&["app", "https://s3/a?X-Amz-Date=1&X-Amz-Signature=LEAK"], "X-Amz-Date=1&X-Amz-Signature=***"),
        (&["app", "https://maps/api?key=LEAK&q=1"], "&q=1"),
        (&["app", "https://hooks.slack.com/services/T0/B0/LEAK", "run"], "https://hooks.slack.com/services/*** run"),
        (&["app", "https://api.telegram.org/bot1:LEAK/getMe", "run"], "https://api.telegram.org/bot*** run"),
        (&["app", "{\"password\": \"a\\\"LEAK\", \"n\": 1}"], "\"n\": 1}"),
        (&["app", "{\\\"password\\\": \\\"LEAK\\\", \\\"n\\\": 1}"], "n\\\": 1}"),
        (&["psql", "host=h password=a\\ LEAK dbname=d"], "host=h password=*** dbname=d"),
    ];
    for (arguments, shown) in lines {
        assert_hidden(arguments, &[shown]);
    }
}

#[test]
fn what_is_no_secret_is_told() {
    let lines: [&[&str]; 24] = [
        &["docker", "run", "--name", "mysql", "-p3306:3306", "-p", "80:80", "mysql:8"],
        &["docker", "run", "-p", "80:80", "mongo"],
        &["docker", "login", "--password-stdin", "registry"],
        &["psql", "--no-password", "db"],
        &["etcd", "--key", "/etc/k.pem", "--key=k.pem", "--cert", "/etc/c.pem"],
        &["curl", "--cert", "/etc/c.pem", "-o", "x", "https://me@host/p", "-H", "Accept: a/b"],
        &["sh", "-c", "cd /srv && exec ./app --port 80 -p8080 'a b' | tee -a log; echo $?"],
        &["openssl", "rsa", "-passin", "file:/run/p", "-passout=env:P"],
        &["sort", "--key=2,3", "a"],
        &["kubectl", "exec", "pod", "--", "app", "-p80"],
        &["registry/x-token:1", "http://x:1/?q=key", "--opts", "a=b c=d"],
        &["sshd: me [priv]", ""],
        &["ssh", "-p2222", "host"],
        &["docker", "run", "-p8080:80", "image"],
        &["app", "--token-file=/run/token", "--password_path", "/run/p"],
        &["app", "--author=Ann", "--keep-alive=3", "--tokenizer", "bpe", "--max-tokens=4096", "--keyspace=a"],
        &["kube-apiserver", "--tls-private-key-file=/etc/k.pem", "--tls-cert-file=/etc/c.pem"],
        &["postgres:", "walwriter"],
        &["app", "http://host:80/path:x@y"],
        &["app", "image:tag", "a::b", "=x", "==", ":", "--", "-", ""],
        &["git", "clone", "git@host:team/secret:x"],
        &["mysqld", "--port=3306", "-p"],
        &["app", "password"],
        &["compass=3"],
    ];
    for arguments in lines {
        assert_eq!(line(arguments), arguments.join(" "));
    }
}

#[test]
fn values_of_variables_and_labels_are_hidden_by_their_names() {
    let masks = Masks::default();
    for name in [
        "DB_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "github_token",
        "SSH_AUTH",
        "DATABASE_DSN",
        "TLS_CERT",
        "my.private",
        "MYSQL_PWD",
        "DB_PWD",
        "db_pw",
    ] {
        assert_eq!(masks.variable(name, "x"), MASK, "{name}");
    }
    for name in ["RABBITMQ_ERLANG_COOKIE", "JWT", "REGISTRY_CREDS"] {
        assert_eq!(masks.variable(name, "x"), MASK, "{name}");
    }
    assert_eq!(masks.variable("REDIS_ARGS", "--requirepass LEAK --port 1"), "--requirepass *** --port 1");
    assert_eq!(masks.variable("ERL_ARGS", "-setcookie LEAK"), "-setcookie ***");
    for name in ["PATH", "HOME", "COLOUR", "PASSWORD_FILE", "GOOGLE_KEY_PATH", "PWD", "OLDPWD", "PWDX"] {
        assert_eq!(masks.variable(name, "x"), "x", "{name}");
    }
    assert_eq!(masks.label("org.opencontainers.image.authors", "Ann"), "Ann");
    assert_eq!(masks.label("com.example.db-password", "x"), MASK);
    let azure = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==;EndpointSuffix=core.windows.net";
    assert_eq!(masks.variable("STORAGE", azure), azure.replace("abc==", MASK));
    assert_eq!(masks.variable("CACHE", "redis://u:p@h/0"), "redis://u:***@h/0");
    assert_eq!(masks.variable("OPTS", "-Dpassword=x -Da=b"), "-Dpassword=*** -Da=b");
}

#[test]
fn patterns_add_names_and_none_takes_the_well_known_away() {
    let masks = Masks::new(["^licen[cs]e$", "internal"]).unwrap();
    assert_eq!(masks.variable("LICENSE", "x"), MASK);
    assert_eq!(masks.label("com.example.internal-note", "x"), MASK);
    assert_eq!(masks.variable("PASSWORD", "x"), MASK);
    assert_eq!(masks.command_line(["app", "--licence=x", "--internal", "y"]), "app --licence=*** --internal ***");
    let masks = Masks::new(["none", "^licen[cs]e$"]).unwrap();
    assert_eq!(
        masks.command_line(["mysql", "-px", "--password=x", "licence=x", "http://a:b@c"]),
        "mysql -px --password=x licence=*** http://a:b@c"
    );
    assert!(Masks::new(["("]).unwrap_err().starts_with("\"(\": "));
    assert!(Masks::new(["a{1000}{1000}"]).is_err());
    assert!(Masks::new(vec!["a"; PATTERNS_MAX + 1]).is_err());
}

proptest! {
    #[test]
    fn arbitrary_command_lines_do_no_harm(arguments in prop::collection::vec("(\\PC{0,20}|--?password|token|=|: |://|[a-z]{0,3}@|'|\"|Bearer |é){0,6}", 0..8)) {
        let masks = Masks::default();
        let told = masks.command_line(arguments.iter().map(String::as_str));
        let whole = arguments.join(" ");
        prop_assert!(told.len() <= whole.len() * (MASK.len() + 1) + MASK.len());
    }

    #[test]
    fn a_secret_behind_its_name_never_shows(before in "[ -~]{0,12}", secret in "[a-z0-9]{8,20}", after in "( [ -~]{0,12})?") {
        prop_assume!(!before.contains(['"', '\'', '=', ':']));
        let argument = format!("{before} password={secret}{after}");
        prop_assert!(!line(&["app", &argument]).contains(&secret), "{}", line(&["app", &argument]));
    }
}
