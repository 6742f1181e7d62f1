//! Writing a safetensors file as a stream, with a CRC-32 of each tensor in the header that precedes them all.
//!
//! The `safetensors` crate wants all tensors in memory, and its header's order depends on a random hash. Here the
//! header is written with zeros for checksums, the tensors follow, and at the end it is written again.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;

use crate::{AtomicFile, Error, Result};

/// The most bytes a header may have: enough for a hundred thousand names, too few to exhaust memory.
pub(crate) const MAX_HEADER_BYTES: u64 = 16 << 20;

/// A tensor to be written: name, element type, shape.
pub(crate) type TensorSpec = (String, Dtype, Vec<usize>);

#[derive(Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// A file whose header is written and whose tensors are to follow.
pub(crate) struct TensorFile {
    out: BufWriter<AtomicFile>,
    header: Header,
}

impl TensorFile {
    /// The tensors' shapes must be known, and come in the order in which they will be written.
    pub(crate) fn create(path: &Path, tensors: &[TensorSpec], metadata: BTreeMap<String, String>) -> Result<Self> {
        let mut header = Header { metadata, tensors: BTreeMap::new() };
        let mut start = 0;
        for (name, dtype, shape) in tensors {
            let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let info = TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) };
            header.tensors.insert(name.clone(), info);
            header.metadata.insert(crc_key(name), crc_text(0));
            start = end;
        }
        let bytes = encode(&header);
        if bytes.len() as u64 > MAX_HEADER_BYTES {
            let detail = format!("names and metadata take {} bytes; {MAX_HEADER_BYTES} are allowed", bytes.len());
            return Err(Error::format(path, detail));
        }
        let mut out = BufWriter::with_capacity(1 << 18, AtomicFile::create(path)?);
        write_header(&mut out, &bytes).map_err(|e| Error::io("write", path, e))?;
        Ok(TensorFile { out, header })
    }

    /// Writes the next tensor: `fill` writes its bytes, exactly as many as its shape says.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Summed<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut summed = Summed { out: &mut self.out, crc: crc32fast::Hasher::new(), len: 0 };
        fill(&mut summed)?;
        let (start, end) = self.header.tensors[name].data_offsets;
        assert_eq!(summed.len, end - start, "tensor {name} has another length than its header says");
        self.header.metadata.insert(crc_key(name), crc_text(summed.crc.finalize()));
        Ok(())
    }

    /// Completes the header and puts the file in place.
    pub(crate) fn commit(mut self, path: &Path) -> Result<()> {
        let bytes = encode(&self.header);
        (|| {
            self.out.seek(SeekFrom::Start(0))?;
            write_header(&mut self.out, &bytes)?;
            self.out.flush()
        })()
        .map_err(|e| Error::io("write", path, e))?;
        let file = self.out.into_inner().map_err(|e| Error::io("write", path, e.into_error()))?;
        file.commit()
    }
}

/// Takes a tensor's bytes and sums them up.
pub(crate) struct Summed<'a> {
    out: &'a mut BufWriter<AtomicFile>,
    crc: crc32fast::Hasher,
    len: usize,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.len += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_header(out: &mut impl Write, header: &[u8]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)
}

/// Padded with spaces to a multiple of 8, so that the first tensor is aligned.
fn encode(header: &Header) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(header).expect("a header of strings and numbers is always valid JSON");
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

/// The metadata key of a tensor's checksum.
pub(crate) fn crc_key(name: &str) -> String {
    format!("crc32.{name}")
}

/// Always 8 digits, so that the header keeps its length when the zeros become checksums.
pub(crate) fn crc_text(crc: u32) -> String {
    format!("{crc:08x}")
}
