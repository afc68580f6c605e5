//! Writes PHP programs: random call trees of functions that keep, drop, grow, move, share and recurse.

use fastrand::Rng;

/// What the functions of a program do, as far as it decides how close a profile of page runs comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Strings and arrays of 3 KiB to 2 MiB: page runs of their own.
    Runs,
    /// The same up to 8 MiB: with huge blocks.
    Huge,
    /// Small values, each function's in one go.
    SmallApart,
    /// Small values, the functions in turn, a few at a time: they share each run's slots.
    SmallInterleaved,
    /// Small values that one function gives up and others take the slots of.
    SmallReused,
    /// All of it, of all sizes.
    Mixed,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Runs,
        Self::Huge,
        Self::SmallApart,
        Self::SmallInterleaved,
        Self::SmallReused,
        Self::Mixed,
    ];

    /// Shortest and longest string, in bytes.
    fn lengths(self) -> (f64, f64) {
        match self {
            Self::Runs => (3100.0, 2.0 * MIB - 5000.0),
            Self::Huge => (100.0 * 1024.0, 8.0 * MIB),
            Self::SmallApart | Self::SmallInterleaved | Self::SmallReused => (1.0, 3000.0),
            Self::Mixed => (1.0, 1.5 * MIB),
        }
    }

    /// What the comparison with the slots must come to: the mean error of a function in percentage points of what its
    /// program holds, and the mean rank correlation. A profile of page runs can't tell whose the slots of a shared run are:
    /// where functions take turns in step with the runs, one can be charged with nearly all.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Self::Huge => (0.01, 0.999),
            Self::Runs | Self::Mixed => (0.2, 0.99),
            Self::SmallApart => (1.0, 0.95),
            Self::SmallInterleaved | Self::SmallReused => (3.0, 0.8),
        }
    }

    /// About how much a program keeps, in bytes.
    fn scale(self, random: &mut Rng) -> f64 {
        let (low, high) = match self {
            Self::Runs | Self::Mixed => (4.0, 48.0),
            Self::Huge => (16.0, 64.0),
            Self::SmallApart | Self::SmallInterleaved | Self::SmallReused => (0.5, 8.0),
        };
        between(random, low, high) * MIB
    }
}

const MIB: f64 = 1_048_576.0;
/// Operations that a program's account has room for.
pub const MOST_OPERATIONS: usize = 80_000;
/// Of these, those that are planned: arrays that grow and pieces that are appended are noted step by step.
const PLANNED_OPERATIONS: f64 = 6_000.0;

/// A generated program.
pub struct Program {
    pub kind: Kind,
    pub seed: u64,
    pub functions: usize,
    /// Its PHP.
    pub source: String,
}

impl Program {
    /// The same program for the same seed.
    pub fn generate(kind: Kind, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let functions = random.usize(6..=40);
        let mut source = format!(
            "<?php\n\n// {kind:?}, seed {seed}\nrequire __DIR__.'/account.php';\n\
             Account::open({MOST_OPERATIONS}, {seed}, $_GET['lock']);\n"
        );
        if kind == Kind::SmallInterleaved {
            in_turn(&mut source, &mut random, kind, functions);
        } else {
            as_tree(&mut source, &mut random, kind, functions);
        }
        source += "f0(0);\necho json_encode(Account::close());\n";
        Self {
            kind,
            seed,
            functions,
            source,
        }
    }
}

/// The functions call each other; each does its own before, between and after its calls.
fn as_tree(source: &mut String, random: &mut Rng, kind: Kind, functions: usize) {
    let mut callees: Vec<Vec<usize>> = vec![Vec::new(); functions];
    for function in 1..functions {
        // Of the last few, so that the tree is deep.
        let first = function.saturating_sub(5);
        callees[random.usize(first..function)].push(function);
    }
    let scale = kind.scale(random) / functions as f64;
    for (function, callees) in callees.iter().enumerate() {
        let recursion = if random.u8(..6) == 0 {
            random.usize(1..100)
        } else {
            0
        };
        // A few functions hold most.
        let bytes = scale * 2f64.powf(between(random, -3.0, 2.0));
        let levels = (recursion + 1) as f64;
        let most = PLANNED_OPERATIONS / functions as f64 / levels;
        let mut parts = work(random, kind, function, bytes / levels, most);
        if recursion > 0 {
            parts.push(format!(
                "if ($depth < {recursion}) {{\n        f{function}($depth + 1);\n    }}"
            ));
        }
        for callee in callees {
            // Not from within the recursion.
            let call = format!("if ($depth === 0) {{\n        f{callee}(0);\n    }}");
            parts.insert(random.usize(..=parts.len()), call);
        }
        function_of(source, function, &parts);
    }
}

