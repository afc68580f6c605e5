//! Laravel: what a database call or a scope means, told by the functions around it.
//!
//! Checked against Laravel 8.83 as it runs, and against no other version. Nothing of the application is called or
//! changed: these are the functions that Laravel itself goes through.

use crate::record::frame::Frame;

/// The end of the path of the file that is loaded right before the service providers register.
pub const PROVIDERS_FILE: &str = "Illuminate/Foundation/Bootstrap/RegisterProviders.php";

/// The function that registers them.
pub const PROVIDERS_FUNCTION: &str =
    "Illuminate\\Foundation\\Bootstrap\\RegisterProviders::bootstrap";

/// What happened to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelEvent {
    /// A row became a model.
    Retrieved,
    /// A model became a row.
    Created,
    /// A model's row was changed.
    Updated,
}

impl ModelEvent {
    /// Laravel's name of the event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieved => "retrieved",
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }
}

/// The object that a frame's method runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Its class.
    pub class: Option<&'a str>,
    /// The class of the object in its second property: the model of a query builder.
    pub second: Option<&'a str>,
}

/// A call as its stack shows it; frames and subjects go together, innermost first.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The stack, the called function first.
    pub frames: &'a [&'a Frame],
    /// The objects of its frames, as far as they were looked at.
    pub subjects: &'a [Subject<'a>],
}

/// A model's class, and what happened to it.
pub type ModelSeen<'a> = (&'a str, ModelEvent);

const GET_MODELS: &str = "Illuminate\\Database\\Eloquent\\Builder->getModels";
const CALL_SCOPE: &str = "Illuminate\\Database\\Eloquent\\Builder->callScope";
const APPLY_SCOPES: &str = "Illuminate\\Database\\Eloquent\\Builder->applyScopes";
/// Methods of a model under which it writes its own row.
const WRITES: [(&str, &str, ModelEvent); 3] = [
    (
        "Illuminate\\Database\\Eloquent\\Model->performInsert",
        "insert",
        ModelEvent::Created,
    ),
    (
        "Illuminate\\Database\\Eloquent\\Model->performUpdate",
        "update",
        ModelEvent::Updated,
    ),
    (
        "Illuminate\\Database\\Eloquent\\Model->incrementOrDecrement",
        "update",
        ModelEvent::Updated,
    ),
];

impl<'a> Seen<'a> {
    /// Whether a query is one that Laravel announces as `QueryExecuted`: it runs in a closure of a
    /// connection. A savepoint does not.
    #[must_use]
    pub fn is_query(&self) -> bool {
        self.frames.get(1).is_some_and(|caller| {
            caller.function.starts_with("Illuminate\\Database\\")
                && caller.function.contains("Connection->")
                && caller.function.contains("{closure")
        })
    }

