//! Producer ids: the cluster gives them out in blocks (KIP-730), the broker one by one.

use tokio::sync::Mutex;
use weir_protocol::metadata::{Change, Command, ProducerIdBlock};
use weir_protocol::types::BrokerId;

use crate::metadata::{ImageReader, Metadata, ProposeError};

/// Gives out ids that nobody has had before. What is left of a block when the broker ends is never used.
pub(crate) struct ProducerIds {
    me: BrokerId,
    image: ImageReader,
    metadata: Metadata,
    /// What is left of the current block.
    left: Mutex<ProducerIdBlock>,
}

impl ProducerIds {
    pub(crate) fn new(me: BrokerId, image: ImageReader, metadata: Metadata) -> ProducerIds {
        ProducerIds { me, image, metadata, left: Mutex::new(ProducerIdBlock { first: 0, count: 0 }) }
    }

    /// The next id. Waits for the quorum when a block is used up.
    pub(crate) async fn next(&self) -> Result<i64, ProposeError> {
        let mut left = self.left.lock().await;
        if left.count == 0 {
            *left = self.allocate().await?;
        }
        let id = left.first;
        *left = ProducerIdBlock { first: id + 1, count: left.count - 1 };
        Ok(id)
    }

    async fn allocate(&self) -> Result<ProducerIdBlock, ProposeError> {
        let broker_epoch = self.image.current().image.broker(self.me).map_or(-1, |broker| broker.epoch);
        let command = Command::AllocateProducerIds { broker: self.me, broker_epoch };
        match self.metadata.propose(command).await? {
            Change::ProducerIdsAllocated { block, .. } if block.count > 0 => Ok(block),
            _ => Err(ProposeError::Unknown),
        }
    }
}
