//! Temperature, power, clock and load of this machine, where the kernel reports them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::health::{folders, line};

/// A temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Temperature {
    /// In degrees Celsius.
    pub celsius: f64,
    /// The sensor's name in the kernel.
    pub sensor: String,
}

/// The hottest thermal zone or sensor of the CPU; none if the kernel reports no temperature.
pub fn temperature() -> Option<Temperature> {
    temperature_below(Path::new("/sys"))
}

fn temperature_below(sys: &Path) -> Option<Temperature> {
    let zones = folders(&sys.join("class/thermal"), "thermal_zone")
        .map(|zone| (line(&zone.join("type")), zone.join("temp")));
    // PCs of AMD have no thermal zone for the CPU.
    let sensors = folders(&sys.join("class/hwmon"), "hwmon").filter_map(|sensor| {
        let name = line(&sensor.join("name"));
        let is_cpu = ["coretemp", "k10temp", "zenpower", "cpu_thermal"].contains(&name.as_str());
        is_cpu.then(|| (name, sensor.join("temp1_input")))
    });
    // Zones of parts that are off report temperatures far below zero.
    let read = |(sensor, file): (String, PathBuf)| {
        let celsius = number(&file)? / 1e3;
        (0.0 < celsius && celsius < 150.0).then_some(Temperature { celsius, sensor })
    };
    zones.chain(sensors).filter_map(read).max_by(|a, b| a.celsius.total_cmp(&b.celsius))
}

