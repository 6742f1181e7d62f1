//! Writing a checkpoint.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use serde::Serialize;

use super::{Check, Checkpoint, FORMAT, METADATA_CRC, VERSION, check_values, metadata_crc};
use crate::error::{Error, Result};
use crate::model::Params;
use crate::tensor_file::TensorFile;

/// Elements turned into bytes at a time.
const CHUNK: usize = 1 << 14;

pub(super) fn save(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    check(checkpoint).map_err(|detail| Error::format(path, detail))?;
    let tensors = tensors(checkpoint);
    let specs: Vec<_> = tensors.iter().map(|(name, data)| (name.clone(), Dtype::F32, vec![data.len()])).collect();
    let mut file = TensorFile::create(path, &specs, metadata(checkpoint))?;
    for (name, data) in &tensors {
        let written = file.tensor(name, |out| data.chunks(CHUNK).try_for_each(|c| out.write_all(&little_endian(c))));
        written.map_err(|e| Error::io("write", path, e))?;
    }
    file.commit(path)
}

/// All that the reader compares and a caller can get wrong.
fn check(c: &Checkpoint) -> Check {
    c.params.shape.validate().map_err(|e| e.to_string())?;
    let shape = &c.params.shape;
    let params = |prefix: &str, p: &Params<f32>| {
        if p.shape != *shape {
            return Err(format!("`{prefix}` is of {:?}, the weights of {shape:?}", p.shape));
        }
        let lens = [shape.first_len(), shape.hidden(), shape.head_len()];
        named(prefix, p).into_iter().zip(lens).try_for_each(|((name, data), n)| check_values(&name, data, Some(n)))
    };
    params("theta", &c.params)?;
    c.aux.iter().try_for_each(|(name, data)| check_values(&format!("aux.{name}"), data, None))?;
    let Some(run) = &c.run else { return Ok(()) };
    run.progress.check()?;
    if run.optimizer.step != run.progress.step {
        return Err(format!("the run is at step {}, its optimiser at {}", run.progress.step, run.optimizer.step));
    }
    params("m", &run.optimizer.m)?;
    params("v", &run.optimizer.v)?;
    params("best", &run.best)
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn tensors(c: &Checkpoint) -> Vec<(String, &[f32])> {
    let mut all = named("theta", &c.params).to_vec();
    all.extend(c.aux.iter().map(|(name, data)| (format!("aux.{name}"), &data[..])));
    if let Some(run) = &c.run {
        all.extend(named("m", &run.optimizer.m));
        all.extend(named("v", &run.optimizer.v));
        all.extend(named("best", &run.best));
    }
    all
}

fn named<'a>(prefix: &str, p: &'a Params<f32>) -> [(String, &'a [f32]); 3] {
    [("first", &p.first), ("bias", &p.bias), ("head", &p.head)].map(|(n, v)| (format!("{prefix}.{n}"), &v[..]))
}

fn metadata(c: &Checkpoint) -> BTreeMap<String, String> {
    let mut map = BTreeMap::from([
        ("format".to_string(), FORMAT.to_string()),
        ("version".to_string(), VERSION.to_string()),
        ("task".to_string(), c.task.clone()),
        ("shape".to_string(), json(&c.params.shape)),
        ("config".to_string(), json(&c.config)),
        ("text_config".to_string(), json(&c.text_config)),
        ("label_names".to_string(), json(&c.label_names)),
    ]);
    if let Some(run) = &c.run {
        map.insert("state".to_string(), json(&run.progress));
    }
    let crc = metadata_crc(map.iter());
    map.insert(METADATA_CRC.to_string(), crc);
    map
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and numbers are always valid JSON")
}
