//! How a connection between two nodes begins: each says who it is, and proves that it knows the cluster's secret.
//!
//! ```text
//! client                          server
//! Opening: versions, Hello   →
//!                            ←    Welcome: version, nonce, identity     or a refusal
//! proof                      →
//!                            ←    proof                                 or a refusal
//! ```
//!
//! A proof is the HMAC-SHA-256, under the secret, of a word for its side and of both sides' first messages: with both
//! nonces and both identities in it, it fits no other connection, no other direction and no other pair of nodes. The
//! client proves first. What follows on the connection is neither encrypted nor authenticated: the network between the nodes
//! is trusted not to alter connections.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;
use weir_protocol::types::{BrokerId, FolderId, Incarnation};
use weir_runtime::net::Stream;
use weir_runtime::{random, time};
use weir_wire::internal;
use weir_wire::peer_frame::FrameLimits;

use super::lane::{self, LaneError, PeerReader, PeerWriter};

/// The versions of all that follows the opening that this build speaks.
pub(super) const VERSIONS: Versions = Versions { min: 1, max: 1 };
/// What the first frame begins with.
const MAGIC: [u8; 4] = *b"WEIR";
/// The longest head before both sides have proven who they are.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// How long a handshake may take.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(1);

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) node: BrokerId,
    /// Its data folder.
    pub(crate) folder: FolderId,
    /// Which start of it.
    pub(crate) incarnation: Incarnation,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lane {
    /// Notes and questions.
    Control,
    /// Records of replicas.
    Replica,
}

/// Why one of two nodes does not talk to the other. It reaches both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// It does not prove that it knows the secret.
    #[error("the two nodes have different values of weir.internal.secret")]
    WrongSecret,
    /// It belongs to another cluster.
    #[error("it belongs to cluster {theirs}, the other one to cluster {ours}")]
    OtherCluster {
        /// Of the node that refuses.
        ours: Uuid,
        /// Of the node that is refused.
        theirs: Uuid,
    },
    /// It speaks versions of this protocol that the other does not.
    #[error("it speaks versions {} to {} of the protocol between nodes, the other one {} to {}", theirs.min, theirs.max, ours.min, ours.max)]
    UnknownVersion {
        /// Of the node that refuses.
        ours: Versions,
        /// Of the node that is refused.
        theirs: Versions,
    },
    /// Another node is at this address.
    #[error("node {wanted} is looked for where node {found} is")]
    OtherNode {
        /// Who is looked for.
        wanted: BrokerId,
        /// Who is there.
        found: BrokerId,
    },
}

impl Refusal {
    /// Whether another try ends in the same way, as long as nobody changes a setting.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Refusal::WrongSecret | Refusal::OtherCluster { .. } | Refusal::UnknownVersion { .. } => true,
            // An address may have been somebody else's before.
            Refusal::OtherNode { .. } => false,
        }
    }
}

/// A range of versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// The oldest.
    pub(crate) min: u16,
    /// The newest.
    pub(crate) max: u16,
}

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// One of the two does not want the other.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The connection failed, or something else than a node of Weir's is there.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// It takes too long.
    #[error("the handshake is not done within {HANDSHAKE_MAX:?}")]
    Late,
}

impl From<time::Elapsed> for HandshakeError {
    fn from(_: time::Elapsed) -> HandshakeError {
        HandshakeError::Late
    }
}

/// What this node shows and proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a> {
    /// Who it is.
    pub(crate) me: Identity,
    /// The cluster that it belongs to, as far as it knows.
    pub(crate) cluster: Option<Uuid>,
    /// The cluster's secret; empty where there is none.
    pub(crate) secret: &'a [u8],
}

/// Never changes: nodes of all versions understand each other's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    magic: [u8; 4],
    versions: Versions,
    /// A [`Hello`] of version `versions.max`; later versions must begin with what earlier ones hold.
    hello: Bytes,
}

impl Opening {
    pub(super) fn new(versions: Versions, hello: Bytes) -> Opening {
        Opening { magic: MAGIC, versions, hello }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    nonce: [u8; 32],
    lane: Lane,
    from: Identity,
    to: BrokerId,
    cluster: Option<Uuid>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    version: u16,
    nonce: [u8; 32],
    from: Identity,
    cluster: Option<Uuid>,
}

/// What answers a frame of the handshake.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer<T> {
    GoOn(T),
    Refused(Refusal),
}

type Proof = [u8; 32];

/// Greets as the side that has connected to `to`.
///
/// # Errors
/// See [`HandshakeError`].
pub(crate) async fn connect(
    stream: Stream,
    mine: Credentials<'_>,
    lane: Lane,
    to: BrokerId,
    limits: FrameLimits,
) -> Result<(Identity, PeerReader, PeerWriter), HandshakeError> {
    time::timeout(HANDSHAKE_MAX, greet(stream, mine, lane, to, limits)).await?
}

async fn greet(
    stream: Stream,
    mine: Credentials<'_>,
    lane: Lane,
    to: BrokerId,
    limits: FrameLimits,
) -> Result<(Identity, PeerReader, PeerWriter), HandshakeError> {
    let (mut reader, mut writer) = lane::split(stream, hello_limits());
    let hello = Hello { nonce: nonce(), lane, from: mine.me, to, cluster: mine.cluster };
    let hello = internal::encode(&hello).map_err(LaneError::Head)?;
    let opening = writer.enqueue(&Opening::new(VERSIONS, hello), [])?;
    writer.flush().await?;
    let (welcome, _) = reader.receive_encoded().await?;
    let theirs = decode_answer::<Welcome>(&welcome)?;
    if !(VERSIONS.min..=VERSIONS.max).contains(&theirs.version) {
        let theirs = Versions { min: theirs.version, max: theirs.version };
        return Err(Refusal::UnknownVersion { ours: VERSIONS, theirs }.into());
    }
    check_node(to, theirs.from.node)?;
    let proof: Proof = prove(mine.secret, CLIENT, &opening, &welcome).finalize().into_bytes().into();
    writer.send(&proof, []).await?;
    let (answer, _) = reader.receive_encoded().await?;
    let proof = decode_answer::<Proof>(&answer)?;
    if prove(mine.secret, SERVER, &opening, &welcome).verify_slice(&proof).is_err() {
        return Err(Refusal::WrongSecret.into());
    }
    check_cluster(mine.cluster, theirs.cluster)?;
    reader.set_limits(limits);
    writer.set_limits(limits);
    Ok((theirs.from, reader, writer))
}

