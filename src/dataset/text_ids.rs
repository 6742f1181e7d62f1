//! Text ids: from the strings of an id column (numbers, emoji codes, keys) to u32, in bounded memory.
//!
//! If every string is a u32 as it is normally written, the numbers are kept. Otherwise a string's number is that of
//! the first row that has it: unlike a hash of 32 bits this keeps millions of strings apart. Rows are joined by a
//! 64-bit hash, sorted outside memory; among ten million different strings two collide with probability 3e-6.
#![forbid(unsafe_code)]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::external_sort::{Sorted, Sorter};
use super::spool::{Spool, SpoolReader};

/// The ids of rows, collected in the order of rows.
pub(super) struct TextIds {
    folder: PathBuf,
    numbers: Spool<u32>,
    all_numbers: bool,
    hashes: Spool<u64>,
}

impl TextIds {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let (numbers, hashes) = (Spool::new(folder)?, Spool::new(folder)?);
        Ok(TextIds { folder: folder.to_path_buf(), numbers, all_numbers: true, hashes })
    }

    pub(super) fn push(&mut self, id: &str) -> io::Result<()> {
        // The hash joins equal strings and is then forgotten, so it may differ between releases of the compiler.
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.hashes.push(&[hasher.finish()])?;
        match canonical_number(id) {
            Some(number) if self.all_numbers => self.numbers.push(&[number]),
            _ => {
                self.all_numbers = false;
                Ok(())
            }
        }
    }

    /// One number for each row, in the order of rows.
    pub(super) fn into_numbers(self) -> io::Result<Numbers> {
        if self.all_numbers {
            return Ok(Numbers::Kept(self.numbers.into_reader()?));
        }
        let mut by_hash = Sorter::new(&self.folder);
        let (mut hashes, mut row) = (self.hashes.into_reader()?, 0);
        while let Some(hash) = hashes.next()? {
            by_hash.push([hash, row])?;
            row += 1;
        }
        let (mut by_hash, mut by_row) = (by_hash.sorted()?, Sorter::new(&self.folder));
        let mut first: Option<[u64; 2]> = None;
        while let Some([hash, row]) = by_hash.next()? {
            let [_, number] = *first.insert(first.filter(|[h, _]| *h == hash).unwrap_or([hash, row]));
            by_row.push([row, number])?;
        }
        Ok(Numbers::Assigned(by_row.sorted()?))
    }
}

/// The numbers of the rows, in order.
pub(super) enum Numbers {
    Kept(SpoolReader<u32>),
    Assigned(Sorted),
}

impl Numbers {
    pub(super) fn next(&mut self) -> io::Result<Option<u32>> {
        match self {
            Numbers::Kept(numbers) => numbers.next(),
            // Row numbers are below `MAX_ROWS`, which the writer enforces.
            Numbers::Assigned(pairs) => Ok(pairs.next()?.map(|[_, number]| number as u32)),
        }
    }
}

/// `7` but neither `07` nor `+7`: strings that differ must stay apart.
fn canonical_number(id: &str) -> Option<u32> {
    let digits = id.bytes().all(|b| b.is_ascii_digit());
    let padded = id.len() > 1 && id.starts_with('0');
    if digits && !padded { id.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ids: &[&str]) -> Vec<u32> {
        let mut text_ids = TextIds::new(Path::new(".")).unwrap();
        for id in ids {
            text_ids.push(id).unwrap();
        }
        let mut numbers = text_ids.into_numbers().unwrap();
        std::iter::from_fn(|| numbers.next().unwrap()).collect()
    }

    #[test]
    fn numbers_are_kept() {
        assert_eq!(numbers(&["7", "0", "4294967295", "7"]), [7, 0, u32::MAX, 7]);
        // One string that is not written as a number is: then none is one, and `7` and `07` stay apart.
        assert_eq!(numbers(&["9", "7", "07", "7"]), [0, 1, 2, 1]);
    }

    #[test]
    fn strings_get_the_row_that_has_them_first() {
        assert_eq!(numbers(&["7", "x", "7", "07", "x", "+7", "4294967296", ""]), [0, 1, 0, 3, 1, 5, 6, 7]);
    }
}