    /// The model that the rows of a result become.
    #[must_use]
    pub fn retrieved(&self) -> Option<&'a str> {
        let (_, subject) = self.within_laravel(|function| function == GET_MODELS)?;
        subject.second
    }

    /// The model that a query writes to its row.
    #[must_use]
    pub fn written(&self, sql: &str) -> Option<ModelSeen<'a>> {
        let verb = sql.split_whitespace().next()?;
        let rule = |function: &str| WRITES.iter().find(|rule| rule.0 == function);
        let (function, subject) = self.within_laravel(|function| rule(function).is_some())?;
        let (_, wanted, event) = rule(function)?;
        verb.eq_ignore_ascii_case(wanted)
            .then_some((subject.class?, *event))
    }

    /// The model and the class of the scope that is about to be applied to its query; `variables` are the
    /// classes of the objects in the first variables of [`APPLY_SCOPES`].
    #[must_use]
    pub fn scope(&self, variables: &[Option<&'a str>]) -> Option<(&'a str, &'a str)> {
        let is = |index: usize, name: &str| {
            let frame = self.frames.get(index);
            frame.is_some_and(|frame| frame.function == name)
        };
        if !is(1, CALL_SCOPE) || !is(2, APPLY_SCOPES) {
            return None;
        }
        let builder = self.subjects.get(2)?;
        let scope = variables
            .iter()
            .flatten()
            .find(|class| Some(**class) != builder.class)?;
        Some((builder.second?, scope))
    }

    /// The innermost frame whose function is wanted, as long as only Laravel's own functions lie
    /// between it and the call: what a listener of the application does is not the model's doing.
    fn within_laravel(&self, wanted: impl Fn(&str) -> bool) -> Option<(&'a str, Subject<'a>)> {
        for (index, frame) in self.frames.iter().enumerate().skip(1) {
            if wanted(&frame.function) {
                return Some((&frame.function, *self.subjects.get(index)?));
            }
            if frame.function.contains('\\') && !frame.function.starts_with("Illuminate\\") {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSURE: &str = "Illuminate\\Database\\Connection->Illuminate\\Database\\{closure}";
    const RUN: &str = "Illuminate\\Database\\Connection->run";
    const MODEL: Subject<'_> = Subject {
        class: Some("App\\Call"),
        second: None,
    };
    const BUILDER: Subject<'_> = Subject {
        class: Some("Illuminate\\Database\\Eloquent\\Builder"),
        second: Some("App\\Call"),
    };

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.to_owned(),
            file: None,
            line: None,
        }
    }

    /// What `look` says of a stack of these functions, the last of which runs on `last`.
    fn seen<T>(functions: &[&str], last: Subject<'_>, look: impl Fn(Seen<'_>) -> T) -> T {
        let frames: Vec<Frame> = functions.iter().map(|name| frame(name)).collect();
        let frames: Vec<&Frame> = frames.iter().collect();
        let mut subjects = vec![Subject::default(); frames.len() - 1];
        subjects.push(last);
        look(Seen {
            frames: &frames,
            subjects: &subjects,
        })
    }

    #[test]
    fn rows_become_the_builders_model() {
        let retrieved = |functions: &[&str]| {
            seen(functions, BUILDER, |call| {
                call.retrieved().map(str::to_owned)
            })
        };
        let fetch = "PDOStatement->fetchAll";
        assert_eq!(
            retrieved(&[fetch, CLOSURE, RUN, "tap", GET_MODELS]).as_deref(),
            Some("App\\Call")
        );
        assert_eq!(retrieved(&[fetch, "App\\Report->rows", GET_MODELS]), None);
        assert_eq!(retrieved(&[fetch, CLOSURE, RUN]), None);
    }

    #[test]
    fn a_write_is_the_models_only_if_it_is_of_its_kind() {
        let written = |function: &str, sql: &str| {
            let execute = "PDOStatement->execute";
            seen(&[execute, CLOSURE, RUN, function], MODEL, |call| {
                call.written(sql)
                    .map(|(class, event)| format!("{class}::{}", event.as_str()))
            })
        };
        let [(insert, ..), (update, ..), (increment, ..)] = WRITES;
        assert_eq!(
            written(insert, "insert into \"calls\" …").as_deref(),
            Some("App\\Call::created")
        );
        for function in [update, increment] {
            assert_eq!(
                written(function, "UPDATE calls set …").as_deref(),
                Some("App\\Call::updated")
            );
        }
        assert_eq!(written(update, "select * from calls"), None);
        assert_eq!(written(RUN, "update calls"), None);
    }

    #[test]
    fn a_scope_is_what_is_not_the_builder() {
        let scope = |variables: &[Option<&str>]| {
            seen(
                &["array_unshift", CALL_SCOPE, APPLY_SCOPES],
                BUILDER,
                |call| {
                    call.scope(variables)
                        .map(|(model, scope)| format!("{model}::{scope}"))
                },
            )
        };
        let builder = BUILDER.class;
        assert_eq!(
            scope(&[builder, Some("App\\Scope"), None]).as_deref(),
            Some("App\\Call::App\\Scope")
        );
        assert_eq!(scope(&[builder, None]), None);
    }

    #[test]
    fn a_savepoint_is_no_query() {
        let is_query = |caller: &str| seen(&["PDO->exec", caller], MODEL, |call| call.is_query());
        assert!(is_query(CLOSURE));
        assert!(is_query(
            "Illuminate\\Database\\MySqlConnection->{closure:Illuminate\\Database\\MySqlConnection::insert():42}"
        ));
        assert!(!is_query(
            "Illuminate\\Database\\Connection->createSavepoint"
        ));
    }
}
