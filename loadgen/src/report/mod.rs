//! How a run's figures are shown: as text, JSON, HdrHistogram logs, and a page.

pub mod html;
pub mod text;

use crate::figures::Report;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::path::Path;
use std::time::Duration;

pub fn json(reports: &[Report]) -> String {
    let text = serde_json::to_string_pretty(reports).expect("figures are plain values");
    text + "\n"
}

/// Writes both histograms as a log that HdrHistogram's own tools read: values in nanoseconds.
pub fn hdr(report: &Report, path: &Path) -> Result<(), String> {
    let problem = |what: String| format!("{}: {what}", path.display());
    let Some(latencies) = &report.latencies else { return Err(problem("nothing was measured".into())) };
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("{} on {}, nanoseconds", report.name, report.server))
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| problem(error.to_string()))?;
    let duration = Duration::from_secs_f64(report.seconds);
    for (name, histogram) in [("delivery", &latencies.0), ("answer", &latencies.1)] {
        writer
            .write_histogram(histogram, Duration::ZERO, duration, Tag::new(name))
            .map_err(|error| problem(format!("{error:?}")))?;
    }
    std::fs::write(path, bytes).map_err(|error| problem(error.to_string()))
}
