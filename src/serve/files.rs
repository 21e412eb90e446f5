//! Image files: `/v1/denoise` and `/v1/upscale`.

use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::engine::Engine;
use super::negotiate;
use super::problem::Problem;
use super::queue::Ticket;
use super::work::{Decoded, FileWork, Outcome, Output, Step, Work, headers};
use super::worker::Context;
use crate::error::Error;
use crate::media::Format;
use crate::media::still;
use crate::task::{Assessment, NoiseKind};

/// The format of an image file, which its first bytes tell.
pub(super) fn format_of(bytes: &[u8]) -> Outcome<Format> {
    Format::from_content(bytes).ok_or_else(|| {
        let known = Format::listed(|format| format.to_string(), "and");
        let what = if bytes.is_empty() { "is empty" } else { "is not an image by its content" };
        let text = format!(
            "the body {what}; {known} are read, sent as they are: --data-binary \
                            @photo.jpg, not as a form"
        );
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    })
}

impl FileWork {
    /// Denoises or enlarges the image, or leaves it to the model for its kind of noise.
    pub(super) fn run(
        mut self: Box<Self>,
        engine: &mut Engine<'_>,
        ticket: &Ticket,
        context: &Context<'_>,
    ) -> Outcome<Step> {
        let failed = |error: Error| context.problem(&error);
        // An image is not decoded for settings that the model does not take.
        engine.check(&self.settings).map_err(failed)?;
        let Decoded { image, format, assessment, assessed_in } = match self.decoded.take() {
            Some(decoded) => decoded,
            None => self.decode(engine, context)?,
        };
        let is_of_camera = assessment.is_some_and(|noise| noise.kind == NoiseKind::Camera);
        if let Some(other) = self.for_camera_noise.take_if(|_| is_of_camera) {
            self.decoded = Some(Decoded { image, format, assessment, assessed_in });
            return Ok(Step::Forward(other, Work::File(self)));
        }
        let written = match self.settings.format {
            Some(format) => format,
            None => negotiate::format(self.accept.as_deref(), format)?,
        };
        let outline = engine.outline(&image, &self.settings).map_err(failed)?;
        let result = outline.as_ref().unwrap_or(&image);
        still::check_format(result, written).map_err(failed)?;
        let pixels = result.width * result.height;
        drop(outline);
        let turn = context.turn(pixels, ticket)?;
        let begun = Instant::now();
        let result = engine.run(image, assessment.as_ref(), &self.settings, ticket);
        if turn.is_some() {
            engine.trim_memory();
        }
        let (image, report) = result.map_err(failed)?;
        // As in the record of the commands: all but reading and writing.
        let seconds = (assessed_in + begun.elapsed()).as_secs_f64();
        let (body, warnings) =
            still::encode_bytes(&image, written, &self.settings.options).map_err(failed)?;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let mut record = json!({
            "width": image.width, "height": image.height, "model": context.model,
            "precision": context.precision, "device": context.device, "seconds": seconds,
            "warnings": warnings.join("; "),
        });
        if let (Value::Object(record), Value::Object(report)) = (&mut record, report) {
            record.extend(report);
        }
        let kind = HeaderValue::from_static(written.media_type());
        Ok(Step::Done(Output { kind, headers: headers(&record), body }))
    }

    fn decode(&mut self, engine: &Engine<'_>, context: &Context<'_>) -> Outcome<Decoded> {
        let format = format_of(&self.bytes)?;
        let bytes = std::mem::take(&mut self.bytes);
        let failed = |error: Error| context.problem(&error);
        let turn = context.shared.turns.decode();
        let image = still::decode(Path::new("the body"), Cursor::new(bytes), context.limits)
            .map_err(failed)?;
        drop(turn);
        let begun = Instant::now();
        let assesses = self.for_camera_noise.is_some() || engine.assesses(&self.settings);
        let assessment = assesses.then(|| Assessment::of(&image)).transpose();
        let assessment = assessment.map_err(failed)?;
        let assessment = match format {
            Format::Jpeg => assessment.map(Assessment::through_codec),
            _ => assessment,
        };
        Ok(Decoded { image, format, assessment, assessed_in: begun.elapsed() })
    }
}
