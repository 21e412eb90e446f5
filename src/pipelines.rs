//! Pipelines that own everything they need, can be sent to another thread, and load their network
//! once.
//!
//! [`Eddy`] holds ONNX Runtime and the settings shared by all networks. It makes
//! [`DenoisePipeline`], [`UpscalePipeline`], [`InpaintPipeline`], [`GeneratePipeline`],
//! [`SamplePipeline`] and [`TextToImage`]. They run [`task`](crate::task), [`video`](crate::video),
//! [`diffusion`](crate::diffusion) and [`stages`](crate::stages).

use std::path::Path;
use std::sync::Arc;

use crate::diffusion::Schedule;
use crate::error::{Error, Result};
use crate::media::stream::VideoFormat;
use crate::model::{
    CAMERA_DENOISER, ClassIndices, ModelFolder, Package, Precision, SampledModel,
    WHITE_NOISE_DENOISER,
};
use crate::network::{
    Device, DeviceChoice, Interface, Library, ModelSource, OnnxNetwork, Runtime, SessionOptions,
    THREADS_PER_CORE, max_threads,
};
use crate::stages::{TextToImage, TextToImageOptions};
use crate::task::Budget;

mod denoise;
mod frames;
mod generate;
mod image_denoiser;
mod inpaint;
mod sample;
mod upscale;

pub use denoise::DenoisePipeline;
pub use frames::{FrameDenoiser, FrameStream, StreamFrame};
pub use generate::GeneratePipeline;
pub use image_denoiser::ImageDenoiser;
pub use inpaint::InpaintPipeline;
pub use sample::SamplePipeline;
pub use upscale::UpscalePipeline;

/// ONNX Runtime, and the settings shared by all networks that it loads.
#[derive(Clone, Debug)]
pub struct Eddy {
    runtime: Arc<Runtime>,
    session: SessionOptions,
    precision: Option<Precision>,
    max_memory: Option<u64>,
}

/// The settings of an [`Eddy`].
#[derive(Clone, Debug, Default)]
pub struct EddyBuilder {
    library: Option<Library>,
    choice: Option<DeviceChoice>,
    session: SessionOptions,
    precision: Option<Precision>,
    max_memory: Option<u64>,
}

impl EddyBuilder {
    /// An ONNX Runtime library other than the embedded one, for instance for a GPU.
    #[must_use]
    pub fn library(mut self, library: Library) -> Self {
        self.library = Some(library);
        self
    }

    /// The device that networks run on; by default the CPU.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.session.device = device;
        self
    }

    /// The device that networks run on, in place of [`device`](Self::device), tried before it is
    /// used; by [`DeviceChoice::Auto`] the first that works.
    #[must_use]
    pub fn choose_device(mut self, choice: DeviceChoice) -> Self {
        self.choice = Some(choice);
        self
    }

    /// Threads within an operator, at most [`max_threads`]; by default one per physical core.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.session.threads = threads;
        self
    }

    /// The precision of networks; by default the one that suits the device:
    /// [`Package::default_precision`].
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// The memory limit of the whole process, in bytes; by default a quarter of the machine's
    /// memory, and for the networks of [`Eddy::text_to_image`] what the machine has available.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// Loads ONNX Runtime.
    ///
    /// # Errors
    /// [`Error::Runtime`] when the library cannot be loaded, or another one is already loaded;
    /// [`Error::Device`] when the chosen device does not work; [`Error::Usage`] for too many
    /// threads.
    pub fn build(self) -> Result<Eddy> {
        let (threads, most) = (self.session.threads, max_threads());
        if threads > most {
            return Err(Error::usage(format!(
                "{threads} threads; expected at most {most}, {THREADS_PER_CORE} for each core that \
                 there is here"
            )));
        }
        let runtime = Runtime::load(&self.library.unwrap_or(Library::Embedded))?;
        let mut session = self.session;
        if let Some(choice) = self.choice {
            session.device = runtime.choose(choice, false)?.device;
        }
        Ok(Eddy { runtime, session, precision: self.precision, max_memory: self.max_memory })
    }
}

impl Eddy {
    /// Loads the embedded ONNX Runtime, on the CPU.
    ///
    /// # Errors
    /// As for [`EddyBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A builder to choose library, device, threads, precision and memory.
    pub fn builder() -> EddyBuilder {
        EddyBuilder::default()
    }

