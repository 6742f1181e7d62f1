//! In how many texts of a language a word or n-gram occurs: hashed counters of fixed size, so any corpus fits.
#![forbid(unsafe_code)]

/// Counters are `2^BITS`: a megabyte. Two hashes that meet in one share it, and then count as more frequent.
const BITS: u32 = 18;

/// The document frequencies of one language.
///
/// ```
/// use metaglot::task::Frequencies;
///
/// let mut frequencies = Frequencies::new();
/// frequencies.add([1 << 60, 2 << 60]);
/// frequencies.add([1 << 60]);
/// let idf = |n: f64, df: f64| ((n + 1.0) / (df + 0.5)).ln();
/// assert_eq!(frequencies.idf(1 << 60), idf(2.0, 2.0));
/// assert_eq!(frequencies.idf(7 << 60), idf(2.0, 0.0));
/// ```
#[derive(Clone, Debug)]
pub struct Frequencies {
    counts: Vec<u32>,
    texts: u32,
    slots: Vec<u32>,
}

impl Frequencies {
    /// Of no text yet.
    pub fn new() -> Self {
        Frequencies { counts: vec![0; 1 << BITS], texts: 0, slots: Vec::new() }
    }

    /// Counts a text by the hashes of what is in it; repetitions count once.
    pub fn add(&mut self, hashes: impl IntoIterator<Item = u64>) {
        self.slots.clear();
        self.slots.extend(hashes.into_iter().map(slot));
        self.slots.sort_unstable();
        self.slots.dedup();
        for &slot in &self.slots {
            let count = &mut self.counts[slot as usize];
            *count = count.saturating_add(1);
        }
        self.texts = self.texts.saturating_add(1);
    }

    /// `ln((n + 1) / (df + 1/2))` of n texts, df of which have it. Above 0, for df is at most n.
    pub fn idf(&self, hash: u64) -> f64 {
        let df = f64::from(self.counts[slot(hash) as usize]);
        ((f64::from(self.texts) + 1.0) / (df + 0.5)).ln()
    }
}

impl Default for Frequencies {
    fn default() -> Self {
        Self::new()
    }
}

fn slot(hash: u64) -> u32 {
    (hash >> (64 - BITS)) as u32
}
