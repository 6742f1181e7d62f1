//! Reading a dataset: the file is mapped, every invariant of `format.rs` checked once, and slices lent out.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::AnyBitPattern;
use half::f16;
use memmap2::{Mmap, MmapOptions};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};

use super::check::{self, Check};
use super::format::{self, Kind, MAX_ROWS, Meta, NO_LABEL, Tensor};
use crate::tensor_file::MAX_HEADER_BYTES;
use crate::{Error, Result};

/// A dataset, open for reading. Clones share the mapping; `Send` and `Sync`.
///
/// A mapped file must not be changed while it is open: what was checked would no longer hold, and a shortened file
/// ends the process with a signal. [`super::DatasetWriter`] never changes a file, it replaces it by another.
///
/// ```no_run
/// let data = metaglot::dataset::Dataset::open("massive.mgd")?;
/// for i in 0..data.len() {
///     let bag = data.row(i);
///     println!("{} {:?}", data.language_names()[data.languages()[i] as usize], bag.tokens);
/// }
/// # Ok::<(), metaglot::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    bytes: Arc<Bytes>,
    header: Arc<Header>,
}

/// One row: its tokens, strictly increasing, and their weights; none means all are 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BagRef<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// The weight of each.
    pub weights: Option<&'a [f16]>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// u64, so that the bytes are aligned as a mapping's are; the last word may be padding.
    Owned(Vec<u64>, usize),
}

#[derive(Debug)]
struct Header {
    file: PathBuf,
    meta: Meta,
    /// Where each tensor lies in the file, by `Tensor as usize`.
    spans: [Option<Range<usize>>; Tensor::ALL.len()],
    checksums: [u32; Tensor::ALL.len()],
}

impl Dataset {
    /// Maps a file and checks it.
    pub fn open(path: impl AsRef<Path>) -> Result<Dataset> {
        let path = path.as_ref();
        Dataset::new(map(path)?, path)
    }

    /// Checks a dataset that is already in memory; the bytes are copied (which aligns them).
    pub fn from_bytes(bytes: &[u8]) -> Result<Dataset> {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Dataset::new(Bytes::Owned(words, bytes.len()), Path::new("(bytes)"))
    }

    fn new(bytes: Bytes, file: &Path) -> Result<Dataset> {
        let header = parse(bytes.as_slice(), file).map_err(|detail| Error::format(file, detail))?;
        let dataset = Dataset { bytes: Arc::new(bytes), header: Arc::new(header) };
        dataset.check().map_err(|detail| Error::format(file, detail))?;
        Ok(dataset)
    }

    /// Compares each tensor's bytes with its checksum; reads the whole file.
    pub fn verify_checksums(&self) -> Result<()> {
        for tensor in Tensor::ALL {
            let Some(span) = self.header.spans[tensor as usize].clone() else { continue };
            let found = crc32fast::hash(&self.bytes.as_slice()[span]);
            let wanted = self.header.checksums[tensor as usize];
            if found != wanted {
                let detail = format!("tensor `{}` is damaged: CRC-32 {found:08x}, not {wanted:08x}", tensor.name());
                return Err(Error::format(&self.header.file, detail));
            }
        }
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.labels().len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row; panics if there is none of this number, as indexing does.
    pub fn row(&self, i: usize) -> BagRef<'_> {
        let offsets = self.offsets();
        let span = offsets[i] as usize..offsets[i + 1] as usize;
        BagRef { tokens: &self.tokens()[span.clone()], weights: self.weights().map(|w| &w[span]) }
    }

    /// Row `i` owns elements `offsets()[i] .. offsets()[i + 1]` of `tokens()` and `weights()`.
    pub fn offsets(&self) -> &[u64] {
        self.slice(Tensor::Offsets).unwrap_or_default()
    }

    /// The token ids of all rows.
    pub fn tokens(&self) -> &[u32] {
        self.slice(Tensor::Tokens).unwrap_or_default()
    }

    /// The weights of all tokens; none means all are 1.
    pub fn weights(&self) -> Option<&[f16]> {
        self.slice(Tensor::Weights)
    }

    /// Each row's index into [`Dataset::label_names`], or [`NO_LABEL`].
    pub fn labels(&self) -> &[u32] {
        self.slice(Tensor::Labels).unwrap_or_default()
    }

    /// Each row's index into [`Dataset::language_names`].
    pub fn languages(&self) -> &[u16] {
        self.slice(Tensor::Language).unwrap_or_default()
    }

