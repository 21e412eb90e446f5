//! The functions and types of `include/eddy.h`. Pointers of C become references here, and only
//! here; all else is safe code.
//!
//! # Safety
//! Pointers are valid or, where the text says so, null. Handles come from their own function and are
//! not used after they were freed. The rows of images are allocated.

#![allow(unsafe_code, clippy::missing_safety_doc)]

use std::ffi::{CStr, c_char, c_void};
use std::ops::ControlFlow;
use std::path::Path;
use std::{ptr, slice};

use eddy::diffusion::Progress;
use eddy::media::still::{self, Format, Limits, Options};
use eddy::media::stream::{PixelFormat, Rate, VideoFormat};
use eddy::media::{Image, Samples};
use eddy::pipelines::{FrameDenoiser, ImageDenoiser, UpscalePipeline};
use eddy::task::{SigmaChoice, Strength};
use eddy::{Eddy, Error, Result};

use crate::handles::{Settings, Shared};
use crate::image::Layout;
use crate::status::{last_error, status_of};

/// The result of a function.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EddyStatus {
    /// It did what it says.
    Ok = 0,
    /// An evaluation of the network failed, or a file could not be written.
    Failed = 1,
    /// An argument is out of range, or arguments contradict each other.
    Usage = 2,
    /// A file could not be read.
    Input = 3,
    /// A model is missing or malformed.
    Model = 4,
    /// ONNX Runtime could not be used.
    Runtime = 5,
    /// The requested device does not work.
    Device = 6,
    /// The progress function stopped the run.
    Interrupted = 130,
    /// A bug in Eddy. The handles stay usable.
    Panicked = 255,
}

/// ONNX Runtime and the settings of all networks.
#[derive(Debug)]
pub struct EddyContext(Eddy);

/// Denoises images.
#[derive(Debug)]
pub struct EddyDenoiser(Shared<ImageDenoiser>);

/// Enlarges images.
#[derive(Debug)]
pub struct EddyUpscaler(Shared<UpscalePipeline>, usize);

/// Denoises the frames of one video, using previous frames.
#[derive(Debug)]
pub struct EddyStream(Shared<FrameDenoiser>, usize);

/// An image in memory: interleaved samples, row by row from the top.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddyImage {
    /// The samples: full range, 16 bits in the byte order of the machine.
    pub data: *mut c_void,
    /// Width in pixels, 1 to 65535.
    pub width: usize,
    /// Height in pixels, 1 to 65535.
    pub height: usize,
    /// 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha). Alpha is straight.
    pub channels: usize,
    /// Bytes from a row to the next; 0 for rows without padding.
    pub stride: usize,
    /// Bits per sample: 8 or 16.
    pub bits: u32,
}

/// The settings of a context; made by eddy_settings().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddySettings {
    /// sizeof(EddySettings), which eddy_settings() sets.
    pub size: usize,
    /// "cpu", "cuda:0", "auto" ...; NULL for the CPU.
    pub device: *const c_char,
    /// Threads within an operator; 0 for one per physical core.
    pub threads: usize,
    /// The memory limit of the whole process in bytes; 0 for a quarter of the machine's memory.
    pub max_memory: u64,
    /// "f32", "f16" or "int8"; NULL for the one that suits the device.
    pub precision: *const c_char,
    /// Another ONNX Runtime library than the embedded one; NULL for that.
    pub runtime: *const c_char,
}

/// Is called after every evaluation with the number of evaluations done and their total. False stops
/// the run.
pub type EddyProgress = Option<unsafe extern "C" fn(user: *mut c_void, usize, usize) -> bool>;

/// How an image is denoised; made by eddy_denoise_options().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddyDenoiseOptions {
    /// sizeof(EddyDenoiseOptions), which eddy_denoise_options() sets.
    pub size: usize,
    /// The standard deviation of the noise in 8-bit units; below 0 (the default) it is estimated.
    pub sigma: f64,
    /// With both of these from 0 on, sigma of luma and of chroma at half the size, in place of
    /// `sigma`, for the model `camera`.
    pub luma_sigma: f64,
    /// See `luma_sigma`.
    pub chroma_sigma: f64,
    /// Sampler steps; 0 for the model's default.
    pub steps: usize,
    /// Part of each step's noise that is fresh, 0 to 1; default 0.
    pub eta: f64,
    /// How much of the noise is removed, 0 to 1; default 1.
    pub strength: f64,
    /// The random seed of fresh noise; default 0.
    pub seed: u64,
    /// Is called after every evaluation; NULL for none.
    pub progress: EddyProgress,
    /// The first argument of `progress`.
    pub user: *mut c_void,
}

