//! Training curves as SVG: loss above, share of right answers below.
#![forbid(unsafe_code)]

use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::train::Report;

const SIZE: (u32, u32) = (760, 520);

/// A named line and its points.
struct Curve {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The curves of a run as one SVG image.
pub(super) fn svg(title: &str, reports: &[Report]) -> Result<String> {
    let mut image = String::new();
    draw(&mut image, title, reports).map_err(|e| Error::config("curves.svg", e.to_string()))?;
    Ok(image)
}

fn draw(image: &mut String, title: &str, reports: &[Report]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(image, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 18))?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    let curve = |name, color, value: fn(&Report) -> Option<f64>| Curve {
        name,
        color,
        points: reports.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect(),
    };
    panel(
        &upper,
        "query loss",
        &[
            curve("training", BLUE, |r| Some(r.train_loss)),
            curve("validation, unseen languages", RED, |r| r.valid_loss),
        ],
    )?;
    panel(
        &lower,
        "right answers",
        &[
            curve("training", BLUE, |r| Some(r.train_accuracy)),
            curve("validation, unseen languages", RED, |r| r.valid_accuracy),
        ],
    )?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    what: &str,
    curves: &[Curve],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|c| &c.points);
    let last = points().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = points().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let margin = 0.05 * (high - low);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
    chart.configure_mesh().x_desc("step").y_desc(what).light_line_style(WHITE).draw()?;
    for curve in curves.iter().filter(|c| !c.points.is_empty()) {
        let color = curve.color;
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), &color))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}
