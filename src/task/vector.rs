//! Sparse vectors over n-grams: unit length, dot product.
#![forbid(unsafe_code)]

/// Entries by rising hash.
pub(super) type Sparse = Vec<(u64, f64)>;

/// Counts weighted by `(1 + ln n) * weight`, scaled to length 1; all zero if nothing has weight.
pub(super) fn unit(counts: &[(u64, u32)], weight: impl Fn(u64) -> f64) -> Sparse {
    let weigh = |&(hash, n): &(u64, u32)| (hash, (1.0 + f64::from(n).ln()) * weight(hash));
    scaled(counts.iter().map(weigh).collect())
}

/// The sum of vectors, scaled to length 1.
pub(super) fn centroid(vectors: &[Sparse]) -> Sparse {
    let mut all: Sparse = vectors.iter().flatten().copied().collect();
    all.sort_by_key(|entry| entry.0);
    scaled(all.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run.iter().map(|e| e.1).sum())).collect())
}

fn scaled(mut vector: Sparse) -> Sparse {
    let norm = vector.iter().map(|e| e.1 * e.1).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|e| e.1 /= norm);
    }
    vector
}

/// The sum of products.
pub(super) fn dot(a: &Sparse, b: &Sparse) -> f64 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                sum += a[i].1 * b[j].1;
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    sum
}
