//! What each client's cases ended with, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::script::Outcome;

impl Outcome {
    fn mark(&self) -> &'static str {
        match self {
            Outcome::Ok(_) => "✓",
            Outcome::Failed(_) => "✗",
            Outcome::Skipped(_) => "–",
        }
    }

    /// What is to be said about it.
    fn note(&self) -> Option<&str> {
        match self {
            Outcome::Ok(remark) => remark.as_deref(),
            Outcome::Failed(why) | Outcome::Skipped(why) => Some(why),
        }
    }
}

/// Rows are cases, columns are clients.
#[derive(Default)]
pub(super) struct Matrix {
    /// Names and versions.
    clients: Vec<(String, String)>,
    /// In the order in which they came up first; each with the column's index.
    rows: Vec<(String, BTreeMap<usize, Outcome>)>,
}

impl Matrix {
    /// Adds a column.
    pub(super) fn add(&mut self, client: &str, version: &str, outcomes: &[(String, Outcome)]) {
        let column = self.clients.len();
        self.clients.push((client.to_owned(), version.to_owned()));
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
        for (letter, (client, version)) in letters.iter().zip(&self.clients) {
            let _ = write!(text, "\n{letter} {client} {version}");
        }
        text + "\n\n✓ ok   ✗ fails   – the client has no means for it   blank: not asked of it\n"
    }

    /// For docs/compatibility.md: the table, and below it the notes that its numbers stand for.
    pub(super) fn markdown(&self) -> String {
        let mut text = "| case |".to_owned();
        for (client, version) in &self.clients {
            let _ = write!(text, " {client} {version} |"); // a String takes everything
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(self.clients.len()));
        let mut notes = Notes::default();
        for (case, outcomes) in self.rows() {
            let _ = write!(text, "| {case} |");
            for (column, (client, _)) in self.clients.iter().enumerate() {
                let Some(outcome) = outcomes.get(&column) else {
                    text.push_str("  |");
                    continue;
                };
                let number = outcome.note().map(|note| format!(" ({})", notes.number(client, case, note)));
                let _ = write!(text, " {}{} |", outcome.mark(), number.unwrap_or_default());
            }
            text.push('\n');
        }
        text + &notes.text()
    }
}

/// Notes below a table. What a client has to say about several cases stands there once.
#[derive(Default)]
struct Notes(Vec<(String, Vec<String>, String)>);

impl Notes {
    fn number(&mut self, client: &str, case: &str, note: &str) -> usize {
        let same = |(who, _, what): &(String, Vec<String>, String)| who == client && what == note;
        let index = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push((client.to_owned(), Vec::new(), note.to_owned()));
            self.0.len() - 1
        });
        self.0[index].1.push(case.to_owned());
        index + 1
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (index, (client, cases, note)) in self.0.iter().enumerate() {
            let before = if index == 0 { "\n" } else { "" };
            let _ = writeln!(text, "{before}{}. {client}, {}: {note}.", index + 1, cases.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_clients() -> Matrix {
        let mut matrix = Matrix::default();
        let case = |name: &str, outcome| (name.to_owned(), outcome);
        matrix.add("one", "1.0", &[case("own", Outcome::Ok(None)), case("create", Outcome::Ok(None))]);
        let skipped = Outcome::Skipped("this client has none".to_owned());
        let remarked = Outcome::Ok(Some("no nulls".to_owned()));
        let cases = [
            case("create", Outcome::Failed("no".to_owned())),
            case("group", skipped.clone()),
            case("commit", skipped),
            case("nulls", remarked),
        ];
        matrix.add("two", "2.0", &cases);
        matrix
    }

    #[test]
    fn cases_of_one_client_stand_below() {
        let text = two_clients().text();
        let lines: Vec<_> = text.lines().take(6).collect();
        assert_eq!(
            lines,
            ["        a  b", "create  ✓  ✗", "own     ✓   ", "group      –", "commit     –", "nulls      ✓"]
        );
    }

    #[test]
    fn the_table_for_the_docs_says_why() {
        let expected = "| case | one 1.0 | two 2.0 |\n|---|---|---|\n| create | ✓ | ✗ (1) |\n| own | ✓ |  |\n\
                        | group |  | – (2) |\n| commit |  | – (2) |\n| nulls |  | ✓ (3) |\n\n\
                        1. two, create: no.\n2. two, group, commit: this client has none.\n3. two, nulls: no nulls.\n";
        assert_eq!(two_clients().markdown(), expected);
    }
}
