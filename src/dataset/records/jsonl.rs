//! Records from JSON lines: names with dots go into objects, and an array of objects makes a record of each element.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::{JSON_SUFFIX, Record, empty};
use crate::{Error, Result};

/// One JSON object a line.
pub(super) struct Jsonl {
    lines: Lines,
    wanted: Node,
    fields: usize,
    /// What the last line still has to give.
    pending: std::vec::IntoIter<Record>,
    any: bool,
}

/// The wanted fields as a tree of object keys.
#[derive(Default)]
struct Node {
    key: String,
    /// The places in a record that take this value.
    places: Vec<usize>,
    /// The places that take it as JSON.
    json_places: Vec<usize>,
    children: Vec<Node>,
}

impl Jsonl {
    pub(super) fn open(path: &Path, fields: &[&str]) -> Result<Self> {
        let mut wanted = Node::default();
        fields.iter().enumerate().for_each(|(place, field)| wanted.want(field, place));
        let pending = Vec::new().into_iter();
        Ok(Jsonl { lines: Lines::open(path)?, wanted, fields: fields.len(), pending, any: false })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.pending.next() {
                return Ok(Some(record));
            }
            let Some(text) = self.lines.next()? else {
                return if self.any { Ok(None) } else { Err(empty(&self.lines.file)) };
            };
            self.any = true;
            let records = expand_line(text, &self.wanted, self.fields);
            let records = records.map_err(|detail| Error::input(&self.lines.file, self.lines.line, detail))?;
            let line = self.lines.line;
            let records: Vec<_> = records.into_iter().map(|values| Record { line, values }).collect();
            self.pending = records.into_iter();
        }
    }
}

impl Node {
    fn want(&mut self, field: &str, place: usize) {
        let name = field.strip_suffix(JSON_SUFFIX).unwrap_or(field);
        let node = name.split('.').fold(self, Node::child);
        if name.len() < field.len() { &mut node.json_places } else { &mut node.places }.push(place);
    }

    fn child(&mut self, key: &str) -> &mut Node {
        let at = self.children.iter().position(|c| c.key == key).unwrap_or_else(|| {
            self.children.push(Node { key: key.to_owned(), ..Node::default() });
            self.children.len() - 1
        });
        &mut self.children[at]
    }
}

type Values = Vec<Arc<str>>;
type Detail<T> = std::result::Result<T, String>;

fn expand_line(text: &str, wanted: &Node, fields: usize) -> Detail<Vec<Values>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => {
            let (mut values, mut records) = (vec![Arc::from(""); fields], Vec::new());
            expand(wanted, &object, &mut values, &mut records)?;
            Ok(records)
        }
        Ok(_) => Err("a JSON object is wanted on each line".into()),
        Err(e) => Err(format!("not one JSON object on one line: {e}")),
    }
}

/// Fills `values` from `object`; then makes one record, or those of the elements of the array that was met.
fn expand(node: &Node, object: &Map<String, Value>, values: &mut Values, records: &mut Vec<Values>) -> Detail<()> {
    let mut array = None;
    walk(node, object, values, &mut array)?;
    let Some((node, elements)) = array else {
        records.push(values.clone());
        return Ok(());
    };
    for element in elements {
        match element {
            Value::Object(object) => expand(node, object, values, records)?,
            _ => return Err(format!("`{}` holds {}, not only objects", node.key, kind(element))),
        }
    }
    Ok(())
}

type Elements<'a> = (&'a Node, &'a [Value]);

