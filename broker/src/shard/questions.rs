//! Questions about replicas: they wait until the logs that they are about are open, and are answered at once then.

use weir_protocol::partition::Input;
use weir_protocol::types::LogId;

use super::calls::{Parked, Question};
use super::entry::{Entry, OPENING_QUEUE_MAX, Queued};
use super::owner::Owner;
use super::{DeleteRecordsCall, FetchCall, FetchDone, OffsetsCall, OffsetsDone, SizesCall, TailsCall};

impl Owner {
    pub(super) fn on_question(&mut self, question: Question, logs: &[LogId]) {
        let mut waiting = Vec::new();
        for log in logs {
            // A log that cannot be had is reported when the question is answered.
            if let Ok(Entry::Opening { queue, .. }) = self.entry(*log)
                && queue.len() < OPENING_QUEUE_MAX
            {
                waiting.push(*log);
            }
        }
        if waiting.is_empty() {
            self.answer(question);
            return;
        }
        let number = self.parked.insert(Parked { question, missing: waiting.len() });
        for log in waiting {
            if let Some(Entry::Opening { queue, .. }) = self.entries.get_mut(&log) {
                queue.push(Queued::Question(number));
            }
        }
    }

    pub(super) fn one_less_missing(&mut self, number: u32) {
        let Some(parked) = self.parked.get_mut(number) else { return };
        parked.missing -= 1;
        if parked.missing == 0
            && let Some(parked) = self.parked.remove(number)
        {
            self.answer(parked.question);
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Fetch(call) => self.answer_fetch(*call),
            Question::Offsets(call) => self.answer_offsets(*call),
            Question::DeleteRecords(call) => self.delete_records(*call),
            Question::Producers(call) => {
                let producers = self.open_entry(call.log).and_then(|open| open.producers());
                // Whoever asked may have gone.
                let _ = call.reply.send(producers);
            }
            Question::Tails(call) => self.answer_tails(*call),
        }
    }

    fn answer_fetch(&mut self, call: FetchCall) {
        let mut done = Vec::with_capacity(call.parts.len());
        for part in &call.parts {
            done.push(match self.open_entry(part.log) {
                Ok(open) => open.fetch(part, call.watch.as_ref()),
                Err(error) => FetchDone { index: part.index, result: Err(error) },
            });
        }
        // Whoever asked may have gone.
        let _ = call.reply.send(done);
    }

    fn answer_offsets(&mut self, call: OffsetsCall) {
        let mut done = Vec::with_capacity(call.parts.len());
        for part in &call.parts {
            done.push(match self.open_entry(part.log) {
                Ok(open) => open.offsets(part),
                Err(error) => OffsetsDone { index: part.index, result: Err(error) },
            });
        }
        let _ = call.reply.send(done);
    }

    /// Says how far replicas reach of which the image says that nobody leads them, in the epoch that is asked about. They
    /// follow nobody then, and what they answer stays true.
    fn answer_tails(&mut self, call: TailsCall) {
        let mut tails = Vec::with_capacity(call.questions.len());
        for question in call.questions {
            let decided = self.image.decided(question.log).filter(|(partition, _)| {
                partition.leader.is_none() && partition.leader_epoch == question.leader_epoch
            });
            if decided.is_none() {
                continue;
            }
            self.follow_image(question.log);
            if let Ok(open) = self.open_entry(question.log) {
                tails.push((question, open.tail()));
            }
        }
        // Whoever asked may have gone.
        let _ = call.reply.send(tails);
    }

    pub(super) fn answer_sizes(&self, call: SizesCall) {
        let size = |log| match self.entries.get(&log) {
            Some(Entry::Open(open)) => Some((log, open.log.size_bytes())),
            _ => None,
        };
        // Whoever asked may have gone.
        let _ = call.reply.send(call.logs.into_iter().filter_map(size).collect());
    }

    fn delete_records(&mut self, call: DeleteRecordsCall) {
        let log = call.log;
        let decided = self.open_entry(log).and_then(|open| open.new_start(call.before));
        match decided {
            // Whoever asked may have gone.
            Err(error) => drop(call.reply.send(Err(error))),
            Ok(start) => {
                if let Ok(open) = self.open_entry(log) {
                    open.log.set_start(start);
                    open.starts.wait_for(start, call.reply);
                }
                self.step(log, Input::StartOffset { start }, None);
            }
        }
    }
}
