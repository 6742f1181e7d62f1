//! The demo's table, on the terminal and as one HTML file with the curves.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use super::Row;
use crate::{AtomicFile, Error, Result};

/// The mean over the languages of one task: floor, result.
fn means(rows: &[Row]) -> Vec<(&'static str, f64, f64)> {
    let tasks = rows.chunk_by(|a, b| a.task == b.task);
    let mean = |rows: &[Row], value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
    tasks.map(|rows| (rows[0].task, mean(rows, |r| r.floor.0), mean(rows, |r| r.result.0))).collect()
}

/// What a comparison says, honestly: whether the intervals leave room for doubt.
fn verdict(row: &Row) -> &'static str {
    let difference = row.result.0 - row.floor.0;
    let doubt = row.result.1.hypot(row.floor.1);
    match difference {
        d if d > doubt => "above its floor",
        d if d > 0.0 => "above, within the interval",
        d if d >= -doubt => "not above its floor",
        _ => "below its floor",
    }
}

/// Prints the table.
pub(super) fn print(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<10} {:<4} {:<25} {:<11} {:<18} {:>15} {:>15}  against the floor",
        "task", "lang", "support", "metric", "floor", "floor", "result"
    )?;
    for r in rows {
        let shown = |(mean, half): (f64, f64)| format!("{mean:.3} ± {half:.3}");
        writeln!(
            out,
            "{:<10} {:<4} {:<25} {:<11} {:<18} {:>15} {:>15}  {}",
            r.task,
            r.language,
            r.support,
            r.metric,
            r.floor_name,
            shown(r.floor),
            shown(r.result),
            verdict(r)
        )?;
    }
    for (task, floor, result) in means(rows) {
        let says = if result > floor { "above its floor" } else { "not above its floor" };
        writeln!(out, "{task:<10} mean of the new languages: floor {floor:.3}, result {result:.3}: {says}")?;
    }
    writeln!(out, "± is half of the 95% interval; no text about a measured item was trained on, in any language")
}

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}th,td{padding:.3em .6em;border-bottom:1px solid #ddd;text-align:left}\
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto;margin:1em 0}";

/// Writes the report.
pub(super) fn write(path: &Path, rows: &[Row], curves: &[String]) -> Result<()> {
    let mut html = String::new();
    page(&mut html, rows, curves).expect("writing to a string cannot fail");
    let mut file = AtomicFile::create(path)?;
    file.write_all(html.as_bytes()).map_err(|e| Error::io("write", path, e))?;
    file.commit()
}

fn page(html: &mut String, rows: &[Row], curves: &[String]) -> std::fmt::Result {
    write!(html, "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>metaglot demo</title>")?;
    write!(html, "<style>{STYLE}</style><h1>metaglot demo</h1>")?;
    write!(
        html,
        "<p>Meta-trained on ten languages, adapted to four that were never trained on, measured on items that no \
         training text of any language is about. &plusmn; is half of the 95% interval.</p><table><tr>"
    )?;
    for head in ["task", "language", "support", "metric", "floor", "floor's value", "result", ""] {
        write!(html, "<th>{head}</th>")?;
    }
    for r in rows {
        write!(html, "<tr><td>{}<td>{}<td>{}<td>{}<td>{}", r.task, r.language, r.support, r.metric, r.floor_name)?;
        for (mean, half) in [r.floor, r.result] {
            write!(html, "<td class=\"n\">{mean:.3} &plusmn; {half:.3}")?;
        }
        write!(html, "<td>{}", verdict(r))?;
    }
    for (task, floor, result) in means(rows) {
        write!(html, "<tr><td>{task}<td colspan=\"4\">mean of the new languages")?;
        write!(html, "<td class=\"n\">{floor:.3}<td class=\"n\">{result:.3}<td>")?;
    }
    write!(html, "</table><h2>Training</h2>")?;
    curves.iter().try_for_each(|svg| html.write_str(svg))?;
    writeln!(html, "</html>")
}
