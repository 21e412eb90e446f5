//! `eddy sample`.
use clap::Args;
/// x
#[derive(Debug, Args)]
pub(crate) struct Arguments {}
impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
