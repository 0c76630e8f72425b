use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::local::document::tests::look;
use crate::local::document::{Flow, Process};
use crate::local::top::draw::draw;

const SECOND: u64 = 1_000_000_000;

fn document() -> Document {
    Document::of(&look(), Duration::from_secs(1))
}

/// Two looks: in the second between them the flow has opened 5 connections and sent 2 MB.
fn model() -> Model {
    let mut model = Model::default();
    let mut document = document();
    let quiet = document.processes[0].clone();
    document.processes.push(Process {
        pid: 9,
        command_line: "sshd -D".to_owned(),
        cpu_percent: Some(0.5),
        key: (9, 1),
        container_id: String::new(),
        ..quiet
    });
    model.take(&document, BootNanos(10 * SECOND));
    let flow = &mut document.flows[0];
    flow.opened += 5;
    flow.bytes_sent += 2_000_000;
    flow.retransmits += 3;
    flow.rtt = (flow.rtt.0 + 400, flow.rtt.1 + 1);
    model.take(&document, BootNanos(11 * SECOND));
    model
}

fn press(model: &mut Model, code: KeyCode) -> Verdict {
    model.on_key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn picture(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[track_caller]
fn check(model: &Model, width: u16, height: u16, expected: Expect) {
    expected.assert_eq(&picture(model, width, height));
}

#[test]
fn processes_are_shown_with_what_their_connections_do_in_a_second() {
    check(
        &model(),
        110,
        8,
        expect![[r#"
            node-1  cpu 12.5% of 4  load 0.50  memory 4 GB of 16 GB
            1 Processes (2)  2 Flows (1)  3 Containers (1)  4 Unix (1)
            PID  USER      CPU▼  MEMORY  CONN/S  OPEN  OUT/S  IN/S     RTT  COMMAND
              7  www-data  3.2%   80 MB       5     7   2 MB     -  400 µs  nginx -g daemon off;
              9  www-data  0.5%   80 MB       -     -      -     -          sshd -D


            rung 1  sock_ops + raw tracepoints  complete 99.99%  lost 0                                     h help  q quit
        "#]],
    );
}

#[test]
fn flows_and_containers_have_tables_of_their_own() {
    let mut model = model();
    press(&mut model, KeyCode::Char('2'));
    check(
        &model,
        110,
        6,
        expect![[r#"
            node-1  cpu 12.5% of 4  load 0.50  memory 4 GB of 16 GB
            1 Processes (2)  2 Flows (1)  3 Containers (1)  4 Unix (1)
            PID  PROCESS  END     CONN/S  OPEN  OUT/S▼  IN/S     RTT  RETR/S  PEER
              7  nginx    client       5     7    2 MB     -  400 µs       3  db.example.com:5432 (192.0.2.7)

            rung 1  sock_ops + raw tracepoints  complete 99.99%  lost 0                                     h help  q quit
        "#]],
    );
    press(&mut model, KeyCode::Char('4'));
    check(
        &model,
        110,
        6,
        expect![[r#"
        node-1  cpu 12.5% of 4  load 0.50  memory 4 GB of 16 GB
        1 Processes (2)  2 Flows (1)  3 Containers (1)  4 Unix (1)
        CLIENT PID  CLIENT  SERVER PID  SERVER  OPEN▼  PATH
                 7  nginx            7  nginx       3  /run/app.sock

        rung 1  sock_ops + raw tracepoints  complete 99.99%  lost 0                                     h help  q quit
    "#]],
    );
    press(&mut model, KeyCode::Char('3'));
    check(
        &model,
        110,
        6,
        expect![[r#"
            node-1  cpu 12.5% of 4  load 0.50  memory 4 GB of 16 GB
            1 Processes (2)  2 Flows (1)  3 Containers (1)  4 Unix (1)
            NAME  STATE    CPU▼  MEMORY  CONN/S  OPEN  OUT/S  IN/S     RTT  IMAGE
            web   running  3.5%   90 MB       5     7   2 MB     -  400 µs  nginx:1.27

            rung 1  sock_ops + raw tracepoints  complete 99.99%  lost 0                                     h help  q quit
        "#]],
    );
}

#[test]
fn a_small_terminal_shows_what_finds_room() {
    check(
        &model(),
        40,
        6,
        expect![[r#"
            node-1  cpu 12.5% of 4  load 0.50  memo…
            1 Processes (2)  2 Flows (1)  3 Contain…
            PID  USER      CPU▼  COMMAND
              7  www-data  3.2%  nginx -g daemon of…
              9  www-data  0.5%  sshd -D
            rung 1  sock_ops + raw tracepoints  com…
        "#]],
    );
    check(
        &model(),
        24,
        3,
        expect![[r#"
            PID  CPU▼  COMMAND
              7  3.2%  nginx -g dae…
            rung 1  sock_ops + raw …
        "#]],
    );
    check(
        &model(),
        9,
        1,
        expect![[r#"
            PID  COM…
        "#]],
    );
}

#[test]
fn the_help_names_every_key() {
    let mut model = model();
    press(&mut model, KeyCode::Char('h'));
    check(
        &model,
        70,
        16,
        expect![[r#"
        node-1  cpu 12.5% of 4  load 0.50  memory 4 GB of 16 GB
        1 Proc┌Help────────────────────────────────────────────────────┐
        PID  U│ 1 to 4, Tab  processes, flows, containers, Unix sockets│
          7  w│ ← →, s       sort by another column                    │n off;
          9  w│ r            sort the other way round                  │
              │ /            filter: lines that have all the words     │
              │ Esc          no filter                                 │
              │ Space, p     pause, and go on                          │
              │ ↑ ↓, j k     a line up, a line down                    │
              │ PgUp PgDn    a page up, a page down                    │
              │ Home End     to the first line, to the last            │
              │ h, ?         this help                                 │
              │ q, Ctrl-C    quit                                      │
              └────────────────────────────────────────────────────────┘

        rung 1  sock_ops + raw tracepoints  complete 99.99%  lost 0
    "#]],
    );
    press(&mut model, KeyCode::Char('x'));
    assert_eq!(model.mode, Mode::Table, "any key closes it");
}

#[test]
fn a_filter_is_written_letter_by_letter_and_finds_all_of_its_words() {
    let mut model = model();
    press(&mut model, KeyCode::Char('/'));
    "NGINX q".chars().for_each(|letter| assert_eq!(press(&mut model, KeyCode::Char(letter)), Verdict::Stay));
    assert_eq!(model.rows().len(), 0, "q is a letter here");
    press(&mut model, KeyCode::Backspace);
    assert_eq!(model.rows().len(), 1);
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.mode, model.filter.as_str()), (Mode::Table, "NGINX "));
    press(&mut model, KeyCode::Esc);
    assert_eq!((model.rows().len(), model.filter.as_str()), (2, ""));
    press(&mut model, KeyCode::Char('/'));
    for letter in "cccccccc".chars() {
        press(&mut model, KeyCode::Char(letter));
    }
    assert_eq!(model.rows().len(), 1, "by the container's id");
}

#[test]
fn columns_are_sorted_by_keys_both_ways() {
    let mut model = model();
    let pids = |model: &Model| model.rows().iter().map(|row| row.cells[0].clone()).collect::<Vec<_>>();
    assert_eq!(pids(&model), ["7", "9"], "by CPU");
    press(&mut model, KeyCode::Char('r'));
    assert_eq!(pids(&model), ["9", "7"]);
    press(&mut model, KeyCode::Left);
    press(&mut model, KeyCode::Left);
    assert_eq!(
        (model.sort(), pids(&model)),
        (Sort { column: 0, reversed: false }, vec!["9".to_owned(), "7".to_owned()]),
        "by pid, the largest first"
    );
    press(&mut model, KeyCode::Left);
    assert_eq!((model.sort().column, pids(&model)), (9, vec!["7".to_owned(), "9".to_owned()]), "by command");
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(model.sort().column, 0, "behind the last comes the first");
}

#[test]
fn paused_means_that_what_is_shown_stays() {
    let mut model = model();
    press(&mut model, KeyCode::Char(' '));
    let before = model.rows().into_iter().cloned().collect::<Vec<_>>();
    let mut later = document();
    later.processes.clear();
    model.take(&later, BootNanos(12 * SECOND));
    assert_eq!(model.rows().into_iter().cloned().collect::<Vec<_>>(), before);
    press(&mut model, KeyCode::Char('p'));
    model.take(&later, BootNanos(13 * SECOND));
    assert!(model.rows().is_empty());
}

#[test]
fn rates_are_of_the_time_that_passed_and_never_below_nothing() {
    let mut model = Model { view: View::Flows, ..Model::default() };
    let mut document = document();
    let conns = |model: &Model| model.rows().iter().map(|row| row.cells[3].clone()).collect::<Vec<_>>();
    model.take(&document, BootNanos(SECOND));
    assert_eq!(conns(&model), ["-"], "a first look says nothing of a second");
    document.flows[0].opened += 10;
    model.take(&document, BootNanos(5 * SECOND));
    assert_eq!(conns(&model), ["2.5"]);
    document.flows[0].opened = 0;
    model.take(&document, BootNanos(6 * SECOND));
    assert_eq!(conns(&model), ["-"], "totals that shrink are another flow's");
    let new = Flow { id: 99, opened: 4, ..document.flows[0].clone() };
    document.flows = vec![new];
    model.take(&document, BootNanos(8 * SECOND));
    assert_eq!(conns(&model), ["2"], "a flow that is new did all of it since");
    model.take(&document, BootNanos(8 * SECOND));
    model.take(&document, BootNanos(7 * SECOND));
    assert_eq!(conns(&model), ["-"], "a clock that stands or goes back");
}

#[test]
fn it_is_left_by_q_and_by_control_c_in_any_mode() {
    let mut model = model();
    assert_eq!(press(&mut model, KeyCode::Char('q')), Verdict::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for key in ['/', 'h', 'p'] {
        press(&mut model, KeyCode::Char(key));
        assert_eq!(model.on_key(control_c), Verdict::Quit);
        press(&mut model, KeyCode::Esc);
    }
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        4 => any::<char>().prop_map(KeyCode::Char),
        4 => prop::sample::select(vec!['1', '2', '3', 's', '<', 'r', '/', 'h', 'p', 'j', 'k']).prop_map(KeyCode::Char),
        4 => prop::sample::select(vec![KeyCode::Tab, KeyCode::BackTab, KeyCode::Left, KeyCode::Right, KeyCode::Down, KeyCode::PageDown, KeyCode::End,
            KeyCode::Home, KeyCode::Esc, KeyCode::Enter, KeyCode::Backspace, KeyCode::F(1)]),
    ];
    code.prop_map(|code| KeyEvent::new(code, KeyModifiers::NONE))
}

proptest! {
    #[test]
    fn any_keys_on_any_size_are_drawn_and_never_panic(
        keys in prop::collection::vec(any_key(), 0..30),
        width in 0_u16..130,
        height in 0_u16..40,
        name in any::<String>(),
    ) {
        let mut model = model();
        let mut document = document();
        document.processes[0].command_line = name.clone();
        document.containers[0].name = name;
        model.take(&document, BootNanos(12 * SECOND));
        for key in keys {
            model.on_key(key);
        }
        if width > 0 && height > 0 {
            picture(&model, width, height);
        }
        prop_assert!(model.filter.chars().count() <= FILTER_MAX);
    }
}
