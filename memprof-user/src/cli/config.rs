//! `--config`, and the environment variables that stand for settings.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};

use super::exit::{Exit, ExitError};
use super::{Cli, Verb};
use crate::config::Settings;

const ATTACH: &str = "attach";
/// The options by which a target is named: the command line's go before the configuration's.
const TARGETS: [&str; 3] = ["pool", "pid", "all"];

/// The command line once more, with the settings before its own options, which go before them.
pub(super) fn with_settings(file: Option<&Path>) -> anyhow::Result<Cli> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = Cli::command();
    let options = long_options(&command);
    let mut settings = match file {
        Some(file) => Settings::read(file, &options)?,
        None => Settings::default(),
    };
    let environment = Settings::of_environment(|name| std::env::var(name).ok())?;
    settings = settings.and_then(environment);
    for setting in &settings.without_effect {
        eprintln!("memprof: without effect: {setting}");
    }
    if settings.is_off {
        return Err(ExitError {
            exit: Exit::Disabled,
            message: "memprof is switched off by `enabled = false` in its configuration, or by \
                      MEMORY_PROFILING_ENABLED=false"
                .to_owned(),
        }
        .into());
    }
    parse(command, words, settings.arguments)
}

fn parse(
    command: clap::Command,
    words: Vec<OsString>,
    settings: Vec<String>,
) -> anyhow::Result<Cli> {
    let verb = words.iter().position(|word| word == ATTACH);
    let (before, own) = words.split_at(verb.map_or(words.len(), |at| at + 1));
    let names_target = own.iter().any(|word| is_target(&word.to_string_lossy()));
    let settings = settings
        .into_iter()
        .filter(|setting| !(names_target && is_target(setting)))
        .map(OsString::from);
    let all = before
        .iter()
        .cloned()
        .chain(settings)
        .chain(own.iter().cloned());
    let matches = command
        .try_get_matches_from(all)
        .context("the configuration, or the environment, does not fit `memprof attach`")
        .map_err(usage)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage(error.into()))?;
    debug_assert!(matches!(cli.verb, Verb::Attach(_)));
    Ok(cli)
}

fn is_target(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    name == "-p" || TARGETS.iter().any(|target| name == format!("--{target}"))
}

fn usage(error: anyhow::Error) -> anyhow::Error {
    ExitError {
        exit: Exit::Usage,
        message: format!("{error:#}"),
    }
    .into()
}

fn long_options(command: &clap::Command) -> Vec<String> {
    let attach = command.find_subcommand(ATTACH);
    let options = attach.into_iter().flat_map(clap::Command::get_arguments);
    options
        .filter_map(|option| option.get_long())
        .filter(|option| !["config", "help", "version"].contains(option))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[&str], line: &str) -> Result<String, String> {
        let words = line.split_whitespace().map(OsString::from).collect();
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        parse(Cli::command(), words, settings)
            .map(|cli| format!("{:?}", cli.verb))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_goes_before_the_settings() {
        let settings = ["--pool=www", "--force-limit=5", "--app-env=staging"];
        let verb = with(&settings, "memprof attach --force-limit 7").expect("fits");
        assert!(
            verb.contains("force_limit: 7") && verb.contains("staging"),
            "{verb}"
        );
        assert!(verb.contains("\"www\""), "{verb}");
        let verb = with(&settings, "memprof -q attach --pid 7").expect("fits");
        assert!(!verb.contains("\"www\""), "{verb}");
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_explained() {
        let error = with(&["--warning=lots"], "memprof attach --all").expect_err("no number");
        assert!(
            error.contains("the configuration") && error.contains("--warning"),
            "{error}"
        );
    }

    #[test]
    fn options_are_found() {
        let options = long_options(&Cli::command());
        for option in ["pool", "window", "force-value", "max-overhead"] {
            assert!(options.iter().any(|found| found == option), "{option}");
        }
    }
}
