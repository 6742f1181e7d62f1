//! The invariants of a dataset's tensors, as functions of plain slices: `Err` says which one is broken, and where.
//!
//! Rows are checked in parallel; of several faults the first in the file is reported, whatever the thread count.
#![forbid(unsafe_code)]

use half::f16;
use rayon::prelude::*;

use super::format::NO_LABEL;

/// A value, or the invariant that does not hold; the caller adds the file's name.
pub(super) type Check<T = ()> = Result<T, String>;

/// Rows or elements a thread checks at a time.
const CHUNK: usize = 1 << 14;

/// `offsets` begin with 0, never decrease and end with `nnz`.
pub(super) fn offsets(offsets: &[u64], nnz: usize) -> Check {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err("`offsets` is empty; it has one entry more than there are rows".into());
    };
    if first != 0 {
        return Err(format!("`offsets` begins with {first}, not 0"));
    }
    if let Some(i) = offsets.windows(2).position(|w| w[0] > w[1]) {
        return Err(format!("`offsets` decreases after row {i}: {} then {}", offsets[i], offsets[i + 1]));
    }
    if last != nnz as u64 {
        return Err(format!("`offsets` ends with {last}, but there are {nnz} tokens"));
    }
    Ok(())
}

/// The tokens of each row strictly increase and are below `vocabulary`; `offsets` has been checked.
pub(super) fn tokens(tokens: &[u32], offsets: &[u64], vocabulary: u32) -> Check {
    let fault = offsets.par_windows(2).with_min_len(CHUNK).enumerate().find_map_first(|(i, w)| {
        let row = &tokens[w[0] as usize..w[1] as usize];
        let unordered = row.windows(2).any(|t| t[0] >= t[1]);
        let highest = row.last().copied().filter(|t| *t >= vocabulary);
        (unordered || highest.is_some()).then_some((i, highest))
    });
    match fault {
        None => Ok(()),
        Some((i, Some(token))) => Err(format!("row {i} has token {token}, but the vocabulary has {vocabulary}")),
        Some((i, None)) => Err(format!("the tokens of row {i} do not strictly increase")),
    }
}

/// Labels are none or name one of `names`.
pub(super) fn labels(labels: &[u32], names: usize) -> Check {
    match labels.iter().position(|l| *l != NO_LABEL && *l as usize >= names) {
        Some(i) => Err(format!("row {i} has label {}, but there are {names} label names", labels[i])),
        None => Ok(()),
    }
}

/// Each row's language is one of `names`.
pub(super) fn languages(languages: &[u16], names: usize) -> Check {
    match languages.iter().position(|l| usize::from(*l) >= names) {
        Some(i) => Err(format!("row {i} has language {}, but there are {names} language names", languages[i])),
        None => Ok(()),
    }
}

/// `groups` begin with 0, increase by at least 2 and end with the number of rows.
pub(super) fn groups(groups: &[u64], rows: usize) -> Check {
    let (Some(&first), Some(&last)) = (groups.first(), groups.last()) else {
        return Err("`groups` is empty; it has one entry more than there are groups".into());
    };
    if first != 0 {
        return Err(format!("`groups` begins with {first}, not 0"));
    }
    if let Some(j) = groups.windows(2).position(|w| w[1] < w[0].saturating_add(2)) {
        return Err(format!("group {j} goes from row {} to {}; it needs two rows", groups[j], groups[j + 1]));
    }
    if last != rows as u64 {
        return Err(format!("`groups` ends with {last}, but there are {rows} rows"));
    }
    Ok(())
}

/// All values are finite.
pub(super) fn finite_f32(name: &str, values: &[f32]) -> Check {
    let at = values
        .par_chunks(CHUNK)
        .enumerate()
        .find_map_first(|(c, chunk)| chunk.iter().position(|v| !v.is_finite()).map(|i| c * CHUNK + i));
    at.map_or(Ok(()), |i| Err(format!("`{name}` element {i} is {}, not finite", values[i])))
}

/// All values are finite.
pub(super) fn finite_f16(name: &str, values: &[f16]) -> Check {
    let at = values
        .par_chunks(CHUNK)
        .enumerate()
        .find_map_first(|(c, chunk)| chunk.iter().position(|v| !v.is_finite()).map(|i| c * CHUNK + i));
    at.map_or(Ok(()), |i| Err(format!("`{name}` element {i} is {}, not finite", values[i])))
}

/// All values are positive and finite.
pub(super) fn positive(name: &str, values: &[f32]) -> Check {
    match values.iter().position(|v| !(v.is_finite() && *v > 0.0)) {
        Some(i) => Err(format!("`{name}` element {i} is {}, not a positive number", values[i])),
        None => Ok(()),
    }
}

/// A tensor has as many elements as another demands.
pub(super) fn length(name: &str, found: usize, wanted: usize, whose: &str) -> Check {
    if found == wanted { Ok(()) } else { Err(format!("`{name}` has {found} elements, but {whose} is {wanted}")) }
}
