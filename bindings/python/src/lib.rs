//! The native part of the Python package `eddy`. What users see is described in `__init__.pyi`.
//!
//! Arrays are copied once on the way in, because Python could change them while the lock of the
//! interpreter is released, and not at all on the way out.

mod array;
mod denoise;
mod errors;
mod folder;
mod generate;
mod inpaint;
mod network;
mod run;
mod session;
mod stream;
mod text_to_image;
mod upscale;

use pyo3::prelude::*;

#[pymodule]
fn _eddy(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("onnxruntime_version", eddy::network::EMBEDDED_VERSION)?;
    module.add("models", eddy::model::bundled_names())?;
    module.add_class::<denoise::Denoiser>()?;
    module.add_class::<upscale::Upscaler>()?;
    module.add_class::<inpaint::Inpainter>()?;
    module.add_class::<generate::Generator>()?;
    module.add_class::<network::Network>()?;
    module.add_class::<text_to_image::TextToImage>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::Frames>()?;
    module.add_function(wrap_pyfunction!(folder::result_name, module)?)?;
    module.add_function(wrap_pyfunction!(folder::delete_leftovers, module)?)?;
    module.add_function(wrap_pyfunction!(array::encode_png, module)?)
}
