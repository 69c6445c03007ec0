use super::*;

fn set(tree: &mut Tree, sequence: Sequence, path: &str, to: Option<InodeId>) {
    let (folder, name) = tree.parent(TOP, Path::new(path)).unwrap();
    tree.change(sequence, vec![Edit { folder, name, to }]);
}

fn create(tree: &mut Tree, sequence: Sequence, path: &str) -> InodeId {
    let file = tree.create(Kind::File(Content::default()));
    set(tree, sequence, path, Some(file));
    file
}

fn create_folder(tree: &mut Tree, sequence: Sequence, path: &str) -> InodeId {
    let folder = tree.create(Kind::Folder(Names::default()));
    set(tree, sequence, path, Some(folder));
    folder
}

fn rename(tree: &mut Tree, sequence: Sequence, from: &str, to: &str) {
    let (old_folder, old_name) = tree.parent(TOP, Path::new(from)).unwrap();
    let (folder, name) = tree.parent(TOP, Path::new(to)).unwrap();
    let inode = tree.entry(old_folder, &old_name).unwrap();
    let from = Edit { folder: old_folder, name: old_name, to: None };
    tree.change(sequence, vec![from, Edit { folder, name, to: inode }]);
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.files().into_iter().map(|(path, _)| path).collect()
}

#[test]
fn a_created_file_is_lost_unless_its_folder_was_synced() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "a");
    tree.sync_folder(TOP);
    create(&mut tree, 2, "b");
    assert_eq!(paths(&tree), ["a", "b"]);
    assert_eq!(tree.crash(|_| false), 1);
    assert_eq!(paths(&tree), ["a"]);
}

#[test]
fn a_rename_is_kept_or_lost_in_one_piece() {
    for (kept, expected) in [(false, ["old", "x"]), (true, ["x", "y"])] {
        let mut tree = Tree::new();
        create(&mut tree, 1, "old");
        create(&mut tree, 2, "x");
        tree.sync_folder(TOP);
        rename(&mut tree, 3, "old", "y");
        assert_eq!(paths(&tree), ["x", "y"]);
        tree.crash(|_| kept);
        assert_eq!(paths(&tree), expected);
    }
}

#[test]
fn a_rename_over_a_file_leaves_the_old_one_until_it_is_durable() {
    let mut tree = Tree::new();
    let old = create(&mut tree, 1, "config");
    tree.sync_folder(TOP);
    let new = create(&mut tree, 2, "config.tmp");
    rename(&mut tree, 3, "config.tmp", "config");
    assert_eq!(tree.resolve(TOP, Path::new("config")).unwrap(), new);
    tree.crash(|_| false);
    assert_eq!(tree.resolve(TOP, Path::new("config")).unwrap(), old);
    assert_eq!(paths(&tree), ["config"]);
}

#[test]
fn a_later_change_may_be_kept_when_an_earlier_one_is_lost() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "tmp");
    rename(&mut tree, 2, "tmp", "final");
    tree.crash(|sequence| sequence == 2);
    assert_eq!(paths(&tree), ["final"]);
}

#[test]
fn syncing_one_folder_of_a_rename_keeps_the_order_of_the_other() {
    let mut tree = Tree::new();
    let a = create_folder(&mut tree, 1, "a");
    create_folder(&mut tree, 2, "b");
    tree.sync_folder(TOP);
    create(&mut tree, 3, "b/x");
    let moved = create(&mut tree, 4, "a/t");
    rename(&mut tree, 5, "a/t", "b/x");
    tree.sync_folder(a);
    tree.crash(|_| false);
    assert_eq!(paths(&tree), ["b/x"]);
    assert_eq!(tree.resolve(TOP, Path::new("b/x")).unwrap(), moved);
}

#[test]
fn a_lost_folder_takes_what_is_in_it_along() {
    let mut tree = Tree::new();
    let folder = create_folder(&mut tree, 1, "topic");
    create(&mut tree, 2, "topic/0.log");
    tree.sync_folder(folder);
    assert_eq!(paths(&tree), ["topic/0.log"]);
    tree.crash(|_| false);
    assert!(paths(&tree).is_empty());
    assert_eq!(tree.inodes.len(), 1, "nothing is left but the top");
}

#[test]
fn a_removed_file_lives_on_for_those_who_have_it_open_and_comes_back_if_the_removal_is_lost() {
    let mut tree = Tree::new();
    let file = create(&mut tree, 1, "a");
    tree.sync_folder(TOP);
    tree.open(file);
    set(&mut tree, 2, "a", None);
    assert!(paths(&tree).is_empty());
    assert!(tree.content(file).is_ok());
    tree.close(file);
    tree.crash(|_| false);
    assert_eq!(paths(&tree), ["a"]);
    set(&mut tree, 3, "a", None);
    tree.sync_folder(TOP);
    assert_eq!(tree.inodes.len(), 1);
}

#[test]
fn what_a_path_names_wrongly_is_refused() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "file");
    let kind = |result: io::Result<InodeId>| result.unwrap_err().kind();
    assert_eq!(kind(tree.resolve(TOP, Path::new("nothing"))), io::ErrorKind::NotFound);
    assert_eq!(kind(tree.resolve(TOP, Path::new("file/x"))), io::ErrorKind::NotADirectory);
    assert_eq!(tree.resolve(TOP, Path::new("")).unwrap(), TOP);
}
