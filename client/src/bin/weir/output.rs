//! Tables for people, JSON for scripts.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::failure::Failure;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self == Output::Json
    }
}

/// Columns without lines around them, so that they can be cut and searched too.
pub(crate) struct Columns {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Titles that end in `>` stand above numbers; columns whose title ends in `?` are left out where they say nothing.
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn text(&self) -> String {
        let says_something = |column: usize| {
            !self.titles[column].ends_with('?')
                || self.rows.iter().any(|row| row.get(column).is_some_and(|cell| !cell.is_empty()))
        };
        let kept: Vec<usize> = (0..self.titles.len()).filter(|&column| says_something(column)).collect();
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(kept.iter().map(|&at| self.titles[at].trim_end_matches(['>', '?']).to_uppercase()));
        for row in &self.rows {
            table.add_row(kept.iter().map(|&at| row.get(at).map_or("", String::as_str)));
        }
        for (column, &at) in table.column_iter_mut().zip(&kept) {
            column.set_padding((0, 2));
            if self.titles[at].ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        line(&self.text())
    }

    /// Prints the columns. Where there are none, says so, apart from what the next program in a pipe reads.
    pub(crate) fn print_or_note(&self, nothing: &str) -> Result<(), Failure> {
        if self.rows.is_empty() {
            note(nothing);
            return Ok(());
        }
        self.print()
    }
}

/// Says something that is no part of the answer.
pub(crate) fn note(text: &str) {
    eprintln!("weir: {text}");
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints a value, over several lines where somebody looks at it.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// A reader that has seen enough closes the pipe: that ends the command, and nothing has failed.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_carry_no_lines() {
        let mut columns = Columns::new(&["name", "lag>"]);
        columns.row(vec!["a".to_owned(), "5".to_owned()]);
        columns.row(vec!["longer".to_owned(), "12345".to_owned()]);
        assert_eq!(columns.text(), "NAME      LAG\na           5\nlonger  12345");
    }

    #[test]
    fn a_column_that_says_nothing_may_be_left_out() {
        let mut columns = Columns::new(&["broker>", "rack?", "address"]);
        columns.row(vec!["1".to_owned(), String::new(), "h:1".to_owned()]);
        assert_eq!(columns.text(), "BROKER  ADDRESS\n     1  h:1");
        columns.row(vec!["2".to_owned(), "r".to_owned(), "h:2".to_owned()]);
        assert_eq!(columns.text(), "BROKER  RACK  ADDRESS\n     1        h:1\n     2  r     h:2");
    }
}
