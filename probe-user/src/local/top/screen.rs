//! The terminal, taken over and given back: at the end, on an error, and on a panic.

use std::io::{self, Stdout, stdout};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, PoisonError};

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// What panics have said meanwhile, for when the terminal is back; so many at most.
const SAID_MAX: usize = 16;

/// The terminal while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    said: Arc<Mutex<Vec<String>>>,
    hook: Option<Hook>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hook = panic::take_hook();
        // A loop that panics is started again, and its message must not go across the screen. Ours unwinds, and with it comes the end of this value.
        panic::set_hook(Box::new({
            let said = said.clone();
            move |panic| {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() < SAID_MAX {
                    said.push(panic.to_string());
                }
            }
        }));
        let begun = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match begun {
            Ok(terminal) => Ok(Screen { terminal, said, hook: Some(hook) }),
            Err(error) => {
                give_back();
                panic::set_hook(hook);
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    #[expect(clippy::print_stderr, reason = "the terminal is back, and this is what was kept from it")]
    fn drop(&mut self) {
        give_back();
        // While a panic unwinds, the hook cannot be changed; its message is printed below.
        if !std::thread::panicking()
            && let Some(hook) = self.hook.take()
        {
            panic::set_hook(hook);
        }
        for message in self.said.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            eprintln!("{message}");
        }
    }
}

/// What cannot be given back is gone.
fn give_back() {
    drop(disable_raw_mode());
    drop(execute!(stdout(), LeaveAlternateScreen, Show));
}
