//! Starting the shards: all of them on their cores, or none and a reason that names the remedy.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tickwheel_server::runtime::executor::{self, CorePlan, StartError};

/// A line of the calling thread's status.
fn status(key: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").expect("a Linux with /proc");
    let line = status.lines().find(|line| line.starts_with(key)).expect("the key exists");
    line[key.len()..].trim_start_matches(':').trim().to_owned()
}

#[test]
fn each_shard_runs_on_its_core_under_its_name() {
    let plan = CorePlan::for_this_machine(1).expect("the cores are known");
    let core = plan.shard_cores[0].expect("there is a core for one shard");
    let shards =
        executor::start(&plan, vec![|| async { (status("Name"), status("Cpus_allowed_list")) }]).expect("started");
    assert_eq!(shards.join(), [("tw-shard-0".to_owned(), core.to_string())]);
}

#[test]
fn more_shards_than_cores_are_not_pinned() {
    let allowed = status("Cpus_allowed_list");
    let plan = CorePlan::on(3, &[0, 1]);
    assert_eq!(plan.shard_cores, [None; 3]);
    let body = || async { (status("Name"), status("Cpus_allowed_list")) };
    let shards = executor::start(&plan, vec![body; 3]).expect("started");
    let expected = ["tw-shard-0", "tw-shard-1", "tw-shard-2"].map(|name| (name.to_owned(), allowed.clone()));
    assert_eq!(shards.join(), expected);
}

#[test]
fn helpers_get_the_cores_that_no_shard_has() {
    let plan = CorePlan::on(2, &[1, 3, 4, 6]);
    assert_eq!((plan.shard_cores, plan.helper_cores), (vec![Some(1), Some(3)], vec![4, 6]));
    let plan = CorePlan::on(2, &[1, 3]);
    assert_eq!((plan.shard_cores, plan.helper_cores), (vec![Some(1), Some(3)], vec![1, 3]));
}

#[test]
fn no_shard_runs_when_one_cannot_start() {
    let ran = Arc::new(AtomicUsize::new(0));
    let body = {
        let ran = Arc::clone(&ran);
        move || async move { ran.fetch_add(1, Ordering::SeqCst) }
    };
    // The second core does not exist.
    let plan = CorePlan { shard_cores: vec![None, Some(1_000_000)], helper_cores: Vec::new() };
    let refused = executor::start(&plan, vec![body.clone(), body]);
    assert!(matches!(refused, Err(StartError::Executor { shard, .. }) if shard.0 == 1));
    // Both threads have dropped their bodies once they are gone.
    while Arc::strong_count(&ran) > 1 {
        thread::yield_now();
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

/// Makes the kernel answer `io_uring_setup` with EPERM to the calling thread and those it makes, as containers do.
#[expect(unsafe_code, reason = "installing a seccomp filter is a system call")]
fn deny_io_uring() {
    let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump_if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt, jf, k };
    let denied = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("positive");
    let mut filter = [
        instruction(load_number, 0, 0, 0),
        instruction(jump_if_equal, 0, 1, u32::try_from(libc::SYS_io_uring_setup).expect("small")),
        instruction(answer, 0, 0, denied),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the calls are over, and its length is right.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program), 0);
    }
}

#[test]
fn denied_io_uring_is_told_with_its_remedy() {
    let start_without = || {
        deny_io_uring();
        executor::start(&CorePlan::on(1, &[]), vec![|| async {}]).map(drop)
    };
    let error = thread::spawn(start_without).join().expect("no panic").expect_err("io_uring is denied");
    assert!(matches!(error, StartError::IoUringDenied { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("kernel.io_uring_disabled") && text.contains("seccomp") && !text.contains('\n'), "{text}");
}
