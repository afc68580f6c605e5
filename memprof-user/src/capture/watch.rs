//! What makes a checkpoint besides a request's own moments: files as they are loaded, functions as the
//! heap first grows in them.

use memprof_ebpf::WATCHED_TAIL;

use super::options::{CheckpointAt, OwnCheckpoint};
use crate::{
    framework::laravel,
    record::{checkpoint::Label, frame::Frame},
};

/// All that is watched in a run.
#[derive(Debug)]
pub struct Watch {
    files: Vec<(String, Label)>,
    functions: Vec<(String, Label)>,
}

impl Watch {
    /// What Laravel is watched for, and what the operator asked for.
    #[must_use]
    pub fn new(own: &[OwnCheckpoint]) -> Self {
        let mut watch = Self {
            files: vec![(laravel::PROVIDERS_FILE.to_owned(), Label::BeforeProviders)],
            // With preloading no file is loaded.
            functions: vec![(
                laravel::PROVIDERS_FUNCTION.to_owned(),
                Label::BeforeProviders,
            )],
        };
        for OwnCheckpoint { label, at } in own {
            let label = Label::Own(label.clone());
            match at {
                CheckpointAt::File(path) => watch.files.push((with_slash(path), label)),
                CheckpointAt::Function(name) => watch.functions.push((name.clone(), label)),
            }
        }
        watch
    }

    /// The ends of the paths of the watched files; their numbers are those of [`Watch::file`].
    pub fn tails(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|(path, _)| {
            let path = path.as_bytes();
            path.get(path.len().saturating_sub(WATCHED_TAIL)..)
                .unwrap_or(path)
        })
    }

    /// For each length that a tail has, the bit of that number.
    #[must_use]
    pub fn tail_lengths(&self) -> u64 {
        self.tails().fold(0, |bits, tail| bits | 1 << tail.len())
    }

    /// The checkpoint that the loading of a file makes.
    #[must_use]
    pub fn file(&self, number: u32) -> Option<&Label> {
        Some(&self.files.get(number as usize)?.1)
    }

    /// The checkpoints whose functions are in a stack.
    pub fn functions<'a>(&self, frames: impl Iterator<Item = &'a Frame>) -> Vec<Label> {
        let mut labels = Vec::new();
        for frame in frames {
            for (name, label) in &self.functions {
                if is_function(&frame.function, name) && !labels.contains(label) {
                    labels.push(label.clone());
                }
            }
        }
        labels
    }
}

/// `Foo.php` is not `BarFoo.php`.
fn with_slash(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

/// Whether a frame's function, `App\Foo->bar`, is the one named, `App\Foo::bar`.
fn is_function(function: &str, name: &str) -> bool {
    match (function.split_once("->"), name.split_once("::")) {
        (Some(method), Some(wanted)) => method == wanted,
        _ => function == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(label: &str, at: CheckpointAt) -> OwnCheckpoint {
        OwnCheckpoint {
            label: label.to_owned(),
            at,
        }
    }

    #[test]
    fn files_are_known_by_the_end_of_their_path() {
        let watch = Watch::new(&[own("foo", CheckpointAt::File("app/Foo.php".to_owned()))]);
        let tails: Vec<&[u8]> = watch.tails().collect();
        assert_eq!(tails[0].len(), WATCHED_TAIL);
        assert_eq!(tails[1], b"/app/Foo.php");
        assert_eq!(watch.tail_lengths(), 1 << WATCHED_TAIL | 1 << 12);
        assert_eq!(watch.file(0), Some(&Label::BeforeProviders));
        assert_eq!(watch.file(1), Some(&Label::Own("foo".to_owned())));
        assert_eq!(watch.file(2), None);
    }

    #[test]
    fn methods_are_known_with_and_without_an_object() {
        let named = |name: &str| CheckpointAt::Function(name.to_owned());
        let watch = Watch::new(&[own("bar", named("App\\Foo::bar")), own("f", named("f"))]);
        let labels = |function: &str| {
            let frame = Frame {
                function: function.to_owned(),
                file: None,
                line: None,
            };
            watch.functions([&frame, &frame].into_iter())
        };
        assert_eq!(labels("App\\Foo->bar"), [Label::Own("bar".to_owned())]);
        assert_eq!(labels("App\\Foo::bar"), [Label::Own("bar".to_owned())]);
        assert_eq!(labels("f"), [Label::Own("f".to_owned())]);
        assert_eq!(labels("App\\Foo->barrel"), []);
    }
}
