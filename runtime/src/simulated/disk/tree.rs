//! Names and inodes: what programs see, what the medium has, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::content::{Content, Sequence};
use super::errno;

/// The name of a file or folder apart from its place in the tree.
pub(super) type InodeId = u64;

/// The top of the node's file system.
pub(super) const TOP: InodeId = 0;

#[derive(Debug, Default)]
pub(super) struct Names {
    /// What programs see.
    pub(super) cache: BTreeMap<String, InodeId>,
    /// What is there after a power loss that keeps nothing more.
    pub(super) media: BTreeMap<String, InodeId>,
}

#[derive(Debug)]
pub(super) enum Kind {
    File(Content),
    Folder(Names),
}

#[derive(Debug)]
struct Inode {
    kind: Kind,
    /// Names in the cache.
    links: u32,
    /// Names on the medium, and changes that are not synced and set a name to this inode.
    anchors: u32,
    /// Open handles.
    handles: u32,
}

/// A name set to an inode or to nothing.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) folder: InodeId,
    pub(super) name: String,
    pub(super) to: Option<InodeId>,
}

/// Edits that a power loss keeps or loses together, such as the two of a rename.
#[derive(Debug)]
struct Change {
    sequence: Sequence,
    edits: Vec<Edit>,
}

/// The file system of one node.
#[derive(Debug)]
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    unsynced: Vec<Change>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self { inodes: BTreeMap::new(), next_inode: TOP, unsynced: Vec::new() };
        tree.create(Kind::Folder(Names::default()));
        tree.inode_mut(TOP).links = 1;
        tree.inode_mut(TOP).anchors = 1;
        tree
    }

    pub(super) fn create(&mut self, kind: Kind) -> InodeId {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, Inode { kind, links: 0, anchors: 0, handles: 0 });
        id
    }

    fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[&id]
    }

    fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(&id).expect("inodes live as long as something names them")
    }

    /// The content of a file.
    pub(super) fn content(&self, id: InodeId) -> io::Result<&Content> {
        match &self.inode(id).kind {
            Kind::File(content) => Ok(content),
            Kind::Folder(_) => Err(errno::is_a_directory()),
        }
    }

    /// The content of a file.
    pub(super) fn content_mut(&mut self, id: InodeId) -> io::Result<&mut Content> {
        match &mut self.inode_mut(id).kind {
            Kind::File(content) => Ok(content),
            Kind::Folder(_) => Err(errno::is_a_directory()),
        }
    }

    pub(super) fn names(&self, id: InodeId) -> io::Result<&Names> {
        match &self.inode(id).kind {
            Kind::Folder(names) => Ok(names),
            Kind::File(_) => Err(errno::not_a_directory()),
        }
    }

    fn names_mut(&mut self, id: InodeId) -> Option<&mut Names> {
        match &mut self.inodes.get_mut(&id)?.kind {
            Kind::Folder(names) => Some(names),
            Kind::File(_) => None,
        }
    }

    pub(super) fn is_folder(&self, id: InodeId) -> bool {
        matches!(self.inode(id).kind, Kind::Folder(_))
    }

    /// What a path names, from `base` on.
    pub(super) fn resolve(&self, base: InodeId, path: &Path) -> io::Result<InodeId> {
        let mut at = base;
        for name in components(path) {
            at = self.entry(at, &name)?.ok_or_else(errno::not_found)?;
        }
        Ok(at)
    }

    /// What a path names on the medium.
    pub(super) fn resolve_durable(&self, path: &Path) -> Option<InodeId> {
        let mut at = TOP;
        for name in components(path) {
            at = *self.names(at).ok()?.media.get(&name)?;
        }
        Some(at)
    }

    /// The folder that holds a path's last name, and that name.
    pub(super) fn parent(&self, base: InodeId, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = components(path);
        let name = names.pop().ok_or_else(errno::invalid)?;
        let mut at = base;
        for name in names {
            at = self.entry(at, &name)?.ok_or_else(errno::not_found)?;
        }
        self.names(at)?;
        Ok((at, name))
    }

    /// What a name in a folder stands for.
    pub(super) fn entry(&self, folder: InodeId, name: &str) -> io::Result<Option<InodeId>> {
        Ok(self.names(folder)?.cache.get(name).copied())
    }

    pub(super) fn open(&mut self, id: InodeId) {
        self.inode_mut(id).handles += 1;
    }

    pub(super) fn close(&mut self, id: InodeId) {
        self.inode_mut(id).handles -= 1;
        self.release(id);
    }

    /// Changes names: seen at once, durable once one of the folders is synced.
    pub(super) fn change(&mut self, sequence: Sequence, edits: Vec<Edit>) {
        for edit in &edits {
            if let Some(to) = edit.to {
                self.inode_mut(to).links += 1;
                self.inode_mut(to).anchors += 1;
            }
        }
        let mut replaced = Vec::new();
        for edit in &edits {
            let Some(names) = self.names_mut(edit.folder) else { continue };
            let old = match edit.to {
                Some(to) => names.cache.insert(edit.name.clone(), to),
                None => names.cache.remove(&edit.name),
            };
            replaced.extend(old);
        }
        self.unsynced.push(Change { sequence, edits });
        for old in replaced {
            self.inode_mut(old).links -= 1;
            self.release(old);
        }
    }

    /// Makes the changes of a folder durable, and whatever hangs together with them.
    pub(super) fn sync_folder(&mut self, folder: InodeId) {
        let mut folders = BTreeSet::from([folder]);
        loop {
            let touched = |change: &&Change| change.edits.iter().any(|edit| folders.contains(&edit.folder));
            let reached: BTreeSet<InodeId> = (self.unsynced.iter().filter(touched))
                .flat_map(|change| change.edits.iter().map(|edit| edit.folder))
                .chain([folder])
                .collect();
            if reached.len() == folders.len() {
                break;
            }
            folders = reached;
        }
        let touches = |change: &Change| change.edits.iter().any(|edit| folders.contains(&edit.folder));
        let (due, rest) = std::mem::take(&mut self.unsynced).into_iter().partition(touches);
        self.unsynced = rest;
        self.commit(due);
    }

    fn commit(&mut self, changes: Vec<Change>) {
        for edit in changes.into_iter().flat_map(|change| change.edits) {
            let old = match (self.names_mut(edit.folder), edit.to) {
                (Some(names), Some(to)) => names.media.insert(edit.name, to),
                (Some(names), None) => names.media.remove(&edit.name),
                // The folder is gone: the change only gives up its hold on the inode.
                (None, to) => to,
            };
            if let Some(old) = old {
                self.inode_mut(old).anchors -= 1;
                self.release(old);
            }
        }
    }

    /// Forgets an inode that nothing names any more.
    fn release(&mut self, id: InodeId) {
        let Some(inode) = self.inodes.get(&id) else { return };
        if inode.links > 0 || inode.anchors > 0 || inode.handles > 0 {
            return;
        }
        let Some(Inode { kind: Kind::Folder(names), .. }) = self.inodes.remove(&id) else { return };
        for child in names.cache.into_values() {
            self.inode_mut(child).links -= 1;
            self.release(child);
        }
        for child in names.media.into_values() {
            self.inode_mut(child).anchors -= 1;
            self.release(child);
        }
    }

    /// Bytes that files take up: those with a name or an open handle.
    pub(super) fn used_bytes(&self) -> u64 {
        let live = self.inodes.values().filter(|inode| inode.links > 0 || inode.handles > 0);
        live.map(|inode| match &inode.kind {
            Kind::File(content) => content.pages() * super::content::PAGE_BYTES,
            Kind::Folder(_) => 0,
        })
        .sum()
    }

    /// All files that programs see, with their paths, in the order of the paths.
    pub(super) fn files(&self) -> Vec<(String, InodeId)> {
        let mut files = Vec::new();
        let mut folders = vec![(String::new(), TOP)];
        while let Some((path, folder)) = folders.pop() {
            let Ok(names) = self.names(folder) else { continue };
            for (name, id) in &names.cache {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if self.is_folder(*id) {
                    folders.push((path, *id));
                } else {
                    files.push((path, *id));
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// Every file's content, named or not, in a fixed order.
    pub(super) fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.inodes.values_mut().filter_map(|inode| match &mut inode.kind {
            Kind::File(content) => Some(content),
            Kind::Folder(_) => None,
        })
    }

    /// A power loss: of the unsynced changes those remain that `keeps` says, then programs see what the medium has. No
    /// handle is open afterwards. Returns how many changes were lost.
    pub(super) fn crash(&mut self, mut keeps: impl FnMut(Sequence) -> bool) -> u64 {
        let (kept, lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|change| keeps(change.sequence));
        let lost_count = lost.len() as u64;
        self.commit(kept);
        // Without their names the edits only give up their hold.
        for to in lost.into_iter().flat_map(|change| change.edits).filter_map(|edit| edit.to) {
            self.inode_mut(to).anchors -= 1;
        }
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
            inode.links = 0;
            if let Kind::Folder(names) = &mut inode.kind {
                names.cache.clone_from(&names.media);
            }
        }
        self.inode_mut(TOP).links = 1;
        for child in self.inodes.values().flat_map(children).collect::<Vec<_>>() {
            self.inode_mut(child).links += 1;
        }
        for id in self.inodes.keys().copied().collect::<Vec<_>>() {
            self.release(id);
        }
        lost_count
    }

    /// Takes a name away everywhere, also from what a power loss would bring back.
    pub(super) fn lose(&mut self, folder: InodeId, name: &str) {
        for change in &mut self.unsynced {
            let lost = |edit: &Edit| edit.folder == folder && edit.name == name;
            let held: Vec<_> =
                change.edits.iter().filter(|edit| lost(edit)).filter_map(|edit| edit.to).collect();
            change.edits.retain(|edit| !lost(edit));
            for inode in held {
                if let Some(inode) = self.inodes.get_mut(&inode) {
                    inode.anchors -= 1;
                }
            }
        }
        let Some(names) = self.names_mut(folder) else { return };
        let (cached, durable) = (names.cache.remove(name), names.media.remove(name));
        if let Some(inode) = durable {
            self.inode_mut(inode).anchors -= 1;
            self.release(inode);
        }
        if let Some(inode) = cached {
            self.inode_mut(inode).links -= 1;
            self.release(inode);
        }
    }

    /// Makes everything durable, as the kernel may at any time.
    pub(super) fn sync_all(&mut self) {
        let all = std::mem::take(&mut self.unsynced);
        self.commit(all);
        for content in self.contents_mut() {
            content.sync();
        }
    }

    /// Makes the creation of folders from the top down to `folder` durable.
    pub(super) fn sync_ancestors(&mut self, path: &Path) {
        let mut at = TOP;
        for name in components(path) {
            self.sync_folder(at);
            let Ok(Some(next)) = self.entry(at, &name) else { return };
            at = next;
        }
    }
}

/// What a folder names, as programs see it.
fn children(inode: &Inode) -> Vec<InodeId> {
    match &inode.kind {
        Kind::Folder(names) => names.cache.values().copied().collect(),
        Kind::File(_) => Vec::new(),
    }
}

/// The names of a path; "/" and "." stand for the top.
fn components(path: &Path) -> Vec<String> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    normal.collect()
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
