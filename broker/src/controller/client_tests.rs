use tokio::sync::mpsc;
use weir_protocol::controller::{Standing, Wants};
use weir_protocol::metadata::Command;
use weir_runtime::task::{self, RuntimeOptions};

use super::*;
use crate::peer::{Arrivals, Asked, Inboxes};

const ME: BrokerId = BrokerId(1);

type Questions = mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>;

struct Town {
    client: ControllerClient,
    questions: Questions,
    leader: watch::Sender<LeaderView>,
}

fn view(leader: Option<BrokerId>) -> LeaderView {
    LeaderView { leader, ..LeaderView::default() }
}

fn town(leader: Option<BrokerId>) -> Town {
    let (inboxes, Arrivals { controller, .. }) = Inboxes::new();
    let (leader, followed) = watch::channel(view(leader));
    let client = ControllerClient::new(Peers::new(ME, inboxes), followed);
    Town { client, questions: controller, leader }
}

fn run(test: impl Future<Output = ()>) {
    task::block_on(RuntimeOptions::default(), test).unwrap();
}

fn soon() -> Instant {
    time::now() + Duration::from_secs(10)
}

fn heartbeat() -> ControllerQuestion {
    ControllerQuestion::Heartbeat { broker: ME, broker_epoch: 0, applied: 0, wants: Wants::Serve }
}

fn proposal() -> ControllerQuestion {
    ControllerQuestion::Propose(Command::SetFeatureLevel { level: 1 }.into())
}

fn asking(
    client: &ControllerClient,
    question: ControllerQuestion,
    until: Instant,
) -> task::JoinHandle<Result<ControllerReply, AskError>> {
    let client = client.clone();
    task::spawn("asker", async move { client.ask(question, until).await })
}

#[test]
fn a_question_waits_until_somebody_leads_and_is_asked_again_until_it_is_taken() {
    run(async {
        let mut town = town(None);
        let asked = asking(&town.client, proposal(), soon());
        town.leader.send_replace(view(Some(ME)));
        for why in [NotDone::NotController(Some(ME)), NotDone::Overloaded, NotDone::NotController(None)] {
            let question = town.questions.recv().await.unwrap();
            question.reply.send(ControllerReply::NotDone(why)).unwrap();
        }
        let question = town.questions.recv().await.unwrap();
        question.reply.send(ControllerReply::Read(7)).unwrap();
        assert_eq!(asked.await.unwrap(), Ok(ControllerReply::Read(7)));
    });
}

#[test]
fn a_leader_that_cannot_be_reached_is_given_up_for_another() {
    run(async {
        // Node 2 cannot be reached from here; what may be asked twice goes to the node that is known next.
        let mut town = town(Some(BrokerId(2)));
        let asked = asking(&town.client, heartbeat(), soon());
        town.leader.send_replace(view(Some(ME)));
        let standing = Standing { fenced: false, may_go: false, applied: 0 };
        let question = town.questions.recv().await.unwrap();
        question.reply.send(ControllerReply::Heartbeat(Ok(standing))).unwrap();
        assert_eq!(asked.await.unwrap(), Ok(ControllerReply::Heartbeat(Ok(standing))));
    });
}

#[test]
fn what_may_have_been_done_is_not_asked_twice() {
    run(async {
        let mut town = town(Some(ME));
        let asked = asking(&town.client, proposal(), soon());
        let question = town.questions.recv().await.unwrap();
        question.reply.send(ControllerReply::Unknown).unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Unknown));

        let asked = asking(&town.client, proposal(), soon());
        drop(town.questions.recv().await.unwrap());
        assert_eq!(asked.await.unwrap(), Err(AskError::Unknown));

        let asked = asking(&town.client, proposal(), time::now() + Duration::from_millis(5));
        let _unanswered = town.questions.recv().await.unwrap();
        assert_eq!(asked.await.unwrap(), Err(AskError::Unknown), "late");
    });
}

#[test]
fn what_may_be_done_twice_is_asked_of_the_next_leader() {
    run(async {
        let mut town = town(Some(ME));
        let asked = asking(&town.client, heartbeat(), soon());
        let unanswered = town.questions.recv().await.unwrap();
        town.leader.send_replace(view(Some(BrokerId(2))));
        town.leader.send_replace(view(Some(ME)));
        drop(unanswered);
        let again = town.questions.recv().await.unwrap();
        again.reply.send(ControllerReply::Read(1)).unwrap();
        assert_eq!(asked.await.unwrap(), Ok(ControllerReply::Read(1)));
    });
}

#[test]
fn without_a_leader_nothing_is_done_in_time_and_a_stop_ends_the_waiting() {
    run(async {
        let town = town(None);
        let late = town.client.ask(proposal(), time::now() + Duration::from_millis(30)).await;
        assert_eq!(late, Err(AskError::NotDone(NotDone::NotController(None))));
        let asked = asking(&town.client, proposal(), soon());
        drop(town.leader);
        assert_eq!(asked.await.unwrap(), Err(AskError::Stopping));
    });
}
