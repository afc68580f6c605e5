//! One dump: what every dump has, and what only memprof's have.

use serde_json::Value;

use super::dump_view::DumpView;
use super::external::{External, Holder, Holders, Stack};
use super::text::{count, part, short, size};
use crate::record::dump::CONTEXT_OOM;

/// What is less than this share of the memory in use is not much.
const LEAST_SHARE: f64 = 0.1;
/// And what is less than this, in bytes: an idle PHP heap has 2 MiB.
const LEAST_BYTES: u64 = 1 << 20;
/// PHP_INT_MAX in MiB, which dumps show as limit where there is none.
const NO_LIMIT_MB: f64 = 8_796_093_022_208.0;
/// A variable that holds so much of what the one above it does is told in its place.
const MOST: f64 = 0.5;

/// How the path of an object ends that no variable leads to.
pub(super) const NOT_REACHED: &str = "(not reached from any root)";
/// How the steps of a path begin: elements and properties, what is bound to a closure or inside an object of PHP's own,
/// and steps that are not shown.
const STEPS: [&str; 4] = ["[", "->", "{", "…"];

/// A dump and its name.
#[derive(Debug)]
pub(super) struct Facts {
    /// The file's name.
    pub(super) file: String,
    pub(super) view: DumpView,
    /// All keys of the session.
    pub(super) session_keys: Vec<String>,
    /// `None` in dumps of an in-app profiler.
    pub(super) external: Option<External>,
}

impl Facts {
    pub(super) fn new(file: String, json: &Value, view: DumpView) -> Self {
        let keys = json.pointer("/session/keys").and_then(Value::as_array);
        let keys = keys
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(short));
        Self {
            file,
            view,
            session_keys: keys.collect(),
            external: External::of(json),
        }
    }

    /// Whether it was taken when memory_limit was hit.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.view.context == CONTEXT_OOM
    }

    /// What PHP has in use, in bytes: what the heap has given out, or else its chunks.
    pub(super) fn used_bytes(&self) -> u64 {
        let external = self.external.as_ref();
        let given_out = external.and_then(|external| external.holders.as_ref()?.heap_bytes);
        let size = external.and_then(|external| external.heap.as_ref()?.size_bytes);
        given_out
            .or(size)
            .unwrap_or_else(|| bytes(self.view.memory.current_mb))
    }

    /// The memory_limit in bytes; `None` without one.
    pub(super) fn limit_bytes(&self) -> Option<u64> {
        let external = self.external.as_ref();
        let limit_mb = self.view.memory.limit_mb;
        external
            .and_then(|external| external.memory_limit_bytes)
            .or_else(|| (limit_mb > 0.0 && limit_mb < NO_LIMIT_MB).then(|| bytes(limit_mb)))
    }

    /// `498 of the 509 MiB in use`.
    pub(super) fn of_used(&self, bytes: u64) -> String {
        format!("{} in use", part(bytes, self.used_bytes().max(bytes)))
    }

    /// Whether so many bytes are worth a finding.
    pub(super) fn is_much(&self, bytes: u64) -> bool {
        bytes >= LEAST_BYTES && bytes as f64 >= self.used_bytes() as f64 * LEAST_SHARE
    }

    /// `GET /admin`; `None` for idle workers and where it is not known.
    pub(super) fn route(&self) -> Option<String> {
        let request = self.external.as_ref()?.request.as_ref()?;
        let path = request.path.as_deref()?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        Some(match &request.method {
            Some(method) => format!("{method} {path}"),
            None => path.to_owned(),
        })
    }

    /// The script that was asked for.
    pub(super) fn script(&self) -> Option<&str> {
        self.external.as_ref()?.request.as_ref()?.script.as_deref()
    }

    pub(super) fn stack(&self) -> Option<&Stack> {
        self.external.as_ref()?.stack.as_ref()
    }

    pub(super) fn holders(&self) -> Option<&Holders> {
        self.external.as_ref()?.holders.as_ref()
    }

    /// The variables that hold most, the largest first, each as deep as most of it goes: `A::$b` that holds most in its
    /// `[3]` is told as `A::$b[3]`. None is a part of another.
    pub(super) fn top_holders(&self) -> Vec<HolderView<'_>> {
        let all = self.all_holders();
        let is_passage = |outer: &HolderView| {
            all.iter().any(|inner| {
                inner.is_below(outer)
                    && inner.retained_bytes as f64 >= outer.retained_bytes as f64 * MOST
            })
        };
        let ends = all.iter().filter(|one| !is_passage(one)).cloned().collect();
        let mut top = outermost(ends);
        top.sort_by_key(|holder| std::cmp::Reverse(holder.retained_bytes));
        top
    }

    /// What is in use and not held by these variables; only those are asked for that are no part of another.
    pub(super) fn used_without(&self, is_other: impl Fn(&HolderView) -> bool) -> u64 {
        let outer = outermost(self.all_holders());
        let others = outer.iter().filter(|holder| is_other(holder));
        let held = others.fold(0, |sum: u64, other| {
            sum.saturating_add(other.retained_bytes)
        });
        self.used_bytes().saturating_sub(held)
    }

    fn all_holders(&self) -> Vec<HolderView<'_>> {
        let top = self
            .holders()
            .map_or(&[][..], |holders| holders.top.as_slice());
        top.iter().filter_map(HolderView::new).collect()
    }

    /// `60,100 strings, 1.98 KiB each on average, hold 116 MiB; 1,310 objects live`.
    pub(super) fn strings(&self) -> Option<String> {
        let strings = self.holders()?.kinds.get("strings")?;
        let (number, bytes) = (strings.count?, strings.bytes?);
        let objects = self
            .external
            .as_ref()
            .and_then(|external| external.objects.as_ref()?.total);
        let objects = objects.map_or(String::new(), |total| {
            format!("; {} objects live", count(total))
        });
        Some(format!(
            "{} strings, {} each on average, hold {}{objects}",
            count(number),
            size(bytes / number.max(1)),
            size(bytes)
        ))
    }
}

