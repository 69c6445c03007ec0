//! Requests, responses, frames, codecs and our own blobs: round trips, truncation, arbitrary bytes.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use weir_proptests::cases;
use weir_proptests::mutate::Random;
use weir_wire::codec::{Compression, compress, decompress};
use weir_wire::frame::{Progress, take_frame, take_request_header};
use weir_wire::internal::{BlobKind, open, seal};
use weir_wire::kafka::decode_request;
use weir_wire::schema::{Message, SampleOptions, Shape, sample, shapes, walk};

const TAGGED: SampleOptions = SampleOptions { elements_max: 4, tagged: true };
const KIND: BlobKind = BlobKind { magic: *b"WPRO", version: 1, name: "test blob" };

fn shape() -> impl Strategy<Value = &'static Shape> {
    (0..shapes().len()).prop_map(|at| &shapes()[at])
}

/// A version of the message that `draw` chooses, and a random message of it.
fn sampled(message: &Message, draw: prop::sample::Index, seed: u64) -> (i16, Vec<u8>) {
    let (first, last) = message.versions;
    let version = first + draw.index((last - first + 1) as usize) as i16;
    let mut random = Random::new(seed);
    (version, sample(message, version, TAGGED, &mut || random.number()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]

    #[test]
    fn each_request_decodes_and_no_part_of_it_does(
        shape in shape(),
        draw in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (version, body) = sampled(&shape.request, draw, seed);
        let request = decode_request(shape.key, version, Bytes::from(body.clone())).expect("it is valid");
        prop_assert_eq!(request.key() as i16, shape.key);
        if !body.is_empty() {
            let cut = Bytes::from(body.clone()).slice(..cut.index(body.len()));
            prop_assert!(decode_request(shape.key, version, cut).is_err());
        }
    }

    #[test]
    fn each_response_is_walked_and_no_part_of_it_is(
        shape in shape(),
        draw in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (version, body) = sampled(&shape.response, draw, seed);
        prop_assert!(walk(&shape.response, version, &body, usize::MAX).is_ok());
        if !body.is_empty() {
            prop_assert!(walk(&shape.response, version, &body[..cut.index(body.len())], usize::MAX).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_a_panic(
        shape in shape(),
        draw in any::<prop::sample::Index>(),
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let (version, _) = sampled(&shape.request, draw, 1);
        let _ = decode_request(shape.key, version, Bytes::from(bytes.clone()));
        let _ = walk(&shape.response, version, &bytes, 100);
        let _ = take_request_header(&mut Bytes::from(bytes));
    }

    #[test]
    fn frames_do_not_depend_on_how_they_arrive(
        frames in vec(vec(any::<u8>(), 0..100), 0..6),
        pieces in vec(1usize..50, 1..20),
    ) {
        let stream: Vec<u8> = frames
            .iter()
            .flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat())
            .collect();
        let (mut rest, mut buffer, mut taken) = (&stream[..], BytesMut::new(), Vec::new());
        for piece in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at((*piece).min(rest.len()));
            buffer.extend_from_slice(piece);
            while let Progress::Frame(frame) = take_frame(&mut buffer, 100).expect("lengths are right") {
                taken.push(frame.to_vec());
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(taken, frames);
    }

    #[test]
    fn payloads_survive_each_codec_and_its_bound_holds(
        codec in proptest::sample::select(&Compression::ALL[..]),
        payload in vec(0u8..8, 0..5_000),
    ) {
        let compressed = compress(codec, &payload).expect("bytes can be compressed");
        prop_assert_eq!(decompress(codec, &compressed, payload.len()), Ok(payload.clone()));
        if !payload.is_empty() {
            prop_assert!(decompress(codec, &compressed, payload.len() - 1).is_err());
        }
    }

    #[test]
    fn a_blob_opens_only_as_it_was_sealed(
        payload in vec(any::<u8>(), 0..300),
        position in any::<prop::sample::Index>(),
    ) {
        let sealed = seal(&KIND, &payload);
        prop_assert_eq!(open(&KIND, &sealed).expect("it is intact").payload, &payload[..]);
        let mut flipped = sealed.to_vec();
        let bit = position.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&KIND, &flipped).is_err());
        prop_assert!(open(&KIND, &sealed[..position.index(sealed.len())]).is_err());
    }
}
