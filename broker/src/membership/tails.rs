//! Tells the controller how far this broker's replicas reach (contract 5).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use weir_protocol::controller::{Question, Tail};
use weir_protocol::metadata::Image;
use weir_runtime::{task, time};

use crate::metadata::ImageReader;
use crate::peer::Asked;
use crate::peer::message::{BrokerQuestion, BrokerReply};
use crate::shard::{Message, Shards, TailsCall};

/// Questions that are worked on at a time; one more is not answered, and asked again.
const UNDER_WAY_MAX: usize = 64;
/// How long to wait for an image that is not far behind.
const IMAGE_MAX: Duration = Duration::from_millis(200);
/// How long to wait for logs that must be opened first. What is open then is answered when it is asked for again.
const OPEN_MAX: Duration = Duration::from_millis(600);

/// Answers as long as the image says what this broker is asked about.
pub(crate) async fn answer(
    mut questions: mpsc::Receiver<Asked<BrokerQuestion, BrokerReply>>,
    image: ImageReader,
    shards: Shards,
) {
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    loop {
        let asked = weir_runtime::select! {
            asked = questions.recv() => asked,
            () = image.closed() => None,
        };
        let Some(Asked { question, reply, .. }) = asked else { return };
        let BrokerQuestion::Tails { broker_epoch, questions } = question;
        // Dropped unanswered: the controller asks again.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (image, shards) = (image.clone(), shards.clone());
        task::spawn("tails", async move {
            let tails = collect(broker_epoch, questions, &image, &shards).await;
            if let Some(broker_epoch) = image.own_epoch() {
                // The controller may have gone.
                let _ = reply.send(BrokerReply::Tails { broker_epoch, tails });
            }
            drop(place);
        });
    }
}

async fn collect(
    broker_epoch: i64,
    questions: Vec<Question>,
    image: &ImageReader,
    shards: &Shards,
) -> Vec<(Question, Tail)> {
    let process = image.process();
    let is_asked = |image: &Image| process.epoch(image) == Some(broker_epoch);
    let knows = |image: &Image, question: &Question| {
        image.partition(question.log).is_some_and(|state| state.leader_epoch >= question.leader_epoch)
    };
    let knows_all =
        |image: &Image| is_asked(image) && questions.iter().all(|question| knows(image, question));
    // An image that is behind leaves questions out.
    let _ = time::timeout(IMAGE_MAX, image.wait_for(knows_all)).await;
    if image.own_epoch() != Some(broker_epoch) {
        return Vec::new();
    }
    let mut answers = Vec::new();
    for (shard, questions) in shards.group(questions, |question| question.log).into_iter().enumerate() {
        if questions.is_empty() {
            continue;
        }
        let (reply, answer) = oneshot::channel();
        if shards.send(shard, Message::Tails(Box::new(TailsCall { questions, reply }))).await.is_ok() {
            answers.push(answer);
        }
    }
    let until = time::now() + OPEN_MAX;
    let mut tails = Vec::new();
    for answer in answers {
        if let Ok(Ok(found)) = time::timeout(until - time::now(), answer).await {
            tails.extend(found);
        }
    }
    tails
}
