//! How the C library's allocator treats memory that was freed.

/// Freed memory that the allocator keeps at the end of each of its heaps, and the size from which it takes memory from the
/// operating system for one buffer alone, in bytes.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 32 << 20;

/// Makes the allocator keep what is freed, up to a bound, instead of giving each large buffer back to the operating system at once.
///
/// Requests and reads are buffers of up to a MiB that live for milliseconds. By default glibc returns their pages when they are
/// freed, and the kernel has to zero and map new ones for the next: that was a third of a broker's CPU time.
pub(super) fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for option in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        #[allow(unsafe_code, reason = "the C library has no other way to set this")]
        // SAFETY: `mallopt` takes two numbers, and may be called at any time from any thread.
        let taken = unsafe { libc::mallopt(option, KEPT_BYTES) };
        if taken == 0 {
            tracing::warn!(option, "the allocator refuses a setting: large buffers will cost more CPU time");
        }
    }
}
