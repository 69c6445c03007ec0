//! The project's own lints. Each is a function from the checkout to a list of complaints, one line each.

mod docs;
mod floors;
mod rules;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a lint found: where, and what to do about it.
pub(crate) type Complaints = Vec<String>;

type Lint = fn(&Path) -> Result<Complaints>;

/// Runs every lint and fails if one complains.
pub(crate) fn run(root: &Path) -> Result<()> {
    let lints: [(&str, Lint); 4] = [
        ("floors", floors::check),
        ("sources", sources::check),
        ("rules", rules::check),
        ("docs", docs::check),
    ];
    let mut complaints = Vec::new();
    for (name, lint) in lints {
        let found = lint(root).with_context(|| format!("lint {name}"))?;
        complaints.extend(found.into_iter().map(|complaint| format!("{name}: {complaint}")));
    }
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() { Ok(()) } else { bail!("{} complaints", complaints.len()) }
}

/// The files of the checkout with this extension, sorted, without build output and data.
fn files(root: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "data", "node_modules"].contains(&name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn relative<'a>(root: &Path, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(root).unwrap_or(path).display()
}
