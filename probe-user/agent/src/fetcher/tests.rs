use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;

fn uri(value: &str) -> command_info::Uri {
    command_info::Uri { value: value.to_owned(), ..command_info::Uri::default() }
}

fn settings(directory: &Path) -> Settings {
    Settings {
        cache_dir: directory.join("cache"),
        cache_size: 1 << 20,
        draft_dir: directory.join("drafts"),
        handover_dir: directory.join("fetched"),
        stall_timeout: Duration::from_secs(5),
        hadoop_home: None,
        frameworks_home: None,
    }
}

/// Fetches into a sandbox of this name, which is made where it is missing.
fn fetch(fetcher: &Fetcher, directory: &Path, sandbox: &str, uris: &[command_info::Uri]) -> Result<PathBuf, FetchError> {
    let path = directory.join(sandbox);
    let open = Sandbox::make(directory, &path, None).unwrap();
    fetcher.fetch(uris, &open, &path, None, &CancellationToken::new()).map(|()| path)
}

/// Nothing is left of what was made on the way.
fn assert_no_drafts(directory: &Path) {
    assert_eq!(std::fs::read_dir(directory.join("drafts")).unwrap().count(), 0);
}

/// A web server with one file; counts who asks.
fn serve(body: &'static [u8], cut: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            count.fetch_add(1, Ordering::SeqCst);
            let status = if request.contains("missing") { "404 Not Found" } else { "200 OK" };
            let sent = if cut { &body[..body.len() / 2] } else { body };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).unwrap();
            stream.write_all(sent).unwrap();
        }
    });
    (format!("http://{address}"), asked)
}

#[test]
fn files_come_from_the_web_and_through_the_cache_once() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let (server, asked) = serve(b"#!/bin/sh\n", false);
    for sandbox in ["a", "b"] {
        let mut it = uri(&format!("{server}/dir/run.sh?token=x"));
        (it.cache, it.executable) = (Some(true), Some(true));
        let sandbox = fetch(&fetcher, directory.path(), sandbox, &[it]).unwrap();
        assert_eq!(sandbox.join("run.sh?token=x").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!((fetcher.counts(), fetcher.cache_bytes()), ((2, 0), (1 << 20, 10)));
}

#[test]
fn the_sandbox_says_what_was_fetched_and_what_not() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let (server, _) = serve(b"data", false);
    let sandbox = directory.path().join("sandbox");
    let uris = [uri(&format!("{server}/file")), uri(&format!("{server}/missing"))];
    fetch(&fetcher, directory.path(), "sandbox", &uris).unwrap_err();
    assert_no_drafts(directory.path());
    let told = std::fs::read_to_string(sandbox.join("stderr")).unwrap();
    let shown = sandbox.display();
    let expected = format!(
        "Fetching URI '{server}/file'\nFetched '{server}/file' to '{shown}/file'\nFetching URI '{server}/missing'\nFailed to fetch '{server}/missing': http status: 404\n"
    );
    assert_eq!(told, expected);
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let (server, _) = serve(b"0123456789", true);
    let mut outside = uri("/etc/hostname");
    outside.output_file = Some("../../outside".to_owned());
    let refused = [
        uri(&format!("{server}/missing")),
        uri(&format!("{server}/cut-short")),
        uri("gopher://name/x"),
        uri("relative/path"),
        uri("http://host-without-path"),
        uri("/does/not/exist"),
        uri("http://127.0.0.1:1/x"),
        outside,
    ];
    for it in refused {
        let error = fetch(&fetcher, directory.path(), "sandbox", std::slice::from_ref(&it)).unwrap_err();
        assert!(error.to_string().contains(&it.value), "{error}");
    }
    assert!(!directory.path().join("outside").exists());
    assert_no_drafts(directory.path());
}