    /// Each row's text id: rows with the same one are translations of each other.
    pub fn text_ids(&self) -> &[u32] {
        self.slice(Tensor::TextId).unwrap_or_default()
    }

    /// Group `j` is the rows `groups()[j] .. groups()[j + 1]`; only ranking datasets have groups.
    pub fn groups(&self) -> Option<&[u64]> {
        self.slice(Tensor::Groups)
    }

    /// Dense features, row-major, `len() x signal_names().len()`.
    pub fn signals(&self) -> Option<&[f32]> {
        self.slice(Tensor::Signals)
    }

    /// The inverse document frequencies behind the weights, one for each token of the vocabulary.
    pub fn idf(&self) -> Option<&[f32]> {
        self.slice(Tensor::Idf)
    }

    /// What the rows are.
    pub fn kind(&self) -> Kind {
        self.header.meta.kind
    }

    /// `V`: every token is below it.
    pub fn vocabulary(&self) -> u32 {
        self.header.meta.vocabulary
    }

    /// What the labels stand for.
    pub fn label_names(&self) -> &[String] {
        &self.header.meta.label_names
    }

    /// What the language numbers stand for.
    pub fn language_names(&self) -> &[String] {
        &self.header.meta.language_names
    }

    /// What the columns of [`Dataset::signals`] are.
    pub fn signal_names(&self) -> &[String] {
        &self.header.meta.signal_names
    }

    /// How text became tokens (a `TextConfig` as JSON).
    pub fn text_config_json(&self) -> &str {
        &self.header.meta.text_config
    }

    /// Where the file came from, as JSON, for people to read.
    pub fn made_by_json(&self) -> &str {
        &self.header.meta.made_by
    }

    /// The size of the file.
    pub fn file_bytes(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// A tensor's elements. The cast cannot fail: `parse` has checked type, length and alignment.
    fn slice<T: AnyBitPattern>(&self, tensor: Tensor) -> Option<&[T]> {
        let span = self.header.spans[tensor as usize].clone()?;
        Some(bytemuck::cast_slice(&self.bytes.as_slice()[span]))
    }

    /// Every invariant that is not about single tensors' headers.
    fn check(&self) -> Check {
        let (rows, meta) = (self.len(), &self.header.meta);
        if rows as u64 > MAX_ROWS {
            return Err(format!("{rows} rows; at most {MAX_ROWS} fit"));
        }
        let one_more = rows.checked_add(1).ok_or("too many rows")?;
        check::length("offsets", self.offsets().len(), one_more, "the number of labels + 1")?;
        check::length("language", self.languages().len(), rows, "the number of labels")?;
        check::length("text_id", self.text_ids().len(), rows, "the number of labels")?;
        check::offsets(self.offsets(), self.tokens().len())?;
        check::tokens(self.tokens(), self.offsets(), meta.vocabulary)?;
        check::labels(self.labels(), meta.label_names.len())?;
        check::languages(self.languages(), meta.language_names.len())?;
        if let Some(weights) = self.weights() {
            check::length("weights", weights.len(), self.tokens().len(), "the number of tokens")?;
            check::finite_f16("weights", weights)?;
        }
        if let Some(idf) = self.idf() {
            check::length("idf", idf.len(), meta.vocabulary as usize, "the vocabulary")?;
            check::positive("idf", idf)?;
        }
        self.check_signals()?;
        self.check_groups()
    }

    fn check_signals(&self) -> Check {
        let names = self.header.meta.signal_names.len();
        match self.signals() {
            None if names == 0 => Ok(()),
            None => Err(format!("metadata names {names} signals, but there is no tensor `signals`")),
            Some(_) if names == 0 => Err("there is a tensor `signals`, but metadata names no signals".into()),
            // `parse` has checked that the second dimension is the number of names.
            Some(signals) => {
                let wanted = self.len().checked_mul(names).ok_or("too many signals")?;
                check::length("signals", signals.len(), wanted, "rows x signal names")?;
                check::finite_f32("signals", signals)
            }
        }
    }

    fn check_groups(&self) -> Check {
        match (self.kind(), self.groups()) {
            (Kind::Ranking, None) => return Err("kind `ranking` needs the tensor `groups`".into()),
            (Kind::Ranking, Some(groups)) => check::groups(groups, self.len())?,
            (_, None) => return Ok(()),
            (kind, Some(_)) => return Err(format!("kind `{}` has no tensor `groups`", kind.name())),
        }
        let (groups, labels) = (self.groups().unwrap_or_default(), self.labels());
        for (j, group) in groups.windows(2).enumerate() {
            let rows = &labels[group[0] as usize..group[1] as usize];
            if rows[0] != NO_LABEL || rows[1..].iter().any(|l| *l > 1) {
                return Err(format!("group {j}: its first row must have no label, the others label 0 or 1"));
            }
        }
        Ok(())
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }
}

/// The metadata key `format` of any safetensors file: which kind of our files it is, if it is one of ours.
pub fn peek_format(path: impl AsRef<Path>) -> Result<Option<String>> {
    let path = path.as_ref();
    let bytes = map(path)?;
    let (_, metadata) = read_header(bytes.as_slice()).map_err(|detail| Error::format(path, detail))?;
    Ok(metadata.metadata().as_ref().and_then(|map| map.get("format").cloned()))
}

fn map(path: &Path) -> Result<Bytes> {
    let stat = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
    // Opening a named pipe would wait for its writer, and none of these can be mapped.
    if !stat.is_file() {
        return Err(Error::format(path, "not a regular file"));
    }
    if stat.len() == 0 {
        return Err(Error::format(path, "the file is empty"));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    // SAFETY: the mapping is read-only and private to us, and lives as long as the slices lent from it (they borrow
    // the `Dataset`). That nobody changes the file meanwhile no program can ensure; `Dataset` documents it, and our
    // writers only ever replace files by rename, which leaves the mapped one as it was.
    let map = unsafe { MmapOptions::new().map_copy_read_only(&file) };
    Ok(Bytes::Mapped(map.map_err(|e| Error::io("map", path, e))?))
}

/// The header's length and content, refused before parsing if it is longer than ours can be.
fn read_header(bytes: &[u8]) -> Check<(usize, Metadata)> {
    let length = bytes.first_chunk::<8>().ok_or("not a safetensors file: shorter than 8 bytes")?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("not one of our files: a header of {length} bytes; {MAX_HEADER_BYTES} are allowed"));
    }
    SafeTensors::read_metadata(bytes).map_err(|e| format!("not a whole safetensors file: {e}"))
}