/// A variable and what it holds.
#[derive(Debug, Clone)]
pub(super) struct HolderView<'a> {
    /// As the dump writes it.
    pub(super) path: &'a str,
    /// The function whose local variable it is below: `App\Foo->bar` of `$rows[3] in App\Foo->bar()`.
    pub(super) function: Option<&'a str>,
    /// The path without the function.
    chain: String,
    pub(super) retained_bytes: u64,
    pub(super) holder: &'a Holder,
}

impl<'a> HolderView<'a> {
    fn new(holder: &'a Holder) -> Option<Self> {
        let path = holder.path.as_deref()?;
        let (chain, function) = match path.rsplit_once(" in ").and_then(split_function) {
            Some((variable, function, rest)) => (format!("{variable}{rest}"), Some(function)),
            None => (path.to_owned(), None),
        };
        Some(Self {
            path,
            function,
            chain,
            retained_bytes: holder.retained_bytes?,
            holder,
        })
    }

    /// Whether it is a local variable of a function, which goes when the call ends.
    pub(super) fn is_local(&self) -> bool {
        self.function.is_some() && !self.chain.starts_with("static ")
    }

    /// Whether it lives as long as the request: static properties and variables, globals, constants. What PHP works on
    /// at the moment is none, nor are objects that no variable leads to.
    pub(super) fn is_lasting(&self) -> bool {
        !self.is_local() && !self.path.starts_with('{') && !self.path.ends_with(NOT_REACHED)
    }

    /// Whether its path goes on from the other's: `A::$b[3]` from `A::$b`, and not `A::$bc`.
    fn is_below(&self, outer: &Self) -> bool {
        self.function == outer.function
            && self
                .chain
                .strip_prefix(&outer.chain)
                .is_some_and(|rest| STEPS.iter().any(|step| rest.starts_with(step)))
    }
}

/// Those that are below none of the others.
fn outermost(holders: Vec<HolderView<'_>>) -> Vec<HolderView<'_>> {
    let is_outer = |holder: &&HolderView| !holders.iter().any(|outer| holder.is_below(outer));
    holders.iter().filter(is_outer).cloned().collect()
}

/// Variable, function and what follows, of `$rows[3] in f()`, of `$rows in f()[3]`, and of `$rows in /srv/app/index.php`. A
/// closure's name may hold `()` as of PHP 8.4: `{closure:App\Foo::bar():12}`.
fn split_function<'a>((variable, rest): (&'a str, &'a str)) -> Option<(&'a str, &'a str, &'a str)> {
    let call = match rest.find("{closure:") {
        Some(_) => rest.find("}()").map(|end| end + 1),
        None => rest.find("()"),
    };
    match call {
        Some(end) => Some((variable, rest.get(..end)?, rest.get(end + 2..)?)),
        None => rest.starts_with('/').then_some((variable, rest, "")),
    }
}

/// MiB as bytes.
fn bytes(mib: f64) -> u64 {
    // A cast that is out of range stops at the ends.
    (mib * f64::from(1 << 20)) as u64
}

#[cfg(test)]
mod tests {
    use crate::report::findings::testing::{Sample, holder};

    #[test]
    fn the_deepest_holder_of_most_stands_for_those_above_it() {
        let sample = Sample::new(100).holders(&[
            holder("App\\A::$list", 90),
            holder("App\\A::$list[3]", 85),
            holder("App\\A::$list[3]->rows", 40),
            holder("App\\A::$lists", 5),
            holder("$x in f()", 3),
            holder("$x[0] in f()", 1),
            holder("{temporary value}", 1),
            holder("static $y in A->{closure:A::b():12}()", 1),
        ]);
        let facts = sample.facts();
        let paths: Vec<&str> = facts
            .top_holders()
            .iter()
            .map(|holder| holder.path)
            .collect();
        let closure = "static $y in A->{closure:A::b():12}()";
        let temporary = "{temporary value}";
        assert_eq!(
            paths,
            [
                "App\\A::$list[3]",
                "App\\A::$lists",
                "$x in f()",
                temporary,
                closure
            ]
        );
        let lasting = facts.top_holders();
        let lasting: Vec<(bool, Option<&str>)> = lasting
            .iter()
            .map(|holder| (holder.is_lasting(), holder.function))
            .collect();
        let closure = Some("A->{closure:A::b():12}");
        assert_eq!(
            lasting[1..],
            [
                (true, None),
                (false, Some("f")),
                (false, None),
                (true, closure)
            ]
        );
        assert_eq!(facts.used_without(|holder| holder.is_lasting()), 4 << 20);
    }

    #[test]
    fn a_route_has_no_query_and_a_limit_may_be_none() {
        let mut sample = Sample::new(100);
        sample.json["external"]["request"]["path"] = "/admin?page=3".into();
        assert_eq!(sample.facts().route().as_deref(), Some("GET /admin"));
        assert_eq!(sample.facts().limit_bytes(), Some(128 << 20));
        sample.json["external"]["memory_limit_bytes"] = serde_json::Value::Null;
        sample.json["memory"]["limit_mb"] = 8_796_093_022_208_u64.into();
        assert_eq!(sample.facts().limit_bytes(), None);
    }
}