#[test]
fn archives_are_unpacked_and_none_reaches_outside() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let tarball = directory.path().join("files.tar.gz");
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(File::create(&tarball).unwrap(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o755);
    header.set_cksum();
    builder.append_data(&mut header.clone(), "bin/tool", &b"hello"[..]).unwrap();
    // A name that the library would refuse to write.
    header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
    header.set_cksum();
    builder.append(&header, &b"hello"[..]).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    let zipped = directory.path().join("more.zip");
    let mut writer = zip::ZipWriter::new(File::create(&zipped).unwrap());
    writer.start_file("inside.txt", zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(b"zipped").unwrap();
    writer.finish().unwrap();

    let uris = [uri(tarball.to_str().unwrap()), uri(&format!("file://{}", zipped.display()))];
    let sandbox = fetch(&fetcher, directory.path(), "sandbox", &uris).unwrap();
    assert_eq!(std::fs::read_to_string(sandbox.join("bin/tool")).unwrap(), "hello");
    assert_eq!(std::fs::read_to_string(sandbox.join("inside.txt")).unwrap(), "zipped");
    assert!(!directory.path().join("escape").exists());

    let mut packed = uri(tarball.to_str().unwrap());
    (packed.extract, packed.output_file) = (Some(false), Some("kept.tar.gz".to_owned()));
    fetch(&fetcher, directory.path(), "sandbox", &[packed]).unwrap();
    assert!(sandbox.join("kept.tar.gz").exists());
    std::fs::write(directory.path().join("bad.tgz"), "not an archive").unwrap();
    fetch(&fetcher, directory.path(), "sandbox", &[uri(directory.path().join("bad.tgz").to_str().unwrap())]).unwrap_err();
    assert_no_drafts(directory.path());
}

/// An archive with one entry.
fn tarball(path: &Path, entry: &str, kind: tar::EntryType, content: &str) -> command_info::Uri {
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    if kind == tar::EntryType::Symlink {
        header.set_size(0);
        builder.append_link(&mut header, entry, content).unwrap();
    } else {
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, entry, content.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
    uri(path.to_str().unwrap())
}

#[test]
fn links_that_an_archive_has_brought_lead_nothing_out_of_the_sandbox() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "untouched").unwrap();
    let link =
        |name: &str| tarball(&directory.path().join(format!("{name}.tar")), name, tar::EntryType::Symlink, outside.to_str().unwrap());
    let of_file = tarball(&directory.path().join("of-file.tar"), "run", tar::EntryType::Symlink, outside.join("file").to_str().unwrap());
    let log = tarball(&directory.path().join("log.tar"), "stderr", tar::EntryType::Symlink, outside.join("file").to_str().unwrap());
    let through = tarball(&directory.path().join("through.tar"), "third/file", tar::EntryType::Regular, "from an archive");
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "plain").unwrap();
    let named =
        |name: &str| command_info::Uri { output_file: Some(name.to_owned()), executable: Some(true), ..uri(plain.to_str().unwrap()) };
    let links = [link("first"), named("first/file"), link("second"), named("second/new"), link("third"), through];
    let files = [of_file, named("run"), log, named("last")];
    let uris = [&links[..], &files[..]].concat();
    let sandbox = fetch(&fetcher, directory.path(), "sandbox", &uris).unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "untouched");
    assert_eq!(outside.join("file").metadata().unwrap().permissions().mode() & 0o111, 0);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(sandbox.join("first/file")).unwrap(), "plain");
    assert_eq!(std::fs::read_to_string(sandbox.join("third/file")).unwrap(), "from an archive");
    assert_eq!(std::fs::read_to_string(sandbox.join("run")).unwrap(), "plain");
}

#[test]
fn all_files_of_all_archives_are_the_owners() {
    use std::os::unix::fs::MetadataExt as _;

    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let directory = open_directory();
    let fetcher = Fetcher::new(settings(directory.path()));
    let path = directory.path().join("sandbox");
    let owner = User { uid: 1234, gid: 1235, groups: Vec::new() };
    let sandbox = Sandbox::make(directory.path(), &path, Some(&owner)).unwrap();
    let uris = ["first", "second"]
        .map(|name| tarball(&directory.path().join(format!("{name}.tar")), &format!("same/{name}"), tar::EntryType::Regular, "content"));
    fetcher.fetch(&uris, &sandbox, &path, Some(&owner), &CancellationToken::new()).unwrap();
    for it in ["same", "same/first", "same/second", "first.tar", "stdout"] {
        let metadata = path.join(it).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 1235), "{it}");
    }
}

/// A directory that everybody can look into.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn a_task_is_brought_what_its_user_may_read() {
    use std::os::unix::fs::chown;

    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let directory = open_directory();
    let fetcher = Fetcher::new(settings(directory.path()));
    let file = |name: &str, (uid, gid): (u32, u32), mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, name).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        uri(&format!("file://{}", path.display()))
    };
    let user = |uid: u32| User { uid, gid: uid, groups: vec![1300] };
    let get = |owner: Option<&User>, it: &command_info::Uri| {
        let path = directory.path().join("sandbox");
        let sandbox = Sandbox::make(directory.path(), &path, owner).unwrap();
        fetcher.fetch(std::slice::from_ref(it), &sandbox, &path, owner, &CancellationToken::new())
    };
    let roots = file("roots", (0, 0), 0o600);
    let denied = get(Some(&user(1234)), &roots).unwrap_err().to_string();
    assert!(denied.contains("Permission denied"), "{denied}");
    get(None, &roots).unwrap();
    get(Some(&User { uid: 0, gid: 0, groups: vec![0] }), &roots).unwrap();
    get(Some(&user(1234)), &file("groups", (0, 1300), 0o640)).unwrap();
    get(Some(&User { groups: Vec::new(), ..user(1234) }), &file("groups", (0, 1300), 0o640)).unwrap_err();
    // What the agent has open, and what it may look into, is not the user's.
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(locked.join("open"), "secret").unwrap();
    let open = std::fs::File::open(locked.join("open")).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&open);
    let by_root = format!("/proc/1/root{}", directory.path().join("groups").display());
    for path in [format!("/proc/self/fd/{descriptor}"), by_root, "/proc/self/status".to_owned()] {
        get(Some(&user(1234)), &uri(&path)).expect_err(&path);
    }
    // What the cache holds for one is not another's.
    let own = command_info::Uri { cache: Some(true), ..file("own", (1234, 1234), 0o600) };
    get(Some(&user(1234)), &own).unwrap();
    get(Some(&user(1235)), &own).unwrap_err();
    get(Some(&user(1234)), &own).unwrap();
    // A pipe that nobody writes to.
    nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    get(Some(&user(1234)), &uri(directory.path().join("pipe").to_str().unwrap())).unwrap();
    assert_no_drafts(directory.path());
}

