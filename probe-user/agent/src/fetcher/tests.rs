use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicUsize;

use super::*;

fn uri(value: &str) -> command_info::Uri {
    command_info::Uri { value: value.to_owned(), ..command_info::Uri::default() }
}

fn fetcher(directory: &Path, size_max: u64) -> Fetcher {
    Fetcher::new(&directory.join("cache"), size_max, Duration::from_secs(5))
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
    let fetcher = fetcher(directory.path(), 1 << 20);
    let (server, asked) = serve(b"#!/bin/sh\n", false);
    for sandbox in ["a", "b"] {
        let sandbox = directory.path().join(sandbox);
        std::fs::create_dir(&sandbox).unwrap();
        let mut it = uri(&format!("{server}/dir/run.sh?token=x"));
        (it.cache, it.executable) = (Some(true), Some(true));
        fetcher.fetch(&[it], &sandbox, None).unwrap();
        assert_eq!(sandbox.join("run.sh?token=x").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!((fetcher.counts(), fetcher.cache_bytes()), ((2, 0), (1 << 20, 10)));
}

#[test]
fn the_sandbox_says_what_was_fetched_and_what_not() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = fetcher(directory.path(), 1 << 20);
    let (server, _) = serve(b"data", false);
    let sandbox = directory.path().join("sandbox");
    crate::sandbox::make(&sandbox, None).unwrap();
    fetcher.fetch(&[uri(&format!("{server}/file")), uri(&format!("{server}/missing"))], &sandbox, None).unwrap_err();
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
    let fetcher = fetcher(directory.path(), 1 << 20);
    let (server, _) = serve(b"0123456789", true);
    let mut outside = uri("/etc/hostname");
    outside.output_file = Some("../../outside".to_owned());
    let refused = [
        uri(&format!("{server}/missing")),
        uri(&format!("{server}/cut-short")),
        uri("hdfs://name/x"),
        uri("http://host-without-path"),
        uri("/does/not/exist"),
        uri("http://127.0.0.1:1/x"),
        outside,
    ];
    for it in refused {
        let error = fetcher.fetch(std::slice::from_ref(&it), directory.path(), None).unwrap_err();
        assert!(error.to_string().contains(&it.value), "{error}");
    }
}

#[test]
fn the_cache_forgets_what_was_not_used_for_longest() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = fetcher(directory.path(), 25);
    for name in ["one", "two", "one", "three"] {
        let path = directory.path().join(format!("{name}.txt"));
        std::fs::write(&path, "0123456789").unwrap();
        let mut it = uri(path.to_str().unwrap());
        (it.cache, it.output_file) = (Some(true), Some("copy".to_owned()));
        fetcher.fetch(&[it], directory.path(), None).unwrap();
    }
    let kept: Vec<String> = fetcher.lock().entries.keys().map(|it| it.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(kept, ["one.txt", "three.txt"]);
}

#[test]
fn archives_are_unpacked_and_none_reaches_outside() {
    let directory = tempfile::tempdir().unwrap();
    let fetcher = fetcher(directory.path(), 1 << 20);
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

    let sandbox = directory.path().join("sandbox");
    std::fs::create_dir(&sandbox).unwrap();
    let uris = [uri(tarball.to_str().unwrap()), uri(&format!("file://{}", zipped.display()))];
    fetcher.fetch(&uris, &sandbox, None).unwrap();
    assert_eq!(std::fs::read_to_string(sandbox.join("bin/tool")).unwrap(), "hello");
    assert_eq!(std::fs::read_to_string(sandbox.join("inside.txt")).unwrap(), "zipped");
    assert!(!directory.path().join("escape").exists());

    let mut packed = uri(tarball.to_str().unwrap());
    (packed.extract, packed.output_file) = (Some(false), Some("kept.tar.gz".to_owned()));
    fetcher.fetch(&[packed], &sandbox, None).unwrap();
    assert!(sandbox.join("kept.tar.gz").exists());
    std::fs::write(directory.path().join("bad.tgz"), "not an archive").unwrap();
    fetcher.fetch(&[uri(directory.path().join("bad.tgz").to_str().unwrap())], &sandbox, None).unwrap_err();
}
