//! The columns of a dataset being written: spooled while rows come, streamed into the file when they have all come.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::Path;

use half::f16;

use super::format::{Kind, NO_LABEL, Tensor};
use super::spool::{Spool, SpoolReader};
use super::text_ids::TextIds;
use super::weighing::Weighing;
use super::writer::{DatasetSpec, Row};
use crate::tensor_file::{Summed, TensorFile};
use crate::text::Idf;

/// What was pushed, column by column.
pub(super) struct Columns {
    offsets: Spool<u64>,
    groups: Spool<u64>,
    tokens: Spool<u32>,
    values: Spool<f32>,
    labels: Spool<u32>,
    languages: Spool<u32>,
    text_ids: TextIds,
    signals: Spool<f32>,
}

/// What is known only after the last row.
pub(super) struct Last<'a> {
    pub(super) weighing: &'a Weighing,
    pub(super) idf: Option<&'a Idf>,
    /// The final number of each label and language.
    pub(super) labels: &'a [u32],
    pub(super) languages: &'a [u32],
}

impl Columns {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let mut columns = Columns {
            offsets: Spool::new(folder)?,
            groups: Spool::new(folder)?,
            tokens: Spool::new(folder)?,
            values: Spool::new(folder)?,
            labels: Spool::new(folder)?,
            languages: Spool::new(folder)?,
            text_ids: TextIds::new(folder)?,
            signals: Spool::new(folder)?,
        };
        columns.offsets.push(&[0])?;
        Ok(columns)
    }

    pub(super) fn push(&mut self, row: &Row<'_>, label: u32, language: u32) -> io::Result<()> {
        self.tokens.push(row.tokens)?;
        self.offsets.push(&[self.tokens.len()])?;
        self.values.push(row.values)?;
        self.labels.push(&[label])?;
        self.languages.push(&[language])?;
        self.text_ids.push(row.text_id)?;
        self.signals.push(row.signals)
    }

    /// A group begins at this row, or the last one ends there.
    pub(super) fn push_group(&mut self, row: u64) -> io::Result<()> {
        self.groups.push(&[row])
    }

    /// The tensors the file will have and their shapes, in the order of the file.
    pub(super) fn shapes(&self, spec: &DatasetSpec) -> Vec<(Tensor, Vec<usize>)> {
        let (rows, tokens) = (self.labels.len() as usize, self.tokens.len() as usize);
        let signals = spec.signal_names.len();
        let shape = |tensor| match tensor {
            Tensor::Offsets => Some(vec![rows + 1]),
            Tensor::Groups => (spec.kind == Kind::Ranking).then(|| vec![self.groups.len() as usize]),
            Tensor::Tokens => Some(vec![tokens]),
            Tensor::Labels | Tensor::TextId | Tensor::Language => Some(vec![rows]),
            Tensor::Signals => (signals > 0).then(|| vec![rows, signals]),
            Tensor::Idf => spec.weighing.uses_idf().then(|| vec![spec.vocabulary as usize]),
            Tensor::Weights => spec.weighing.takes_values().then(|| vec![tokens]),
        };
        Tensor::ALL.into_iter().filter_map(|tensor| Some((tensor, shape(tensor)?))).collect()
    }

    /// Streams the tensors that `shapes` lists into the file.
    pub(super) fn write(
        self,
        shapes: &[(Tensor, Vec<usize>)],
        last: &Last<'_>,
        file: &mut TensorFile,
    ) -> io::Result<()> {
        let (mut offsets, mut tokens) = (self.offsets.into_reader()?, self.tokens.into_reader()?);
        let (mut groups, mut signals) = (self.groups.into_reader()?, self.signals.into_reader()?);
        let (mut labels, mut languages) = (self.labels.into_reader()?, self.languages.into_reader()?);
        let (mut text_ids, mut values) = (self.text_ids.into_numbers()?, self.values.into_reader()?);
        for (tensor, _) in shapes {
            file.tensor(tensor.name(), |out| match tensor {
                Tensor::Offsets => offsets.copy_to(out),
                Tensor::Groups => groups.copy_to(out),
                Tensor::Tokens => tokens.copy_to(out),
                Tensor::Signals => signals.copy_to(out),
                Tensor::Idf => out.write_all(bytemuck::cast_slice(last.idf.map(Idf::as_slice).unwrap_or_default())),
                Tensor::Labels => write_each(out, || Ok(labels.next()?.map(|l| last.label(l).to_le_bytes()))),
                Tensor::TextId => write_each(out, || Ok(text_ids.next()?.map(u32::to_le_bytes))),
                Tensor::Language => write_each(out, || Ok(languages.next()?.map(|l| last.language(l).to_le_bytes()))),
                Tensor::Weights => last.write_weights(&mut offsets, &mut tokens, &mut values, out),
            })?;
        }
        Ok(())
    }
}

impl Last<'_> {
    fn label(&self, number: u32) -> u32 {
        if number == NO_LABEL { NO_LABEL } else { self.labels[number as usize] }
    }

    /// The writer has refused more languages than u16 can count.
    fn language(&self, number: u32) -> u16 {
        self.languages[number as usize] as u16
    }

    fn write_weights(
        &self,
        offsets: &mut SpoolReader<u64>,
        tokens: &mut SpoolReader<u32>,
        values: &mut SpoolReader<f32>,
        out: &mut Summed<'_>,
    ) -> io::Result<()> {
        let (mut row_tokens, mut row_values, mut weights) = (Vec::new(), Vec::new(), Vec::<f16>::new());
        let mut start = offsets.next()?.unwrap_or(0);
        while let Some(end) = offsets.next()? {
            let len = (end - start) as usize;
            tokens.read(len, &mut row_tokens)?;
            values.read(len, &mut row_values)?;
            self.weighing.weigh(&mut row_tokens, &mut row_values, self.idf);
            weights.clear();
            weights.extend(row_values.iter().map(|w| f16::from_f32(*w)));
            if weights.iter().any(|w| !w.is_finite()) {
                let why = "a weight is too large for f16; scale to unit length, or use the logarithm of counts";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            out.write_all(bytemuck::cast_slice(&weights))?;
            start = end;
        }
        Ok(())
    }
}

fn write_each<const N: usize>(
    out: &mut Summed<'_>,
    mut next: impl FnMut() -> io::Result<Option<[u8; N]>>,
) -> io::Result<()> {
    while let Some(bytes) = next()? {
        out.write_all(&bytes)?;
    }
    Ok(())
}
