//! Tables for people, JSON for programs.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use crate::arguments::Format;

/// Where results go.
pub(crate) struct Out<'a> {
    to: &'a mut dyn Write,
    format: Format,
}

impl<'a> Out<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, format: Format) -> Self {
        Out { to, format }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A list: its JSON, or a row for each of its entries.
    pub(crate) fn list(&mut self, header: &[&str], all: &[Value], row: impl Fn(&Value) -> Vec<String>) -> Result<()> {
        if self.is_json() {
            return self.json(&Value::Array(all.to_vec()));
        }
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        self.to.write_all(table(header, &rows).as_bytes())?;
        Ok(())
    }

    /// One thing: its JSON, in both formats the same but for the indentation.
    pub(crate) fn json(&mut self, value: &Value) -> Result<()> {
        serde_json::to_writer_pretty(&mut *self.to, value)?;
        writeln!(self.to)?;
        Ok(())
    }

    /// What was done. Programs see it by the exit code.
    pub(crate) fn done(&mut self, line: &str) -> Result<()> {
        if !self.is_json() {
            writeln!(self.to, "{line}")?;
        }
        Ok(())
    }

    /// Pairs of a name and a value.
    pub(crate) fn pairs(&mut self, pairs: &[(&str, String)]) -> Result<()> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(self.to, "{name:<width$}  {}", printable(value))?;
        }
        Ok(())
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes)?;
        self.to.flush()?;
        Ok(())
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|it| printable(it)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|it| it.chars().count()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|it| (*it).to_owned()).collect();
    for row in std::iter::once(&header).chain(&cells) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names come from frameworks: what would move the cursor of a terminal is shown instead of done.
fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().flat_map(|it| if it.is_control() { it.escape_default().collect() } else { vec![it] }).collect()
    } else {
        text.to_owned()
    }
}

/// A text of a JSON object; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// `cpus:1.5 mem:64`, from Mesos's classic objects; other resources than these are only shown when they are scalars above 0.
pub(crate) fn amounts(resources: &Value) -> String {
    let order = |name: &str| ["cpus", "gpus", "mem", "disk"].iter().position(|it| *it == name).unwrap_or(9);
    let mut found: Vec<(&String, f64)> =
        resources.as_object().into_iter().flatten().filter_map(|(name, it)| Some((name, it.as_f64().filter(|it| *it > 0.0)?))).collect();
    found.sort_by_key(|(name, _)| (order(name), name.as_str()));
    found.iter().map(|(name, amount)| format!("{name}:{}", number(*amount))).collect::<Vec<_>>().join(" ")
}

/// At most three digits after the point, and none that say nothing.
pub(crate) fn number(value: f64) -> String {
    format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_names_cannot_move_the_cursor() {
        let rows = vec![vec!["a".to_owned(), "x\u{1b}[2J".to_owned()], vec!["längst".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID      NAME\na       x\\u{1b}[2J\nlängst\n");
    }

    #[test]
    fn amounts_are_short() {
        let resources = json!({ "mem": 64.0, "cpus": 0.10000000001, "gpus": 0, "ports": "[1-2]", "x": 2 });
        assert_eq!(amounts(&resources), "cpus:0.1 mem:64 x:2");
    }
}
