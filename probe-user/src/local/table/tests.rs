use std::time::Duration;

use expect_test::expect;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::local::document::tests::look;

fn document() -> Document {
    Document::of(&look(), Duration::from_secs(2))
}

#[test]
fn people_read_tables_that_fit() {
    let page = Page { width: Some(100), lines: Some(20), bold: false };
    expect![[r#"
        node-1: Debian GNU/Linux 12 (bookworm), Linux 6.18.0, 4 CPUs, 12.5% busy, 4 GB of 16 GB in use
        seen by sock_ops + raw tracepoints (rung 1), 99.99% of connection ends counted

        CONTAINERS (1)
        ID            NAME  STATE     CPU  MEMORY  RESTARTS  RUNTIME  IMAGE
        cccccccccccc  web   running  3.5%   90 MB         0  docker   nginx:1.27

        PROCESSES (1)
        PID  USER       CPU  MEMORY  FILES  CONTAINER     COMMAND
          7  www-data  3.2%   80 MB     30  cccccccccccc  nginx -g daemon off;

        FLOWS (1)
        PID  PROCESS  END     PEER                             OPEN  CONNS    SENT  RECEIVED     RTT
          7  nginx    client  db.example.com:5432 (192.0.2.7)     2     12  1.5 MB     42 kB  1.5 ms

        UNIX FLOWS (1)
        CLIENT PID  CLIENT  SERVER PID  SERVER  OPEN  PATH
                 7  nginx            7  nginx      3  /run/app.sock

        LISTENERS (1)
        PROTO  ADDRESS  PID  PROCESS  CONTAINER
        tcp    [::]:80    7  nginx

        NAMES (1)
        ADDRESS    NAMES
        192.0.2.7  db.example.com
    "#]]
    .assert_eq(&render(&document(), page));
}

#[test]
fn a_narrow_terminal_loses_columns_and_no_line_is_too_wide() {
    for width in 0..100 {
        let page = Page { width: Some(width), lines: Some(20), bold: false };
        let longest = render(&document(), page).lines().map(|line| line.width()).max();
        assert!(longest.is_some_and(|longest| longest <= width.max(20)), "{longest:?} of {width}");
    }
}

#[test]
fn a_pipe_gets_everything_and_no_colour() {
    let mut document = document();
    let one = document.processes[0].clone();
    document.processes = (0..100).map(|pid| Process { pid, command_line: "\u{1b}[31mred".to_owned(), ..one.clone() }).collect();
    let text = render(&document, Page::default());
    assert!(!text.contains('\u{1b}'));
    assert!(text.contains("PROCESSES (100)") && !text.contains("more"));
    let on_terminal = render(&document, Page { width: Some(80), lines: Some(20), bold: true });
    assert!(on_terminal.contains("… and 80 more") && on_terminal.contains("\u{1b}[1m"));
}

#[test]
fn the_busiest_come_first_and_what_has_ended_is_left_out() {
    let mut document = document();
    let one = document.processes[0].clone();
    let of = |pid, cpu_percent, exited_at: Option<&str>| Process {
        pid,
        cpu_percent,
        exited_at: exited_at.map(str::to_owned),
        command_line: format!("p{pid}"),
        ..one.clone()
    };
    document.processes = vec![of(1, None, None), of(2, Some(50.0), None), of(3, Some(2.0), None), of(4, Some(99.0), Some("2026-01-01"))];
    let text = render(&document, Page::default());
    let order = text.lines().filter_map(|line| line.split_whitespace().last()).filter(|word| word.starts_with('p')).collect::<Vec<_>>();
    assert_eq!(order, ["p2", "p3", "p1"]);
}

#[test]
fn what_is_not_whole_is_not_shown_as_whole() {
    assert_eq!([1.0, 0.999_999, 0.5].map(completeness), ["100%", "99.99%", "50.00%"]);
}

#[test]
fn where_nothing_counts_connections_nobody_claims_that_all_were_counted() {
    let mut document = document();
    document.capture.rung = 5;
    let mut text = String::new();
    head(&mut text, &document, Page { width: None, lines: None, bold: false });
    assert!(text.contains("(rung 5), how many connections were missed is not known"), "{text}");
}
