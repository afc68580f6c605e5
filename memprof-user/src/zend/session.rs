//! The session of the request: its keys, and how long its values would be if they were serialized.
//!
//! The values themselves are neither copied nor kept.

use super::ZendError;
use super::laravel;
use super::memory::{MemoryError, at};
use super::objects::LiveObjects;
use super::process::Addresses;
use super::serialize::{Serializer, Unsized};
use super::values::Reader;
use super::zval::{Key, Value};
use crate::record::session::SessionKey;

/// Most keys named; sessions have a few dozen.
const MOST_KEYS: usize = 10_000;
/// `php_session_active`
const ACTIVE: u32 = 2;

/// A started session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub source: SessionSource,
    /// `strlen(serialize())` of all of it, or why that is not known.
    pub bytes: Result<u64, String>,
    /// Its values, in its own order.
    pub values: Vec<SessionValue>,
}

/// Who keeps a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// The attributes of Laravel's `Illuminate\Session\Store`.
    Laravel,
    /// `$_SESSION`
    Native,
}

/// One value of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionValue {
    /// Its key.
    pub key: SessionKey,
    /// `strlen(serialize())` of it alone, or why that is not known.
    pub bytes: Result<u64, String>,
}

/// When a session has to have been started to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It is open.
    Now,
    /// It is open, or was written and closed and holds something.
    Before,
}

/// Reads the session; `None` where none was started.
pub(super) fn session(
    reader: Reader<'_>,
    objects: &LiveObjects,
    addresses: Addresses,
    started: Started,
) -> Result<Option<Session>, ZendError> {
    let laravel = laravel::session_attributes(reader, objects, started)?;
    let (source, table) = match laravel {
        Some(attributes) => (SessionSource::Laravel, attributes),
        None => match native(reader, addresses.session)? {
            Some(variables) => (SessionSource::Native, variables),
            None => return Ok(None),
        },
    };
    let precision = reader.ini(addresses.executor, "serialize_precision")?;
    measure(Serializer::new(reader, precision), source, reader, table).map(Some)
}

/// The array of `$_SESSION`.
fn native(reader: Reader<'_>, globals: Option<u64>) -> Result<Option<u64>, MemoryError> {
    let Some(globals) = globals else {
        return Ok(None);
    };
    let layout = reader.layout.session;
    if reader.memory.u32(at(globals, layout.status))? != ACTIVE {
        return Ok(None);
    }
    let variables = reader.value(at(globals, layout.variables))?;
    Ok(match reader.dereferenced(variables)? {
        Value::Array(variables) => Some(variables),
        _ => None,
    })
}

fn measure(
    mut serializer: Serializer<'_>,
    source: SessionSource,
    reader: Reader<'_>,
    table: u64,
) -> Result<Session, ZendError> {
    let mut values = Vec::new();
    reader.for_each_element::<ZendError>(table, &mut |key, value| {
        if values.len() >= MOST_KEYS {
            return Err(ZendError::Inconsistent {
                what: "the session has more than 10,000 keys",
                address: table,
            });
        }
        let key = match key {
            Key::Index(index) => SessionKey::Number(index),
            Key::Text(text) => SessionKey::Text(reader.name(text)?),
        };
        let bytes = known(serializer.length(value))?;
        values.push(SessionValue { key, bytes });
        Ok(())
    })?;
    let bytes = known(serializer.length(Value::Array(table)))?;
    Ok(Session {
        source,
        bytes,
        values,
    })
}

/// What only PHP could tell is no failure to read.
fn known(length: Result<u64, Unsized>) -> Result<Result<u64, String>, MemoryError> {
    match length {
        Ok(length) => Ok(Ok(length)),
        Err(Unsized::Unknown(reason)) => Ok(Err(reason)),
        Err(Unsized::Unread(error)) => Err(error),
    }
}
