//! `--save-steps` of pipelines: an image of what each step predicts.

use std::path::{Path, PathBuf};

use eddy::media::{Format, Image, still};
use eddy::stages::{PredictedStep, Preview, StateSpec, StepObserver, TextToImage};
use ndarray::Array4;

/// Writes the predicted clean image of each step as `step-01.png`.
pub(crate) struct PreviewWriter {
    folder: PathBuf,
    preview: Preview,
    /// Whether stages have names of their own, as there are several with images.
    names_stages: bool,
    /// The files of the image in hand, with their notes, whose images come with the decoded one.
    waiting: Vec<Waiting>,
}

/// Files whose images are not known yet, with their notes.
pub(crate) type Waiting = (PathBuf, String);

impl PreviewWriter {
    pub(crate) fn new(
        pipeline: &mut TextToImage,
        folder: &Path,
        decoder: Option<&Path>,
    ) -> eddy::Result<Self> {
        let is_image = |state: &StateSpec| !matches!(state, StateSpec::Vector(_));
        let stages = pipeline.spec().stages.iter().filter(|stage| is_image(&stage.state)).count();
        let preview = pipeline.preview(decoder)?;
        let (folder, waiting) = (folder.to_owned(), Vec::new());
        Ok(Self { folder, preview, names_stages: stages > 1, waiting })
    }

    /// The writer of the next image's steps, which go into the folder `name` if there is one.
    pub(crate) fn of_image<'a>(&'a mut self, name: Option<&str>) -> eddy::Result<ImageSteps<'a>> {
        let folder = name.map_or_else(|| self.folder.clone(), |name| self.folder.join(name));
        eddy::durable::create_folder(&folder).map_err(|cause| {
            eddy::Error::output_from(&folder, "the folder for the steps cannot be created", cause)
        })?;
        self.waiting.clear();
        Ok(ImageSteps { writer: self, folder })
    }

    /// The files of the image that was sampled last which wait for their images.
    pub(crate) fn waiting(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting)
    }

    /// Writes the files of an image that waited, in the order of the images.
    pub(crate) fn decoded(
        &mut self,
        waiting: Vec<Waiting>,
        latent: &Array4<f32>,
        decoded: &Array4<f32>,
    ) -> eddy::Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        let images = self.preview.fitted(latent, decoded, waiting.len())?;
        images.into_iter().zip(waiting).try_for_each(|(image, file)| write(image, file))
    }
}

fn write(mut image: Image, (path, note): Waiting) -> eddy::Result<()> {
    image.metadata.note = Some(note);
    still::write(&image, &path, Format::Png, &still::Options::default()).map(drop)
}

/// The steps of one image.
pub(crate) struct ImageSteps<'a> {
    writer: &'a mut PreviewWriter,
    folder: PathBuf,
}

impl StepObserver for ImageSteps<'_> {
    fn observe(&mut self, step: &PredictedStep<'_>) -> eddy::Result<()> {
        let (number, digits) = (step.index + 1, step.count.to_string().len());
        let stage = match self.writer.names_stages {
            true => format!("stage-{}-", step.stage + 1),
            false => String::new(),
        };
        let path = self.folder.join(format!("{stage}step-{number:0digits$}.png"));
        let sigma = step.level.sigma();
        let file = (path, format!("step {number} of {}, sigma {sigma:.4}", step.count));
        match self.writer.preview.image(step)? {
            Some(image) => write(image, file),
            None => {
                self.writer.waiting.push(file);
                Ok(())
            }
        }
    }
}
