//! What a dump's figures mean: causes, each with its evidence and the next step, those that explain most first.
//!
//! Each rule looks at one dump ([`Facts`]) and tells what it found, if anything, with the bytes that this explains.
//! [`Collection`] puts the findings of many dumps together.

use serde::Serialize;

mod accumulation;
mod class;
mod collection;
mod fetch;
mod heap;
mod holder;
mod print;
mod recursion;
mod route;
mod session;
mod taken;
mod tried;
mod unknown;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use super::facts::Facts;
pub(super) use collection::{Collection, Findings};
pub(super) use holder::without_indexes;
pub(super) use print::print;

/// What was found, in the order in which equal findings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// Functions call each other in a circle, deep down.
    Recursion,
    /// One large result is being fetched.
    LargeResult,
    /// The session is large.
    Session,
    /// One variable holds much.
    Holder,
    /// One place in the code took much.
    Taken,
    /// Many small blocks, and nothing large.
    Accumulation,
    /// Many objects of one class.
    Class,
    /// What the failed allocation was for.
    TriedToAllocate,
    /// One route takes more at one time than at another.
    Route,
    /// Chunks kept from an earlier request.
    CachedChunks,
    /// Free pages in chunks that are in use.
    Fragmentation,
}

impl Rule {
    /// How much a byte that it explains counts against a byte of another rule's. A cause says who holds memory and why;
    /// a count of what is there only says what it is made of, and the rest is about the heap itself.
    fn weight(self) -> f64 {
        match self {
            Self::Recursion | Self::LargeResult | Self::Session | Self::Holder => 1.0,
            Self::CachedChunks | Self::Fragmentation => 0.8,
            Self::Taken | Self::Accumulation | Self::Class => 0.5,
            Self::TriedToAllocate | Self::Route => 0.25,
        }
    }
}

/// What one rule found in one dump.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    /// What tells it from other findings of the rule; equal in two dumps that have the same cause.
    #[serde(skip)]
    pub(super) subject: String,
    /// The first line.
    pub(super) title: String,
    /// Figures, a line each.
    pub(super) evidence: Vec<String>,
    /// What to do or where to look.
    pub(super) next_step: String,
    /// The memory that it explains.
    pub(super) bytes: u64,
}

impl Finding {
    fn score(&self) -> f64 {
        self.bytes as f64 * self.rule.weight()
    }
}

/// All that the rules find in a dump, what explains most first.
pub(super) fn of_dump(facts: &Facts) -> Vec<Finding> {
    let mut findings = holder::find(facts);
    findings.extend(recursion::find(facts));
    findings.extend(fetch::find(facts));
    findings.extend(session::find(facts));
    findings.extend(taken::find(facts));
    findings.extend(accumulation::find(facts));
    findings.extend(class::find(facts));
    findings.extend(tried::find(facts));
    findings.extend(heap::cached_chunks(facts));
    findings.extend(heap::fragmentation(facts));
    sort(&mut findings, Finding::score, |finding| finding.rule);
    findings
}

/// Puts what has the highest score first; of equals, by rule.
fn sort<T>(findings: &mut [T], score: impl Fn(&T) -> f64, rule: impl Fn(&T) -> Rule) {
    findings.sort_by(|one, other| {
        let by_score = score(other).total_cmp(&score(one));
        by_score.then_with(|| rule(one).cmp(&rule(other)))
    });
}
