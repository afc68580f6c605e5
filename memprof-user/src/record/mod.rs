//! The formats on disk, written and read: log lines, dumps, pprof.
