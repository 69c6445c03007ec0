//! Bytes only: what travels between clients, brokers and disks, and how it is read without trusting it.
//!
//! * [`records`]: record batches (magic 2), the unit of the log, over [`bytes::Bytes`] and without a copy.
//! * [`codec`]: the compression codecs of record batches, with a hard bound on what they may produce.
//! * [`frame`]: length-prefixed Kafka frames and request headers.
//! * [`schema`]: the shapes of requests and responses, walked before anything is allocated (K23).
//! * [`kafka`]: requests and responses decoded and encoded, on top of the crate `kafka-protocol`.
//! * [`consumer_protocol`]: what members of a classic group tell each other.
//! * [`versions`]: which version of which API is advertised and served.
//! * [`offsets_topic`]: the records of `__consumer_offsets`.
//! * [`internal`]: Weir's own messages and file blobs.
//! * [`peer_frame`]: the frames in which the nodes of a cluster send such messages to each other.
//!
//! Nothing in here waits, reads a clock or touches a file. Nothing panics on, or allocates in proportion
//! to, a number that a peer or a disk supplied.

pub mod codec;
pub mod consumer_protocol;
pub mod frame;
pub mod internal;
pub mod kafka;
pub mod offsets_topic;
pub mod peer_frame;
pub mod records;
pub mod schema;
pub mod versions;