/// What is known of a denoised image.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddyDenoiseReport {
    /// Standard deviation of the removed noise in 8-bit units; of luma for the model `camera`.
    pub sigma: f64,
    /// Sampler steps.
    pub steps: usize,
    /// Number of tiles.
    pub tiles: usize,
}

/// How an image is enlarged; made by eddy_upscale_options().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddyUpscaleOptions {
    /// sizeof(EddyUpscaleOptions), which eddy_upscale_options() sets.
    pub size: usize,
    /// Network evaluations; 0 for the model's default. One has the highest PSNR, several have
    /// texture.
    pub steps: usize,
    /// Part of each step's noise that is fresh, 0 to 1; default 0.
    pub eta: f64,
    /// The random seed; default 0.
    pub seed: u64,
    /// Is called after every evaluation; NULL for none.
    pub progress: EddyProgress,
    /// The first argument of `progress`.
    pub user: *mut c_void,
}

/// Frames of a video: progressive, without padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EddyVideoFormat {
    /// Width in pixels, 1 to 65535.
    pub width: usize,
    /// Height in pixels, 1 to 65535.
    pub height: usize,
    /// The layout of a frame: "yuv420p", "nv12", "yuyv422", "rgb24", "gray" ...
    pub pixel_format: *const c_char,
    /// Frames per second as a fraction; 25/1, 30000/1001 ...
    pub fps_numerator: u32,
    /// See `fps_numerator`.
    pub fps_denominator: u32,
}

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn eddy_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// The text of the last error of this thread: what was found, what was expected and what to do. NULL
/// if there was none. Valid until the next call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn eddy_last_error() -> *const c_char {
    last_error()
}

/// The default settings.
#[unsafe(no_mangle)]
pub extern "C" fn eddy_settings() -> EddySettings {
    EddySettings {
        size: size_of::<EddySettings>(),
        device: ptr::null(),
        threads: 0,
        max_memory: 0,
        precision: ptr::null(),
        runtime: ptr::null(),
    }
}

/// The default options for denoising.
#[unsafe(no_mangle)]
pub extern "C" fn eddy_denoise_options() -> EddyDenoiseOptions {
    EddyDenoiseOptions {
        size: size_of::<EddyDenoiseOptions>(),
        sigma: -1.0,
        luma_sigma: -1.0,
        chroma_sigma: -1.0,
        steps: 0,
        eta: 0.0,
        strength: 1.0,
        seed: 0,
        progress: None,
        user: ptr::null_mut(),
    }
}

/// The default options for enlarging.
#[unsafe(no_mangle)]
pub extern "C" fn eddy_upscale_options() -> EddyUpscaleOptions {
    EddyUpscaleOptions {
        size: size_of::<EddyUpscaleOptions>(),
        steps: 0,
        eta: 0.0,
        seed: 0,
        progress: None,
        user: ptr::null_mut(),
    }
}

/// Loads ONNX Runtime. `settings` may be NULL. A process uses one ONNX Runtime: all contexts name
/// the same `runtime`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_open(
    settings: *const EddySettings,
    context: *mut *mut EddyContext,
) -> EddyStatus {
    status_of(|| {
        let settings = unsafe { options(settings, eddy_settings(), |it| it.size)? };
        let (device, precision, runtime) =
            unsafe { (text(settings.device)?, text(settings.precision)?, text(settings.runtime)?) };
        let EddySettings { threads, max_memory, .. } = settings;
        unsafe {
            give(context, || {
                let settings = Settings { device, threads, max_memory, precision, runtime };
                settings.open().map(EddyContext)
            })
        }
    })
}

/// Closes a context. What was made from it stays usable. NULL is ignored.
/// The context comes from eddy_open() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_close(context: *mut EddyContext) {
    unsafe { free(context) }
}

