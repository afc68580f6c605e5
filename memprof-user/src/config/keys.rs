//! The settings of the in-app profiler, and what each comes to.

/// A setting.
pub(super) struct Key {
    /// Its key in the file.
    pub(super) name: &'static str,
    /// The environment variable that stands for it.
    pub(super) variable: Option<&'static str>,
    /// What it comes to.
    pub(super) effect: Effect,
}

/// What a setting comes to.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// This option, with its value.
    Option(&'static str),
    /// This option where it is false.
    UnlessTrue(&'static str),
    /// Nothing runs where it is false.
    Enabled,
    /// The folder of dumps: the records' is the one above.
    DumpFolder,
    /// Nothing; why.
    None(&'static str),
}

const fn key(name: &'static str, variable: Option<&'static str>, effect: Effect) -> Key {
    Key {
        name,
        variable,
        effect,
    }
}

/// All of them.
pub(super) const KEYS: [Key; 24] = [
    key("enabled", Some("MEMORY_PROFILING_ENABLED"), Effect::Enabled),
    key(
        "sample_rate",
        Some("MEMORY_PROFILING_SAMPLE_RATE"),
        Effect::Option("--sample-rate"),
    ),
    key(
        "thresholds.warning",
        Some("MEMORY_WARNING_THRESHOLD"),
        Effect::Option("--warning"),
    ),
    key(
        "thresholds.critical",
        Some("MEMORY_CRITICAL_THRESHOLD"),
        Effect::Option("--critical"),
    ),
    key(
        "thresholds.dump",
        Some("MEMORY_DUMP_THRESHOLD"),
        Effect::None("memprof dumps at thresholds.critical and at the memory limit"),
    ),
    key(
        "profile.checkpoints",
        Some("MEMORY_PROFILE_CHECKPOINTS"),
        Effect::UnlessTrue("--without=checkpoint"),
    ),
    key(
        "profile.models",
        Some("MEMORY_PROFILE_MODELS"),
        Effect::UnlessTrue("--without=models"),
    ),
    key(
        "profile.queries",
        Some("MEMORY_PROFILE_QUERIES"),
        Effect::UnlessTrue("--without=query"),
    ),
    key(
        "profile.global_scopes",
        Some("MEMORY_PROFILE_SCOPES"),
        Effect::UnlessTrue("--without=scopes"),
    ),
    key(
        "profile.filament",
        Some("MEMORY_PROFILE_FILAMENT"),
        Effect::None("memprof has no such record yet"),
    ),
    key(
        "profile.session",
        Some("MEMORY_PROFILE_SESSION"),
        Effect::None("a dump tells the session's keys and sizes, and nothing else does"),
    ),
    key(
        "logging.channel",
        Some("MEMORY_LOG_CHANNEL"),
        Effect::None("memprof writes to --log, and calls its channel --app-env"),
    ),
    key(
        "logging.level",
        Some("MEMORY_LOG_LEVEL"),
        Effect::Option("--log-level"),
    ),
    key(
        "logging.save_dumps",
        Some("MEMORY_SAVE_DUMPS"),
        Effect::UnlessTrue("--no-dumps"),
    ),
    key("logging.dump_path", None, Effect::DumpFolder),
    key(
        "logging.cleanup_days",
        Some("MEMORY_DUMP_CLEANUP_DAYS"),
        Effect::Option("--cleanup-days"),
    ),
    key(
        "safety.auto_disable_on_overhead",
        None,
        Effect::UnlessTrue("--no-guard"),
    ),
    key(
        "safety.max_overhead_ms",
        None,
        Effect::Option("--max-overhead"),
    ),
    key(
        "safety.circuit_breaker_enabled",
        None,
        Effect::UnlessTrue("--no-guard"),
    ),
    key(
        "safety.circuit_breaker_threshold",
        None,
        Effect::Option("--max-overhead-requests"),
    ),
    key(
        "safety.emergency_disable_cache_key",
        None,
        Effect::None(
            "memprof does not read the application's cache: `memprof disable` does the same",
        ),
    ),
    key(
        "advanced.use_tick_monitoring",
        Some("MEMORY_USE_TICK_MONITORING"),
        Effect::None("memprof sees growth as it happens, and needs no ticks"),
    ),
    key(
        "advanced.track_objects",
        Some("MEMORY_TRACK_OBJECTS"),
        Effect::None("every dump counts the live objects"),
    ),
    key(
        "advanced.heap_dumps",
        Some("MEMORY_HEAP_DUMPS"),
        Effect::None("every dump walks the heap"),
    ),
];
