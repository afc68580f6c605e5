//! Deep recursion: which functions call each other in a circle, how often, and which of them are the application's own.

use super::super::facts::Facts;
use super::super::text::{count, in_application, is_own, size};
use super::{Finding, Rule};
use crate::profile::recursion;
use crate::record::frame::Frame;

/// Fewer frames are a deep stack, and no reason for a heap that is full.
const LEAST_FRAMES: u64 = 1000;
/// Functions of the circle that are listed.
const LISTED: usize = 14;

/// A circle of functions on the stack.
struct Circle {
    /// One turn, the caller first; it starts with a function of the application's own where there is one.
    cycle: Vec<Frame>,
    times: u64,
    frames: u64,
    /// The innermost turns, where not all were counted and these are taken for the rest.
    innermost_turns: Option<u64>,
}

/// Whether the stack is deep in a recursion.
pub(super) fn is_deep(facts: &Facts) -> bool {
    Circle::of(facts).is_some_and(|circle| circle.frames >= LEAST_FRAMES)
}

/// The recursion that the stack is deep in.
pub(super) fn find(facts: &Facts) -> Option<Finding> {
    let circle = Circle::of(facts).filter(|circle| circle.frames >= LEAST_FRAMES)?;
    let is_turning = |function: &str| circle.cycle.iter().any(|frame| frame.function == function);
    // What the turns hold lies in their variables. What lasts, or is another function's, is not theirs.
    let bytes = facts.used_without(|holder| match holder.function {
        Some(function) if holder.is_local() => !is_turning(function),
        _ => holder.is_lasting(),
    });
    if !facts.is_much(bytes) {
        return None;
    }
    let (functions, times) = match circle.cycle.as_slice() {
        [one] => (format!("{} calling itself", one.function), circle.times),
        cycle => (format!("{} functions", cycle.len()), circle.times),
    };
    let about = if circle.innermost_turns.is_some() {
        "about "
    } else {
        ""
    };
    Some(Finding {
        rule: Rule::Recursion,
        subject: circle.subject(),
        title: format!(
            "A recursion of {functions}, {about}{} turns deep, {}: {}",
            count(times),
            fills(facts, bytes),
            facts.of_used(bytes)
        ),
        evidence: circle.evidence(facts, bytes),
        next_step: circle.next_step(facts.script()),
        bytes,
    })
}

fn fills(facts: &Facts, bytes: u64) -> &'static str {
    if bytes >= facts.used_bytes() / 2 {
        "fills the heap"
    } else {
        "takes a part of the heap"
    }
}

impl Circle {
    fn of(facts: &Facts) -> Option<Self> {
        let stack = facts.stack()?;
        let depth = stack.depth.unwrap_or(stack.innermost.len() as u64);
        let told = stack
            .recursion
            .as_ref()
            .filter(|told| !told.cycle.is_empty());
        let (mut cycle, times, frames, innermost_turns) = match told {
            Some(told) => {
                let frames = told.frames.unwrap_or(depth);
                let times = told.times.unwrap_or(frames / told.cycle.len() as u64);
                (told.cycle.clone(), times, frames, None)
            }
            None => {
                let found = recursion::find(&stack.innermost)?;
                let end = found.start.checked_add(found.length)?;
                let mut turn = stack.innermost.get(found.start..end)?.to_vec();
                turn.reverse();
                let times = depth / found.length as u64;
                (turn, times, depth, Some(found.times as u64))
            }
        };
        if let Some(own) = cycle.iter().position(is_own_frame) {
            cycle.rotate_left(own);
        }
        Some(Self {
            cycle,
            times,
            frames,
            innermost_turns,
        })
    }

    /// The functions alone, from the least on: dumps of one recursion may have stopped at any of them.
    fn subject(&self) -> String {
        let mut names: Vec<&str> = self
            .cycle
            .iter()
            .map(|frame| frame.function.as_str())
            .collect();
        let least = names.iter().enumerate().min_by_key(|(_, name)| **name);
        let start = least.map_or(0, |(start, _)| start);
        names.rotate_left(start);
        names.join(" ")
    }

    fn evidence(&self, facts: &Facts, bytes: u64) -> Vec<String> {
        let stack = facts.stack();
        let depth = stack.and_then(|stack| stack.depth).unwrap_or(self.frames);
        let each = size(bytes / self.times.max(1));
        let mut lines = vec![match self.innermost_turns {
            None => format!(
                "{} of {} frames turn in this circle; {each} a turn if all of that is theirs",
                count(self.frames),
                count(depth)
            ),
            Some(turns) => format!(
                "of {} frames the innermost turn {} times in this circle, and the rest is taken for more of it",
                count(depth),
                count(turns)
            ),
        }];
        if facts.holders().is_none() {
            lines.push(
                "which variables hold memory is not known: all that is in use counts as theirs"
                    .to_owned(),
            );
        }
        if let Some(reason) = stack.and_then(|stack| stack.torn.as_ref()) {
            lines.push(format!("the stack may be deeper: {reason}"));
        }
        let vm_stack = facts
            .holders()
            .and_then(|holders| holders.kinds.get("vm_stack")?.bytes);
        if let Some(vm_stack) = vm_stack {
            lines.push(format!(
                "{} of it are the frames themselves (the VM stack)",
                size(vm_stack)
            ));
        }
        lines.push("the circle, each calling the next, the last calling the first:".to_owned());
        let listed = self.cycle.iter().take(LISTED);
        lines.extend(listed.map(|frame| format!("  {}", place(frame, facts.script()))));
        if self.cycle.len() > LISTED {
            lines.push(format!("  … {} more", self.cycle.len() - LISTED));
        }
        lines
    }