/// A denoiser: a bundled model ("denoise", "denoise-fast", "camera"), the folder of a model package,
/// or an ONNX file. NULL chooses "denoise-fast" or "camera" by the noise of each image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_denoiser_new(
    context: *const EddyContext,
    model: *const c_char,
    denoiser: *mut *mut EddyDenoiser,
) -> EddyStatus {
    status_of(|| {
        let (context, model) = unsafe { (borrow(context, "context")?, text(model)?) };
        let open = || context.0.image_denoiser(model);
        unsafe { give(denoiser, || Ok(EddyDenoiser(Shared::new(open()?)))) }
    })
}

/// Denoises an image in place; after an error it is unchanged. `options` and `report` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_denoiser_run(
    denoiser: *const EddyDenoiser,
    image: *mut EddyImage,
    options: *const EddyDenoiseOptions,
    report: *mut EddyDenoiseReport,
) -> EddyStatus {
    status_of(|| {
        let (denoiser, image) =
            unsafe { (borrow(denoiser, "denoiser")?, *borrow(image, "image")?) };
        let given = unsafe { self::options(options, eddy_denoise_options(), |it| it.size)? };
        let (layout, rows) = unsafe { rows(&image)? };
        let mut pixels = layout.read(rows)?;
        let sigma = if given.luma_sigma >= 0.0 && given.chroma_sigma >= 0.0 {
            SigmaChoice::Planes([given.luma_sigma, given.chroma_sigma])
        } else if given.sigma < 0.0 {
            SigmaChoice::Auto
        } else {
            SigmaChoice::Known(given.sigma)
        };
        let mut model = denoiser.0.lock();
        let pipeline = model.pipeline(&pixels, &sigma)?;
        let options = pipeline.options();
        (options.sigma, options.eta, options.seed) = (sigma, given.eta, given.seed);
        options.steps = (given.steps > 0).then_some(given.steps);
        options.strength = Strength::new(given.strength)?;
        let observe = |at: Progress| unsafe { progress(given.progress, given.user, at) };
        let known = pipeline.run_observed(&mut pixels, observe)?;
        layout.write(&pixels, rows);
        if let Some(report) = unsafe { report.as_mut() } {
            let (sigma, steps, tiles) = (known.sigma, known.steps, known.tiles);
            *report = EddyDenoiseReport { sigma, steps, tiles };
        }
        Ok(())
    })
}

/// Frees a denoiser. NULL is ignored.
/// It comes from eddy_denoiser_new() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_denoiser_free(denoiser: *mut EddyDenoiser) {
    unsafe { free(denoiser) }
}

/// An upscaler: a bundled model ("upscale-x2", "upscale-x4") or the folder of a model package.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_upscaler_new(
    context: *const EddyContext,
    model: *const c_char,
    upscaler: *mut *mut EddyUpscaler,
) -> EddyStatus {
    status_of(|| {
        let (context, model) = unsafe { (borrow(context, "context")?, text(model)?) };
        let model = model.ok_or_else(|| missing("model"))?;
        unsafe {
            give(upscaler, || {
                let pipeline = context.0.upscaler(model)?;
                let scale = pipeline.scale();
                Ok(EddyUpscaler(Shared::new(pipeline), scale))
            })
        }
    })
}

/// The factor along each axis; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_upscaler_scale(upscaler: *const EddyUpscaler) -> usize {
    unsafe { upscaler.as_ref() }.map_or(0, |upscaler| upscaler.1)
}

/// Enlarges `input` into `output`, whose rows are allocated: width and height times the scale, with
/// the same channels and bits. `options` may be NULL.
/// The rows of the two do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_upscaler_run(
    upscaler: *const EddyUpscaler,
    input: *const EddyImage,
    output: *mut EddyImage,
    options: *const EddyUpscaleOptions,
) -> EddyStatus {
    status_of(|| {
        let upscaler = unsafe { borrow(upscaler, "upscaler")? };
        let (input, output) =
            unsafe { (*borrow(input, "input")?, *borrow(output.cast_const(), "output")?) };
        let given = unsafe { self::options(options, eddy_upscale_options(), |it| it.size)? };
        let image = {
            let (layout, rows) = unsafe { rows(&input)? };
            layout.read(rows)?
        };
        let mut pipeline = upscaler.0.lock();
        let options = pipeline.options();
        (options.eta, options.seed) = (given.eta, given.seed);
        options.steps = (given.steps > 0).then_some(given.steps);
        let (layout, target) = unsafe { rows(&output)? };
        layout.expect_enlarged(&image, upscaler.1)?;
        let observe = |at: Progress| unsafe { progress(given.progress, given.user, at) };
        let (large, _) = pipeline.run_observed(&image, observe)?;
        layout.write(&large, target);
        Ok(())
    })
}