/// Checks all that the header says about single tensors: name, type, rank, alignment, presence.
fn parse(bytes: &[u8], file: &Path) -> Check<Header> {
    let (header_bytes, metadata) = read_header(bytes)?;
    let strings = metadata.metadata().clone().unwrap_or_default();
    let meta = Meta::from_map(&strings)?;
    if let Some(name) = metadata.offset_keys().iter().find(|name| Tensor::ALL.iter().all(|t| t.name() != *name)) {
        return Err(format!("unknown tensor `{name}`"));
    }
    let mut spans: [Option<Range<usize>>; Tensor::ALL.len()] = Default::default();
    let mut checksums = [0; Tensor::ALL.len()];
    for tensor in Tensor::ALL {
        match metadata.info(tensor.name()) {
            Some(info) => {
                spans[tensor as usize] = Some(span(tensor, info, 8 + header_bytes, &meta)?);
                checksums[tensor as usize] = format::crc_from(&strings, tensor)?;
            }
            None if tensor.required() => return Err(format!("tensor `{}` is missing", tensor.name())),
            None => {}
        }
    }
    Ok(Header { file: file.to_path_buf(), meta, spans, checksums })
}

/// Where a tensor lies in the file; safetensors has checked that its bytes are there and are as many as its shape says.
fn span(tensor: Tensor, info: &TensorInfo, data_start: usize, meta: &Meta) -> Check<Range<usize>> {
    let name = tensor.name();
    if info.dtype != tensor.dtype() || info.shape.len() != tensor.rank() {
        let (dtype, rank) = (tensor.dtype(), tensor.rank());
        return Err(format!(
            "tensor `{name}` is {:?} {:?}, not {dtype:?} of {rank} dimension(s)",
            info.dtype, info.shape
        ));
    }
    if tensor == Tensor::Signals && info.shape[1] != meta.signal_names.len() {
        return Err(format!("`signals` is {:?}, but metadata names {} signals", info.shape, meta.signal_names.len()));
    }
    let span = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
    if !span.start.is_multiple_of(tensor.element_bytes()) {
        return Err(format!("tensor `{name}` begins at byte {}, which is not aligned", span.start));
    }
    Ok(span)
}
