use super::*;

fn draft(control: &str) -> Draft {
    let caller = Caller { remote: "192.0.2.1:4711".parse().ok(), user: Some("eve".to_owned()) };
    let arguments = [("command".to_owned(), "ls".to_owned()), ("registryPassword".to_owned(), "hunter2".to_owned())];
    let target =
        Target { probe: "p".to_owned(), node: "n;<container>".to_owned(), control: control.to_owned(), arguments: arguments.into() };
    Draft::new(Timestamp::from_unix_millis(1_500), &caller, &target)
}

async fn write(audit: &Audit, control: &str) -> Result<(), AuditError> {
    audit.write(draft(control), Outcome::Failed, Some("no".to_owned()), None, Duration::from_millis(12)).await
}

fn controls(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| record.control.as_str()).collect()
}

#[tokio::test]
async fn a_record_is_a_line_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::in_directory(directory.path());
    write(&audit, "stop").await.unwrap();
    let text = fs::read_to_string(directory.path().join("audit.log")).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"id":1,"at":"1970-01-01T00:00:01.5Z","remote":"192.0.2.1:4711","user":"eve","probe":"p","node":"n;<container>","#,
            r#""control":"stop","arguments":{"command":"ls","registryPassword":"***"},"outcome":"failed","error":"no","durationMs":12}"#,
            "\n"
        )
    );
}

#[test]
fn an_id_of_a_pipe_is_told_in_part() {
    assert_eq!(stem("pipe-12345678901"), "pipe-12345…");
    assert_eq!(stem("pipe-1"), "pipe-1");
    let arguments = BTreeMap::from([("pipeID".to_owned(), "pipe-12345678901".to_owned()), ("width".to_owned(), "80".to_owned())]);
    assert_eq!(masked(&arguments).into_values().collect::<Vec<_>>(), ["pipe-12345…", "80"]);
}

#[tokio::test]
async fn a_later_run_goes_on_where_the_earlier_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::in_directory(directory.path());
    write(&audit, "a").await.unwrap();
    write(&audit, "b").await.unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let audit = Audit::in_directory(directory.path());
    write(&audit, "c").await.unwrap();
    assert_eq!(controls(&Audit::in_directory(directory.path()).page(None, 10)), ["c", "a"]);
}

#[tokio::test]
async fn pages_go_from_the_latest_backwards() {
    let audit = Audit::in_memory();
    for control in ["a", "b", "c"] {
        write(&audit, control).await.unwrap();
    }
    let first = audit.page(None, 2);
    assert_eq!((controls(&first), first.next), (vec!["c", "b"], Some(2)));
    let second = audit.page(first.next, 2);
    assert_eq!((controls(&second), second.next), (vec!["a"], None));
    assert_eq!(audit.page(Some(1), 2).records.len(), 0);
}

#[tokio::test]
async fn what_another_has_on_record_is_adopted_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (there, here) = (Audit::in_memory(), Audit::in_directory(directory.path()));
    write(&here, "own").await.unwrap();
    for control in ["a", "b", "c"] {
        write(&there, control).await.unwrap();
    }
    for _ in 0..2 {
        for record in there.after(1) {
            here.adopt((*record).clone()).await.unwrap();
        }
    }
    let page = Audit::in_directory(directory.path()).page(None, 10);
    assert_eq!(controls(&page), ["c", "b", "own"]);
    assert_eq!(page.records.iter().map(|it| it.id).collect::<Vec<_>>(), [3, 2, 1]);
    write(&here, "d").await.unwrap();
    assert_eq!(here.after(3).iter().map(|it| it.id).collect::<Vec<_>>(), [4]);
    assert_eq!(there.after(3).len(), 0);
}

#[tokio::test]
async fn the_files_are_of_limited_size_and_number() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::in_directory(directory.path());
    let long = "x".repeat(TEXT_MAX);
    let target = |number: usize| Target {
        arguments: (0..ARGUMENTS_MAX).map(|argument| (format!("{argument}"), long.clone())).collect(),
        control: number.to_string(),
        ..Target::default()
    };
    // About 33 KiB each.
    for number in 0..1_600 {
        let draft = Draft::new(Timestamp::EPOCH, &Caller::default(), &target(number));
        audit.write(draft, Outcome::Done, None, None, Duration::ZERO).await.unwrap();
    }
    let files: Vec<u64> = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(files.len(), 1 + FILES_ASIDE);
    assert!(files.iter().all(|length| *length <= FILE_BYTES), "{files:?}");
    assert_eq!(audit.page(None, 1).records[0].id, 1_600);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_is_said_and_kept_in_memory() {
    let audit = Audit::in_directory(Path::new("/does/not/exist"));
    assert!(matches!(write(&audit, "a").await, Err(AuditError::Write { .. })));
    assert_eq!(controls(&audit.page(None, 10)), ["a"]);
}

#[tokio::test]
async fn what_could_not_be_written_is_written_when_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let audit = Audit::in_directory(&home);
    assert_eq!(audit.problem(), None);
    for control in ["a", "b"] {
        write(&audit, control).await.unwrap_err();
    }
    audit.catch_up().await;
    let problem = audit.problem().unwrap();
    assert!(problem.starts_with("the record of controls at ") && problem.contains("audit.log cannot be written, 2 wait: "), "{problem}");
    fs::create_dir(&home).unwrap();
    audit.catch_up().await;
    assert_eq!(audit.problem(), None);
    assert_eq!(controls(&Audit::in_directory(&home).page(None, 10)), ["b", "a"]);
}

#[tokio::test]
async fn whoever_reads_waits_for_no_disk() {
    let audit = Audit::in_memory();
    write(&audit, "a").await.unwrap();
    let _disk_that_hangs = audit.lock();
    assert_eq!(controls(&audit.page(None, 10)), ["a"]);
    assert_eq!(audit.after(0).len(), 1);
}
