//! A package's network with its f32 network as a fallback.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Package, Precision};
use crate::error::Result;
use crate::network::{
    self, Device, Inputs, Network, OnnxNetwork, Runtime, SessionOptions, Shape, default_threads,
};

/// Parameters of the largest network of which copies are worth their memory.
const MOST_COPIED: u64 = 16_000_000;

/// A network with a fallback for invalid output: the package's f32 file, loaded on first use. If
/// the network is the f32 file itself, it is evaluated again.
#[derive(Debug)]
pub struct NetworkWithFallback<'a> {
    package: Cow<'a, Package>,
    runtime: Arc<Runtime>,
    precision: Precision,
    options: SessionOptions,
    network: OnnxNetwork,
    exact: Option<OnnxNetwork>,
}

impl Package {
    /// Like [`load`](Self::load), with the package's f32 file as a fallback, if there is one.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_with_fallback(
        &self,
        runtime: &Arc<Runtime>,
        precision: Precision,
        options: SessionOptions,
    ) -> Result<NetworkWithFallback<'_>> {
        NetworkWithFallback::load(Cow::Borrowed(self), runtime, precision, options)
    }
}

impl<'a> NetworkWithFallback<'a> {
    fn load(
        package: Cow<'a, Package>,
        runtime: &Arc<Runtime>,
        precision: Precision,
        options: SessionOptions,
    ) -> Result<Self> {
        let network = package.load(runtime, precision, options)?;
        let runtime = Arc::clone(runtime);
        Ok(Self { package, runtime, precision, options, network, exact: None })
    }

    fn threads(&self) -> usize {
        if self.options.threads == 0 { default_threads() } else { self.options.threads }
    }

    /// Whether evaluations on one thread each are faster than one on several, and copies cost
    /// little memory. A network with a recurrent state evaluates frames in order.
    fn is_copied(&self) -> bool {
        let manifest = &self.package.manifest;
        self.options.device == Device::Cpu
            && manifest.states.is_empty()
            && manifest.parameters.is_some_and(|count| count <= MOST_COPIED)
    }
}

impl Network for NetworkWithFallback<'_> {
    fn gains_from_large_tiles(&self) -> bool {
        self.network.gains_from_large_tiles()
    }

    fn bind(&mut self, shape: Shape) -> Result<()> {
        self.network.bind(shape)
    }

    fn inputs(&mut self) -> Inputs<'_> {
        self.network.inputs()
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        self.network.evaluate(t)
    }

    fn drop_conditions(&mut self, from: usize) -> Result<()> {
        self.network.drop_conditions(from)
    }

    fn reset_state(&mut self) {
        self.network.reset_state();
        self.exact.iter_mut().for_each(Network::reset_state);
    }

    fn trim_memory(&mut self, small: Shape) -> Result<()> {
        self.network.trim_memory(small)
    }

    fn most_copies(&self, most: usize) -> usize {
        if self.is_copied() { self.threads().min(most) } else { 0 }
    }

    fn copies(&self, count: usize) -> Result<Vec<Box<dyn Network + Send>>> {
        let (package, runtime, precision) =
            (self.package.clone().into_owned(), Arc::clone(&self.runtime), self.precision);
        let options = SessionOptions { threads: (self.threads() / count).max(1), ..self.options };
        network::load(&self.package.manifest.name, move || {
            let copy = |_| {
                let package = Cow::Owned(package.clone());
                let copy = NetworkWithFallback::load(package, &runtime, precision, options)?;
                Ok(Box::new(copy) as Box<dyn Network + Send>)
            };
            (0..count).map(copy).collect()
        })
    }

    fn fallback(&mut self) -> Result<Option<&mut dyn Network>> {
        if self.precision == Precision::F32 {
            return Ok(Some(&mut self.network));
        }
        if self.exact.is_none() && self.package.manifest.files.contains_key(&Precision::F32) {
            let (package, runtime, options) =
                (self.package.clone().into_owned(), Arc::clone(&self.runtime), self.options);
            let load = move || package.load(&runtime, Precision::F32, options);
            self.exact = Some(network::load(&self.package.manifest.name, load)?);
        }
        Ok(self.exact.as_mut().map(|exact| exact as &mut dyn Network))
    }
}
