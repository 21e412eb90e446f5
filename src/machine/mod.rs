//! This machine's memory, CPU, sensors and NVIDIA software, read from the kernel and the file system.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod cores;
mod fatbin;
mod health;
pub mod nvidia;
pub(crate) mod process;
#[cfg(feature = "cli")]
mod sandbox;
mod sensors;

pub use cores::fast_cores;
pub use fatbin::{ComputeCapability, CudaCode};
pub use health::{Health, HealthProblem};
pub(crate) use process::try_to_allocate;
pub use process::{
    ExitOutOfMemory, exit_at_once, forbid_telemetry, ignore_file_size_signal,
    install_signal_handler, is_stdout_closed, report_integer_division, report_missing_stacks,
};
#[cfg(feature = "cli")]
pub use sandbox::Sandbox;
pub use sensors::{PowerMeter, Temperature, governors, load, max_frequency, temperature};

/// Whether this process has entered a sandbox, and so cannot start programs.
static IS_CONFINED: AtomicBool = AtomicBool::new(false);

/// The memory that this process may use, in bytes: the machine's, or its control group's lower
/// limit.
pub fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    limit.map_or(machine, |limit: u64| limit.min(machine))
}

/// The memory in bytes that this process could take beside what it has, without swapping: the
/// machine's, or what is left of its control group's lower limit.
pub fn available_memory() -> u64 {
    let kibibytes = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let machine = kibibytes.map_or_else(total_memory, |kibibytes| kibibytes * 1024);
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse().ok()
    };
    let group = number("max").zip(number("current"));
    group.map_or(machine, |(limit, used)| limit.saturating_sub(used).min(machine))
}

/// The resident memory of this process in bytes; 0 if the kernel does not report it.
pub fn resident_memory() -> u64 {
    status_field("VmRSS:")
}

/// The peak resident memory of this process in bytes; 0 if the kernel does not report it.
pub fn peak_resident_memory() -> u64 {
    status_field("VmHWM:")
}

/// The limits on allocations before [`limit_allocations`], which are those of programs that it
/// starts.
static UNLIMITED: OnceLock<Rlimit> = OnceLock::new();

/// Makes allocations fail once this process holds `bytes` of memory and a quarter more, because
/// allocators reserve more than they fill; and the stacks of up to `threads` threads. Programs that
/// it starts are not limited.
///
/// # Errors
/// When the kernel does not report what the process holds, or refuses the limit.
pub fn limit_allocations(bytes: u64, threads: usize) -> io::Result<()> {
    const MIN_HEADROOM: u64 = 64 << 20;
    const DEFAULT_STACK: u64 = 8 << 20;
    let (reserved, resident) = (status_field("VmData:"), resident_memory());
    if reserved == 0 || resident == 0 {
        return Err(io::Error::other("the kernel does not report this process's memory"));
    }
    // Stacks count whole, though little of them is ever used.
    let stack = getrlimit(Resource::Stack).current.unwrap_or(DEFAULT_STACK).min(8 * DEFAULT_STACK);
    let headroom = bytes
        .saturating_sub(resident)
        .saturating_add(bytes / 4)
        .saturating_add(MIN_HEADROOM)
        .saturating_add(stack.saturating_mul(threads as u64));
    let limits = *UNLIMITED.get_or_init(|| getrlimit(Resource::Data));
    let current = limits.current.unwrap_or(u64::MAX).min(reserved.saturating_add(headroom));
    Ok(setrlimit(Resource::Data, Rlimit { current: Some(current), ..limits })?)
}

fn status_field(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The CPU's name, as far as the kernel reports it.
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info
        .lines()
        .find_map(|line| line.strip_prefix("model name").or_else(|| line.strip_prefix("Model")));
    let name = named.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.or_else(board).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The board's name, if the kernel reports one.
pub fn board() -> Option<String> {
    fs::read_to_string("/proc/device-tree/model")
        .ok()
        .map(|name| name.trim_end_matches('\0').to_owned())
}

/// The CPU features that determine a network's speed, of those that this CPU has.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::{available_memory, peak_resident_memory, resident_memory, total_memory};

    #[test]
    fn kernel_reports_memory() {
        let (total, resident, peak) = (total_memory(), resident_memory(), peak_resident_memory());
        assert!(0 < resident && resident <= peak && peak < total, "{resident} {peak} {total}");
        assert!((1..total).contains(&available_memory()), "{}", available_memory());
    }
}
