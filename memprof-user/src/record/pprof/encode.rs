//! Writing a profile as a gzip-compressed protobuf message.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::{Amounts, Index, OTHER, PROGRAM, Profile, SAMPLE_TYPES, SampleKey, index, proto};

/// What pprof shows unless it is told otherwise.
const DEFAULT_SAMPLE_TYPE: &str = "inuse_space";

impl Profile {
    /// The profile as a gzip-compressed protobuf message.
    ///
    /// # Errors
    ///
    /// Only what the compressor reports.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.to_proto().encode_to_vec())?;
        encoder.finish()
    }

    pub(super) fn to_proto(&self) -> proto::Profile {
        let sample_type = |(kind, unit): (&str, &str)| proto::ValueType {
            kind: i64::from(self.known_string(kind)),
            unit: i64::from(self.known_string(unit)),
        };
        let samples = self.samples.iter();
        let locations = (1..).zip(&self.locations);
        let functions = (1..).zip(&self.functions);
        // The comments' texts come behind the others.
        let comments = (self.strings.len()..).zip(&self.comments);
        let mut profile = proto::Profile {
            sample_type: SAMPLE_TYPES.map(sample_type).to_vec(),
            sample: samples
                .map(|(key, amounts)| sample(key, *amounts))
                .collect(),
            mapping: vec![self.mapping()],
            location: locations
                .map(|(id, (function, line))| location(id, *function, *line))
                .collect(),
            function: functions
                .map(|(id, (name, file))| function(id, *name, *file))
                .collect(),
            string_table: self.strings.iter().chain(&self.comments).cloned().collect(),
            time_nanos: i64::try_from(self.started.as_nanosecond()).unwrap_or(0),
            duration_nanos: i64::try_from(self.duration.as_nanos()).unwrap_or(i64::MAX),
            comment: comments.map(|(place, _)| i64::from(index(place))).collect(),
            default_sample_type: i64::from(self.known_string(DEFAULT_SAMPLE_TYPE)),
        };
        if self.other != Amounts::default() {
            self.push_other(&mut profile);
        }
        profile
    }

    /// The sample that stands for those past the limit, behind all others.
    fn push_other(&self, profile: &mut proto::Profile) {
        let (new_function, new_location) =
            (index(self.functions.len()), index(self.locations.len()));
        let key = SampleKey {
            stack: Box::new([new_location]),
            labels: Box::new([]),
        };
        profile
            .function
            .push(function(id(new_function), self.known_string(OTHER), 0));
        profile
            .location
            .push(location(id(new_location), new_function, 0));
        profile.sample.push(sample(&key, self.other));
    }

    fn mapping(&self) -> proto::Mapping {
        proto::Mapping {
            id: 1,
            filename: i64::from(self.known_string(PROGRAM)),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
        }
    }

    /// The index of one of the texts that every profile begins with.
    fn known_string(&self, text: &str) -> Index {
        self.strings.get_index_of(text).map_or(0, index)
    }
}

/// Ids begin at 1, indexes at 0.
fn id(index: Index) -> u64 {
    u64::from(index) + 1
}

fn sample(key: &SampleKey, amounts: Amounts) -> proto::Sample {
    let label = |(key, text): &(Index, Index)| proto::Label {
        key: i64::from(*key),
        text: i64::from(*text),
    };
    let Amounts {
        alloc_objects,
        alloc_space,
        inuse_objects,
        inuse_space,
    } = amounts;
    // In the order of SAMPLE_TYPES.
    let values = [alloc_objects, alloc_space, inuse_objects, inuse_space];
    proto::Sample {
        location_id: key.stack.iter().map(|location| id(*location)).collect(),
        value: values
            .map(|value| i64::try_from(value).unwrap_or(i64::MAX))
            .to_vec(),
        label: key.labels.iter().map(label).collect(),
    }
}

fn location(id: u64, function: Index, line: u32) -> proto::Location {
    let line = proto::Line {
        function_id: self::id(function),
        line: i64::from(line),
    };
    proto::Location {
        id,
        mapping_id: 1,
        line: vec![line],
    }
}

fn function(id: u64, name: Index, file: Index) -> proto::Function {
    let (name, filename) = (i64::from(name), i64::from(file));
    proto::Function {
        id,
        name,
        system_name: name,
        filename,
    }
}
