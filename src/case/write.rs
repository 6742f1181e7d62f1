//! Writing a case, and the answer to one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;

use super::{Algorithm, Answer, Case, Examples};
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::model::Params;
use crate::tensor_file::TensorFile;

/// A tensor to be written.
struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

pub(super) fn save(case: &Case, path: &Path) -> Result<()> {
    case.check().map_err(|detail| Error::format(path, detail))?;
    let labels = [&case.support, &case.query].map(|set| set.y.iter().map(|y| i64::from(*y)).collect::<Vec<_>>());
    let mut tensors = layers("theta", &case.theta);
    case.v.iter().for_each(|v| tensors.extend(layers("v", v)));
    case.alpha.iter().for_each(|alpha| tensors.extend(layers("alpha", alpha)));
    for ((name, set), y) in [("support", &case.support), ("query", &case.query)].into_iter().zip(&labels) {
        tensors.extend(examples(name, set, y, case.tasks, case.shape().input));
    }
    write(path, &tensors, metadata(case))
}

/// Writes an answer as [`super`] specifies it.
pub(super) fn save_answer<T: Element>(answer: &Answer<T>, path: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (prefix, params) in &answer.params {
        tensors.extend(layers(prefix, params));
    }
    let (name, losses) = &answer.losses;
    let mean = [T::from_f64(answer.mean_loss())];
    tensors.push(real(name.to_string(), vec![losses.len()], losses));
    if answer.algorithm != Algorithm::Hvp {
        tensors.push(real("meta_loss".to_string(), vec![1], &mean));
    }
    let pairs = [("algorithm", answer.algorithm.name()), ("dtype", T::DTYPE.name()), ("path", answer.path.path)];
    write(path, &tensors, pairs.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

fn write(path: &Path, tensors: &[Tensor], metadata: BTreeMap<String, String>) -> Result<()> {
    let specs: Vec<_> = tensors.iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect();
    let mut file = TensorFile::create(path, &specs, metadata)?;
    for t in tensors {
        file.tensor(&t.name, |out| out.write_all(t.bytes)).map_err(|e| Error::io("write", path, e))?;
    }
    file.commit(path)
}

fn real<T: Element>(name: String, shape: Vec<usize>, values: &[T]) -> Tensor<'_> {
    let dtype = if size_of::<T>() == 4 { Dtype::F32 } else { Dtype::F64 };
    Tensor { name, dtype, shape, bytes: bytemuck::cast_slice(values) }
}

/// `prefix.l.weight` and `prefix.l.bias` for each layer l, from 0.
fn layers<'a, T: Element>(prefix: &str, params: &'a Params<T>) -> Vec<Tensor<'a>> {
    let shape = &params.shape;
    let layer = |l: usize, inputs: usize, weight: &'a [T], bias: &'a [T]| {
        let name = |part: &str| format!("{prefix}.{l}.{part}");
        [real(name("weight"), vec![bias.len(), inputs], weight), real(name("bias"), vec![bias.len()], bias)]
    };
    let first = layer(0, shape.input, &params.first, &params.bias);
    let head = shape.head_layers().flat_map(|at| {
        // The head counts layers from 1, the first one being the model's first layer.
        layer(at.l - 1, at.inputs, &params.head[at.weight.clone()], &params.head[at.bias.clone()])
    });
    first.into_iter().chain(head).collect()
}

fn examples<'a>(name: &str, set: &'a Examples, y: &'a [i64], tasks: usize, input: usize) -> [Tensor<'a>; 2] {
    let n = y.len() / tasks;
    let labels = bytemuck::cast_slice(y);
    [
        real(format!("x_{name}"), vec![tasks, n, input], &set.x),
        Tensor { name: format!("y_{name}"), dtype: Dtype::I64, shape: vec![tasks, n], bytes: labels },
    ]
}

fn metadata(case: &Case) -> BTreeMap<String, String> {
    let shape = case.shape();
    let dims: Vec<_> = [shape.input].iter().chain(&shape.widths).map(usize::to_string).collect();
    let mut pairs = vec![
        ("dims", dims.join(",")),
        ("inner_steps", case.inner_steps.to_string()),
        ("inner_lr", case.inner_lr.to_string()),
    ];
    if let Some(imaml) = case.imaml {
        pairs.push(("imaml_lambda", imaml.lambda.to_string()));
        pairs.push(("imaml_steps", imaml.steps.to_string()));
        pairs.push(("imaml_lr", imaml.lr.to_string()));
    }
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}