/// Frees an upscaler. NULL is ignored.
/// It comes from eddy_upscaler_new() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_upscaler_free(upscaler: *mut EddyUpscaler) {
    unsafe { free(upscaler) }
}

/// A stream for frames of `format`. A `model` of NULL is "camera", or "denoise-fast" for RGB.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_stream_new(
    context: *const EddyContext,
    model: *const c_char,
    format: *const EddyVideoFormat,
    stream: *mut *mut EddyStream,
) -> EddyStatus {
    status_of(|| {
        let (context, model) = unsafe { (borrow(context, "context")?, text(model)?) };
        let format = unsafe { video_format(borrow(format, "format")?)? };
        unsafe {
            give(stream, || {
                let bytes = format.bytes();
                let denoiser = context.0.frame_denoiser(model, &format)?.frame_by_frame(format)?;
                Ok(EddyStream(Shared::new(denoiser), bytes))
            })
        }
    })
}

/// The bytes of a frame; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_stream_frame_bytes(stream: *const EddyStream) -> usize {
    unsafe { stream.as_ref() }.map_or(0, |stream| stream.1)
}

/// Denoises the next frame of `bytes` bytes from `input` into `output`, which may be the same. After
/// an error of the network, make another stream.
/// Both pointers are valid for `bytes` bytes, and equal or not overlapping.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_stream_run(
    stream: *const EddyStream,
    input: *const u8,
    output: *mut u8,
    bytes: usize,
) -> EddyStatus {
    status_of(|| {
        let stream = unsafe { borrow(stream, "stream")? };
        let (first, _) =
            unsafe { (borrow(input, "input")?, borrow(output.cast_const(), "output")?) };
        if bytes != stream.1 {
            return Err(Error::usage(format!(
                "a frame of {bytes} bytes; this stream's frames have {}",
                stream.1
            )));
        }
        let frame = unsafe { slice::from_raw_parts(first, bytes) }.to_vec();
        let denoised = stream.0.lock().run(frame)?;
        let output = unsafe { slice::from_raw_parts_mut(output, bytes) };
        output.copy_from_slice(&denoised.bytes);
        Ok(())
    })
}

/// Frees a stream. NULL is ignored.
/// It comes from eddy_stream_new() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_stream_free(stream: *mut EddyStream) {
    unsafe { free(stream) }
}

/// Reads a PNG, JPEG, TIFF, WebP, BMP or QOI file; free it by eddy_image_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_image_read(path: *const c_char, image: *mut EddyImage) -> EddyStatus {
    status_of(|| {
        let path = unsafe { text(path)? }.ok_or_else(|| missing("path"))?;
        if image.is_null() {
            return Err(missing("image"));
        }
        let read = still::read(Path::new(path), &Limits::default())?;
        unsafe { image.write(allocated(&read)) };
        Ok(())
    })
}

/// Writes an image into a file, by the extension of its name. It appears under its name when it is
/// complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_image_write(
    path: *const c_char,
    image: *const EddyImage,
) -> EddyStatus {
    status_of(|| {
        let path = unsafe { text(path)? }.ok_or_else(|| missing("path"))?;
        let image = unsafe { borrow(image, "image")? };
        let (layout, rows) = unsafe { rows(image)? };
        let format = Format::from_path(Path::new(path)).ok_or_else(|| {
            Error::usage(format!("{path} has no extension of an image file, such as .png"))
        })?;
        still::write(&layout.read(rows)?, Path::new(path), format, &Options::default())?;
        Ok(())
    })
}

/// Frees the rows of an image that eddy_image_read() made, and of no other. NULL is ignored.
/// The pointer is valid or null, and the fields are as eddy_image_read() set them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eddy_image_free(image: *mut EddyImage) {
    let Some(image) = (unsafe { image.as_mut() }) else { return };
    if !image.data.is_null() {
        let rows = ptr::slice_from_raw_parts_mut(image.data.cast::<u8>(), layout(image).bytes());
        drop(unsafe { Box::from_raw(rows) });
        image.data = ptr::null_mut();
    }
}

