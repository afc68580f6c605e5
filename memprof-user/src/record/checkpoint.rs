//! The checkpoint record: how far the heap had grown at the stations of one request.

use serde::{Deserialize, Serialize};

use super::request::RequestInfo;
use super::units::Mib;
use super::{Level, Record};

/// A station of a request, in the order in which they are passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// PHP begins with the request.
    RequestStart,
    /// The framework is about to register its service providers.
    BeforeProviders,
    /// The response's headers are sent.
    ResponseReady,
    /// The request ends.
    RequestEnd,
    /// One that the operator asked for, by its name.
    #[serde(untagged)]
    Own(String),
}

/// What was measured at a station.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Which station.
    pub label: Label,
    /// `memory_get_usage(true)` in bytes: the Zend heap's real_size.
    pub current_bytes: u64,
    /// `memory_get_peak_usage(true)` in bytes: the Zend heap's real_peak.
    pub peak_bytes: u64,
    /// Seconds since 1970, with microseconds.
    pub timestamp: f64,
    /// The request; with [`Label::RequestStart`] only.
    pub request: Option<RequestInfo>,
}

/// A station as the record prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which station.
    pub label: Label,
    /// `memory_get_usage(true)`.
    pub current_mb: Mib,
    /// `memory_get_peak_usage(true)`.
    pub peak_mb: Mib,
    /// What current_mb gained since the station before; 0 at the first.
    pub delta_mb: Mib,
    /// Seconds since 1970, with microseconds.
    pub timestamp: f64,
    /// uri, method and user_id, at `request_start` only.
    #[serde(flatten)]
    pub request: Option<RequestInfo>,
}

/// The station with the greatest growth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LargestJump {
    /// The whole checkpoint.
    Checkpoint(Checkpoint),
    /// No station grew: `{"delta_mb":0}`.
    None {
        /// Always 0.
        delta_mb: u8,
    },
}

/// The context of `High memory usage detected`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// `memory_get_peak_usage(true)` at the request's end.
    pub peak_mb: Mib,
    /// The stations that were seen, in time order.
    pub checkpoints: Vec<Checkpoint>,
    /// The one with the greatest delta above 0; the first of equals.
    pub largest_jump: LargestJump,
    /// The length that `serialize()` would give all session data; 0 without a session, `null` when it is unknown.
    pub session_size: Option<Mib>,
    /// Declared classes; `null` when unknown.
    pub loaded_classes: Option<u64>,
    /// Included files; `null` when unknown.
    pub included_files: Option<u64>,
}

impl CheckpointRecord {
    /// The record of a request with these stations (in time order) and that real_peak in bytes at its end. The sizes of
    /// session, classes and files are unknown until they are set.
    pub fn new(peak_bytes: u64, measurements: Vec<Measurement>) -> Self {
        let mut previous_bytes = None;
        let checkpoints: Vec<Checkpoint> = measurements
            .into_iter()
            .map(|measured| Checkpoint {
                label: measured.label,
                current_mb: Mib::from_bytes(measured.current_bytes),
                peak_mb: Mib::from_bytes(measured.peak_bytes),
                delta_mb: Mib::difference(
                    previous_bytes
                        .replace(measured.current_bytes)
                        .unwrap_or(measured.current_bytes),
                    measured.current_bytes,
                ),
                timestamp: measured.timestamp,
                request: measured.request,
            })
            .collect();
        Self {
            peak_mb: Mib::from_bytes(peak_bytes),
            largest_jump: largest_jump(&checkpoints),
            checkpoints,
            session_size: None,
            loaded_classes: None,
            included_files: None,
        }
    }
}

impl Record for CheckpointRecord {
    const NAME: &'static str = "checkpoint";
    const MESSAGE: &'static str = "High memory usage detected";
    const LEVEL: Level = Level::Warning;
}

