//! The secret that clients present where other machines can reach a server.

use std::fs::File;
use std::io::Read;

use crate::error::{Error, Result};

/// The secret that clients must present if other machines can reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) text: String,
    /// Whether it has 128 random bits, and thus cannot be guessed.
    pub(super) is_random: bool,
}

impl Token {
    /// A token chosen by the user.
    ///
    /// # Errors
    /// [`Error::Usage`] for a token that cannot be part of a URL, or is too short.
    pub fn chosen(text: String) -> Result<Self> {
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if text.len() >= 8 && is_plain {
            return Ok(Self { text, is_random: false });
        }
        Err(Error::usage(
            "a token has to be 8 or more of the letters A to Z and a to z, the digits, -, _ and .; \
             `openssl rand -hex 16` makes one",
        ))
    }

    /// A random token.
    ///
    /// # Errors
    /// [`Error::Usage`] when the system provides no random bytes.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.map_err(|error| {
            Error::usage(format!("no token can be read from /dev/urandom ({error}); choose one"))
        })?;
        Ok(Self { text: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), is_random: true })
    }

    /// Compares with `given` in constant time.
    pub(super) fn is(&self, given: &str) -> bool {
        let differs =
            self.text.bytes().zip(given.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.text.len() == given.len() && differs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn compares_and_checks_tokens() {
        let token = Token::chosen("correct-horse".into()).unwrap();
        assert!(token.is("correct-horse"));
        assert!(Token::chosen("Correct_Horse.7".into()).is_ok());
        let problem = Token::chosen("with+plus".into()).unwrap_err().to_string();
        assert!(problem.contains("A to Z and a to z"), "{problem}");
        assert!(!token.is("correct-hors") && !token.is("correct-horsf") && !token.is(""));
        assert!(
            Token::chosen("short".into()).is_err() && Token::chosen("with a space".into()).is_err()
        );
        assert!(Token::random().unwrap() != Token::random().unwrap());
    }
}
