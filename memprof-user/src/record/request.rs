//! What a record says of the request that it belongs to.

use serde::{Deserialize, Serialize};

/// The application's id of the user who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UserId {
    /// A number, as with Laravel's default key.
    Number(i64),
    /// A text, as with UUID keys.
    Text(String),
}

/// The part of the request that stands in the first checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    /// Path and query.
    pub uri: String,
    /// `GET`, `POST`, ...
    pub method: String,
    /// `null` for a guest and where the user could not be read: the format has no other way to say either.
    pub user_id: Option<UserId>,
}
