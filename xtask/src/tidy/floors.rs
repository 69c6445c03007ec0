//! Imports point downwards only: each crate may use the crates of the floors below it, and names them here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::{Complaints, files, read, relative};

/// What each crate may import of ours, as `docs/architecture.md` draws it. Everything that is missing is forbidden.
const FLOORS: &[(&str, &[&str])] = &[
    ("weir-defect", &[]),
    ("weir-protocol", &["weir-defect"]),
    ("weir-wire", &[]),
    ("weir-runtime", &["weir-defect"]),
    ("weir-storage", &["weir-defect", "weir-protocol", "weir-runtime", "weir-wire"]),
    ("weir-broker", &["weir-defect", "weir-protocol", "weir-runtime", "weir-storage", "weir-wire"]),
    ("weir-client", &["weir-defect", "weir-runtime", "weir-wire"]),
    ("weir-jepsen", &["weir-client", "weir-runtime"]),
    (
        "weir-sim",
        &[
            "weir-broker",
            "weir-client",
            "weir-defect",
            "weir-jepsen",
            "weir-protocol",
            "weir-runtime",
            "weir-wire",
        ],
    ),
    (
        "weir-proptests",
        &[
            "weir-broker",
            "weir-defect",
            "weir-jepsen",
            "weir-protocol",
            "weir-runtime",
            "weir-storage",
            "weir-wire",
        ],
    ),
    ("weir-xtask", &[]),
    ("weir-load", &[]),
    ("weir-interop", &[]),
];

pub(super) fn check(root: &Path) -> Result<Complaints> {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut complaints = Vec::new();
    for path in files(root, "toml")? {
        if path.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let text = read(&path)?;
        let Some(package) = package_name(&text) else { continue };
        let Some(allowed) = floors.get(package) else {
            complaints.push(format!(
                "{}: crate {package} stands on no floor; add it to xtask/src/tidy/floors.rs",
                relative(root, &path)
            ));
            continue;
        };
        complaints.extend(imports(&text).filter(|import| !allowed.contains(import)).map(|import| {
            format!(
                "{}: {package} must not import {import}: imports point downwards only",
                relative(root, &path)
            )
        }));
    }
    Ok(complaints)
}

fn package_name(manifest: &str) -> Option<&str> {
    let package = manifest.split("[package]").nth(1)?;
    let line = package.lines().find(|line| line.starts_with("name"))?;
    line.split('"').nth(1)
}

/// Our crates named as dependencies, of any kind.
fn imports(manifest: &str) -> impl Iterator<Item = &str> {
    let mut in_dependencies = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let name = line.split(['.', '=', ' ']).next()?;
        (in_dependencies && name.starts_with("weir-")).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_floors() {
        assert_eq!(check(&crate::workspace_root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_import_that_points_upwards_is_seen() {
        let manifest = "[package]\nname = \"weir-wire\"\n[dependencies]\nbytes = \"1\"\nweir-broker.workspace = true\n[dev-dependencies]\nweir-sim = { path = \"\" }\n";
        assert_eq!(package_name(manifest), Some("weir-wire"));
        assert_eq!(imports(manifest).collect::<Vec<_>>(), ["weir-broker", "weir-sim"]);
    }
}
