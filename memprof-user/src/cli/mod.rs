//! The command line, one file a verb; arguments are turned into plain option structs here.
