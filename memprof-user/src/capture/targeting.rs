//! Which requests are recorded: by header, by path and method.

use bytemuck::Zeroable;
use memprof_ebpf::{METHOD_BYTES, Pattern, Targeting, Text};

use super::options::{AttachOptions, Mode};

/// Why requests can't be told apart as asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetingError {
    /// A text is longer than the programs compare.
    #[error("{what} {text:?} is longer than {most} bytes, which is what the probes compare")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
        /// The bound in bytes.
        most: usize,
    },
    /// A header of that name can't be sent.
    #[error("{0:?} is no name of a header: want letters, digits and hyphens")]
    Header(String),
}

/// The requests that a run is about, as the agent and the kernel side know them.
#[derive(Debug)]
pub struct Requests {
    targeting: Targeting,
    method: Option<String>,
}

impl Requests {
    /// # Errors
    /// [`TargetingError`]
    pub fn new(options: &AttachOptions) -> Result<Self, TargetingError> {
        let mut targeting = Targeting::zeroed();
        let force = &options.force;
        targeting.header = text("the variable of --force-header", &variable(&force.header)?)?;
        match &force.value {
            Some(value) => targeting.value = text("--force-value", value)?,
            None => targeting.is_limited = 1,
        }
        if let Some(method) = &options.method {
            let too_long = || TargetingError::TooLong {
                what: "--method",
                text: method.clone(),
                most: METHOD_BYTES - 1,
            };
            // The last byte stays zero.
            let room = targeting.method.get_mut(..method.len());
            room.filter(|room| room.len() < METHOD_BYTES)
                .ok_or_else(too_long)?
                .copy_from_slice(method.as_bytes());
            targeting.has_method = 1;
        }
        if let Some(path) = &options.path {
            let too_long = || TargetingError::TooLong {
                what: "--path",
                text: path.clone(),
                most: memprof_ebpf::PATTERN_BYTES,
            };
            targeting.path = Pattern::new(path).ok_or_else(too_long)?;
        }
        Ok(Self {
            targeting,
            method: options.method.clone(),
        })
    }

    /// What the kernel side is told in a mode: without a header, the worker's order decides.
    #[must_use]
    pub fn in_mode(&self, mode: Mode) -> Targeting {
        let mut targeting = self.targeting;
        if mode != Mode::Targeted {
            targeting.header = Text::default();
        }
        targeting
    }

    /// Whether a request's method and path are those that are recorded.
    #[must_use]
    pub fn include(&self, method: &str, path: &str) -> bool {
        let is_method = self.method.as_ref().is_none_or(|wanted| wanted == method);
        is_method && self.targeting.path.matches(path)
    }
}

/// The FastCGI variable that holds a header: `X-Bug` is `HTTP_X_BUG`.
fn variable(header: &str) -> Result<String, TargetingError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if header.is_empty() || !header.chars().all(is_name) {
        return Err(TargetingError::Header(header.to_owned()));
    }
    Ok(format!(
        "HTTP_{}",
        header.to_ascii_uppercase().replace('-', "_")
    ))
}

fn text(what: &'static str, text: &str) -> Result<Text, TargetingError> {
    Text::new(text.as_bytes()).ok_or_else(|| TargetingError::TooLong {
        what,
        text: text.to_owned(),
        most: memprof_ebpf::TEXT_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_variables() {
        let name = variable("X-Force-Memory-Profile").expect("a name");
        assert_eq!(name, "HTTP_X_FORCE_MEMORY_PROFILE");
        for wrong in ["", "X Y", "X_Y", "X:Y", "Ünicode"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }
}