fn largest_jump(checkpoints: &[Checkpoint]) -> LargestJump {
    let mut largest: Option<&Checkpoint> = None;
    for checkpoint in checkpoints {
        if checkpoint.delta_mb.get() > largest.map_or(0.0, |largest| largest.delta_mb.get()) {
            largest = Some(checkpoint);
        }
    }
    largest.map_or(LargestJump::None { delta_mb: 0 }, |largest| {
        LargestJump::Checkpoint(largest.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::UserId;
    use super::*;
    use crate::record::json::to_log_context;

    const MIB: u64 = 1024 * 1024;

    fn measurement(label: Label, current_mib: u64, peak_mib: u64, timestamp: f64) -> Measurement {
        Measurement {
            label,
            current_bytes: current_mib * MIB,
            peak_bytes: peak_mib * MIB,
            timestamp,
            request: None,
        }
    }

    fn example() -> CheckpointRecord {
        let mut start = measurement(Label::RequestStart, 38, 38, 1_770_091_500.104_211);
        start.request = Some(RequestInfo {
            uri: "/depot?page=2".to_owned(),
            method: "GET".to_owned(),
            user_id: Some(UserId::Number(7)),
        });
        let mut record = CheckpointRecord::new(
            1712 * MIB,
            vec![
                start,
                measurement(Label::BeforeProviders, 40, 40, 1_770_091_500.104_302),
                measurement(Label::ResponseReady, 1710, 1712, 1_770_091_502.911_872),
                measurement(Label::RequestEnd, 1710, 1712, 1_770_091_502.950_013),
            ],
        );
        record.session_size = Some(Mib::from_bytes(3 * MIB + MIB / 4));
        record.loaded_classes = Some(2210);
        record.included_files = Some(1874);
        record
    }

    #[test]
    fn example_to_the_byte() {
        let expected = concat!(
            r#"{"peak_mb":1712.0,"checkpoints":["#,
            r#"{"label":"request_start","current_mb":38.0,"peak_mb":38.0,"delta_mb":0.0,"timestamp":1770091500.104211,"#,
            r#""uri":"/depot?page=2","method":"GET","user_id":7},"#,
            r#"{"label":"before_providers","current_mb":40.0,"peak_mb":40.0,"delta_mb":2.0,"timestamp":1770091500.104302},"#,
            r#"{"label":"response_ready","current_mb":1710.0,"peak_mb":1712.0,"delta_mb":1670.0,"timestamp":1770091502.911872},"#,
            r#"{"label":"request_end","current_mb":1710.0,"peak_mb":1712.0,"delta_mb":0.0,"timestamp":1770091502.950013}],"#,
            r#""largest_jump":{"label":"response_ready","current_mb":1710.0,"peak_mb":1712.0,"delta_mb":1670.0,"#,
            r#""timestamp":1770091502.911872},"session_size":3.25,"loaded_classes":2210,"included_files":1874}"#,
        );
        let record = example();
        assert_eq!(to_log_context(&record).expect("JSON"), expected);
        assert_eq!(
            serde_json::from_str::<CheckpointRecord>(expected).expect("reads back"),
            record
        );
    }

    #[test]
    fn deltas_are_against_the_station_before() {
        let record = CheckpointRecord::new(
            60 * MIB,
            vec![
                measurement(Label::RequestStart, 50, 50, 1.0),
                measurement(Label::BeforeProviders, 60, 60, 2.0),
                measurement(Label::ResponseReady, 20, 60, 3.0),
                measurement(Label::RequestEnd, 30, 60, 4.0),
            ],
        );
        let deltas: Vec<f64> = record
            .checkpoints
            .iter()
            .map(|checkpoint| checkpoint.delta_mb.get())
            .collect();
        assert_eq!(deltas, [0.0, 10.0, -40.0, 10.0]);
        // Two equal jumps: the first wins.
        assert_eq!(
            record.largest_jump,
            LargestJump::Checkpoint(record.checkpoints[1].clone())
        );
    }

    #[test]
    fn no_growth_is_an_integer_zero_and_the_unknown_is_null() {
        let record =
            CheckpointRecord::new(2 * MIB, vec![measurement(Label::RequestEnd, 2, 2, 1.5)]);
        let text = to_log_context(&record).expect("JSON");
        assert!(
            text.ends_with(
                r#""largest_jump":{"delta_mb":0},"session_size":null,"loaded_classes":null,"included_files":null}"#
            ),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<CheckpointRecord>(&text).expect("reads back"),
            record
        );
    }

    #[test]
    fn a_guest_is_null() {
        let mut start = measurement(Label::RequestStart, 2, 2, 1.5);
        start.request = Some(RequestInfo {
            uri: "/".to_owned(),
            method: "GET".to_owned(),
            user_id: None,
        });
        let record = CheckpointRecord::new(2 * MIB, vec![start]);
        let text = to_log_context(&record).expect("JSON");
        assert!(
            text.contains(r#""timestamp":1.5,"uri":"/","method":"GET","user_id":null}"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<CheckpointRecord>(&text).expect("reads back"),
            record
        );
    }
}
