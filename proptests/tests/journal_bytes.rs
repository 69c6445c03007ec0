//! Whatever stands in a journal's files: reading it neither panics nor takes memory without bound, and the verdict keeps its
//! own laws.

mod journal_folder;

use journal_folder::{Folder, Shape};
use proptest::prelude::*;
use weir_proptests::cases;
use weir_proptests::targets::journal::check;

const BLOCK: usize = 4096;

/// A block's bytes are changed, and its checksum is made to fit, so that the change is believed.
#[derive(Debug, Clone)]
struct Forgery {
    block: u16,
    at: u16,
    bytes: Vec<u8>,
}

fn forgery() -> impl Strategy<Value = Forgery> {
    // Mostly where the headers are.
    let at = prop_oneof![5 => 7u16..110, 1 => 4u16..4090];
    let number = prop_oneof![any::<u64>(), 0u64..40, Just(u64::MAX), Just(u64::MAX / 2)];
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..6),
        number.prop_map(|number| number.to_le_bytes().to_vec()),
    ];
    (any::<u16>(), at, bytes).prop_map(|(block, at, bytes)| Forgery { block, at, bytes })
}

fn forge(image: &mut [u8], forgery: &Forgery) {
    let block = forgery.block as usize % (image.len() / BLOCK);
    let block = &mut image[block * BLOCK..][..BLOCK];
    for (byte, new) in block[forgery.at as usize..].iter_mut().zip(&forgery.bytes) {
        *byte = *new;
    }
    let checksum = crc32c(&block[4..]);
    block[0..4].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(500)))]

    #[test]
    fn any_bytes(
        images in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3 * BLOCK), 0..3),
        from in proptest::option::of(any::<u64>().prop_map(|from| from / 2 + 1)),
    ) {
        check(&images, from);
    }

    #[test]
    fn forged_blocks(
        sizes in proptest::collection::vec(proptest::collection::vec(0u16..5000, 0..3), 1..12),
        forgeries in proptest::collection::vec(forgery(), 1..8),
        from in proptest::option::of(1u64..12),
    ) {
        let mut folder = Folder::new(Shape { file_bytes: 12 * 4096, files_max: 3 });
        for (number, sizes) in sizes.iter().enumerate() {
            folder.round(sizes);
            if number % 4 == 3 {
                folder.restart(false);
            }
        }
        let mut images = folder.into_images();
        let count = images.len();
        for (number, forgery) in forgeries.iter().enumerate() {
            forge(&mut images[number % count], forgery);
        }
        check(&images, from);
    }
}
