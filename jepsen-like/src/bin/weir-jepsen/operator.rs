//! What an operator does after a disk was lost: the node's empty folder is admitted to the metadata quorum in the place of the
//! lost one (`weir cluster voters remove`, `add`). Until then it follows and does not vote.

use std::time::Duration;

use uuid::Uuid;
use weir_client::{Admin, Error, QuorumMember};
use weir_jepsen::load;
use weir_runtime::time;

/// How long it may take, with faults that go on.
const ADMITTED_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Admits the node, counted from 0, with whatever folder it has now. Says what is in the way if it cannot be done.
pub(crate) async fn admit(bootstrap: Vec<String>, node: u32) -> Result<(), String> {
    let (client_id, id) = ("operator".to_owned(), node as i32 + 1);
    let mut last = String::new();
    let tries = async {
        let client = load::connect(bootstrap, client_id).await;
        let admin = Admin::new(&client);
        // Nobody else changes voters: the folder that votes at first is the lost one.
        let mut lost = None;
        loop {
            match step(&admin, id, &mut lost).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => last = error.to_string(),
            }
            time::sleep(PAUSE).await; // faults go on: another try may do better
        }
    };
    let outcome = time::timeout(ADMITTED_MAX, tries).await;
    outcome.map_err(|_| format!("node {id} was not admitted to the quorum within {ADMITTED_MAX:?}: {last}"))
}

/// One step of it; true when nothing is left to do. `lost` is the folder that voted when it was first asked, if any did.
async fn step(admin: &Admin, id: i32, lost: &mut Option<Option<Uuid>>) -> Result<bool, Error> {
    let quorum = admin.describe_quorum().await?;
    let folder = |members: &[QuorumMember]| {
        members.iter().find(|member| member.id == id).and_then(|member| member.directory)
    };
    let (votes, follows) = (folder(&quorum.voters), folder(&quorum.observers));
    let lost = *lost.get_or_insert(votes);
    match (votes, follows) {
        (Some(folder), _) if Some(folder) != lost => return Ok(true),
        (Some(folder), Some(_)) => admin.remove_voter(id, folder).await?,
        (None, Some(folder)) => admin.add_voter(id, folder).await?,
        (_, None) => {} // it does not follow yet
    }
    Ok(false)
}
