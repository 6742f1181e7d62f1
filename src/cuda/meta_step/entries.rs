//! The entries of a batch of token bags: which rows of the table they name, and the entries in those rows' order.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::plan::StepPlan;
use super::spread;
use crate::cpu::Cpu;
use crate::model::InputKind;
use crate::view::Bags;

/// What is known of a token while a batch is laid out.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Its place among the tokens that occur; until they are all known, whether it is one of them.
    number: u32,
    /// How many of its entries have a gradient.
    used: u32,
}

/// Space to sort the entries of a batch in. Its time does not depend on the vocabulary, and of 8 bytes for each word in it those
/// alone are touched that occur.
pub(super) struct Entries {
    /// The tokens that occur, rising: the rows of the table on the device.
    pub table: Vec<u32>,
    /// Those that have a gradient, rising.
    rows: Vec<u32>,
    /// One for each word of the vocabulary; all as they were made between two batches.
    slots: Vec<Slot>,
    /// For each of `table`, where its next entry goes.
    next: Vec<u32>,
}

/// Where sorted entries go.
pub(super) struct Sorted<'a> {
    /// Where those of each row with a gradient begin; behind the last row where all end.
    pub runs: &'a mut [i32],
    /// Their stacked rows.
    pub examples: &'a mut [u32],
    /// Their weights.
    pub shares: &'a mut [f32],
}

/// What to sort.
struct Source<'a> {
    sets: [Bags<'a, f32>; 2],
    used: Range<usize>,
    mean: f32,
    /// The token's number of each entry of both sets.
    numbers: &'a [u32],
}

impl Entries {
    /// Space for the largest batch; none where inputs are dense.
    pub fn new(plan: &StepPlan) -> Self {
        let (tokens, vocabulary) = match plan.shape.kind {
            InputKind::Bag => (plan.table[0], plan.shape.input),
            InputKind::Dense => (0, 0),
        };
        Self::with_room(tokens, vocabulary)
    }

    fn with_room(tokens: usize, vocabulary: usize) -> Self {
        Self {
            table: Vec::with_capacity(tokens),
            rows: Vec::with_capacity(tokens),
            slots: vec![Slot::default(); vocabulary],
            next: Vec::with_capacity(tokens),
        }
    }

    /// Forgets the last batch.
    pub fn clear(&mut self) {
        self.table.clear();
        self.rows.clear();
    }

    /// The tokens that have a gradient, rising.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Finds the tokens that occur, and how often each does in the stacked rows `used`.
    pub fn count(&mut self, cpu: &Cpu, sets: [Bags<f32>; 2], used: Range<usize>) {
        let Self { table, slots, .. } = self;
        table.clear();
        let mut row = 0;
        for set in sets {
            for i in 0..set.rows() {
                let is_used = u32::from(used.contains(&(row + i)));
                for &token in set.row(i).0 {
                    let slot = &mut slots[token as usize];
                    if slot.number == 0 {
                        slot.number = 1;
                        table.push(token);
                    }
                    slot.used += is_used;
                }
            }
            row += set.rows();
        }
        spread::sort(cpu, table);
        for (number, &token) in table.iter().enumerate() {
            slots[token as usize].number = number as u32;
        }
    }

    /// The number of each of some counted tokens.
    pub fn numbers(&self, cpu: &Cpu, tokens: &[u32], dst: &mut [u32]) {
        spread::each_run(cpu, dst, 1, |from, run| {
            run.iter_mut()
                .zip(&tokens[from..])
                .for_each(|(number, &token)| *number = self.slots[token as usize].number);
        });
    }

    /// The entries of the used rows by token, within a token in order of examples; weights times `mean`. Forgets the counts.
    pub fn sort(
        &mut self,
        cpu: &Cpu,
        sets: [Bags<f32>; 2],
        used: Range<usize>,
        mean: f32,
        numbers: &[u32],
        sorted: Sorted,
    ) {
        let Self { table, rows, slots, next } = self;
        let Sorted { runs, examples, shares } = sorted;
        rows.clear();
        next.clear();
        let mut end = 0;
        for &token in &*table {
            let count = std::mem::take(&mut slots[token as usize]).used;
            next.push(end);
            if count > 0 {
                runs[rows.len()] = end as i32;
                rows.push(token);
            }
            end += count;
        }
        // Rows that this batch has not are empty.
        runs[rows.len()..].fill(end as i32);
        let (examples, shares) = (&mut examples[..end as usize], &mut shares[..end as usize]);
        let source = Source { sets, used, mean, numbers };
        cpu.install(|| source.place(cpu.thread_count(), 0, next, 0, examples, shares));
    }
}

