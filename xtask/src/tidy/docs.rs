//! Links in the docs lead somewhere: to a file that is there and, behind a `#` in a source file, to a name that it has.

use std::path::Path;

use anyhow::Result;

use super::{Complaints, files, read, relative};

pub(super) fn check(root: &Path) -> Result<Complaints> {
    let mut complaints = Vec::new();
    for path in files(root, "md")? {
        let folder = path.parent().unwrap_or(root);
        for link in links(&read(&path)?) {
            let (target, name) = link.split_once('#').unwrap_or((&link, ""));
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = folder.join(target);
            if !file.exists() {
                complaints.push(format!("{}: link to {target} leads nowhere", relative(root, &path)));
            } else if target.ends_with(".rs") && !name.is_empty() && !names(&read(&file)?, name) {
                complaints.push(format!("{}: {target} has no `{name}`", relative(root, &path)));
            }
        }
    }
    Ok(complaints)
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// Whether a source file defines the name (a function, type, constant, variant or field) or calls the method of that name.
fn names(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let (before, after) = (&source[..at], &source[at + name.len()..]);
        let is_whole = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        let defines = ["fn ", "struct ", "enum ", "const ", "static ", "trait ", "type ", "mod "];
        is_whole(before.chars().next_back())
            && is_whole(after.chars().next())
            && !line.starts_with("//")
            && (line.is_empty() || before.ends_with('.') || defines.iter().any(|word| before.ends_with(word)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found() {
        assert_eq!(links("see [a](b.md) and [c](../d.md#e)"), ["b.md", "../d.md#e"]);
    }
    #[test]
    fn a_name_is_found_where_it_is_defined_and_not_where_it_is_told_of() {
        let source = "// fn told\nconst CHECKER: u8 = 1;\nenum Fault {\n    Kill { node: u32 },\n}\nfn opened() {\n    core.invariants();\n}\n";
        for name in ["CHECKER", "Fault", "Kill", "opened", "invariants"] {
            assert!(names(source, name), "{name}");
        }
        for name in ["told", "node", "open", "CHECK"] {
            assert!(!names(source, name), "{name}");
        }
    }
}
