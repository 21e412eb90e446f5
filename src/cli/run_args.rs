//! The options of commands that run the network of a model.

use clap::Args;
use eddy::model::{NetworkWithFallback, Package, Precision};
use eddy::network::Device;

use super::console::Console;
use super::options::{DeviceOptions, MemoryOptions, Opened, PrecisionOption};

/// How a network runs.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) precision: PrecisionOption,

    #[command(flatten)]
    pub(crate) memory: MemoryOptions,

    #[command(flatten)]
    pub(crate) device: DeviceOptions,

    #[command(flatten)]
    pub(crate) console: Console,
}

/// An open library with the network of a package.
pub(crate) struct LoadedNetwork<'p> {
    pub(crate) opened: Opened,
    pub(crate) network: NetworkWithFallback<'p>,
    pub(crate) record: NetworkRecord,
}

/// The network in the record of a run.
#[derive(Clone, Debug)]
pub(crate) struct NetworkRecord {
    pub(crate) model: String,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

impl RunArgs {
    /// Opens the library and limits the memory of this process.
    pub(crate) fn open(&self) -> eddy::Result<Opened> {
        self.device.open_within(&self.memory, self.console)
    }

    /// The record of the network of a package.
    pub(crate) fn record(&self, package: &Package, device: Device) -> NetworkRecord {
        let model = package.manifest.name.clone();
        NetworkRecord { model, precision: self.precision.on(device, package), device }
    }

    /// Opens the library and loads the network of a package.
    pub(crate) fn load<'p>(&self, package: &'p Package) -> eddy::Result<LoadedNetwork<'p>> {
        let opened = self.open()?;
        let record = self.record(package, opened.device());
        let network = opened.network_with_fallback(package, record.precision)?;
        Ok(LoadedNetwork { opened, network, record })
    }
}
