//! Settings from a file and from the environment, as the command-line options that they stand for.
//!
//! The file is TOML with the keys of the in-app profiler whose records memprof writes (`thresholds.warning`),
//! each of which has its environment variable too, and a table `[attach]` whose keys are the long options of
//! `memprof attach`. A setting says the same as its option, so each is checked and explained in one place.

mod keys;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use keys::{Effect, KEYS, Key};

/// The table whose keys are options.
const OPTIONS: &str = "attach";
/// A longer file is no configuration.
const MOST_BYTES: u64 = 1 << 20;
/// Two names at least as alike as that may be mistaken for each other.
const ALIKE: f64 = 0.6;

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may write the file, and memprof runs as root.
    #[error("anybody may write the configuration {path}: chmod o-w {path}")]
    Insecure {
        /// The file.
        path: PathBuf,
    },
    /// The file is no TOML.
    #[error("the configuration {path} is no TOML: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// There is no such setting.
    #[error("there is no setting {key:?}{}", nearest(.near))]
    Unknown {
        /// The key.
        key: String,
        /// The known key that is most like it.
        near: Option<String>,
    },
    /// A value is not of the kind that the setting has.
    #[error("{key} = {value}: want {wanted}")]
    Value {
        /// The key, or the environment variable.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
}

fn nearest(near: &Option<String>) -> String {
    near.as_ref()
        .map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

/// What settings come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Command-line options, with their values.
    pub arguments: Vec<String>,
    /// Whether profiling is switched off by a setting.
    pub is_off: bool,
    /// Settings that change nothing, each with why.
    pub without_effect: Vec<String>,
}

impl Settings {
    /// Reads a file. `options` are the long options, which `[attach]` may hold.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn read(path: &Path, options: &[String]) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o002 != 0 {
            return Err(ConfigError::Insecure {
                path: path.to_owned(),
            });
        }
        let mut text = String::new();
        file.take(MOST_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let table: Table = text.parse().map_err(|source| ConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let mut settings = Self::default();
        settings.add_table("", &table, options)?;
        Ok(settings)
    }

    /// Takes the environment variables that stand for settings.
    ///
    /// # Errors
    /// [`ConfigError::Value`]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for key in &KEYS {
            let found = key.variable.and_then(|name| Some((name, variable(name)?)));
            if let Some((name, value)) = found.filter(|(_, value)| !value.is_empty()) {
                settings.add(key, name, &value)?;
            }
        }
        Ok(settings)
    }

    /// These, and where they differ the other ones.
    #[must_use]
    pub fn and_then(mut self, other: Self) -> Self {
        self.arguments.extend(other.arguments);
        self.is_off = other.is_off || self.is_off;
        self.without_effect.extend(other.without_effect);
        self
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: &Table,
        options: &[String],
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let known = KEYS.iter().find(|known| known.name == key);
            match (value, known) {
                (Value::Table(table), None) if key == OPTIONS => {
                    self.add_options(table, options)?;
                }
                (Value::Table(table), None) if prefix.is_empty() => {
                    self.add_table(&format!("{key}."), table, options)?;
                }
                (_, Some(known)) => self.add(known, &key, &text(&key, value)?)?,
                (_, None) => {
                    let known = KEYS.iter().map(|known| known.name);
                    return Err(unknown(&key, known));
                }
            }
        }
        Ok(())
    }

    fn add_options(&mut self, table: &Table, options: &[String]) -> Result<(), ConfigError> {
        for (name, value) in table {
            let option = name.replace('_', "-");
            let key = format!("{OPTIONS}.{name}");
            if !options.contains(&option) {
                let known: Vec<_> = options
                    .iter()
                    .map(|option| format!("{OPTIONS}.{}", option.replace('-', "_")))
                    .collect();
                return Err(unknown(&key, known.iter().map(String::as_str)));
            }
            match value {
                Value::Boolean(true) => self.arguments.push(format!("--{option}")),
                Value::Boolean(false) => {}
                Value::Array(values) => {
                    for value in values {
                        self.arguments
                            .push(format!("--{option}={}", text(&key, value)?));
                    }
                }
                value => self
                    .arguments
                    .push(format!("--{option}={}", text(&key, value)?)),
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &Key, name: &str, value: &str) -> Result<(), ConfigError> {
        let switch = || match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(true),
            "false" | "0" | "off" | "no" => Ok(false),
            _ => Err(ConfigError::Value {
                key: name.to_owned(),
                value: value.to_owned(),
                wanted: "true or false",
            }),
        };
        match key.effect {
            Effect::Option(option) => self.arguments.push(format!("{option}={value}")),
            Effect::UnlessTrue(arguments) => {
                if !switch()? {
                    self.arguments.push(arguments.to_owned());
                }
            }
            Effect::Enabled => self.is_off = !switch()?,
            Effect::DumpFolder => {
                let folder = Path::new(value);
                let is_dumps = folder
                    .file_name()
                    .is_some_and(|name| name == "memory-dumps");
                let Some(parent) = folder.parent().filter(|_| is_dumps) else {
                    return Err(ConfigError::Value {
                        key: name.to_owned(),
                        value: value.to_owned(),
                        wanted: "a folder named memory-dumps; the other records go beside it",
                    });
                };
                self.arguments.push(format!("--out={}", parent.display()));
            }
            Effect::None(why) => self.without_effect.push(format!("{name}: {why}")),
        }
        Ok(())
    }
}

