//! Tables for people, JSON for scripts.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::Failure;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns
    Table,
    /// JSON: one value, or one per record
    Json,
}

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self == Output::Json
    }
}

/// Columns without lines around them, so that they can be cut and searched too.
pub(crate) struct Columns(Table);

impl Columns {
    /// Titles that end in `>` stand above numbers.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(titles.iter().map(|title| title.trim_end_matches('>').to_uppercase()));
        for (column, title) in table.column_iter_mut().zip(titles) {
            column.set_padding((0, 2));
            if title.ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells);
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.0.lines().map(|line| line.trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        line(&self.text())
    }
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
}
