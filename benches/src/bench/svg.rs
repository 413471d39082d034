//! Plots as SVG text: lines over labelled places, and bars. Colours and fonts come from the page's style sheet, so that
//! light and dark need no second plot.

use std::fmt::Write;

/// A line of a plot: its name and its points, `None` where there is no figure.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// Lines over places that stand at equal distances.
pub(super) struct LinePlot<'a> {
    /// Read out where the plot cannot be seen.
    pub(super) title: &'a str,
    /// What stands below each place.
    pub(super) places: Vec<String>,
    /// Places from here on stand alone: no line leads to them.
    pub(super) alone_from: usize,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) lines: Vec<Line>,
}

/// A bar with what it says.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// Stands behind the bar.
    pub(super) text: String,
    /// Which of the colours.
    pub(super) colour: usize,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 52.0;
/// Colours that the style sheet has.
pub(super) const COLOURS: usize = 6;

impl LinePlot<'_> {
    /// The plot, or nothing where no line has a point.
    pub(super) fn render(&self) -> String {
        let values = || self.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let max = values().fold(0.0, f64::max);
        if max <= 0.0 || self.places.is_empty() {
            return String::new();
        }
        let step = tick_step(max);
        let top = (max / step).ceil() * step;
        let mut svg = String::new();
        open(&mut svg, self.title, HEIGHT);
        self.draw_grid(&mut svg, step, top);
        for (index, line) in self.lines.iter().enumerate() {
            self.draw_line(&mut svg, index, line, top);
        }
        svg.push_str("</svg>\n");
        svg + &legend(self.lines.iter().map(|line| line.name.as_str()))
    }

    fn x(&self, place: usize) -> f64 {
        let width = WIDTH - LEFT - RIGHT;
        LEFT + width * (place as f64 + 0.5) / self.places.len() as f64
    }

    fn draw_grid(&self, svg: &mut String, step: f64, top: f64) {
        for tick in 0..=(top / step).round() as usize {
            let value = tick as f64 * step;
            let y = y(value, top);
            add(
                svg,
                &format!(
                    r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                    WIDTH - RIGHT
                ),
            );
            add(svg, &text("tick end", LEFT - 8.0, y + 4.0, &number(value)));
        }
        let base = HEIGHT - BOTTOM;
        for (place, label) in self.places.iter().enumerate() {
            add(svg, &text("tick middle", self.x(place), base + 18.0, label));
        }
        add(svg, &text("label middle", (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, self.x_label));
        let middle = (TOP + base) / 2.0;
        let turned =
            format!(r#"<text class="label middle" transform="translate(16 {middle:.1}) rotate(-90)">"#);
        add(svg, &format!("{turned}{}</text>", escape(self.y_label)));
    }

    fn draw_line(&self, svg: &mut String, index: usize, line: &Line, top: f64) {
        let colour = index % COLOURS;
        let point = |place: usize| line.values[place].map(|value| (self.x(place), y(value, top), value));
        let points: Vec<Option<(f64, f64, f64)>> = (0..line.values.len()).map(point).collect();
        // A line ends where a figure is missing, rather than pretend that there was one.
        for part in points[..self.alone_from.min(points.len())].split(Option::is_none) {
            let path: Vec<String> = part.iter().flatten().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
            if path.len() > 1 {
                add(svg, &format!(r#"<polyline class="line c{colour}" points="{}"/>"#, path.join(" ")));
            }
        }
        for (x, y, value) in points.into_iter().flatten() {
            let title = format!("{}: {} {}", line.name, number(value), self.y_label);
            add(
                svg,
                &format!(
                    r#"<circle class="dot c{colour}" cx="{x:.1}" cy="{y:.1}" r="3.5"><title>{}</title></circle>"#,
                    escape(&title)
                ),
            );
        }
    }
}

/// Horizontal bars, the longest as wide as the plot; nothing where there are none.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 30.0;
    const NAME: f64 = 190.0;
    const TEXT: f64 = 170.0;
    let max = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    if bars.is_empty() {
        return String::new();
    }
    let mut svg = String::new();
    open(&mut svg, title, ROW * bars.len() as f64 + 8.0);
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64 + 4.0;
        let part = if max > 0.0 { bar.value / max } else { 0.0 };
        let width = ((WIDTH - NAME - TEXT) * part).max(1.0);
        add(&mut svg, &text("tick end", NAME - 10.0, y + 18.0, &shortened(&bar.name)));
        let colour = bar.colour % COLOURS;
        let height = ROW - 8.0;
        add(
            &mut svg,
            &format!(
                r#"<rect class="bar c{colour}" x="{NAME}" y="{y:.1}" width="{width:.1}" height="{height}" rx="3"/>"#
            ),
        );
        add(&mut svg, &text("tick", NAME + width + 8.0, y + 18.0, &bar.text));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A name that fits beside a bar.
fn shortened(name: &str) -> String {
    const CHARS_MAX: usize = 24;
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.into(),
    }
}

/// Text that is safe in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Three digits that count, as people write them.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if magnitude >= 100.0 || magnitude == 0.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn open(svg: &mut String, title: &str, height: f64) {
    let label = escape(title);
    add(svg, &format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">"#));
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut html = String::from("<p class=\"legend\">");
    for (index, name) in names.enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(html, "<span><i class=\"c{}\"></i>{}</span> ", index % COLOURS, escape(name));
    }
    html + "</p>\n"
}

fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text))
}

fn add(svg: &mut String, line: &str) {
    svg.push_str(line);
    svg.push('\n');
}

fn y(value: f64, top: f64) -> f64 {
    let height = HEIGHT - TOP - BOTTOM;
    TOP + height * (1.0 - value / top)
}

/// 1, 2 or 5 times a power of ten, so that there are four to eight ticks.
fn tick_step(max: f64) -> f64 {
    let rough = max / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    power * steps.into_iter().find(|step| step * power >= rough).unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for max in [0.0003, 0.9, 1.0, 3.7, 14.88, 99.0, 1e7] {
            let step = tick_step(max);
            let ticks = (max / step).ceil();
            assert!((2.0..=8.0).contains(&ticks), "{max}: {ticks} ticks of {step}");
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (value, text) in [(0.0, "0"), (0.25, "0.25"), (2.0, "2"), (14.88, "14.9"), (1234.5, "1234")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn plot_has_a_point_for_each_figure_and_none_for_a_missing_one() {
        let plot = LinePlot {
            title: "a < b",
            places: vec!["64".into(), "128".into(), "256".into()],
            alone_from: 3,
            x_label: "size",
            y_label: "Mpps",
            lines: vec![Line { name: "MRR".into(), values: vec![Some(3.0), None, Some(1.0)] }],
        };
        let svg = plot.render();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"), "{svg}");
        assert!(!svg.contains("polyline"), "no line crosses what is missing: {svg}");
        let whole = Line { name: "MRR".into(), values: vec![Some(3.0), Some(2.0), Some(1.0)] };
        let plot = LinePlot { lines: vec![whole], alone_from: 2, ..plot };
        let svg = plot.render();
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!(points.split(' ').count(), 2, "the third stands alone: {svg}");
        let empty = LinePlot { lines: Vec::new(), ..plot };
        assert_eq!(empty.render(), "");
    }

    #[test]
    fn bars_of_nothing_are_thin_not_broken() {
        let bar = |value: f64| Bar { name: "x".repeat(40), value, text: "0".into(), colour: 7 };
        let svg = bars("t", &[bar(0.0), bar(0.0)]);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains(&"x".repeat(25)), "{svg}");
        assert_eq!(bars("t", &[]), "");
    }
}
