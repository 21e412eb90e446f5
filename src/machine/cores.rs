//! Which cores of a CPU are fast, where they differ in speed.

use std::fs;
use std::path::Path;

/// The fast cores that this process may use, one per physical core. None if all cores are alike or
/// the kernel does not report the difference.
pub fn fast_cores() -> Option<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    fast_cores_below(Path::new("/sys"), &|core| {
        core < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(core)
    })
}

/// Cores below this fraction of the fastest core's capacity are slow. A Cortex-A55 has half the
/// capacity of an A76, a Cortex-A78 nine tenths of that of an X1.
const FAST_PART: f64 = 0.75;

fn fast_cores_below(sys: &Path, allowed: &dyn Fn(usize) -> bool) -> Option<Vec<usize>> {
    let cores = sys.join("devices/system/cpu");
    let mut present: Vec<usize> = fs::read_dir(&cores)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .filter(|&core| allowed(core))
        .collect();
    present.sort_unstable();
    let of =
        |core: usize, name: &str| fs::read_to_string(cores.join(format!("cpu{core}/{name}"))).ok();
    // ARM kernels report capacities; Intel's report the type of each core.
    let capacity =
        |core: usize| of(core, "cpu_capacity").and_then(|text| text.trim().parse::<f64>().ok());
    let capacities: Option<Vec<f64>> = present.iter().map(|&core| capacity(core)).collect();
    let is_fast: Box<dyn Fn(usize) -> bool> =
        match (&capacities, fs::read_to_string(sys.join("devices/cpu_core/cpus"))) {
            (Some(capacities), _) => {
                let most = capacities.iter().copied().fold(0.0, f64::max);
                Box::new(move |core| {
                    capacity(core).is_some_and(|capacity| capacity >= FAST_PART * most)
                })
            }
            (None, Ok(list)) => {
                let listed = listed(&list);
                Box::new(move |core| listed.contains(&core))
            }
            (None, Err(_)) => return None,
        };
    let fast: Vec<usize> = present.iter().copied().filter(|&core| is_fast(core)).collect();
    if fast.is_empty() || fast.len() == present.len() {
        return None;
    }
    // Only the first sibling: two threads on one physical core are not faster than one.
    let is_first = |&core: &usize| {
        let siblings = of(core, "topology/thread_siblings_list").map(|list| listed(&list));
        siblings.is_none_or(|siblings| {
            siblings.iter().filter(|sibling| fast.contains(sibling)).min() == Some(&core)
        })
    };
    Some(fast.iter().copied().filter(is_first).collect())
}

/// Parses a list in the kernel's format: `0-3,8`.
fn listed(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{fast_cores_below, listed};
    use std::fs;
    use std::path::Path;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn parses_kernel_lists() {
        assert_eq!(listed("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(listed("\n"), [0; 0]);
    }

    #[test]
    fn finds_the_big_cores_of_arm() {
        let sys = tempfile::tempdir().unwrap();
        // An RK3588: four Cortex-A55, four A76.
        for (core, capacity) in [530, 530, 530, 530, 1024, 1024, 1024, 1024].into_iter().enumerate()
        {
            write(
                sys.path(),
                &format!("devices/system/cpu/cpu{core}/cpu_capacity"),
                &format!("{capacity}\n"),
            );
        }
        assert_eq!(fast_cores_below(sys.path(), &|_| true), Some(vec![4, 5, 6, 7]));
        assert_eq!(fast_cores_below(sys.path(), &|core| core < 6), Some(vec![4, 5]));
        assert_eq!(fast_cores_below(sys.path(), &|core| core < 4), None);
    }

    #[test]
    fn finds_the_performance_cores_of_intel() {
        let sys = tempfile::tempdir().unwrap();
        // Two cores of two threads each, and four of one thread.
        for core in 0..8 {
            let siblings = if core < 4 {
                format!("{}-{}", core / 2 * 2, core / 2 * 2 + 1)
            } else {
                core.to_string()
            };
            write(
                sys.path(),
                &format!("devices/system/cpu/cpu{core}/topology/thread_siblings_list"),
                &siblings,
            );
        }
        assert_eq!(fast_cores_below(sys.path(), &|_| true), None);
        write(sys.path(), "devices/cpu_core/cpus", "0-3\n");
        assert_eq!(fast_cores_below(sys.path(), &|_| true), Some(vec![0, 2]));
        assert_eq!(fast_cores_below(sys.path(), &|core| core != 0), Some(vec![1, 2]));
    }

    #[test]
    fn reports_no_fast_cores_if_all_are_alike() {
        let sys = tempfile::tempdir().unwrap();
        for core in 0..4 {
            write(sys.path(), &format!("devices/system/cpu/cpu{core}/cpu_capacity"), "1024\n");
        }
        assert_eq!(fast_cores_below(sys.path(), &|_| true), None);
        assert_eq!(fast_cores_below(&sys.path().join("nowhere"), &|_| true), None);
    }
}
