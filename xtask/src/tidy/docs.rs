//! Links in the docs lead somewhere, and every defect of the zoo that is built has its page.

use std::path::Path;

use anyhow::Result;

use super::{Complaints, files, read, relative};

pub(super) fn check(root: &Path) -> Result<Complaints> {
    let mut complaints = Vec::new();
    for path in files(root, "md")? {
        let folder = path.parent().unwrap_or(root);
        for link in links(&read(&path)?) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                complaints.push(format!("{}: link to {target} leads nowhere", relative(root, &path)));
            }
        }
    }
    Ok(complaints)
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found() {
        assert_eq!(links("see [a](b.md) and [c](../d.md#e)"), ["b.md", "../d.md#e"]);
    }
}
