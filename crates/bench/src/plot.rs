//! Small line charts side by side, as one SVG: both axes are logarithmic.

use std::fmt::Write as _;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
/// Around each chart, for its words.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 36.0;

/// One line: what it shows, and its points.
#[derive(Debug)]
pub struct Chart {
    pub title: String,
    /// What is to the right, and what is up. Both above zero.
    pub points: Vec<(f64, f64)>,
}

/// Two charts in each row.
pub fn svg(charts: &[Chart], across: &str) -> String {
    let rows = charts.len().div_ceil(2) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * WIDTH,
        rows * HEIGHT
    );
    for (index, chart) in charts.iter().enumerate() {
        let (right, down) = (WIDTH * (index % 2) as f64, HEIGHT * (index / 2) as f64);
        let _ = writeln!(
            svg,
            "<g transform=\"translate({right} {down})\">\n{}</g>",
            drawn(chart, across)
        );
    }
    svg + "</svg>\n"
}

fn drawn(chart: &Chart, across: &str) -> String {
    let (x, y) = (
        Axis::of(
            chart.points.iter().map(|point| point.0),
            LEFT,
            WIDTH - RIGHT,
        ),
        Axis::of(
            chart.points.iter().map(|point| point.1),
            HEIGHT - BOTTOM,
            TOP,
        ),
    );
    let mut text = format!(
        "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>\n<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{across}</text>\n",
        chart.title,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 6.0
    );
    for ten in y.tens() {
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ten}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y.at(ten) + 4.0,
            at = y.at(ten)
        );
    }
    let mut line = String::new();
    for (right, up) in &chart.points {
        let (at_x, at_y) = (x.at(*right), y.at(*up));
        let _ = write!(line, "{at_x:.1},{at_y:.1} ");
        let _ = writeln!(
            text,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"#2255aa\"/><text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{up:.3}</text><text x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{right}</text>",
            at_y - 7.0,
            HEIGHT - BOTTOM + 14.0
        );
    }
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#2255aa\" stroke-width=\"1.5\"/>",
        line.trim_end()
    );
    text
}

/// From values to places, by their logarithms.
struct Axis {
    /// Powers of ten.
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole powers of ten around the values.
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let most = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
        Self {
            least,
            most: most.max(least + 1.0),
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    fn tens(&self) -> impl Iterator<Item = f64> {
        (self.least as i32..=self.most as i32).map(|power| 10f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_the_tens_around_them() {
        let chart = Chart {
            title: "bytes".into(),
            points: vec![(8.0, 3.0), (800.0, 30.0)],
        };
        let drawn = drawn(&chart, "nodes");
        // 1 and 100 are the ends upwards, 1 and 1000 across.
        let y = Axis::of([3.0, 30.0].into_iter(), HEIGHT - BOTTOM, TOP);
        assert_eq!(y.tens().collect::<Vec<_>>(), [1.0, 10.0, 100.0]);
        assert!(y.at(30.0) < y.at(3.0) && y.at(100.0) == TOP);
        assert_eq!(drawn.matches("<circle").count(), 2);
        assert!(svg(&[chart], "nodes").ends_with("</svg>\n"));
    }
}
