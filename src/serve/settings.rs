//! What a request may set: the options of `eddy denoise` and `eddy upscale`, by their names.

use std::str::FromStr;

use super::problem::Problem;
use super::query::Pairs;
use crate::media::Format;
use crate::media::still;
use crate::task::{SigmaChoice, Strength};

/// The settings of one request.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) model: Option<String>,
    pub(super) sigma: SigmaChoice,
    pub(super) strength: Strength,
    pub(super) steps: Option<usize>,
    pub(super) eta: f64,
    pub(super) seed: u64,
    pub(super) scale: Option<usize>,
    /// The format of the result, where it is requested.
    pub(super) format: Option<Format>,
    pub(super) options: still::Options,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            sigma: SigmaChoice::Auto,
            strength: Strength::FULL,
            steps: None,
            eta: 0.0,
            seed: 0,
            scale: None,
            format: None,
            options: still::Options::default(),
        }
    }
}

/// What tasks take.
pub(super) const DENOISE: &[&str] = &["sigma", "strength", "steps", "eta", "seed"];
pub(super) const UPSCALE: &[&str] = &["scale", "steps", "eta", "seed"];

/// What requests of image files take beside them.
pub(super) const FILE: &[&str] = &["model", "format", "jpeg-quality"];

impl Settings {
    /// Settings of parameters, each of which is one of `own` or `other`.
    pub(super) fn of(pairs: Pairs, own: &[&str], other: &[&str]) -> Result<Self, Problem> {
        let mut settings = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in pairs {
            if !own.contains(&name.as_str()) && !other.contains(&name.as_str()) {
                let known = [own, other].concat().join(", ");
                let text = format!("the parameter {name:?} is not known here; there are {known}");
                return Err(Problem::invalid(text));
            }
            if seen.contains(&name) {
                return Err(Problem::invalid(format!("the parameter {name} is given twice")));
            }
            settings
                .set(&name, &value)
                .map_err(|expected| Problem::invalid(format!("{name}={value:?}: {expected}")))?;
            seen.push(name);
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "model" => self.model = Some(value.to_owned()),
            "sigma" => self.sigma = value.parse()?,
            "strength" => self.strength = value.parse()?,
            "steps" => self.steps = Some(number(value, 1, 1000)?),
            "eta" => {
                let eta = value.parse().ok().filter(|eta| (0.0..=1.0).contains(eta));
                self.eta = eta.ok_or("expected a number from 0 to 1")?;
            }
            "seed" => self.seed = number(value, 0, u64::MAX)?,
            "scale" => self.scale = Some(number(value, 1, 64)?),
            "format" => {
                self.format = Some(value.parse().map_err(|error: crate::Error| error.to_string())?);
            }
            "jpeg-quality" => self.options.jpeg_quality = number(value, 1, 100)?,
            _ => return Err("it is not known".to_owned()),
        }
        Ok(())
    }
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let expected = format!("expected a number from {least} to {most}");
    text.parse().ok().filter(|number| (&least..=&most).contains(&number)).ok_or(expected)
}

#[cfg(test)]
mod tests {
    use super::{DENOISE, FILE, Settings, UPSCALE};
    use crate::serve::query::of_url;
    use crate::task::SigmaChoice;

    #[test]
    fn takes_options_by_their_names() {
        let parse = |query: &str| Settings::of(of_url(query).unwrap(), DENOISE, FILE);
        let settings =
            parse("sigma=12,5&steps=3&strength=0.5&format=webp&jpeg-quality=80").unwrap();
        assert_eq!(settings.sigma, SigmaChoice::Planes([12.0, 5.0]));
        assert_eq!((settings.steps, settings.options.jpeg_quality), (Some(3), 80));
        for (query, message) in [
            ("sigma=-1", "expected auto, a number from 0 on"),
            ("sigma=nan", "expected auto"),
            ("steps=0", "from 1 to 1000"),
            ("steps=1e3", "from 1 to 1000"),
            ("strength=2", "expected a part"),
            ("eta=inf", "from 0 to 1"),
            ("seed=-1", "from 0 to"),
            ("format=gif", "choose png"),
            ("jpeg-quality=0", "from 1 to 100"),
            ("scale=2", "not known here"),
            ("steps=1&steps=2", "given twice"),
        ] {
            let text = parse(query).unwrap_err().text;
            assert!(text.contains(message), "{query}: {text}");
        }
        assert!(Settings::of(of_url("scale=4").unwrap(), UPSCALE, &[]).unwrap().scale == Some(4));
    }
}
