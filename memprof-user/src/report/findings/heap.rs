//! Memory that the heap has and PHP does not use: cached chunks, and free pages in chunks that are in use.

use super::super::facts::Facts;
use super::super::text::{count, part, size};
use super::{Finding, Rule};

const CHUNK_BYTES: u64 = 2 << 20;
/// So much of the heap is worth a word.
const SHARE: f64 = 0.25;
/// And so many bytes: some chunks are always kept.
const LEAST_BYTES: u64 = 8 << 20;

/// Chunks that an earlier request of the worker needed and that are kept for the next.
pub(super) fn cached_chunks(facts: &Facts) -> Option<Finding> {
    let heap = facts.external.as_ref()?.heap.as_ref()?;
    let (cached, real_size) = (heap.cached_chunks?, heap.real_size_bytes?);
    let bytes = cached.saturating_mul(CHUNK_BYTES);
    is_much(bytes, real_size).then(|| Finding {
            rule: Rule::CachedChunks,
            subject: String::new(),
            title: format!(
                "{} that the worker has are cached chunks: left from an earlier request, not this one's need",
                part(bytes, real_size)
            ),
            evidence: vec![
                format!("{} chunks of 2 MiB are cached", count(cached)),
                format!("this request has {} in use", size(facts.used_bytes())),
            ],
            next_step: "look for the request before it that took so much; PHP gives the chunks back bit by bit, \
                        from one request to the next"
                .to_owned(),
            bytes,
        })
}

/// Pages that are free in chunks that are not.
pub(super) fn fragmentation(facts: &Facts) -> Option<Finding> {
    let heap = facts.external.as_ref()?.heap.as_ref()?;
    let (free, real_size) = (heap.free_bytes_in_used_chunks?, heap.real_size_bytes?);
    is_much(free, real_size).then(|| Finding {
            rule: Rule::Fragmentation,
            subject: String::new(),
            title: format!(
                "{} that the worker has are free pages in chunks that are still in use",
                part(free, real_size)
            ),
            evidence: vec![format!(
                "{} chunks of 2 MiB hold {}",
                heap.chunks.map_or("an unknown number of".to_owned(), count),
                size(facts.used_bytes().saturating_sub(heap.huge_bytes.unwrap_or(0)))
            )],
            next_step: "much was freed, and single blocks that go on living hold its chunks: look at the peak, and at \
                        what was made in between and kept"
                .to_owned(),
            bytes: free,
        })
}

fn is_much(bytes: u64, real_size: u64) -> bool {
    bytes >= LEAST_BYTES && bytes as f64 >= real_size as f64 * SHARE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sample;
    use super::*;

    fn sample(cached: u64, free: u64) -> Sample {
        let heap = json!({
            "size_bytes": 2 << 20, "real_size_bytes": 80 << 20, "chunks": 4, "cached_chunks": cached,
            "free_bytes_in_used_chunks": free << 20,
        });
        Sample::new(2).with("heap", heap)
    }

    #[test]
    fn what_is_kept_from_before_is_not_this_requests() {
        let finding = sample(38, 0).finding(Rule::CachedChunks).expect("found");
        assert_eq!(
            finding.title,
            "76 of the 80 MiB that the worker has are cached chunks: left from an earlier request, not this one's need"
        );
        assert_eq!(finding.evidence[1], "this request has 2 MiB in use");
        assert_eq!(sample(3, 0).finding(Rule::CachedChunks), None);
        assert_eq!(sample(u64::MAX, 0).rules(), [Rule::CachedChunks]);
    }

    #[test]
    fn free_pages_are_told() {
        assert!(sample(0, 40).finding(Rule::Fragmentation).is_some());
        assert_eq!(sample(0, 7).finding(Rule::Fragmentation), None);
    }
}
