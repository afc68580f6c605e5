//! Reading a profile back.

use std::io::{self, Read};
use std::time::Duration;

use flate2::read::GzDecoder;
use jiff::Timestamp;
use prost::Message;
use thiserror::Error;

use super::super::frame::Frame;
use super::{Amounts, proto};

/// The largest profile that is read, in bytes without compression.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A profile as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadProfile {
    /// When the run began.
    pub started: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The remarks.
    pub comments: Vec<String>,
    /// The stacks and their amounts.
    pub samples: Vec<ReadSample>,
    frames: Vec<Frame>,
}

/// A stack of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadSample {
    /// Keys and values, in the order in which they were written.
    pub labels: Vec<(String, String)>,
    /// What it took and held.
    pub amounts: Amounts,
    /// Indexes of the profile's frames, innermost first.
    stack: Vec<usize>,
}

impl ReadProfile {
    /// The frames of one of its samples, innermost first.
    pub fn stack<'a>(&'a self, sample: &'a ReadSample) -> impl Iterator<Item = &'a Frame> {
        sample
            .stack
            .iter()
            .filter_map(|index| self.frames.get(*index))
    }
}

/// Why a profile could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It could not be read or unpacked.
    #[error("cannot unpack the profile: {0}; is it a .pb.gz file of memprof's?")]
    Io(#[from] io::Error),
    /// It is too large.
    #[error("the profile has more than {MAX_BYTES} bytes when it is unpacked")]
    TooLarge,
    /// It is no protobuf message.
    #[error("the profile is no pprof message: {0}; it may have been cut off")]
    Message(#[from] prost::DecodeError),
    /// It is a profile that memprof does not write.
    #[error("the profile is not memprof's: {0}")]
    Content(&'static str),
}

/// Reads a gzip-compressed profile that [`Profile::encode`](super::Profile::encode) made.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(input: impl Read) -> Result<ReadProfile, ReadError> {
    let mut bytes = Vec::new();
    GzDecoder::new(input)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    let profile = proto::Profile::decode(bytes.as_slice())?;
    let columns = Columns::find(&profile)?;
    let frames = profile
        .location
        .iter()
        .map(|location| frame(&profile, location))
        .collect::<Result<_, _>>()?;
    let samples = profile
        .sample
        .iter()
        .map(|sample| read_sample(&profile, &columns, sample));
    Ok(ReadProfile {
        started: Timestamp::from_nanosecond(profile.time_nanos.into())
            .map_err(|_| ReadError::Content("its time is out of range"))?,
        duration: Duration::from_nanos(profile.duration_nanos.try_into().unwrap_or(0)),
        comments: profile
            .comment
            .iter()
            .map(|index| string(&profile, *index))
            .collect::<Result<_, _>>()?,
        samples: samples.collect::<Result<_, _>>()?,
        frames,
    })
}

/// At which places of a sample's values its amounts are.
struct Columns {
    alloc_space: usize,
    alloc_objects: usize,
    inuse_space: usize,
    inuse_objects: usize,
}

impl Columns {
    fn find(profile: &proto::Profile) -> Result<Self, ReadError> {
        let find = |name: &str| {
            let named =
                |kind: &proto::ValueType| string(profile, kind.kind).is_ok_and(|kind| kind == name);
            let position = profile.sample_type.iter().position(named);
            position.ok_or(ReadError::Content(
                "it lacks one of alloc_space, alloc_objects, inuse_space, inuse_objects",
            ))
        };
        Ok(Self {
            alloc_space: find("alloc_space")?,
            alloc_objects: find("alloc_objects")?,
            inuse_space: find("inuse_space")?,
            inuse_objects: find("inuse_objects")?,
        })
    }

    fn amounts(&self, values: &[i64]) -> Result<Amounts, ReadError> {
        let value = |column: usize| {
            let value = values
                .get(column)
                .and_then(|value| u64::try_from(*value).ok());
            value.ok_or(ReadError::Content(
                "a sample lacks a value, or it is negative",
            ))
        };
        Ok(Amounts {
            alloc_space: value(self.alloc_space)?,
            alloc_objects: value(self.alloc_objects)?,
            inuse_space: value(self.inuse_space)?,
            inuse_objects: value(self.inuse_objects)?,
        })
    }
}

fn read_sample(
    profile: &proto::Profile,
    columns: &Columns,
    sample: &proto::Sample,
) -> Result<ReadSample, ReadError> {
    let label =
        |label: &proto::Label| Ok((string(profile, label.key)?, string(profile, label.text)?));
    let stack = sample
        .location_id
        .iter()
        .map(|id| index_of_id(*id, profile.location.len()));
    Ok(ReadSample {
        labels: sample
            .label
            .iter()
            .map(label)
            .collect::<Result<_, ReadError>>()?,
        amounts: columns.amounts(&sample.value)?,
        stack: stack.collect::<Result<_, _>>()?,
    })
}

fn frame(profile: &proto::Profile, location: &proto::Location) -> Result<Frame, ReadError> {
    let [line] = location.line.as_slice() else {
        return Err(ReadError::Content("a location has not exactly one line"));
    };
    let function = profile
        .function
        .get(index_of_id(line.function_id, profile.function.len())?);
    let function = function.ok_or(ReadError::Content("a location names no function"))?;
    let file = string(profile, function.filename)?;
    Ok(Frame {
        function: string(profile, function.name)?,
        file: (!file.is_empty()).then_some(file),
        line: u32::try_from(line.line).ok().filter(|line| *line != 0),
    })
}

/// memprof numbers functions and locations 1, 2, ... in the order of the file.
fn index_of_id(id: u64, count: usize) -> Result<usize, ReadError> {
    let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
    index
        .filter(|index| *index < count)
        .ok_or(ReadError::Content("an id is out of range"))
}

fn string(profile: &proto::Profile, index: i64) -> Result<String, ReadError> {
    let text = usize::try_from(index)
        .ok()
        .and_then(|index| profile.string_table.get(index));
    text.cloned()
        .ok_or(ReadError::Content("the index of a text is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder
            .write_all(bytes)
            .and_then(|()| encoder.finish())
            .expect("compresses")
    }

    fn valid() -> proto::Profile {
        let mut profile = super::super::Profile::new(Timestamp::UNIX_EPOCH);
        let frame = Frame {
            function: "f".to_owned(),
            file: None,
            line: None,
        };
        profile.add(&[frame], &[("pool", "www")], Amounts::default());
        profile.to_proto()
    }

    #[test]
    fn ids_and_indexes_out_of_range_are_refused() {
        let spoils: [fn(&mut proto::Profile); 8] = [
            |profile| profile.sample[0].location_id[0] = 0,
            |profile| profile.sample[0].location_id[0] = u64::MAX,
            |profile| profile.sample[0].label[0].text = -1,
            |profile| profile.sample[0].value[1] = -1,
            |profile| profile.sample[0].value.truncate(3),
            |profile| profile.location[0].line[0].function_id = 2,
            |profile| profile.function[0].name = i64::MAX,
            |profile| profile.sample_type.truncate(3),
        ];
        assert!(read(packed(&valid().encode_to_vec()).as_slice()).is_ok());
        for (number, spoil) in spoils.into_iter().enumerate() {
            let mut profile = valid();
            spoil(&mut profile);
            let result = read(packed(&profile.encode_to_vec()).as_slice());
            assert!(
                matches!(result, Err(ReadError::Content(_))),
                "{number}: {result:?}"
            );
        }
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let whole = packed(&valid().encode_to_vec());
        assert!(matches!(
            read(&b"not gzip at all"[..]),
            Err(ReadError::Io(_))
        ));
        assert!(matches!(
            read(&whole[..whole.len() / 2]),
            Err(ReadError::Io(_))
        ));
        assert!(matches!(
            read(packed(b"\xff\xff\xff").as_slice()),
            Err(ReadError::Message(_))
        ));
        assert!(matches!(
            read(packed(b"").as_slice()),
            Err(ReadError::Content(_))
        ));
    }
}
