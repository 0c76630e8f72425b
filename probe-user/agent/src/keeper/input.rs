//! What others write to a container: kept until the container takes it, so that the keeper never waits for that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Who writes waits when this much has not been taken.
const QUEUE_MAX: usize = 256 * 1024;

/// The input of a container, if it has one.
#[derive(Default)]
pub(super) struct Input {
    /// A pipe, or the master of a terminal. Never waited for.
    file: Option<File>,
    queue: VecDeque<u8>,
    /// Closed as soon as all that is queued has been taken.
    ends: bool,
    is_terminal: bool,
}

impl Input {
    pub(super) fn pipe(file: File) -> io::Result<Self> {
        Self::of(file, false)
    }

    /// The master shares its flags with every duplicate: reading from those does not wait either.
    pub(super) fn terminal(master: File) -> io::Result<Self> {
        Self::of(master, true)
    }

    fn of(file: File, is_terminal: bool) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Input { file: Some(file), queue: VecDeque::new(), ends: false, is_terminal })
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MAX
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Input that comes after the end is for nobody.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.file.is_some() && !self.ends {
            self.queue.extend(bytes);
            self.write();
        }
    }

    /// No more comes. A terminal has no such end, as in Mesos: whoever wants one types control-D.
    pub(super) fn end(&mut self) {
        if !self.is_terminal {
            self.ends = true;
            self.write();
        }
    }

    /// Nobody is there to take what is queued.
    pub(super) fn close(&mut self) {
        *self = Input::default();
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) {
        let Some(it) = self.file.as_ref().filter(|_| self.is_terminal) else { return };
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        #[expect(unsafe_code, reason = "an ioctl has no safe form")]
        // SAFETY: the file is open and the kernel only reads the structure, which lives until the call returns.
        unsafe {
            libc::ioctl(it.as_raw_fd(), libc::TIOCSWINSZ, &raw const size)
        };
    }

    /// What has to become writable, while something is queued.
    pub(super) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().filter(|_| !self.queue.is_empty()).map(|it| it.as_fd())
    }

    /// Writes as much as is taken now.
    pub(super) fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        while !self.queue.is_empty() {
            match file.write(self.queue.as_slices().0) {
                Ok(written) => drop(self.queue.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody has the terminal open; somebody may open it again. A pipe stays without a reader.
                Err(_) if self.is_terminal => self.queue.clear(),
                Err(_) => return self.close(),
            }
        }
        if self.ends {
            self.close();
        }
    }
}