#[test]
fn programs_fetch_as_the_user_whose_the_files_are() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let directory = open_directory();
    let home = directory.path().join("hadoop");
    let script = r#"case "$3" in */linked) ln -s /etc/shadow "$4"; exit;; esac; echo "$(id -u) $(id -g) $(id -G)" > "$4""#;
    program(&home.join("bin/hadoop"), script);
    let fetcher = Fetcher::new(Settings { hadoop_home: Some(home), ..settings(directory.path()) });
    let path = directory.path().join("sandbox");
    let owner = User { uid: 1234, gid: 1235, groups: vec![1235, 1300] };
    let sandbox = Sandbox::make(directory.path(), &path, Some(&owner)).unwrap();
    let get = |it: &str| fetcher.fetch(&[uri(it)], &sandbox, &path, Some(&owner), &CancellationToken::new());
    get("hdfs://name/dir/x").unwrap();
    assert_eq!(std::fs::read_to_string(path.join("x")).unwrap(), "1234 1235 1235 1300\n");
    get("hdfs://name/dir/linked").unwrap_err();
    assert!(!path.join("linked").exists());
    assert_eq!(std::fs::read_dir(directory.path().join("fetched")).unwrap().count(), 0);
    assert_no_drafts(directory.path());
}

#[test]
fn a_container_that_is_destroyed_is_fetched_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(settings(directory.path()));
    let path = directory.path().join("sandbox");
    let sandbox = Sandbox::make(directory.path(), &path, None).unwrap();
    let cancel = CancellationToken::new();
    // It has no end.
    std::thread::scope(|threads| {
        let fetching = threads.spawn(|| fetcher.fetch(&[uri("/dev/zero")], &sandbox, &path, None, &cancel));
        std::thread::sleep(Duration::from_millis(20));
        cancel.cancel();
        fetching.join().unwrap().unwrap_err();
    });
    let error = fetcher.fetch(&[uri("/etc/hostname")], &sandbox, &path, None, &cancel).unwrap_err();
    assert!(matches!(error, FetchError::Cancelled(_)), "{error}");
    assert!(!path.join("zero").exists());
    assert_no_drafts(directory.path());
}

/// A program that does what a shell script says.
fn program(path: &Path, script: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn hadoop_fetches_what_is_in_its_file_systems() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("hadoop");
    program(&home.join("bin/hadoop"), r#"case "$3" in */missing) echo "no such file" >&2; exit 1;; esac; echo "$1 $2 $3" > "$4""#);
    let fetcher = Fetcher::new(Settings { hadoop_home: Some(home), ..settings(directory.path()) });
    let sandbox = fetch(&fetcher, directory.path(), "sandbox", &[uri("hdfs://name:9000/dir/x")]).unwrap();
    assert_eq!(std::fs::read_to_string(sandbox.join("x")).unwrap(), "fs -copyToLocal hdfs://name:9000/dir/x\n");
    let error = fetch(&fetcher, directory.path(), "sandbox", &[uri("s3a://bucket/missing")]).unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
    let fetcher = Fetcher::new(Settings { hadoop_home: Some("/nowhere".into()), ..settings(directory.path()) });
    let error = fetch(&fetcher, directory.path(), "sandbox", &[uri("hdfs://name/x")]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/bin/hadoop"), "{error}");
}

#[test]
fn relative_paths_are_below_the_home_of_frameworks() {
    let directory = tempfile::tempdir().unwrap();
    program(&directory.path().join("home/bin/executor"), "true");
    let fetcher = Fetcher::new(Settings { frameworks_home: Some(directory.path().join("home")), ..settings(directory.path()) });
    let sandbox = fetch(&fetcher, directory.path(), "sandbox", &[uri("bin/executor")]).unwrap();
    assert_eq!(sandbox.join("executor").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}