/// A value as it stands on a command line.
fn text(key: &str, value: &Value) -> Result<String, ConfigError> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        _ => {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                value: format!("a {}", value.type_str()),
                wanted: "a text, a number, or true or false",
            });
        }
    })
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> ConfigError {
    let alike = known.map(|known| (strsim::jaro_winkler(key, known), known));
    let near = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    ConfigError::Unknown {
        key: key.to_owned(),
        near: near
            .filter(|(alike, _)| *alike >= ALIKE)
            .map(|(_, known)| known.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let options = ["pool", "window", "force-value", "json"].map(str::to_owned);
        Settings::read(file.path(), &options)
    }

    #[test]
    fn settings_are_options() {
        let settings = read(
            "sample_rate = 0.05\n\
             [thresholds]\nwarning = 1536\ncritical = \"90%\"\n\
             [profile]\nmodels = false\nqueries = true\n\
             [logging]\ndump_path = \"/srv/app/storage/logs/memory-dumps\"\ncleanup_days = 3\n\
             [attach]\npool = [\"www\", \"api\"]\nwindow = \"18:30-19:15=aggressive\"\n\
             force_value = \"x y\"\njson = true\n",
        );
        let mut arguments = settings.expect("known keys").arguments;
        arguments.sort();
        assert_eq!(
            arguments,
            [
                "--cleanup-days=3",
                "--critical=90%",
                "--force-value=x y",
                "--json",
                "--out=/srv/app/storage/logs",
                "--pool=api",
                "--pool=www",
                "--sample-rate=0.05",
                "--warning=1536",
                "--window=18:30-19:15=aggressive",
                "--without=models",
            ]
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        for (text, near) in [
            ("sample_rat = 1", "sample_rate"),
            ("[thresholds]\nwarn = 1", "thresholds.warning"),
            ("[attach]\nforce_valu = 1", "attach.force_value"),
            ("[saftey]\nmax_overhead_ms = 1", "safety.max_overhead_ms"),
        ] {
            let message = read(text).expect_err("unknown").to_string();
            assert!(
                message.contains(&format!("did you mean {near:?}")),
                "{message}"
            );
        }
    }

    #[test]
    fn variables_are_settings_too() {
        let variable = |name: &str| {
            let value = match name {
                "MEMORY_WARNING_THRESHOLD" => "1024",
                "MEMORY_PROFILE_MODELS" => "false",
                "MEMORY_PROFILING_ENABLED" => "false",
                "MEMORY_LOG_LEVEL" => "",
                "MEMORY_HEAP_DUMPS" => "true",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let settings = Settings::of_environment(variable).expect("right values");
        assert_eq!(settings.arguments, ["--warning=1024", "--without=models"]);
        assert!(settings.is_off);
        assert_eq!(settings.without_effect.len(), 1);
        let wrong = Settings::of_environment(|name| {
            (name == "MEMORY_SAVE_DUMPS").then(|| "maybe".to_owned())
        });
        assert!(matches!(wrong, Err(ConfigError::Value { .. })));
    }

    #[test]
    fn a_file_that_anybody_may_write_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(file.path(), open).expect("set");
        assert!(matches!(
            Settings::read(file.path(), &[]),
            Err(ConfigError::Insecure { .. })
        ));
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for text in [
            "sample_rate",
            "thresholds = 1",
            "[thresholds.warning]\na = 1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
