//! Files and functions of a length that fits a head, one home for `cfg(madsim)`, and no leftovers.

use std::path::Path;

use anyhow::Result;

use super::{Complaints, files, read, relative};

/// Lines of a source file without its tests. About 300 is right; above this it has more than one meaning.
const FILE_LINES_MAX: usize = 600;
/// Lines of one function: a screen is about 70.
const FUNCTION_LINES_MAX: usize = 110;

pub(super) fn check(root: &Path) -> Result<Complaints> {
    let mut complaints = Vec::new();
    for path in files(root, "rs")? {
        let text = read(&path)?;
        let name = relative(root, &path).to_string();
        if is_test(&name) || name.starts_with("xtask/src/tidy/") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!(
                "{name}: {lines} lines; split it along its meaning (at most {FILE_LINES_MAX})"
            ));
        }
        complaints.extend(long_functions(code).into_iter().map(|(line, length)| {
            format!("{name}:{line}: a function of {length} lines; split it (at most {FUNCTION_LINES_MAX})")
        }));
        if !name.starts_with("runtime/") && code.contains("cfg(madsim)") {
            complaints.push(format!("{name}: cfg(madsim) lives in runtime/ only"));
        }
        for banned in ["todo!(", "unimplemented!(", "FIXME", "XXX"] {
            if code.contains(banned) {
                complaints.push(format!("{name}: {banned}"));
            }
        }
    }
    Ok(complaints)
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs")
}

/// The functions that are too long: first line and number of lines. Relies on rustfmt's indentation.
fn long_functions(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new(); // (indentation, first line)
    for (number, line) in code.lines().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let text = line.trim_start();
        let starts = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
            "const fn ",
            "pub const fn ",
        ];
        if starts.iter().any(|start| text.starts_with(start)) && !line.trim_end().ends_with([';', '}']) {
            open.push((indentation, number + 1));
        } else if text.starts_with('}')
            && let Some(position) = open.iter().rposition(|(level, _)| *level == indentation)
        {
            let (_, first) = open[position];
            open.truncate(position);
            let length = number + 2 - first;
            if length > FUNCTION_LINES_MAX {
                found.push((first, length));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found_and_a_short_one_is_not() {
        let long = format!(
            "impl X {{\n    fn a() {{\n{}    }}\n\n    fn b() {{\n    }}\n}}\n",
            "        x();\n".repeat(FUNCTION_LINES_MAX)
        );
        assert_eq!(long_functions(&long), [(2, FUNCTION_LINES_MAX + 2)]);
    }
}