    /// ONNX Runtime, for code that loads its own networks.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    fn budget(&self) -> Budget {
        self.max_memory.map_or_else(Budget::default, |max_memory| Budget { max_memory })
    }

    fn load(&self, model: &str) -> Result<(Package, OnnxNetwork)> {
        let package = Package::open(&self.runtime, model, self.session)?;
        let network = package.load(&self.runtime, self.precision_of(&package), self.session)?;
        Ok((package, network))
    }

    /// The requested precision, or the one of the package that suits the device.
    fn precision_of(&self, package: &Package) -> Precision {
        self.precision.unwrap_or_else(|| package.default_precision(self.session.device))
    }

    /// A denoiser: a bundled model (`camera`, `denoise`, `denoise-fast`), the folder of a model
    /// package, or an ONNX file, whose properties are then detected by running it.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no such model, it has another task, or its network cannot be
    /// loaded.
    pub fn denoiser(&self, model: &str) -> Result<DenoisePipeline> {
        let (package, network) = self.load(model)?;
        DenoisePipeline::new(package, network, self.budget())
    }

    /// A denoiser of images: of `model`, or without one of `denoise-fast` for images with white
    /// noise and of `camera` for the noise of cameras and codecs, each of which is loaded for the
    /// first image that needs it.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser).
    pub fn image_denoiser(&self, model: Option<&str>) -> Result<ImageDenoiser> {
        ImageDenoiser::new(self.clone(), model)
    }

    /// A denoiser of frames of this format: of `model`, or without one of `camera`, or of
    /// `denoise-fast` for RGB.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser).
    pub fn frame_denoiser(
        &self,
        model: Option<&str>,
        format: &VideoFormat,
    ) -> Result<DenoisePipeline> {
        let has_luma = format.format.chroma().is_some();
        self.denoiser(model.unwrap_or(if has_luma {
            CAMERA_DENOISER
        } else {
            WHITE_NOISE_DENOISER
        }))
    }

    /// An upscaler: a bundled model (`upscale-x2`, `upscale-x4`) or the folder of a model package.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser).
    pub fn upscaler(&self, model: &str) -> Result<UpscalePipeline> {
        let (package, network) = self.load(model)?;
        UpscalePipeline::new(package, network, self.budget())
    }

    /// Fills masked areas of images: a bundled model (`prior`), the folder of a model package, or
    /// an ONNX file of a network that takes a mask.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser).
    pub fn inpainter(&self, model: &str) -> Result<InpaintPipeline> {
        let (package, network) = self.load(model)?;
        InpaintPipeline::new(package, network, self.budget())
    }

    /// A generator: a bundled model (`prior`, `digits-ddpm`, `digits-ncsn`) or the folder of a
    /// model package.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser).
    pub fn generator(&self, model: &str) -> Result<GeneratePipeline> {
        let (package, network) = self.load(model)?;
        let decoder = package.load_decoder(&self.runtime, self.session)?;
        GeneratePipeline::new(package, network, decoder, self.budget())
    }

    /// Text to image by a pipeline of several networks: a bundled one, or a folder in the layout of
    /// diffusers, as optimum exports it. A precision other than `f32` takes files such as `model_fp16.onnx`.
    /// Networks are loaded by the first image, and stay loaded while the memory limit allows.
    ///
    /// # Errors
    /// [`Error::Model`] when a part is missing, or the pipeline is of a class that Eddy does not
    /// run.
    pub fn text_to_image(&self, folder: impl AsRef<Path>) -> Result<TextToImage> {
        let options = TextToImageOptions {
            session: self.session,
            precision: self.precision.unwrap_or_default(),
            max_memory: self.max_memory,
            ..TextToImageOptions::default()
        };
        TextToImage::open(&self.runtime, &ModelFolder::find(folder), options)
    }

    /// The network of a bundled model, a model package or a diffusers folder, with its training
    /// schedule, for any sampler.
    ///
    /// # Errors
    /// As for [`denoiser`](Self::denoiser), and when a package does not declare the noise that its
    /// network was trained on.
    pub fn network(&self, model: &str) -> Result<SamplePipeline> {
        let model = SampledModel::find(model)?;
        let precision = match &model {
            SampledModel::Package(package) => Some(self.precision_of(package)),
            SampledModel::Diffusers(_) => None,
        };
        let network = model.load(&self.runtime, precision, self.session)?;
        let (schedule, classes) = (model.schedule()?, model.classes());
        Ok(SamplePipeline::new(network, schedule, model.multiple_of(), classes))
    }

    /// The network in an ONNX file, with the input and output names of `interface` and the training
    /// schedule `schedule`.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be loaded, or has no input or output that `interface` names.
    pub fn onnx(
        &self,
        path: impl AsRef<Path>,
        interface: Interface,
        schedule: Schedule,
    ) -> Result<SamplePipeline> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(Error::model(path.display().to_string(), "there is no such file"));
        }
        let (name, source) = (path.display().to_string(), ModelSource::File(path));
        let classes = interface.class.as_ref().map(|_| ClassIndices::new(&name, None, None));
        let network = OnnxNetwork::load(&self.runtime, &name, source, interface, self.session)?;
        Ok(SamplePipeline::new(network, schedule, 1, classes))
    }
}

