//! Reading a checkpoint: nothing in the file is believed before it is compared.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use super::{Checkpoint, FORMAT, Progress, RunState, VERSION};
use crate::error::{Error, Result};
use crate::model::{MlpShape, Params};
use crate::optim;
use crate::tensor_file::{MAX_HEADER_BYTES, crc_key};

/// A value, or what is wrong; the caller adds the file's name.
type Check<T> = std::result::Result<T, String>;

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
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
        let mut aux = BTreeMap::new();
        for name in self.tensors.names() {
            if let Some(short) = name.strip_prefix("aux.") {
                aux.insert(short.to_string(), self.vector(name, None)?);
            }
        }
        let run = match self.meta.contains_key("state") {
            true => Some(self.run(&shape)?),
            false => None,
        };
        Ok(Checkpoint {
            task: self.text("task")?.to_string(),
            params: self.params("theta", &shape)?,
            aux,
            config: self.json("config")?,
            text_config: self.json("text_config")?,
            label_names: self.json("label_names")?,
            run,
        })
    }

    fn run(&self, shape: &MlpShape) -> Check<RunState> {
        let progress: Progress = self.json("state")?;
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
        let found = tensor.data().len() / size_of::<f32>();
        if tensor.dtype() != Dtype::F32 || tensor.shape().len() != 1 {
            return Err(format!("`{name}` is {:?} {:?}, wanted F32 in one dimension", tensor.dtype(), tensor.shape()));
        }
        if let Some(wanted) = len.filter(|&n| n != found) {
            return Err(format!("`{name}` has {found} values, but the shape asks for {wanted}"));
        }
        let crc = format!("{:08x}", crc32fast::hash(tensor.data()));
        if self.text(&crc_key(name))? != crc {
            return Err(format!("the checksum of `{name}` is {crc}, not what the metadata says"));
        }
        let (chunks, _) = tensor.data().as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|c| f32::from_le_bytes(*c)).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(format!("`{name}` value {i} is not finite")),
            None => Ok(values),
        }
    }
}
