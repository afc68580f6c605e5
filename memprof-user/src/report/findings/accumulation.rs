//! Many small things rather than one large one.

use indexmap::IndexMap;

use super::super::external::Kind;
use super::super::facts::Facts;
use super::super::text::{count, size};
use super::{Finding, Rule};

/// From so many blocks on they are many.
const MANY: u64 = 100_000;
/// A block is small below this, in bytes: the largest size class of the Zend heap is 3,072.
const SMALL_BYTES: u64 = 1024;

/// The kinds of block that an application makes.
const KINDS: [&str; 5] = ["objects", "arrays", "strings", "closures", "references"];

/// Blocks that were counted.
struct Blocks {
    count: u64,
    bytes: u64,
    /// `700,000 objects`, ...
    kinds: Vec<String>,
}

/// The small things that fill the heap, where no single one is large.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let blocks = match facts.holders() {
        Some(holders) if !holders.kinds.is_empty() => Blocks::of_kinds(&holders.kinds),
        _ => Blocks::of_objects(facts)?,
    };
    let each = blocks.bytes / blocks.count.max(1);
    if blocks.count < MANY || each > SMALL_BYTES || !facts.is_much(blocks.bytes) {
        return None;
    }
    Some(Finding {
        rule: Rule::Accumulation,
        subject: String::new(),
        title: format!(
            "{} small blocks, {} each on average, make {}",
            count(blocks.count),
            size(each),
            facts.of_used(blocks.bytes)
        ),
        evidence: vec![
            blocks.kinds.join(", "),
            "this is accumulation, a loop or a recursion that keeps what it makes, and not one large result set"
                .to_owned(),
        ],
        next_step: "look at the classes and variables named here that have most: something keeps them all".to_owned(),
        bytes: blocks.bytes,
    })
}

impl Blocks {
    fn of_kinds(kinds: &IndexMap<String, Kind>) -> Self {
        let mut blocks = Self {
            count: 0,
            bytes: 0,
            kinds: Vec::new(),
        };
        for name in KINDS {
            if let Some(kind) = kinds.get(name) {
                blocks.add(name, *kind);
            }
        }
        blocks
    }

    fn of_objects(facts: &Facts) -> Option<Self> {
        let objects = facts.external.as_ref()?.objects.as_ref()?;
        let bytes = objects.by_class.iter().filter_map(|class| class.bytes);
        let total = objects.total?;
        Some(Self {
            count: total,
            bytes: bytes.fold(0, u64::saturating_add),
            kinds: vec![format!(
                "{} objects, by themselves: arrays and strings that they refer to are not in it",
                count(total)
            )],
        })
    }

    fn add(&mut self, name: &str, kind: Kind) {
        let (Some(number), Some(bytes)) = (kind.count, kind.bytes) else {
            return;
        };
        self.count = self.count.saturating_add(number);
        self.bytes = self.bytes.saturating_add(bytes);
        if number > 0 {
            self.kinds
                .push(format!("{} {name} ({})", count(number), size(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    fn kinds(strings: u64, string_mib: u64) -> Sample {
        let kinds = json!({
            "objects": {"count": 200_000, "bytes": 20 << 20}, "arrays": {"count": 100_000, "bytes": 30 << 20},
            "strings": {"count": strings, "bytes": string_mib << 20}, "vm_stack": {"bytes": 1 << 20},
        });
        Sample::new(120).with("holders", json!({"kinds": kinds}))
    }

    #[test]
    fn many_small_blocks_are_told_from_few_large_ones() {
        let finding = kinds(50_000, 4).finding(Rule::Accumulation).expect("found");
        assert_eq!(
            finding.title,
            "350,000 small blocks, 161 bytes each on average, make 54 of the 120 MiB in use"
        );
        assert_eq!(
            finding.evidence[0],
            "200,000 objects (20 MiB), 100,000 arrays (30 MiB), 50,000 strings (4 MiB)"
        );
        assert_eq!(kinds(10_000, 1000).finding(Rule::Accumulation), None);
    }

    #[test]
    fn without_kinds_the_objects_are_counted() {
        let objects = |total: u64| json!({"total": total, "by_class": [{"class": "A", "count": total, "bytes": total * 200}]});
        let sample = |total| Sample::new(120).with("objects", objects(total));
        assert!(sample(400_000).finding(Rule::Accumulation).is_some());
        assert_eq!(sample(90_000).finding(Rule::Accumulation), None);
    }
}
