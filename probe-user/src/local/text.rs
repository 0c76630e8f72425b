//! Words and numbers for people, and columns that fit. Pure.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::procfs::parse::moves;

/// Which side of a column its texts stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Where its texts stand.
    pub side: Side,
    /// Beyond this its texts are cut; `usize::MAX` for the one that takes what is left.
    pub most: usize,
}

impl Column {
    /// Words, at most so wide.
    pub const fn words(title: &'static str, most: usize) -> Self {
        Column { title, side: Side::Left, most }
    }

    /// A number.
    pub const fn number(title: &'static str) -> Self {
        Column { title, side: Side::Right, most: 12 }
    }

    /// Words that take what the other columns leave.
    pub const fn rest(title: &'static str) -> Self {
        Column { title, side: Side::Left, most: usize::MAX }
    }
}

/// The column that takes what is left takes no more where there is no end: command lines can have megabytes.
const LINE_MAX: usize = 160;

/// What is kept for it, if there is so much.
const REST_MIN: usize = 18;

/// Widths at which everything fits into `width`; without one, everything is as wide as it likes, within reason. What has no room at all has width 0.
pub fn widths(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let natural = |(at, column): (usize, &Column)| {
        let widest = rows.iter().filter_map(|row| row.get(at)).map(|text| text.width()).max().unwrap_or(0);
        let most = match width {
            Some(_) => column.most,
            None => LINE_MAX,
        };
        widest.max(column.title.width()).min(most.max(column.title.width()))
    };
    let mut widths = columns.iter().enumerate().map(natural).collect::<Vec<_>>();
    let Some(mut left) = width else { return widths };
    // The one that takes what is left comes after the others have theirs, but for a little that is its own: what a process is says more than its
    // last rate.
    let flexible = columns.iter().position(|column| column.most == usize::MAX);
    let own = flexible.and_then(|at| widths.get(at)).map_or(0, |&natural| natural.min(REST_MIN).min(left / 2));
    left -= own;
    for (at, own) in widths.iter_mut().enumerate().filter(|(at, _)| Some(*at) != flexible) {
        let gap = usize::from(at > 0) * 2;
        let fits = left >= *own + gap;
        *own = if fits { *own } else { 0 };
        left -= if fits { *own + gap } else { 0 };
    }
    left += own;
    if let Some(at) = flexible
        && let Some(own) = widths.get_mut(at)
    {
        *own = (*own).min(left.saturating_sub(usize::from(at > 0) * 2));
    }
    widths
}

/// One line of a table.
pub fn line(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let mut text = String::new();
    let shown = columns.iter().zip(widths).zip(cells).filter(|((_, width), _)| **width > 0);
    for ((column, &width), cell) in shown {
        if !text.is_empty() {
            text.push_str("  ");
        }
        text.push_str(&padded(&fitted(cell, width), width, column.side));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text of exactly this width, if it is no wider.
pub fn padded(text: &str, width: usize, side: Side) -> String {
    let space = " ".repeat(width.saturating_sub(text.width()));
    match side {
        Side::Left => format!("{text}{space}"),
        Side::Right => format!("{space}{text}"),
    }
}

/// The beginning of a text, at most so wide, with a sign that there is more. What could move the cursor is made visible: a process may call itself
/// whatever it likes.
pub fn fitted(text: &str, width: usize) -> String {
    let clean = clean(text);
    if clean.width() <= width {
        return clean;
    }
    let mut cut = String::new();
    let mut used = 0;
    for letter in clean.chars() {
        let own = letter.width().unwrap_or(0);
        if used + own + 1 > width {
            break;
        }
        used += own;
        cut.push(letter);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Without anything that a terminal takes for a command.
pub fn clean(text: &str) -> String {
    text.chars().map(|it| if moves(it) { char::REPLACEMENT_CHARACTER } else { it }).collect()
}

/// Bytes with a unit, e.g. "1.4 MB" (10^6).
pub fn bytes(number: f64) -> String {
    scaled(number, " B", [" kB", " MB", " GB", " TB", " PB"])
}

/// A count, e.g. "1.4k".
pub fn count(number: f64) -> String {
    scaled(number, "", ["k", "M", "G", "T", "P"])
}

fn scaled(number: f64, unit: &str, units: [&str; 5]) -> String {
    let mut shown = number.max(0.0);
    let mut unit = unit;
    for next in units {
        if shown < 999.5 {
            break;
        }
        shown /= 1000.0;
        unit = next;
    }
    let whole = shown >= 9.95 || (shown - shown.round()).abs() < 0.05;
    if whole { format!("{shown:.0}{unit}") } else { format!("{shown:.1}{unit}") }
}

/// Microseconds, e.g. "1.4 ms".
pub fn micros(number: f64) -> String {
    match number {
        _ if number < 999.5 => format!("{number:.0} µs"),
        _ if number < 9_950.0 => format!("{:.1} ms", number / 1e3),
        _ if number < 999_500.0 => format!("{:.0} ms", number / 1e3),
        _ => format!("{:.1} s", number / 1e6),
    }
}

/// A share of all CPUs.
pub fn percent(number: f64) -> String {
    format!("{number:.1}%")
}

/// Of a program's path, the program.
pub fn program(name: &str) -> String {
    let last = name.rsplit('/').next().filter(|last| name.starts_with('/') && !last.is_empty());
    last.unwrap_or(name).to_owned()
}

/// Twelve letters are enough to know a container by.
pub fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

/// An address and a port.
pub fn socket(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        let shown = [0.0, 5.0, 999.0, 1_000.0, 1_449.0, 12_345.0, 999_999.0, 1.5e9, 7e21].map(bytes);
        assert_eq!(shown, ["0 B", "5 B", "999 B", "1 kB", "1.4 kB", "12 kB", "1 MB", "1.5 GB", "7000000 PB"]);
        assert_eq!([0.3, 1.0, 1_234.0].map(count), ["0.3", "1", "1.2k"]);
        assert_eq!([5.0, 1_400.0, 44_000.0, 2e6].map(micros), ["5 µs", "1.4 ms", "44 ms", "2.0 s"]);
    }

    #[test]
    fn of_a_path_the_program_is_shown() {
        assert_eq!(["/usr/bin/nginx", "nginx:", "[kworker/0:1]", "/", ""].map(program), ["nginx", "nginx:", "[kworker/0:1]", "/", ""]);
    }

    #[test]
    fn a_name_that_would_move_the_cursor_does_not() {
        assert_eq!(fitted("a\u{1b}[2Jb\nc\u{202e}d", 40), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(fitted("日本語です", 6), "日本…");
        assert_eq!(fitted("abc", 0), "");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_asked(
            rows in proptest::collection::vec(proptest::collection::vec(any::<String>(), 4), 0..5),
            width in 0_usize..120,
        ) {
            let columns = [Column::number("PID"), Column::words("NAME", 8), Column::rest("COMMAND"), Column::number("BYTES")];
            let widths = widths(&columns, &rows, Some(width));
            for row in &rows {
                prop_assert!(line(&columns, &widths, row).width() <= width);
            }
        }
    }
}
