//! The chart of a scenario: a panel per metric, a row per server, as SVG that stands for itself.
//!
//! It carries its own background and asks the reader's system whether that should be light or dark, since a picture does not
//! see the page around it. Every row has its value beside it, so nothing depends on telling colours apart. Where the values
//! of a panel lie far apart the axis is logarithmic; then a dot marks the value, because the length of a bar would say
//! nothing.

use std::fmt::{self, Write as _};

use super::{Run, numbers::number, words};
use crate::figures::Figure;

/// The largest by the smallest value from which on an axis is logarithmic.
const FAR_APART: f64 = 20.0;

const PANEL: f64 = 372.0;
const MARGIN: f64 = 16.0;
/// Where the names of the servers end and the axis begins.
const AXIS: f64 = 84.0;
/// How long the axis is. To its right stand values.
const LENGTH: f64 = 196.0;
const ROW: f64 = 24.0;
/// Above the rows: the panel's title, and which way is better.
const HEAD: f64 = 44.0;
/// Below the rows: air, and the axis's labels where it has some.
const FOOT: f64 = 20.0;
const LABELS: f64 = 16.0;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px;fill:#1f2328}\
.card{fill:#fff;stroke:#d1d9e0}.title{font-weight:600}.note{font-size:11px;fill:#59636e}\
.grid{stroke:#d9dee3}.stem{stroke:#9aa4ae;stroke-width:2}.peer{fill:#8a94a0}.floor{fill:#adb6bf}\
.myelin{fill:#0b7a75}.stem.own{stroke:#0b7a75}.own-text{font-weight:600}\
@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.card{fill:#14181d;stroke:#333a42}.note{fill:#9aa4ae}\
.grid{stroke:#2b3138}.stem{stroke:#6b7580}.peer{fill:#8a94a0}.floor{fill:#6d7782}\
.myelin{fill:#35b8ae}.stem.own{stroke:#35b8ae}}";

/// A chart with the text that stands for it.
pub(crate) struct Chart {
    pub(crate) svg: String,
    /// What it shows, in words.
    pub(crate) description: String,
}

/// The chart of `scenario`, or none where fewer than two servers have the same figure.
pub(crate) fn of(run: &Run, scenario: &words::Scenario) -> Option<Chart> {
    let panels = scenario.charted.iter().filter_map(|metric| {
        let mut rows: Vec<&Figure> = Vec::new();
        for server in run.servers() {
            rows.extend(run.figures.get(scenario.name, server, metric));
        }
        // A logarithm needs more than nothing, and a bar that is not there compares nothing.
        rows.retain(|figure| figure.value > 0.0);
        (rows.len() >= 2).then(|| Panel {
            title: words::metric(scenario.name, metric),
            more_is_better: words::more_is_better(metric),
            rows,
        })
    });
    let panels: Vec<Panel<'_>> = panels.collect();
    (!panels.is_empty()).then(|| {
        let description: Vec<String> = panels.iter().map(Panel::description).collect();
        let description = description.join(" ");
        Chart {
            svg: drawn(scenario, &panels, &description),
            description,
        }
    })
}

struct Panel<'a> {
    title: String,
    more_is_better: bool,
    rows: Vec<&'a Figure>,
}

impl Panel<'_> {
    fn unit(&self) -> &str {
        self.rows.first().map_or("", |figure| &figure.unit)
    }

    fn heading(&self) -> String {
        let mut letters = self.title.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        let title: String = first
            .chain(letters)
            .filter(|&letter| letter != '`')
            .collect();
        format!("{title}, {}", self.unit())
    }

    fn description(&self) -> String {
        let values = self
            .rows
            .iter()
            .map(|figure| format!("{} {}", words::server(&figure.server), number(figure.value)));
        let values: Vec<String> = values.collect();
        format!("{}: {}.", self.heading(), values.join("; "))
    }

    fn height(&self) -> f64 {
        let labels = match self.axis() {
            Axis::Linear { .. } => 0.0,
            Axis::Logarithmic { .. } => LABELS,
        };
        HEAD + ROW * self.rows.len() as f64 + labels + FOOT
    }

    fn axis(&self) -> Axis {
        let values = || self.rows.iter().map(|figure| figure.value);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(0.0, f64::max);
        if most / least < FAR_APART {
            return Axis::Linear { most };
        }
        Axis::Logarithmic {
            from: least.log10().floor() as i32,
            to: most.log10().ceil() as i32,
        }
    }

    fn draw(&self, out: &mut String, left: f64, top: f64) -> fmt::Result {
        let axis = self.axis();
        let (zero, rows) = (left + AXIS, top + HEAD);
        let bottom = rows + ROW * self.rows.len() as f64;
        let better = if self.more_is_better { "more" } else { "less" };
        let scale = match axis {
            Axis::Linear { .. } => "",
            Axis::Logarithmic { .. } => "; logarithmic scale",
        };
        writeln!(
            out,
            r#"<text class="title" x="{left}" y="{}">{}</text>"#,
            top + 14.0,
            escaped(&self.heading())
        )?;
        writeln!(
            out,
            r#"<text class="note" x="{left}" y="{}">{better} is better{scale}</text>"#,
            top + 31.0
        )?;
        for (at, label) in axis.ticks() {
            let x = zero + at * LENGTH;
            writeln!(out, r#"<path class="grid" d="M{x:.1} {rows}V{bottom}"/>"#)?;
            if !label.is_empty() {
                let y = bottom + 15.0;
                writeln!(
                    out,
                    r#"<text class="note" x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#
                )?;
            }
        }
        for (index, figure) in self.rows.iter().enumerate() {
            let middle = rows + ROW * (index as f64 + 0.5);
            let (class, own, bold) = match figure.server.as_str() {
                "myelin" => ("myelin", " own", r#" class="own-text""#),
                "floor" => ("floor", "", ""),
                _ => ("peer", "", ""),
            };
            let name = escaped(&words::server(&figure.server));
            let (text, end) = (middle + 4.5, zero + axis.at(figure.value) * LENGTH);
            writeln!(
                out,
                r#"<text{bold} x="{}" y="{text}" text-anchor="end">{name}</text>"#,
                zero - 8.0
            )?;
            match axis {
                Axis::Linear { .. } => {
                    let (y, width) = (middle - 7.0, (end - zero).max(1.0));
                    writeln!(
                        out,
                        r#"<rect class="{class}" x="{zero}" y="{y}" width="{width:.1}" height="14"/>"#
                    )?;
                }
                Axis::Logarithmic { .. } => {
                    writeln!(
                        out,
                        r#"<path class="stem{own}" d="M{zero} {middle}H{end:.1}"/>"#
                    )?;
                    writeln!(
                        out,
                        r#"<circle class="{class}" cx="{end:.1}" cy="{middle}" r="6"/>"#
                    )?;
                }
            }
            let x = end + 12.0;
            writeln!(
                out,
                r#"<text{bold} x="{x:.1}" y="{text}">{}</text>"#,
                number(figure.value)
            )?;
        }
        Ok(())
    }
}

/// Where values lie on the axis, from 0 to 1.
#[derive(Clone, Copy)]
enum Axis {
    Linear {
        most: f64,
    },
    /// Powers of ten.
    Logarithmic {
        from: i32,
        to: i32,
    },
}

impl Axis {
    fn at(self, value: f64) -> f64 {
        match self {
            Self::Linear { most } => value / most,
            Self::Logarithmic { from, to } => {
                (value.log10() - f64::from(from)) / f64::from((to - from).max(1))
            }
        }
    }

    /// Lines across the rows, and what stands below them. Bars have their values beside them and need none but the zero.
    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear { .. } => vec![(0.0, String::new())],
            Self::Logarithmic { from, to } => {
                // So many decades that all labels would run together: every second.
                let step = if to - from > 5 { 2 } else { 1 };
                let labelled = |power: i32| {
                    if (power - from) % step == 0 {
                        number(10_f64.powi(power))
                    } else {
                        String::new()
                    }
                };
                let powers = from..=to;
                powers
                    .map(|power| (self.at(10_f64.powi(power)), labelled(power)))
                    .collect()
            }
        }
    }
}

fn drawn(scenario: &words::Scenario, panels: &[Panel<'_>], description: &str) -> String {
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let lines: Vec<&[Panel<'_>]> = panels.chunks(columns).collect();
    let height_of = |line: &[Panel<'_>]| line.iter().map(Panel::height).fold(0.0, f64::max);
    let width = MARGIN + columns as f64 * PANEL;
    let height = MARGIN + lines.iter().map(|line| height_of(line)).sum::<f64>();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-labelledby=\"title description\">\n\
         <title id=\"title\">{}</title>\n<desc id=\"description\">{}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
        escaped(scenario.title),
        escaped(description),
        width - 1.0,
        height - 1.0,
    );
    let mut top = MARGIN;
    for line in lines {
        let mut left = MARGIN;
        for panel in line {
            // Writing into a String does not fail.
            panel.draw(&mut out, left, top).ok();
            left += PANEL;
        }
        top += height_of(line);
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{figures, run};

    fn send() -> &'static words::Scenario {
        words::SCENARIOS
            .iter()
            .find(|scenario| scenario.name == "send")
            .expect("it is there")
    }

    /// Every element is closed, in order, and no text holds a bare `&` or `<`.
    fn check_form(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().expect("a tag has a name"));
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            for entity in text.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;", "quot;"];
                assert!(known.iter().any(|name| entity.starts_with(name)), "{text}");
            }
            assert!(!text.contains("NaN"), "{text}");
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn well_formed_and_says_what_it_shows() {
        let run = run(figures(&[
            ("send", "myelin", "throughput", 3_400.0),
            ("send", "floor", "throughput", 9_000.0),
            ("send", "<a> & \"b\"", "throughput", 40.0),
            ("send", "myelin", "cpu", 0.3),
            ("send", "floor", "cpu", 0.1),
        ]));
        let chart = of(&run, send()).expect("two servers have figures");
        check_form(&chart.svg);
        assert!(
            chart
                .svg
                .contains("<title id=\"title\">Sending into one room</title>")
        );
        assert!(chart.svg.contains("logarithmic scale"));
        assert!(
            chart
                .description
                .starts_with("Throughput, events/s: Myelin 3,400; floor 9,000; ")
        );
        assert!(!chart.svg.contains("<script"));
    }

    #[test]
    fn one_server_alone_is_no_chart() {
        let run = run(figures(&[
            ("send", "myelin", "throughput", 3_400.0),
            ("send", "floor", "cpu", 0.0),
            ("send", "myelin", "cpu", 0.3),
        ]));
        assert!(of(&run, send()).is_none());
    }

    #[test]
    fn near_values_are_bars_from_zero() {
        let run = run(figures(&[
            ("send", "myelin", "throughput", 200.0),
            ("send", "synapse", "throughput", 100.0),
        ]));
        let chart = of(&run, send()).expect("two servers have figures");
        check_form(&chart.svg);
        assert!(
            chart
                .svg
                .contains(&format!("width=\"{:.1}\" height=\"14\"", LENGTH / 2.0))
        );
        assert!(!chart.svg.contains("logarithmic"));
    }
}