/// The first function calls the others in turn, again and again.
fn in_turn(source: &mut String, random: &mut Rng, kind: Kind, functions: usize) {
    let bytes = kind.scale(random);
    // They share a few lengths, and so the bins.
    let lengths: Vec<usize> = (0..random.usize(1..=4))
        .map(|_| length(random, kind))
        .collect();
    let average = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64 + 40.0;
    let times: Vec<usize> = (0..functions).map(|_| 1 << random.usize(0..5)).collect();
    let a_round = times.iter().sum::<usize>() as f64;
    let rounds = (bytes / average).min(PLANNED_OPERATIONS) / a_round;
    let mut calls: Vec<usize> = (1..functions).collect();
    random.shuffle(&mut calls);
    let calls: Vec<String> = calls
        .iter()
        .map(|callee| format!("f{callee}(0);"))
        .collect();
    let all = format!(
        "for ($i = 0; $i < {}; $i++) {{\n        {}\n    }}",
        rounds.ceil(),
        calls.join("\n        ")
    );
    function_of(source, 0, &[all]);
    for (function, times) in times.iter().enumerate().skip(1) {
        let length = lengths[random.usize(..lengths.len())];
        let shortest = (length * 9 / 10).max(1);
        let keep = format!("Account::keep({function}, {shortest}, {length});");
        function_of(source, function, &[repeat(*times, &keep)]);
    }
}

/// Statements that keep about so many bytes, and some that keep nothing.
fn work(random: &mut Rng, kind: Kind, function: usize, bytes: f64, most: f64) -> Vec<String> {
    let mut parts = Vec::new();
    for _ in 0..random.usize(1..=3) {
        // In a deep recursion each level has its part only.
        let longest = length(random, kind).min(bytes.max(kind.lengths().0) as usize);
        let shortest = (longest * 7 / 10).max(1);
        let times = (bytes / longest as f64).min(most).max(1.0) as usize;
        let range = format!("{function}, {shortest}, {longest}");
        parts.push(repeat(times, &format!("Account::keep({range});")));
        match random.u8(..6) {
            0 => parts.push(repeat(times, &format!("Account::drop({range});"))),
            1 => parts.push(repeat(
                times.min(20),
                &format!("Account::append({function}, Account::any({function}), mt_rand(1, 12));"),
            )),
            2 => parts.push(repeat(
                times.min(50),
                &format!("Account::share({function}, Account::any({function}));"),
            )),
            3 => parts.push(repeat(
                times.min(50),
                &format!("Account::release({function}, Account::any({function}));"),
            )),
            4 => {
                let elements = (longest / 16).clamp(1, 100_000);
                let from_zero = random.bool();
                parts.push(format!(
                    "Account::fill({function}, {elements}, {from_zero});"
                ));
            }
            _ => {}
        }
        if kind == Kind::SmallReused {
            // Many slots that become free, for whoever comes next.
            parts.push(format!(
                "Account::give_up({function}, {times}, {shortest}, {longest});"
            ));
        }
    }
    parts
}

fn function_of(source: &mut String, function: usize, parts: &[String]) {
    let body = parts.join("\n    ");
    *source += &format!("\nfunction f{function}(int $depth): void\n{{\n    {body}\n}}\n");
}

fn repeat(times: usize, statement: &str) -> String {
    format!("for ($j = 0; $j < {times}; $j++) {{\n        {statement}\n    }}")
}

/// A string's length: each order of magnitude is as likely as another.
fn length(random: &mut Rng, kind: Kind) -> usize {
    let (shortest, longest) = kind.lengths();
    between(random, shortest.ln(), longest.ln()).exp() as usize
}

fn between(random: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * random.f64()
}

#[test]
fn a_seed_makes_the_same_program() {
    for kind in Kind::ALL {
        let source = |seed| Program::generate(kind, seed).source;
        assert_eq!(source(1), source(1));
        assert_ne!(source(1), source(2));
    }
}
