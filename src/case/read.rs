//! Reading a case: nothing in the file is believed before it is compared.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{Case, Check, Examples, Imaml};
use crate::error::{Error, Result};
use crate::model::{InputKind, MlpShape, Params};
use crate::tensor_file::MAX_HEADER_BYTES;

pub(super) fn open(path: &Path) -> Result<Case> {
    let stat = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
    // A named pipe would wait for its writer, a device might never end.
    if !stat.is_file() {
        return Err(Error::format(path, "not a regular file"));
    }
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    from_bytes(&bytes, path)
}

pub(super) fn from_bytes(bytes: &[u8], name: &Path) -> Result<Case> {
    parse(bytes).map_err(|detail| Error::format(name, detail))
}

fn parse(bytes: &[u8]) -> Check<Case> {
    let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or("it is shorter than 8 bytes")?;
    if length > MAX_HEADER_BYTES {
        return Err(format!("not a case: a header of {length} bytes; {MAX_HEADER_BYTES} are allowed"));
    }
    let broken = |e| format!("not a whole safetensors file: {e}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let meta = header.metadata().as_ref().ok_or("not a case: it has no metadata")?;
    let file = File { tensors: SafeTensors::deserialize(bytes).map_err(broken)?, meta };
    let case = file.case()?;
    case.check()?;
    Ok(case)
}

struct File<'a> {
    tensors: SafeTensors<'a>,
    meta: &'a HashMap<String, String>,
}

impl File<'_> {
    fn case(&self) -> Check<Case> {
        let shape = self.shape()?;
        self.refuse_unknown(&shape)?;
        let (tasks, support) = self.examples("support", &shape)?;
        let (query_tasks, query) = self.examples("query", &shape)?;
        if tasks != query_tasks {
            return Err(format!("`x_support` has {tasks} tasks, `x_query` {query_tasks}"));
        }
        Ok(Case {
            theta: self.params("theta", &shape)?,
            v: self.optional_params("v", &shape)?,
            alpha: self.optional_params("alpha", &shape)?,
            tasks,
            support,
            query,
            inner_steps: self.number("inner_steps")?,
            inner_lr: self.number("inner_lr")?,
            imaml: self.imaml()?,
        })
    }

    fn shape(&self) -> Check<MlpShape> {
        let text = self.text("dims")?;
        let dims: Option<Vec<usize>> = text.split(',').map(|d| d.trim().parse().ok()).collect();
        let Some([input, widths @ ..]) = dims.as_deref() else {
            return Err(format!("metadata `dims` is `{text}`; wanted sizes such as `7,17,3,6`"));
        };
        let shape = MlpShape { input: *input, kind: InputKind::Dense, widths: widths.to_vec() };
        shape.validate().map_err(|e| format!("metadata `dims` is `{text}`: {e}"))?;
        Ok(shape)
    }

    fn refuse_unknown(&self, shape: &MlpShape) -> Check {
        let known = |name: &str| match name.split('.').collect::<Vec<_>>()[..] {
            ["x_support" | "y_support" | "x_query" | "y_query"] => true,
            ["theta" | "v" | "alpha", l, "weight" | "bias"] => (0..shape.layers()).any(|i| i.to_string() == l),
            _ => false,
        };
        match self.tensors.names().into_iter().filter(|name| !known(name)).min() {
            Some(name) => Err(format!("unknown tensor `{name}` for {} layers", shape.layers())),
            None => Ok(()),
        }
    }

    fn text(&self, key: &str) -> Check<&str> {
        self.meta.get(key).map(String::as_str).ok_or_else(|| format!("its metadata lacks `{key}`"))
    }

    fn number<T: FromStr>(&self, key: &str) -> Check<T> {
        let text = self.text(key)?;
        text.trim().parse().map_err(|_| format!("metadata `{key}` is `{text}`; wanted a number"))
    }

    fn imaml(&self) -> Check<Option<Imaml>> {
        if !["imaml_lambda", "imaml_steps", "imaml_lr"].iter().any(|key| self.meta.contains_key(*key)) {
            return Ok(None);
        }
        let (lambda, steps, lr) = (self.number("imaml_lambda")?, self.number("imaml_steps")?, self.number("imaml_lr")?);
        Ok(Some(Imaml { lambda, steps, lr }))
    }

    /// The number of tasks, and their rows and labels.
    fn examples(&self, set: &str, shape: &MlpShape) -> Check<(usize, Examples)> {
        let (x_name, y_name) = (format!("x_{set}"), format!("y_{set}"));
        let x = self.tensor(&x_name)?;
        let &[tasks, n, input] = x.shape() else {
            return Err(format!("`{x_name}` is {:?}; wanted tasks x examples x inputs", x.shape()));
        };
        if tasks == 0 || n == 0 || input != shape.input {
            let wanted = format!("tasks x examples x {}, none of them 0", shape.input);
            return Err(format!("`{x_name}` is {:?}; wanted {wanted}", x.shape()));
        }
        let y = self.tensor(&y_name)?;
        if y.dtype() != Dtype::I64 || y.shape() != [tasks, n] {
            return Err(format!("`{y_name}` is {:?} {:?}, wanted I64 {:?}", y.dtype(), y.shape(), [tasks, n]));
        }
        let label = |bytes: &[u8; 8]| {
            let y = i64::from_le_bytes(*bytes);
            u32::try_from(y)
                .map_err(|_| format!("`{y_name}` holds the label {y}, but there are {} classes", shape.outputs()))
        };
        let labels = y.data().as_chunks::<8>().0.iter().map(label).collect::<Check<_>>()?;
        Ok((tasks, Examples { x: values(&x_name, &x)?, y: labels }))
    }

    fn optional_params(&self, prefix: &str, shape: &MlpShape) -> Check<Option<Params<f64>>> {
        let any = self.tensors.names().iter().any(|name| name.split_once('.').is_some_and(|(p, _)| p == prefix));
        if any { self.params(prefix, shape).map(Some) } else { Ok(None) }
    }

    /// Weights and biases of all layers, each of its shape.
    fn params(&self, prefix: &str, shape: &MlpShape) -> Check<Params<f64>> {
        let part = |l: usize, name: &str, wanted: &[usize]| {
            let name = format!("{prefix}.{l}.{name}");
            let tensor = self.tensor(&name)?;
            match tensor.shape() == wanted {
                true => values(&name, &tensor),
                false => Err(format!("`{name}` is {:?}, wanted {wanted:?}", tensor.shape())),
            }
        };
        let layer = |l: usize, inputs: usize| {
            let outputs = shape.widths[l];
            Check::Ok((part(l, "weight", &[outputs, inputs])?, part(l, "bias", &[outputs])?))
        };
        let (first, bias) = layer(0, shape.input)?;
        let mut head = Vec::new();
        for l in 1..shape.layers() {
            let (weight, bias) = layer(l, shape.widths[l - 1])?;
            head.extend(weight.into_iter().chain(bias));
        }
        Ok(Params { shape: shape.clone(), first, bias, head })
    }

    fn tensor(&self, name: &str) -> Check<TensorView<'_>> {
        self.tensors.tensor(name).map_err(|_| format!("it lacks tensor `{name}`"))
    }
}

/// The numbers of an f64 or f32 tensor.
fn values(name: &str, tensor: &TensorView) -> Check<Vec<f64>> {
    match tensor.dtype() {
        Dtype::F64 => Ok(tensor.data().as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect()),
        Dtype::F32 => Ok(tensor.data().as_chunks::<4>().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect()),
        other => Err(format!("`{name}` is {other:?}, wanted F64 or F32")),
    }
}
