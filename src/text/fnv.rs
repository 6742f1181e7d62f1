//! The hash behind token ids and n-gram counters; part of the file formats, so it never changes.
#![forbid(unsafe_code)]

/// FNV-1a, 64 bits: `h = (h ^ byte) * prime`. Its high bits hardly depend on the last bytes, hence the finaliser.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    /// The hash of nothing; `domain` keeps hashes of different things apart.
    pub(crate) fn new(domain: u8) -> Self {
        Fnv(0xcbf2_9ce4_8422_2325).byte(domain)
    }

    pub(crate) fn byte(self, byte: u8) -> Self {
        Fnv((self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// MurmurHash3's 64-bit finaliser: every input bit reaches every output bit.
    pub(crate) fn finish(self) -> u64 {
        let mut h = self.0;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }
}