/// A peer that has proven who it is.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Who.
    pub(crate) from: Identity,
    /// The cluster that it belongs to, as far as it knows.
    pub(crate) cluster: Option<Uuid>,
    /// What the connection is for.
    pub(crate) lane: Lane,
    /// What it sends.
    pub(crate) reader: PeerReader,
    /// What it is sent.
    pub(crate) writer: PeerWriter,
}

/// Answers a connection that was accepted.
///
/// # Errors
/// See [`HandshakeError`].
pub(crate) async fn accept(
    stream: Stream,
    mine: Credentials<'_>,
    limits: impl Fn(Lane) -> FrameLimits,
) -> Result<Accepted, HandshakeError> {
    time::timeout(HANDSHAKE_MAX, answer(stream, mine, limits)).await?
}

async fn answer(
    stream: Stream,
    mine: Credentials<'_>,
    limits: impl Fn(Lane) -> FrameLimits,
) -> Result<Accepted, HandshakeError> {
    let (mut reader, mut writer) = lane::split(stream, hello_limits());
    let (opening, _) = reader.receive_encoded().await?;
    let hello = match read_opening(&opening, mine.me.node) {
        Ok(hello) => hello,
        Err(error) => return Err(refuse(&mut writer, error).await),
    };
    let version = VERSIONS.max;
    let welcome = Welcome { version, nonce: nonce(), from: mine.me, cluster: mine.cluster };
    let welcome = writer.enqueue(&Answer::GoOn(welcome), [])?;
    writer.flush().await?;
    let (proof, _) = reader.receive::<Proof>().await?;
    let checked = match prove(mine.secret, CLIENT, &opening, &welcome).verify_slice(&proof) {
        Ok(()) => check_cluster(mine.cluster, hello.cluster),
        Err(_) => Err(Refusal::WrongSecret),
    };
    if let Err(refusal) = checked {
        return Err(refuse(&mut writer, refusal.into()).await);
    }
    let proof: Proof = prove(mine.secret, SERVER, &opening, &welcome).finalize().into_bytes().into();
    writer.send(&Answer::GoOn(proof), []).await?;
    let limits = limits(hello.lane);
    reader.set_limits(limits);
    writer.set_limits(limits);
    Ok(Accepted { from: hello.from, cluster: hello.cluster, lane: hello.lane, reader, writer })
}

/// Tells the peer why, if there is something to tell.
async fn refuse(writer: &mut PeerWriter, error: HandshakeError) -> HandshakeError {
    if let HandshakeError::Refused(refusal) = &error
        && let Err(error) = writer.send(&Answer::<()>::Refused(refusal.clone()), []).await
    {
        tracing::debug!(%error, "a node that is refused does not hear why");
    }
    error
}

fn read_opening(opening: &[u8], me: BrokerId) -> Result<Hello, HandshakeError> {
    let opening: Opening = internal::decode(opening, HELLO_BYTES_MAX).map_err(LaneError::Head)?;
    if opening.magic != MAGIC {
        let reason = "it does not begin as a node's first frame does".to_owned();
        let foreign = internal::InternalError::Decode { what: "Opening", bytes: opening.hello.len(), reason };
        return Err(LaneError::Head(foreign).into());
    }
    let theirs = opening.versions;
    if theirs.min > VERSIONS.max || theirs.max < VERSIONS.min {
        return Err(Refusal::UnknownVersion { ours: VERSIONS, theirs }.into());
    }
    let hello: Hello = internal::decode(&opening.hello, HELLO_BYTES_MAX).map_err(LaneError::Head)?;
    check_node(hello.to, me)?;
    Ok(hello)
}

fn decode_answer<T: serde::de::DeserializeOwned>(head: &[u8]) -> Result<T, HandshakeError> {
    match internal::decode(head, HELLO_BYTES_MAX).map_err(LaneError::Head)? {
        Answer::GoOn(value) => Ok(value),
        Answer::Refused(refusal) => Err(refusal.into()),
    }
}

fn check_node(wanted: BrokerId, found: BrokerId) -> Result<(), Refusal> {
    if wanted == found { Ok(()) } else { Err(Refusal::OtherNode { wanted, found }) }
}

pub(super) fn check_cluster(ours: Option<Uuid>, theirs: Option<Uuid>) -> Result<(), Refusal> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Refusal::OtherCluster { ours, theirs }),
        _ => Ok(()),
    }
}

const CLIENT: &[u8] = b"weir client";
const SERVER: &[u8] = b"weir server";

fn prove(secret: &[u8], side: &[u8], opening: &[u8], welcome: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    for part in [side, opening, welcome] {
        // With their lengths, or the end of one could be the beginning of the next.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length; the Result belongs to the trait")]
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("a key of any length")
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    for part in nonce.chunks_exact_mut(8) {
        part.copy_from_slice(&random::u64().to_be_bytes());
    }
    nonce
}

fn hello_limits() -> FrameLimits {
    FrameLimits { head_bytes_max: HELLO_BYTES_MAX, tail_bytes_max: 0 }
}
