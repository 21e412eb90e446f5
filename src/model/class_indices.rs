//! The class indices that a network can be conditioned on.

use crate::error::{Error, Result};
use crate::setting::CLASS;

/// The class indices of a network that takes a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassIndices {
    model: String,
    count: Option<usize>,
    unconditional: Option<usize>,
}

impl ClassIndices {
    /// Classes 0 to `count - 1`, or any number if the network does not declare how many there are.
    /// `unconditional` is the index that means no class, if the network was trained with one.
    /// `model` is its name in errors.
    pub fn new(model: &str, count: Option<usize>, unconditional: Option<usize>) -> Self {
        Self { model: model.to_owned(), count, unconditional }
    }

    /// The index that a network with these classes, if it takes one, is conditioned on.
    ///
    /// # Errors
    /// As for [`index`](Self::index), and for a class without any `classes`.
    pub fn choose(classes: Option<&Self>, class: Option<usize>) -> Result<Option<i64>> {
        match (classes, class) {
            (Some(classes), class) => classes.index(class).map(Some),
            (None, Some(_)) => Err(Self::refusal("this network")),
            (None, None) => Ok(None),
        }
    }

    /// The index of `class`, or the unconditional one if it is absent.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no such class, or the network has no unconditional class.
    pub fn index(&self, class: Option<usize>) -> Result<i64> {
        let index = match class {
            None => self.unconditional.ok_or_else(|| self.none_given())?,
            Some(class) if self.count.is_some_and(|count| class >= count) => {
                let found = format!("{} has {}; there is no class {class}", self.model, self.all());
                return Err(Error::usage(found));
            }
            Some(class) => class,
        };
        i64::try_from(index)
            .map_err(|_| Error::usage(format!("class {index} is not a 64-bit signed number")))
    }

    /// The unconditional index, if the network has one.
    pub fn unconditional(&self) -> Option<i64> {
        self.unconditional.and_then(|index| i64::try_from(index).ok())
    }

    /// The error for a class that a network without classes was given.
    pub fn refusal(model: &str) -> Error {
        Error::usage(format!(
            "{model} is not conditioned on a class; leave {CLASS} out, or take a model that is"
        ))
    }

    fn none_given(&self) -> Error {
        Error::usage(format!(
            "{} needs a class, since it has no unconditional one; choose one of {}",
            self.model,
            self.all()
        ))
    }

    fn all(&self) -> String {
        match self.count {
            Some(count) => format!("the classes 0 to {}", count.saturating_sub(1)),
            None => "its classes".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ClassIndices;

    #[test]
    fn without_a_class_the_unconditional_index_is_used() {
        let digits = ClassIndices::new("digits", Some(10), Some(10));
        assert_eq!(digits.index(None).unwrap(), 10);
        assert_eq!(digits.index(Some(9)).unwrap(), 9);
        let error = digits.index(Some(10)).unwrap_err().to_string();
        assert!(error.contains("0 to 9; there is no class 10"), "{error}");
    }

    #[test]
    fn rejects_a_missing_class_without_an_unconditional_index() {
        for (count, expected) in [(Some(4), "one of the classes 0 to 3"), (None, "its classes")] {
            let error = ClassIndices::new("m", count, None).index(None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
