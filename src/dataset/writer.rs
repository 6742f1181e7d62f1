//! Writing a dataset row by row, in memory that does not grow with the rows.
//!
//! Each column goes to an unnamed file beside the output; when all rows are there, the columns are streamed into one
//! file. Only then are the document frequencies known that the weights need, so rows are pushed with token counts
//! and weighed at the end. What stays in memory: the frequencies (4 bytes per token of the vocabulary) and the names.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::columns::{Columns, Last};
use super::format::{Kind, MAX_LANGUAGES, MAX_ROWS, Meta, NO_LABEL};
use super::names::Names;
use super::weighing::Weighing;
use crate::atomic_file::folder_of;
use crate::tensor_file::TensorFile;
use crate::text::Featurizer;
use crate::{Error, Result};

/// What must be known before the first row.
#[derive(Debug)]
pub struct DatasetSpec {
    /// What the rows will be.
    pub kind: Kind,
    /// Every token will be below it.
    pub vocabulary: u32,
    /// How text becomes tokens, as a JSON object; `{}` if there was no text.
    pub text_config: String,
    /// The names of the values in [`Row::signals`].
    pub signal_names: Vec<String>,
    /// How weights come from [`Row::values`].
    pub weighing: Weighing,
}

impl DatasetSpec {
    /// For labelled texts that this featurizer turns into token counts; change the fields for another kind.
    pub fn for_text(featurizer: Featurizer) -> Self {
        let config = featurizer.config();
        DatasetSpec {
            kind: Kind::Labelled,
            vocabulary: config.vocabulary() as u32,
            text_config: serde_json::to_string(config).expect("numbers and booleans are always valid JSON"),
            signal_names: Vec::new(),
            weighing: Weighing::Text(featurizer),
        }
    }

    fn meta(&self, label_names: Vec<String>, language_names: Vec<String>, made_by: String) -> Meta {
        let (signal_names, text_config) = (self.signal_names.clone(), self.text_config.clone());
        let DatasetSpec { kind, vocabulary, .. } = *self;
        Meta { kind, vocabulary, label_names, language_names, signal_names, text_config, made_by }
    }
}

/// One row to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// Token ids, strictly increasing.
    pub tokens: &'a [u32],
    /// A number for each token: what [`DatasetSpec::weighing`] says. Empty for [`Weighing::Ones`].
    pub values: &'a [f32],
    /// The label's name. For [`Kind::Ranking`]: none for the first row of a group, `wrong` or `right` for the others.
    pub label: Option<&'a str>,
    /// The language's name.
    pub language: &'a str,
    /// Rows with the same one are translations of each other. Numbers are kept if all rows have numbers.
    pub text_id: &'a str,
    /// One value for each of [`DatasetSpec::signal_names`].
    pub signals: &'a [f32],
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Tokens of all rows.
    pub tokens: u64,
    /// Rows without any token.
    pub empty_rows: u64,
}

/// A dataset being written. Nothing stands under its name until [`DatasetWriter::finish`] has succeeded.
///
/// ```
/// use metaglot::dataset::{Dataset, DatasetSpec, DatasetWriter, Kind, Row, Weighing};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("two.mgd");
/// let spec = DatasetSpec {
///     kind: Kind::Labelled,
///     vocabulary: 100,
///     text_config: "{}".into(),
///     signal_names: vec![],
///     weighing: Weighing::Given,
/// };
/// let mut writer = DatasetWriter::create(&path, spec)?;
/// let row = Row { tokens: &[3, 99], values: &[0.5, 2.0], language: "de", text_id: "0", ..Row::default() };
/// writer.push(Row { label: Some("greeting"), ..row })?;
/// writer.push(Row { label: Some("farewell"), text_id: "1", ..row })?;
/// writer.finish(&serde_json::json!({"program": "an example"}))?;
///
/// let data = Dataset::open(&path)?;
/// assert_eq!(data.row(1).tokens, [3, 99]);
/// assert_eq!(data.label_names(), ["farewell", "greeting"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DatasetWriter {
    path: PathBuf,
    spec: DatasetSpec,
    columns: Columns,
    label_names: Names,
    language_names: Names,
    document_frequencies: Vec<u32>,
    written: Written,
    /// The first row of the group being written.
    group_start: Option<u64>,
}

