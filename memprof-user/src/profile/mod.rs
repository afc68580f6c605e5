//! What one request did: checkpoints and growth by stack. Pure: events in, numbers out.
