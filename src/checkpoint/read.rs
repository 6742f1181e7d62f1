//! Reading a checkpoint: nothing in the file is believed before it is compared.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use super::{Check, Checkpoint, FORMAT, METADATA_CRC, Progress, RunState, VERSION, check_values, metadata_crc};
use crate::backend::collect_on_huge_pages;
use crate::error::{Error, Result};
use crate::model::{MlpShape, Params};
use crate::optim;
use crate::tensor_file::{MAX_HEADER_BYTES, crc_key, crc_text};

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let stat = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
    // A named pipe would wait for its writer, a device might never end.
    if !stat.is_file() {
        return Err(Error::format(path, "not a regular file"));
    }
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    from_bytes(&bytes, path)
}

pub(super) fn from_bytes(bytes: &[u8], name: &Path) -> Result<Checkpoint> {
    parse(bytes).map_err(|detail| Error::format(name, detail))
}

fn parse(bytes: &[u8]) -> Check<Checkpoint> {
    let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or("it is shorter than 8 bytes")?;
    if length > MAX_HEADER_BYTES {
        return Err(format!("not a checkpoint: a header of {length} bytes; {MAX_HEADER_BYTES} are allowed"));
    }
    let broken = |e| format!("not a whole safetensors file: {e}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let meta = header.metadata().as_ref().ok_or("not a checkpoint: it has no metadata")?;
    let file = File { tensors: SafeTensors::deserialize(bytes).map_err(broken)?, meta };
    match (file.text("format")?, file.text("version")?) {
        (FORMAT, VERSION) => {}
        (FORMAT, other) => return Err(format!("version {other} of the format; this program reads {VERSION}")),
        (other, _) => return Err(format!("format `{other}`, wanted `{FORMAT}`")),
    }
    let sorted: BTreeMap<_, _> = meta.iter().collect();
    let crc = metadata_crc(sorted.into_iter());
    if file.text(METADATA_CRC)? != crc {
        return Err(format!("the checksum of the metadata is {crc}, not what it says itself"));
    }
    file.checkpoint()
}

struct File<'a> {
    tensors: SafeTensors<'a>,
    meta: &'a HashMap<String, String>,
}

impl File<'_> {
    fn checkpoint(&self) -> Check<Checkpoint> {
        let shape: MlpShape = self.json("shape")?;
        shape.validate().map_err(|e| e.to_string())?;
        let params = self.params("theta", &shape)?;
        let run = if self.meta.contains_key("state") { Some(self.run(&shape)?) } else { None };
        let prefixes: &[&str] = if run.is_some() { &["theta", "m", "v", "best"] } else { &["theta"] };
        let mut aux = BTreeMap::new();
        for name in self.tensors.names() {
            match name.split_once('.') {
                Some(("aux", short)) => drop(aux.insert(short.to_string(), self.vector(name, None)?)),
                Some((prefix, "first" | "bias" | "head")) if prefixes.contains(&prefix) => {}
                _ => return Err(format!("unknown tensor `{name}`")),
            }
        }
        Ok(Checkpoint {
            task: self.text("task")?.to_string(),
            params,
            aux,
            config: self.json("config")?,
            text_config: self.json("text_config")?,
            label_names: self.json("label_names")?,
            run,
        })
    }

    fn run(&self, shape: &MlpShape) -> Check<RunState> {
        let progress: Progress = self.json("state")?;
        progress.check()?;
        let (m, v) = (self.params("m", shape)?, self.params("v", shape)?);
        let optimizer = optim::State { step: progress.step, m, v };
        Ok(RunState { progress, optimizer, best: self.params("best", shape)? })
    }

    fn text(&self, key: &str) -> Check<&str> {
        self.meta.get(key).map(String::as_str).ok_or_else(|| format!("its metadata lacks `{key}`"))
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Check<T> {
        serde_json::from_str(self.text(key)?).map_err(|e| format!("metadata `{key}`: {e}"))
    }

    fn params(&self, prefix: &str, shape: &MlpShape) -> Check<Params<f32>> {
        let part = |name: &str, len: usize| self.vector(&format!("{prefix}.{name}"), Some(len));
        Ok(Params {
            first: part("first", shape.first_len())?,
            bias: part("bias", shape.hidden())?,
            head: part("head", shape.head_len())?,
            shape: shape.clone(),
        })
    }

    /// A tensor's values: f32, finite, of that length if one is given, with the checksum the metadata names.
    fn vector(&self, name: &str, len: Option<usize>) -> Check<Vec<f32>> {
        let tensor = self.tensors.tensor(name).map_err(|_| format!("it lacks tensor `{name}`"))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape().len() != 1 {
            return Err(format!("`{name}` is {:?} {:?}, wanted F32 in one dimension", tensor.dtype(), tensor.shape()));
        }
        let crc = crc_text(crc32fast::hash(tensor.data()));
        if self.text(&crc_key(name))? != crc {
            return Err(format!("the checksum of `{name}` is {crc}, not what the metadata says"));
        }
        let (chunks, _) = tensor.data().as_chunks::<4>();
        let values = collect_on_huge_pages(chunks.len(), chunks.iter().map(|c| f32::from_le_bytes(*c)));
        check_values(name, &values, len)?;
        Ok(values)
    }
}
