//! What each client's cases ended with, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a case ended with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Ok,
    /// Why.
    Failed(String),
    /// Why the client cannot be asked.
    Skipped(String),
}

impl Outcome {
    /// Reads a line of a client's script, `ok NAME`, `not ok NAME: why` or `skip NAME: why`; other lines are remarks.
    pub(super) fn parse(line: &str) -> Option<(&str, Outcome)> {
        let split = |rest: &'static str| {
            let (name, why) = line.strip_prefix(rest)?.split_once(": ")?;
            Some((name, why.to_owned()))
        };
        if let Some((name, why)) = split("not ok ") {
            return Some((name, Outcome::Failed(why)));
        }
        if let Some((name, why)) = split("skip ") {
            return Some((name, Outcome::Skipped(why)));
        }
        // A remark may follow.
        let name = line.strip_prefix("ok ")?.split("  # ").next()?;
        Some((name, Outcome::Ok))
    }

    fn mark(&self) -> &'static str {
        match self {
            Outcome::Ok => "✓",
            Outcome::Failed(_) => "✗",
            Outcome::Skipped(_) => "–",
        }
    }
}

/// Rows are cases, columns are clients.
#[derive(Default)]
pub(super) struct Matrix {
    clients: Vec<String>,
    /// In the order in which they came up first; each with the column's index.
    rows: Vec<(String, BTreeMap<usize, Outcome>)>,
}

impl Matrix {
    /// Adds a column.
    pub(super) fn add(&mut self, client: &str, outcomes: &[(String, Outcome)]) {
        let column = self.clients.len();
        self.clients.push(client.to_owned());
        for (case, outcome) in outcomes {
            let row = match self.rows.iter().position(|(name, _)| name == case) {
                Some(row) => row,
                None => {
                    self.rows.push((case.clone(), BTreeMap::new()));
                    self.rows.len() - 1
                }
            };
            self.rows[row].1.insert(column, outcome.clone());
        }
    }

    /// The rows, those of a single client last.
    fn rows(&self) -> impl Iterator<Item = &(String, BTreeMap<usize, Outcome>)> {
        let common = |row: &&(String, BTreeMap<usize, Outcome>)| row.1.len() > 1 || self.clients.len() == 1;
        self.rows.iter().filter(common).chain(self.rows.iter().filter(move |row| !common(row)))
    }

    /// For a terminal: a letter stands for each client.
    pub(super) fn text(&self) -> String {
        let width = self.rows.iter().map(|(case, _)| case.len()).max().unwrap_or_default();
        let letters: Vec<char> = ('a'..='z').take(self.clients.len()).collect();
        let mut text = format!("{:width$}", "");
        for letter in &letters {
            let _ = write!(text, "  {letter}"); // a String takes everything
        }
        for (case, outcomes) in self.rows() {
            let _ = write!(text, "\n{case:width$}");
            for column in 0..self.clients.len() {
                let _ = write!(text, "  {}", outcomes.get(&column).map_or(" ", Outcome::mark));
            }
        }
        text.push('\n');
        for (letter, client) in letters.iter().zip(&self.clients) {
            let _ = write!(text, "\n{letter} {client}");
        }
        text + "\n\n✓ ok   ✗ fails   – the client has no means for it   blank: not asked of it\n"
    }

    /// For docs/compatibility.md: the table, and below it why cases were skipped or failed.
    pub(super) fn markdown(&self) -> String {
        let mut text =
            format!("| case | {} |\n|---|{}\n", self.clients.join(" | "), "---|".repeat(self.clients.len()));
        let mut remarks = String::new();
        for (case, outcomes) in self.rows() {
            let _ = write!(text, "| {case} |"); // a String takes everything
            for (column, client) in self.clients.iter().enumerate() {
                let outcome = outcomes.get(&column);
                let _ = write!(text, " {} |", outcome.map_or("", Outcome::mark));
                if let Some(Outcome::Failed(why) | Outcome::Skipped(why)) = outcome {
                    let _ = writeln!(remarks, "- {client}, {case}: {why}");
                }
            }
            text.push('\n');
        }
        if remarks.is_empty() { text } else { text + "\n" + &remarks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<(String, Outcome)> {
        Outcome::parse(line).map(|(name, outcome)| (name.to_owned(), outcome))
    }

    #[test]
    fn the_lines_of_a_script_are_read() {
        assert_eq!(parse("ok create"), Some(("create".to_owned(), Outcome::Ok)));
        assert_eq!(parse("ok kills-zstd  # 9 records"), Some(("kills-zstd".to_owned(), Outcome::Ok)));
        let failed = Outcome::Failed("a: b".to_owned());
        assert_eq!(parse("not ok fetch-zstd: a: b"), Some(("fetch-zstd".to_owned(), failed)));
        let skipped = Outcome::Skipped("none".to_owned());
        assert_eq!(parse("skip idempotence: none"), Some(("idempotence".to_owned(), skipped)));
        assert_eq!(parse("# a remark"), None);
    }

    fn two_clients() -> Matrix {
        let mut matrix = Matrix::default();
        let case = |name: &str, outcome| (name.to_owned(), outcome);
        matrix.add("one", &[case("own", Outcome::Ok), case("create", Outcome::Ok)]);
        let skipped = Outcome::Skipped("this client has none".to_owned());
        matrix.add("two", &[case("create", Outcome::Failed("no".to_owned())), case("group", skipped)]);
        matrix
    }

    #[test]
    fn cases_of_one_client_stand_below() {
        let text = two_clients().text();
        let lines: Vec<_> = text.lines().take(4).collect();
        assert_eq!(lines, ["        a  b", "create  ✓  ✗", "own     ✓   ", "group      –"]);
    }

    #[test]
    fn the_table_for_the_docs_says_why() {
        let expected = "| case | one | two |\n|---|---|---|\n| create | ✓ | ✗ |\n| own | ✓ |  |\n| group |  | – |\n\n\
                        - two, create: no\n- two, group: this client has none\n";
        assert_eq!(two_clients().markdown(), expected);
    }
}
