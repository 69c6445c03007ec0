//! The errors of Linux, so that the simulated disk and the real one fail alike.

use std::io;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name() -> io::Error {
            io::Error::from_raw_os_error($number)
        }
    )*};
}

errors! {
    /// ENOENT
    not_found = 2,
    /// EIO
    input_output = 5,
    /// EBADF
    bad_handle = 9,
    /// EEXIST
    exists = 17,
    /// ENOTDIR
    not_a_directory = 20,
    /// EISDIR
    is_a_directory = 21,
    /// EINVAL
    invalid = 22,
    /// ENOSPC
    no_space = 28,
    /// ENOTEMPTY
    not_empty = 39,
}
