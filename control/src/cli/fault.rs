//! What is wrong with a configuration, and where it was given: in an option, or at a place of the file.

use super::document::{Document, Finding};
use crate::qapi::QapiError;

/// Faults that are reported at once; who has more begins with these.
pub(super) const FAULTS_MAX: usize = 20;

/// Where something was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An option as it was written: `-netdev tap,id=t0`.
    Option(String),
    /// A place of the file, as a visitor calls it: `netdev[2]`.
    File(String),
}

/// What is wrong with something that was given.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) origin: Origin,
    pub(super) error: QapiError,
    /// What was given before and does not go with it.
    pub(super) earlier: Option<Box<Fault>>,
}

/// Something that was given, and where.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) spec: T,
    pub(super) origin: Origin,
}

impl Origin {
    /// What is wrong with what was given here.
    pub(super) fn fault(&self, error: QapiError) -> Fault {
        Fault { origin: self.clone(), error, earlier: None }
    }

    /// Whether this may say once more what was said there: an option what the file says, so that a file which was written
    /// by the run that it is for can be read together with that run's command line.
    pub(super) fn repeats(&self, earlier: &Origin) -> bool {
        matches!((self, earlier), (Origin::Option(_), Origin::File(_)))
    }

    /// A place that a fault is about, too.
    pub(super) fn note(&self, text: &str, member: &str) -> Fault {
        self.fault(QapiError::generic(format!("note: {text}")).about(member))
    }
}

impl Fault {
    /// The same fault, which would be none without what was given there.
    pub(super) fn after(self, earlier: Fault) -> Fault {
        Fault { earlier: Some(Box::new(earlier)), ..self }
    }

    /// Where it is in the file; what is in an option comes last.
    pub(super) fn position(&self, document: Option<&Document>) -> usize {
        match (&self.origin, document) {
            (Origin::File(path), Some(document)) => document.position(path, &self.error),
            _ => usize::MAX,
        }
    }

    /// What to tell: one finding, two if something earlier has to do with it.
    pub(super) fn findings(&self, document: Option<&Document>) -> Vec<Finding> {
        let finding = match (&self.origin, document) {
            (Origin::File(path), Some(document)) => document.locate(path, &self.error),
            (Origin::File(place) | Origin::Option(place), _) => {
                Finding { line: format!("{place}: {}", self.error), excerpt: None }
            }
        };
        let earlier = self.earlier.iter().flat_map(|earlier| earlier.findings(document));
        std::iter::once(finding).chain(earlier).collect()
    }
}