/// The frequency governors of the cores, such as `performance`; none if the kernel reports none.
pub fn governors() -> Option<String> {
    let mut names: Vec<String> = cores()
        .map(|core| line(&core.join("cpufreq/scaling_governor")))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The highest frequency in MHz that a core may have now; none if the kernel reports none.
pub fn max_frequency() -> Option<f64> {
    let kilohertz = cores().filter_map(|core| number(&core.join("cpufreq/scaling_max_freq")));
    kilohertz.max_by(f64::total_cmp).map(|kilohertz| kilohertz / 1e3)
}

fn cores() -> impl Iterator<Item = PathBuf> {
    folders(Path::new("/sys/devices/system/cpu"), "cpu")
}

/// The number of threads that ran or waited for a core, averaged over the last minute.
pub fn load() -> f64 {
    rustix::system::sysinfo().loads[0] as f64 / f64::from(1 << 16)
}

/// Measures the mean power from its start on.
///
/// It reads the energy counters of x86 processors (RAPL: packages, and memory where it has its
/// own; mostly for root only), or else the INA sensors of boards such as a Jetson, whose power it
/// averages over the calls of [`sample`](Self::sample).
#[derive(Debug)]
pub struct PowerMeter {
    source: Source,
    started: Instant,
    lasted: Duration,
}

#[derive(Debug)]
enum Source {
    Counters(Vec<Counter>),
    Rails { rails: Vec<Rail>, sum: f64, count: u32 },
}

/// A counter of energy in microjoules, which begins again at zero after `range`.
#[derive(Debug)]
struct Counter {
    name: String,
    file: PathBuf,
    range: f64,
    last: f64,
    total: f64,
}

/// A power supply with a sensor.
#[derive(Debug)]
struct Rail {
    name: String,
    /// Microwatts, or millivolts and milliamperes.
    files: Vec<PathBuf>,
}

impl PowerMeter {
    /// Starts measuring; none if there is no sensor that this user may read.
    pub fn start() -> Option<Self> {
        Self::below(Path::new("/sys"))
    }

    fn below(sys: &Path) -> Option<Self> {
        let (counters, rails) = (counters(sys), rails(sys));
        let source = match (counters.is_empty(), rails.is_empty()) {
            (false, _) => Source::Counters(counters),
            (true, false) => Source::Rails { rails, sum: 0.0, count: 0 },
            (true, true) => return None,
        };
        Some(Self { source, started: Instant::now(), lasted: Duration::ZERO })
    }

    /// What is measured, by the kernel's names.
    pub fn source(&self) -> String {
        let names: Vec<&str> = match &self.source {
            Source::Counters(counters) => counters.iter().map(|it| it.name.as_str()).collect(),
            Source::Rails { rails, .. } => rails.iter().map(|it| it.name.as_str()).collect(),
        };
        names.join(" + ")
    }

    /// Reads the sensors. Call it often, at least once a minute, while what is measured runs.
    pub fn sample(&mut self) {
        match &mut self.source {
            Source::Counters(counters) => counters.iter_mut().for_each(Counter::update),
            Source::Rails { rails, sum, count } => {
                if let Some(watts) = rails.iter().map(Rail::watts).sum::<Option<f64>>() {
                    (*sum, *count) = (*sum + watts, *count + 1);
                }
            }
        }
        self.lasted = self.started.elapsed();
    }

    /// The mean power in watts until the last sample; none before the first.
    pub fn watts(&self) -> Option<f64> {
        let watts = match &self.source {
            Source::Counters(counters) => {
                let joules = counters.iter().map(|it| it.total).sum::<f64>() / 1e6;
                joules / self.lasted.as_secs_f64()
            }
            Source::Rails { sum, count, .. } => sum / f64::from(*count),
        };
        // Counters that stand still, as in some virtual machines, measure nothing.
        (watts.is_finite() && watts > 0.0).then_some(watts)
    }
}

impl Counter {
    fn update(&mut self) {
        let Some(now) = number(&self.file) else { return };
        self.total += if now < self.last { now + self.range - self.last } else { now - self.last };
        self.last = now;
    }
}

/// The counters that do not contain each other: of packages, and of memory.
fn counters(sys: &Path) -> Vec<Counter> {
    let zones = folders(&sys.join("class/powercap"), "intel-rapl:");
    let mut counters: Vec<Counter> = zones
        .filter_map(|zone| {
            let name = line(&zone.join("name"));
            let is_counted = name.starts_with("package") || name == "dram";
            let (file, range) = (zone.join("energy_uj"), zone.join("max_energy_range_uj"));
            let (last, range) = (number(&file)?, number(&range)?);
            is_counted.then_some(Counter { name, file, range, last, total: 0.0 })
        })
        .collect();
    counters.sort_by(|a, b| a.file.cmp(&b.file));
    counters
}

impl Rail {
    fn watts(&self) -> Option<f64> {
        self.files.iter().map(|file| number(file)).product::<Option<f64>>().map(|it| it / 1e6)
    }
}

/// The rail of the whole board where there is one, or else all rails.
fn rails(sys: &Path) -> Vec<Rail> {
    /// The inputs of Jetson modules, which contain the other rails (NVIDIA, "Jetson Linux Developer
    /// Guide", power monitors).
    const WHOLE: [&str; 4] = ["VDD_IN", "POM_5V_IN", "5V_IN", "VIN"];
    let sensors = folders(&sys.join("class/hwmon"), "hwmon")
        .map(|sensor| (line(&sensor.join("name")), sensor))
        .filter(|(name, _)| name.starts_with("ina"));
    let mut rails: Vec<Rail> = sensors
        .flat_map(|(name, sensor)| {
            (1..=3).filter_map(move |channel| {
                let label = line(&sensor.join(format!("in{channel}_label")));
                let power = sensor.join(format!("power{channel}_input"));
                let [volts, amperes] =
                    ["in", "curr"].map(|it| sensor.join(format!("{it}{channel}_input")));
                let files = if power.exists() { vec![power] } else { vec![volts, amperes] };
                let rail =
                    Rail { name: if label.is_empty() { name.clone() } else { label }, files };
                // Channels that are not connected are called NC, or cannot be read.
                (rail.name != "NC" && rail.watts().is_some()).then_some(rail)
            })
        })
        .collect();
    rails.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(whole) = rails.iter().position(|rail| WHOLE.contains(&rail.name.as_str())) {
        return vec![rails.swap_remove(whole)];
    }
    rails
}

fn number(file: &Path) -> Option<f64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{PowerMeter, load, temperature_below};
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    fn write(sys: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = sys.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn without_sensors_nothing_is_reported() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(temperature_below(sys.path()), None);
        assert!(PowerMeter::below(sys.path()).is_none());
        assert!((0.0..1e4).contains(&load()), "{}", load());
    }

    #[test]
    fn the_hottest_plausible_zone_is_reported() {
        let sys = tempfile::tempdir().unwrap();
        let zones = [
            ("class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("class/thermal/thermal_zone0/temp", "51500"),
            // A Jetson's zones of parts that are off.
            ("class/thermal/thermal_zone1/type", "cv0-thermal"),
            ("class/thermal/thermal_zone1/temp", "-256000"),
            ("class/thermal/thermal_zone2/type", "gpu-thermal"),
        ];
        write(sys.path(), &zones);
        let found = temperature_below(sys.path()).unwrap();
        assert_eq!((found.celsius, found.sensor.as_str()), (51.5, "cpu-thermal"));
        let pc =
            [("class/hwmon/hwmon0/name", "k10temp"), ("class/hwmon/hwmon0/temp1_input", "60125")];
        write(sys.path(), &pc);
        assert_eq!(temperature_below(sys.path()).unwrap().celsius, 60.125);
    }

    #[test]
    fn counters_of_energy_wrap_around_and_are_counted_once() {
        let sys = tempfile::tempdir().unwrap();
        let zone = |name: &str, kind: &str, energy: &str| {
            let folder = format!("class/powercap/{name}");
            for (file, text) in
                [("name", kind), ("energy_uj", energy), ("max_energy_range_uj", "1000000")]
            {
                write(sys.path(), &[(&format!("{folder}/{file}"), text)]);
            }
        };
        let read = |package: &str, memory: &str| {
            zone("intel-rapl:0", "package-0", package);
            zone("intel-rapl:0:0", "core", package);
            zone("intel-rapl:0:1", "dram", memory);
            zone("intel-rapl:1", "psys", package);
            zone("intel-rapl-mmio:0", "package-0", package);
        };
        read("900000", "100000");
        let mut meter = PowerMeter::below(sys.path()).unwrap();
        assert_eq!((meter.source().as_str(), meter.watts()), ("package-0 + dram", None));
        read("100000", "200000");
        meter.sample();
        read("300000", "300000");
        meter.sample();
        meter.lasted = Duration::from_millis(500);
        // 0.2 + 0.2 J of the package, 0.1 + 0.1 J of the memory.
        assert!((meter.watts().unwrap() - 0.6 / 0.5).abs() < 1e-9, "{:?}", meter.watts());
    }

    #[test]
    fn the_rail_of_the_whole_board_is_measured_alone() {
        let sys = tempfile::tempdir().unwrap();
        let rails = [
            ("class/hwmon/hwmon1/name", "ina3221"),
            ("class/hwmon/hwmon1/in1_label", "VDD_CPU_CV"),
            ("class/hwmon/hwmon1/in1_input", "5000"),
            ("class/hwmon/hwmon1/curr1_input", "400"),
            ("class/hwmon/hwmon1/in2_label", "VDD_SOC"),
            ("class/hwmon/hwmon1/in2_input", "5000"),
            ("class/hwmon/hwmon1/curr2_input", "200"),
            ("class/hwmon/hwmon1/in3_label", "NC"),
            ("class/hwmon/hwmon1/in3_input", "5000"),
            ("class/hwmon/hwmon1/curr3_input", "900"),
        ];
        write(sys.path(), &rails);
        let mut meter = PowerMeter::below(sys.path()).unwrap();
        assert_eq!(meter.watts(), None);
        meter.sample();
        assert_eq!(meter.source(), "VDD_CPU_CV + VDD_SOC");
        assert!((meter.watts().unwrap() - 3.0).abs() < 1e-9);
        write(sys.path(), &[("class/hwmon/hwmon1/curr1_input", "800")]);
        meter.sample();
        assert!((meter.watts().unwrap() - 4.0).abs() < 1e-9, "the mean of 3 and 5 W");
        let input = [
            ("class/hwmon/hwmon2/name", "ina238"),
            ("class/hwmon/hwmon2/in1_label", "VDD_IN"),
            ("class/hwmon/hwmon2/power1_input", "7250000"),
        ];
        write(sys.path(), &input);
        let mut meter = PowerMeter::below(sys.path()).unwrap();
        meter.sample();
        assert_eq!((meter.source().as_str(), meter.watts()), ("VDD_IN", Some(7.25)));
    }
}
