//! What memprof knows of Laravel's own objects (checked on 8.83).

use super::memory::{MemoryError, at};
use super::objects::LiveObjects;
use super::session::Started;
use super::values::Reader;
use super::zval::Value;
use crate::record::request::UserId;

const SESSION_STORE: &str = "Illuminate\\Session\\Store";
const CONFIG_REPOSITORY: &str = "Illuminate\\Config\\Repository";
const SESSION_GUARD: &str = "Illuminate\\Auth\\SessionGuard";
/// Longest chain of parents followed; real ones have fewer than 20.
const MOST_PARENTS: usize = 64;

/// The `attributes` array of the live session store; `None` where there is none, or none that was started.
pub(super) fn session_attributes(
    reader: Reader<'_>,
    objects: &LiveObjects,
    started: Started,
) -> Result<Option<u64>, MemoryError> {
    let Some(store) = first_of(reader, objects, SESSION_STORE)? else {
        return Ok(None);
    };
    let Some(Value::Array(attributes)) = reader.property(store, "attributes")? else {
        return Ok(None);
    };
    let is_open = reader.property(store, "started")? == Some(Value::Boolean(true));
    let was_open = started == Started::Before && reader.count(attributes)? > 0;
    Ok((is_open || was_open).then_some(attributes))
}

/// `config('cache.default')`, the name of the cache store in use; `None` where no configuration lives.
pub(super) fn cache_driver(
    reader: Reader<'_>,
    objects: &LiveObjects,
) -> Result<Option<String>, MemoryError> {
    let Some(repository) = first_of(reader, objects, CONFIG_REPOSITORY)? else {
        return Ok(None);
    };
    let Some(Value::Array(items)) = reader.property(repository, "items")? else {
        return Ok(None);
    };
    let Some(Value::Array(cache)) = reader.element(items, "cache")? else {
        return Ok(None);
    };
    match reader.element(cache, "default")? {
        Some(Value::String(driver)) => reader.name(driver).map(Some),
        _ => Ok(None),
    }
}

/// The id of the user who is logged in, if a session guard has loaded one.
///
/// The model's attribute `id`, whatever the model calls its key.
pub(super) fn user_id(
    reader: Reader<'_>,
    objects: &LiveObjects,
) -> Result<Option<UserId>, MemoryError> {
    let Some(guard) = first_of(reader, objects, SESSION_GUARD)? else {
        return Ok(None);
    };
    let Some(Value::Object(user)) = reader.property(guard, "user")? else {
        return Ok(None);
    };
    let Some(Value::Array(attributes)) = reader.property(user, "attributes")? else {
        return Ok(None);
    };
    let id = reader.element(attributes, "id")?.unwrap_or(Value::Null);
    Ok(match reader.dereferenced(id)? {
        Value::Long(id) => Some(UserId::Number(id)),
        Value::String(id) => Some(UserId::Text(reader.name(id)?)),
        _ => None,
    })
}

/// The first live object of a class or of one that extends it.
fn first_of(
    reader: Reader<'_>,
    objects: &LiveObjects,
    wanted: &str,
) -> Result<Option<u64>, MemoryError> {
    for class in &objects.classes {
        let mut entry = class.entry;
        for _ in 0..MOST_PARENTS {
            if entry == 0 {
                break;
            }
            if reader.class_name(entry)? == wanted {
                return Ok(Some(class.first));
            }
            entry = reader.memory.u64(at(entry, reader.layout.class.parent))?;
        }
    }
    Ok(None)
}