/// Fills the values that stand outside arrays and finds the array, if there is one.
fn walk<'a>(
    node: &'a Node,
    object: &'a Map<String, Value>,
    values: &mut Values,
    array: &mut Option<Elements<'a>>,
) -> Detail<()> {
    for child in &node.children {
        let key = &child.key;
        let value = object.get(key).ok_or_else(|| {
            let keys: Vec<_> = object.keys().map(String::as_str).collect();
            format!("no field `{key}`; the fields are: {}", keys.join(", "))
        })?;
        if !child.places.is_empty() {
            let text: Arc<str> = text(key, value)?.into();
            child.places.iter().for_each(|place| values[*place] = text.clone());
        }
        if !child.json_places.is_empty() {
            let json: Arc<str> = if value.is_array() { value.to_string() } else { text(key, value)? }.into();
            child.json_places.iter().for_each(|place| values[*place] = json.clone());
        }
        match value {
            _ if child.children.is_empty() => {}
            Value::Object(inner) => walk(child, inner, values, array)?,
            Value::Array(elements) => {
                if let Some((other, _)) = array.replace((child, elements)) {
                    return Err(format!("`{}` and `{key}` are arrays side by side: which pairs are meant?", other.key));
                }
            }
            other => return Err(format!("`{key}` is {}, not an object or an array of objects", kind(other))),
        }
    }
    Ok(())
}

/// A value as text.
fn text(key: &str, value: &Value) -> Detail<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(elements) if elements.iter().all(|e| !e.is_array() && !e.is_object()) => {
            let parts: Detail<Vec<_>> = elements.iter().map(|e| text(key, e)).collect();
            Ok(parts?.join(" "))
        }
        _ => Err(format!("`{key}` is {}; name the field in it: `{key}.FIELD`", kind(value))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str, fields: &[&str]) -> Detail<Vec<Vec<String>>> {
        let mut wanted = Node::default();
        fields.iter().enumerate().for_each(|(place, field)| wanted.want(field, place));
        let records = expand_line(text, &wanted, fields.len())?;
        Ok(records.into_iter().map(|r| r.iter().map(|v| v.to_string()).collect()).collect())
    }

    #[test]
    fn each_element_of_an_array_makes_a_record() {
        let line =
            r#"{"p":{"context":"c","qas":[{"q":"1","a":{"text":"x"}},{"q":2,"a":{"text":null}}]},"l":["a",true]}"#;
        let found = records(line, &["p.qas.q", "p.context", "l", "p.qas.a.text", "l"]).unwrap();
        assert_eq!(found, [["1", "c", "a true", "x", "a true"], ["2", "c", "a true", "", "a true"]]);
        assert!(records(r#"{"qas":[]}"#, &["qas.q"]).unwrap().is_empty());
    }

    #[test]
    fn a_name_with_brackets_keeps_an_array_apart() {
        let line = r#"{"s":["a b","c"],"t":"[x","q":[{"w":[1]}]}"#;
        let found = records(line, &["s[]", "s", "t[]", "q.w[]"]).unwrap();
        assert_eq!(found, [[r#"["a b","c"]"#, "a b c", "[x", "[1]"]]);
    }

    #[test]
    fn arrays_in_arrays_multiply_out() {
        let line = r#"{"a":[{"b":[{"c":1},{"c":2}],"d":"x"},{"b":[{"c":3}],"d":"y"}]}"#;
        assert_eq!(records(line, &["a.b.c", "a.d"]).unwrap(), [["1", "x"], ["2", "x"], ["3", "y"]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            (r#"{"a":1,"b":2}"#, "c", "no field `c`; the fields are: a, b"),
            (r#"{"c":{"d":1}}"#, "c", "`c` is an object; name the field"),
            (r#"{"c":"x"}"#, "c.d", "`c` is a string, not an object"),
            (r#"{"c":[1]}"#, "c.d", "`c` holds a number"),
            ("[1]", "c", "a JSON object is wanted"),
            ("{", "c", "not one JSON object on one line"),
        ];
        for (line, field, wanted) in cases {
            let error = records(line, &[field]).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
        let error = records(r#"{"a":[{"x":1}],"b":[{"x":1}]}"#, &["a.x", "b.x"]).unwrap_err();
        assert!(error.contains("side by side"), "{error}");
    }
}