#[cfg(test)]
mod tests {
    use super::Eddy;
    use crate::diffusion::Sampler;
    use crate::media::stream::{PixelFormat, Rate, ReadOutcome, Source, VideoFormat, VideoFrame};
    use crate::media::{Image, Samples};
    use crate::model::Precision;
    use crate::stages::TextToImageRequest;
    use crate::tensor::Range;
    use crate::{Error, Result};

    #[test]
    fn pipelines_can_be_sent_and_kept() -> Result<()> {
        fn sendable<T: Send + 'static>(_: &T) {}
        let eddy = Eddy::builder().threads(1).build()?;
        let mut denoiser = eddy.denoiser("denoise-fast")?;
        sendable(&denoiser);
        sendable(&eddy.network("digits-ddpm")?);
        let gray = |value| Image::new(24, 16, 3, Samples::U8(vec![value; 24 * 16 * 3]));
        let thread = std::thread::spawn(move || {
            let mut image = gray(90)?;
            denoiser.run(&mut image)?;
            denoiser.run(&mut image).map(|_| image)
        });
        assert_eq!(thread.join().unwrap()?, gray(90)?, "a flat image is clean");
        Ok(())
    }

    #[test]
    fn text_to_image_runs_on_another_thread_and_loads_once() -> Result<()> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pipelines/text/folders/sd15");
        // The parts that other pipelines share with this one are all in its folder.
        let eddy = Eddy::builder().threads(1).build()?;
        let mut pipeline = eddy.text_to_image(folder)?;
        let thread = std::thread::spawn(move || {
            let mut request = TextToImageRequest::new("a lighthouse");
            (request.steps, request.size) = (Some(2), Some([64, 48]));
            let first = pipeline.run(&request, 3)?;
            assert_eq!(pipeline.loads(), 3);
            assert_eq!(pipeline.run(&request, 3)?, first);
            assert_ne!(pipeline.run(&request, 4)?, first);
            request.prompt = "a ship".into();
            assert_ne!(pipeline.run(&request, 3)?, first);
            assert_eq!(pipeline.loads(), 3, "they stay loaded");
            Ok::<_, Error>(first)
        });
        let image = thread.join().unwrap()?;
        assert_eq!([image.width, image.height, image.channels], [64, 48, 3]);
        let whole = Eddy::builder().precision(Precision::F16).build()?.text_to_image(folder);
        assert!(whole.unwrap_err().to_string().contains("none of its networks is there in f16"));
        Ok(())
    }

    #[test]
    fn rejects_images_of_another_size_than_they_say() -> Result<()> {
        assert!(Image::new(4, 4, 3, Samples::U8(vec![0; 47])).is_err());
        assert!(Image::new(0, 4, 3, Samples::U8(Vec::new())).is_err());
        assert!(Image::new(usize::MAX, 2, 1, Samples::U16(vec![0; 2])).is_err());
        let mut image = Image::new(4, 4, 3, Samples::U8(vec![0; 48]))?;
        image.width = 5;
        let error = Eddy::new()?.denoiser("denoise-fast")?.run(&mut image).unwrap_err().to_string();
        assert!(error.contains("5x4") && error.contains("48 samples"), "{error}");
        Ok(())
    }

    #[test]
    fn rejects_models_of_another_task() -> Result<()> {
        let eddy = Eddy::new()?;
        for error in [
            eddy.denoiser("upscale-x2").unwrap_err(),
            eddy.upscaler("camera").unwrap_err(),
            eddy.generator("denoise-fast").unwrap_err(),
        ] {
            assert!(matches!(error, Error::Model { .. } | Error::Usage { .. }), "{error}");
        }
        let empty = ndarray::Array4::zeros([1, 1, 0, 8]);
        assert!(
            eddy.network("digits-ddpm")?
                .steps(2)
                .sample(empty)
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
        Ok(())
    }

    /// A source whose frames have a byte too few, or which panics.
    struct Broken(VideoFormat, bool);

    impl Source for Broken {
        fn video(&self) -> &VideoFormat {
            &self.0
        }

        fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
            assert!(!self.1, "as the test asks");
            frame.bytes = vec![0; self.0.bytes() - 1];
            Ok(ReadOutcome::Frame)
        }
    }

    #[test]
    fn broken_sources_do_not_end_like_complete_ones() -> Result<()> {
        let eddy = Eddy::new()?;
        for (panics, message) in [(false, "has 1535 bytes; expected 1536"), (true, "panicked")] {
            let format = VideoFormat::new(32, 32, Rate::of(25), PixelFormat::I420);
            let mut frames = eddy.denoiser("camera")?.stream(Box::new(Broken(format, panics)))?;
            let error = frames.next().unwrap().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert!(frames.next().is_none());
        }
        Ok(())
    }

    #[test]
    fn samples_by_any_sampler() -> Result<()> {
        let noise = ndarray::Array4::from_shape_fn([1, 1, 8, 8], |(_, _, y, x)| {
            ((3 * x + 5 * y) % 7) as f32 / 2.0 - 1.5
        });
        let eddy = Eddy::new()?;
        for sampler in [Sampler::DDIM, Sampler::DPMPP_2M] {
            let digit =
                eddy.network("digits-ddpm")?.sampler(sampler).steps(10).sample(noise.clone())?;
            assert!(digit.iter().all(|value| value.abs() < 1.6), "{sampler}: {digit}");
        }
        Ok(())
    }
    #[test]
    fn samples_are_unconditional_unless_a_class_is_given() -> Result<()> {
        let noise = crate::diffusion::Philox::new(5).initial([1, 1, 8, 8]);
        let eddy = Eddy::new()?;
        let sampled = |class: Option<usize>| {
            let mut pipeline = eddy.network("digits-ddpm")?.steps(10);
            pipeline.set_class(class);
            pipeline.sample(noise.clone())
        };
        let unconditional = sampled(None)?;
        let classes = (0..10).map(|class| sampled(Some(class))).collect::<Result<Vec<_>>>()?;
        assert!(classes.iter().all(|sample| *sample != unconditional));
        let mut generator = eddy.generator("digits-ddpm")?;
        (generator.options().sampler, generator.options().steps) = (Some(Sampler::DDIM), Some(10));
        let request = crate::task::GenerateRequest { seeds: vec![5], ..Default::default() };
        let expected = crate::task::as_images(&unconditional, Range::new(-1.0, 1.0)?)?;
        assert_eq!(generator.run(None, request)?, expected, "the generator's without a class");
        // A zero is empty in its middle, a one is not.
        let middle = |class: usize| {
            [[3, 3], [3, 4], [4, 3], [4, 4]].map(|[y, x]| classes[class][[0, 0, y, x]]).iter().sum()
        };
        let (zero, one): (f32, f32) = (middle(0), middle(1));
        assert!(zero + 1.0 < one, "{zero} {one}");
        let error = sampled(Some(10)).unwrap_err().to_string();
        assert!(error.contains("0 to 9; there is no class 10"), "{error}");
        let error = eddy.network("digits-ncsn")?.class(0).sample(noise).unwrap_err().to_string();
        assert!(error.contains("not conditioned on a class"), "{error}");
        Ok(())
    }
}
