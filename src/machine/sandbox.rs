//! A sandbox for this process: what it may read and write, and nothing else of the system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use crate::error::{Cause, Error, Result};

/// What every run reads beside its files: system libraries, what the kernel tells of this process
/// and of the machine, and the time zone.
const SYSTEM: [&str; 17] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/driver",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm",
    "/sys",
    "/dev/urandom",
    "/dev/zero",
];

/// System calls that fail with EPERM: those that start programs, open connections, reach other
/// processes, or change files by their names in ways that Landlock does not limit.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_truncate,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    // The names of older systems, which 64-bit ARM never had.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
];

/// The numbers of the same system calls in x32, an interface of x86-64 that shares its filter: with
/// this bit, and some with numbers of their own (execve, ptrace, process_vm_readv and _writev,
/// rt_sigqueueinfo, rt_tgsigqueueinfo, execveat).
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ALONE: [libc::c_long; 7] = [520, 521, 524, 536, 539, 540, 545];

/// The files of a run, and what may be done with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
}

impl Sandbox {
    /// A file to read, or a folder with all that is in it; of a pattern (`*`, `?`, `[`), the folder
    /// before it. What does not exist is left out.
    #[must_use]
    pub fn read(mut self, path: &Path) -> Self {
        let is_plain = |part: &Component<'_>| {
            !part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
        };
        let read = match path.exists() {
            true => path.to_owned(),
            false => {
                let before: PathBuf = path.components().take_while(is_plain).collect();
                if before == path {
                    return self;
                }
                if before.as_os_str().is_empty() { PathBuf::from(".") } else { before }
            }
        };
        self.reads.push(read);
        self
    }

    /// A model: all of its folder, or of the folder that holds its file.
    #[must_use]
    pub fn model(self, path: &Path) -> Self {
        if path.is_dir() {
            self.read(path)
        } else if path.is_file() {
            self.read(folder_of(path))
        } else {
            self
        }
    }

    /// A result: what is in its folder may be written, or in the result itself if that is a folder.
    /// Of folders that do not exist yet, the nearest that does.
    #[must_use]
    pub fn write(mut self, path: &Path) -> Self {
        let mut folder = if path.is_dir() { path } else { folder_of(path) };
        while !folder.exists() {
            folder = folder_of(folder);
        }
        self.writes.push(folder.to_owned());
        self
    }

    /// Confines this process, and all threads and programs that it starts, for good. Files that are
    /// open stay open. Call it before other threads start.
    ///
    /// # Errors
    /// [`Error::Sandbox`] when the kernel lacks Landlock or seccomp, or when other threads exist,
    /// which would not be confined. The process may be confined in part then, and should end.
    pub fn enter(self) -> Result<()> {
        let threads = fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or_default();
        if threads != 1 {
            let problem = format!("it has {threads} threads, and one alone can be confined");
            return Err(Error::Sandbox { problem, source: None });
        }
        super::IS_CONFINED.store(true, Ordering::Relaxed);
        self.confine_files()?;
        refuse_system_calls()
    }

    fn confine_files(&self) -> Result<()> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let special = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock;
        let write = AccessFs::from_all(ABI::V3) & !(special | AccessFs::Execute);
        let rules =
            |paths: Vec<PathBuf>, access: BitFlags<AccessFs>| path_beneath_rules(paths, access);
        let mut reads: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        reads.extend(std::env::split_paths(&libraries));
        reads.extend(std::env::current_exe());
        reads.extend(self.reads.iter().cloned());
        let lacks = "the kernel has no Landlock, which limits access to files: it came with Linux \
                     5.13, and may be left out of a kernel or turned off at its start \
                     (/sys/kernel/security/lsm lists what is on)";
        let failed = |cause: Cause| not_confined(lacks, cause);
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .map_err(|cause| failed(cause.into()))?
            // Newer kernels limit more: truncating, devices, TCP, signals.
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))
            .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V4)))
            .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
            .and_then(Ruleset::create)
            .and_then(|ruleset| ruleset.add_rules(rules(reads, read)))
            .and_then(|ruleset| {
                ruleset.add_rules(rules(vec!["/dev/null".into()], read | AccessFs::WriteFile))
            })
            .and_then(|ruleset| ruleset.add_rules(rules(self.writes.clone(), write)))
            .and_then(|ruleset| ruleset.restrict_self())
            .map_err(|cause| failed(cause.into()))?;
        match status.ruleset {
            RulesetStatus::NotEnforced => {
                Err(Error::Sandbox { problem: lacks.into(), source: None })
            }
            _ => Ok(()),
        }
    }
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

fn not_confined(problem: &str, cause: Cause) -> Error {
    Error::Sandbox { problem: problem.into(), source: Some(cause) }
}

fn refuse_system_calls() -> Result<()> {
    let failed = |cause: Cause| {
        let lacks = "the kernel has no seccomp filters, which limit system calls: a kernel may be \
                     built without them (CONFIG_SECCOMP_FILTER)";
        not_confined(lacks, cause)
    };
    let program = filter().map_err(|cause| failed(cause.into()))?;
    apply_filter_all_threads(&program).map_err(|cause| failed(cause.into()))
}

/// The filter: the calls of [`REFUSED`], and signals to other processes.
fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let own = u64::from(std::process::id());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    let other = SeccompRule::new(vec![other])?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_kill, vec![other.clone()]);
    rules.insert(libc::SYS_tgkill, vec![other]);
    #[cfg(target_arch = "x86_64")]
    {
        let x32: Vec<_> = rules.keys().copied().chain(X32_ALONE).collect();
        rules.extend(x32.into_iter().map(|call| (X32 | call, Vec::new())));
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}