impl Source<'_> {
    /// Places the entries of the tokens from number `first` on, one for each of `next`, whose entries begin at `base`; on
    /// `threads` threads, each of which looks at all entries and takes those of its tokens.
    fn place(&self, threads: usize, first: u32, next: &mut [u32], base: u32, examples: &mut [u32], shares: &mut [f32]) {
        if threads < 2 || next.len() < 2 {
            return self.place_here(first, next, base, examples, shares);
        }
        // The entries' middle, as far as a token's are not divided.
        let middle = base + (examples.len() * (threads / 2) / threads) as u32;
        let tokens = next.partition_point(|&start| start < middle).clamp(1, next.len() - 1);
        let (left, right) = next.split_at_mut(tokens);
        let cut = right[0];
        let (left_examples, right_examples) = examples.split_at_mut((cut - base) as usize);
        let (left_shares, right_shares) = shares.split_at_mut((cut - base) as usize);
        rayon::join(
            || self.place(threads / 2, first, left, base, left_examples, left_shares),
            || self.place(threads - threads / 2, first + tokens as u32, right, cut, right_examples, right_shares),
        );
    }

    fn place_here(&self, first: u32, next: &mut [u32], base: u32, examples: &mut [u32], shares: &mut [f32]) {
        let (mut row, mut entry) = (0, 0);
        for set in &self.sets {
            for i in 0..set.rows() {
                let weights = set.row(i).1;
                let numbers = &self.numbers[entry..entry + weights.len()];
                entry += weights.len();
                if !self.used.contains(&(row + i)) {
                    continue;
                }
                for (&number, &weight) in numbers.iter().zip(weights) {
                    // A number below `first` wraps around to a large one.
                    let Some(next) = next.get_mut(number.wrapping_sub(first) as usize) else { continue };
                    let to = (*next - base) as usize;
                    *next += 1;
                    (examples[to], shares[to]) = ((row + i) as u32, weight * self.mean);
                }
            }
            row += set.rows();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    /// Bags of up to 9 of some words, some empty.
    fn bags(rng: &mut Rng, rows: usize, vocabulary: u32) -> (Vec<u32>, Vec<f32>, Vec<usize>) {
        let (mut tokens, mut offsets) = (Vec::new(), vec![0]);
        for _ in 0..rows {
            let mut own = (0..rng.below(10)).map(|_| rng.below(vocabulary as usize) as u32).collect::<Vec<_>>();
            own.sort_unstable();
            own.dedup();
            tokens.extend(own);
            offsets.push(tokens.len());
        }
        let weights = tokens.iter().map(|_| rng.normal() as f32).collect();
        (tokens, weights, offsets)
    }

    #[test]
    fn sorted_entries_are_those_of_a_stable_sort_on_any_number_of_threads() {
        for (seed, vocabulary) in [(1, 1), (2, 7), (3, 300), (4, 100_000)] {
            let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
            let data = [bags(&mut rng, 40, vocabulary), bags(&mut rng, 25, vocabulary)];
            let sets = [0, 1].map(|i| {
                let (tokens, weights, offsets) = &data[i];
                Bags::new(tokens, weights, offsets, vocabulary as usize).unwrap()
            });
            let nnz = sets[0].nnz() + sets[1].nnz();
            let mut entries = Entries::with_room(nnz, vocabulary as usize);
            for threads in [1, 2, 3, 5] {
                let cpu = Cpu::new().threads(threads).unwrap();
                for used in [0..65, 0..40, 40..65, 0..0] {
                    let what = format!("seed {seed}, vocabulary {vocabulary}, {threads} threads, rows {used:?}");
                    let all = (0..65).flat_map(|row| {
                        let (set, i) = if row < 40 { (0, row) } else { (1, row - 40) };
                        let (tokens, weights) = sets[set].row(i);
                        tokens.iter().zip(weights).map(move |(&token, &weight)| (token, row, weight * 0.5))
                    });
                    let mut table = all.clone().map(|(token, ..)| token).collect::<Vec<_>>();
                    table.sort_unstable();
                    table.dedup();
                    let mut wanted = all.filter(|(_, row, _)| used.contains(row)).collect::<Vec<_>>();
                    wanted.sort_by_key(|&(token, ..)| token);

                    entries.count(&cpu, sets, used.clone());
                    assert_eq!(entries.table, table, "{what}");
                    let mut numbers = vec![0; nnz];
                    let (query, support) = numbers.split_at_mut(sets[0].nnz());
                    entries.numbers(&cpu, sets[0].pairs().0, query);
                    entries.numbers(&cpu, sets[1].pairs().0, support);
                    let named = numbers.iter().map(|&number| table[number as usize]);
                    assert!(named.eq(data.iter().flat_map(|(tokens, ..)| tokens.iter().copied())), "{what}");

                    let (mut runs, mut examples, mut shares) =
                        (vec![-1; table.len() + 2], vec![99; nnz], vec![0.0; nnz]);
                    let sorted = Sorted { runs: &mut runs, examples: &mut examples, shares: &mut shares };
                    entries.sort(&cpu, sets, used, 0.5, &numbers, sorted);
                    let bounds = |i: usize| runs[i] as usize..runs[i + 1] as usize;
                    let tokens = entries.rows().iter().enumerate().flat_map(|(i, &t)| bounds(i).map(move |_| t));
                    let found = tokens.zip(&examples).zip(&shares).map(|((t, &row), &w)| (t, row as usize, w));
                    assert_eq!(found.collect::<Vec<_>>(), wanted, "{what}");
                    assert!(runs[entries.rows().len()..].iter().all(|&end| end as usize == wanted.len()), "{what}");
                }
            }
        }
    }
}
