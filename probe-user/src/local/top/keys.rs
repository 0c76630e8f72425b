//! What keys do. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::local::top::model::{FILTER_MAX, Mode, Model, Verdict, View};

/// Lines that a page is taken for; the frame may be larger or smaller.
const PAGE: usize = 20;

/// What the help says.
pub(super) const HELP: [(&str, &str); 11] = [
    ("1 to 4, Tab", "processes, flows, containers, Unix sockets"),
    ("← →, s", "sort by another column"),
    ("r", "sort the other way round"),
    ("/", "filter: lines that have all the words"),
    ("Esc", "no filter"),
    ("Space, p", "pause, and go on"),
    ("↑ ↓, j k", "a line up, a line down"),
    ("PgUp PgDn", "a page up, a page down"),
    ("Home End", "to the first line, to the last"),
    ("h, ?", "this help"),
    ("q, Ctrl-C", "quit"),
];

impl Model {
    /// A key was pressed.
    pub fn on_key(&mut self, key: KeyEvent) -> Verdict {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Verdict::Quit;
        }
        match self.mode {
            Mode::Filter => self.on_filter_key(key.code, control),
            Mode::Help => self.mode = Mode::Table,
            Mode::Table if key.code == KeyCode::Char('q') => return Verdict::Quit,
            Mode::Table => self.on_table_key(key.code),
        }
        Verdict::Stay
    }

    fn on_filter_key(&mut self, code: KeyCode, control: bool) {
        self.scroll = 0;
        match code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char('u') if control => self.filter.clear(),
            KeyCode::Char(letter) if !control && self.filter.chars().count() < FILTER_MAX => self.filter.push(letter),
            _ => {}
        }
    }

    fn on_table_key(&mut self, code: KeyCode) {
        let last = self.rows().len().saturating_sub(1);
        match code {
            KeyCode::Char('1') => self.show(View::Processes),
            KeyCode::Char('2') => self.show(View::Flows),
            KeyCode::Char('3') => self.show(View::Containers),
            KeyCode::Char('4') => self.show(View::UnixFlows),
            KeyCode::Tab => self.show(View::ALL[(self.place() + 1) % View::ALL.len()]),
            KeyCode::BackTab => self.show(View::ALL[(self.place() + View::ALL.len() - 1) % View::ALL.len()]),
            KeyCode::Right | KeyCode::Char('s' | '>') => self.sort_by(1),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(self.columns() - 1),
            KeyCode::Char('r') => {
                let place = self.place();
                self.sorts[place].reversed = !self.sorts[place].reversed;
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Down | KeyCode::Char('j') => self.scroll = (self.scroll + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = (self.scroll + PAGE).min(last),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = last,
            _ => {}
        }
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    /// By the column that is so many further; behind the last comes the first.
    fn sort_by(&mut self, further: usize) {
        let (place, columns) = (self.place(), self.columns());
        self.sorts[place].column = (self.sorts[place].column + further) % columns;
        self.sorts[place].reversed = false;
        self.scroll = 0;
    }
}
