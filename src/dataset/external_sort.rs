//! Sorting pairs of numbers in bounded memory: sorted runs in unnamed files, then a merge.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::path::{Path, PathBuf};

use super::spool::{Spool, SpoolReader};

/// Pairs sorted in memory at a time: 32 MiB.
const RUN: usize = 1 << 21;

/// What is sorted: by the first number, then by the second.
pub(super) type Pair = [u64; 2];

/// Takes pairs in any order.
pub(super) struct Sorter {
    folder: PathBuf,
    run_len: usize,
    run: Vec<Pair>,
    runs: Vec<SpoolReader<Pair>>,
}

impl Sorter {
    pub(super) fn new(folder: &Path) -> Self {
        Sorter::with_run_len(folder, RUN)
    }

    fn with_run_len(folder: &Path, run_len: usize) -> Self {
        Sorter { folder: folder.to_path_buf(), run_len, run: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn push(&mut self, pair: Pair) -> io::Result<()> {
        self.run.push(pair);
        if self.run.len() < self.run_len {
            return Ok(());
        }
        self.run.sort_unstable();
        let mut spool = Spool::new(&self.folder)?;
        spool.push(&self.run)?;
        self.runs.push(spool.into_reader()?);
        self.run.clear();
        Ok(())
    }

    /// Ends the input.
    pub(super) fn sorted(mut self) -> io::Result<Sorted> {
        self.run.sort_unstable();
        let mut sorted = Sorted { heap: BinaryHeap::new(), memory: self.run.into_iter(), runs: self.runs };
        for source in 0..=sorted.runs.len() {
            sorted.refill(source)?;
        }
        Ok(sorted)
    }
}

/// Gives the pairs in ascending order.
pub(super) struct Sorted {
    /// The least pair of each source that is not yet empty.
    heap: BinaryHeap<Reverse<(Pair, usize)>>,
    /// Source `runs.len()`: the last run never went to a file.
    memory: std::vec::IntoIter<Pair>,
    runs: Vec<SpoolReader<Pair>>,
}

impl Sorted {
    pub(super) fn next(&mut self) -> io::Result<Option<Pair>> {
        let Some(Reverse((pair, source))) = self.heap.pop() else { return Ok(None) };
        self.refill(source)?;
        Ok(Some(pair))
    }

    fn refill(&mut self, source: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(source) {
            Some(run) => run.next()?,
            None => self.memory.next(),
        };
        self.heap.extend(next.map(|pair| Reverse((pair, source))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_sorting_in_memory(
            mut pairs in prop::collection::vec((0u64..50, any::<u64>()).prop_map(|(a, b)| [a, b]), 0..100),
            run_len in 1usize..40,
        ) {
            let mut sorter = Sorter::with_run_len(Path::new("."), run_len);
            for pair in &pairs {
                sorter.push(*pair).unwrap();
            }
            let (mut sorted, mut found) = (sorter.sorted().unwrap(), Vec::new());
            while let Some(pair) = sorted.next().unwrap() {
                found.push(pair);
            }
            pairs.sort();
            prop_assert_eq!(found, pairs);
        }
    }
}