    fn next_step(&self, script: Option<&str>) -> String {
        let own: Vec<&Frame> = self
            .cycle
            .iter()
            .filter(|frame| is_own_frame(frame))
            .collect();
        let Some(first) = own.first() else {
            return "no function of the application's own is in the circle: look at what it registered \
                    there (a listener, a scope, an accessor, a handler)"
                .to_owned();
        };
        let called = match self.cycle.get(1) {
            Some(next) => format!("calls {}", next.function),
            None => "calls itself".to_owned(),
        };
        let back = match (self.cycle.len(), self.cycle.last()) {
            (3.., Some(last)) => format!(", and {} calls it again", last.function),
            _ => String::new(),
        };
        let scope = if self.is_through_a_scope() {
            ": a global scope that queries what it is applied to; query there without the scope \
             (withoutGlobalScope)"
        } else {
            ": break the circle there"
        };
        let others: Vec<String> = own
            .iter()
            .skip(1)
            .map(|frame| place(frame, script))
            .collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!("; the application's own are also {}", others.join(", "))
        };
        format!("{} {called}{back}{scope}{others}", place(first, script))
    }

    /// Eloquent applies global scopes by this method.
    fn is_through_a_scope(&self) -> bool {
        let applies = |frame: &Frame| frame.function.ends_with("Eloquent\\Builder->applyScopes");
        self.cycle.iter().any(applies)
    }
}

fn is_own_frame(frame: &Frame) -> bool {
    frame.file.as_deref().is_some_and(is_own)
}

/// `App\Foo->bar (app/Foo.php:12)`
fn place(frame: &Frame, script: Option<&str>) -> String {
    let Some(file) = &frame.file else {
        return frame.function.clone();
    };
    let file = in_application(file, script);
    match frame.line {
        Some(line) => format!("{} ({file}:{line})", frame.function),
        None => format!("{} ({file})", frame.function),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Sample, frame, holder};
    use super::*;

    fn circle() -> Vec<Value> {
        vec![
            frame(
                "Illuminate\\Database\\Eloquent\\Builder->applyScopes",
                "/srv/app/vendor/Builder.php",
                1200,
            ),
            frame(
                "App\\Scopes\\CompanyScope->apply",
                "/srv/app/app/Scopes/CompanyScope.php",
                21,
            ),
            frame(
                "Illuminate\\Auth\\SessionGuard->user",
                "/srv/app/vendor/SessionGuard.php",
                150,
            ),
        ]
    }

    fn deep() -> Sample {
        let recursion = json!({"cycle": circle(), "times": 15_000, "frames": 45_000});
        Sample::new(126).with("stack", json!({"depth": 45_060, "recursion": recursion}))
    }

    #[test]
    fn the_circle_starts_with_the_applications_own_function() {
        let finding = deep().finding(Rule::Recursion).expect("a recursion");
        assert_eq!(
            finding.title,
            "A recursion of 3 functions, 15,000 turns deep, fills the heap: 126 of the 126 MiB in use"
        );
        assert_eq!(
            finding.evidence[0],
            "45,000 of 45,060 frames turn in this circle; 8.6 KiB a turn if all of that is theirs"
        );
        let step = "App\\Scopes\\CompanyScope->apply (app/Scopes/CompanyScope.php:21) calls \
                    Illuminate\\Auth\\SessionGuard->user, and \
                    Illuminate\\Database\\Eloquent\\Builder->applyScopes calls it again: a global scope";
        assert!(finding.next_step.starts_with(step), "{}", finding.next_step);
    }

    #[test]
    fn the_same_circle_is_one_wherever_it_was_stopped() {
        let mut turned = circle();
        turned.rotate_left(2);
        let recursion = json!({"cycle": turned, "times": 9_000, "frames": 27_000});
        let other = Sample::new(126).with("stack", json!({"recursion": recursion}));
        let subject = |sample: &Sample| sample.finding(Rule::Recursion).expect("found").subject;
        assert_eq!(subject(&deep()), subject(&other));
    }

    #[test]
    fn what_hangs_elsewhere_is_not_the_recursions() {
        let sample = deep().holders(&[
            holder("App\\Cache::$rows", 100),
            holder("$query in App\\Scopes\\CompanyScope->apply()", 5),
        ]);
        let finding = sample.finding(Rule::Recursion).expect("a recursion");
        assert_eq!(finding.bytes, 26 << 20);
        assert!(finding.title.contains("takes a part of the heap"));
        assert_eq!(sample.rules()[0], Rule::Holder);
    }

    #[test]
    fn an_uncounted_recursion_is_found_in_the_innermost_frames() {
        let mut innermost = Vec::new();
        for _ in 0..20 {
            let mut turn = circle();
            turn.reverse();
            innermost.extend(turn);
        }
        let stack = json!({"depth": 45_060, "innermost": innermost});
        let finding = Sample::new(126)
            .with("stack", stack)
            .finding(Rule::Recursion)
            .expect("a recursion");
        assert!(
            finding.title.contains("3 functions, about 15,020 turns"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn a_shallow_one_is_none() {
        let recursion = json!({"cycle": circle(), "times": 100, "frames": 300});
        let sample = Sample::new(126).with("stack", json!({"depth": 360, "recursion": recursion}));
        assert_eq!(sample.finding(Rule::Recursion), None);
        let empty = json!({"cycle": [], "times": 9_000});
        let sample = Sample::new(126).with("stack", json!({"depth": 90_000, "recursion": empty}));
        assert_eq!(sample.finding(Rule::Recursion), None);
    }
}
