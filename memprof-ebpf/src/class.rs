//! A class seen for the first time: its name.

use memprof_ebpf::{ClassEvent, EventKind, NAME_BYTES, Worker, frame_flags};

use crate::{
    id::{is_lasting, mix, request_salt, stays},
    maps::{EVENTS, SEEN, header},
    read::{read, read_string},
    resolve::CLASS_NAME,
};

/// The class's id, after its event was sent if it is new; 0 where that failed.
#[inline(never)]
pub fn send_class(worker: &mut Worker, pid: u32, class: u64) -> u64 {
    let name = read::<u64>(worker, class + CLASS_NAME).unwrap_or(0);
    let mut id = mix(mix(worker.config.identity ^ 2, class), name);
    let mut flags = 0;
    if !is_lasting(worker, class) || !stays(worker, name) {
        id = mix(id, request_salt(worker, pid));
        flags = frame_flags::PASSING;
    }
    // SAFETY: the value is not looked at.
    if unsafe { SEEN.get(id) }.is_some() {
        return id;
    }
    let event = EVENTS.reserve::<ClassEvent>();
    if event.is_null() {
        worker.state.lost += 1;
        return 0;
    }
    // SAFETY: the reserved record is as large as the event; its fields are written through it.
    unsafe {
        let to = (&raw mut (*event).name).cast();
        (*event).header = header(EventKind::Class, pid, worker);
        (*event).class = id;
        (*event).flags = flags;
        (*event).name_length = read_string::<{ NAME_BYTES as u64 }>(worker, to, name).unwrap_or(0);
    }
    EVENTS.submit(worker, event);
    let _ = SEEN.insert(id, 1, 0);
    id
}
