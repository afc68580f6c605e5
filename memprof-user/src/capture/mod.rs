//! Engines, modes, windows: from kernel events to what a request did.
