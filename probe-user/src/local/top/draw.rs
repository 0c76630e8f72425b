//! The model on a frame of any size.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::local::text::{self, Column, Side};
use crate::local::top::keys::HELP;
use crate::local::top::model::{Mode, Model, View};
use crate::local::top::rates;

/// Lines beside the table's own: node, views, headings, status.
const AROUND: u16 = 4;

/// Draws it. What finds no room is left out, the table last.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    if area.width == 0 || area.height == 0 {
        return;
    }
    let width = usize::from(area.width);
    let mut lines = Vec::new();
    if area.height > AROUND {
        lines.push(Line::from(text::fitted(&model.head, width)));
        lines.push(views(model, width));
    }
    let status_line = u16::from(area.height > 2);
    let room = usize::from(area.height.saturating_sub(status_line)).saturating_sub(lines.len());
    lines.extend(table(model, width, room));
    frame.render_widget(Paragraph::new(lines), Rect { height: area.height - status_line, ..area });
    if status_line == 1 {
        let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(status(model, width)).style(Style::new().add_modifier(Modifier::REVERSED)), bottom);
    }
    if model.mode == Mode::Help {
        help(frame, area);
    }
}

fn views(model: &Model, width: usize) -> Line<'static> {
    let mut spans = Vec::new();
    let mut left = width;
    for (at, view) in View::ALL.into_iter().enumerate() {
        let title = text::fitted(&format!("{} {} ({})  ", at + 1, view.title(), model.len(view)), left);
        left = left.saturating_sub(title.chars().count());
        let style = if view == model.view { Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED) } else { Style::new() };
        let bare = title.trim_end().to_owned();
        let gap = title.chars().count() - bare.chars().count();
        spans.push(Span::styled(bare, style));
        spans.push(Span::raw(" ".repeat(gap)));
    }
    let filter = match (model.mode, model.filter.as_str()) {
        (Mode::Filter, filter) => format!("/{filter}_"),
        (_, "") => String::new(),
        (_, filter) => format!("/{filter}"),
    };
    spans.push(Span::raw(text::fitted(&filter, left)));
    Line::from(spans)
}

/// Headings and as many lines as there is room for.
fn table(model: &Model, width: usize, room: usize) -> Vec<Line<'static>> {
    if room == 0 {
        return Vec::new();
    }
    let rows = model.rows();
    // What is scrolled away stays away when the table has become shorter, but for the last page.
    let scroll = model.scroll.min(rows.len().saturating_sub(1));
    let shown = rows.into_iter().skip(scroll).take(room - 1).map(|row| row.cells.clone()).collect::<Vec<_>>();
    let columns = rates::columns(model.view);
    // One more for the mark at the column that it is sorted by.
    let sort = model.sort();
    let marked = |(at, column): (usize, &Column)| match (at == sort.column, sort.reversed) {
        (false, _) => column.title.to_owned(),
        (true, false) => format!("{}▼", column.title),
        (true, true) => format!("{}▲", column.title),
    };
    let titles = columns.iter().enumerate().map(marked).collect::<Vec<_>>();
    let with_titles = shown.iter().cloned().chain([titles.clone()]).collect::<Vec<_>>();
    let widths = text::widths(columns, &with_titles, Some(width));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let heading = Line::styled(text::line(columns, &widths, &titles), bold);
    [heading].into_iter().chain(shown.iter().map(|cells| Line::from(text::line(columns, &widths, cells)))).collect()
}

/// How it is seen on the left, what can be done on the right, if both find room.
fn status(model: &Model, width: usize) -> String {
    let paused = if model.paused { "PAUSED  " } else { "" };
    let left = format!("{paused}{}", model.status);
    let hint = "h help  q quit";
    let room = width.saturating_sub(hint.len() + 2);
    if left.chars().count() <= room { text::padded(&left, room, Side::Left) + "  " + hint } else { text::fitted(&left, width) }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (58.min(area.width), u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX).min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let inside = usize::from(width).saturating_sub(2);
    let lines = HELP.map(|(keys, what)| Line::from(text::fitted(&format!(" {}  {what}", text::padded(keys, 11, Side::Left)), inside)));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines.to_vec()).block(Block::bordered().title("Help")), place);
}
