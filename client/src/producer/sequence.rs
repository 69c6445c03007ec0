//! Who a producer is to one partition's log, and how far it has counted (KIP-98, KIP-360).

use weir_wire::records::Producer;

/// A producer id as the cluster gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerId {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// The numbers of one partition. Its epoch is its own: leaders compare epochs partition by partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequences {
    /// What the cluster gave.
    given: ProducerId,
    epoch: i16,
    /// That of the next record. Invariant: not negative.
    next: i32,
}

impl Sequences {
    pub(super) fn new(given: ProducerId) -> Self {
        Self { given, epoch: given.epoch, next: 0 }
    }

    /// The numbers of the next batch.
    pub(super) fn take(&mut self, records: usize) -> Producer {
        let stamp = Producer { id: self.given.id, epoch: self.epoch, base_sequence: self.next };
        self.next = after(self.next, records);
        stamp
    }

    /// Begins again at 0 in the next epoch, which leaders take from a producer without asking anybody. `None` where there
    /// is none: a new id is needed.
    pub(super) fn restart(&mut self) -> Option<()> {
        self.epoch = self.epoch.checked_add(1)?;
        self.next = 0;
        Some(())
    }

    /// Whether a batch has its numbers from here.
    pub(super) fn stamps(&self, stamp: Producer) -> bool {
        (stamp.id, stamp.epoch) == (self.given.id, self.epoch)
    }

    /// The id that the cluster gave.
    pub(super) fn given(&self) -> ProducerId {
        self.given
    }
}

/// The sequence that lies so many records behind: 0 comes after 2^31-1 (K12).
pub(super) fn after(sequence: i32, records: usize) -> i32 {
    let wrapped = (u64::from(sequence.unsigned_abs()) + records as u64) & u64::from(i32::MAX.unsigned_abs());
    i32::try_from(wrapped).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k12_the_sequence_wraps_to_0() {
        assert_eq!(after(0, 3), 3);
        assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 2, 5), 2);
        let mut sequences =
            Sequences { next: i32::MAX - 1, ..Sequences::new(ProducerId { id: 1, epoch: 0 }) };
        let taken: Vec<i32> = (0..3).map(|_| sequences.take(1).base_sequence).collect();
        assert_eq!(taken, [i32::MAX - 1, i32::MAX, 0]);
    }

    #[test]
    fn a_restart_begins_at_0_in_the_next_epoch_until_there_is_none() {
        let mut sequences = Sequences::new(ProducerId { id: 1, epoch: i16::MAX - 1 });
        sequences.take(5);
        sequences.restart().unwrap();
        assert_eq!(sequences.take(1), Producer { id: 1, epoch: i16::MAX, base_sequence: 0 });
        assert_eq!(sequences.restart(), None);
    }
}
