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

#[test]
fn what_is_no_secret_is_told() {
    let lines: [&[&str]; 12] = [
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
