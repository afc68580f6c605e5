//! What a request's records tell of the application as it is when the request ends.

use std::time::Instant;

use crate::fpm::LivePhp;
use crate::record::request::UserId;
use crate::zend::CachedMemory;
use crate::zend::memory::ProcessMemory;

/// What is known of the application; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The user who is logged in; `None` also for a guest.
    pub user_id: Option<UserId>,
    /// The length that `serialize()` would give all session data; 0 without a session.
    pub session_bytes: Option<u64>,
    /// Declared classes.
    pub loaded_classes: Option<u64>,
    /// Included files.
    pub included_files: Option<u64>,
}

impl Facts {
    /// Reads a worker that stands still, until `deadline`.
    pub(super) fn of(live: &LivePhp, deadline: Instant) -> Facts {
        let memory = CachedMemory::new(ProcessMemory::new(live.process.pid), Some(deadline));
        let zend = live.zend.through(Box::new(memory));
        let mut facts = Facts::default();
        if let Ok(loaded) = zend.loaded() {
            facts.loaded_classes = Some(loaded.classes);
            facts.included_files = Some(loaded.included_files);
        }
        let Ok(objects) = zend.objects() else {
            return facts;
        };
        facts.user_id = zend.user_id(&objects).ok().flatten();
        facts.session_bytes = match zend.session_at_end(&objects) {
            Ok(Some(session)) => session.bytes.ok(),
            Ok(None) => Some(0),
            Err(_) => None,
        };
        facts
    }
}
