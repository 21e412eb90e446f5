//! The format of a result, by the `Accept` header (RFC 9110, section 12.5.1).

use hyper::StatusCode;

use super::problem::Problem;
use crate::media::Format;

/// The format that a client prefers: the one of highest quality, among equals `own`, the one of its
/// image, and then the first that it lists.
pub(super) fn format(accept: Option<&str>, own: Format) -> Result<Format, Problem> {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Ok(own) };
    let mut best: Option<(f32, Format)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        let found = match kind.as_str() {
            "*/*" | "image/*" => Some(own),
            "image/jpg" => Some(Format::Jpeg),
            kind => Format::ALL.into_iter().find(|format| format.media_type() == kind),
        };
        let Some(format) = found.filter(|_| weight > 0.0) else { continue };
        let is_better = match best {
            None => true,
            Some((known, chosen)) => {
                weight > known || (weight == known && format == own && chosen != own)
            }
        };
        if is_better {
            best = Some((weight, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        let types = Format::ALL.map(Format::media_type).join(", ");
        let text = format!("no format of Accept: {accept} can be written; there are {types}");
        Problem::new(StatusCode::NOT_ACCEPTABLE, text)
    })
}

#[cfg(test)]
mod tests {
    use super::format;
    use crate::media::Format::{Jpeg, Png, WebP};

    #[test]
    fn prefers_what_the_client_does() {
        for (accept, chosen) in [
            (None, Some(Png)),
            (Some("*/*"), Some(Png)),
            (Some("image/jpeg"), Some(Jpeg)),
            (Some("image/webp;q=0.5, image/jpeg;q=0.8"), Some(Jpeg)),
            (Some("image/jpeg, image/png"), Some(Png)),
            (Some("image/avif,image/webp,*/*;q=0.8"), Some(WebP)),
            (Some("text/html"), None),
            (Some("image/png;q=0"), None),
        ] {
            assert_eq!(format(accept, Png).ok(), chosen, "{accept:?}");
        }
    }
}
