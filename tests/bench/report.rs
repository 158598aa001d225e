//! Figures, beside their yardsticks: as a table, and as JSON.

use std::time::Duration;

use serde::Serialize;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Which work, by the names that `scripts/bench` documents.
    pub(crate) work: String,
    /// How many nodes did it.
    pub(crate) nodes: usize,
    /// What was measured.
    pub(crate) measure: String,
    /// Its value.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The same for the yardstick, measured in the same run.
    pub(crate) yardstick: Option<Yardstick>,
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Yardstick {
    /// What was run.
    pub(crate) name: String,
    /// Its value, in the unit of the figure.
    pub(crate) value: f64,
    /// The figure divided by that.
    pub(crate) ratio: f64,
}

impl Figure {
    pub(crate) fn new(
        work: &str,
        nodes: usize,
        measure: &str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        let (work, measure) = (work.to_owned(), measure.to_owned());
        Self { work, nodes, measure, value, unit, yardstick: None }
    }

    /// Holds the figure against a yardstick.
    pub(crate) fn against(mut self, name: &str, value: Option<f64>) -> Self {
        self.yardstick = value.filter(|value| *value > 0.0).map(|value| Yardstick {
            name: name.to_owned(),
            value,
            ratio: self.value / value,
        });
        self
    }
}

/// The figures as a table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<5} {:>5}  {:<38} {:>12} {:<8} {}\n",
        "WORK", "NODES", "MEASURE", "VALUE", "UNIT", "AGAINST (same run)"
    );
    for figure in figures {
        let against = figure.yardstick.as_ref().map_or(String::new(), |yardstick| {
            let Yardstick { name, value, ratio } = yardstick;
            format!("{ratio:.2} x {name} ({value:.2})")
        });
        let Figure { work, nodes, measure, value, unit, .. } = figure;
        text += &format!("{work:<5} {nodes:>5}  {measure:<38} {value:>12.2} {unit:<8} {against}\n");
    }
    text
}

/// The value in the middle; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The value that so many in a hundred do not exceed; 0 of none.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(0.0)
}

/// So many in so long, as a rate per second.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
pub(crate) fn ratio(count: u64, during: Duration) -> f64 {
    count as f64 / during.as_secs_f64()
}