impl DatasetWriter {
    /// Begins a dataset; the folder of `path` must exist, and have room for the data twice.
    pub fn create(path: impl AsRef<Path>, spec: DatasetSpec) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        // What the reader would refuse is refused before any work is done.
        let map = spec.meta(Vec::new(), Vec::new(), "{}".into()).to_map().into_iter().collect();
        Meta::from_map(&map).map_err(|detail| Error::config("DatasetSpec", detail))?;
        let label_names = match spec.kind {
            Kind::Ranking => Names::fixed("label", &["wrong", "right"]),
            _ => Names::new("label"),
        };
        Ok(DatasetWriter {
            columns: Columns::new(&folder_of(&path)).map_err(|e| Error::io("write beside", &path, e))?,
            label_names,
            language_names: Names::new("language"),
            document_frequencies: vec![0; if spec.weighing.uses_idf() { spec.vocabulary as usize } else { 0 }],
            written: Written { rows: 0, tokens: 0, empty_rows: 0 },
            group_start: None,
            path,
            spec,
        })
    }

    /// Appends a row.
    pub fn push(&mut self, row: Row<'_>) -> Result<()> {
        self.check(&row)?;
        let label = row.label.map_or(Ok(NO_LABEL), |name| self.label_names.number(name))?;
        let language = self.language_names.number(row.language)?;
        if self.language_names.len() > MAX_LANGUAGES {
            return Err(Error::config("language", format!("more than {MAX_LANGUAGES} languages")));
        }
        self.columns.push(&row, label, language).map_err(|e| Error::io("write beside", &self.path, e))?;
        if self.spec.weighing.uses_idf() {
            row.tokens.iter().for_each(|t| self.document_frequencies[*t as usize] += 1);
        }
        self.written.rows += 1;
        self.written.tokens += row.tokens.len() as u64;
        self.written.empty_rows += u64::from(row.tokens.is_empty());
        Ok(())
    }

    /// The next row pushed is the first of a new group, its query or document.
    pub fn begin_group(&mut self) -> Result<()> {
        if self.spec.kind != Kind::Ranking {
            return Err(Error::config("group", format!("kind `{}` has no groups", self.spec.kind.name())));
        }
        self.end_group()?;
        self.group_start = Some(self.written.rows);
        self.columns.push_group(self.written.rows).map_err(|e| Error::io("write beside", &self.path, e))
    }

    /// Weighs the rows, writes the file and puts it in place. `made_by` (an object) says where the data came from.
    pub fn finish(mut self, made_by: &Value) -> Result<Written> {
        if !made_by.is_object() {
            return Err(Error::config("made_by", "it must be a JSON object"));
        }
        self.end_group()?;
        if self.spec.kind == Kind::Ranking {
            let end = self.columns.push_group(self.written.rows);
            end.map_err(|e| Error::io("write beside", &self.path, e))?;
        }
        let idf = self.spec.weighing.idf(&self.document_frequencies, self.written.rows);
        let (label_names, labels) = self.label_names.into_sorted();
        let (language_names, languages) = self.language_names.into_sorted();
        let meta = self.spec.meta(label_names, language_names, made_by.to_string());
        let shapes = self.columns.shapes(&self.spec);
        let specs: Vec<_> = shapes.iter().map(|(t, s)| (t.name().to_string(), t.dtype(), s.clone())).collect();
        let mut file = TensorFile::create(&self.path, &specs, meta.to_map())?;
        let last = Last { weighing: &self.spec.weighing, idf: idf.as_ref(), labels: &labels, languages: &languages };
        self.columns.write(&shapes, &last, &mut file).map_err(|e| Error::io("write", &self.path, e))?;
        file.commit(&self.path)?;
        Ok(self.written)
    }

    fn end_group(&self) -> Result<()> {
        match self.group_start {
            Some(start) if self.written.rows < start + 2 => {
                Err(Error::shape("DatasetWriter", "a group needs a first row and at least one candidate"))
            }
            _ => Ok(()),
        }
    }

    fn check(&self, row: &Row<'_>) -> Result<()> {
        let refuse = |detail: String| Err(Error::shape("DatasetWriter::push", detail));
        let (tokens, signals) = (row.tokens, self.spec.signal_names.len());
        let values = if self.spec.weighing.takes_values() { tokens.len() } else { 0 };
        if row.values.len() != values || row.signals.len() != signals {
            let found = (row.values.len(), row.signals.len());
            return refuse(format!("{found:?} values and signals, wanted {:?}", (values, signals)));
        }
        if tokens.windows(2).any(|t| t[0] >= t[1]) || tokens.last().is_some_and(|t| *t >= self.spec.vocabulary) {
            return refuse(format!("tokens must strictly increase and be below {}", self.spec.vocabulary));
        }
        if let Some(value) = row.values.iter().find(|v| !self.spec.weighing.accepts(**v)) {
            return refuse(format!("the value {value} is out of range for {:?}", self.spec.weighing));
        }
        if row.signals.iter().any(|v| !v.is_finite()) {
            return refuse("signals must be finite".into());
        }
        if self.written.rows == MAX_ROWS {
            return refuse(format!("more than {MAX_ROWS} rows"));
        }
        if self.spec.kind == Kind::Ranking {
            let Some(start) = self.group_start else { return refuse("`begin_group` comes first".into()) };
            if row.label.is_none() != (self.written.rows == start) {
                return refuse("the first row of a group has no label, its candidates have one".into());
            }
        }
        Ok(())
    }
}
