//! Records from TSV and CSV: a first line of column names, then a record a line.
#![forbid(unsafe_code)]

use std::io::ErrorKind::FileTooLarge;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lines::{self, Guard, Lines};
use super::{JSON_SUFFIX, MAX_LINE_BYTES, Record, empty, read_error};
use crate::{Error, Result};

/// Tab-separated: no quoting, so that a quote in a text means nothing.
pub(super) struct Tsv {
    lines: Lines,
    columns: Columns,
}

impl Tsv {
    pub(super) fn open(path: &Path, fields: &[&str]) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let header: Vec<String> = match lines.next()? {
            Some(line) => line.split('\t').map(str::to_owned).collect(),
            None => return Err(empty(path)),
        };
        Ok(Tsv { columns: Columns::find(path, lines.line, &header, fields)?, lines })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        let values: Vec<&str> = line.split('\t').collect();
        let picked = self.columns.pick(values.len(), |i| values[i]);
        let values = picked.map_err(|detail| Error::input(&self.lines.file, self.lines.line, detail))?;
        Ok(Some(Record { line: self.lines.line, values }))
    }
}

/// Comma-separated, with quotes.
pub(super) struct Csv {
    file: PathBuf,
    reader: csv::Reader<Guard>,
    record: csv::StringRecord,
    columns: Columns,
}

impl Csv {
    pub(super) fn open(path: &Path, fields: &[&str]) -> Result<Self> {
        let input = Guard::new(lines::open(path)?);
        // Record lengths are checked by `Columns`, with the same words as for TSV.
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let header = reader.headers().map_err(|e| csv_error(path, 1, e))?;
        let header: Vec<String> = header.iter().map(str::to_owned).collect();
        if header.is_empty() {
            return Err(empty(path));
        }
        let columns = Columns::find(path, 1, &header, fields)?;
        Ok(Csv { file: path.to_path_buf(), reader, record: csv::StringRecord::new(), columns })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        self.reader.get_mut().next_record();
        let begins = self.reader.position().line();
        if !self.reader.read_record(&mut self.record).map_err(|e| csv_error(&self.file, begins, e))? {
            return Ok(None);
        }
        let line = self.record.position().map_or(begins, csv::Position::line);
        let picked = self.columns.pick(self.record.len(), |i| &self.record[i]);
        let values = picked.map_err(|detail| Error::input(&self.file, line, detail))?;
        Ok(Some(Record { line, values }))
    }
}

/// Where in a line the wanted fields stand.
struct Columns {
    count: usize,
    wanted: Vec<usize>,
}

impl Columns {
    fn find(file: &Path, line: u64, header: &[String], fields: &[&str]) -> Result<Self> {
        let find = |field: &&str| {
            let field = field.strip_suffix(JSON_SUFFIX).filter(|_| !header.iter().any(|h| h == field)).unwrap_or(field);
            let mut places = (0..header.len()).filter(|i| header[*i] == *field);
            match (places.next(), places.next()) {
                (Some(at), None) => Ok(at),
                (None, _) => Err(format!("no column `{field}`; the columns are: {}", header.join(", "))),
                (Some(_), Some(_)) => Err(format!("two columns are called `{field}`")),
            }
        };
        let wanted: std::result::Result<Vec<_>, String> = fields.iter().map(find).collect();
        let wanted = wanted.map_err(|detail| Error::input(file, line, detail))?;
        Ok(Columns { count: header.len(), wanted })
    }

    fn pick<'a>(&self, found: usize, value: impl Fn(usize) -> &'a str) -> std::result::Result<Vec<Arc<str>>, String> {
        if found != self.count {
            return Err(format!("{found} columns, but the first line names {}", self.count));
        }
        Ok(self.wanted.iter().map(|i| Arc::from(value(*i))).collect())
    }
}

fn csv_error(file: &Path, begins: u64, error: csv::Error) -> Error {
    let line = error.position().map_or(begins, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            let detail = format!("not UTF-8 from byte {} of column {} on", err.valid_up_to() + 1, err.field() + 1);
            Error::input(file, line, detail)
        }
        csv::ErrorKind::Io(e) if e.kind() == FileTooLarge => {
            let detail = format!("the record is longer than {MAX_LINE_BYTES} bytes; is a quote not closed?");
            Error::input(file, line, detail)
        }
        csv::ErrorKind::Io(e) => read_error(file, line, e),
        other => Error::input(file, line, format!("not CSV: {other:?}")),
    }
}
