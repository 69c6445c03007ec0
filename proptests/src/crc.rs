//! Checksums of our own: independent of the crates that the product uses.

/// CRC-32C (Castagnoli), of record batches and of the files of a data folder.
pub(crate) const CASTAGNOLI: Crc = Crc::new(0x82f6_3b78);
/// CRC-32 (IEEE), of blobs.
pub(crate) const IEEE: Crc = Crc::new(0xedb8_8320);

/// A reflected CRC of 32 bits.
#[derive(Debug)]
pub(crate) struct Crc([u32; 256]);

impl Crc {
    const fn new(polynomial: u32) -> Crc {
        let mut table = [0u32; 256];
        let mut at = 0;
        while at < 256 {
            let mut crc = at as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (polynomial * (crc & 1));
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        Crc(table)
    }

    /// The checksum of these pieces as if they stood in a row.
    pub(crate) fn of(&self, pieces: &[&[u8]]) -> u32 {
        let bytes = pieces.iter().copied().flatten();
        !bytes.fold(!0u32, |crc, byte| (crc >> 8) ^ self.0[((crc ^ u32::from(*byte)) & 0xff) as usize])
    }
}
