//! A package's network with its f32 network as a fallback.

use std::sync::Arc;

use super::{Package, Precision};
use crate::error::Result;
use crate::network::{self, Inputs, Network, OnnxNetwork, Runtime, SessionOptions, Shape};

/// A network with a fallback for invalid output: the package's f32 file, loaded on first use. If
/// the network is the f32 file itself, it is evaluated again.
#[derive(Debug)]
pub struct NetworkWithFallback<'a> {
    package: &'a Package,
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
        let network = self.load(runtime, precision, options)?;
        Ok(NetworkWithFallback {
            package: self,
            runtime: Arc::clone(runtime),
            precision,
            options,
            network,
            exact: None,
        })
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

    fn fallback(&mut self) -> Result<Option<&mut dyn Network>> {
        if self.precision == Precision::F32 {
            return Ok(Some(&mut self.network));
        }
        if self.exact.is_none() && self.package.manifest.files.contains_key(&Precision::F32) {
            let (package, runtime, options) =
                (self.package.clone(), Arc::clone(&self.runtime), self.options);
            let load = move || package.load(&runtime, Precision::F32, options);
            self.exact = Some(network::load(&self.package.manifest.name, load)?);
        }
        Ok(self.exact.as_mut().map(|exact| exact as &mut dyn Network))
    }
}
