//! How the values pushed with a row become the weights stored in the file.
#![forbid(unsafe_code)]

/// What [`super::Row::values`] are, and what is done to them.
#[derive(Debug)]
pub enum Weighing {
    /// There are none; all weights are 1 and not stored.
    Ones,
    /// They are the weights.
    Given,
}

impl Weighing {
    /// Whether rows come with values, and the file has the tensor `weights`.
    pub(super) fn takes_values(&self) -> bool {
        !matches!(self, Weighing::Ones)
    }

    /// Whether the file has the tensor `idf`.
    pub(super) fn uses_idf(&self) -> bool {
        false
    }

    /// The inverse document frequencies, after the last row.
    pub(super) fn idf(&self, _frequencies: &[u32], _rows: u64) -> Option<Vec<f32>> {
        None
    }

    /// Makes a row's weights of its values, in place.
    pub(super) fn weigh(&self, _tokens: &[u32], _values: &mut [f32], _idf: Option<&[f32]>) {}
}
