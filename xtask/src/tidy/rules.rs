//! Every rule that breaks clients has a test whose name carries the rule's number: `k09_responses_leave_in_order`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::{Complaints, files, read};

/// The rules of `docs/compatibility.md` that are built so far. A rule joins the list with the feature that it is about.
const BUILT: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23];

pub(super) fn check(root: &Path) -> Result<Complaints> {
    let mut tested = BTreeSet::new();
    for path in files(root, "rs")? {
        for line in read(&path)?.lines() {
            let line = line.trim_start();
            let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
            if let Some(digits) = name.and_then(|name| name.strip_prefix('k')).and_then(|name| name.get(..2))
                && let Ok(number) = digits.parse::<u32>()
            {
                tested.insert(number);
            }
        }
    }
    let untested = BUILT.iter().filter(|rule| !tested.contains(rule));
    Ok(untested.map(|rule| format!("rule K{rule} has no test named k{rule:02}_…")).collect())
}
