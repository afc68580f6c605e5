//! What one request did: checkpoints and growth by stack. Pure: events in, numbers out.

mod application;
mod ledger;
pub mod recursion;
mod request;
mod stacks;

pub use application::{Application, Query, Times};
pub use ledger::{HeapChange, Ledger, StackTotals};
pub use request::{Checkpoint, ChunkGrowth, Counters, RequestInfo, RequestProfile};
pub use stacks::{StackId, Stacks};