fn missing(name: &str) -> Error {
    Error::usage(format!("{name} is NULL"))
}

/// What a pointer that must not be null points to.
unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    unsafe { pointer.as_ref() }.ok_or_else(|| missing(name))
}

/// The text of C, `None` for null.
unsafe fn text<'a>(pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    text.map(Some).map_err(|_| Error::usage("a text is not UTF-8"))
}

/// What `make` gives, as a handle. The handle is null after an error.
unsafe fn give<T>(handle: *mut *mut T, make: impl FnOnce() -> Result<T>) -> Result<()> {
    if handle.is_null() {
        return Err(missing("the pointer for the new handle"));
    }
    unsafe { handle.write(ptr::null_mut()) };
    let made = make()?;
    unsafe { handle.write(Box::into_raw(Box::new(made))) };
    Ok(())
}

unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Options of this or of an earlier version, which had fewer fields: `defaults` has the others.
unsafe fn options<T: Copy>(given: *const T, mut defaults: T, size: fn(&T) -> usize) -> Result<T> {
    if given.is_null() {
        return Ok(defaults);
    }
    // The size is the first field of all of them.
    let (given_size, own) = (unsafe { given.cast::<usize>().read() }, size(&defaults));
    if !(size_of::<usize>()..=own).contains(&given_size) {
        return Err(Error::usage(format!(
            "options of {given_size} bytes; this library knows up to {own}: make them by their \
             function, such as eddy_denoise_options(), and use the header of this library"
        )));
    }
    let target = ptr::from_mut(&mut defaults).cast::<u8>();
    unsafe { ptr::copy_nonoverlapping(given.cast::<u8>(), target, given_size) };
    Ok(defaults)
}

fn layout(image: &EddyImage) -> Layout {
    let EddyImage { width, height, channels, stride, bits, .. } = *image;
    Layout { size: [width, height], channels, bits, stride }
}

/// The rows of an image.
unsafe fn rows<'a>(image: &EddyImage) -> Result<(Layout, &'a mut [u8])> {
    let layout = layout(image).check()?;
    if image.data.is_null() {
        return Err(missing("the image's data"));
    }
    let rows = unsafe { slice::from_raw_parts_mut(image.data.cast::<u8>(), layout.bytes()) };
    Ok((layout, rows))
}

/// The same image in memory that [`eddy_image_free`] frees.
fn allocated(image: &Image) -> EddyImage {
    let Image { width, height, channels, ref samples, .. } = *image;
    let bits = samples.bits();
    let bytes: Box<[u8]> = match samples {
        Samples::U8(samples) => samples.clone().into_boxed_slice(),
        Samples::U16(samples) => samples.iter().flat_map(|it| it.to_ne_bytes()).collect(),
    };
    let data = Box::into_raw(bytes).cast::<c_void>();
    EddyImage { data, width, height, channels, stride: 0, bits }
}

unsafe fn video_format(format: &EddyVideoFormat) -> Result<VideoFormat> {
    let EddyVideoFormat { width, height, fps_numerator, fps_denominator, .. } = *format;
    let name = unsafe { text(format.pixel_format)? }.ok_or_else(|| missing("pixel_format"))?;
    let pixels: PixelFormat =
        name.parse().map_err(|problem| Error::usage(format!("pixel_format {name}: {problem}")))?;
    // One channel of 8 bits stands for sides that a frame can have.
    Layout { size: [width, height], channels: 1, bits: 8, stride: 0 }.check()?;
    if fps_numerator == 0 || fps_denominator == 0 {
        return Err(Error::usage(format!(
            "{fps_numerator}/{fps_denominator} frames per second; expected two numbers of at \
             least 1"
        )));
    }
    let rate = Rate { frames: fps_numerator, seconds: fps_denominator };
    Ok(VideoFormat::new(width, height, rate, pixels))
}

unsafe fn progress(callback: EddyProgress, user: *mut c_void, at: Progress) -> ControlFlow<()> {
    match callback {
        Some(callback) if !unsafe { callback(user, at.done, at.total) } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    }
}
