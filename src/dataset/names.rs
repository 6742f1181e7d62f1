//! Numbering names (labels, languages) as they come, and renumbering them in an order that does not depend on it.
//!
//! Sorted names make two files with the same labels give them the same numbers, whatever the order of their rows.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::{Error, Result};

/// The most bytes of all names together: more means that a column of texts was taken for one of labels.
const MAX_BYTES: usize = 1 << 20;

/// Names seen so far.
pub(super) struct Names {
    what: &'static str,
    numbers: HashMap<String, u32>,
    fixed: bool,
    bytes: usize,
}

impl Names {
    pub(super) fn new(what: &'static str) -> Self {
        Names { what, numbers: HashMap::new(), fixed: false, bytes: 0 }
    }

    /// Only these names, in this order.
    pub(super) fn fixed(what: &'static str, names: &[&str]) -> Self {
        let numbers = (0..).zip(names).map(|(i, name)| (name.to_string(), i)).collect();
        Names { numbers, fixed: true, ..Names::new(what) }
    }

    /// The number of a name; the next free one if it is new.
    pub(super) fn number(&mut self, name: &str) -> Result<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        if self.fixed {
            return Err(Error::config(self.what, format!("`{name}` is none of the names allowed here")));
        }
        self.bytes += name.len() + 1;
        if self.bytes > MAX_BYTES {
            let detail = format!("the names of {} {}s take more than {MAX_BYTES} bytes", self.len(), self.what);
            return Err(Error::config(self.what, detail + "; is it the right column?"));
        }
        let number = self.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The names in their final order, and for each number given out the final one. Integers are sorted by value,
    /// so that the label `10` follows `9`.
    pub(super) fn into_sorted(self) -> (Vec<String>, Vec<u32>) {
        let mut names: Vec<_> = self.numbers.into_iter().collect();
        let integer = |name: &str| name.parse::<i64>().ok();
        if self.fixed {
            names.sort_by_key(|(_, number)| *number);
        } else if names.iter().all(|(name, _)| integer(name).is_some()) {
            names.sort_by(|(a, _), (b, _)| (integer(a), a).cmp(&(integer(b), b)));
        } else {
            names.sort();
        }
        let mut renumbered = vec![0; names.len()];
        for (new, (_, old)) in (0..).zip(&names) {
            renumbered[*old as usize] = new;
        }
        (names.into_iter().map(|(name, _)| name).collect(), renumbered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut numbers = Names::new("label");
        for name in names {
            numbers.number(name).unwrap();
        }
        numbers.into_sorted()
    }

    #[test]
    fn integers_sort_by_value_and_others_by_letters() {
        let (names, renumbered) = sorted(&["10", "9", "10", "-1"]);
        assert_eq!(names, ["-1", "9", "10"]);
        assert_eq!(renumbered, [2, 1, 0]);
        assert_eq!(sorted(&["10", "9", "x"]).0, ["10", "9", "x"]);
    }

    #[test]
    fn fixed_names_keep_their_order_and_take_no_others() {
        let mut names = Names::fixed("label", &["wrong", "right"]);
        assert_eq!(names.number("right").unwrap(), 1);
        assert!(names.number("perhaps").is_err());
        assert_eq!(names.into_sorted(), (vec!["wrong".into(), "right".into()], vec![0, 1]));
    }

    #[test]
    fn a_column_of_texts_is_refused_early() {
        let mut names = Names::new("label");
        let error = (0..2_000_000).find_map(|i| names.number(&format!("text number {i}")).err()).unwrap();
        assert!(error.to_string().contains("right column"), "{error}");
    }
}
