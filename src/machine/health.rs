//! Whether the machine is throttled by heat or undervoltage, where the kernel reports it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The reason for throttling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthProblem {
    /// The CPU is throttled because it is too hot.
    TooHot,
    /// The supply voltage is too low, which throttles a Raspberry Pi.
    LowPower,
}

impl std::fmt::Display for HealthProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooHot => write!(
                f,
                "the CPU is slowed down because it is too hot; give it a fan, or a lower \
                 frame rate to keep up with"
            ),
            Self::LowPower => f.write_str(
                "the supply gives too little voltage, and the board is slowed down; take the \
                 supply it is made for",
            ),
        }
    }
}

/// Monitors the machine during a run.
#[derive(Debug)]
pub struct Health {
    sys: PathBuf,
    /// How often the CPU had been throttled at the start.
    slowed: u64,
    reported: BTreeSet<HealthProblem>,
}

impl Default for Health {
    fn default() -> Self {
        Self::below(Path::new("/sys"))
    }
}

impl Health {
    fn below(sys: &Path) -> Self {
        Self { sys: sys.into(), slowed: slowed(sys), reported: BTreeSet::new() }
    }

    /// The reasons for throttling that were not reported yet.
    pub fn unreported(&mut self) -> Vec<HealthProblem> {
        let mut now = BTreeSet::new();
        if let Some(bits) = throttled(&self.sys) {
            now.extend((bits & 0b0001 != 0).then_some(HealthProblem::LowPower));
            // Throttled, or at the soft limit of a Pi 3B+. Bit 1, a capped frequency, follows from
            // either.
            now.extend((bits & 0b1100 != 0).then_some(HealthProblem::TooHot));
        }
        now.extend(undervoltage(&self.sys).then_some(HealthProblem::LowPower));
        now.extend(
            (slowed(&self.sys) > self.slowed || is_cooled(&self.sys))
                .then_some(HealthProblem::TooHot),
        );
        let unreported = now.difference(&self.reported).copied().collect();
        self.reported.extend(now);
        unreported
    }
}

/// The flags of a Raspberry Pi's firmware for this moment: bit 0 undervoltage, 1 frequency capped,
/// 2 throttled, 3 soft temperature limit.
fn throttled(sys: &Path) -> Option<u32> {
    let text =
        fs::read_to_string(sys.join("devices/platform/soc/soc:firmware/get_throttled")).ok()?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// The alarm of a Raspberry Pi's voltage sensor.
fn undervoltage(sys: &Path) -> bool {
    folders(&sys.join("class/hwmon"), "hwmon").any(|sensor| {
        line(&sensor.join("name")) == "rpi_volt" && line(&sensor.join("in0_lcrit_alarm")) == "1"
    })
}

/// How often Intel CPUs were throttled.
fn slowed(sys: &Path) -> u64 {
    let counters = ["core_throttle_count", "package_throttle_count"];
    let counts = folders(&sys.join("devices/system/cpu"), "cpu").flat_map(|core| {
        counters
            .map(|counter| line(&core.join("thermal_throttle").join(counter)).parse().unwrap_or(0))
    });
    counts.fold(0, u64::saturating_add)
}

/// Whether a cooling device throttles the CPU, as on a Jetson. Fans do not count.
fn is_cooled(sys: &Path) -> bool {
    folders(&sys.join("class/thermal"), "cooling_device").any(|device| {
        let kind = line(&device.join("type")).to_lowercase();
        let slows = ["cpufreq", "throttle", "processor"].iter().any(|word| kind.contains(word));
        slows && line(&device.join("cur_state")).parse().is_ok_and(|state: u32| state > 0)
    })
}

pub(super) fn folders(place: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(place).into_iter().flatten().filter_map(std::result::Result::ok);
    entries
        .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

/// The only line of a file; empty if there is no file.
pub(super) fn line(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Health, HealthProblem};
    use std::fs;
    use std::path::Path;

    fn write(sys: &Path, name: &str, text: &str) {
        let path = sys.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn detects_undervoltage_of_a_raspberry_pi() {
        let sys = tempfile::tempdir().unwrap();
        let firmware = "devices/platform/soc/soc:firmware/get_throttled";
        // It was hot and undervolted earlier, and is not now.
        write(sys.path(), firmware, "50000\n");
        let mut health = Health::below(sys.path());
        assert_eq!(health.unreported(), []);
        write(sys.path(), firmware, "50001\n");
        assert_eq!(health.unreported(), [HealthProblem::LowPower]);
        assert_eq!(health.unreported(), [], "it is reported once");
        write(sys.path(), firmware, "50005\n");
        assert_eq!(health.unreported(), [HealthProblem::TooHot]);
        write(sys.path(), "class/hwmon/hwmon1/name", "rpi_volt\n");
        write(sys.path(), "class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(
            Health::below(sys.path()).unreported(),
            [HealthProblem::TooHot, HealthProblem::LowPower]
        );
    }

    #[test]
    fn detects_throttling_of_a_pc_since_the_start() {
        let sys = tempfile::tempdir().unwrap();
        let counter = "devices/system/cpu/cpu1/thermal_throttle/package_throttle_count";
        write(sys.path(), counter, "7\n");
        let mut health = Health::below(sys.path());
        assert_eq!(health.unreported(), []);
        write(sys.path(), counter, "8\n");
        assert_eq!(health.unreported(), [HealthProblem::TooHot]);
    }

    #[test]
    fn detects_throttling_of_a_jetson_but_not_its_fan() {
        let sys = tempfile::tempdir().unwrap();
        write(sys.path(), "class/thermal/cooling_device0/type", "pwm-fan\n");
        write(sys.path(), "class/thermal/cooling_device0/cur_state", "3\n");
        write(sys.path(), "class/thermal/cooling_device1/type", "cpu-throttle-alert\n");
        write(sys.path(), "class/thermal/cooling_device1/cur_state", "0\n");
        let mut health = Health::below(sys.path());
        assert_eq!(health.unreported(), []);
        write(sys.path(), "class/thermal/cooling_device1/cur_state", "1\n");
        assert_eq!(health.unreported(), [HealthProblem::TooHot]);
    }
}
