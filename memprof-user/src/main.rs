//! The `memprof` command.

use std::process::ExitCode;

use memprof_user::cli::{Cli, Exit, explain};

fn main() -> ExitCode {
    let exit = match Cli::of_process().and_then(Cli::run) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                eprint!("{}", explain(&error));
            }
            exit
        }
    };
    exit.into()
}
