//! A plain chart as SVG: panels side by side, x logarithmic, y logarithmic or from 0.

use std::fmt::Write;

/// One curve.
pub struct Line {
    /// For the legend.
    pub name: String,
    /// (x, y), both above 0. A line without points is left out.
    pub points: Vec<(f64, f64)>,
}

/// One set of axes.
pub struct Panel {
    /// Above it.
    pub title: &'static str,
    /// The same lines, in the same order, as in the other panels.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 190.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 70.0;
const GAP: f64 = 30.0;
/// Told apart by people who see red and green alike (Okabe and Ito, 2008).
const COLORS: [&str; 4] = ["#d55e00", "#e69f00", "#56b4e9", "#0072b2"];

/// How the y axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Its marks are powers of ten.
    Logarithmic,
    /// From 0, with some round marks.
    FromZero,
}

/// 1, 2 or 5 times a power of ten, such that at most eight of them make `most`.
fn step(most: f64) -> f64 {
    let power = 10.0_f64.powf((most / 8.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| most / step <= 8.0)
        .unwrap_or(most)
}

/// The chart. Panels share the y axis.
pub fn chart(title: &str, panels: &[Panel], scale: Scale) -> String {
    let points = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let range = |value: fn(&(f64, f64)) -> f64| {
        points().map(value).fold((f64::INFINITY, 0.0_f64), |(least, most), v| (least.min(v), most.max(v)))
    };
    let ((x_least, x_most), (y_least, y_most)) = (range(|p| p.0), range(|p| p.1));
    let step = step(y_most);
    let (y_least, y_most) = match scale {
        Scale::Logarithmic => (y_least.log10().floor(), y_most.log10().ceil()),
        Scale::FromZero => (0.0, (y_most / step).ceil()),
    };
    let x = |value: f64| 10.0 + (WIDTH - 20.0) * (value / x_least).ln() / (x_most / x_least).ln();
    let along = |value: f64| match scale {
        Scale::Logarithmic => value.log10(),
        Scale::FromZero => value / step,
    };
    let y = |value: f64| TOP + HEIGHT * (y_most - along(value)) / (y_most - y_least);
    let left = |panel: usize| LEFT + panel as f64 * (WIDTH + GAP);

    let (width, height) = (left(panels.len()), TOP + HEIGHT + 40.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    let mut put = |line: String| writeln!(out, "{line}").expect("a String takes all");
    for mark in y_least as i32..=y_most as i32 {
        let (at, label) = match scale {
            Scale::Logarithmic => {
                (y(10.0_f64.powi(mark)), format!("10<tspan dy=\"-4\" font-size=\"8\">{mark}</tspan>"))
            }
            Scale::FromZero => (y(f64::from(mark) * step), format!("{}", f64::from(mark) * step)),
        };
        put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0));
        for panel in 0..panels.len() {
            let (from, to) = (left(panel), left(panel) + WIDTH);
            put(format!("<line x1=\"{from}\" y1=\"{at:.1}\" x2=\"{to}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
        }
    }
    for (i, panel) in panels.iter().enumerate() {
        put(format!(
            "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            left(i),
            TOP - 8.0,
            panel.title
        ));
        let mut marks: Vec<f64> = panel.lines.iter().flat_map(|line| &line.points).map(|p| p.0).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for mark in marks {
            let (at, below) = (left(i) + x(mark), TOP + HEIGHT + 16.0);
            put(format!("<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{mark}</text>"));
        }
        for (line, color) in panel.lines.iter().zip(COLORS) {
            let at: Vec<String> =
                line.points.iter().map(|p| format!("{:.1},{:.1}", left(i) + x(p.0), y(p.1))).collect();
            if !at.is_empty() {
                put(format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                    at.join(" ")
                ));
            }
            for point in &line.points {
                let (cx, cy) = (left(i) + x(point.0), y(point.1));
                put(format!("<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{color}\"/>"));
            }
        }
    }
    let drawn = |name: usize| panels.iter().any(|panel| !panel.lines[name].points.is_empty());
    let names = panels.first().map_or(0, |panel| panel.lines.len().min(COLORS.len()));
    for (place, name) in (0..names).filter(|&name| drawn(name)).enumerate() {
        let (at, color) = (LEFT + 230.0 * place as f64, COLORS[name]);
        put(format!("<rect x=\"{at}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{color}\"/>"));
        put(format!("<text x=\"{}\" y=\"42\">{}</text>", at + 18.0, panels[0].lines[name].name));
    }
    put("</svg>".to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_empty_lines_are_not() {
        let line =
            |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let panel = |title| Panel {
            title,
            lines: vec![line("first", &[(512.0, 1e-3), (2048.0, 2.0)]), line("second", &[])],
        };
        for scale in [Scale::Logarithmic, Scale::FromZero] {
            let svg = chart("what", &[panel("A"), panel("B")], scale);
            assert_eq!(svg.matches("<circle").count(), 4);
            assert_eq!(svg.matches("<polyline").count(), 2);
            assert!(svg.contains("first") && !svg.contains("second"));
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!([17.5, 8.0, 0.9, 41.0].map(step), [5.0, 1.0, 0.2, 10.0]);
    }
}
