//! Which versions of which requests this client speaks.

use kafka_protocol::protocol::Request;
use weir_wire::kafka::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};

/// A request that this client makes.
pub(crate) trait Call: Request {
    /// Its name, as Kafka's documents have it.
    const NAME: &'static str;
    /// The first and the last version that this client speaks.
    const SPOKEN: (i16, i16);
}

macro_rules! calls {
    ($($request:ty = $name:literal $first:literal ..= $last:literal;)*) => {
        $(impl Call for $request {
            const NAME: &'static str = $name;
            const SPOKEN: (i16, i16) = ($first, $last);
        })*
    };
}

calls! {
    // 13 names topics by id, 12 takes part in transactions.
    ProduceRequest = "Produce" 3..=11;
    // 13 names topics by id.
    FetchRequest = "Fetch" 4..=12;
    ListOffsetsRequest = "ListOffsets" 1..=7;
    MetadataRequest = "Metadata" 1..=12;
    ApiVersionsRequest = "ApiVersions" 0..=4;
    CreateTopicsRequest = "CreateTopics" 2..=7;
    DeleteTopicsRequest = "DeleteTopics" 1..=5;
    DeleteRecordsRequest = "DeleteRecords" 0..=2;
    DescribeClusterRequest = "DescribeCluster" 0..=1;
}
